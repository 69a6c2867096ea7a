"""The steps by which wide graphs grow: one function for operators that are drawn alike."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import defs, helper

from tests.fuzz.wide_graphs import (
    Rng,
    Step,
    Unfit,
    WideGraph,
    axis_of,
    broadcast,
    numbers,
    planted,
    schema_of,
)

_KINDS = defs.OpSchema.AttrType

FLOAT_FUNCTIONS = (
    *("Abs", "Neg", "Ceil", "Floor", "Round", "Sqrt", "Reciprocal", "Exp", "Log", "Sign"),
    *("Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh"),
    *("Tanh", "Sigmoid", "Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Softplus", "Softsign"),
    *("HardSigmoid", "HardSwish", "ThresholdedRelu", "Erf", "Shrink", "Mish", "Gelu", "Swish"),
    *("IsNaN", "IsInf", "Identity", "Dropout"),
)
INTEGER_FUNCTIONS = ("Abs", "Neg", "Sign", "Identity", "BitwiseNot", "Relu")
FLOAT_PAIRS = ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "PRelu", "Mean", "Sum", "Mod")
COMPARED = ("Greater", "Less", "Equal", "GreaterOrEqual", "LessOrEqual")
INTEGER_PAIRS = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Mod", "Pow", "BitwiseAnd")
REDUCTIONS = (
    *("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1"),
    *("ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"),
)
CASTS = ("float32", "float64", "float16", "int32", "int64", "int8", "uint8", "bool")


def _offered(graph: WideGraph, rng: Rng, names: tuple[str, ...]) -> tuple[str, Any]:
    name = str(rng.choice(names))
    schema = schema_of(name, graph.opset)
    if schema is None:
        raise Unfit(name)
    return name, schema


def _gains(rng: Rng, schema: Any) -> dict[str, Any]:
    """Draw the attributes that are numbers, some left out."""
    found: dict[str, Any] = {}
    for name, attribute in schema.attributes.items():
        if attribute.type == _KINDS.FLOAT and rng.random() < 0.6:
            positive = schema.name in ("Celu", "Selu", "Elu") or name in ("ratio", "lambd")
            value = rng.choice([0.125, 0.25, 0.5, 0.1, 1.0, 1.5])
            found[name] = float(value if positive or rng.random() < 0.8 else -value)
    return found


def _ints(values: Any) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def _listed(graph: WideGraph, name: str, place: str, values: Any) -> tuple[list, dict]:
    """Return axes or the like as an input or as an attribute, as the opset wants them."""
    if place in schema_of(name, graph.opset).attributes:
        return [], {place: [int(v) for v in values]}
    return [graph.constant(_ints(values), "i")], {}


def function(graph: WideGraph, rng: Rng) -> list[str]:
    """Take a function of each element."""
    if rng.random() < 0.25:
        name, schema = _offered(graph, rng, INTEGER_FUNCTIONS)
        return graph.put(name, [graph.pick(rng, "iu")], 1, **_gains(rng, schema))
    if rng.random() < 0.05:
        return graph.put("Not", [graph.pick(rng, "b")], 1)
    name, schema = _offered(graph, rng, FLOAT_FUNCTIONS)
    more = {} if name == "Dropout" else _gains(rng, schema)
    if name == "Gelu" and rng.random() < 0.5:
        more["approximate"] = "tanh"
    if name == "IsInf" and rng.random() < 0.5:
        more["detect_negative"] = int(rng.random() < 0.5)
    return graph.put(name, [graph.pick(rng)], 1, **more)


def pair(graph: WideGraph, rng: Rng) -> list[str]:
    """Take an operator that spreads one operand over the other, in either order."""
    kinds = str(rng.choice(["f", "f", "f", "iu", "b"]))
    names = {"f": FLOAT_PAIRS + COMPARED, "iu": INTEGER_PAIRS + COMPARED}
    name, _ = _offered(graph, rng, names.get(kinds, ("And", "Or", "Xor", "Equal")))
    x = graph.pick(rng, kinds)
    array = graph.arrays[x]
    alike = [
        n
        for n, _ in graph.values
        if graph.arrays[n].dtype == array.dtype and graph.arrays[n].shape == array.shape
    ]
    if rng.random() < 0.4:
        other = str(rng.choice(alike))
    else:
        drawn = numbers(rng, broadcast(rng, array.shape), array.dtype)
        if name in ("Div", "Mod") and array.dtype.kind != "b":
            drawn = np.where(drawn == 0, np.ones((), array.dtype), drawn)
        if name == "Pow":
            drawn = np.abs(drawn) % array.dtype.type(3)
        other = graph.operand(rng, drawn)
    if name in ("Div", "Mod") and array.dtype.kind != "f" and not graph.arrays[other].all():
        raise Unfit("integers over zero are not defined")
    operands = [x, other]
    if name not in ("PRelu", "Pow", "Div", "Mod") and rng.random() < 0.3:
        operands.reverse()
    if name in ("Max", "Min", "Sum", "Mean") and rng.random() < 0.3:
        operands.append(str(rng.choice(alike)))
    fmod = {"fmod": 1} if name == "Mod" and array.dtype.kind == "f" else {}
    return graph.put(name, operands, 1, **fmod)


def reduction(graph: WideGraph, rng: Rng) -> list[str]:
    """Take a reduction along some axes, all, or none named."""
    name, _ = _offered(graph, rng, REDUCTIONS)
    x = graph.pick(rng, "f" if rng.random() < 0.85 else "i")
    rank = graph.arrays[x].ndim
    more, operands = {"keepdims": int(rng.random() < 0.5)}, [x]
    if rank and rng.random() < 0.8:
        count = int(rng.integers(1, rank + 1))
        axes = rng.permutation(rank)[:count] - rank * (
            rng.random() < 0.3 and graph.opset >= 11
        )
        inputs, named = _listed(graph, name, "axes", axes)
        operands, more = operands + inputs, {**more, **named}
    return graph.put(name, operands, 1, **more)


def along_axis(graph: WideGraph, rng: Rng) -> list[str]:
    """Take an operator that works along one axis."""
    names = (
        "Softmax",
        "LogSoftmax",
        "Hardmax",
        "ArgMax",
        "ArgMin",
        "CumSum",
        "LpNormalization",
    )
    name, _ = _offered(graph, rng, (*names, "TopK", "OneHot"))
    x = graph.pick(rng, "f" if name != "OneHot" else "i")
    rank = graph.arrays[x].ndim
    axis = axis_of(rng, rank)
    if graph.opset < 11:
        axis %= rank
    if name in ("ArgMax", "ArgMin"):
        more = {"keepdims": int(rng.random() < 0.5)}
        if graph.opset >= 12 and rng.random() < 0.5:
            more["select_last_index"] = 1
        return graph.put(name, [x], 1, axis=axis, **more)
    if name == "CumSum":
        more = {n: int(rng.random() < 0.5) for n in ("exclusive", "reverse")}
        return graph.put(name, [x, graph.constant(np.int64(axis), "i")], 1, **more)
    if name == "TopK":
        if graph.opset < 11:
            raise Unfit(name)
        count = graph.constant(_ints([rng.integers(1, graph.arrays[x].shape[axis] + 1)]), "i")
        more = {"largest": int(rng.random() < 0.6), "sorted": 1}
        return graph.put(name, [x, count], 2, axis=axis, **more)
    if name == "OneHot":
        depth = graph.constant(_ints(rng.integers(3, 12)), "i")
        ends = graph.constant(numbers(rng, (2,)), "k")
        return graph.put(name, [x, depth, ends], 1, axis=axis)
    if name == "LpNormalization":
        return graph.put(name, [x], 1, axis=axis, p=int(rng.integers(1, 3)))
    return graph.put(name, [x], 1, **({"axis": axis} if rng.random() < 0.8 else {}))


def movement(graph: WideGraph, rng: Rng) -> list[str]:
    """Take an operator that moves elements of any type."""
    x = graph.pick(rng, "fiub" if rng.random() < 0.3 else "f")
    shape = graph.arrays[x].shape
    moves = [_transpose, _reshape, _squeeze, _unsqueeze, _flatten, _expand, _tile, _slice]
    moves += [_split, _concat, _gather, _gather_elements, _pad, _scatter, _trilu, _reverse]
    moves += [_compress, _gather_nd, _scatter_nd, _depth]
    return moves[rng.integers(len(moves))](graph, rng, x, shape)


def _transpose(graph: WideGraph, rng: Rng, x: str, shape: tuple[int, ...]) -> list[str]:
    order = {"perm": [int(k) for k in rng.permutation(len(shape))]}
    return graph.put("Transpose", [x], 1, **(order if rng.random() < 0.85 else {}))


def _reshape(graph: WideGraph, rng: Rng, x: str, shape: tuple[int, ...]) -> list[str]:
    rest, sizes = int(np.prod(shape)), []
    while rest > 1 and len(sizes) < 4:
        size = int(rng.choice([n for n in range(1, rest + 1) if rest % n == 0]))
        sizes.append(size)
        rest //= size
    sizes.append(rest)
    if rng.random() < 0.4:
        sizes[int(rng.integers(len(sizes)))] = -1
    elif shape and sizes[0] == shape[0]:
        sizes[0] = 0
    return graph.put("Reshape", [x, graph.constant(_ints(sizes), "i")], 1)


def _squeeze(graph: WideGraph, rng: Rng, x: str, shape: tuple[int, ...]) -> list[str]:
    ones = [k for k, n in enumerate(shape) if n == 1]
    if not ones or rng.random() < 0.2:
        return graph.put("Squeeze", [x], 1)
    axes = rng.permutation(ones)[: rng.integers(1, len(ones) + 1)]
    if graph.opset >= 11 and rng.random() < 0.4:
        axes = axes - len(shape)
    inputs, more = _listed(graph, "Squeeze", "axes", axes)
    return graph.put("Squeeze", [x, *inputs], 1, **more)


def _unsqueeze(graph: WideGraph, rng: Rng, x: str, shape: tuple[int, ...]) -> list[str]:
    count = int(rng.integers(1, 3))
    if len(shape) + count > 6:
        raise Unfit("Unsqueeze")
    axes = rng.permutation(len(shape) + count)[:count]
    if graph.opset >= 11 and rng.random() < 0.4:
        axes = axes - len(shape) - count
    inputs, more = _listed(graph, "Unsqueeze", "axes", axes)
    return graph.put("Unsqueeze", [x, *inputs], 1, **more)


def _flatten(graph: WideGraph, rng: Rng, x: str, shape: tuple[int, ...]) -> list[str]:
    low = -len(shape) if graph.opset >= 11 else 0
    return graph.put("Flatten", [x], 1, axis=int(rng.integers(low, len(shape) + 1)))


def _expand(graph: WideGraph, rng: Rng, x: str, shape: tuple[int, ...]) -> list[str]:
    sizes = [n if n > 1 else int(rng.integers(1, 4)) for n in shape]
    sizes = [1 if rng.random() < 0.3 else n for n in sizes]
    if rng.random() < 0.3:
        sizes = [2, *sizes]
    return graph.put("Expand", [x, graph.constant(_ints(sizes), "i")], 1)


def _tile(graph: WideGraph, rng: Rng, x: str, shape: tuple[int, ...]) -> list[str]:
    counts = rng.integers(1, 3, size=len(shape))
    return graph.put("Tile", [x, graph.constant(_ints(counts), "i")], 1)


def _slice(graph: WideGraph, rng: Rng, x: str, shape: tuple[int, ...]) -> list[str]:
    count = int(rng.integers(1, len(shape) + 1))
    axes = rng.permutation(len(shape))[:count]
    starts, stops, steps = [], [], []
    for axis in axes:
        size = shape[axis]
        start = int(rng.integers(-size, size))
        backwards = rng.random() < 0.3 and graph.opset >= 10
        steps.append(-int(rng.integers(1, 3)) if backwards else int(rng.integers(1, 3)))
        starts.append(start)
        stops.append(-(1 << 40) if backwards else int(rng.choice([size, 1 << 40, 1000])))
    if graph.opset < 10:
        return graph.put(
            "Slice", [x], 1, starts=starts, ends=stops, axes=[int(a) for a in axes]
        )
    if rng.random() < 0.3:
        axes = axes - len(shape)
    given = [graph.constant(_ints(v), "i") for v in (starts, stops, axes, steps)]
    return graph.put("Slice", [x, *given], 1)


def _split(graph: WideGraph, rng: Rng, x: str, shape: tuple[int, ...]) -> list[str]:
    axis = axis_of(rng, len(shape)) if graph.opset >= 11 else int(rng.integers(len(shape)))
    size = shape[axis]
    if size < 2:
        raise Unfit("Split")
    if graph.opset >= 18 and rng.random() < 0.4:
        return graph.put("Split", [x], 2, axis=axis, num_outputs=2)
    first = int(rng.integers(1, size))
    inputs, more = _listed(graph, "Split", "split", [first, size - first])
    return graph.put("Split", [x, *inputs], 2, axis=axis, **more)


def _concat(graph: WideGraph, rng: Rng, x: str, shape: tuple[int, ...]) -> list[str]:
    axis = axis_of(rng, len(shape)) if graph.opset >= 11 else int(rng.integers(len(shape)))
    sizes = list(shape)
    sizes[axis] = int(rng.integers(1, 4))
    other = graph.operand(rng, numbers(rng, sizes, graph.arrays[x].dtype))
    operands = [x, other] if rng.random() < 0.7 else [other, x, x]
    return graph.put("Concat", operands, 1, axis=axis)


def _gather(graph: WideGraph, rng: Rng, x: str, shape: tuple[int, ...]) -> list[str]:
    axis = axis_of(rng, len(shape))
    low = -shape[axis] if graph.opset >= 11 else 0
    places = rng.integers(low, shape[axis], size=broadcast(rng, (2, 3))).astype(
        np.int32 if rng.random() < 0.3 else np.int64
    )
    return graph.put("Gather", [x, graph.operand(rng, places, "i")], 1, axis=axis)


def _gather_elements(graph: WideGraph, rng: Rng, x: str, shape: tuple[int, ...]) -> list[str]:
    axis = axis_of(rng, len(shape))
    sizes = [int(rng.integers(1, n + 1)) for n in shape]
    places = graph.operand(rng, rng.integers(-shape[axis], shape[axis], size=sizes), "i")
    return graph.put("GatherElements", [x, places], 1, axis=axis)


def _gather_nd(graph: WideGraph, rng: Rng, x: str, shape: tuple[int, ...]) -> list[str]:
    alike = int(rng.integers(0, len(shape))) if graph.opset >= 12 and rng.random() < 0.4 else 0
    depth = int(rng.integers(1, len(shape) - alike + 1))
    limits = shape[alike : alike + depth]
    head = (*shape[:alike], 2)
    places = np.stack([rng.integers(0, n, size=head) for n in limits], axis=-1)
    more = {"batch_dims": alike} if alike else {}
    return graph.put("GatherND", [x, graph.operand(rng, places, "i")], 1, **more)


def _scatter(graph: WideGraph, rng: Rng, x: str, shape: tuple[int, ...]) -> list[str]:
    axis = axis_of(rng, len(shape))
    sizes = [int(rng.integers(1, n + 1)) for n in shape]
    more: dict[str, Any] = {}
    if graph.opset >= 18 and rng.random() < 0.5:
        more["reduction"] = str(rng.choice(["add", "mul", "max", "min"]))
    spread = np.argsort(rng.random((*sizes[:axis], shape[axis], *sizes[axis:][1:])), axis=axis)
    places = np.take(spread, np.arange(sizes[axis]), axis=axis)
    update = graph.operand(rng, numbers(rng, sizes, graph.arrays[x].dtype))
    return graph.put(
        "ScatterElements", [x, graph.operand(rng, places, "i"), update], 1, axis=axis, **more
    )


def _scatter_nd(graph: WideGraph, rng: Rng, x: str, shape: tuple[int, ...]) -> list[str]:
    depth = int(rng.integers(1, len(shape) + 1))
    count = int(rng.integers(1, min(int(np.prod(shape[:depth])), 3) + 1))
    flat = rng.permutation(int(np.prod(shape[:depth])))[:count]
    places = np.stack(np.unravel_index(flat, shape[:depth]), axis=-1).astype(np.int64)
    more: dict[str, Any] = {}
    if graph.opset >= 18 and rng.random() < 0.5:
        more["reduction"] = str(rng.choice(["add", "mul", "max", "min"]))
    update = graph.operand(rng, numbers(rng, (count, *shape[depth:]), graph.arrays[x].dtype))
    return graph.put("ScatterND", [x, graph.operand(rng, places, "i"), update], 1, **more)


def _pad(graph: WideGraph, rng: Rng, x: str, shape: tuple[int, ...]) -> list[str]:
    mode = str(rng.choice(["constant", "constant", "reflect", "edge", "wrap"]))
    if mode == "wrap" and graph.opset < 19:
        raise Unfit("Pad")
    amounts = rng.integers(0, 3, size=2 * len(shape))
    if mode == "constant" and rng.random() < 0.3:
        amounts[int(rng.integers(len(amounts)))] = -1
    if graph.opset < 11:
        return graph.put("Pad", [x], 1, mode=mode, pads=[int(n) for n in amounts])
    operands = [x, graph.constant(_ints(amounts), "i")]
    if mode == "constant" and rng.random() < 0.6:
        operands.append(graph.constant(numbers(rng, (), graph.arrays[x].dtype), "k"))
    return graph.put("Pad", operands, 1, mode=mode)


def _trilu(graph: WideGraph, rng: Rng, x: str, shape: tuple[int, ...]) -> list[str]:
    if graph.opset < 14 or len(shape) < 2:
        raise Unfit("Trilu")
    offset = graph.constant(np.int64(rng.integers(-2, 3)), "i")
    return graph.put("Trilu", [x, offset], 1, upper=int(rng.random() < 0.5))


def _reverse(graph: WideGraph, rng: Rng, x: str, shape: tuple[int, ...]) -> list[str]:
    if graph.opset < 10 or len(shape) < 2:
        raise Unfit("ReverseSequence")
    first = bool(rng.random() < 0.5)
    time, batch = (0, 1) if first else (1, 0)
    lengths = graph.operand(rng, rng.integers(1, shape[time] + 1, size=shape[batch]), "i")
    return graph.put("ReverseSequence", [x, lengths], 1, time_axis=time, batch_axis=batch)


def _compress(graph: WideGraph, rng: Rng, x: str, shape: tuple[int, ...]) -> list[str]:
    flat = rng.random() < 0.3
    axis = axis_of(rng, len(shape)) if graph.opset >= 11 else int(rng.integers(len(shape)))
    mask = rng.random(int(np.prod(shape)) if flat else shape[axis]) < 0.6
    mask[0] = True
    more = {} if flat else {"axis": axis}
    return graph.put("Compress", [x, graph.constant(mask, "m")], 1, **more)


def _depth(graph: WideGraph, rng: Rng, x: str, shape: tuple[int, ...]) -> list[str]:
    if len(shape) != 4:
        raise Unfit("DepthToSpace")
    if shape[2] % 2 == 0 and shape[3] % 2 == 0:
        return graph.put("SpaceToDepth", [x], 1, blocksize=2)
    mode = {"mode": str(rng.choice(["DCR", "CRD"]))} if graph.opset >= 11 else {}
    return graph.put("DepthToSpace", [x], 1, blocksize=2, **mode)


def other(graph: WideGraph, rng: Rng) -> list[str]:
    """Take a cast, a choice, a limit, or a fact of the shape."""
    name, _ = _offered(graph, rng, ("Cast", "Where", "Clip", "Shape", "Size", "Cast", "Clip"))
    x = graph.pick(rng, "fiub" if name != "Clip" else "f")
    array = graph.arrays[x]
    if name == "Cast":
        kind = str(rng.choice(CASTS))
        if kind == "uint8" and np.any(array < 0):
            raise Unfit("numbers below zero in unsigned types are not defined")
        return graph.put("Cast", [x], 1, to=helper.np_dtype_to_tensor_dtype(np.dtype(kind)))
    if name == "Where":
        mask = graph.operand(rng, rng.random(broadcast(rng, array.shape)) < 0.5, "m")
        other_name = graph.operand(rng, numbers(rng, broadcast(rng, array.shape), array.dtype))
        return graph.put("Where", [mask, x, other_name], 1)
    if name == "Clip":
        ends = np.sort(numbers(rng, (2,), array.dtype))
        if graph.opset < 11:
            return graph.put("Clip", [x], 1, min=float(ends[0]), max=float(ends[1]))
        low, high = (graph.constant(e.reshape(()), "c") for e in ends)
        chosen = [[x, low, high], [x, low], [x, "", high]][int(rng.integers(3))]
        return graph.put("Clip", chosen, 1)
    ends = {"start": 0, "end": -1} if graph.opset >= 15 and rng.random() < 0.3 else {}
    return graph.put(name, [x], 1, **(ends if name == "Shape" else {}))


def _steps() -> dict[str, tuple[Step, float]]:
    from tests.fuzz import wide_bodies, wide_products

    return {
        "planted": (planted, 4.0),
        "function": (function, 2.0),
        "pair": (pair, 3.0),
        "reduction": (reduction, 1.0),
        "along_axis": (along_axis, 0.8),
        "movement": (movement, 3.0),
        "other": (other, 1.2),
        **wide_products.STEPS,
        **wide_bodies.STEPS,
    }


STEPS = _steps()
