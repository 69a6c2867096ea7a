"""Whether a certificate of equality holds: a program that trusts neither its writer nor ours.

    python verifier.py certificate.json a.onnx b.onnx

A certificate says where to look. Values are equal that are the same stored numbers, the same
operator of equal values, or the same steps of equal values: two parts of the graphs that treat
every element by itself, of which interval arithmetic with the formulas below shows that none
leaves its level between two thresholds, on every float. Taken for granted: other operators are
functions of their inputs, the same in both opsets (they are named); zeros have no sign.
"""

# fmt: off
from __future__ import annotations

import hashlib
import itertools
import json
import sys
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, defs, helper, inliner, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

FORMAT = "qonnx-hub certificate 1"
RULES = {"constant", "operator", "function"}
MOST_INTERVALS, LOG_ERROR, HALF = 1 << 22, np.float32(2e-6), np.float32(0.5)
Array = np.ndarray[Any, Any]
Place = tuple[int, ...]
File = str | Path
Box = tuple[Array, Array, Array]  # Lowest, highest, and where these are known to hold.
DOMAINS = {"qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general", "hawq2qonnx",
           "qonnx", "qonnx.custom_op", ""}
SPELLED = {"ai.onnx": "", "IntQuant": "Quant"}
CHANNELS_LAST = "qonnx.custom_op.channels_last"
SAYS_NOTHING = {"broadcast": 0, "pads": 0, "strides": 1, "dilations": 1, "auto_pad": "NOTSET"}
CODES = {int(getattr(TensorProto, f"INT{n}")): (-(2**n) // 2, 2**n // 2 - 1)
         for n in (4, 8, 16, 32, 64)}
CODES |= {int(getattr(TensorProto, f"UINT{n}")): (0, 2**n - 1) for n in (4, 8, 16, 32)}
FLOATS: dict[int, Any] = {1: np.float32, 10: np.float16, 11: np.float64}  # By ONNX's type.
class RejectedError(Exception):
    """The certificate does not hold, or what it says could not be derived."""
# A node; inputs that are left out are "", attributes are complete, ``stored`` as in the file.
Step = namedtuple("Step", "op domain inputs outputs attributes stored place", defaults=[0])
def require(condition: object, reason: str) -> None:
    if not condition:
        raise RejectedError(reason)
ROUNDING: dict[str, Callable[[Array], Any]] = {
    "ROUND": np.rint, "HALF_EVEN": np.rint, "FLOOR": np.floor, "CEIL": np.ceil,
    "DOWN": np.trunc, "ROUND_TO_ZERO": np.trunc,
    "UP": lambda t: np.copysign(np.ceil(np.abs(t)), t),
    "HALF_UP": lambda t: np.copysign(np.floor(np.abs(t) + HALF), t),
    "HALF_DOWN": lambda t: np.copysign(np.ceil(np.abs(t) - HALF), t),
    "DPU": lambda t: np.where((t < 0) & (t - np.floor(t) == HALF), np.ceil(t), np.rint(t))}
def rounder(node: Step, default: str = "ROUND") -> Callable[[Array], Any]:
    mode = str(node.attributes.get("rounding_mode", default)).upper()
    require(mode in ROUNDING, f"unknown rounding mode {mode}")
    return ROUNDING[mode]
def code_range(node: Step, bits: float, kind: Any) -> tuple[Any, Any]:
    narrow = node.attributes.get("narrow", 0)
    if node.attributes.get("signed", 1):
        return kind(-(2.0 ** (bits - 1)) + narrow), kind(2.0 ** (bits - 1) - 1)
    return kind(0), kind(2.0**bits - 1 - narrow)
def quant(node: Step, x: Array, scale: Array, zero: Array, bits: Array) -> Any:
    """Return what Quant makes of x: in QONNX's order, or in QuantizeLinear's."""
    kind, rounded = x.dtype.type, rounder(node)
    s, z = kind(scale), kind(zero)
    if np.all(bits == 1) and node.attributes.get("signed", 1):
        return np.where(x / s + z >= 0, (kind(1) - z) * s, (kind(-1) - z) * s)
    low, high = code_range(node, np.float64(bits), kind)
    if node.attributes.get("zero_point_after_rounding", 0):
        return (np.minimum(np.fmax(rounded(x / s) + z, low), high) - z) * s
    return (rounded(np.clip(x / s + z, low, high)) - z) * s
def float_quant(node: Step, x: Array, scale: Array, *sizes: Array) -> Any:
    exponent, mantissa, bias, most = (np.float64(value) for value in sizes)
    require(node.attributes.get("saturation", 1), "FloatQuant that does not saturate")
    largest = (2 - 2.0**-mantissa) * 2.0 ** (2.0**exponent - 1 - bias)
    limit = x.dtype.type(np.minimum(largest, most))
    t = np.asarray(x / x.dtype.type(scale))
    power = np.frexp(np.abs(t) + np.finfo(x.dtype).tiny)[1]
    step = np.maximum(power - 1 - mantissa, 1 - bias - mantissa)
    grid = np.ldexp(x.dtype.type(1), np.where(np.isfinite(t), step, 0).astype(np.int32))
    return np.clip(grid * rounder(node)(t / grid), -limit, limit) * x.dtype.type(scale)
def trunc(node: Step, x: Array, scale: Array, zero: Array, *rest: Array) -> Any:
    kind, rounded = x.dtype.type, rounder(node, "FLOOR")
    s, z = kind(scale), kind(zero)
    whole = np.rint(x / s + z)
    if len(rest) == 2:
        return (rounded(whole / kind(2.0 ** (np.float64(rest[0]) - rest[1]))) - z) * s
    wide = kind(rest[1])
    shift = kind(np.exp2(np.rint(np.log2(wide / s))))
    codes = rounded(np.clip(whole / shift, *code_range(node, np.float64(rest[2]), kind)))
    return (codes - z / shift) * wide
def count(node: Step, x: Array, thresholds: Array) -> Any:
    counts = np.searchsorted(np.sort(thresholds), x, side="right") * ~np.isnan(x)
    scale, bias = node.attributes.get("out_scale", 1.0), node.attributes.get("out_bias", 0.0)
    return x.dtype.type(scale) * counts.astype(x.dtype) + x.dtype.type(bias)
def bipolar(node: Step, x: Array, scale: Array) -> Any:
    return np.where(x >= 0, x.dtype.type(scale), -x.dtype.type(scale))
def quantize_linear(node: Step, x: Array, scale: Array, zero: Array | None = None) -> Array:
    require(x.dtype == scale.dtype and not node.attributes.get("precision"), "mixed precision")
    t, kind = x / np.asarray(scale), node.attributes["codes"]
    if kind not in CODES:
        small = helper.tensor_dtype_to_np_dtype(kind)
        every = np.arange(256, dtype=np.uint8).view(small).astype(np.float32)
        require(node.attributes.get("saturate", 1) and not np.any(zero), "such float codes")
        most = np.max(every[np.isfinite(every)])
        return np.asarray(np.clip(t, -most, most).astype(small).astype(np.float32))
    (low, high), z = CODES[kind], np.int64(0) if zero is None else np.int64(zero)
    return np.asarray(np.minimum(np.fmax(np.rint(t), low - z), high - z).astype(np.int64) + z)
def dequantize_linear(node: Step, q: Array, scale: Array, zero: Array | None = None) -> Any:
    require(not node.attributes.get("output_dtype"), "DequantizeLinear to a type of its own")
    levels = q if q.dtype.kind == "f" else q.astype(np.int64)
    levels = levels if zero is None or not np.any(zero) else levels - np.int64(zero)
    return levels.astype(scale.dtype) * scale
def cast(node: Step, x: Array) -> Any:
    target = node.attributes["to"]
    if target in CODES:
        whole, (low, high) = np.trunc(x) if x.dtype.kind == "f" else x, CODES[target]
        require(np.all((whole >= low) & (whole <= high)), "a Cast that wraps")
        return whole.astype(np.int64)
    require(target in FLOATS or target == TensorProto.BOOL, f"a Cast to type {target}")
    return x.astype(helper.tensor_dtype_to_np_dtype(target))
# An operator "rises" in each input (a product where ``enclose`` says so, a "scaled" one where
# scales are positive); it "wraps" where inputs are integers; it is "random" but where Dropout
# infers, or "counted": the number of outputs says what they are. Old opsets have ``inputs`` as
# attributes; ``silent`` ones have no effect; ``since`` is the opset of the last new meaning.
Rule = namedtuple("Rule", "traits formula inputs silent since", defaults=["", "", (), (), 0])
# A formula is a function of the node and its inputs, or has a name in numpy that stands here.
OPERATORS = {op: row._replace(formula=name or row.formula) for names, row in {
    "Quant": Rule("quant scaled", quant), "Trunc": Rule("quant scaled", trunc),
    "FloatQuant": Rule("quant scaled", float_quant), "Cast": Rule("rises", cast),
    "BipolarQuant": Rule("quant rises", bipolar), "MultiThreshold": Rule("quant rises", count),
    "QuantizeLinear": Rule("linear scaled", quantize_linear),
    "DequantizeLinear": Rule("linear scaled", dequantize_linear),
    "Add:add": Rule("sum rises wraps commutes"), "Sub:subtract": Rule("sum rises wraps"),
    "Mul:multiply": Rule("product rises wraps commutes"), "Neg:negative": Rule("rises wraps"),
    "Div:divide": Rule("product rises wraps"), "Abs:abs Pow:power": Rule("wraps"),
    "Sign:sign Round:rint Floor:floor Ceil:ceil Not:invert Identity:asarray Less:less "
    "LessOrEqual:less_equal Greater:greater GreaterOrEqual:greater_equal": Rule("rises"),
    "And:bitwise_and Or:bitwise_or": Rule("rises commutes"), "Equal:equal": Rule("commutes"),
    "Log:log Where:where": Rule(), "Sum Mean": Rule("commutes"), "Expand": Rule("expand"),
    "Relu": Rule("rises", lambda _, x: np.maximum(x, x.dtype.type(0))),
    "Clip": Rule("rises clips", lambda _, x, a=None, b=None: np.clip(x, a, b), ["min", "max"]),
    "Max": Rule("rises commutes", lambda _, *x: np.maximum.reduce(np.broadcast_arrays(*x))),
    "Min": Rule("rises commutes", lambda _, *x: np.minimum.reduce(np.broadcast_arrays(*x))),
    "Bernoulli Multinomial Dropout RandomNormal RandomNormalLike RandomUniform "
    "RandomUniformLike": Rule("random"), "Reshape Flatten": Rule("reshape"),
    "Squeeze Unsqueeze": Rule("reshape", inputs=["axes"]), "PRelu": Rule(since=7),
    "Pad": Rule(inputs=["pads", "value"]), "Slice": Rule(inputs=["starts", "ends", "axes"]),
    "ReduceSum ReduceMean ReduceMax ReduceMin": Rule(inputs=["axes"]),
    "Split": Rule("counted", inputs=["split"]), "Conv": Rule(silent=["kernel_shape"]),
    "BatchNormalization": Rule("counted", silent=["momentum", "spatial", "consumed_inputs"]),
    "ConvTranspose": Rule(silent=["kernel_shape"], since=11), "Resize OneHot": Rule(since=11),
    "Softmax LogSoftmax Hardmax": Rule(since=13), "GroupNormalization": Rule(since=21),
}.items() for op, _, name in (words.partition(":") for words in names.split())}
def rule(op: str, domain: str = "") -> Rule:  # A random operator is one in every domain.
    known = OPERATORS.get(op, Rule())
    return known if domain in {"", "quantizers"} or "random" in known.traits else Rule()
def has(node: Step, *traits: str) -> bool:
    return not {*traits}.isdisjoint(rule(node.op, node.domain).traits.split())
def computed(node: Step, given: Sequence[Any]) -> Array:
    """Return what a formula makes of numbers; it does not know how integers wrap."""
    whole = given[0].dtype.kind in "iu"
    require(not whole or not has(node, "wraps", "quant"), f"{node.op} of integers")
    call = OPERATORS[node.op].formula
    return np.asarray(call(node, *given) if callable(call) else getattr(np, call)(*given))
class Parameter(namedtuple("Parameter", "grid rows")):
    """A constant input: which of its rows holds at each place of the data."""
    def at(self, place: Place) -> Array:
        axes = zip(place, self.grid.shape, strict=False)
        return np.asarray(self.rows[self.grid[tuple(i if n > 1 else 0 for i, n in axes)]])
def aligned(step: Step, array: Array, rank: int) -> Parameter:
    """Return a constant input laid along the axes of data of a rank."""
    rows, counts = array.reshape(-1), step.op == "MultiThreshold"
    shape, axis = [1] * rank, step.attributes.get("axis", 1)
    if counts:
        layout = step.attributes.get("data_layout") or ("NWC" if rank == 3 else "NC")
        rows, axis = array, layout.index("C") if "C" in layout else 1
    if len(rows) == 1 and (array.ndim == 0 or has(step, "quant", "linear", "clips")):
        return Parameter(np.zeros((), dtype=np.int64), rows)
    if counts or has(step, "linear"):
        blocked = array.ndim != 1 or step.attributes.get("block_size", 0)
        require(counts or not blocked, "parameters in blocks")
        shape[axis] = len(rows)
    else:
        require(array.ndim <= rank, f"{step.op} '{step.outputs[0]}' adds axes to its data")
        shape = [1] * (rank - array.ndim) + list(array.shape)
    return Parameter(np.arange(len(rows), dtype=np.int64).reshape(shape), rows)
def keeps_order(node: Step, given: Sequence[Any]) -> bool:
    if has(node, "scaled"):
        fixed = [float(p) for p in given[1:] if isinstance(p, np.ndarray)]
        rises = bool(np.all(np.isfinite(fixed)) and fixed[0] > 0)
        if node.op == "FloatQuant":
            return rises and fixed[2] >= 0 and 1 - fixed[3] - fixed[2] >= -100
        return rises and (node.op != "Trunc" or len(fixed) == 4 or fixed[3] > 0)
    return has(node, "rises") and node.attributes.get("to") != TensorProto.BOOL
def differ(a: Any, b: Any) -> Any:
    return (a != b) & ~((a != a) & (b != b))
def enclose(node: Step, given: Sequence[Any]) -> Box:
    """Return what the node's output can be while its inputs lie within boxes."""
    boxes = [box for box in given if isinstance(box, tuple)]
    known = point = np.logical_and.reduce([box[2] for box in boxes])
    for low, high, _ in boxes:
        signs = np.signbit(low) == np.signbit(high) if low.dtype.kind == "f" else True
        point = point & ~differ(low, high) & signs
    ends = [value[:2] if isinstance(value, tuple) else (value,) for value in given]
    corners = [computed(node, corner) for corner in itertools.product(*ends)]
    low, high = np.minimum.reduce(corners), np.maximum.reduce(corners)
    least, most = [e[0] for e in ends], [e[-1] for e in ends]
    if node.op == "Where":
        yes, no = least[0] & most[0], ~least[0] & ~most[0]
        low = np.where(yes, least[1], np.where(no, least[2], np.minimum(least[1], least[2])))
        high = np.where(yes, most[1], np.where(no, most[2], np.maximum(most[1], most[2])))
        sure, x, y = (box[2] if isinstance(box, tuple) else np.True_ for box in given)
        known = sure & ((yes & x) | (no & y) | (x & y))
    elif node.op == "Equal":
        low = (least[0] == most[0]) & (least[1] == most[1]) & (least[0] == least[1])
        high = (most[0] >= least[1]) & (most[1] >= least[0])
    elif node.op == "Abs":
        low = np.where((least[0] <= 0) & (most[0] >= 0), low.dtype.type(0), low)
    elif node.op == "Log":
        low, high = low - np.abs(low) * LOG_ERROR, high + np.abs(high) * LOG_ERROR
    elif not keeps_order(node, given):
        known = point
    if has(node, "product"):
        zero = [(lo <= 0) & (hi >= 0) for lo, hi in zip(least, most, strict=True)]
        huge = [np.isinf(lo) | np.isinf(hi) for lo, hi in zip(least, most, strict=True)]
        bad = (zero[0] & huge[1]) | (zero[1] & huge[0])
        known = known & ~(zero[1] if node.op == "Div" else bad)
    spoiled = np.logical_or.reduce([corner != corner for corner in corners])
    low, high = (np.where(point, corners[0], end) for end in (low, high))
    return low, high, point | (known & ~spoiled)
def content(array: Array) -> bytes:
    return repr(array.tolist()).encode() if array.dtype.kind == "O" else array.tobytes()
def plain(value: Any) -> Any:
    require(not isinstance(value, onnx.GraphProto), "a node that holds a graph")
    if isinstance(value, onnx.TensorProto):
        return (value.data_type, tuple(value.dims), content(numpy_helper.to_array(value)))
    if isinstance(value, (list, tuple)):
        return tuple(plain(item) for item in value)
    value = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
    return float(np.float32(value)) if isinstance(value, float) else value
def digest(path: File) -> str:
    """Return the SHA-256 of a model file, followed by its weights where they lie outside."""
    data, whole = Path(path).read_bytes(), onnx.load(str(path))
    outside = any(t.external_data for t in onnx.load_from_string(data).graph.initializer)
    return hashlib.sha256(data + whole.SerializeToString() * outside).hexdigest()
def as_node(step: Step) -> onnx.NodeProto:
    return onnx.NodeProto(op_type=step.op, domain=step.domain, input=step.inputs,
                          output=step.outputs, attribute=step.stored)
class Side:
    """One file: nodes in order, constants, shapes, and what makes each value."""
    def __init__(self, path: File) -> None:
        model = inliner.inline_local_functions(onnx.load(str(path)))
        graph = model.graph
        self.opsets = {SPELLED.get(o.domain, o.domain): o.version for o in model.opset_import}
        self.constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
        self.evaluated = set[str]()  # Operators that made constants of constants.
        self.types: dict[str, int] = {t.name: t.data_type for t in graph.initializer}
        self.shapes: dict[str, Any] = {n: array.shape for n, array in self.constants.items()}
        self.inputs = [v.name for v in graph.input if v.name not in self.constants]
        self.outputs, self.maker = [v.name for v in graph.output], dict[str, Step]()
        steps = itertools.chain(*(self.without_last(self.read(node)) for node in graph.node))
        self.steps = [step._replace(place=place) for place, step in enumerate(steps)]
        ids = [*self.constants, *self.inputs, *(n for s in self.steps for n in s.outputs if n)]
        require(len({*ids}) == len(ids), "a name for two values")
        self.infer(graph)
        for step in self.steps:
            self.maker.update((name, step) for name in step.outputs)
            self.fold(step)
    def read(self, node: onnx.NodeProto) -> Step:
        domain, op = SPELLED.get(node.domain, node.domain), node.op_type
        if domain in DOMAINS and "quant" in rule(SPELLED.get(op, op)).traits:
            domain, op = "quantizers", SPELLED.get(op, op)
        domain = "" if "linear" in rule(op).traits and domain == "com.microsoft" else domain
        has = domain in {"", CHANNELS_LAST} and defs.has(op, self.opsets.get("", 1), "")
        schema = defs.get_schema(op, self.opsets.get("", 1), "").attributes if has else {}
        unsaid = {name: plain(helper.get_attribute_value(a.default_value))
                  for name, a in schema.items() if a.default_value.type}
        said = {a.name: plain(helper.get_attribute_value(a)) for a in node.attribute}
        # Bounds that an old Clip does not say are finite.
        values, inputs = unsaid | said if op == "Clip" else said, list(node.input)
        for index, name in enumerate(rule(op, domain).inputs):
            if name in values:
                inputs += [""] * (index + 2 - len(inputs))
                inputs[index + 1] = f"{node.output[0]} attribute {name}"
                require(inputs[index + 1] not in self.constants, "a name for two values")
                kind = np.float32 if isinstance(values[name], float) else np.int64
                self.constants[inputs[index + 1]] = np.array(values.pop(name), dtype=kind)
        require(domain or not values.get("broadcast"), f"{op} that broadcasts along an axis")
        while inputs and not inputs[-1]:
            inputs.pop()
        stored = [a for a in node.attribute if a.name in values]
        values = values if op == "Clip" else unsaid | values
        return Step(op, domain, inputs, list(node.output), values, stored)
    def without_last(self, step: Step) -> Iterator[Step]:
        def move(source: str, target: str, perm: Place) -> Step:
            stored = [helper.make_attribute("perm", perm)]
            return Step("Transpose", "", [source], [target], {"perm": perm}, stored)
        if step.domain != CHANNELS_LAST:
            yield step
            return
        require("kernel_shape" in step.attributes, f"{step.op} of an unknown rank")
        rank = len(step.attributes["kernel_shape"]) + 2
        inputs, out = list(step.inputs), f"{step.outputs[0]} channels first"
        for index in range(2 if step.op == "Conv" else 1):
            moved = f"{step.outputs[0]} input {index}"
            yield move(inputs[index], moved, (0, rank - 1, *range(1, rank - 1)))
            inputs[index] = moved
        yield step._replace(domain="", inputs=inputs, outputs=[out])
        yield move(out, step.outputs[0], (0, *range(2, rank), 1))
    def infer(self, graph: onnx.GraphProto) -> None:
        stored = [numpy_helper.from_array(a, name) for name, a in self.constants.items()]
        # A quantizer stands there as a sum; the opset is one that knows today's forms.
        nodes = [as_node(s) if s.domain != "quantizers" else helper.make_node(
            "Sum", s.inputs[:1 if s.op == "MultiThreshold" else None], s.outputs)
            for s in self.steps]
        whole = helper.make_graph(nodes, "steps", graph.input, [], stored)
        imports = {**self.opsets, "": max(self.opsets.get("", 1), 18)}
        model = helper.make_model(
            whole, opset_imports=[helper.make_opsetid(*item) for item in imports.items()])
        known = shape_inference.infer_shapes(model, data_prop=True)
        for value in (*graph.input, *known.graph.value_info):
            self.types[value.name] = (kind := value.type.tensor_type).elem_type
            if kind.HasField("shape"):
                self.shapes[value.name] = tuple(
                    d.dim_value if d.HasField("dim_value") else "?" for d in kind.shape.dim)
    def static(self, name: str) -> tuple[int, ...] | None:
        sizes = self.shapes.get(name, ("?",))
        return sizes if all(isinstance(size, int) for size in sizes) else None
    def fold(self, step: Step) -> None:
        """Compute a step whose inputs are all constants; give a quantizer its code type."""
        if step.op == "QuantizeLinear":
            kind = step.attributes.get("output_dtype") or TensorProto.UINT8
            kind = self.types.get(step.inputs[2], 0) if len(step.inputs) > 2 else kind
            small = "float8" in str(helper.tensor_dtype_to_np_dtype(kind))
            require(small or kind in CODES, f"codes of {step.outputs[0]}: type {kind}")
            step.attributes["codes"] = kind
        sizes = self.static(step.inputs[0]) if step.op == "Shape" else None
        part = step.attributes.get("start") or "end" in step.attributes
        made = [np.array(sizes, dtype=np.int64)] if sizes and not part else []
        known = {"", *self.constants}.issuperset(step.inputs)
        if known and not (has(step, "random") or rule(step.op).since):
            made = self.compute(step, [self.constants.get(name) for name in step.inputs])
        for name, array in zip(step.outputs, made, strict=False):
            self.constants[name], self.shapes[name] = array, array.shape
    def compute(self, step: Step, given: list[Any]) -> list[Array]:
        """Return the outputs of a step on constants; nothing where that is not known."""
        blocked = step.attributes.get("block_size")
        if step.domain == "quantizers" or (has(step, "linear") and not blocked):
            x = given[0] if given[0].dtype.kind == "f" else given[0].astype(np.int64)
            fed = [None if a is None else aligned(step, a, x.ndim) for a in given[1:]]
            numbers = (p and p.rows[p.grid] for p in fed)
            return [computed(step, [x, *numbers])]
        names = {name: a for name, a in zip(step.inputs, given, strict=True) if name}
        self.evaluated.add(step.op)
        try:
            return [np.asarray(y) for y in ReferenceEvaluator(as_node(step)).run(None, names)]
        except (RuntimeError, TypeError, ValueError, NotImplementedError, LookupError):
            return []
class Numbers:
    """Numbers for the values of both files."""
    def __init__(self, certificate: Mapping[str, Any], a: Side, b: Side) -> None:
        self.sides = {"a": a, "b": b}
        self.table, self.keys, self.nan = dict[Any, int](), dict[int, Any](), set[str]()
        self.operators, claims = a.evaluated | b.evaluated, certificate["functions"]
        self.claims = {(c["other"]["side"], c["other"]["target"]): c for c in claims}
        require(len(self.claims) == len(claims), "two claims about one value")
        self.of = {(name, value): self.constant(array) for name, side in self.sides.items()
                   for value, array in side.constants.items()}
    def key(self, *key: Any) -> int:
        self.keys[number := self.table.setdefault(key, len(self.table) + 1)] = key
        return number
    def constant(self, array: Array) -> int:
        if array.dtype.kind == "f":
            array = np.where(np.isnan(array), array.dtype.type(np.nan), array + 0)
        data = hashlib.sha256(content(array)).digest()
        return self.key("stored", str(array.dtype), array.shape, data)
    def number(self, side: str, name: str) -> int:
        require(not name or (side, name) in self.of, f"'{name}' of {side} is not made before")
        return self.of[side, name] if name else 0
    def walk(self, side: str) -> None:
        for step in self.sides[side].steps:
            first = self.expression(side, step)
            for index, name in enumerate(step.outputs):
                if name and (side, name) not in self.of:
                    other = index and self.key("output", step.domain, step.op, first, index)
                    self.of[side, name] = other or first
                if (claim := self.claims.pop((side, name), None)) is not None:
                    self.of[side, name] = self.proven(claim["one"], claim["other"], claim)
    def proven(self, one: Any, other: Any, claim: Mapping[str, Any]) -> int:
        """Return the number of the first of two functions that are equal, or refuse."""
        target = other["target"]
        start, source = (self.number(end["side"], end["source"]) for end in (one, other))
        require(start == source, f"'{target}': the functions start at different values")
        pieces = [Piece(self.sides[e["side"]], e["source"], e["target"]) for e in (one, other)]
        if compare(pieces, claim["table"], f"'{target}'"):
            self.nan.add(target)
        return self.number(one["side"], one["target"])
    def expression(self, side: str, step: Step) -> int:
        owner, inputs = self.sides[side], [self.number(side, name) for name in step.inputs]
        if not step.domain and (found := self.rewritten(owner, step, inputs)):
            return found
        if has(step, "random"):
            return self.key("random", side, step.place)
        self.operators.add(step.op)
        def silent(name: str, value: Any) -> bool:
            same = type(value) is tuple and len({*value}) == 1
            said = SAYS_NOTHING.get(name, ...) in ([value, value[0]] if same else [value])
            return not step.domain and (said or name in rule(step.op).silent)
        said = [item for item in step.attributes.items() if not silent(*item)]
        made = len(step.outputs) if step.domain or has(step, "counted") else 0
        since = owner.opsets.get(step.domain, 1)
        since = since if step.domain else since >= rule(step.op).since
        ordered = sorted(inputs) if has(step, "commutes") and len(inputs) == 2 else inputs
        # Stored zeros have a sign where something is divided by them.
        by = owner.constants.get(step.inputs[1] if step.op == "Div" else "", np.ones(()))
        spoken = (*sorted(said, key=repr), content(np.signbit(by) & (by == 0)))
        return self.key("operator", step.domain, step.op, since, made, spoken, *ordered)
    def moved(self, number: int, perm: Place) -> int:
        found = self.keys[number]
        if found[0] == "moved":
            perm, number = tuple(found[1][i] for i in perm), found[2]
        return self.key("moved", perm, number) if list(perm) != sorted(perm) else number
    def rewritten(self, owner: Side, step: Step, inputs: list[int]) -> int:
        """Return the number of what a step says in other words; 0 where it says it best."""
        op, x = step.op, step.inputs[0] if step.inputs else ""
        shape = owner.static(step.outputs[0])
        same_type = op == "Cast" and owner.types.get(x) == step.attributes["to"]
        keeps = has(step, "reshape", "expand") and shape == owner.static(x) is not None
        training = len(inputs) > 2 and np.any(owner.constants.get(step.inputs[2], True))
        infers = op == "Dropout" and step.attributes.get("is_test", 1) and not training
        if infers or op == "Identity" or same_type or keeps:
            return inputs[0]
        if has(step, "reshape") and shape is not None:
            inner = self.keys[inputs[0]]
            return self.key("shaped", shape, inner[2] if inner[0] == "shaped" else inputs[0])
        if op == "Transpose" and x in owner.shapes:
            backwards = tuple(range(len(owner.shapes[x])))[::-1]
            return self.moved(inputs[0], step.attributes.get("perm", backwards))
        return self.arithmetic(owner, step, inputs) if has(step, "sum", "product") else 0
    def arithmetic(self, owner: Side, step: Step, inputs: list[int]) -> int:
        """Return the number of a sum, product, ... with a neutral operand; else 0."""
        number, either = int(has(step, "product")), has(step, "commutes")
        for index in (1, 0):
            stored, other = owner.constants.get(step.inputs[index]), step.inputs[1 - index]
            sizes = owner.shapes.get(other, ())
            if stored is None or stored.ndim > len(sizes):
                continue
            pairs = zip(stored.shape[::-1], sizes[::-1], strict=False)
            keeps = all(n in {1, size} for n, size in pairs)
            if (index or either) and keeps and np.all(stored == number):
                return inputs[1 - index]
            if stored.size == 1:
                # One stored number is a scalar, unless its axes would be added.
                inputs[index] = self.constant(stored.reshape(()))
        return 0
class Piece:
    """A function of one float in a graph, from one value to another."""
    def __init__(self, side: Side, source: str, target: str) -> None:
        self.source, self.target = source, target
        self.type, self.made = (side.types.get(name, 0) for name in (source, target))
        found, waiting = dict[int, Step](), [target]
        while waiting:
            name = waiting.pop()
            if name == source or name in side.constants:
                continue
            require(name in side.maker, f"'{target}' does not depend on '{source}' alone")
            step = side.maker[name]
            known = step.domain in {"", "quantizers"} and rule(step.op).formula
            require(known and step.outputs == [name], f"{step.op} is not known by element")
            fixed = not has(step, "quant", "linear") or side.constants.keys() >= {
                n for n in step.inputs[1:] if n}
            require(fixed, f"{step.op} whose parameters are data")
            if step.place not in found:
                found[step.place] = step
                waiting.extend(given for given in step.inputs if given)
        require(found, f"'{target}' is '{source}'")
        self.steps = [found[place] for place in sorted(found)]
        sizes = side.shapes.get(source, ())
        self.parameters = {
            (step.place, position): aligned(step, side.constants[name], len(sizes))
            for step in self.steps for position, name in enumerate(step.inputs)
            if name in side.constants and name != source}
        self.base = np.broadcast_shapes(*(p.grid.shape for p in self.parameters.values()))
        fitting = all(n in {1, sizes[i]} for i, n in enumerate(self.base))
        require(fitting, f"a parameter of '{target}' does not fit the data")
    def run(self, place: Place, x: Any) -> Any:
        values, apply = {self.source: x, "": None}, enclose if type(x) is tuple else computed
        for step in self.steps:
            given = [p.at(place) if (p := self.parameters.get((step.place, i))) else values[n]
                     for i, n in enumerate(step.inputs)]
            values[step.outputs[0]] = apply(step, given)
        return values[self.target]
def values_of(keys: Array, kind: Any) -> Array:
    width = np.dtype(kind).itemsize
    bits = np.where(keys < 0, ~keys | np.int64(-(1 << (8 * width - 1))), keys)
    return np.asarray(bits).astype(f"i{width}").view(kind)
def compare(pieces: Sequence[Piece], table: Mapping[str, Any], where: str) -> bool:
    """Prove that two functions have the steps of a table; return whether NaN parts them."""
    require(pieces[0].type == pieces[1].type in FLOATS, f"{where}: not of one float type")
    require(pieces[0].made == pieces[1].made != 0, f"{where}: one type and another")
    rank = max(len(piece.base) for piece in pieces)
    base = np.broadcast_shapes(*(piece.base or (1,) * rank for piece in pieces))
    channels, row_of = int(np.prod(base, dtype=np.int64)), table["channels"]
    require(len(row_of) in {1, channels}, f"{where}: {len(row_of)} channels, not {channels}")
    nan, parted, seen = np.array([np.nan], dtype=FLOATS[pieces[0].type]), False, set()
    for channel, place in enumerate(np.ndindex(*base)):
        row = row_of[channel if len(row_of) > 1 else 0]
        numbers = [p.at(place).tobytes() for f in pieces for p in f.parameters.values()]
        if (row, *numbers) not in seen:
            seen.add((row, *numbers))
            confirm(pieces, place, table["rows"][row], where)
            parted |= bool(np.any(differ(*(piece.run(place, nan) for piece in pieces))))
    return parted
def confirm(pieces: Sequence[Piece], place: Place, row: Mapping[str, Any], where: str) -> None:
    """Prove of one channel that both functions keep each level up to the next threshold."""
    kind = FLOATS[pieces[0].type]
    looked, low = 0, np.array(row["starts"], dtype=np.int64)
    levels = np.array([float(level) for level in row["levels"]], dtype=np.float64)
    highest = int(np.array([np.inf], dtype=kind).view(f"i{np.dtype(kind).itemsize}")[0])
    require(len(low) == len(levels) and low[0] == -highest - 1, f"{where}: a cut table")
    high = np.append(low[1:] - 1, highest)
    require(np.all(low <= high), f"{where}: thresholds out of order")
    require(np.all(differ(levels[1:], levels[:-1])), f"{where}: a threshold that is none")
    while low.size:
        looked += low.size
        require(looked <= MOST_INTERVALS, f"{where}: too many intervals to decide")
        ends = values_of(low, kind), values_of(high, kind), np.ones(low.shape, dtype=np.bool_)
        still = np.zeros(low.shape, dtype=np.bool_)
        for piece in pieces:
            made = piece.run(place, ends)
            below, above, known = (np.broadcast_to(part, low.shape) for part in made)
            known = known & ~differ(below, above)
            wrong = known & differ(below.astype(np.float64), levels)
            at = f"'{piece.target}' is not so at {ends[0][np.argmax(wrong)]!r}"
            require(not np.any(wrong), f"{where}: {at}")
            still |= ~known
        low, high, levels = low[still], high[still], np.tile(levels[still], 2)
        middle = (low >> 1) + (high >> 1) + (low & high & 1)
        low, high = np.append(low, middle + 1), np.append(middle, high)
def verify(certificate: Mapping[str, Any], path_a: File, path_b: File) -> str:
    """Return what a certificate proves of two files; raise RejectedError if nothing."""
    try:
        require(certificate["format"] == FORMAT, "not a certificate of this format")
        for name, path in (("a", path_a), ("b", path_b)):
            require(certificate["files"][name] == digest(path), f"{path} is another file")
        used, assumed = derive(certificate, path_a, path_b), certificate["assumptions"]
        unsaid = sorted(n for kind, found in used.items() for n in found - set(assumed[kind]))
    except (RejectedError, OSError):
        raise
    except Exception as error:
        raise RejectedError(f"cannot be read: {type(error).__name__}: {error}") from error
    require(not unsaid, f"not among the assumptions: {', '.join(unsaid)}")
    but = f" on which no NaN reaches {', '.join(assumed['nan'])}" if assumed["nan"] else ""
    some = f" but {', '.join(assumed['left out'])}" if assumed["left out"] else ""
    return f"every output{some} is equal for every input{but}"
def derive(certificate: Mapping[str, Any], path_a: File, path_b: File) -> dict[str, set[str]]:
    """Prove what a certificate says; return the assumptions that this needs."""
    with np.errstate(all="ignore"):
        a, b = Side(path_a), Side(path_b)
        numbers, results, left = Numbers(certificate, a, b), [a.outputs, b.outputs], set[str]()
        if len(a.outputs) != len(b.outputs):
            # Single stored numbers may be left out, of the side that has more outputs.
            own = max(a, b, key=lambda side: len(side.outputs))
            left = {n for n in own.outputs if not np.ndim(own.constants.get(n, [0]))}
            results[own is b] = [n for n in own.outputs if n not in left]
        for kind, (ours, theirs) in (("inputs", (a.inputs, b.inputs)), ("outputs", results)):
            named = sorted(ours) == sorted(theirs)
            pairs = [[n, n if named else m] for n, m in zip(ours, theirs, strict=True)]
            require(certificate[kind] == pairs, f"{kind} are not those of the files")
        for index, (one, other) in enumerate(certificate["inputs"]):
            sizes = list(zip(a.shapes.get(one, ()), b.shapes.get(other, ()), strict=True))
            fits = all(x == y or "?" in {x, y} for x, y in sizes)
            require(fits and a.types.get(one) == b.types.get(other), f"input '{other}'")
            numbers.of["a", one] = numbers.of["b", other] = numbers.key("input", index)
        for side in "ab":
            numbers.walk(side)
    require(not numbers.claims, f"claims about what is not there: {[*numbers.claims]}")
    for one, other, *how in (*certificate["values"], *certificate["outputs"]):
        equal = numbers.number("a", one) == numbers.number("b", other)
        require(set(how) <= RULES and equal, f"'{other}' is not shown to equal '{one}'")
    return {"operators": numbers.operators, "nan": numbers.nan, "left out": left}
def main(certificate: File, path_a: File, path_b: File) -> int:
    """Verify the files named; return 0 if the certificate holds, 1 if not."""
    try:
        print(f"holds: {verify(json.loads(Path(certificate).read_text()), path_a, path_b)}")
    except RejectedError as error:
        print(f"rejected: {error}")
        return 1
    return 0
if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:4]))
