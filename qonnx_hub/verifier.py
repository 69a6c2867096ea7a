"""Whether a certificate of equality holds: a program that trusts neither its writer nor ours.

    python verifier.py certificate.json a.onnx b.onnx

It imports numpy, onnx and the standard library, and nothing of this project. The certificate
only says what to look at. That two values are equal is derived here: both are the same stored
numbers, the same operator of equal values, or the same steps of equal values. Steps are two
parts of a graph that treat every element by itself: between two thresholds that the
certificate names, interval arithmetic with the formulas below has to show that neither part
leaves its level, on every float of the type; where an operator is not in the list of those
that keep order, single floats are computed, and too many of them are a refusal.

Taken for granted: operators that are not steps are functions of their inputs, the same in both
files (``operators`` in the certificate names them; those of Softmax before and after opset 13
are two); a bias is added behind its sum; the sign of a zero does not count.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, defs, helper, inliner, numpy_helper, shape_inference
from onnx.external_data_helper import uses_external_data
from onnx.reference import ReferenceEvaluator

RULES = {"constant", "operator", "function", "output"}
FORMAT = "qonnx-hub certificate 1"
MOST_INTERVALS = 1 << 22
LOG_ULPS = 16

Array = npt.NDArray[Any]
QUANTIZERS = {"Quant", "BipolarQuant", "FloatQuant", "Trunc", "MultiThreshold"}
DOMAINS = {"qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general", "hawq2qonnx"}
DOMAINS |= {"qonnx", "qonnx.custom_op"}
CHANNELS_LAST = "qonnx.custom_op.channels_last"
RESHAPES = {"Reshape", "Flatten", "Squeeze", "Unsqueeze"}
NEUTRAL = {"Mul": (1, True), "Div": (1, False), "Add": (0, True), "Sub": (0, False)}
COMMUTES = {"Add", "Mul", "Max", "Min", "And", "Or", "Equal", "Sum", "Mean"}
RANDOM = {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike"}
RANDOM |= {"Bernoulli", "Multinomial"}
AS_INPUTS = {
    "Clip": ["min", "max"],
    "Pad": ["pads", "value"],
    "Slice": ["starts", "ends", "axes"],
    "Squeeze": ["axes"],
    "Unsqueeze": ["axes"],
    "ReduceSum": ["axes"],
    "ReduceMean": ["axes"],
    "ReduceMax": ["axes"],
    "ReduceMin": ["axes"],
    "Split": ["split"],
}
"""Attributes of old opsets that are inputs now, in order."""
NO_EFFECT = {"momentum", "spatial", "consumed_inputs", "kernel_shape", "storage_order"}
ALL_ONES_OR_ZEROS = {"pads": 0, "strides": 1, "dilations": 1, "auto_pad": "NOTSET"}
CODES = {
    TensorProto.INT8: (-128, 127),
    TensorProto.UINT8: (0, 255),
    TensorProto.INT16: (-32768, 32767),
    TensorProto.UINT16: (0, 65535),
    TensorProto.INT32: (-(2**31), 2**31 - 1),
    TensorProto.UINT32: (0, 2**32 - 1),
    TensorProto.INT64: (-(2**63), 2**63 - 1),
    TensorProto.INT4: (-8, 7),
    TensorProto.UINT4: (0, 15),
}


class RejectedError(Exception):
    """The certificate does not hold, or what it says could not be derived."""


class Step(NamedTuple):
    """A node: its operator, inputs ('' for none), outputs, attributes, those as stored."""

    op: str
    domain: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]
    stored: list[onnx.AttributeProto]
    place: int = 0


def require(condition: object, reason: str) -> None:
    """Raise RejectedError unless the condition holds."""
    if not condition:
        raise RejectedError(reason)


# Formulas: what one node makes of floats, one number per parameter.


def round_half_even_or(mode: str, t: Array) -> Array:
    """Return whole numbers by a rounding mode of QONNX."""
    half, size = t.dtype.type(0.5), np.abs(t)
    made = {
        "FLOOR": lambda: np.floor(t),
        "CEIL": lambda: np.ceil(t),
        "DOWN": lambda: np.trunc(t),
        "ROUND_TO_ZERO": lambda: np.trunc(t),
        "UP": lambda: np.copysign(np.ceil(size), t),
        "HALF_UP": lambda: np.copysign(np.floor(size + half), t),
        "HALF_DOWN": lambda: np.copysign(np.ceil(size - half), t),
        "DPU": lambda: np.where((t < 0) & (t - np.floor(t) == half), np.ceil(t), np.rint(t)),
        "ROUND": lambda: np.rint(t),
        "HALF_EVEN": lambda: np.rint(t),
    }.get(mode.upper())
    if made is None:
        raise RejectedError(f"unknown rounding mode {mode}")
    return np.asarray(made())


def code_range(node: Step, bits: float) -> tuple[float, float]:
    """Return the lowest and the highest code of a bit width."""
    narrow = node.attributes.get("narrow", 0)
    if node.attributes.get("signed", 1):
        return -(2.0 ** (bits - 1)) + narrow, 2.0 ** (bits - 1) - 1
    return 0.0, 2.0**bits - 1 - narrow


def quant(node: Step, x: Array, scale: Array, zero: Array, bits: Array) -> Array:
    """Return what Quant makes of x: QONNX's order, or QuantizeLinear's."""
    kind, mode = x.dtype.type, str(node.attributes.get("rounding_mode", "ROUND"))
    s, z = kind(scale), kind(zero)
    if float(bits) == 1 and node.attributes.get("signed", 1):
        return np.where(x / s + z >= 0, (kind(1) - z) * s, (kind(-1) - z) * s)
    low, high = (kind(end) for end in code_range(node, float(bits)))
    if node.attributes.get("zero_point_after_rounding", 0):
        codes = np.minimum(np.fmax(round_half_even_or(mode, x / s) + z, low), high)
    else:
        codes = round_half_even_or(mode, np.clip(x / s + z, low, high))
    return np.asarray((codes - z) * s)


def float_quant(node: Step, x: Array, scale: Array, *format_: Array) -> Array:
    """Return what FloatQuant makes of x: the nearest number of a small float format."""
    exponent, mantissa, bias, most = (float(value) for value in format_)
    require(node.attributes.get("saturation", 1), "FloatQuant that does not saturate")
    limit = x.dtype.type(min((2 - 2.0**-mantissa) * 2.0 ** (2.0**exponent - 1 - bias), most))
    t = np.asarray(x / x.dtype.type(scale))
    _, power = np.frexp(np.abs(t) + np.finfo(x.dtype).tiny)
    step = np.maximum(power - 1 - int(mantissa), int(1 - bias - mantissa))
    grid = np.ldexp(x.dtype.type(1), np.where(np.isfinite(t), step, 0).astype(np.int32))
    mode = str(node.attributes.get("rounding_mode", "ROUND"))
    rounded = grid * round_half_even_or(mode, np.asarray(t / grid))
    return np.asarray(np.clip(rounded, -limit, limit) * x.dtype.type(scale))


def trunc(node: Step, x: Array, scale: Array, zero: Array, *rest: Array) -> Array:
    """Return what Trunc makes of x, in version 1 (five inputs) or 2 (six)."""
    kind, mode = x.dtype.type, str(node.attributes.get("rounding_mode", "FLOOR"))
    s, z = kind(scale), kind(zero)
    whole = np.rint(x / s + z)
    if len(rest) == 2:
        shift = kind(2.0 ** (float(rest[0]) - float(rest[1])))
        return np.asarray((round_half_even_or(mode, whole / shift) - z) * s)
    wide = kind(rest[1])
    shift = kind(np.exp2(np.rint(np.log2(wide / s))))
    low, high = (kind(end) for end in code_range(node, float(rest[2])))
    codes = round_half_even_or(mode, np.clip(whole / shift, low, high))
    return np.asarray((codes - z / shift) * wide)


def count(node: Step, x: Array, thresholds: Array) -> Array:
    """Return what MultiThreshold makes of x: how many thresholds it reaches, scaled."""
    counts = np.searchsorted(np.sort(thresholds), x, side="right")
    scale, bias = (
        x.dtype.type(node.attributes.get(name, default))
        for name, default in (("out_scale", 1.0), ("out_bias", 0.0))
    )
    return np.asarray(scale * np.where(np.isnan(x), 0, counts).astype(x.dtype) + bias)


def quantize_linear(node: Step, x: Array, scale: Array, zero: Array | None = None) -> Array:
    """Return the codes of x: int64 (rounded, moved, kept in range), or small floats."""
    t, kind = x / np.asarray(scale).astype(x.dtype), node.attributes["codes"]
    if kind not in CODES:
        small = helper.tensor_dtype_to_np_dtype(kind)
        every = np.arange(256, dtype=np.uint8).view(small).astype(np.float32)
        require(node.attributes.get("saturate", 1) and not zero, "float codes of this kind")
        most = np.max(every[np.isfinite(every)])
        return np.asarray(np.clip(t, -most, most).astype(small).astype(np.float32))
    (low, high), z = CODES[kind], 0 if zero is None else int(zero)
    return np.asarray(np.minimum(np.fmax(np.rint(t), low - z), high - z).astype(np.int64) + z)


def dequantize_linear(
    node: Step, codes: Array, scale: Array, zero: Array | None = None
) -> Array:
    """Return codes as values."""
    levels = codes if codes.dtype.kind == "f" else codes.astype(np.int64)
    levels = levels if zero is None or not zero else levels - np.int64(zero)
    return np.asarray(levels.astype(scale.dtype) * scale)


def cast(node: Step, x: Array) -> Array:
    """Return x in another type; integers as int64, and only where none wraps."""
    target = node.attributes["to"]
    if target == TensorProto.BOOL:
        return np.asarray(x != 0)
    if target in CODES:
        whole, (low, high) = np.trunc(x) if x.dtype.kind == "f" else x, CODES[target]
        require(np.all((whole >= low) & (whole <= high)), "a Cast that wraps")
        return np.asarray(whole.astype(np.int64))
    return np.asarray(x.astype(helper.tensor_dtype_to_np_dtype(target)))


def clip(node: Step, x: Array, low: Array | None = None, high: Array | None = None) -> Array:
    """Return x between two bounds."""
    x = x if low is None else np.maximum(x, low)
    return np.asarray(x if high is None else np.minimum(x, high))


def leaky(node: Step, x: Array) -> Array:
    """Return LeakyRelu of x."""
    return np.asarray(np.where(x < 0, x.dtype.type(node.attributes.get("alpha", 0.01)) * x, x))


FORMULAS: Mapping[str, Callable[..., Array]] = {
    "Quant": quant,
    "BipolarQuant": lambda node, x, s: np.where(x >= 0, x.dtype.type(s), -x.dtype.type(s)),
    "FloatQuant": float_quant,
    "Trunc": trunc,
    "MultiThreshold": count,
    "QuantizeLinear": quantize_linear,
    "DequantizeLinear": dequantize_linear,
    "Cast": cast,
    "Clip": clip,
    "LeakyRelu": leaky,
    "Relu": lambda node, x: np.maximum(x, x.dtype.type(0)),
    "Abs": lambda node, x: np.abs(x),
    "Neg": lambda node, x: -x,
    "Sign": lambda node, x: np.sign(x),
    "Round": lambda node, x: np.rint(x),
    "Floor": lambda node, x: np.floor(x),
    "Ceil": lambda node, x: np.ceil(x),
    "Log": lambda node, x: np.log(x),
    "Pow": lambda node, x, y: np.power(x, y),
    "Add": lambda node, x, y: x + y,
    "Sub": lambda node, x, y: x - y,
    "Mul": lambda node, x, y: x * y,
    "Div": lambda node, x, y: x / y,
    "Max": lambda node, *given: np.maximum.reduce(np.broadcast_arrays(*given)),
    "Min": lambda node, *given: np.minimum.reduce(np.broadcast_arrays(*given)),
    "Less": lambda node, x, y: x < y,
    "Greater": lambda node, x, y: x > y,
    "LessOrEqual": lambda node, x, y: x <= y,
    "GreaterOrEqual": lambda node, x, y: x >= y,
    "Equal": lambda node, x, y: x == y,
    "And": lambda node, x, y: x & y,
    "Or": lambda node, x, y: x | y,
    "Not": lambda node, x: ~x,
    "Where": lambda node, c, x, y: np.where(c, x, y),
    "Identity": lambda node, x: x,
}
KEEP_ORDER = {"Add", "Sub", "Neg", "Min", "Max", "Relu", "Clip", "Round", "Floor", "Ceil"}
KEEP_ORDER |= {"Sign", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "And", "Or", "Not"}
KEEP_ORDER |= {"Identity", "Cast", "Mul", "Div", "MultiThreshold", "BipolarQuant"}
"""Monotone in each input by itself, floats rounded to nearest: sums, products and quotients
are because rounding is; Mul and Div where no 0 * inf and no division by 0 lies between."""
NEED_POSITIVE_SCALE = {"Quant", "FloatQuant", "Trunc", "QuantizeLinear", "DequantizeLinear"}

Box = tuple[Array, Array, Array]
"""Lowest, highest, and where these are known to hold."""


class Parameter(NamedTuple):
    """A constant input: what it is at each place of the data, and where."""

    grid: Array
    rows: Array

    def at(self, place: tuple[int, ...]) -> Array:
        """Return the number, or the thresholds, for one place of the data."""
        where = tuple(i if n > 1 else 0 for i, n in zip(place, self.grid.shape, strict=True))
        return np.asarray(self.rows[self.grid[where] if self.grid.ndim else 0])


def aligned(step: Step, position: int, array: Array, rank: int) -> Parameter:
    """Return a constant input laid along the axes of data of a rank."""
    if step.op == "MultiThreshold":
        layout = (
            str(step.attributes.get("data_layout", ""))
            or ["", "NC", "NWC", "NCHW"][rank - 1 if 1 < rank < 5 else 0]
        )
        axis = layout.index("C") if "C" in layout else 1
        shape = [1] * rank
        shape[axis] = len(array)
        grid = np.arange(len(array), dtype=np.int64)
        return Parameter(grid.reshape(() if len(array) == 1 else shape), array)
    rows = array.reshape(-1)
    grid = np.arange(array.size, dtype=np.int64)
    linear = step.op in {"QuantizeLinear", "DequantizeLinear"}
    if array.size == 1 and (array.ndim == 0 or linear or step.op in QUANTIZERS | {"Clip"}):
        return Parameter(grid.reshape(()), rows)
    if linear:
        require(array.ndim == 1 and not step.attributes.get("block_size", 0), "blocks")
        shape = [1] * rank
        shape[step.attributes.get("axis", 1)] = array.size
        return Parameter(grid.reshape(shape), rows)
    require(array.ndim <= rank, f"'{step.inputs[position]}' would add axes to the data")
    return Parameter(grid.reshape((1,) * (rank - array.ndim) + array.shape), rows)


def keeps_order(node: Step, given: Sequence[Array | Box | None]) -> bool:
    """Return whether the node is monotone in each of its inputs."""
    if node.op in NEED_POSITIVE_SCALE:
        fixed = [p for p in given[1:] if isinstance(p, np.ndarray)]
        positive = all(np.all(np.isfinite(p)) for p in fixed) and float(fixed[0]) > 0
        if node.op == "FloatQuant":
            return positive and float(fixed[2]) >= 0 and 1 - fixed[3] - fixed[2] >= -100
        if node.op == "Trunc" and len(fixed) == 5:
            return positive and float(fixed[3]) > 0
        return positive
    if node.op == "LeakyRelu":
        return bool(node.attributes.get("alpha", 0.01) >= 0)
    if node.op not in KEEP_ORDER:
        return False
    ends = [value[0] if isinstance(value, tuple) else value for value in given]
    # Integers wrap.
    exact = node.op in {"Clip", "Cast", "Identity", "Min", "Max", "Not", "And", "Or"}
    return exact or all(e is None or e.dtype.kind == "f" for e in ends)


def same(a: Array, b: Array) -> Array:
    """Return where two arrays hold the same, signs of zeros and NaN included."""
    if a.dtype.kind != "f":
        return np.asarray(a == b)
    return np.asarray(((a == b) & (np.signbit(a) == np.signbit(b))) | ((a != a) & (b != b)))


def enclose(node: Step, given: Sequence[Array | Box | None]) -> Box:
    """Return what the node's output can be while its inputs lie within boxes."""
    boxes = [box for box in given if isinstance(box, tuple)]
    known = np.logical_and.reduce([box[2] for box in boxes])
    point = known & np.logical_and.reduce([same(low, high) for low, high, _ in boxes])
    ends = [value[:2] if isinstance(value, tuple) else (value,) for value in given]
    formula = FORMULAS[node.op]
    corners = [np.asarray(formula(node, *fed)) for fed in itertools.product(*ends)]
    low, high = np.minimum.reduce(corners), np.maximum.reduce(corners)
    if node.op == "Where":
        (never, ever), x, y = ends[0], ends[1], ends[2]
        yes, no = never & ever, ~never & ~ever
        low = np.where(yes, x[0], np.where(no, y[0], np.minimum(x[0], y[0])))
        high = np.where(yes, x[-1], np.where(no, y[-1], np.maximum(x[-1], y[-1])))
        held = [box[2] if isinstance(box, tuple) else np.True_ for box in given]
        known = held[0] & ((yes & held[1]) | (no & held[2]) | (held[1] & held[2]))
    elif node.op == "Equal":
        (x_low, *_), (y_low, *_) = ends
        x_high, y_high = ends[0][-1], ends[1][-1]
        low = (x_low == x_high) & (y_low == y_high) & (x_low == y_low)
        high = (x_high >= y_low) & (y_high >= x_low)
    elif node.op == "Abs":
        low = np.where((ends[0][0] <= 0) & (ends[0][-1] >= 0), low.dtype.type(0), low)
    elif node.op == "Log":
        for _ in range(LOG_ULPS):
            low = np.nextafter(low, low.dtype.type(-np.inf))
            high = np.nextafter(high, high.dtype.type(np.inf))
    elif not keeps_order(node, given):
        known = point
    if node.op in {"Mul", "Div"}:
        zero = [(np.asarray(e[0]) <= 0) & (np.asarray(e[-1]) >= 0) for e in ends]
        huge = [np.isinf(e[0]) | np.isinf(e[-1]) for e in ends]
        bad = zero[1] if node.op == "Div" else (zero[0] & huge[1]) | (zero[1] & huge[0])
        known = known & ~bad
    spoiled = np.logical_or.reduce([corner != corner for corner in corners])
    low, high = (np.where(point, corners[0], end) for end in (low, high))
    return low, high, np.asarray(point | (known & ~spoiled))


