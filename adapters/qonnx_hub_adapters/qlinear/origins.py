"""Float layers that were read from an integer operator, written as that operator again.

What a layer remembers is a name, and it chooses only between operators that compute the same.
Every number is read from the graph: the integers of operands and their grids, the grid of the
quantizer behind, the scale of the bias, which must be that of the sums in every bit. Where
anything stands between, or where the float values are needed by somebody else, there is no
origin any more, and the layer is written like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Node, Value

from qonnx_hub_adapters.qcdq.parameters import NoMatchError, read_linear, same_values
from qonnx_hub_adapters.qlinear.integer_values import LARGEST_BITS, Codes, Form, Target
from qonnx_hub_adapters.qlinear.layouts import LAYOUTS, ORIGIN, TO_FLOATS, Layout, weight_axis
from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.queries import input_of, is_standard, only_reader, producer, rank_of
from qonnx_hub_ir.quantizers import Array, BipolarQuant, IntQuant, Rounding, single_value
from qonnx_hub_ir.semantics import quantize_to_integers

_WITH_FLOATS = "MatMulIntegerToFloat"

_OPSET_OF_SOFTMAX = 13
"""Softmax has summed along one axis since; all float layers here do."""

CodesOfValues = Mapping[Value | None, Codes]


@dataclass(frozen=True, slots=True, eq=False)
class Operand:
    """Integers with their grid, as an operator takes them.

    Attributes:
        codes: A value of the graph, or constants.
        scale: float32: a scalar, or one per channel.
        zero: Likewise, in the type of the integers.
    """

    codes: Value | Array
    scale: Array
    zero: Array

    def written(self, emit: Emitter, order: int) -> list[Value]:
        """Return the three inputs."""
        given = self.codes
        codes = given if isinstance(given, Value) else emit.constant(f"codes_{order}", given)
        scale = emit.constant(f"scale_{order}", self.scale)
        return [codes, scale, emit.constant(f"zero_point_{order}", self.zero)]


def origin_of(node: Node | None) -> str:
    """Return the operator that a layer was read from; empty where it has no origin."""
    return "" if node is None else node.metadata_props.get(ORIGIN, "")


def restored(emit: Emitter, layer: Node, known: CodesOfValues, target: Target) -> Node | None:
    """Return the operator from which a layer and the quantizer behind it were read.

    Args:
        emit: Where to write; its node is the quantizer.
        layer: What makes the quantizer's input.
        known: Integers of the graph's values.
        target: What the quantizer makes.

    Returns:
        The node, in front of the quantizer; ``None`` where the layer is to be written like any
        other.
    """
    layout = LAYOUTS.get(origin_of(layer))
    if layout is None or not only_reader(layer.outputs[0]):
        return None
    if not _is_writable(layer, layout, target.form) or not _rounds_alike(layout, target):
        return None
    inputs = _inputs(emit, layer, layout, known, target.form.dtype)
    attributes = _attributes(layer, layout)
    if inputs is None or attributes is None:
        return None
    inputs[layout.y] = emit.constant("y_scale", target.steps.scale)
    zero = np.array(target.zero, dtype=target.form.dtype)
    inputs[layout.y + 1] = emit.constant("y_zero_point", zero)
    return _written(emit, layer, layout, inputs, attributes, target.form)


def restored_sums(emit: Emitter, layer: Node, known: CodesOfValues, form: Form) -> Node | None:
    """Return the operator from which a layer without a quantizer behind it was read.

    Args:
        emit: Where to write; its node is the layer.
        layer: A layer whose values are floats.
        known: Integers of the graph's values.
        form: Whether onnxruntime's own operators may be used.
    """
    origin = origin_of(layer)
    if origin == _WITH_FLOATS:
        return _integers_to_float(emit, layer, known) if form.contrib else None
    layout, first = LAYOUTS.get(origin.removesuffix(TO_FLOATS)), known.get(layer.inputs[0])
    if layout is None or not origin.endswith(TO_FLOATS) or first is None:
        return None
    inputs = _inputs(emit, layer, layout, known, first.form.dtype)
    attributes = _attributes(layer, layout)
    if inputs is None or attributes is None or not _is_writable(layer, layout, form):
        return None
    return _written(emit, layer, layout, inputs, attributes, None)


def _integers_to_float(emit: Emitter, layer: Node, known: CodesOfValues) -> Node | None:
    """Return the MatMulIntegerToFloat that a MatMul, and an Add behind it, were."""
    product, bias = layer, None
    if is_standard(layer, "Add"):
        values, bias = layer.inputs
        before = producer(values)
        if before is None or values is None or not only_reader(values) or rank_of(bias) != 1:
            return None
        product = before
    first = known.get(product.inputs[0])
    if first is None or not is_standard(product, "MatMul"):
        return None
    layout = LAYOUTS["QLinearMatMul"]
    operands = _operands(product, layout, known, first.form.dtype)
    if operands is None:
        return None
    a, b = (operand.written(emit, order) for order, operand in enumerate(operands))
    inputs = [value for pair in zip(a, b, strict=True) for value in pair]
    given = {**dict(enumerate(inputs)), **({} if bias is None else {6: bias})}
    return _written(emit, layer, LAYOUTS["QGemm"], given, {}, None)


def _inputs(
    emit: Emitter, layer: Node, layout: Layout, known: CodesOfValues, dtype: np.dtype[Any]
) -> dict[int, Value | None] | None:
    """Return the inputs of the operator by position, without those of its output's grid."""
    operands = _operands(layer, layout, known, dtype)
    attributes = {name: one.value for name, one in layer.attributes.items()}
    if operands is None:
        return None
    inputs: dict[int, Value | None] = dict(enumerate(layer.inputs[: layout.leading]))
    bias = input_of(layer, len(operands)) if layout.bias is not None else None
    if layout.bias is not None and bias is not None:
        numbers = _bias(bias, operands, attributes)
        if numbers is None:
            return None
        inputs[layout.bias] = emit.constant("bias_integers", numbers)
    for order, operand in enumerate(operands):
        first = layout.operands[min(order, len(layout.operands) - 1)]
        first += 3 * max(order - len(layout.operands) + 1, 0)
        inputs |= dict(enumerate(operand.written(emit, order), first))
    return inputs


