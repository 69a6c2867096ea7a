"""The neutral form: what a quantized graph means.

The container is :class:`onnx_ir.Model`; the meaning of its quantizers is in
:mod:`~qonnx_hub_ir.quantizers` (data), :mod:`~qonnx_hub_ir.semantics` (numbers) and
:mod:`~qonnx_hub_ir.dialect` (spelling).
"""

from __future__ import annotations

from onnx_ir import Graph, Model, Node, Value

from qonnx_hub_ir.errors import (
    AdapterConflictError,
    ExecutionError,
    Gap,
    HubError,
    InvalidModelError,
    Issue,
    MissingDependencyError,
    NotExactError,
    PassError,
    SourceError,
    UnknownAdapterError,
    UnknownNameError,
    UnsupportedGraphError,
    UsageError,
)
from qonnx_hub_ir.quantizers import (
    BipolarQuant,
    FloatQuant,
    IntQuant,
    Quantizer,
    Rounding,
    Trunc,
    is_power_of_two,
)
from qonnx_hub_ir.semantics import quantize, quantize_to_integers
from qonnx_hub_ir.verify import require_valid, verify

__all__ = [
    "AdapterConflictError",
    "BipolarQuant",
    "ExecutionError",
    "FloatQuant",
    "Gap",
    "Graph",
    "HubError",
    "IntQuant",
    "InvalidModelError",
    "Issue",
    "MissingDependencyError",
    "Model",
    "Node",
    "NotExactError",
    "PassError",
    "Quantizer",
    "Rounding",
    "SourceError",
    "Trunc",
    "UnknownAdapterError",
    "UnknownNameError",
    "UnsupportedGraphError",
    "UsageError",
    "Value",
    "is_power_of_two",
    "quantize",
    "quantize_to_integers",
    "require_valid",
    "verify",
]
