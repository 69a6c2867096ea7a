"""How operators go on with a value that is still to be scaled."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir
from onnx_ir import Graph, Node, Value

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.annotations import DATATYPE, retract
from qonnx_hub_ir.graph.affine import PendingAffine, is_scalar, product, same
from qonnx_hub_ir.graph.builder import copy_node
from qonnx_hub_ir.graph.constants import (
    along_channels,
    constant_shape,
    full_rank,
    is_constant_tree,
    shape_of_constant,
)
from qonnx_hub_ir.graph.permutations import perm_of
from qonnx_hub_ir.graph.queries import (
    attribute,
    dims,
    input_of,
    is_standard,
    only_reader,
    producer,
    rank_of,
    weight_axes,
)
from qonnx_hub_ir.lowering import im2col
from qonnx_hub_ir.operators import Family, Pool, always_moves
from qonnx_hub_ir.passes.scales.scale_walk import PendingScales, Rule, constant_for
from qonnx_hub_ir.quantizers import Array, BipolarQuant, IntQuant, is_power_of_two

_LAST = dialect.CHANNELS_LAST_DOMAIN
Key = tuple[str, str]
"""Domain and name of an operator."""


def find_wanted(graph: Graph) -> set[Value]:
    """Return the values that a linear layer reads, or that a factor can reach one from."""
    wanted: set[Value] = set()
    for node in reversed(graph):
        rule = RULES.get((node.domain, node.op_type))
        if rule in (_conv, _matmul):
            wanted.update(v for v in node.inputs[:2] if v is not None)
        elif rule is None or dialect.is_quantizer(node) or not node.outputs:
            continue
        elif node.outputs[0] in wanted:
            wanted.update(v for v in node.inputs if v is not None)
    return wanted


def weight_scale(node: Node, *, exact: bool) -> Array | None:
    """Return the scale of a layer's weight, if it can be taken out.

    It is one for all, of shape (), or one per output channel, of the weight's rank.
    """
    weight = None if weight_axes(node) is None else node.inputs[1]
    quantizer = producer(weight)
    if weight is None or quantizer is None or not is_constant_tree(weight):
        return None
    quant = dialect.read_quantizer(quantizer)
    if not isinstance(quant, (BipolarQuant, IntQuant)) or quant.scale is None:
        return None
    scale = quant.scale
    if scale.dtype != np.float32 or not np.all(np.isfinite(scale)) or np.all(scale == 1):
        return None
    if exact and not is_power_of_two(scale):
        return None
    if scale.size == 1:
        return scale.reshape(())
    full = full_rank(scale, len(shape_of_constant(weight)))
    return full if _differs_by_output(node, full) else None


def _differs_by_output(node: Node, array: Array) -> bool:
    """Return whether an array of a weight's rank differs along its output channels only."""
    axes = weight_axes(node)
    return axes is not None and array.size == array.shape[axes[0]]


def _unit_weight(scales: PendingScales, node: Node, scale: Array) -> Value:
    """Return a weight's quantizer with scale 1; in place where nobody else reads it."""
    weight = node.inputs[1]
    quantizer = None if weight is None else weight.producer()
    if weight is None or quantizer is None:
        raise ValueError(f"'{node.name}' has no quantized weight")
    if quantizer in scales.units:
        return scales.units[quantizer]
    target = quantizer
    if not only_reader(weight):
        name = scales.node_name(f"{quantizer.name}_unit")
        target = copy_node(quantizer, quantizer.inputs, name=name)
        target.outputs[0].name = scales.claim_value(f"{weight.name}_unit")
        target.outputs[0].metadata_props.clear()
        node.prepend(target)
    data = target.inputs[0]
    known = dialect.constant_value(data)
    if data is None or known is None:
        raise ValueError(f"the weight of '{node.name}' is not constant")
    if quantizer.op_type == "Quant":
        divided = np.ascontiguousarray(known / scale)
        if only_reader(data):
            data.const_value = onnx_ir.Tensor(divided, name=data.name)
            retract(data, DATATYPE)
        else:
            label = scales.claim_value(f"{data.name}_unscaled")
            target.replace_input_with(0, dialect.add_initializer(scales.graph, label, divided))
    target.replace_input_with(1, scales.one())
    retract(target.outputs[0], DATATYPE)
    scales.units[quantizer] = target.outputs[0]
    return target.outputs[0]


