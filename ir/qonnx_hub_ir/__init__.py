"""The neutral form: what a quantized graph means.

The container is :class:`onnx_ir.Model`; the meaning of its quantizers is in
:mod:`~qonnx_hub_ir.quantizers` (data), :mod:`~qonnx_hub_ir.semantics` (numbers) and
:mod:`~qonnx_hub_ir.dialect` (spelling).

Everything is imported on first use: most of the time of an import is that of onnx_ir.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    from qonnx_hub_ir.validity import require_valid, verify

_HOMES = {
    "onnx_ir": (
        "Graph",
        "Model",
        "Node",
        "Value",
    ),
    "qonnx_hub_ir.errors": (
        "AdapterConflictError",
        "ExecutionError",
        "Gap",
        "HubError",
        "InvalidModelError",
        "Issue",
        "MissingDependencyError",
        "NotExactError",
        "PassError",
        "SourceError",
        "UnknownAdapterError",
        "UnknownNameError",
        "UnsupportedGraphError",
        "UsageError",
    ),
    "qonnx_hub_ir.quantizers": (
        "BipolarQuant",
        "FloatQuant",
        "IntQuant",
        "Quantizer",
        "Rounding",
        "Trunc",
        "is_power_of_two",
    ),
    "qonnx_hub_ir.semantics": (
        "quantize",
        "quantize_to_integers",
    ),
    "qonnx_hub_ir.validity": (
        "require_valid",
        "verify",
    ),
}
"""Module -> what is public of it."""

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


def __getattr__(name: str) -> Any:
    """Return a public name, importing its home on first use."""
    for home, names in _HOMES.items():
        if name in names:
            value = getattr(importlib.import_module(home), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'qonnx_hub_ir' has no attribute '{name}'")


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
