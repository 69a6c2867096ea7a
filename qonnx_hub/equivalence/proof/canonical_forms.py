"""One number for what can be said in several ways, where the equality needs no search.

The equalities used:

* Identity, Dropout at inference, a Cast to the type at hand: nothing happens;
* what :mod:`~qonnx_hub.equivalence.proof.layer_forms` says of layers and neutral operators;
* Flatten, Reshape, Squeeze, Unsqueeze: the shape of the result says it all;
* Gemm: a product, of a transposed matrix perhaps, and a sum;
* arithmetic with one element, of any rank up to the other operand's: with a scalar;
* an integer quantizer whose parameters are computed at run time, or that has more levels than
  can be listed: its formula, operator by operator;
* QuantizeLinear, Clip, DequantizeLinear with a scale computed at run time: the same formula,
  as clamping to whole numbers and rounding may change places, and as a whole zero point that
  is added after rounding and taken off again only moves the bounds. NaN is left out.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx_ir import Node, Value

from qonnx_hub.equivalence.proof.layer_forms import kept_input, layer_form
from qonnx_hub.equivalence.proof.proof_model import ProofModel
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.constants import without_extra_axes
from qonnx_hub_ir.graph.queries import attribute, input_of, producer
from qonnx_hub_ir.quantizers import (
    BipolarQuant,
    IntQuant,
    Rounding,
    integer_bounds,
    single_value,
)

_ROUNDERS = {Rounding.ROUND: "Round", Rounding.CEIL: "Ceil", Rounding.FLOOR: "Floor"}

_MAGNITUDE_ROUNDERS = {
    Rounding.HALF_UP: ("Add", "Floor"),
    Rounding.HALF_DOWN: ("Sub", "Ceil"),
    Rounding.DOWN: ("", "Floor"),
    Rounding.UP: ("", "Ceil"),
}
"""Modes that round the magnitude: what is done with a half first, and what rounds."""

_LISTED_LEVELS = 1 << 18
"""Quantizers with more levels, of all channels together, are taken by their formula."""


def is_transparent(node: Node) -> bool:
    """Return whether the node's first output is its first input."""
    if node.domain not in dialect.STANDARD_DOMAINS:
        return False
    if node.op_type == "Cast":
        value = node.inputs[0]
        return value is not None and value.dtype == node.attributes["to"].value
    return operators.is_identity(node)


def leaves_nan_out(model: ProofModel, node: Node) -> bool:
    """Return whether the node's number rests on an equality that NaN is left out of."""
    if not dialect.is_quantizer(node):
        return node.op_type == "DequantizeLinear" and _requantized(model, node) is not None
    # A zero point that is added after rounding takes a NaN to the lowest code.
    after = attribute(node, "zero_point_after_rounding", 0)
    return bool(after) and _quantizer(model, node) is not None


def expression_number(model: ProofModel, node: Node) -> int:
    """Return the number of a node's first output, by what it computes.

    Args:
        model: The model.
        node: The node; its inputs have numbers.
    """
    if is_transparent(node):
        return model.number(node.inputs[0])
    kept = kept_input(model, node)
    if kept is not None:
        return model.number(kept)
    rule = _rule(node)
    found = None if rule is None else rule(model, node)
    if found is None:
        found = layer_form(model, node)
    return model.expression(node) if found is None else found


def _rule(node: Node) -> Callable[[ProofModel, Node], int | None] | None:
    if dialect.is_quantizer(node):
        return _quantizer
    if node.domain not in dialect.STANDARD_DOMAINS:
        return None
    if operators.reshapes(node):
        return _reshaped
    chooses = operators.selects_by_order(node) and operators.is_elementwise(node)
    if len(node.inputs) == 2 and (operators.is_affine(node) or chooses):
        return _arithmetic
    return {"DequantizeLinear": _requantized, "Gemm": _product}.get(node.op_type)


def _scalar(model: ProofModel, number: float) -> int:
    return model.numbering.of_constant(np.array(number, dtype=np.float32))


def _fixed_shape(value: Value | None) -> tuple[int, ...] | None:
    if value is None or value.shape is None:
        return None
    dims = tuple(d for d in value.shape if isinstance(d, int))
    return dims if len(dims) == len(value.shape) else None