# Files: nodes, stored numbers, shapes and types.


def plain(value: Any) -> Any:
    """Return an attribute's value as something that can be compared."""
    if isinstance(value, onnx.TensorProto):
        array = numpy_helper.to_array(value)
        return (str(array.dtype), array.shape, array.tobytes())
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, (list, tuple)):
        return tuple(plain(item) for item in value)
    require(not isinstance(value, onnx.GraphProto), "a node that holds a graph")
    return float(np.float32(value)) if isinstance(value, float) else value


def digest(path: str | Path) -> str:
    """Return the SHA-256 of a model file and of the files that hold its weights."""
    data = Path(path).read_bytes()
    found = hashlib.sha256(data)
    model = onnx.load_from_string(data)
    places = {
        entry.value
        for tensor in model.graph.initializer
        if uses_external_data(tensor)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    for place in sorted(places):
        found.update((Path(path).parent / place).read_bytes())
    return found.hexdigest()


def as_node(step: Step) -> onnx.NodeProto:
    """Return a step as a node again."""
    node = helper.make_node(step.op, step.inputs, step.outputs, domain=step.domain)
    node.attribute.extend(step.stored)
    return node


def transposition(source: str, target: str, perm: tuple[int, ...]) -> Step:
    """Return a Transpose."""
    stored = [helper.make_attribute("perm", perm)]
    return Step("Transpose", "", [source], [target], {"perm": perm}, stored)


class Side:
    """One file: nodes in order, constants, shapes, and what makes each value."""

    def __init__(self, path: str | Path) -> None:
        model = onnx.load(str(path))
        if model.functions:
            model = inliner.inline_local_functions(model)
        self.opsets = {o.domain.replace("ai.onnx", ""): o.version for o in model.opset_import}
        self.constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.types: dict[str, int] = {t.name: t.data_type for t in model.graph.initializer}
        self.shapes: dict[str, tuple[int | str, ...]] = {
            name: array.shape for name, array in self.constants.items()
        }
        given = [v.name for v in model.graph.input]
        self.inputs = [name for name in given if name not in self.constants]
        self.outputs = [v.name for v in model.graph.output]
        steps = [self.read(n) for n in model.graph.node if not self.is_stored(n)]
        self.steps = list(self.without_channels_last(steps))
        self.infer(model)
        self.maker: dict[str, Step] = {}
        for place, step in enumerate(self.steps):
            self.steps[place] = step._replace(place=place)
            self.maker.update((name, self.steps[place]) for name in step.outputs)
            self.fold(self.steps[place])

    def is_stored(self, node: onnx.NodeProto) -> bool:
        """Return whether a node is a Constant; its number is kept then."""
        if node.op_type != "Constant" or node.domain not in {"", "ai.onnx"}:
            return False
        value, name = helper.get_attribute_value(node.attribute[0]), node.attribute[0].name
        kind = np.float32 if name.startswith("value_float") else np.int64
        is_tensor = isinstance(value, onnx.TensorProto)
        array = numpy_helper.to_array(value) if is_tensor else np.array(value, dtype=kind)
        self.constants[node.output[0]] = array
        self.shapes[node.output[0]] = array.shape
        self.types[node.output[0]] = helper.np_dtype_to_tensor_dtype(array.dtype)
        if is_tensor:
            self.types[node.output[0]] = value.data_type
        return True

    def read(self, node: onnx.NodeProto) -> Step:
        """Return a node in today's form: known domains, attributes that became inputs."""
        domain, op = node.domain.replace("ai.onnx", ""), node.op_type
        op = "Quant" if op == "IntQuant" else op
        if op in QUANTIZERS and domain in DOMAINS | {""}:
            domain = "quantizers"
        if op in {"QuantizeLinear", "DequantizeLinear"}:
            domain = ""
        values = {a.name: plain(helper.get_attribute_value(a)) for a in node.attribute}
        inputs = list(node.input)
        for index, name in enumerate(AS_INPUTS.get(op, ()) if not domain else ()):
            if name in values:
                inputs += [""] * (index + 2 - len(inputs))
                inputs[index + 1] = f"{node.output[0]} attribute {name}"
                kind = np.float32 if isinstance(values[name], float) else np.int64
                self.constants[inputs[index + 1]] = np.array(values.pop(name), dtype=kind)
        while inputs and not inputs[-1]:
            inputs.pop()
        version = self.opsets.get("" if domain == CHANNELS_LAST else domain, 1)
        if domain in {"", CHANNELS_LAST} and defs.has(op, version, ""):
            for name, known in defs.get_schema(op, version, "").attributes.items():
                if known.default_value.type and name not in values:
                    values[name] = plain(helper.get_attribute_value(known.default_value))
        stored = [a for a in node.attribute if a.name in values]
        return Step(op, domain, inputs, list(node.output), values, stored)

    def without_channels_last(self, steps: Sequence[Step]) -> Iterator[Step]:
        """Yield steps; operators on channels-last data are standard ones between moves."""
        for step in steps:
            if step.domain != CHANNELS_LAST:
                yield step
                continue
            require("kernel_shape" in step.attributes, f"{step.op} of an unknown rank")
            rank = len(step.attributes["kernel_shape"]) + 2
            first, last = (0, rank - 1, *range(1, rank - 1)), (0, *range(2, rank), 1)
            inputs, out = list(step.inputs), f"{step.outputs[0]} channels first"
            for index in range(2 if step.op == "Conv" else 1):
                moved = f"{step.outputs[0]} input {index}"
                yield transposition(inputs[index], moved, first)
                inputs[index] = moved
            yield step._replace(domain="", inputs=inputs, outputs=[out])
            yield transposition(out, step.outputs[0], last)

    def infer(self, model: onnx.ModelProto) -> None:
        """Collect shapes and types; a quantizer keeps those of its input."""
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        del copy.graph.node[:], copy.opset_import[:]
        imports = {**self.opsets, "": self.newest()}
        copy.opset_import.extend(helper.make_opsetid(*item) for item in imports.items())
        copy.graph.node.extend(
            helper.make_node("Identity", step.inputs[:1], step.outputs)
            if step.domain == "quantizers"
            else as_node(step)
            for step in self.steps
        )
        held = {t.name for t in copy.graph.initializer}
        for name, array in self.constants.items():
            if name not in held:
                copy.graph.initializer.append(numpy_helper.from_array(array, name))
        known = shape_inference.infer_shapes(copy, data_prop=True).graph
        for value in (*known.input, *known.value_info, *known.output):
            kind = value.type.tensor_type
            self.types[value.name] = kind.elem_type
            if kind.HasField("shape"):
                self.shapes[value.name] = tuple(
                    d.dim_value if d.HasField("dim_value") else d.dim_param or "?"
                    for d in kind.shape.dim
                )

    def fold(self, step: Step) -> None:
        """Compute a step whose inputs are all constants; give a quantizer its code type."""
        if step.op == "QuantizeLinear":
            kind = step.attributes.get("output_dtype") or TensorProto.UINT8
            if len(step.inputs) > 2:
                kind = self.types.get(step.inputs[2], 0)
            known = kind in CODES or "float8" in str(helper.tensor_dtype_to_np_dtype(kind))
            require(known, f"codes of {step.outputs[0]} are of a type unknown here")
            step.attributes["codes"] = kind
        sizes = self.static(step.inputs[0]) if step.op == "Shape" else None
        if sizes is not None and set(step.attributes) <= {"start"}:
            self.constants[step.outputs[0]] = np.array(sizes, dtype=np.int64)
            return
        if step.op in RANDOM or any(n and n not in self.constants for n in step.inputs):
            return
        for name, array in zip(step.outputs, self.compute(step), strict=False):
            self.constants[name] = np.asarray(array)
            self.shapes[name] = np.asarray(array).shape

    def results(self) -> list[str]:
        """Return the outputs that are not single stored numbers, if there are any others."""
        single = {n for n, array in self.constants.items() if array.ndim == 0}
        return [name for name in self.outputs if name not in single] or self.outputs

    def newest(self) -> int:
        """Return an opset in which the steps can be spelled as they were read."""
        return max(self.opsets.get("", 1), 18)

    def static(self, name: str) -> tuple[int, ...] | None:
        """Return the sizes of a value, where all are numbers."""
        sizes = self.shapes.get(name)
        if sizes is None or not all(isinstance(size, int) for size in sizes):
            return None
        return tuple(int(size) for size in sizes)

    def compute(self, step: Step) -> list[Array]:
        """Return the outputs of a step on constants."""
        given = [self.constants[name] if name else None for name in step.inputs]
        linear = step.op in {"QuantizeLinear", "DequantizeLinear"}
        if step.domain == "quantizers" or (linear and not step.attributes.get("block_size")):
            return [self.by_channel(step, np.asarray(given[0]), given[1:])]
        if step.op in {"Softmax", "LogSoftmax", "Hardmax"} and self.opsets.get("", 1) < 13:
            return []
        names = {name: a for name, a in zip(step.inputs, given, strict=True) if name}
        values = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for n, a in names.items()
            if a is not None
        ]
        results = [onnx.ValueInfoProto(name=name) for name in step.outputs if name]
        graph = helper.make_graph([as_node(step)], "step", values, results)
        imports = {**self.opsets, "": self.newest()}
        try:
            model = helper.make_model(
                graph, opset_imports=[helper.make_opsetid(*item) for item in imports.items()]
            )
            return [np.asarray(y) for y in ReferenceEvaluator(model).run(None, names)]
        except (RuntimeError, TypeError, ValueError, NotImplementedError, KeyError):
            # What cannot be computed stays an operator of equal inputs.
            return []

    def by_channel(self, step: Step, x: Array, given: Sequence[Array | None]) -> Array:
        """Return a quantizer on a constant, one number per parameter at a time."""
        x = x if x.dtype.kind == "f" else x.astype(np.int64)
        fed = [
            None if a is None else aligned(step, i + 1, np.asarray(a), x.ndim)
            for i, a in enumerate(given)
        ]
        base = np.broadcast_shapes(*(p.grid.shape for p in fed if p is not None))
        made: Array | None = None
        with np.errstate(all="ignore"):
            for place in np.ndindex(*base):
                index = tuple(
                    slice(i, i + 1) if n > 1 else slice(None)
                    for i, n in zip(place, base, strict=True)
                )
                numbers = [p and p.at(place if p.grid.ndim else ()) for p in fed]
                part = FORMULAS[step.op](step, x[index], *numbers)
                made = np.empty(x.shape, dtype=part.dtype) if made is None else made
                made[index] = part
        return made


