"""Quantizers under the names that other tools give them, in the operators that mean the same.

Sources: the documents of AMD Quark's custom operators and OpenVINO's FakeQuantize-1; the tests
of Deeploy, with their recorded answers, for RequantShift; the operators that mct_quantizers
registers with onnxruntime.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import DataType, Model, Node

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.queries import attribute, dims, fits_into, input_of
from qonnx_hub_ir.graph.subgraphs import every_node
from qonnx_hub_ir.quantizers import Array, IntQuant, Rounding, bits_of_bounds
from qonnx_hub_ir.semantics import quantize

KEPT = "qonnx_hub.kept"
"""Metadata of a node: why it is no quantizer of the IR."""

_BYTES = frozenset({DataType.INT8, DataType.UINT8})
_STORED = _BYTES | {DataType.INT16, DataType.UINT16}

_FEWEST_LEVELS = 2

_RENAMED = {
    "ExtendedQuantizeLinear": "QuantizeLinear",
    "ExtendedDequantizeLinear": "DequantizeLinear",
    "VitisQuantizeLinear": "QuantizeLinear",
    "VitisDequantizeLinear": "DequantizeLinear",
}
"""AMD's names of operators that take more types than the standard ones did."""


_NOT_INTEGERS = {
    "BFPQuantizeDequantize": "a block shares an exponent that follows from its data",
    "MXQuantizeDequantize": "a block shares a scale that follows from its data",
    **dict.fromkeys(
        ("ActivationUniformQuantizer", "WeightsUniformQuantizer"),
        "its limits are moved onto the grid in a precision that differs by runtime",
    ),
    **dict.fromkeys(
        (
            "ActivationLutPOTQuantizer",
            "WeightsLUTPOTQuantizer",
            "WeightsLUTSymmetricQuantizer",
        ),
        "its values are those of a table, not the multiples of a scale",
    ),
}
"""Operators of other tools that quantize otherwise than by integers, and how."""


def is_foreign_quantizer(domain: str, op_type: str) -> bool:
    """Return whether an operator is a quantizer of another tool that is read here."""
    own = op_type in _RULES or op_type in _NOT_INTEGERS
    return own and operators.is_opaque_name(domain, op_type)


def translate(model: Model) -> None:
    """Write quantizers of other tools in operators that are known here, in place.

    One of which something is not known stays, opaque as it is.
    """
    for node in every_node(model, functions=False):
        if not is_foreign_quantizer(node.domain, node.op_type):
            continue
        if node.op_type in _RULES:
            _RULES[node.op_type](node)
        else:
            reason = _NOT_INTEGERS[node.op_type]
            node.metadata_props[KEPT] = (
                f"looks like a quantizer, is none of integers: {reason}"
            )


def _rename(node: Node) -> None:
    """Give a Quantize- or DequantizeLinear of integers its standard name."""
    stored = input_of(node, 2)
    if stored is None or stored.dtype not in _STORED:
        return
    # The standard operator takes 16 bits since opset 21, onnxruntime's own always did.
    node.domain = "" if stored.dtype in _BYTES else dialect.ONNXRUNTIME_DOMAIN
    node.op_type = _RENAMED[node.op_type]


def _number(node: Node, *names: str) -> float | None:
    """Return an attribute, a number or a tensor of one, under the first name that is there."""
    for name in names:
        given = attribute(node, name, None)
        if given is not None:
            array = np.asarray(given.numpy() if hasattr(given, "numpy") else given)
            return float(array.reshape(-1)[0]) if array.size == 1 else None
    return None


def _constant(node: Node, index: int) -> Array | None:
    """Return a constant input in double, where it leaves the shape of the data."""
    known = dialect.constant_value(input_of(node, index))
    if known is None or known.dtype.kind not in "fiu":
        return None
    fits = known.size == 1 or fits_into(known.shape, dims(node.inputs[0]))
    return known.astype(np.float64) if fits else None


def _requantize(node: Node) -> None:
    """``RequantShift``: ``clip(floor((x * mul + add) / div + 1/2))`` of integers.

    Products and sums are those of integers: in double they are exact up to 2^53, and dividing
    by a power of two is.
    """
    factor, offset = _constant(node, 1), _constant(node, 2)
    divisor = _number(node, "div")
    levels, signed = _number(node, "n_levels_out", "n_levels"), _number(node, "signed")
    x = node.inputs[0]
    if x is None or factor is None or offset is None or levels is None or signed is None:
        return
    if divisor is None or divisor <= 0 or np.log2(divisor) % 1:
        return
    low = -int(levels) // 2 if signed else 0
    bits = bits_of_bounds(low, low + int(levels) - 1)
    if bits is None:
        return
    emit = Emitter(node)
    y = emit.add("Cast", [x], to=int(DataType.DOUBLE))
    y.type, y.shape = onnx_ir.TensorType(DataType.DOUBLE), x.shape
    for op_type, label, constant in (
        ("Mul", "mul", factor),
        ("Add", "add", offset + divisor / 2),
        ("Div", "div", np.float64(divisor)),
    ):
        y = emit.add(op_type, [y, emit.constant(label, np.asarray(constant))], y)
    one, zero = np.array(1, np.float32), np.array(0, np.float32)
    size = np.array(bits[0], np.float32)
    quant = IntQuant(one, zero, size, bits[1], bits[2], Rounding.FLOOR)
    kind = emit.node.outputs[0].dtype or x.dtype or DataType.FLOAT
    emit.replace_with(emit.add("Cast", [emit.quantizer(y, quant)], x, to=int(kind)))


