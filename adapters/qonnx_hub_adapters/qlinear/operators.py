"""The integer operators: nodes for a product, with or without its requantization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Value

from qonnx_hub_adapters.qlinear.integer_values import (
    Codes,
    Form,
    Steps,
    clipped,
    contrib,
    integer,
)
from qonnx_hub_adapters.qlinear.products import Product
from qonnx_hub_adapters.qlinear.staircase import Requantization
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.quantizers import Array


def weight_type(weights: Array) -> np.dtype[Any]:
    """Return the 8-bit type that holds all weights: int8 where it can.

    Raises:
        ValueError: Neither type does.
    """
    low, high = int(weights.min(initial=0)), int(weights.max(initial=0))
    if low >= -128 and high <= 127:
        return np.dtype(np.int8)
    if low >= 0 and high <= 255:
        return np.dtype(np.uint8)
    raise ValueError(f"weights from {low} to {high} fit no 8-bit type")


def emit_sums(emit: Emitter, product: Product, form: Form) -> Value:
    """Return the float values of a product: integer sums, cast and scaled.

    The product's own steps (bias, division) are not part of it.
    """
    zero = integer(emit, "x_zero_point", product.x.zero, form)
    if product.other is not None:
        other_zero = integer(emit, "other_zero_point", product.other.zero, form)
        sums = emit.add(
            "MatMulInteger", [product.x.value, product.other.value, zero, other_zero]
        )
        return _scaled(emit, product, sums)
    dtype = weight_type(product.weights)
    weight = emit.constant(
        "weight_integers", np.ascontiguousarray(product.weights, dtype=dtype)
    )
    x = _spread(emit, product, zero)
    if product.is_conv:
        attributes = {a.name: a.value for a in product.attributes}
        sums = emit.add("ConvInteger", [x, weight, zero], **attributes)
    else:
        sums = emit.add("MatMulInteger", [x, weight, zero])
    return _scaled(emit, product, sums)


def _scaled(emit: Emitter, product: Product, sums: Value) -> Value:
    values = emit.add("Cast", [sums], to=int(onnx_ir.DataType.FLOAT))
    return emit.add("Mul", [values, emit.constant("unit", _shaped(product, product.unit))])


def _spread(emit: Emitter, product: Product, zero: Value) -> Value:
    if product.spread is None:
        return product.x.value
    return product.spread(emit, product.x, zero)


def _shaped(product: Product, values: Array) -> Array:
    """Return values per channel as they broadcast to the output; a scalar if all equal."""
    flat = values.reshape(-1)
    if np.all(flat == flat[0]):
        return np.asarray(flat[0]).reshape(())
    layout = product.layout
    return flat.reshape(-1, *(1,) * (layout.rank - 1 - layout.axis))


def emit_own_steps(emit: Emitter, product: Product, values: Value) -> Value:
    """Return the values after the node's own division and bias, as float operators."""
    if product.divisor != 1:
        divisor = np.array(product.divisor, dtype=np.float32)
        values = emit.add("Div", [values, emit.constant("divisor", divisor)])
    if product.bias is not None:
        bias = np.broadcast_to(product.bias, product.unit.shape)
        values = emit.add("Add", [values, emit.constant("bias", _shaped(product, bias))])
    return values


def scaled_weights(product: Product, found: Requantization, signs: Array) -> Array:
    """Return the weights that the operator multiplies by, in the product's layout.

    Args:
        product: The product.
        found: The numbers of the operator.
        signs: (C,) plus or minus one: minus where the chain behind falls as sums rise.
    """
    factor = found.factor * signs
    along = (-1, *(1,) * (product.weights.ndim - 1)) if product.is_conv else (1, -1)
    return np.asarray(product.weights.astype(np.int64) * factor.reshape(along))


def refusal(product: Product, found: Requantization, signs: Array, form: Form) -> str:
    """Return why there is no QLinear operator for it; empty where there is one."""
    if product.other is not None:
        if np.any(signs < 0) or np.any(found.bias):
            return "a product of two activations takes no bias and no other sign"
        return ""
    weights = scaled_weights(product, found, signs)
    low, high = int(weights.min(initial=0)), int(weights.max(initial=0))
    if low < -128 or high > (255 if low >= 0 else 127):
        return "its weights do not fit 8 bits once they are turned"
    if high > 127 and form.signed:
        return "no runtime multiplies int8 by uint8 weights"
    if not product.is_conv and np.any(found.bias) and product.layout.rank > 3:
        return "a matrix product of more than three axes takes no bias"
    return ""


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """What a requantization makes.

    Attributes:
        steps: The quantizer behind.
        zero: Code of its level 0.
        low: Lowest level to clip to.
        high: Highest level to clip to.
    """

    steps: Steps
    zero: int
    low: int
    high: int