# Values of both files, numbered: equal numbers are equal values.


class Numbers:
    """Numbers for expressions over both files."""

    def __init__(self, certificate: Mapping[str, Any], a: Side, b: Side) -> None:
        self.sides = {"a": a, "b": b}
        self.table: dict[Any, int] = {}
        self.keys: dict[int, Any] = {}
        self.of: dict[tuple[str, str], int] = {}
        self.operators: set[str] = set()
        self.nan: list[str] = []
        self.claims: dict[tuple[str, str], Mapping[str, Any]] = {}
        for claim in certificate["functions"]:
            target = (claim["other"]["side"], claim["other"]["target"])
            require(target not in self.claims, f"two claims about {target}")
            self.claims[target] = claim
        for name, side in self.sides.items():
            for value, array in side.constants.items():
                self.of[name, value] = self.constant(array)

    def key(self, *key: Any) -> int:
        """Return the number of an expression."""
        number = self.table.setdefault(key, len(self.table) + 1)
        self.keys[number] = key
        return number

    def constant(self, array: Array) -> int:
        """Return the number of stored values: type, shape and bits; zeros have no sign."""
        if array.dtype.kind == "f":
            array = np.where(np.isnan(array), array.dtype.type(np.nan), array + 0)
        data = repr(array.tolist()).encode() if array.dtype.kind == "O" else array.tobytes()
        return self.key(
            "constant", str(array.dtype), array.shape, hashlib.sha256(data).digest()
        )

    def number(self, side: str, name: str) -> int:
        """Return the number of a value; 0 for an input that is left out."""
        if not name:
            return 0
        require((side, name) in self.of, f"'{name}' of {side} is made by nothing before it")
        return self.of[side, name]

    def walk(self, side: str) -> None:
        """Number all values of a file, in order; claims about them are proven on the way."""
        for step in self.sides[side].steps:
            first = self.expression(side, step)
            for index, name in enumerate(step.outputs):
                if name and (side, name) not in self.of:
                    self.of[side, name] = self.key("output", first, index) if index else first
                claim = self.claims.pop((side, name), None)
                if claim is not None:
                    self.of[side, name] = self.proven(claim)

    def proven(self, claim: Mapping[str, Any]) -> int:
        """Return the number of the first of two functions that are equal, or refuse."""
        ends = [
            (part["side"], part["source"], part["target"])
            for part in (claim["one"], claim["other"])
        ]
        starts = {self.number(side, source) for side, source, _ in ends}
        require(len(starts) == 1, f"'{ends[1][2]}': the functions start at different values")
        sides = [self.sides[side] for side, *_ in ends]
        pieces = [Piece(s, *end[1:]) for s, end in zip(sides, ends, strict=True)]
        if compare(pieces, claim["table"], f"'{ends[1][2]}'"):
            self.nan.append(ends[1][2])
        return self.number(ends[0][0], ends[0][2])

    def expression(self, side: str, step: Step) -> int:
        """Return the number of a step's first output."""
        owner = self.sides[side]
        inputs = [self.number(side, name) for name in step.inputs]
        if not step.domain:
            found = self.rewritten(owner, side, step, inputs)
            if found:
                return found
        if step.op in RANDOM:
            return self.key("random", side, step.place)
        since = owner.opsets.get("", 1) >= 13 if step.op.endswith(("oftmax", "ardmax")) else 0
        self.operators.add(step.op)
        spoken = {
            name: value
            for name, value in step.attributes.items()
            if name not in NO_EFFECT and not self.says_nothing(name, value)
        }
        return self.key(
            *(step.domain, step.op, since, tuple(sorted(spoken.items(), key=repr))),
            *(sorted(inputs) if step.op in COMMUTES and len(inputs) == 2 else inputs),
        )

    def says_nothing(self, name: str, value: Any) -> bool:
        """Return whether an attribute could as well be left out."""
        neutral = ALL_ONES_OR_ZEROS.get(name)
        return neutral is not None and set(
            value if isinstance(value, tuple) else (value,)
        ) <= {neutral}

    def moved(self, number: int, perm: tuple[int, ...]) -> int:
        """Return the number of a value with its axes moved; moves behind moves are one."""
        found = self.keys[number]
        if found[0] == "moved":
            perm, number = tuple(found[1][i] for i in perm), found[2]
        if perm == tuple(range(len(perm))):
            return number
        return self.key("moved", perm, number)

    def rewritten(self, owner: Side, side: str, step: Step, inputs: list[int]) -> int:
        """Return the number of what a step says in other words; 0 where it says it best."""
        op, x = step.op, step.inputs[0] if step.inputs else ""
        shape = owner.static(step.outputs[0])
        if op in {"Identity", "Dropout"}:
            return inputs[0]
        if op == "Cast" and owner.types.get(x) == step.attributes["to"]:
            return inputs[0]
        if op in RESHAPES | {"Expand"} and shape is not None and shape == owner.static(x):
            return inputs[0]
        if op in RESHAPES and shape is not None:
            inner = self.keys[inputs[0]]
            return self.key("shaped", shape, inner[2] if inner[0] == "shaped" else inputs[0])
        if op == "Transpose" and x in owner.shapes:
            rank = len(owner.shapes[x])
            return self.moved(inputs[0], step.attributes.get("perm", tuple(range(rank))[::-1]))
        if op in NEUTRAL and len(inputs) == 2:
            return self.arithmetic(owner, step, inputs)
        if op == "Gemm" and self.is_plain_product(step):
            right = owner.constants.get(step.inputs[1])
            if step.attributes.get("transB", 0):
                inputs[1] = (
                    self.moved(inputs[1], (1, 0)) if right is None else self.constant(right.T)
                )
            product = self.key("", "MatMul", 0, (), *inputs[:2])
            return (
                self.sum(product, self.operand(owner, step.inputs[2], inputs[2], 2))
                if len(inputs) > 2
                else product
            )
        bias = (
            owner.constants.get(step.inputs[2])
            if op in {"Conv", "ConvTranspose"} and len(inputs) > 2
            else None
        )
        if bias is not None and step.outputs[0] in owner.shapes:
            product = self.expression(side, step._replace(inputs=step.inputs[:2]))
            if not np.any(bias):
                return product
            along = bias.reshape(-1, *(1,) * (len(owner.shapes[step.outputs[0]]) - 2))
            return self.sum(
                product,
                self.constant(along[np.newaxis] if bias.size > 1 else bias.reshape(())),
            )
        return 0

    def is_plain_product(self, step: Step) -> bool:
        """Return whether a Gemm is a product and a sum, without factors."""
        factors = {"alpha": 1.0, "beta": 1.0, "transA": 0}
        return all(
            step.attributes.get(name, value) == value for name, value in factors.items()
        )

    def sum(self, left: int, right: int) -> int:
        """Return the number of a sum."""
        return self.key("", "Add", 0, (), *sorted([left, right]))

    def operand(self, owner: Side, name: str, number: int, rank: int) -> int:
        """Return the number of an operand; one stored number is a scalar."""
        stored = owner.constants.get(name)
        if stored is None or stored.size != 1 or stored.ndim > rank:
            return number
        return self.constant(stored.reshape(()))

    def arithmetic(self, owner: Side, step: Step, inputs: list[int]) -> int:
        """Return the number of a sum, product, ...: nothing if one operand is neutral."""
        number, either = NEUTRAL[step.op]
        for index in (1, 0) if either else (1,):
            known, other = (step.inputs[i] for i in (index, 1 - index))
            stored, sizes = owner.constants.get(known), owner.static(other)
            if stored is None or not np.all(stored == number) or stored.dtype.kind not in "fi":
                continue
            if stored.ndim == 0 or (
                sizes and np.broadcast_shapes(stored.shape, sizes) == sizes
            ):
                return inputs[1 - index]
        if any(name not in owner.shapes for name in step.inputs):
            return 0
        ranks = [len(owner.shapes[name]) for name in step.inputs]
        places = zip(step.inputs, inputs, ranks[::-1], strict=True)
        numbers = [self.operand(owner, *place) for place in places]
        ordered = sorted(numbers) if either else numbers
        return self.key("", step.op, 0, (), *ordered)