def _input_factor(scales: PendingScales, node: Node, index: int) -> PendingAffine | None:
    """Return what is pending for an input of a linear layer, if a factor is all."""
    value = node.inputs[index]
    if value is None:
        return None
    pending = scales.place(value)
    return None if pending.offset is not None or pending.factor is None else pending


def _weight_factor(scales: PendingScales, node: Node) -> Array | None:
    """Take the factor out of a layer's second input, and return it.

    It is that of a quantized weight, or one that waits: one for all, or one per output
    channel, of the weight's rank.
    """
    pending = _input_factor(scales, node, 1)
    if pending is not None and pending.factor is not None:
        factor = pending.factor
        if factor.size > 1 and not _differs_by_output(node, factor):
            return None
        node.replace_input_with(1, pending.value)
        return factor
    scale = weight_scale(node, exact=scales.exact) if scales.weights else None
    if scale is not None:
        node.replace_input_with(1, _unit_weight(scales, node, scale))
    return scale


def _linear(
    scales: PendingScales, node: Node, left: PendingAffine | None, right: Array | None
) -> bool:
    """Let a layer work on what is stored; its output is to be scaled by both factors."""
    if left is None and right is None:
        return False
    if left is not None:
        node.replace_input_with(0, left.value)
    else:
        scales.feed(node, 0, node)
    if right is None:
        scales.feed(node, 1, node)
    elif right.size > 1:
        last = node.domain == _LAST or is_standard(node, "MatMul")
        right = along_channels(right, len(dims(node.outputs[0]) or ()), last=last)
    scales.put(node.outputs[0], product(None if left is None else left.factor, right))
    return True


def _matmul(scales: PendingScales, node: Node) -> bool:
    rank, second = len(dims(node.outputs[0]) or ()), rank_of(node.inputs[1])
    left = _input_factor(scales, node, 0)
    if left is not None and not is_scalar(left.factor):
        left = None
    fits = second is not None and rank >= second
    return _linear(scales, node, left, _weight_factor(scales, node) if fits else None)


def _conv(scales: PendingScales, node: Node) -> bool:
    if len(dims(node.outputs[0]) or ()) < 3 or input_of(node, 2) is not None:
        return False
    left = _input_factor(scales, node, 0)
    if left is not None and not _passes_conv(left.factor, node):
        left = None
    return _linear(scales, node, left, _weight_factor(scales, node))


def _passes_conv(factor: Array | None, node: Node) -> bool:
    """Return whether a factor of the input is one of the output."""
    known, axes = constant_shape(node.inputs[1]), weight_axes(node)
    if is_scalar(factor) or not known or axes is None:
        return is_scalar(factor)
    depthwise = int(attribute(node, "group", 1)) == known[0] and known[axes[1]] == 1
    return depthwise and _per_channel(factor, node)


def _per_channel(array: Array | None, node: Node) -> bool:
    """Return whether an array varies along the channels only, or not at all."""
    if array is None or array.size == 1:
        return True
    axis = -1 if node.domain == _LAST else 1
    rank = len(dims(node.outputs[0]) or ())
    return array.ndim == rank and array.shape[axis] == array.size


def _affine(scales: PendingScales, node: Node) -> bool:
    """Mul, Add, Sub and Div by a constant wait as well."""
    output = node.outputs[0]
    parts = _value_and_constant(node)
    if parts is None:
        return node.op_type == "Add" and _alike(scales, node)
    value, constant = parts
    if operators.multiplies(node):
        return _factor(scales, node, value, constant)
    before = scales.place(value)
    offset = -constant if node.op_type == "Sub" else constant
    if not np.all(np.isfinite(offset)) or (scales.exact and before.offset is not None):
        return False
    scales.places[output] = before.plus(offset)
    return True


