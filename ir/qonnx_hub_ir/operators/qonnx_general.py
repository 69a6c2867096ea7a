"""Operators of QONNX' general domain that are no quantizers: what FINN's passes make."""

from __future__ import annotations

from qonnx_hub_ir import dialect
from qonnx_hub_ir.operators.row import RISING, Batch, Family, Operator, row

OPERATORS: tuple[Operator, ...] = (
    row(
        *(dialect.DOMAIN, Family.POOLING, "QuantAvgPool2d", "data"),
        batch=Batch.FIRST_INPUT,
        is_whole=True,
        piecewise_constant=True,
    ),
    row(
        *(dialect.DOMAIN, Family.POOLING, "MaxPoolNHWC", "data"),
        batch=Batch.FIRST_INPUT,
        selects_by_order=True,
        monotone=(RISING,),
        order_is_exact=True,
        channel_axis=-1,
    ),
    row(
        *(dialect.DOMAIN, Family.PRODUCT, "XnorPopcountMatMul", "left weight"),
        batch=Batch.FIRST_INPUT,
    ),
    row(
        *(dialect.DOMAIN, Family.OTHER, "DebugMarker", "data"),
        batch=Batch.FIRST_INPUT,
        elementwise=True,
    ),
)
"""Their rows."""
