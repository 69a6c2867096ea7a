"""Rewrites that keep every output of a graph: what must never be called DIFFERENT."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper, numpy_helper

Rng = np.random.Generator


def renamed(model: onnx.ModelProto, rng: Rng) -> None:
    """Give every inner value another name."""
    kept = {v.name for v in (*model.graph.input, *model.graph.output)}

    def other(name: str) -> str:
        return name if name in kept or not name else f"other_{name}"

    for node in model.graph.node:
        node.name = other(node.name)
        node.input[:] = map(other, node.input)
        node.output[:] = map(other, node.output)
    for tensor in model.graph.initializer:
        tensor.name = other(tensor.name)


def _insert(model: onnx.ModelProto, rng: Rng, make: Callable[[str, str], list]) -> None:
    """Put nodes between an input of a node and what it read there."""
    codes = {o for n in model.graph.node if n.op_type == "QuantizeLinear" for o in n.output}
    data = {v.name for v in model.graph.input}
    for node in model.graph.node:
        codes |= (
            set(node.output) if node.op_type == "Clip" and node.input[0] in codes else set()
        )
        data |= set(node.output) - codes
    places = [
        (k, i)
        for k, node in enumerate(model.graph.node)
        for i, name in enumerate(node.input)
        if name in data
    ]
    k, i = places[rng.integers(len(places))]
    node = model.graph.node[k]
    added = make(node.input[i], "between")
    node.input[i] = "between"
    for one in reversed(added):
        model.graph.node.insert(k, one)


def identity(model: onnx.ModelProto, rng: Rng) -> None:
    """Insert an Identity."""
    _insert(model, rng, lambda x, y: [helper.make_node("Identity", [x], [y], name="extra")])


def negated_twice(model: onnx.ModelProto, rng: Rng) -> None:
    """Insert two Neg."""
    _insert(
        model,
        rng,
        lambda x, y: [
            helper.make_node("Neg", [x], [f"{y}_a"], name="extra_a"),
            helper.make_node("Neg", [f"{y}_a"], [y], name="extra_b"),
        ],
    )


def relu_twice(model: onnx.ModelProto, rng: Rng) -> None:
    """Put a second Relu behind the first, or an Identity where there is none."""
    relus = [n for n in model.graph.node if n.op_type == "Relu"]
    if not relus:
        return identity(model, rng)
    node = relus[rng.integers(len(relus))]
    made, place = node.output[0], list(model.graph.node).index(node)
    node.output[0] = f"{made}_once"
    model.graph.node.insert(
        place + 1, helper.make_node("Relu", [f"{made}_once"], [made], name="extra")
    )
    return None


def constant_nodes(model: onnx.ModelProto, rng: Rng) -> None:
    """Store initializers as Constant nodes."""
    for tensor in list(model.graph.initializer):
        node = helper.make_node("Constant", [], [tensor.name], name=f"make_{tensor.name}")
        node.attribute.append(helper.make_attribute("value", tensor))
        model.graph.node.insert(0, node)
    del model.graph.initializer[:]


def _is_plain_byte(node: onnx.NodeProto, arrays: dict[str, np.ndarray]) -> bool:
    """Return whether a node is what QuantizeLinear and DequantizeLinear say as well."""
    if node.op_type != "Quant" or node.input[0] in arrays:
        return False
    scale, zero, bits = (arrays[name] for name in node.input[1:])
    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    plain = not found["narrow"] and found["rounding_mode"] == b"ROUND"
    return bool(plain and scale.size == 1 and not np.any(zero) and bits == 8)


def linear_spelling(model: onnx.ModelProto, rng: Rng) -> None:
    """Spell 8-bit quantizers without zero point as QuantizeLinear, DequantizeLinear."""
    arrays = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    fitting = [n for n in model.graph.node if _is_plain_byte(n, arrays)]
    if not fitting:
        return renamed(model, rng)
    for node in fitting:
        signed = next(a.i for a in node.attribute if a.name == "signed")
        x, y, place = node.input[0], node.output[0], list(model.graph.node).index(node)
        zero = np.zeros((), dtype=np.int8 if signed else np.uint8)
        stem, scale = f"{node.name}_l", arrays[node.input[1]].reshape(())
        model.graph.initializer.append(numpy_helper.from_array(zero, f"{stem}z"))
        model.graph.initializer.append(numpy_helper.from_array(scale, f"{stem}s"))
        model.graph.node.remove(node)
        for k, (operator, a, b) in enumerate(
            (("QuantizeLinear", x, f"{stem}q"), ("DequantizeLinear", f"{stem}q", y))
        ):
            model.graph.node.insert(
                place + k,
                helper.make_node(
                    operator, [a, f"{stem}s", f"{stem}z"], [b], name=f"{stem}{k}"
                ),
            )
    return None


EQUALITIES: dict[str, Callable[[onnx.ModelProto, Rng], None]] = {
    "renamed": renamed,
    "identity": identity,
    "negated_twice": negated_twice,
    "relu_twice": relu_twice,
    "constant_nodes": constant_nodes,
    "linear_spelling": linear_spelling,
}
