"""The kinds of faults that are planted: each changes one thing in a copy of a graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.fuzz.planted_graphs import FORMS, ROUNDINGS

Model = onnx.ModelProto
Rng = np.random.Generator


def _pick(rng: Rng, things: list) -> object | None:
    return things[rng.integers(len(things))] if things else None


def _nodes(model: Model, *operators: str) -> list[onnx.NodeProto]:
    return [n for n in model.graph.node if n.op_type in operators]


def _array(model: Model, name: str) -> np.ndarray | None:
    return next(
        (numpy_helper.to_array(t).copy() for t in model.graph.initializer if t.name == name),
        None,
    )


def _store(model: Model, name: str, array: np.ndarray) -> bool:
    for tensor in model.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(array), name))
    return True


def _attribute(node: onnx.NodeProto, name: str):
    return next((a for a in node.attribute if a.name == name), None)


def _set(node: onnx.NodeProto, name: str, value: object) -> bool:
    kept = [a for a in node.attribute if a.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])
    return True


def _changed(
    model: Model, name: str, rng: Rng, change: Callable[[np.ndarray], np.ndarray]
) -> bool:
    """Change one element of an initializer."""
    array = _array(model, name)
    if array is None or not array.size:
        return False
    k = int(rng.integers(array.size))
    flat = array.reshape(-1)
    new = np.asarray(change(flat[k : k + 1]), dtype=array.dtype)
    if np.array_equal(new, flat[k : k + 1]):
        return False
    flat[k : k + 1] = new
    return _store(model, name, array)


def _bypass(model: Model, node: onnx.NodeProto) -> bool:
    """Let the readers of a node read what it reads; an output keeps its name."""
    source, made = node.input[0], node.output[0]
    if any(o.name == made for o in model.graph.output):
        node.CopyFrom(helper.make_node("Identity", [source], [made], name=node.name))
        return True
    for other in model.graph.node:
        other.input[:] = [source if n == made else n for n in other.input]
    model.graph.node.remove(node)
    return True


def _ulp(rng: Rng) -> Callable[[np.ndarray], np.ndarray]:
    way = np.float32(rng.choice([-np.inf, np.inf]))
    return lambda v: np.nextafter(v.astype(np.float32), way)


# One function per kind of fault: it changes the model in place and says whether it could.


def zero_point(model: Model, rng: Rng) -> bool:
    node = _pick(rng, _nodes(model, "Quant", "QuantizeLinear"))
    return _changed(
        model, node.input[2], rng, lambda v: v + rng.choice([-1, 1]).astype(v.dtype)
    )


def rounding(model: Model, rng: Rng) -> bool:
    nodes = _nodes(model, "Quant", "Floor", "Ceil", "Round")
    node = _pick(rng, nodes)
    if node.op_type != "Quant":
        node.op_type = str(
            rng.choice([o for o in ("Floor", "Ceil", "Round") if o != node.op_type])
        )
        return True
    now = _attribute(node, "rounding_mode").s.decode()
    return _set(node, "rounding_mode", str(rng.choice([r for r in ROUNDINGS if r != now])))


def narrow(model: Model, rng: Rng) -> bool:
    node = _pick(rng, _nodes(model, "Quant"))
    return _set(node, "narrow", 1 - _attribute(node, "narrow").i)


def bits(model: Model, rng: Rng) -> bool:
    node = _pick(rng, _nodes(model, "Quant"))
    return _changed(
        model, node.input[3], rng, lambda v: v + (1 if v[0] <= 2 else rng.choice([-1, 1]))
    )


def signed(model: Model, rng: Rng) -> bool:
    node = _pick(rng, _nodes(model, "Quant"))
    return _set(node, "signed", 1 - _attribute(node, "signed").i)


def _plain_constants(model: Model) -> list[str]:
    operators = ("Quant", "BipolarQuant", "QuantizeLinear", "DequantizeLinear")
    scales = {name for node in _nodes(model, *operators) for name in node.input[1:]}
    names = [t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    return [n for n in names if n not in scales and not n.startswith("mask")]


def const_ulp(model: Model, rng: Rng) -> bool:
    name = _pick(rng, _plain_constants(model))
    return _changed(model, name, rng, _ulp(rng))


def scale_ulp(model: Model, rng: Rng) -> bool:
    node = _pick(rng, _nodes(model, "Quant", "BipolarQuant", "QuantizeLinear"))
    return _changed(model, node.input[1], rng, _ulp(rng))


def scale_value(model: Model, rng: Rng) -> bool:
    node = _pick(rng, _nodes(model, "Quant", "BipolarQuant", "QuantizeLinear"))
    factor = rng.choice([0.5, 2.0, 1 + 2.0**-10, 1.25])
    array = _array(model, node.input[1])
    return _store(model, node.input[1], (array * np.float32(factor)).astype(np.float32))


def _weight(model: Model, rng: Rng) -> str | None:
    return _pick(rng, [t.name for t in model.graph.initializer if t.name.startswith("w")])


def weight_lsb(model: Model, rng: Rng) -> bool:
    name = _weight(model, rng)
    array = _array(model, name)
    steps = np.diff(np.unique(np.abs(array)))
    step = steps[steps > 0].min() if np.any(steps > 0) else np.float32(1)
    return _changed(model, name, rng, lambda v: v + step * rng.choice([-1, 1]))


def weight_sign(model: Model, rng: Rng) -> bool:
    return _changed(model, _weight(model, rng), rng, lambda v: -v)


def relu_dropped(model: Model, rng: Rng) -> bool:
    return _bypass(model, _pick(rng, _nodes(model, "Relu")))


def clip(model: Model, rng: Rng) -> bool:
    node = _pick(rng, _nodes(model, "Clip"))
    name = node.input[int(rng.integers(1, 3))]
    array = _array(model, name)
    if array.dtype.kind in "iu":
        limits = np.iinfo(array.dtype)
        new = int(array) + int(rng.choice([-1, 1]))
        return limits.min <= new <= limits.max and _store(
            model, name, np.asarray(new, array.dtype)
        )
    factor = np.float32(rng.choice([0.5, 2.0, 1 + 2.0**-8]))
    return bool(array) and _store(model, name, np.asarray(array * factor, np.float32))


def attribute(model: Model, rng: Rng) -> bool:
    changes = {
        "alpha": lambda v: v * float(rng.choice([0.5, 2.0, 1.001])),
        "beta": lambda v: v + 0.125,
        "epsilon": lambda v: 1e-3,
        "count_include_pad": lambda v: 1 - v,
    }
    places = [(n, a.name) for n in model.graph.node for a in n.attribute if a.name in changes]
    node, name = _pick(rng, places) or (None, None)
    if node is None:
        return False
    return _set(node, name, changes[name](helper.get_attribute_value(_attribute(node, name))))


def axis(model: Model, rng: Rng) -> bool:
    node = _pick(rng, _nodes(model, "Transpose", "ReduceMean", "ReduceMax"))
    if node.op_type != "Transpose":
        node.op_type = "ReduceMax" if node.op_type == "ReduceMean" else "ReduceMean"
        return True
    made = {v.name: v for v in onnx.shape_inference.infer_shapes(model).graph.value_info}
    shapes = {**made, **{v.name: v for v in (*model.graph.input, *model.graph.output)}}
    sizes = [d.dim_value for d in shapes[node.input[0]].type.tensor_type.shape.dim]
    perm = list(_attribute(node, "perm").ints)
    same = [(i, j) for i in range(1, len(perm)) for j in range(1, i)
            if sizes[perm[i]] == sizes[perm[j]]]  # fmt: skip
    chosen = _pick(rng, same)
    if chosen is None:
        return False
    i, j = chosen
    perm[i], perm[j] = perm[j], perm[i]
    return _set(node, "perm", perm)


def concat(model: Model, rng: Rng) -> bool:
    node = _pick(rng, _nodes(model, "Concat"))
    if node.input[0] == node.input[1]:
        return False
    node.input[:] = list(node.input)[::-1]
    return True


def swapped_channels(model: Model, rng: Rng) -> bool:
    name = _weight(model, rng)
    array = _array(model, name)
    ends = [k for k in range(min(array.ndim, 2)) if array.shape[k] > 1]
    if not ends:
        return False
    along = int(rng.choice(ends))
    i, j = rng.choice(array.shape[along], size=2, replace=False)
    order = np.arange(array.shape[along])
    order[[i, j]] = order[[j, i]]
    new = np.take(array, order, axis=along)
    return not np.array_equal(new, array) and _store(model, name, new)


def channel_scale(model: Model, rng: Rng) -> bool:
    many = [n.input[1] for n in _nodes(model, "Quant") if _array(model, n.input[1]).size > 1]
    many += [t.name for t in model.graph.initializer if t.name.startswith(("k", "bn"))]
    name = _pick(rng, many)
    return name is not None and _changed(
        model, name, rng, lambda v: v * rng.choice([0.5, 2.0])
    )


def pads(model: Model, rng: Rng) -> bool:
    node = _pick(rng, _nodes(model, "Conv", "MaxPool", "AveragePool", "Pad"))
    if node.op_type == "Pad":
        array = _array(model, node.input[1])
        half = len(array) // 2
        new = np.concatenate([array[half:], array[:half]])
        return not np.array_equal(new, array) and _store(model, node.input[1], new)
    values = list(_attribute(node, "pads").ints)
    new = values[2:] + values[:2]
    return new != values and _set(node, "pads", new)


def mask(model: Model, rng: Rng) -> bool:
    name = _pick(rng, [t.name for t in model.graph.initializer if t.name.startswith("mask")])
    return _changed(model, name, rng, lambda v: v != 1 if v.dtype == bool else 1 - v)


def threshold(model: Model, rng: Rng) -> bool:
    node = _pick(rng, _nodes(model, "MultiThreshold"))
    change = _ulp(rng) if rng.random() < 0.5 else (lambda v: v * np.float32(1.5))
    return _changed(model, node.input[1], rng, change)


def opset(model: Model, rng: Rng) -> bool:
    model.opset_import[0].version = 13
    return True


@dataclass(frozen=True)
class Kind:
    """A kind of fault: how it is planted, and the step and forms it needs."""

    plant: Callable[[Model, Rng], bool]
    step: str
    forms: tuple[str, ...] = FORMS
    opset: int = 17


_QUANTS = ("qonnx", "qdq")

KINDS: dict[str, Kind] = {
    "zero_point": Kind(zero_point, "quant", _QUANTS),
    "rounding": Kind(rounding, "quant", ("qonnx", "float")),
    "narrow": Kind(narrow, "quant", ("qonnx",)),
    "bits": Kind(bits, "quant", ("qonnx",)),
    "const_ulp": Kind(const_ulp, "shift"),
    "scale_ulp": Kind(scale_ulp, "quant", _QUANTS),
    "scale": Kind(scale_value, "quant", _QUANTS),
    "weight_lsb": Kind(weight_lsb, "dense"),
    "weight_sign": Kind(weight_sign, "conv"),
    "relu": Kind(relu_dropped, "relu"),
    "clip": Kind(clip, "clip"),
    "signed": Kind(signed, "quant", ("qonnx",)),
    "attribute": Kind(attribute, "leaky"),
    "axis": Kind(axis, "mean"),
    "concat": Kind(concat, "join"),
    "swapped": Kind(swapped_channels, "dense"),
    "channel_scale": Kind(channel_scale, "norm"),
    "pads": Kind(pads, "pool"),
    "mask": Kind(mask, "mask"),
    "threshold": Kind(threshold, "thresholds", ("qonnx",)),
    "opset": Kind(opset, "softmax", _QUANTS, 12),
}
