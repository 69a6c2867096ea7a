"""What every tensor of a model can hold: ranges, integers, scales, constants, accumulators.

The walk is in :mod:`~qonnx_hub_ir.analysis.value_ranges`, one module of rules per family of
operators beside it; :mod:`~qonnx_hub_ir.analysis.value_info` says what is known of a tensor.
"""

from __future__ import annotations

from qonnx_hub_ir.analysis.accumulators import Accumulator, AccumulatorRange, accumulators
from qonnx_hub_ir.analysis.grids import Grid, IntegerType
from qonnx_hub_ir.analysis.value_info import Constant, ValueInfo
from qonnx_hub_ir.analysis.value_ranges import (
    InputRange,
    infer_constants,
    infer_values,
    parse_type,
)

__all__ = [
    "Accumulator",
    "AccumulatorRange",
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
