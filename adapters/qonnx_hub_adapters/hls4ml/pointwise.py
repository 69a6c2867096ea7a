"""Quantizers, activations and arithmetic, element by element."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from onnx_ir import Node, Value

from qonnx_hub_adapters.hls4ml.channel_widths import lower_bounds, lower_channel_widths
from qonnx_hub_adapters.hls4ml.context import Context, channel_values
from qonnx_hub_adapters.hls4ml.pending_affine import (
    AffineStep,
    Term,
    add,
    divide,
    multiply,
    normalize,
)
from qonnx_hub_adapters.hls4ml.ranges import MERGED
from qonnx_hub_adapters.hls4ml.refusals import refuse
from qonnx_hub_adapters.hls4ml.weights import integer_quantizer
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph import permutations
from qonnx_hub_ir.graph.queries import attribute, producer
from qonnx_hub_ir.quantizers import (
    BipolarQuant,
    IntQuant,
    Rounding,
    bits_of_range,
    integer_bounds,
    is_bipolar,
    is_power_of_two,
    single_value,
)

_UNIT = np.ones((), dtype=np.float32)

SHIFTED = "scale + Quant + shift + Quant + scale"
"""What becomes of a quantizer that adds its zero point after rounding."""


def lower_quantizer(context: Context, node: Node) -> Term:
    """Return the term of a quantizer on activations."""
    quant = dialect.read_quantizer(node)
    if not isinstance(quant, (IntQuant, BipolarQuant)):
        raise refuse(node, "hls4ml has no such quantizer: 'Unsupported operation type'")
    if any(values is None for values in dialect.parameters(quant)):
        raise refuse(
            node,
            "its parameters are computed at run time; hls4ml raises 'only supports constant "
            "scale, zeropt, and bitwidth values'",
        )
    term = context.data(node)
    if is_bipolar(quant):
        return _lower_signs(context, node, term, quant)
    assert isinstance(quant, IntQuant)
    return _lower_integers(context, node, term, quant)


def _lower_signs(
    context: Context, node: Node, term: Term, quant: IntQuant | BipolarQuant
) -> Term:
    if isinstance(quant, IntQuant) and single_value(quant.zero_point) != 0:
        raise refuse(node, "two levels around a zero point; hls4ml reads 0 and -1")
    assert quant.scale is not None
    scale = channel_values(term, quant.scale, node)
    if term.is_scaled() and not term.bits:
        # Neither a positive factor nor a step changes a sign.
        term = replace(term, steps=())
    settled = context.settle(term)
    value = settled.value
    if context.ac_types:
        # -2 for what is below zero, else 0: rounded down and limited, a number is -1, 0 or 1,
        # and half of that, rounded down, -1 or 0.
        narrow = integer_quantizer(2, narrow=True, rounding=Rounding.FLOOR)
        two = integer_quantizer(2, scale=2.0, rounding=Rounding.FLOOR)
        value = context.builder.quantize(context.builder.quantize(value, narrow), two)
        context.record(node.name or "", quant, "two Quants, rounding down")
        return replace(settled, value=value).then(add(_UNIT), multiply(scale))
    maker = producer(value)
    if maker is not None and maker.op_type in MERGED:
        value = context.builder.keep_sign(value)
    signs = context.builder.quantize(value, BipolarQuant(_UNIT))
    context.record(node.name or "", quant, "BipolarQuant")
    steps = () if np.all(scale == 1) else (multiply(scale),)
    return replace(settled, value=signs, steps=steps, bits=True)


def _rounding(node: Node, quant: IntQuant) -> Rounding:
    if quant.rounding in {Rounding.ROUND, Rounding.FLOOR}:
        return quant.rounding
    if quant.rounding is Rounding.DOWN and not quant.signed and not np.any(quant.zero_point):
        # What is clamped to zero or more is rounded toward zero by rounding down.
        return Rounding.FLOOR
    raise refuse(
        node,
        f"rounding mode {quant.rounding}: hls4ml raises NotImplementedError, it knows ROUND "
        "and FLOOR",
        "train or calibrate with ROUND or FLOOR",
    )


def _lower_integers(context: Context, node: Node, term: Term, quant: IntQuant) -> Term:
    assert quant.bits is not None
    bits = single_value(quant.bits)
    if np.any(quant.bits != np.rint(quant.bits)):
        raise refuse(node, "a fractional bit width, which hls4ml rounds up silently")
    if quant.narrow and not quant.signed:
        raise refuse(
            node, "unsigned and narrow: hls4ml raises NotImplementedError for the narrow range"
        )
    if bits is None:
        return lower_channel_widths(context, node, quant, _rounding(node, quant))
    if bits == 1 and context.ac_types:
        raise refuse(
            node,
            "one unsigned bit: back ends that are written with ac_types compute it wrongly",
            "backend=Vitis takes it",
        )
    rounding = _rounding(node, quant)
    assert quant.scale is not None
    assert quant.zero_point is not None
    single = single_value(quant.scale)
    written = integer_quantizer(
        int(bits), signed=quant.signed, narrow=quant.narrow, rounding=rounding
    )
    if single is not None and is_power_of_two(quant.scale) and not np.any(quant.zero_point):
        settled = context.settle(term, for_quantizer=True)
        written = replace(written, scale=np.asarray(single, dtype=np.float32))
        context.record(node.name or "", quant, "Quant")
        return replace(settled, value=context.builder.quantize(settled.value, written))
    scale = channel_values(term, quant.scale, node)
    zero = channel_values(term, quant.zero_point, node)
    if np.any(zero != np.rint(zero)):
        raise refuse(
            node, "a zero point that is no whole number, which hls4ml drops or rounds"
        )
    settled = context.settle(term.then(divide(scale)), for_quantizer=True)
    words = "scale + Quant of step 1 + scale"
    if quant.zero_point_after_rounding:
        # Limits of a type are powers of two: the codes are rounded in a wider one first.
        rounded = context.builder.quantize(settled.value, _rounded_levels(quant, rounding))
        settled, words = (
            replace(settled, value=rounded),
            "scale + Quant + shift + Quant + scale",
        )
    if np.any(zero):
        settled = context.settle(settled.then(add(zero)))
    codes = context.builder.quantize(settled.value, written)
    context.record(node.name or "", quant, words)
    after = (add(-zero), multiply(scale)) if np.any(zero) else (multiply(scale),)
    return replace(settled, value=codes, steps=after)


def _rounded_levels(quant: IntQuant, rounding: Rounding) -> IntQuant:
    """Return the quantizer of step 1 that rounds, and whose range holds every level."""
    width = single_value(quant.bits) or 0
    low, high = integer_bounds(width, signed=quant.signed, narrow=quant.narrow)
    zero = np.asarray(quant.zero_point)
    ends = int(np.min(low - zero)), int(np.max(high - zero))
    bits, _ = bits_of_range(min(ends[0], -1), max(ends[1], 0))
    return integer_quantizer(bits, rounding=rounding)


def lower_relu(context: Context, node: Node) -> Term:
    """Return the term of a ReLU, which positive factors pass by."""
    term = context.data(node)
    if term.relu:
        return term
    if term.bits:
        term = context.settle(term)
    if term.is_scaled():
        return context.builder.put(term, "Relu", [term.value])
    return replace(term, relu=True)


def lower_leaky_relu(context: Context, node: Node) -> Term:
    """Return the term of a leaky ReLU."""
    alpha = float(attribute(node, "alpha", 0.01))
    term = context.settle(context.data(node))
    return context.builder.put(term, "LeakyRelu", [term.value], {"alpha": alpha})


def lower_table(context: Context, node: Node) -> Term:
    """Return the term of a function that hls4ml reads from a table."""
    if not context.allow_lossy:
        raise refuse(
            node,
            "hls4ml computes it from a table of 1024 entries, near but not equal",
            "allow a near form, or quantize a piecewise linear activation instead",
        )
    term = context.settle(context.data(node))
    context.notes.append(f"hls4ml computes {node.op_type} '{node.name}' from a table")
    return context.builder.put(term, node.op_type, [term.value])


def lower_softmax(context: Context, node: Node) -> Term:
    """Return the term of a Softmax over a row: at the end as it is, else from a table."""
    term = context.data(node)
    axis = int(attribute(node, "axis", -1))
    if len(term.shape) != 2 or axis % len(term.shape) != 1:
        raise refuse(node, "a Softmax over another axis than a row's")
    if not _is_last(node.outputs[0]):
        return lower_table(context, node)
    term = context.settle(term)
    return context.builder.put(term, "Softmax", [term.value], {"axis": -1})


def _is_last(value: Value) -> bool:
    """Return whether a value leaves the graph, as it is or in another shape."""
    uses = [usage for usage in value.uses() if usage.node.op_type != "Shape"]
    if not uses:
        return value.is_graph_output()
    moved = all(operators.keeps_memory_order(usage.node) for usage in uses)
    return moved and all(_is_last(usage.node.outputs[0]) for usage in uses)


def lower_negation(context: Context, node: Node) -> Term:
    """Return the term of the negative."""
    return _continued(context, context.data(node), multiply(-_UNIT))


def lower_normalization(context: Context, node: Node) -> Term:
    """Return the term of a batch normalization with constant statistics."""
    parameters = [context.constant(node, index) for index in range(1, 5)]
    known = [p.reshape(-1) for p in parameters if p is not None]
    if len(known) != 4:
        raise refuse(node, "its parameters are computed; hls4ml takes constant ones only")
    term = context.data(node)
    gain, shift, mean, variance = known
    step = normalize((gain, shift, mean, variance, float(attribute(node, "epsilon", 1e-5))))
    if term.flat:
        channels = np.arange(term.shape[1], dtype=np.int64)
        of_each = channels.reshape(1, -1, *(1,) * (len(term.shape) - 2))
        return _continued(
            context, term, step.moved(np.broadcast_to(of_each, term.shape).reshape(-1))
        )
    if term.axes.index(len(term.shape) - 1) != 1:
        term = context.laid_out(
            context.settle(term), permutations.to_first(len(term.shape)), node
        )
    if term.order is not None:
        step = step.moved(term.order)
    return _continued(context, term, step)


def _continued(context: Context, term: Term, step: AffineStep) -> Term:
    if term.relu:
        term = context.settle(term)
    return term.then(step)


def lower_arithmetic(context: Context, node: Node) -> Term:
    """Return the term of an addition, subtraction, product or quotient."""
    constants = [context.constant(node, index) for index in range(2)]
    if constants[0] is None and constants[1] is None:
        return lower_merge(context, node)
    position = 0 if constants[0] is not None else 1
    known = constants[position]
    term = context.data(node, 1 - position)
    assert known is not None
    values = channel_values(term, known, node).astype(np.float32)
    if node.op_type == "Div" and position == 0:
        raise refuse(node, "a constant divided by data: hls4ml cannot divide by data")
    steps: dict[str, tuple[AffineStep, ...]] = {
        "Add": (add(values),),
        "Mul": (multiply(values),),
        "Div": (divide(values),) if node.op_type == "Div" else (),
        "Sub": (add(-values),) if position == 1 else (multiply(-_UNIT), add(values)),
    }
    for step in steps[node.op_type]:
        term = _continued(context, term, step)
    return term


def lower_extreme(context: Context, node: Node) -> Term:
    """Return the term of Max or Min, of two activations or with a constant."""
    known = [context.constant(node, index) is not None for index in range(len(node.inputs))]
    single = sum(known) == 1 and len(known) == 2
    return lower_bounds(context, node) if single else lower_merge(context, node)


def lower_merge(context: Context, node: Node) -> Term:
    """Return the term of what combines two activations, element by element."""
    if len(node.inputs) != 2:
        raise refuse(node, "hls4ml merges two tensors only")
    left, right = context.data(node, 0), context.data(node, 1)
    if left.shape != right.shape:
        raise refuse(node, "operands of two shapes, which hls4ml combines modulo their sizes")
    if node.op_type == "Div":
        raise refuse(node, "data divided by data: hls4ml has no such layer")
    a, b = (() if term.order is None else term.order for term in (left, right))
    if not np.array_equal(a, b):
        raise refuse(node, "its operands were flattened in different orders")
    right = context.laid_out(right, left.axes, node) if right.axes != left.axes else right
    if not (operators.adds(node) and _have_one_factor(left, right)):
        left, right = context.settle(left), context.settle(right)
    return context.builder.put(left, node.op_type, [left.value, right.value])


def _have_one_factor(left: Term, right: Term) -> bool:
    """Return whether one product is left to be done to both, and is the same."""
    if left.bits or right.bits or not (left.is_scaled() and right.is_scaled()):
        return False
    return len(left.steps) == len(right.steps) == 1 and np.array_equal(
        left.steps[0].factor, right.steps[0].factor
    )
