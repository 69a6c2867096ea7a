"""Nodes and constants written into a graph: the one way to do it, with names from one stem."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Graph, Node, Value

from qonnx_hub_ir import dialect
from qonnx_hub_ir.annotations import carry, permute_layout
from qonnx_hub_ir.graph.constants import without_extra_axes
from qonnx_hub_ir.graph.rewriting import replace_node
from qonnx_hub_ir.quantizers import Array, Quantizer


def copy_node(node: Node, inputs: Iterable[Value | None], *, name: str) -> Node:
    """Return a node like another one, not inserted, with inputs and a name of its own.

    Operator, domain, overload and attributes are the other's. Its single output is called
    ``name + "_out0"``; type, shape, metadata (provenance among it) and annotations are the
    other's.
    """
    copy = Node(
        node.domain,
        node.op_type,
        tuple(inputs),
        tuple(node.attributes.values()),
        overload=node.overload,
        num_outputs=1,
        name=name,
    )
    out, old = copy.outputs[0], node.outputs[0]
    out.name, out.type, out.shape = f"{name}_out0", old.type, old.shape
    out.metadata_props.update(old.metadata_props)
    carry(old, out)
    return copy


def transpose_node(value: Value, perm: tuple[int, ...], name: str) -> Node:
    """Return a new Transpose of a value, not inserted; its output is called after it."""
    node = onnx_ir.node("Transpose", [value], {"perm": perm}, name=name)
    node.outputs[0].name = f"{name}_out"
    node.outputs[0].type = value.type
    carry(value, node.outputs[0])
    permute_layout(node.outputs[0], perm)
    return node


def set_constant(graph: Graph, node: Node, index: int, array: Array, name: str) -> None:
    """Give a node a new initializer, under that name if it is free, as an input."""
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, dialect.add_initializer(graph, name, array))


class Emitter:
    """Writes nodes in front of one node, and can put their result in its place.

    Names derive from the node's, so that the same input gives the same file. Constants go to
    the graph that holds the node, which may be the body of an If or a Loop.

    Attributes:
        node: The node.
        graph: The graph that it is in.
    """

    def __init__(self, node: Node) -> None:
        """Take a node of a graph.

        Raises:
            ValueError: The node is in no graph.
        """
        graph = node.graph
        if graph is None:
            raise ValueError(f"'{node.name}' is in no graph")
        self.graph: Graph = graph if isinstance(graph, Graph) else graph.graph
        self.node = node
        self._count = 0
        self._quantizers = 0
        self._constants: dict[tuple[str, str, tuple[int, ...], bytes], Value] = {}

    def constant(self, label: str, array: Array) -> Value:
        """Return an initializer named after the node and ``label``; equal ones are one."""
        key = (label, array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = f"{self.node.name}_{label}"
            self._constants[key] = dialect.add_initializer(self.graph, name, array)
        return self._constants[key]

    def integers(self, label: str, numbers: Iterable[int]) -> Value:
        """Return an int64 initializer: axes, sizes, pads."""
        return self.constant(label, np.array(list(numbers), dtype=np.int64))

    def tensor(self, label: str, tensor: onnx_ir.TensorProtocol) -> Value:
        """Return a new initializer that holds a tensor, which may be computed late."""
        return dialect.register_tensor(self.graph, f"{self.node.name}_{label}", tensor)

    def add(
        self,
        op_type: str,
        inputs: Sequence[Value | None],
        like: Value | None = None,
        /,
        **attributes: Any,
    ) -> Value:
        """Return the output of a new standard node in front of the emitter's.

        Args:
            op_type: The operator.
            inputs: What it reads.
            like: A value whose type and shape the output has.
            **attributes: Its attributes.
        """
        name = f"{self.node.name}_{op_type}_{self._count}"
        self._count += 1
        return self._add(onnx_ir.node(op_type, inputs, attributes or None, name=name), like)

    def custom(
        self, op_type: str, inputs: Sequence[Value | None], attributes: Mapping[str, Any]
    ) -> Value:
        """Return the output of a new node of the quantizers' domain; see :meth:`add`."""
        name, domain = f"{self.node.name}_{op_type}", dialect.DOMAIN
        fresh = onnx_ir.node(op_type, inputs, attributes, domain=domain, name=name)
        return self._add(fresh, inputs[0])

    def _add(self, node: Node, like: Value | None) -> Value:
        out = node.outputs[0]
        out.name = f"{node.name}_out"
        if like is not None:
            out.type, out.shape = like.type, like.shape
        return self.insert(node)

    def insert(self, node: Node) -> Value:
        """Put a node in front of the emitter's; return its first output."""
        self.node.prepend(node)
        return node.outputs[0]

    def quantizer(
        self,
        x: Value,
        quant: Quantizer,
        *,
        name: str | None = None,
        dynamic: Mapping[int, Value] = {},
    ) -> Value:
        """Return the output of a new quantizer node, typed and shaped like ``x``.

        Args:
            x: What it quantizes.
            quant: What it says.
            name: Its name, and prefix of its parameters' names; ``NODE_quant`` by default.
            dynamic: Input position -> value, for parameters computed at run time.
        """
        if name is None:
            number = f"_{self._quantizers}" if self._quantizers else ""
            self._quantizers += 1
            name = f"{self.node.name}_quant{number}"
        return self.insert(dialect.quantizer_node(x, quant, name, self.graph, dynamic))

    def scaled(
        self, levels: Value, scale: Array | None, zero: Array | None, like: Value | None = None
    ) -> Value:
        """Return ``(levels - zero) * scale``, without operators that would do nothing.

        Args:
            levels: Codes, or anything else.
            scale: A quantizer's scale; ``None`` for 1.
            zero: Its zero point; ``None`` for 0.
            like: A value whose type and shape the difference has.
        """
        if zero is not None and np.any(zero):
            offset = self.constant("zero_point", without_extra_axes(zero))
            levels = self.add("Sub", [levels, offset], like)
        if scale is not None and np.any(scale != 1):
            factor = self.constant("scale", without_extra_axes(scale))
            levels = self.add("Mul", [levels, factor])
        return levels

    def replace_with(self, value: Value) -> None:
        """Put ``value`` in the place of the node; see :func:`rewriting.replace_node`."""
        replace_node(self.node, value)
