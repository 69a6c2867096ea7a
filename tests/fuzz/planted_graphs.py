"""Random valid graphs of one to nine operators, in the three forms that quantized files have.

Everything is drawn from the generator that is handed in: the same seed gives the same bytes.
Magnitudes are drawn over many powers of two on purpose, so that what matters in a graph lies
anywhere but where inputs of about 1 lead to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

QONNX = "qonnx.custom_op.general"
QONNX_OPERATORS = ("Quant", "BipolarQuant", "MultiThreshold")
FORMS = ("qonnx", "qdq", "float")
ROUNDINGS = ("ROUND", "CEIL", "FLOOR", "UP", "DOWN", "HALF_UP", "HALF_DOWN")
MOST_OPERATORS = 9
IR_VERSION = 8

Rng = np.random.Generator
Shape = tuple[int, ...]


@dataclass
class Graph:
    """A graph while it is made.

    Attributes:
        form: "qonnx", "qdq" or "float": how its quantizers are spelled.
        opset: Version of the standard operators.
        nodes: Its nodes, in order.
        constants: Its initializers.
        values: What can be read: (name, shape without the batch).
        inputs: Its inputs, likewise.
        ends: Outputs of whole numbers, which nothing reads.
        operators: How many operators it has; what belongs to one quantizer counts once.
    """

    form: str
    opset: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    values: list[tuple[str, Shape]] = field(default_factory=list)
    inputs: list[tuple[str, Shape]] = field(default_factory=list)
    operators: int = 0
    ends: list[tuple[str, Shape]] = field(default_factory=list)

    def constant(self, array: np.ndarray, stem: str) -> str:
        name = f"{stem}{len(self.constants)}"
        self.constants[name] = np.asarray(array)
        return name

    def add(self, operator: str, inputs: list[str], **attributes: object) -> str:
        name = f"n{len(self.nodes)}"
        domain = QONNX if operator in QONNX_OPERATORS else ""
        out = f"{name}_out"
        self.nodes.append(
            helper.make_node(operator, inputs, [out], name=name, domain=domain, **attributes)
        )
        return out


def magnitude(rng: Rng, low: float = -7, high: float = 7) -> np.float32:
    """Return a magnitude: a power of two, or any number between two of them."""
    exponent = rng.uniform(low, high)
    if rng.random() < 0.5:
        return np.float32(2.0 ** round(exponent))
    return np.float32(2.0**exponent)


def _weights(rng: Rng, shape: Shape) -> np.ndarray:
    levels = rng.integers(-7, 8, size=shape)
    if rng.random() < 0.6:
        return (levels * np.float32(2.0 ** rng.integers(-4, 2))).astype(np.float32)
    return (rng.normal(size=shape) * magnitude(rng, -4, 4)).astype(np.float32)


def _spread(rng: Rng, count: int, axes: int) -> np.ndarray:
    """Return values of one sign per channel, over several powers of two."""
    values = np.array([magnitude(rng) for _ in range(count)], dtype=np.float32)
    return (
        (values * rng.choice([-1, 1], size=count)).reshape(-1, *[1] * axes).astype(np.float32)
    )


def quantize(graph: Graph, rng: Rng, x: str, shape: Shape, *, weight: bool = False) -> str:
    """Write a quantizer in the form of the graph; float graphs round to a grid."""
    if graph.form == "qdq":
        return _linear(graph, rng, x, shape)
    if graph.form == "float":
        step = graph.constant(magnitude(rng, -3, 4), "step")
        t = graph.add("Div", [x, step])
        t = graph.add(str(rng.choice(["Floor", "Ceil", "Round"])), [t])
        return graph.add("Mul", [t, step])
    if not weight and rng.random() < 0.12:
        return graph.add("BipolarQuant", [x, graph.constant(magnitude(rng, -3, 3), "s")])
    bits = int(rng.integers(2, 9))
    per_channel = len(shape) > 1 and rng.random() < 0.3
    scale = magnitude(rng, -5, 4)
    if per_channel:
        scale = np.abs(_spread(rng, shape[0], len(shape) - 1))[None]
    signed = int(weight or rng.random() < 0.6)
    zero = 0 if weight or rng.random() < 0.5 else int(rng.integers(-3, 4))
    operands = [scale, np.float32(zero), np.float32(bits)]
    names = [graph.constant(np.asarray(a), n) for a, n in zip(operands, "szb", strict=True)]
    return graph.add(
        "Quant",
        [x, *names],
        signed=signed,
        narrow=int(rng.random() < 0.35),
        rounding_mode=str(rng.choice(ROUNDINGS)) if rng.random() < 0.5 else "ROUND",
    )


def _linear(graph: Graph, rng: Rng, x: str, shape: Shape) -> str:
    kind = np.dtype(np.uint8 if rng.random() < 0.5 else np.int8)
    limits = np.iinfo(kind)
    scales, axis = np.asarray(magnitude(rng, -5, 4)), {}
    if shape and rng.random() < 0.25 and graph.opset >= 13:
        scales, axis = np.abs(_spread(rng, shape[0], 0)).reshape(-1), {"axis": 1}
    zero = rng.integers(limits.min, limits.max + 1) if rng.random() < 0.3 else 0
    scale = graph.constant(scales, "s")
    zero_name = graph.constant(np.full(scales.shape, zero, dtype=kind), "z")
    q = graph.add("QuantizeLinear", [x, scale, zero_name], **axis)
    if rng.random() < 0.5 and graph.opset >= 13:
        low, high = np.sort(rng.integers(limits.min, limits.max + 1, size=2))
        ends = [
            graph.constant(np.asarray(e, dtype=kind), "e") for e in (low, max(high, low + 1))
        ]
        if low < limits.max:
            q = graph.add("Clip", [q, *ends])
    return graph.add("DequantizeLinear", [q, scale, zero_name], **axis)


# One function per operator: it returns the value it made and its shape, or None where the
# operator does not take such a shape.

Made = tuple[str, Shape] | None


def _quant(graph: Graph, rng: Rng, x: str, shape: Shape) -> Made:
    return quantize(graph, rng, x, shape), shape


def _relu(graph: Graph, rng: Rng, x: str, shape: Shape) -> Made:
    return graph.add("Relu", [x]), shape


def _leaky(graph: Graph, rng: Rng, x: str, shape: Shape) -> Made:
    return graph.add("LeakyRelu", [x], alpha=float(rng.choice([0.125, 0.25, 0.1, 0.5]))), shape


def _clip(graph: Graph, rng: Rng, x: str, shape: Shape) -> Made:
    centre, half = magnitude(rng, -3, 6) * rng.choice([-1, 0, 1]), magnitude(rng, -3, 6)
    ends = [
        graph.constant(np.asarray(e, np.float32), "c") for e in (centre - half, centre + half)
    ]
    return graph.add("Clip", [x, *ends]), shape


def _shift(graph: Graph, rng: Rng, x: str, shape: Shape) -> Made:
    operator = str(rng.choice(["Add", "Sub", "Add"]))
    return graph.add(
        operator, [x, graph.constant(_spread(rng, shape[0], len(shape) - 1), "k")]
    ), shape


def _scale(graph: Graph, rng: Rng, x: str, shape: Shape) -> Made:
    values = _spread(rng, shape[0], len(shape) - 1)
    return graph.add(str(rng.choice(["Mul", "Div"])), [x, graph.constant(values, "k")]), shape


def _mask(graph: Graph, rng: Rng, x: str, shape: Shape) -> Made:
    mask = (rng.random(shape) < 0.6).astype(np.float32)
    mask.flat[0] = 1
    return graph.add("Mul", [x, graph.constant(mask, "mask")]), shape


def _dense(graph: Graph, rng: Rng, x: str, shape: Shape) -> Made:
    if len(shape) != 1:
        return None
    out = int(rng.integers(2, 6))
    w = graph.constant(_weights(rng, (shape[0], out)), "w")
    if rng.random() < 0.5 and graph.form == "qonnx":
        w = quantize(graph, rng, w, (), weight=True)
    if rng.random() < 0.5:
        return graph.add("MatMul", [x, w]), (out,)
    bias = graph.constant(_spread(rng, out, 0).reshape(-1), "bias")
    gains = {"alpha": 2.0, "beta": 0.5} if rng.random() < 0.2 else {}
    return graph.add("Gemm", [x, w, bias], **gains), (out,)


def _conv(graph: Graph, rng: Rng, x: str, shape: Shape) -> Made:
    if len(shape) != 3 or min(shape[1:]) < 3:
        return None
    out, size = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    w = graph.constant(_weights(rng, (out, shape[0], size, size)), "w")
    if rng.random() < 0.5 and graph.form == "qonnx":
        w = quantize(graph, rng, w, (), weight=True)
    pads = [int(rng.integers(0, size)) for _ in range(4)]
    operands = [x, w]
    if rng.random() < 0.5:
        operands.append(graph.constant(_spread(rng, out, 0).reshape(-1), "bias"))
    y = graph.add("Conv", operands, kernel_shape=[size, size], pads=pads)
    places = [n + pads[k] + pads[k + 2] - size + 1 for k, n in enumerate(shape[1:])]
    return y, (out, *places)


def _pool(graph: Graph, rng: Rng, x: str, shape: Shape) -> Made:
    if len(shape) != 3 or min(shape[1:]) < 2:
        return None
    pads = [int(rng.integers(0, 2)) for _ in range(4)]
    attributes = {"kernel_shape": [2, 2], "strides": [1, 1], "pads": pads}
    if rng.random() < 0.5:
        y = graph.add("MaxPool", [x], **attributes)
    else:
        include = int(rng.random() < 0.5)
        y = graph.add("AveragePool", [x], count_include_pad=include, **attributes)
    return y, (shape[0], *[n + pads[k] + pads[k + 2] - 1 for k, n in enumerate(shape[1:])])


def _norm(graph: Graph, rng: Rng, x: str, shape: Shape) -> Made:
    if len(shape) == 2:
        return None
    gain, shift, mean = (_spread(rng, shape[0], 0).reshape(-1) for _ in range(3))
    variance = np.abs(_spread(rng, shape[0], 0)).reshape(-1)
    names = [graph.constant(a, "bn") for a in (gain, shift, mean, variance)]
    return graph.add("BatchNormalization", [x, *names], epsilon=1e-5), shape


def _join(graph: Graph, rng: Rng, x: str, shape: Shape) -> Made:
    others = [n for n, s in graph.values if s[1:] == shape[1:] and n != x]
    if not others or shape[0] > 8:
        return None
    other = str(rng.choice(others))
    sizes = dict(graph.values)
    return graph.add("Concat", [x, other], axis=1), (shape[0] + sizes[other][0], *shape[1:])


def _merge(graph: Graph, rng: Rng, x: str, shape: Shape) -> Made:
    others = [n for n, s in graph.values if s == shape and n != x]
    if not others:
        return None
    operator = str(rng.choice(["Add", "Sub", "Mul", "Max", "Min"]))
    return graph.add(operator, [x, str(rng.choice(others))]), shape


def _pad(graph: Graph, rng: Rng, x: str, shape: Shape) -> Made:
    if len(shape) < 2:
        return None
    before, after = [0] * (len(shape) + 1), [0] * (len(shape) + 1)
    before[-1], after[-1] = int(rng.integers(0, 3)), int(rng.integers(0, 3))
    pads = graph.constant(np.array(before + after, dtype=np.int64), "pads")
    return graph.add("Pad", [x, pads]), (*shape[:-1], shape[-1] + before[-1] + after[-1])


def _flatten(graph: Graph, rng: Rng, x: str, shape: Shape) -> Made:
    if len(shape) < 2 or int(np.prod(shape)) > 40:
        return None
    return graph.add("Flatten", [x], axis=1), (int(np.prod(shape)),)


def _turn(graph: Graph, rng: Rng, x: str, shape: Shape) -> Made:
    if len(shape) < 2:
        return None
    order = [int(k) for k in rng.permutation(len(shape))]
    return graph.add("Transpose", [x], perm=[0, *[k + 1 for k in order]]), tuple(
        shape[k] for k in order
    )


def _softmax(graph: Graph, rng: Rng, x: str, shape: Shape) -> Made:
    if graph.opset < 13:
        # The meaning of the axis left out is what changed in 13.
        return (graph.add("Softmax", [x]), shape) if len(shape) > 1 else None
    return graph.add("Softmax", [x], axis=int(rng.integers(1, len(shape) + 1))), shape


def _curve(graph: Graph, rng: Rng, x: str, shape: Shape) -> Made:
    kind = str(rng.choice(["HardSigmoid", "ThresholdedRelu", "Elu"]))
    attributes = {
        "HardSigmoid": {"alpha": 0.25, "beta": 0.5},
        "ThresholdedRelu": {"alpha": float(magnitude(rng, -2, 5))},
        "Elu": {"alpha": 0.5},
    }[kind]
    return graph.add(kind, [x], **attributes), shape


def _mean(graph: Graph, rng: Rng, x: str, shape: Shape) -> Made:
    if len(shape) < 2:
        return None
    axis = int(rng.integers(1, len(shape) + 1))
    kept = tuple(1 if k == axis - 1 else n for k, n in enumerate(shape))
    operator = str(rng.choice(["ReduceMean", "ReduceMax"]))
    return graph.add(operator, [x], axes=[axis], keepdims=1), kept


def _part(graph: Graph, rng: Rng, x: str, shape: Shape) -> Made:
    if shape[-1] < 2:
        return None
    start = int(rng.integers(0, shape[-1] - 1))
    stop = int(rng.integers(start + 1, shape[-1] + 1))
    ends = [graph.constant(np.array([n], np.int64), "i") for n in (start, stop, len(shape))]
    return graph.add("Slice", [x, *ends]), (*shape[:-1], stop - start)


def _order(graph: Graph, rng: Rng, x: str, shape: Shape) -> Made:
    picked = rng.integers(0, shape[0], size=int(rng.integers(1, shape[0] + 1)))
    index = graph.constant(picked.astype(np.int64), "i")
    return graph.add("Gather", [x, index], axis=1), (len(picked), *shape[1:])


def _function(graph: Graph, rng: Rng, x: str, shape: Shape) -> Made:
    operator = str(rng.choice(["Tanh", "Sigmoid", "Abs", "Sign", "Exp", "Softplus"]))
    return graph.add(operator, [x]), shape


def _choice(graph: Graph, rng: Rng, x: str, shape: Shape) -> Made:
    others = [n for n, s in graph.values if s == shape and n != x]
    if not others:
        return None
    which = graph.constant(rng.random(shape) < 0.5, "maskb")
    return graph.add("Where", [which, x, str(rng.choice(others))]), shape


def _bound(graph: Graph, rng: Rng, x: str, shape: Shape) -> Made:
    bound = magnitude(rng, -3, 6) * rng.choice([-1, 1])
    name = graph.constant(np.asarray(bound, np.float32), "k")
    return graph.add(str(rng.choice(["Max", "Min"])), [x, name]), shape


def _slope(graph: Graph, rng: Rng, x: str, shape: Shape) -> Made:
    slopes = _spread(rng, shape[0], len(shape) - 1) / np.float32(64)
    return graph.add("PRelu", [x, graph.constant(slopes, "k")]), shape


def _sum(graph: Graph, rng: Rng, x: str, shape: Shape) -> Made:
    if len(shape) == 3 and rng.random() < 0.5:
        return graph.add("GlobalAveragePool", [x]), (shape[0], 1, 1)
    if len(shape) < 2 or graph.opset < 13:
        return None
    axes = graph.constant(np.array([len(shape)], np.int64), "i")
    return graph.add("ReduceSum", [x, axes], keepdims=1), (*shape[:-1], 1)


def _product(graph: Graph, rng: Rng, x: str, shape: Shape) -> Made:
    if len(shape) != 2:
        return None
    other = str(rng.choice([n for n, s in graph.values if s == shape]))
    turned = graph.add("Transpose", [other], perm=[0, 2, 1])
    return graph.add("MatMul", [x, turned]), (shape[0], shape[0])


def _thresholds(graph: Graph, rng: Rng, x: str, shape: Shape) -> Made:
    if graph.form != "qonnx" or len(shape) not in (1, 3):
        return None
    steps = int(rng.choice([1, 3, 7, 15]))
    channels = shape[0] if rng.random() < 0.6 else 1
    values = rng.integers(-40, 41, size=(channels, steps)) * magnitude(rng, -4, 5)
    name = graph.constant(np.sort(values, axis=1).astype(np.float32), "t")
    scale, bias = float(magnitude(rng, -3, 3)), float(rng.integers(-4, 5))
    return graph.add(
        "MultiThreshold", [x, name], out_scale=scale, out_bias=bias, out_dtype="FLOAT32"
    ), shape


def _largest(graph: Graph, rng: Rng, x: str, shape: Shape) -> Made:
    if graph.operators == 0:
        return None
    # Nothing reads where the largest is: it ends the graph beside other outputs.
    graph.ends.append((graph.add("ArgMax", [x], axis=1, keepdims=0), shape[1:]))
    return x, shape


Maker = Callable[[Graph, Rng, str, Shape], Made]

MAKERS: dict[str, tuple[Maker, float]] = {
    "quant": (_quant, 4.0),
    "relu": (_relu, 1.5),
    "leaky": (_leaky, 0.5),
    "clip": (_clip, 0.7),
    "shift": (_shift, 1.0),
    "scale": (_scale, 0.8),
    "mask": (_mask, 0.3),
    "dense": (_dense, 2.5),
    "conv": (_conv, 2.5),
    "pool": (_pool, 0.8),
    "norm": (_norm, 0.7),
    "join": (_join, 0.6),
    "merge": (_merge, 0.8),
    "pad": (_pad, 0.3),
    "flatten": (_flatten, 0.5),
    "turn": (_turn, 0.4),
    "softmax": (_softmax, 0.15),
    "curve": (_curve, 0.3),
    "mean": (_mean, 0.3),
    "part": (_part, 0.25),
    "order": (_order, 0.25),
    "function": (_function, 0.3),
    "choice": (_choice, 0.3),
    "bound": (_bound, 0.3),
    "slope": (_slope, 0.25),
    "sum": (_sum, 0.3),
    "product": (_product, 0.2),
    "thresholds": (_thresholds, 0.6),
    "largest": (_largest, 0.15),
}
"""What a step of a graph can be, and how often it is drawn."""

_SHAPES: tuple[tuple[int, ...], ...] = ((4,), (6,), (8,), (3, 5), (2, 4), (1, 5, 5), (2, 4, 4))


def draw_graph(
    rng: Rng, form: str, wanted: str | None = None, opset: int = 17
) -> onnx.ModelProto:
    """Return a random graph; the wanted step is tried early and again until it fits.

    Args:
        rng: What is drawn from.
        form: How quantizers are spelled.
        wanted: A step of :data:`MAKERS` that the graph should hold.
        opset: Version of the standard operators.
    """
    graph = Graph(form, opset)
    shape = _SHAPES[rng.integers(len(_SHAPES))]
    for name in ("x", "x2")[: 2 if rng.random() < 0.2 else 1]:
        graph.inputs.append((name, shape))
    graph.values.extend(graph.inputs)
    steps = int(rng.integers(1, MOST_OPERATORS + 1))
    place = int(rng.integers(steps))
    names, weights = list(MAKERS), np.array([w for _, w in MAKERS.values()])
    for step in range(3 * MOST_OPERATORS):
        if graph.operators >= steps:
            break
        missing = wanted is not None and step >= place
        step_name = (
            str(wanted) if missing else str(rng.choice(names, p=weights / weights.sum()))
        )
        # Mostly on from the last value: chains are deep, branches happen.
        at = -1 if rng.random() < 0.8 else int(rng.integers(len(graph.values)))
        x, x_shape = graph.values[at]
        made = MAKERS[step_name][0](graph, rng, x, x_shape)
        if made is not None:
            graph.values += [made] if made not in graph.values else []
            graph.operators += 1
            wanted = None if missing else wanted
    return finished(graph, rng)


def finished(graph: Graph, rng: Rng) -> onnx.ModelProto:
    """Return the model: what nothing reads is an output."""
    read = {name for node in graph.nodes for name in node.input}
    made = [(n, s) for n, s in graph.values if n not in dict(graph.inputs)]
    ends = [(n, s) for n, s in made if n not in read] or made[-1:]
    batch = rng.choice(["N", 1, 2, 3], p=[0.65, 0.2, 0.08, 0.07])
    batch = "N" if batch == "N" else int(batch)

    def entry(name: str, shape: Shape, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, [batch, *shape])

    inputs = [entry(n, s) for n, s in graph.inputs if n in read]
    initializers = [numpy_helper.from_array(a, n) for n, a in graph.constants.items()]
    made_graph = helper.make_graph(
        graph.nodes,
        "planted",
        inputs,
        [
            *(entry(n, s) for n, s in ends),
            *(entry(n, s, TensorProto.INT64) for n, s in graph.ends),
        ],
        initializers,
    )
    opsets = [helper.make_opsetid("", graph.opset)]
    if graph.form == "qonnx":
        opsets.append(helper.make_opsetid(QONNX, 1))
    return helper.make_model(made_graph, opset_imports=opsets, ir_version=IR_VERSION)
