"""Sums of products: convolutions, matrix products, attention; of floats and of integers."""

from __future__ import annotations

from typing import Any

from qonnx_hub_ir.operators.row import Batch, Buffer, Family, Operator, Product, row

_WINDOWS: dict[str, Any] = {"channel_axis": 1, "is_windowed": True, "batch": Batch.FIRST_INPUT}
_QLINEAR = (
    "{0} +{0}_scale +{0}_zero_point {1} +{1}_scale +{1}_zero_point +y_scale +y_zero_point"
)


def _product(
    name: str, inputs: str, product: Product | None = None, **traits: Any
) -> Operator:
    return row("", Family.PRODUCT, name, inputs, product=product, **traits)


OPERATORS: tuple[Operator, ...] = (
    _product(
        *("Conv", "left +weight +bias", Product(bias=2, slides=True)),
        **_WINDOWS,
        buffer=Buffer.FRESH,
    ),
    _product("ConvTranspose", "left +weight +bias", Product(bias=2, slides=True), **_WINDOWS),
    _product("Gemm", "left +weight +bias", Product(bias=2), buffer=Buffer.FRESH, changed=(7,)),
    _product("MatMul", "left weight", Product(), buffer=Buffer.FRESH),
    _product(
        *("ConvInteger", "x +w +x_zero_point +w_zero_point"),
        Product(zero_points=(2, 3), is_integer=True, slides=True),
        **_WINDOWS,
    ),
    _product(
        *("QLinearConv", _QLINEAR.format("x", "w").replace(" w ", " +w ") + " +bias"),
        Product(3, 8, (1, 4, 6), (2, 5, 7), is_integer=True, slides=True),
        **_WINDOWS,
    ),
    _product(
        *("MatMulInteger", "left right +left_zero_point +right_zero_point"),
        Product(zero_points=(2, 3), is_integer=True),
    ),
    _product(
        *("QLinearMatMul", _QLINEAR.format("left", "right")),
        Product(3, None, (1, 4, 6), (2, 5, 7), is_integer=True),
    ),
    _product("DeformConv", "data +weight offset +bias mask", **_WINDOWS),
    _product("Einsum", "data*"),
    _product("Attention", "query key value mask past_key past_value -lengths", changed=(24,)),
    _product("LinearAttention", "query key value state decay beta"),
    _product("CausalConvWithState", "data +weight +bias state"),
    row("ai.onnx.preview", Family.PRODUCT, "FlexAttention", "query key value", subgraphs=True),
)
"""Their rows."""