# Steps of equal values: parts of two graphs that treat every element by itself.


class Piece:
    """A function of one float in a graph, from one value to another."""

    def __init__(self, side: Side, source: str, target: str) -> None:
        self.source, self.target = source, target
        found: dict[int, Step] = {}
        waiting = [target]
        while waiting:
            name = waiting.pop()
            if name == source or name in side.constants:
                continue
            step = side.maker.get(name)
            require(step is not None, f"'{target}' does not depend on '{source}' alone")
            assert step is not None
            known = step.domain in {"", "quantizers"} and step.op in FORMULAS
            require(
                known and step.outputs == [name], f"{step.op} is not known element by element"
            )
            if step.place not in found:
                found[step.place] = step
                waiting.extend(given for given in step.inputs if given)
        self.steps = [found[place] for place in sorted(found)]
        require(self.steps, f"'{target}' is '{source}'")
        self.type = side.types.get(source)
        sizes = side.shapes.get(source)
        rank = 0 if sizes is None else len(sizes)
        self.parameters = {
            (step.place, position): aligned(step, position, side.constants[name], rank)
            for step in self.steps
            for position, name in enumerate(step.inputs)
            if name in side.constants and name != source
        }
        grids = [p.grid.shape for p in self.parameters.values()]
        self.base = np.broadcast_shapes(*grids)
        require(
            all(
                n == 1 or (sizes is not None and n == sizes[i])
                for i, n in enumerate(self.base)
            ),
            f"a parameter of '{target}' does not fit the data",
        )

    def run(self, place: tuple[int, ...], x: Array | Box) -> Any:
        """Return what the function makes of floats, or what it can be in boxes."""
        values: dict[str, Any] = {self.source: x}
        for step in self.steps:
            given = []
            for position, name in enumerate(step.inputs):
                own = self.parameters.get((step.place, position))
                if own is None:
                    given.append(values[name] if name else None)
                else:
                    given.append(own.at(place if own.grid.ndim else ()))
            made = (
                enclose(step, given)
                if isinstance(x, tuple)
                else FORMULAS[step.op](step, *given)
            )
            values[step.outputs[0]] = made
        return values[self.target]


