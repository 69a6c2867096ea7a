"""onnxruntime's own operators on integers (com.microsoft), as far as they are read here."""

from __future__ import annotations

from typing import Any

from qonnx_hub_ir import dialect
from qonnx_hub_ir.operators.quantizers import scale_directions
from qonnx_hub_ir.operators.row import Batch, Family, Operator, Pool, Product, row

_CODES = "data +scale +zero_point +y_scale +y_zero_point"
_PAIR = (
    "left +left_scale +left_zero_point right +right_scale +right_zero_point "
    "+y_scale +y_zero_point"
)


def _row(family: Family, name: str, inputs: str, **traits: Any) -> Operator:
    return row(dialect.ONNXRUNTIME_DOMAIN, family, name, inputs, **traits)


OPERATORS: tuple[Operator, ...] = (
    _row(
        *(Family.QUANTIZER, "QuantizeLinear", "data +scale +zero_point"),
        axis=((1, 1),),
        monotone=scale_directions,
        order_is_exact=True,
        quantizes=True,
        piecewise_constant=True,
        is_whole=True,
    ),
    _row(
        *(Family.QUANTIZER, "DequantizeLinear", "data +scale +zero_point"),
        axis=((1, 1),),
        monotone=scale_directions,
        order_is_exact=True,
    ),
    _row(
        *(Family.PRODUCT, "DynamicQuantizeMatMul"),
        "left +right +right_scale +right_zero_point +bias",
        product=Product(1, 4, (2,), (3,)),
    ),
    _row(
        *(Family.PRODUCT, "MatMulIntegerToFloat"),
        "left right +left_scale +right_scale +left_zero_point +right_zero_point +bias",
        product=Product(1, 6, (2, 3), (4, 5), is_integer=True),
    ),
    _row(
        *(Family.PRODUCT, "QGemm"),
        "left +left_scale +left_zero_point +weight +weight_scale +weight_zero_point +bias "
        "+y_scale +y_zero_point",
        product=Product(3, 6, (1, 4, 7), (2, 5, 8), is_integer=True),
    ),
    _row(Family.ARITHMETIC, "QLinearAdd", _PAIR),
    _row(Family.ARITHMETIC, "QLinearMul", _PAIR),
    _row(Family.FUNCTION, "QLinearLeakyRelu", _CODES, batch=Batch.FIRST_INPUT),
    _row(Family.FUNCTION, "QLinearSigmoid", _CODES, batch=Batch.FIRST_INPUT),
    _row(
        *(Family.POOLING, "QLinearAveragePool", _CODES),
        pool=Pool.AVERAGE,
        is_windowed=True,
        batch=Batch.FIRST_INPUT,
    ),
    _row(
        *(Family.POOLING, "QLinearGlobalAveragePool", _CODES),
        pool=Pool.AVERAGE,
        is_global=True,
        batch=Batch.FIRST_INPUT,
    ),
    _row(Family.REDUCTION, "QLinearReduceMean", _CODES),
    _row(Family.SOFTMAX, "QLinearSoftmax", _CODES),
    _row(Family.OTHER, "QLinearConcat", "+y_scale +y_zero_point data*"),
    _row(
        *(Family.OTHER, "QLinearWhere"),
        "-condition left +left_scale +left_zero_point right +right_scale "
        "+right_zero_point +y_scale +y_zero_point",
    ),
)
"""Their rows."""