def _is_writable(layer: Node, layout: Layout, form: Form) -> bool:
    """Return whether a layer still is the operator that its origin stands for."""
    is_same = layer.op_type == layout.float_op and not layer.domain
    return is_same and (not layout.domain or form.contrib)


def _rounds_alike(layout: Layout, target: Target) -> bool:
    """Return whether a quantizer is the one that is part of the operator."""
    quant = target.steps.quant
    if not isinstance(quant, IntQuant) or quant.rounding is not Rounding.ROUND or quant.narrow:
        return False
    is_whole_type = single_value(quant.bits) == LARGEST_BITS
    own_type = target.form.signed == quant.signed and target.zero == target.steps.zero
    adds_last = target.zero % 2 == 0 or not layout.adds_first
    return is_whole_type and own_type and target.steps.adds_last == adds_last


def _attributes(layer: Node, layout: Layout) -> dict[str, Any] | None:
    """Return the attributes of the operator; ``None`` where a layer has others as well."""
    given = {name: one.value for name, one in layer.attributes.items()}
    if layout.float_op == "AveragePool" and set(given.get("dilations", (1,))) == {1}:
        given.pop("dilations", None)
    if layout.float_op == "ReduceMean":
        axes = dialect.constant_value(input_of(layer, 1))
        if axes is None or given.pop("noop_with_empty_axes", 0) or not axes.size:
            return None
        given["axes"] = [int(axis) for axis in axes.reshape(-1)]
        return given if set(given) <= {"axes", *layout.attributes} else None
    if not set(given) <= set(layout.attributes):
        return None
    return given | ({"opset": _OPSET_OF_SOFTMAX} if layout.float_op == "Softmax" else {})


def _operands(
    layer: Node, layout: Layout, known: CodesOfValues, dtype: np.dtype[Any]
) -> list[Operand] | None:
    """Return the integers of a layer's inputs; ``None`` where one of them has none."""
    values = layer.inputs[layout.leading :]
    if layout.float_op != "Concat":
        values = values[: len(layout.operands)]
    attributes = {name: one.value for name, one in layer.attributes.items()}
    found: list[Operand] = []
    for order, value in enumerate(values):
        is_weight = layout.is_product and order == 1
        codes = known.get(value)
        axis = weight_axis(layout.float_op, attributes) if is_weight else None
        operand = _stored(value, axis) if codes is None else _running(codes)
        if operand is None:
            return None
        types = {np.dtype(np.int8), dtype} if is_weight else {dtype}
        if operand.zero.dtype not in types:
            return None
        found.append(operand)
    return found


def _running(codes: Codes) -> Operand:
    zero = np.array(codes.zero, dtype=codes.form.dtype)
    return Operand(codes.value, np.asarray(codes.scale, dtype=np.float32).reshape(()), zero)


