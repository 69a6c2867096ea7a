"""The integer operators: nodes for a product, with or without its requantization."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Value

from qonnx_hub_adapters.qcdq.origins import origin_of
from qonnx_hub_adapters.qlinear.convolved import MATRIX, note_written_for
from qonnx_hub_adapters.qlinear.integer_values import Codes, Form, Target, contrib, integer
from qonnx_hub_adapters.qlinear.products import QuantizedProduct
from qonnx_hub_adapters.qlinear.staircase import Requantization
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.quantizers import Array, IntQuant, single_value


def stored_form(weights: Array, product: QuantizedProduct) -> tuple[np.dtype[Any], int] | None:
    """Return type and zero point of weights in 8 bits: the file's own, or int8 with 0.

    ``None`` where they span more than 8 bits. Zero is among them, for there is a code for it.

    Args:
        weights: Levels, those of the product or scaled ones.
        product: What multiplies by them.
    """
    low, high = int(weights.min(initial=0)), int(weights.max(initial=0))
    zero = _own_zero(product)
    if zero is not None and low + zero >= 0 and high + zero <= 255:
        return np.dtype(np.uint8), zero
    if low >= -128 and high <= 127:
        return np.dtype(np.int8), 0
    return (np.dtype(np.uint8), -low) if high - low <= 255 else None


def _own_zero(product: QuantizedProduct) -> int | None:
    """Return the zero point of weights that the file stores in uint8; ``None`` for others."""
    known = [node for node in product.quantizers if origin_of(node).integers == _UINT8]
    if not known or known[0] is not product.quantizers[0] or product.x.form.signed:
        return None
    quant = dialect.read_quantizer(known[0])
    zero = single_value(quant.zero_point) if isinstance(quant, IntQuant) else None
    return None if zero is None or zero != np.rint(zero) else int(zero)


_UINT8 = (8, False)


def weight_type(product: QuantizedProduct) -> str:
    """Return the name of the type in which the weights of a product are stored."""
    form = stored_form(product.weights, product)
    return "8-bit" if form is None else form[0].name


def _stored(weights: Array, product: QuantizedProduct) -> tuple[Array, Array]:
    """Return weights as codes of 8 bits, and their zero point as a scalar of that type."""
    form = stored_form(weights, product)
    assert form is not None, "weights beyond 8 bits are refused before"
    dtype, zero = form
    codes = np.ascontiguousarray((weights.astype(np.int64) + zero).astype(dtype))
    return codes, np.array(zero, dtype=dtype)


def emit_integer_sums(emit: Emitter, product: QuantizedProduct) -> Value:
    """Return the int32 sums of a product."""
    form = product.x.form
    zero = integer(emit, "x_zero_point", product.x.zero, form)
    if product.other is not None:
        other_zero = integer(emit, "other_zero_point", product.other.zero, form)
        factors = [product.x.value, product.other.value, zero, other_zero]
    else:
        weights, weight_zero = _stored(product.weights, product)
        weight = emit.constant("weight_integers", weights)
        factors = [product.spread(emit, product.x, zero), weight, zero]
        if weight_zero:
            factors.append(emit.constant("weight_zero_point", weight_zero))
    name = "ConvInteger" if product.is_conv else "MatMulInteger"
    return emit.add(name, factors, **product.attributes)


def emit_sums(emit: Emitter, product: QuantizedProduct) -> Value:
    """Return the float values of a product: integer sums, cast, scaled, divided, with bias."""
    sums = emit_integer_sums(emit, product)
    values = emit.add("Cast", [sums], to=int(onnx_ir.DataType.FLOAT))
    unit = emit.constant("unit", _shaped(product, product.unit))
    values = emit.add("Mul", [values, unit])
    if product.divisor != 1:
        divisor = np.array(product.divisor, dtype=np.float32)
        values = emit.add("Div", [values, emit.constant("divisor", divisor)])
    if product.bias is not None:
        bias = np.broadcast_to(product.bias, product.unit.shape)
        values = emit.add("Add", [values, emit.constant("bias", _shaped(product, bias))])
    return values


def _shaped(product: QuantizedProduct, values: Array) -> Array:
    """Return values per channel as they broadcast to the output; a scalar if all equal."""
    flat = values.reshape(-1)
    if np.all(flat == flat[0]):
        return np.asarray(flat[0]).reshape(())
    layout = product.layout
    return flat.reshape(-1, *(1,) * (layout.rank - 1 - layout.axis))


def scaled_weights(product: QuantizedProduct, found: Requantization, signs: Array) -> Array:
    """Return the weights that the operator multiplies by, in the product's layout.

    Args:
        product: The product.
        found: The numbers of the operator.
        signs: (C,) plus or minus one: minus where the chain behind falls as sums rise.
    """
    factor = found.factor * signs
    along = (-1, *(1,) * (product.weights.ndim - 1)) if product.is_conv else (1, -1)
    return np.asarray(product.weights.astype(np.int64) * factor.reshape(along))


def refusal(product: QuantizedProduct, found: Requantization, signs: Array, form: Form) -> str:
    """Return why there is no QLinear operator for it; empty where there is one."""
    if product.x.form.signed != form.signed:
        return "its input and its output have different types of integers"
    if product.other is not None:
        if np.any(signs < 0) or np.any(found.bias):
            return "a product of two activations takes no bias and no other sign"
        return ""
    stored = stored_form(scaled_weights(product, found, signs), product)
    if stored is None:
        return "its weights do not fit 8 bits once their signs are changed"
    if stored[0] == np.uint8 and form.signed:
        return "no runtime multiplies int8 by uint8 weights"
    if not product.is_conv and np.any(found.bias) and product.layout.rank > 3:
        return "a matrix product of more than three axes takes no bias"
    return ""


def emit_requantized(
    emit: Emitter,
    product: QuantizedProduct,
    found: Requantization,
    signs: Array,
    target: Target,
) -> tuple[Codes, str]:
    """Return the codes of a product by a QLinear operator and Clip, and the operator's name.

    Args:
        emit: Where to write.
        product: The product.
        found: The numbers of the operator; :func:`refusal` has nothing against them.
        signs: (C,) plus or minus one, as in :func:`scaled_weights`.
        target: What to make.
    """
    form, is_matrix = target.form, not product.is_conv
    gemm = form.contrib and is_matrix and product.layout.rank == 2 and product.other is None
    conv = product.is_conv or (bool(np.any(found.bias)) and not gemm)
    scale = emit.constant("x_scale", product.x.scale)
    zero = integer(emit, "x_zero_point", product.x.zero, form)
    if product.other is not None:
        second = [
            product.other.value,
            emit.constant("other_scale", found.scale.reshape(())),
            integer(emit, "other_zero_point", product.other.zero, form),
        ]
    else:
        weights = scaled_weights(product, found, signs)
        weights, zero_point = _stored(weights, product)
        as_kernels = conv and is_matrix
        weights = weights.T[..., np.newaxis] if as_kernels else weights
        second = _weights(emit, np.ascontiguousarray(weights), zero_point, found)
    y_scale = emit.constant("y_scale", target.steps.scale)
    y = [y_scale, integer(emit, "y_zero_point", target.zero, form)]
    inputs: list[Value | None] = [product.spread(emit, product.x, zero), scale, zero, *second]
    name = "QLinearConv" if conv else "QGemm" if gemm else "QLinearMatMul"
    bias = None
    if np.any(found.bias):
        bias = emit.constant("bias_integers", found.bias.astype(np.int32))
    added = [] if bias is None else [bias]
    if product.is_conv:
        codes = emit.add(name, [*inputs, *y, *added], **product.attributes)
        # Ties that are rounded with the zero point added are not those of QuantizeLinear.
        if operators.is_average_pool(product.node) and target.steps.adds_last:
            note_written_for(codes, product.node.op_type)
    elif conv:
        rows = [*inputs, *y, *added]
        codes = _as_columns(emit, rows, product.layout.rank, as_rows=target.steps.adds_last)
    elif gemm:
        # Its bias stands before the scale and zero point of its output.
        codes = contrib(emit, name, [*inputs, bias, *y], form)
    else:
        codes = emit.add(name, [*inputs, *y])
    return target.clips(emit, codes), name


def _weights(emit: Emitter, weights: Array, zero: Array, found: Requantization) -> list[Value]:
    """Return weights that the operator multiplies by, their scale and zero point."""
    scale = found.scale
    scale = scale[0].reshape(()) if np.all(scale == scale[0]) else scale
    return [
        emit.constant("weight_integers", weights),
        emit.constant("weight_scale", scale),
        emit.constant("weight_zero_point", np.full(scale.shape, zero, dtype=weights.dtype)),
    ]


def _as_columns(
    emit: Emitter, inputs: list[Value | None], rank: int, *, as_rows: bool
) -> Value:
    """Return a matrix product with bias as a convolution: no standard one adds it."""
    x, *parameters = inputs
    if rank == 2:
        axis = emit.integers("size_axis", [2])
        columns = emit.add("Unsqueeze", [x, axis])
        codes = emit.add("QLinearConv", [columns, *parameters])
        if as_rows:
            note_written_for(codes, MATRIX)
        return emit.add("Squeeze", [codes, axis])
    columns = emit.add("Transpose", [x], perm=[0, 2, 1])
    codes = emit.add("QLinearConv", [columns, *parameters])
    return emit.add("Transpose", [codes], perm=[0, 2, 1])
