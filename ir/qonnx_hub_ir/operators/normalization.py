"""Operators that shift and scale by statistics, which are stored or taken from the data."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx_ir import Node

from qonnx_hub_ir.operators.row import (
    FALLING,
    RISING,
    UNORDERED,
    Batch,
    Buffer,
    Family,
    Operator,
    constant,
    is_inference,
    row,
)

_CHANNELS: dict[str, Any] = {"channel_axis": 1, "batch": Batch.FIRST_INPUT}


def batch_normalization_directions(node: Node) -> tuple[int, ...]:
    """Return whether a batch normalization rises, by the sign of its gains."""
    gain = constant(node, 1)
    if gain is None or not is_inference(node):
        return (UNORDERED,)
    if np.all(gain >= 0):
        return (RISING, *4 * (UNORDERED,))
    return (FALLING, *4 * (UNORDERED,)) if np.all(gain <= 0) else (UNORDERED,)


def batch_normalization_batch(node: Node) -> Batch:
    """Return whether samples stay apart: not where the statistics are taken from them."""
    return Batch.FIRST_INPUT if is_inference(node) else Batch.UNKNOWN


def _norm(name: str, inputs: str, **traits: Any) -> Operator:
    return row("", Family.NORMALIZATION, name, inputs, **traits)


OPERATORS: tuple[Operator, ...] = (
    _norm(
        *("BatchNormalization", "data +gamma +beta +mean +variance"),
        channel_axis=1,
        is_per_channel=True,
        batch=batch_normalization_batch,
        monotone=batch_normalization_directions,
        without_effect=frozenset({"momentum"}),
        buffer=Buffer.FRESH,
        changed=(7, 9, 14),
    ),
    _norm("InstanceNormalization", "data +gamma +beta", **_CHANNELS, is_per_channel=True),
    _norm("GroupNormalization", "data +gamma +beta", **_CHANNELS, changed=(21,)),
    _norm("LRN", "data", **_CHANNELS),
    _norm(
        *("LayerNormalization", "data +gamma +beta"),
        axis=((17, -1),),
        batch=Batch.OTHER_AXIS,
    ),
    _norm("RMSNormalization", "data +gamma", axis=((23, -1),), batch=Batch.OTHER_AXIS),
    _norm("LpNormalization", "data", axis=((1, -1),), batch=Batch.OTHER_AXIS),
    # Its axes are an attribute, and all samples by default.
    _norm("MeanVarianceNormalization", "data"),
)
"""Their rows."""
