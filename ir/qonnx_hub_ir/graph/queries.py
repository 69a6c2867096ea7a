"""Questions about nodes and values; the answer to what is not known is ``None``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from onnx_ir import Graph, Model, Node, SymbolicDim, Value

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.constants import constant_shape
from qonnx_hub_ir.graph.subgraphs import nodes_within
from qonnx_hub_ir.quantizers import Array, BipolarQuant, IntQuant

Dims = tuple[int | str | None, ...]
"""Sizes: numbers, names of symbolic sizes, ``None`` where nothing is known."""


def attribute(node: Node, name: str, default: Any) -> Any:
    """Return the value of an attribute, or the default where the node does not have it."""
    found = node.attributes.get(name)
    return default if found is None else found.value


def is_standard(node: Node, *operators: str) -> bool:
    """Return whether the node is one of these standard operators."""
    return node.domain == "" and node.op_type in operators


def input_of(node: Node, index: int) -> Value | None:
    """Return an input; ``None`` where it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def selected(
    graph: Graph, test: Callable[[Node], bool], only: Sequence[str] | None
) -> list[Node]:
    """Return the nodes that pass a test, and bear one of the names where any are given."""
    return [node for node in graph if test(node) and (only is None or node.name in only)]


def producer(value: Value | None) -> Node | None:
    """Return the node that makes a value."""
    return None if value is None else value.producer()


def readers(value: Value) -> list[Node]:
    """Return the nodes that read a value, once per use."""
    return [use.node for use in value.uses()]


def only_reader(value: Value) -> bool:
    """Return whether a value has one use, and is no graph output."""
    return len(value.uses()) == 1 and not value.is_graph_output()


def is_read(value: Value) -> bool:
    """Return whether a node reads a value, or it is a graph output."""
    return bool(value.uses()) or value.is_graph_output()


def dims(value: Value | None) -> Dims | None:
    """Return the sizes of a value; ``None`` where not even the rank is known."""
    if value is None or value.shape is None:
        return None
    return tuple(d.value if isinstance(d, SymbolicDim) else d for d in value.shape)


def zeros_of(value: Value, open_size: int = 1) -> Array:
    """Return zeros of the shape and type that a value states, float32 where it states none.

    Args:
        value: The value.
        open_size: The length of axes whose length is not known.
    """
    sizes = [size if isinstance(size, int) else open_size for size in dims(value) or ()]
    return np.zeros(sizes, dtype=np.float32 if value.dtype is None else value.dtype.numpy())


def may_be_float(value: Value) -> bool:
    """Return whether a value holds floats, or nothing says what it holds."""
    return value.dtype is None or value.dtype.is_floating_point()


def element_count(sizes: Dims) -> int | None:
    """Return the product of sizes; ``None`` where one of them is not a number."""
    numbers = [size for size in sizes if isinstance(size, int)]
    return math.prod(numbers) if len(numbers) == len(sizes) else None


def rank_of(value: Value | None) -> int | None:
    """Return how many axes a value has: of a constant, of a quantized one, or as stated."""
    shape = constant_shape(value)
    sizes = dims(value) if shape is None else shape
    return None if sizes is None else len(sizes)


def spatial_rank(node: Node) -> int | None:
    """Return the rank of what a window operator reads, batch and channels included."""
    if operators.is_convolution(node, any_layout=True):
        known = rank_of(node.inputs[1])
        if known is not None:
            return known
    kernel = attribute(node, "kernel_shape", None)
    if kernel is not None:
        return len(kernel) + 2
    return rank_of(node.inputs[0]) or rank_of(node.outputs[0])


def weight_axes(node: Node) -> tuple[int, int] | None:
    """Return the axes of a layer's weight along its output and its input channels.

    An axis counts from the end where it is negative; ``None`` for what is no layer.
    """
    if node.op_type == "Conv" and node.domain == dialect.CHANNELS_LAST_DOMAIN:
        return (0, -1)
    if is_standard(node, "Gemm"):
        return (0, 1) if attribute(node, "transB", 0) else (1, 0)
    return _WEIGHT_AXES.get(node.op_type) if node.domain == "" else None


_WEIGHT_AXES = {"Conv": (0, 1), "ConvTranspose": (1, 0), "MatMul": (-1, -2)}


def fits_into(shape: tuple[int, ...], target: Dims | None) -> bool:
    """Return whether broadcasting with ``shape`` leaves the target's shape as it is."""
    if not shape:
        return True
    if target is None or len(shape) > len(target):
        return False
    pairs = zip(shape, target[len(target) - len(shape) :], strict=True)
    return all(own in (1, size) for own, size in pairs)


def quantizers(model: Model) -> Iterator[Node]:
    """Give the quantizer nodes of the main graph, in order."""
    return (node for node in model.graph if dialect.is_quantizer(node))


def every_quantizer(model: Model) -> list[Node]:
    """Return the quantizer nodes of the main graph and the bodies inside it, in order."""
    return [node for node in nodes_within(model.graph) if dialect.is_quantizer(node)]


def by_operator(nodes: Iterable[Node]) -> dict[str, list[Node]]:
    """Return nodes by the name of their operator, in order."""
    found: dict[str, list[Node]] = {}
    for node in nodes:
        found.setdefault(node.op_type, []).append(node)
    return found


def known(node: Node) -> IntQuant | BipolarQuant | None:
    """Return an integer or bipolar quantizer whose parameters are all constant."""
    quant = dialect.read_quantizer(node)
    if not isinstance(quant, (IntQuant, BipolarQuant)):
        return None
    return None if any(p is None for p in dialect.parameters(quant)) else quant


def array(values: Any) -> Array:
    """Return a quantizer's parameter as float64."""
    return np.asarray(values, dtype=np.float64)


def is_constant(value: Value | None) -> bool:
    """Return whether a value is an initializer, or one quantized, moved or reshaped."""
    while value is not None:
        if dialect.constant_tensor(value) is not None:
            return True
        node = value.producer()
        if node is None or not (dialect.is_quantizer(node) or operators.moves_axes(node)):
            return False
        value = node.inputs[0]
    return False


def is_weight(node: Node) -> bool:
    """Return whether a quantizer's data is constant."""
    return is_constant(node.inputs[0])


def made_of_sizes(model: Model) -> set[Value]:
    """Return the values that depend on nothing but known sizes: any cleanup folds them."""
    made: set[Value] = set()
    for node in model.graph:
        inputs = [value for value in node.inputs if value is not None]
        if node.op_type == "Shape":
            sizes = dims(inputs[0])
            ready = sizes is not None and all(isinstance(size, int) for size in sizes)
        else:
            ready = any(value in made for value in inputs) and all(
                value in made or dialect.constant_tensor(value) is not None for value in inputs
            )
        if ready:
            made.update(node.outputs)
    return made
