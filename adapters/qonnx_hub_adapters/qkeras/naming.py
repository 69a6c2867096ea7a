"""Stable names: every node and value is named after its Keras layer.

tf2onnx numbers its nodes by a counter of the whole process, so that the same model would come
out under other names each time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import onnx_ir
from onnx_ir import Graph, Model, Node, Value

from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.names import free_name, rename_values
from qonnx_hub_ir.passes import InferShapes

BATCH = "batch"
"""Name of the open first axis of every input."""


def names_of_ends(nested: Mapping[str, Any]) -> list[str]:
    """Return the names of a dict of inputs or outputs: a key for each tensor, in its order.

    Args:
        nested: Tensors, or lists of them, by key; Keras flattens a dict by sorted keys.

    Example:
        >>> names_of_ends({"right": "tensor", "left": ["tensor", "tensor"]})
        ['left', 'left', 'right']
    """
    return [str(key) for key in sorted(nested) for _ in range(_count(nested[key]))]


def _count(nested: Any) -> int:
    if isinstance(nested, (list, tuple)):
        return sum(_count(one) for one in nested)
    return sum(_count(one) for one in nested.values()) if isinstance(nested, Mapping) else 1


def name_axes(model: Model) -> None:
    """Name the open axes of the inputs, and infer the shapes of all values anew."""
    for value in model.graph.inputs:
        if value.shape is None:
            continue
        names = [BATCH, *(f"{value.name}_{axis}" for axis in range(1, len(value.shape)))]
        sizes = zip(value.shape, names, strict=False)
        value.shape = onnx_ir.Shape([n if isinstance(n, int) else name for n, name in sizes])
    for node in model.graph.all_nodes():
        for value in node.outputs:
            value.shape = None
    InferShapes()(model)


def name_values(model: Model, layers: Collection[str], *, numbered: bool) -> None:
    """Name nodes "layer/Operator", their values after them, and set the provenance of each.

    The last value of a layer has the layer's name as provenance, every other value its own
    name. Inputs, outputs and weights keep their names.

    Args:
        model: The model, names from tf2onnx.
        layers: Names of the model's layers.
        numbered: Whether scopes are named after the layer and the count of its use, as Keras
            3 does ("dense_1" is the first use of "dense", not the layer "dense_1").
    """
    graph = model.graph
    kept = {str(value.name) for value in (*graph.inputs, *graph.outputs)}
    owners = _owners(graph, frozenset(layers), numbered)
    weights = {
        str(value.name)
        for value in graph.initializers.values()
        if dialect.PROVENANCE in value.metadata_props
    }
    _name_nodes(graph, owners, kept)
    results = [
        (value, f"{node.name}_out{number or ''}")
        for node in graph.all_nodes()
        for number, value in enumerate(node.outputs)
        if value.name and value.name not in kept
    ]
    rename_values(model, [*results, *_constant_names(graph, weights | kept)])
    last = {
        owners[node]: node
        for node in graph
        if owners.get(node) and not str(node.name).endswith(_WEIGHT_TAILS)
    }
    for node in graph.all_nodes():
        for value in node.outputs:
            is_last = last.get(owners.get(node, "")) is node
            value.metadata_props[dialect.PROVENANCE] = (
                owners[node] if is_last else str(value.name)
            )


_WEIGHT_TAILS = ("/kernel_quant", "/bias_quant", "/depthwise_quant", "/pointwise_quant")


def _owners(graph: Graph, layers: frozenset[str], numbered: bool) -> dict[Node, str]:
    """Return the layer of each node; "" where it is not known."""
    owners: dict[Node, str] = {}
    for node in graph.all_nodes():
        if dialect.is_quantizer(node):  # named by us: "layer/role"
            owners[node] = str(node.name).partition("/")[0]
            continue
        owners[node] = _layer_in(str(node.name), layers, numbered)
        if not owners[node]:
            # tf2onnx fused or made the node: it belongs to the layer it reads.
            sources = [value for value in node.inputs if value is not None]
            names = [str(v.name).partition("/")[0] for v in sources if v.is_initializer()]
            names = [name for name in names if name in layers]
            made = [owners.get(p, "") for v in reversed(sources) if (p := v.producer())]
            owners[node] = next((name for name in (*names, *made) if name), "")
    return owners


def _layer_in(name: str, layers: frozenset[str], numbered: bool) -> str:
    """Return the innermost layer that a path of TensorFlow names, or ""."""
    for part in reversed(name.partition("__")[0].split("/")):
        stem = part.rstrip("0123456789").removesuffix("_")
        tried = (stem, part) if numbered else (part, stem)
        found = next((one for one in tried if one in layers), "")
        if found:
            return found
    return ""


def _name_nodes(graph: Graph, owners: dict[Node, str], kept: Collection[str]) -> None:
    used: set[str] = set(kept)
    for node in graph.all_nodes():
        owner = owners[node]
        own = dialect.is_quantizer(node) and str(node.name).startswith(f"{owner}/")
        stem = str(node.name) if own else f"{owner or 'model'}/{node.op_type}"
        node.name = free_name(stem, used)


def _constant_names(graph: Graph, kept: Collection[str]) -> list[tuple[Value, str]]:
    """Return a name for every constant that is no weight: after its first reader."""
    taken = {str(value.name) for value in graph.inputs} | set(kept)
    values: list[tuple[Value, str]] = []
    for value in graph.initializers.values():
        uses = [use for use in value.uses() if use.node.graph]
        if value.name in kept or not uses:
            continue
        first = min(uses, key=lambda use: (str(use.node.name), use.idx))
        label = f"input{first.idx}"
        if dialect.is_quantizer(first.node):
            label = dialect.input_names(first.node)[first.idx].replace(" ", "_")
        values.append((value, free_name(f"{first.node.name}_{label}", taken)))
    return values