def values_of(keys: Array, kind: type[np.floating[Any]]) -> Array:
    """Return the floats with these ranks in the order of their type."""
    width = np.dtype(kind).itemsize
    top = np.int64(-(1 << (8 * width - 1)))
    bits = np.where(keys < 0, ~keys | top, keys)
    return np.asarray(bits).astype(f"i{width}").view(kind)


def differ(a: Array, b: Array) -> Array:
    """Return where two arrays hold different values; NaN equals NaN, zeros have no sign."""
    return np.asarray((a != b) & ~((a != a) & (b != b)))


def compare(pieces: Sequence[Piece], table: Mapping[str, Any], where: str) -> bool:
    """Prove that two functions have the steps of a table; return whether NaN parts them."""
    first, second = pieces
    kinds = {
        TensorProto.FLOAT: np.float32,
        TensorProto.FLOAT16: np.float16,
        TensorProto.DOUBLE: np.float64,
    }
    require(
        first.type == second.type and first.type in kinds, f"{where}: not of one float type"
    )
    kind = kinds[first.type]
    rank = max(len(first.base), len(second.base))
    bases = [piece.base or (1,) * rank for piece in pieces]
    base = np.broadcast_shapes(*bases)
    rows, row_of = table["rows"], table["channels"]
    channels = int(np.prod(base, dtype=np.int64))
    require(len(row_of) in {1, channels}, f"{where}: {len(row_of)} channels, not {channels}")
    parted, seen = False, set()
    with np.errstate(all="ignore"):
        for channel, place in enumerate(np.ndindex(*base)):
            row = row_of[channel if len(row_of) > 1 else 0]
            numbers = tuple(
                p.at(place if p.grid.ndim else ()).tobytes()
                for piece in pieces
                for p in piece.parameters.values()
            )
            if (row, numbers) in seen:
                continue
            seen.add((row, numbers))
            confirm(pieces, place, rows[row], kind, where)
            nan = np.array([np.nan], dtype=kind)
            parted |= bool(np.any(differ(*(piece.run(place, nan) for piece in pieces))))
    return parted