def emit_requantized(
    emit: Emitter,
    product: Product,
    found: Requantization,
    signs: Array,
    target: Target,
    form: Form,
) -> tuple[Codes, str]:
    """Return the codes of a product by a QLinear operator and Clip, and the operator's name.

    Args:
        emit: Where to write.
        product: The product.
        found: The numbers of the operator; :func:`refusal` has nothing against them.
        signs: (C,) plus or minus one, as in :func:`scaled_weights`.
        target: What to make.
        form: The model's type.
    """
    if product.other is not None:
        return _of_two(emit, product, product.other, found, target, form)
    weights = scaled_weights(product, found, signs)
    gemm = form.contrib and not product.is_conv and product.layout.rank == 2
    conv = product.is_conv or (bool(np.any(found.bias)) and not gemm)
    if conv and not product.is_conv:
        weights = weights.T[:, :, np.newaxis]
    parameters = _parameters(emit, product, form, weights.astype(weight_type(weights)), found)
    parameters += [
        emit.constant("y_scale", target.steps.scale),
        integer(emit, "y_zero_point", target.zero, form),
    ]
    x = _spread(emit, product, parameters[1])
    name = "QLinearConv" if conv else "QGemm" if gemm else "QLinearMatMul"
    if np.any(found.bias):
        parameters.append(emit.constant("bias_integers", found.bias.astype(np.int32)))
    if product.is_conv:
        attributes = {a.name: a.value for a in product.attributes}
        codes = emit.add(name, [x, *parameters], **attributes)
    elif conv:
        codes = _as_columns(emit, x, parameters, product.layout.rank)
    elif gemm:
        # Its bias stands before the scale and zero point of its output.
        bias: list[Value | None] = [*parameters[7:]] or [None]
        ordered = [*parameters[:5], *bias, *parameters[5:7]]
        codes = contrib(emit, name, [x, *ordered], form)
    else:
        codes = emit.add(name, [x, *parameters])
    return _held(emit, codes, target, form), name


def _held(emit: Emitter, codes: Value, target: Target, form: Form) -> Codes:
    low, high, zero = target.low, target.high, target.zero
    codes = clipped(emit, codes, low + zero, high + zero, form)
    return Codes(codes, target.steps.scale, zero, low, high, form)


def _of_two(
    emit: Emitter,
    product: Product,
    other: Codes,
    found: Requantization,
    target: Target,
    form: Form,
) -> tuple[Codes, str]:
    """Return the codes of a product of two activations."""
    inputs: list[Value] = []
    for label, codes, scale in (
        ("x", product.x, product.x.scale),
        ("other", other, found.scale.reshape(())),
    ):
        inputs += [codes.value, emit.constant(f"{label}_scale", scale)]
        inputs.append(integer(emit, f"{label}_zero_point", codes.zero, form))
    inputs += [
        emit.constant("y_scale", target.steps.scale),
        integer(emit, "y_zero_point", target.zero, form),
    ]
    made = emit.add("QLinearMatMul", inputs)
    return _held(emit, made, target, form), "QLinearMatMul"


def _parameters(
    emit: Emitter, product: Product, form: Form, weights: Array, found: Requantization
) -> list[Value]:
    """Return scale and zero point of x, then weight, its scale and its zero point."""
    scale = found.scale
    single = bool(np.all(scale == scale[0]))
    shape = () if single else scale.shape
    return [
        emit.constant("x_scale", product.x.scale),
        integer(emit, "x_zero_point", product.x.zero, form),
        emit.constant("weight_integers", np.ascontiguousarray(weights)),
        emit.constant("weight_scale", scale[0].reshape(()) if single else scale),
        emit.constant("weight_zero_point", np.zeros(shape, dtype=weights.dtype)),
    ]


def _as_columns(emit: Emitter, x: Value, parameters: list[Value], rank: int) -> Value:
    """Return a matrix product with bias as a convolution: no standard one adds it."""
    if rank == 2:
        axis = emit.constant("size_axis", np.array([2], dtype=np.int64))
        columns = emit.add("Unsqueeze", [x, axis])
        return emit.add("Squeeze", [emit.add("QLinearConv", [columns, *parameters]), axis])
    columns = emit.add("Transpose", [x], perm=[0, 2, 1])
    return emit.add(
        "Transpose", [emit.add("QLinearConv", [columns, *parameters])], perm=[0, 2, 1]
    )
