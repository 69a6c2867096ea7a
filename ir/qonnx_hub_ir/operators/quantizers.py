"""Quantizers: those of QONNX, those of ONNX, and thresholds."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx_ir import Node

from qonnx_hub_ir import dialect
from qonnx_hub_ir.operators.row import (
    RISING,
    UNORDERED,
    Batch,
    Buffer,
    Family,
    Operator,
    constant,
    row,
)

_COARSE: dict[str, Any] = {"quantizes": True, "piecewise_constant": True}


def scale_directions(node: Node) -> tuple[int, ...]:
    """Return whether a quantizer rises: it does where its scales are constant and positive."""
    scale = constant(node, 1)
    rises = scale is not None and bool(np.all(np.isfinite(scale)) and np.all(scale > 0))
    return (RISING if rises else UNORDERED, *(len(node.inputs) - 1) * (UNORDERED,))


def _qonnx(name: str, **traits: Any) -> Operator:
    others = (word.replace(" ", "_") for word in dialect.PARAMETERS[name].values())
    return row(
        *(dialect.DOMAIN, Family.QUANTIZER, name, " +".join(("values", *others))),
        elementwise=True,
        batch=Batch.BROADCAST,
        **{**_COARSE, **traits},
    )


def _linear(name: str, **traits: Any) -> Operator:
    return row(
        *("", Family.QUANTIZER, name, "data +scale +zero_point"),
        axis=((13, 1),),
        monotone=scale_directions,
        order_is_exact=True,
        **traits,
    )


OPERATORS: tuple[Operator, ...] = (
    _qonnx("Quant", monotone=scale_directions, is_uniform=True, buffer=Buffer.FRESH),
    _qonnx("BipolarQuant", monotone=scale_directions, is_uniform=True, buffer=Buffer.FRESH),
    _qonnx("Trunc", monotone=scale_directions),
    _qonnx("FloatQuant"),
    row(
        *(dialect.DOMAIN, Family.QUANTIZER, dialect.THRESHOLDS, "values +thresholds"),
        batch=Batch.FIRST_INPUT,
        **_COARSE,
    ),
    _linear("QuantizeLinear", **_COARSE, is_whole=True, changed=(19, 21, 23)),
    _linear("DequantizeLinear"),
    row("", Family.QUANTIZER, "DynamicQuantizeLinear", "data", quantizes=True),
    row(
        *(dialect.DOMAIN, Family.OTHER, "Im2Col", "data"),
        batch=Batch.FIRST_INPUT,
        channel_axis=-1,
    ),
)
"""Their rows."""