def _fake_quantize(node: Node) -> None:
    """OpenVINO's ``FakeQuantize``: its document's formula, step by step in float32.

    With ``n = levels - 1``, between the input's limits:
    ``round((x - low) / (high - low) * n) / n * (y_high - y_low) + y_low``.
    """
    ends, levels = [_constant(node, index) for index in range(1, 5)], _number(node, "levels")
    x = node.inputs[0]
    known = [end.astype(np.float32) for end in ends if end is not None]
    if x is None or len(known) < len(ends) or levels is None or levels < _FEWEST_LEVELS:
        return
    low, high, y_low, y_high = known
    if np.any(low >= high) or np.any(y_low >= y_high):
        return
    emit, last, y = Emitter(node), np.float32(levels - 1), x
    for op_type, label, constant in (
        ("Max", "low", low),
        ("Min", "high", high),
        ("Sub", "low", low),
        ("Div", "width", high - low),
        ("Mul", "last", last),
        ("Round", "", None),
        ("Div", "last", last),
        ("Mul", "y_width", y_high - y_low),
        ("Add", "y_low", y_low),
    ):
        others = [] if constant is None else [emit.constant(label, np.asarray(constant))]
        y = emit.add(op_type, [y, *others], x)
    emit.replace_with(y)


def _symmetric(node: Node) -> None:
    """A symmetric quantizer of mct_quantizers: ``round(clip(x, low, high) / scale) * scale``.

    The threshold is an attribute of activations, an input of weights, perhaps per channel.
    A constant becomes a quantizer where that gives the same values; what moves is written in
    steps, which are compared for all values later.
    """
    x, bits, signed = node.inputs[0], _number(node, "num_bits"), _number(node, "signed")
    threshold = _threshold(node)
    if x is None or bits is None or threshold is None or bits < 1 or bits % 1:
        return
    if not np.all(np.isfinite(threshold) & (threshold > 0)):
        return
    is_signed = bool(1 if signed is None else signed)
    scale = (threshold / 2.0 ** (bits - is_signed)).astype(np.float32)
    low = (-threshold if is_signed else np.zeros_like(threshold)).astype(np.float32)
    high = (threshold - threshold / 2.0 ** (bits - is_signed)).astype(np.float32)
    emit, known = Emitter(node), dialect.constant_value(x)
    if known is not None:
        size, zero = np.array(bits, np.float32), np.array(0, np.float32)
        quant = IntQuant(scale, zero, size, is_signed, narrow=False, rounding=Rounding.ROUND)
        clipped = np.minimum(np.maximum(known, low), high)
        if np.array_equal(np.rint(clipped / scale) * scale, quantize(known, quant)):
            emit.replace_with(emit.quantizer(x, quant))
        return
    y = x
    for op_type, label, constant in (
        ("Max", "low", low),
        ("Min", "high", high),
        ("Div", "scale", scale),
        ("Round", "", None),
        ("Mul", "scale", scale),
    ):
        others = [] if constant is None else [emit.constant(label, constant)]
        y = emit.add(op_type, [y, *others], x)
    emit.replace_with(y)


def _threshold(node: Node) -> Array | None:
    """Return a threshold in double, in the shape in which it meets the data."""
    single = _number(node, "threshold")
    if single is not None:
        return np.array(single, dtype=np.float64)
    known, shape = dialect.constant_value(input_of(node, 1)), dims(node.inputs[0])
    if known is None or known.dtype.kind not in "fiu":
        return None
    values = known.astype(np.float64).reshape(-1)
    if not _number(node, "per_channel"):
        return values.reshape(()) if values.size == 1 else None
    axis = _number(node, "channel_axis")
    if shape is None or axis is None or not -len(shape) <= axis < len(shape):
        return None
    if shape[int(axis)] != values.size:
        return None
    sizes = [1] * len(shape)
    sizes[int(axis)] = values.size
    return values.reshape(sizes)


_RULES: Mapping[str, Callable[[Node], Any]] = {
    **dict.fromkeys(_RENAMED, _rename),
    "FakeQuantize": _fake_quantize,
    "RequantShift": _requantize,
    **dict.fromkeys(("ActivationPOTQuantizer", "ActivationSymmetricQuantizer"), _symmetric),
    **dict.fromkeys(("WeightsPOTQuantizer", "WeightsSymmetricQuantizer"), _symmetric),
}
"""Operator, in whatever domain a tool puts it -> what writes it in others."""