def _value_and_constant(node: Node) -> tuple[Value, Array] | None:
    """Return what a node scales or shifts, and by what; the value has the output's shape."""
    left, right, output = node.inputs[0], node.inputs[1], node.outputs[0]
    if left is None or right is None or dims(output) is None:
        return None
    orders = ((left, right), (right, left))
    for value, other in orders[: 2 if operators.is_commutative(node) else 1]:
        constant = constant_for(output, other)
        if constant is not None and dims(value) == dims(output):
            return value, constant
    return None


def _factor(scales: PendingScales, node: Node, value: Value, constant: Array) -> bool:
    if node.op_type == "Div":
        if not is_power_of_two(np.abs(constant)):
            return False
        constant = np.reciprocal(constant)
    if not scales.movable(constant):
        return False
    scales.places[node.outputs[0]] = scales.place(value).times(constant)
    return True


def _alike(scales: PendingScales, node: Node) -> bool:
    """Add and Concat of values with the same factor."""
    values = [value for value in node.inputs if value is not None]
    pending = [scales.place(value) for value in values]
    factor, shape = pending[0].factor, dims(node.outputs[0])
    if factor is None or len(values) < len(node.inputs):
        return False
    if any(not same(one.factor, factor) or one.offset is not None for one in pending):
        return False
    if factor.size > 1 and (shape is None or any(dims(v) != shape for v in values)):
        return False
    for index, one in enumerate(pending):
        node.replace_input_with(index, one.value)
    scales.put(node.outputs[0], factor)
    return True


def _data(scales: PendingScales, node: Node) -> PendingAffine | None:
    """Return what is pending for a node's first input, if anything is."""
    value = input_of(node, 0)
    return None if value is None else scales.places.get(value)


def _pass_on(
    scales: PendingScales,
    node: Node,
    pending: PendingAffine,
    factor: Array | None,
    offset: Array | None,
) -> bool:
    node.replace_input_with(0, pending.value)
    for output in node.outputs:
        scales.put(output, factor, offset)
    return True


def _unchanged(
    varies: Callable[[Array | None, Node], bool],
    *,
    offset: bool = False,
    positive: bool = False,
) -> Rule:
    """Return the rule of an operator that a factor passes as it is.

    Args:
        varies: Whether factor and summand may vary as they do.
        offset: Whether a summand passes too.
        positive: Whether the factor must be above zero.
    """

    def rule(scales: PendingScales, node: Node) -> bool:
        pending = _data(scales, node)
        if pending is None or (pending.offset is not None and not offset):
            return False
        if positive and not pending.positive:
            return False
        if any(value.name for value in node.outputs[1:]) and node.op_type != "Split":
            return False
        if not (varies(pending.factor, node) and varies(pending.offset, node)):
            return False
        return _pass_on(scales, node, pending, pending.factor, pending.offset)

    return rule


def _transpose(scales: PendingScales, node: Node) -> bool:
    pending, perm = _data(scales, node), perm_of(node)
    if pending is None or perm is None:
        return False

    def moved(array: Array | None) -> Array | None:
        return array if array is None or array.size == 1 else np.transpose(array, perm)

    return _pass_on(scales, node, pending, moved(pending.factor), moved(pending.offset))


def _nowhere(array: Array | None, node: Node) -> bool:
    return is_scalar(array)


_SCALAR = _unchanged(_nowhere, offset=True)
_ZEROS_ADDED = _unchanged(_nowhere)
_POSITIVE = _unchanged(lambda array, node: True, positive=True)


def _pad(scales: PendingScales, node: Node) -> bool:
    if str(attribute(node, "mode", "constant")) != "constant":
        return _SCALAR(scales, node)
    filler = input_of(node, 2)
    known = dialect.constant_value(filler)
    if filler is not None and (known is None or np.any(known != 0)):
        return False
    return _ZEROS_ADDED(scales, node)