def _reshaped(model: ProofModel, node: Node) -> int | None:
    dims = _fixed_shape(node.outputs[0])
    if dims is None:
        return None
    whole = model.number(node.inputs[0])
    if dims == _fixed_shape(node.inputs[0]):
        return whole
    return model.make("Reshape", whole, shape=dims)


def _product(model: ProofModel, node: Node) -> int | None:
    """Return a Gemm without factors as a product and a sum."""
    addend = input_of(node, 2)
    if attribute(node, "transA", 0) or attribute(node, "alpha", 1.0) != 1.0:
        return None
    if addend is not None and attribute(node, "beta", 1.0) != 1.0:
        return None
    left, right = model.number(node.inputs[0]), model.number(node.inputs[1])
    if attribute(node, "transB", 0):
        stored = model.constants.get(node.inputs[1]) if node.inputs[1] else None
        right = (
            model.make("Transpose", right, perm=(1, 0))
            if stored is None
            else model.numbering.of_constant(stored.T)
        )
    product = model.make("MatMul", left, right)
    if addend is None:
        return product
    return model.make("Add", product, _operand(model, addend, 2))


def _arithmetic(model: ProofModel, node: Node) -> int | None:
    left, right = node.inputs
    if left is None or right is None or left.shape is None or right.shape is None:
        return None
    return model.make(
        node.op_type,
        _operand(model, left, len(right.shape)),
        _operand(model, right, len(left.shape), signed=node.op_type == "Div"),
    )


def _operand(model: ProofModel, value: Value, rank: int, *, signed: bool = False) -> int:
    """Return the number of an operand; a single element stands for a scalar.

    Args:
        model: The model.
        value: The operand.
        rank: Rank of the other operand: one element of a higher rank would add axes.
        signed: Tell stored zeros of either sign apart.
    """
    constant = model.constants.get(value)
    dims = _fixed_shape(value) if constant is None else constant.shape
    is_scalar = bool(dims) and set(dims or ()) == {1} and len(dims or ()) <= rank
    if constant is not None:
        plain = constant.reshape(()) if is_scalar else constant
        return model.numbering.of_constant(plain, signed=signed)
    if not is_scalar:
        return model.number(value)
    return model.make("Reshape", model.number(value), shape=())


def _quantizer(model: ProofModel, node: Node) -> int | None:
    """Return a quantizer by its formula, where its levels cannot be listed."""
    known = [model.constants.get(value) if value else None for value in node.inputs[1:]]
    quant = dialect.quantizer_with(node, known)
    is_listed = all(values is not None for values in known)
    x, scale = node.inputs[:2]
    if isinstance(quant, BipolarQuant) and not is_listed:
        if not _is_float32(x) or not _is_float32(scale):
            return None
        low = model.make("Neg", model.number(scale))
        is_high = model.make("GreaterOrEqual", model.number(x), _scalar(model, 0.0))
        return model.make("Where", is_high, model.number(scale), low)
    if not isinstance(quant, IntQuant):
        return None
    bits = single_value(quant.bits)
    if bits is None or (quant.signed and bits == 1):
        return None
    channels = max(values.size for values in known if values is not None)
    if is_listed and 2**bits * channels <= _LISTED_LEVELS:
        return None
    return _formula(model, node, quant, bits)


def _is_float32(value: Value | None) -> bool:
    return value is not None and value.dtype is not None and value.dtype.name == "FLOAT"


def _formula(model: ProofModel, node: Node, quant: IntQuant, bits: float) -> int | None:
    """Return divide, add, clamp, round, subtract, multiply, without what does nothing."""
    scale = _parameter(model, node, 1)
    zero = _parameter(model, node, 2)
    if scale is None or zero is None or not _is_float32(node.inputs[0]):
        return None
    is_unit, offset = single_value(quant.scale) == 1, single_value(quant.zero_point)
    is_zero = offset == 0
    low, high = integer_bounds(bits, signed=quant.signed, narrow=quant.narrow)
    if quant.zero_point_after_rounding:
        if offset is None:
            return None
        # Whole numbers: a sum, clamped, less the same number is clamped by shifted bounds.
        low, high, is_zero = low - offset, high - offset, True
    t = model.number(node.inputs[0])
    if not is_unit:
        t = model.make("Div", t, scale)
    if not is_zero:
        t = model.make("Add", t, zero)
    t = model.make("Clip", t, _scalar(model, low), _scalar(model, high))
    rounded = _rounded(model, t, quant.rounding)
    if rounded is None:
        return None
    t = rounded if is_zero else model.make("Sub", rounded, zero)
    return t if is_unit else model.make("Mul", t, scale)