def confirm(
    pieces: Sequence[Piece],
    place: tuple[int, ...],
    row: Mapping[str, Any],
    kind: Any,
    where: str,
) -> None:
    """Prove of one channel that both functions keep each level up to the next threshold."""
    starts = np.array(row["starts"], dtype=np.int64)
    levels = np.array([float(level) for level in row["levels"]], dtype=np.float64)
    highest = int(np.array([np.inf], dtype=kind).view(f"i{np.dtype(kind).itemsize}")[0])
    require(len(starts) == len(levels) and starts[0] == -highest - 1, f"{where}: a cut table")
    low, high = starts, np.append(starts[1:] - 1, highest)
    require(np.all(low <= high), f"{where}: thresholds out of order")
    require(np.all(differ(levels[1:], levels[:-1])), f"{where}: a threshold that is none")
    looked = 0
    while low.size:
        looked += low.size
        require(looked <= MOST_INTERVALS, f"{where}: too many intervals to decide")
        ends = (
            values_of(low, kind),
            values_of(high, kind),
            np.ones(low.shape, dtype=np.bool_),
        )
        open_ = np.zeros(low.shape, dtype=np.bool_)
        for piece in pieces:
            below, above, known = (
                np.broadcast_to(part, low.shape) for part in piece.run(place, ends)
            )
            decided = known & ~differ(below, above)
            wrong = decided & differ(below.astype(np.float64), levels)
            if np.any(wrong):
                at = float(ends[0][np.argmax(wrong)])
                raise RejectedError(
                    f"{where}: '{piece.target}' does not have the level claimed at {at!r}"
                )
            open_ |= ~decided
        require(not np.any(open_ & (low == high)), f"{where}: a value that cannot be computed")
        low, high, levels = low[open_], high[open_], levels[open_]
        middle = low + (high - low) // 2
        low, high = np.concatenate([low, middle + 1]), np.concatenate([middle, high])
        levels = np.concatenate([levels, levels])