def _quantizer(scales: PendingScales, node: Node) -> bool:
    """Quant and BipolarQuant of activations: the scale waits, and takes powers of two in."""
    source, output = node.inputs[0], node.outputs[0]
    if source is None or is_constant_tree(output) or output not in scales.wanted:
        return False
    quant = dialect.read_quantizer(node)
    if not isinstance(quant, (BipolarQuant, IntQuant)) or quant.scale is None:
        return False
    if quant.scale.size != 1:
        return False
    scale = np.asarray(quant.scale, dtype=np.float32).reshape(())
    pending = scales.place(source)
    unit = bool(scale == 1)
    if source.dtype != onnx_ir.DataType.FLOAT or not scales.movable(scale):
        return False
    if unit and (pending.written or source not in scales.places):
        return False
    if isinstance(quant, BipolarQuant):
        alone = pending.offset is None and pending.positive
        found = pending.value if alone else scales.restored(source, node)
    else:
        found = _divided(scales, node, pending, source, scale)
    node.replace_input_with(0, found)
    node.replace_input_with(1, scales.one())
    scales.put(output, None if unit else scale)
    return True


def _divided(
    scales: PendingScales, node: Node, pending: PendingAffine, source: Value, scale: Array
) -> Value:
    """Return a quantizer's input divided by its scale, with no rounding but the division's."""
    factor, offset = pending.factor, pending.offset
    if is_power_of_two(scale):
        inverse = np.reciprocal(scale)
        factor = product(factor, inverse)
        offset = None if offset is None else product(offset, inverse)
        if _is_sound(factor) and (offset is None or np.all(np.isfinite(offset))):
            return scales.write(pending.value, factor, offset, node)
    elif offset is None and factor is not None and is_power_of_two(factor):
        with np.errstate(over="ignore", under="ignore"):
            divisor = np.asarray(scale / factor, dtype=np.float32)
        if _is_sound(divisor):
            return _quotient(scales, node, pending.value, divisor)
    return _quotient(scales, node, scales.restored(source, node), scale)


def _is_sound(factor: Array | None) -> bool:
    return factor is None or bool(np.all(np.isfinite(factor)) and np.all(factor != 0))


def _quotient(scales: PendingScales, node: Node, value: Value, divisor: Array) -> Value:
    if np.all(divisor == 1):
        return value
    return scales.apply("Div", value, divisor, node, str(node.name))


def _pools(rule: Rule, pool: Pool) -> dict[Key, Rule]:
    last = operators.assign(rule, domain=_LAST, pool=pool)
    return operators.assign(rule, pool=pool) | last


RULES: Mapping[Key, Rule] = {
    # They move elements of their first input, whatever these are.
    **operators.assign(_SCALAR, lambda row: row.is_identity),
    **operators.assign(
        _SCALAR,
        lambda row: always_moves(row) and row.inputs.data == (0,),
        family=Family.MOVEMENT,
    ),
    **operators.assign(_affine, lambda row: row.arithmetic),
    **_pools(_unchanged(_per_channel), Pool.AVERAGE),
    **_pools(_unchanged(_per_channel, offset=True, positive=True), Pool.MAX),
    ("", "Concat"): _alike,
    ("", "Conv"): _conv,
    (_LAST, "Conv"): _conv,
    ("", "LeakyRelu"): _POSITIVE,
    ("", "MatMul"): _matmul,
    ("", "Pad"): _pad,
    ("", "ReduceMax"): _unchanged(_nowhere, offset=True, positive=True),
    ("", "ReduceMean"): _ZEROS_ADDED,
    ("", "ReduceSum"): _ZEROS_ADDED,
    ("", "Relu"): _POSITIVE,
    ("", "Resize"): lambda scales, node: (
        attribute(node, "mode", "nearest") == "nearest"
        and "tf_crop" not in attribute(node, "coordinate_transformation_mode", "")
        and _SCALAR(scales, node)
    ),
    ("", "Transpose"): _transpose,
    (dialect.DOMAIN, "BipolarQuant"): _quantizer,
    (dialect.DOMAIN, "Quant"): _quantizer,
    (dialect.DOMAIN, im2col.IM2COL): lambda scales, node: (
        not attribute(node, "pad_value", 0) and _ZEROS_ADDED(scales, node)
    ),
}
"""What a factor passes, and how. Anything else gets its inputs as they were."""