def stored_codes(emit: Emitter, value: Value | None, form: Form) -> Codes | None:
    """Return quantized constants as the integers of a table, if they are of the model's type.

    Args:
        emit: Where to write.
        value: Values of a table.
        form: The types of the model.
    """
    stored = _stored(value, None)
    if stored is None or isinstance(stored.codes, Value) or stored.zero.size != 1:
        return None
    dtype, zero = stored.zero.dtype, int(stored.zero)
    own = replace(form, signed=dtype == np.int8)
    if dtype not in (np.int8, np.uint8) or not (form.keeps_types or own.signed == form.signed):
        return None
    low, high = int(stored.codes.min(initial=zero)), int(stored.codes.max(initial=zero))
    table = emit.constant("table", stored.codes)
    return Codes(table, stored.scale, zero, low - zero, high - zero, own)


def _stored(value: Value | None, axis: int | None) -> Operand | None:
    """Return quantized constants as the integers that the file stores, if they are some.

    Args:
        value: Values of an operand.
        axis: Axis along which its scale may vary.
    """
    node = producer(value)
    if node is None:
        return None
    if is_standard(node, "DequantizeLinear"):
        return _stored_linear(node, axis)
    tensor = dialect.constant_value(node.inputs[0]) if dialect.is_quantizer(node) else None
    if tensor is None or tensor.dtype != np.float32:
        return None
    quant = dialect.read_quantizer(node)
    if not isinstance(quant, (IntQuant, BipolarQuant)) or quant.scale is None:
        return None
    zero: Array = np.zeros((), dtype=np.float32)
    dtype: np.dtype[Any] = np.dtype(np.int8)
    if isinstance(quant, IntQuant):
        bits = single_value(quant.bits)
        if quant.zero_point is None or bits not in (LARGEST_BITS, 32):
            return None
        wide = np.int32 if bits == 32 else np.int8
        dtype, zero = np.dtype(wide if quant.signed else np.uint8), quant.zero_point
        if bits == 32 and not quant.signed:
            return None
    try:
        codes = quantize_to_integers(tensor, quant)
    except ValueError:
        return None
    return _operand(codes, np.asarray(quant.scale, dtype=np.float32), zero, dtype, axis)


def _stored_linear(node: Node, axis: int | None) -> Operand | None:
    codes = dialect.constant_value(node.inputs[0])
    try:
        linear = read_linear(node)
    except NoMatchError:
        return None
    if codes is None or linear.scale is None or codes.dtype.name.upper() != linear.type_name:
        return None
    return _operand(codes, linear.scale, linear.zero, codes.dtype, axis)


def _operand(
    codes: Array, scale: Array, zero: Array, dtype: np.dtype[Any], axis: int | None
) -> Operand | None:
    """Return constants with scale and zero point both single, or both per channel."""
    limits = np.iinfo(dtype)
    if np.any(zero < limits.min) or np.any(zero > limits.max):
        return None
    flat = [_per_channel(values, codes.ndim, axis) for values in (scale, zero)]
    if flat[0] is None or flat[1] is None:
        return None
    scale, zero = np.broadcast_arrays(flat[0], flat[1])
    stored = np.ascontiguousarray(codes.astype(dtype))
    return Operand(stored, np.array(scale), np.array(zero).astype(dtype))


def _per_channel(values: Array, rank: int, axis: int | None) -> Array | None:
    """Return a scalar, or one value per index of an axis; ``None`` if it varies elsewhere."""
    if values.size == 1:
        return values.reshape(())
    wide = [rank - values.ndim + at for at, size in enumerate(values.shape) if size != 1]
    along = axis is not None and wide == [axis % rank]
    return values.reshape(-1) if along else None


def _bias(
    value: Value, operands: list[Operand], attributes: Mapping[str, Any]
) -> Array | None:
    """Return an int32 bias whose scale is that of the sums, bit for bit; else ``None``."""
    rank = rank_of(value)
    stored = None if rank is None else _stored(value, rank - 1)
    if stored is None or isinstance(stored.codes, Value) or np.any(stored.zero):
        return None
    x, weight = operands
    unit = np.float32(attributes.get("alpha", 1.0)) * x.scale * weight.scale
    same = same_values(stored.scale, unit.astype(np.float32))
    return stored.codes if same and stored.codes.dtype == np.int32 else None


def _written(
    emit: Emitter,
    layer: Node,
    layout: Layout,
    inputs: Mapping[int, Value | None],
    attributes: Mapping[str, Any],
    form: Form | None,
) -> Node:
    """Put the operator in front of the emitter's node; it makes integers, or floats."""
    ordered = [inputs.get(index) for index in range(max(inputs) + 1)]
    value = emit.add(origin_of(layer).removesuffix(TO_FLOATS), ordered, **attributes)
    made, out = value.producer(), emit.node.outputs[0]
    assert made is not None, "a node was just made"
    made.domain, made.name = layout.domain, layer.name
    kind = onnx_ir.DataType.FLOAT
    if form is not None:
        kind = onnx_ir.DataType.from_numpy(form.dtype)
    value.type, value.shape = onnx_ir.TensorType(kind), out.shape
    return made