# The certificate.


def paired(a: Sequence[str], b: Sequence[str]) -> list[list[str]]:
    """Return pairs of inputs or outputs: by name where both have the same, else in order."""
    require(len(a) == len(b), f"{len(a)} against {len(b)} inputs or outputs")
    return (
        [[name, name] for name in a]
        if set(a) == set(b)
        else [list(pair) for pair in zip(a, b, strict=True)]
    )


def fits(one: Sequence[Any] | None, other: Sequence[Any] | None) -> bool:
    """Return whether two shapes can be one."""
    if one is None or other is None:
        return one is other
    pairs = list(zip(one, other, strict=False))
    return len(one) == len(other) and all(
        x == y for x, y in pairs if {type(x), type(y)} == {int}
    )


def verify(certificate: Mapping[str, Any], path_a: str | Path, path_b: str | Path) -> str:
    """Return what is proven of two files.

    Args:
        certificate: As the JSON file holds it.
        path_a: The first model.
        path_b: The second one.

    Raises:
        RejectedError: It is not proven by this certificate.
    """
    require(certificate.get("format") == FORMAT, "not a certificate of this format")
    for name, path in (("a", path_a), ("b", path_b)):
        require(
            certificate["files"][name] == digest(path), f"{path} is not the file certified"
        )
    used, assumed = derive(certificate, path_a, path_b), certificate["assumptions"]
    for kind, found in used.items():
        unsaid = sorted(set(found) - set(assumed[kind]))
        require(not unsaid, f"not among the assumptions on {kind}: {', '.join(unsaid)}")
    but = f" on which no NaN reaches {', '.join(assumed['nan'])}" if assumed["nan"] else ""
    return f"every output is equal for every input{but}"