def _rounded(model: ProofModel, t: int, mode: Rounding) -> int | None:
    """Return rounded values: by an operator, or by rounding the magnitude."""
    if mode in _ROUNDERS:
        return model.make(_ROUNDERS[mode], t)
    if mode not in _MAGNITUDE_ROUNDERS:
        return None
    shift, rounder = _MAGNITUDE_ROUNDERS[mode]
    size = model.make("Abs", t)
    if shift:
        size = model.make(shift, size, _scalar(model, 0.5))
    return model.make("Mul", model.make(rounder, size), model.make("Sign", t))


def _parameter(model: ProofModel, node: Node, index: int) -> int | None:
    """Return the number of a scale or zero point as the formula uses it, in float32."""
    value, x = node.inputs[index], node.inputs[0]
    assert value is not None
    constant = model.constants.get(value)
    if constant is not None:
        return model.numbering.of_constant(without_extra_axes(constant))
    if not _is_float32(value) or x is None or x.shape is None:
        return None
    return _operand(model, value, len(x.shape))


def _requantized(model: ProofModel, node: Node) -> int | None:
    """Return QuantizeLinear, Clip, DequantizeLinear with one run-time scale as a formula."""
    codes, scale = node.inputs[0], node.inputs[1]
    if codes is None or scale is None or scale in model.constants:
        return None
    quantize = codes.producer()
    if quantize is not None and quantize.op_type == "Clip":
        quantize = producer(quantize.inputs[0])
    if quantize is None or quantize.op_type != "QuantizeLinear":
        return None
    x, own_scale = quantize.inputs[0], quantize.inputs[1]
    zero, ends = _zero_point(model, node), _code_bounds(model, codes)
    if zero is None or zero != _zero_point(model, quantize) or ends is None:
        return None
    dims = _fixed_shape(scale)
    if model.number(scale) != model.number(own_scale) or dims is None or set(dims) - {1}:
        return None
    if not _is_float32(x) or x is None or x.shape is None:
        return None
    unit = _operand(model, scale, len(x.shape))
    t = model.make("Div", model.number(x), unit)
    low, high = (_scalar(model, float(end - zero)) for end in ends)
    t = model.make("Round", model.make("Clip", t, low, high))
    return model.make("Mul", t, unit)


def _code_bounds(model: ProofModel, codes: Value) -> tuple[int, int] | None:
    """Return the lowest and the highest code that a value may hold, by its type and a Clip.

    Returns:
        ``None`` where the value holds no integers, or a bound is computed at run time.
    """
    kind, node = codes.dtype, codes.producer()
    if kind is None or not kind.is_integer():
        return None
    bounds = integer_bounds(int(kind.bitwidth), signed=kind.is_signed(), narrow=False)
    limits = int(bounds[0]), int(bounds[1])
    if node is None or node.op_type != "Clip":
        return limits
    ends = list(limits)
    for index, value in enumerate(node.inputs[1:3]):
        constant = None if value is None else model.constants.get(value)
        if constant is not None:
            ends[index] = sorted((limits[0], int(constant.reshape(())), limits[1]))[1]
        elif value is not None:
            return None
    return ends[0], ends[1]


def _zero_point(model: ProofModel, node: Node) -> int | None:
    """Return the node's one zero point; ``None`` unless it is constant."""
    value = input_of(node, 2)
    if value is None:
        return 0
    constant = model.constants.get(value)
    if constant is None or constant.size != 1 or constant.dtype.kind not in "iu":
        return None
    return int(constant.reshape(()))
