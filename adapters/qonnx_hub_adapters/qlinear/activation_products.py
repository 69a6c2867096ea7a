"""Matrix products of two activations: both factors are codes, no sum is known beforehand."""

from __future__ import annotations

import math

import numpy as np
from onnx_ir import Node

from qonnx_hub_adapters.qlinear.epilogue import ChannelLayout
from qonnx_hub_adapters.qlinear.integer_values import Codes
from qonnx_hub_adapters.qlinear.products import QuantizedProduct
from qonnx_hub_ir.analysis.integer_sums import INT32, SumRange
from qonnx_hub_ir.graph.queries import dims, rank_of


def read_pair(node: Node, x: Codes, other: Codes) -> QuantizedProduct | str:
    """Return the integer product of two activations that a MatMul is, or why it is none.

    All columns of the result are alike: one scale, one range of sums.

    Args:
        node: A MatMul.
        x: Integers of its first input.
        other: Integers of its second input.
    """
    rank, factor = rank_of(node.outputs[0]), dims(node.inputs[1]) or ()
    # As many products are added as the last axis but one of the second factor is long.
    length = factor[-2] if len(factor) > 1 else None
    if rank is None or rank < 2 or not isinstance(length, int):
        return "its sums have a length that is not known"
    ends = [a * b for a in (x.low, x.high) for b in (other.low, other.high)]
    largest = max(abs(end) for end in ends) * length
    if largest > INT32[1]:
        return "its sums can exceed 32 bits"
    sums = SumRange(
        np.array([min(ends) * length], dtype=np.int64),
        np.array([max(ends) * length], dtype=np.int64),
        np.array([largest], dtype=np.int64),
    )
    return QuantizedProduct(
        node=node,
        x=x,
        is_conv=False,
        # Stands for any second factor; what it holds is only its length and its reach.
        weights=np.full((length, 1), max(abs(other.low), abs(other.high)), dtype=np.int16),
        scale=np.asarray(other.scale, dtype=np.float32).reshape(1),
        layout=ChannelLayout(rank, rank - 1, 1),
        sums=sums,
        other=other,
    )


def moments(codes: Codes) -> tuple[float, float]:
    """Return mean and mean square of levels, when all are equally likely."""
    low, high = codes.low, codes.high
    mean = (low + high) / 2
    return mean, mean * mean + ((high - low + 1) ** 2 - 1) / 12


def spread_of_pair(x: Codes, other: Codes, length: int) -> tuple[float, float]:
    """Return mean and deviation of a sum of products of independent levels."""
    means, squares = zip(moments(x), moments(other), strict=True)
    mean = means[0] * means[1]
    variance = squares[0] * squares[1] - mean * mean
    return length * mean, math.sqrt(max(length * variance, 1.0 / 12))
