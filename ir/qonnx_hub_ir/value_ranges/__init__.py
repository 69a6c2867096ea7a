"""What every tensor of a model can hold: ranges, integers, scales, constants, accumulators.

The walk is in :mod:`~qonnx_hub_ir.value_ranges.inference`, one module of rules per family of
operators beside it; :mod:`~qonnx_hub_ir.value_ranges.info` says what is known of a tensor.
"""

from __future__ import annotations

from qonnx_hub_ir.value_ranges.accumulators import Accumulator, accumulators
from qonnx_hub_ir.value_ranges.grids import Grid, IntegerType
from qonnx_hub_ir.value_ranges.inference import (
    InputRange,
    infer_constants,
    infer_values,
    parse_type,
)
from qonnx_hub_ir.value_ranges.info import Constant, ValueInfo

__all__ = [
    "Accumulator",
    "Constant",
    "Grid",
    "InputRange",
    "IntegerType",
    "ValueInfo",
    "accumulators",
    "infer_constants",
    "infer_values",
    "parse_type",
]