def derive(
    certificate: Mapping[str, Any], path_a: str | Path, path_b: str | Path
) -> dict[str, list[str]]:
    """Prove what a certificate says; return the assumptions that this needs."""
    a, b = Side(path_a), Side(path_b)
    numbers = Numbers(certificate, a, b)
    results = [side.results() for side in (a, b)]
    if len(a.outputs) == len(b.outputs):
        results = [a.outputs, b.outputs]
    for kind, ends in (("inputs", (a.inputs, b.inputs)), ("outputs", results)):
        require(certificate[kind] == paired(*ends), f"{kind} are not those of the files")
    for index, (one, other) in enumerate(certificate["inputs"]):
        fitting = fits(a.shapes.get(one), b.shapes.get(other))
        require(a.types.get(one) == b.types.get(other) and fitting, f"input '{other}'")
        numbers.of["a", one] = numbers.of["b", other] = numbers.key("input", index)
    numbers.walk("a")
    numbers.walk("b")
    require(not numbers.claims, f"claims about values that are not there: {[*numbers.claims]}")
    said = [(*pair, "output") for pair in certificate["outputs"]]
    for one, other, rule in (*certificate["values"], *said):
        require(rule in RULES, f"unknown rule {rule}")
        equal = numbers.number("a", one) == numbers.number("b", other)
        require(equal, f"'{other}' is not shown to equal '{one}' by the rule {rule}")
    return {"operators": sorted(numbers.operators), "nan": sorted(numbers.nan)}


def main(arguments: Sequence[str]) -> int:
    """Verify the files named; return 0 if the certificate holds, 1 if not."""
    if len(arguments) != 3:
        print("usage: verifier.py certificate.json a.onnx b.onnx", file=sys.stderr)
        return 2
    try:
        certificate = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
        print(f"holds: {verify(certificate, *arguments[1:])}")
    except RejectedError as error:
        print(f"rejected: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
