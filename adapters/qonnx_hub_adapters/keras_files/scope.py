"""Nodes of one call of a layer, written with their types and shapes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx.defs
import onnx.shape_inference
import onnx_ir
from onnx import helper, numpy_helper
from onnx_ir import Graph, Node, Value

from qonnx_hub_adapters.keras_files.scales import quantized_weight
from qonnx_hub_adapters.qkeras import quantizers as qk
from qonnx_hub_adapters.qkeras.expansion import Writer, expand
from qonnx_hub_adapters.qkeras.weights import OffGridError, store
from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import SourceError
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.queries import dims
from qonnx_hub_ir.quantizers import Array, Quantizer

OPSET = 19
Operand = Value | Array | float | int | None


@dataclass(frozen=True, slots=True)
class PlainForm:
    """What may be written instead of a value, where ranges allow it.

    Attributes:
        scope: What writes it.
        read: What it is computed from.
        made: The value that is written without knowing ranges.
        holds: Whether the plain form is the same between a lowest and a highest value.
        write: Writes it, given a scope and what it reads.
    """

    scope: Scope
    read: Value
    made: Value
    holds: Callable[[Array, Array], bool]
    write: Callable[[Scope, Value], Value]


@dataclass(slots=True)
class Net:
    """A graph that is being written.

    Attributes:
        graph: The graph.
        generation: Of the Keras that wrote the file, 2 or 3.
        masks: Value -> which of its steps count, as Keras 2 hands on without a word.
        write: Writes a layer inside another: layer, weights, arguments, those by name, and
            what its name begins with.
        plain_forms: What may be said more plainly once ranges are known, in order.
    """

    graph: Graph
    generation: int
    masks: dict[Value, Value] = field(default_factory=dict)
    write: Callable[..., Any] = field(default=lambda *args: None)
    plain_forms: list[PlainForm] = field(default_factory=list)
    _weights: dict[tuple[str, str], Value] = field(default_factory=dict)

    def scope(self, name: str, call: int = 0) -> Scope:
        """Return what writes the nodes of a call of the layer ``name``, counted from 0."""
        return Scope(self, name, call)


class Scope:
    """Writes nodes at the end of a graph; they are called after the layer.

    Attributes:
        net: The whole net.
        name: Name of the layer.
    """

    def __init__(self, net: Net, name: str, call: int) -> None:
        self.net, self.name, self._call = net, name, call
        self._prefix = f"{name}_call_{call}" if call else name
        # The emitter writes in front of a node and names its own after it.
        self._mark = Node("", "Identity", [None], name=self._prefix)
        net.graph.append(self._mark)
        self.emit = Emitter(self._mark)

    def within(self, part: str) -> Scope:
        """Return what writes a part of this call: a direction, a projection."""
        return self.net.scope(f"{self.name}/{part}", self._call)

    def close(self) -> None:
        """Take the mark out; the nodes stay."""
        self.net.graph.remove(self._mark)

    def reopen(self) -> None:
        """Go on writing, at the end of the graph."""
        self.net.graph.append(self._mark)

    def fail(self, reason: str) -> SourceError:
        """Return the error that the layer cannot be converted."""
        return SourceError(f"layer '{self.name}': {reason}")

    def value(self, operand: Operand, label: str = "constant") -> Value | None:
        """Return an operand as a value; numbers become float32, whole arrays stay."""
        if operand is None or isinstance(operand, Value):
            return operand
        array = np.asarray(operand)
        if array.dtype == np.float64 or not isinstance(operand, np.ndarray):
            array = array.astype(np.float32)
        return self.emit.constant(label, array)

    def op(self, op_type: str, *operands: Operand, **attributes: Any) -> Value:
        """Return the first output of a new standard node."""
        return self.ops(op_type, operands, 1, **attributes)[0]

    def ops(
        self, op_type: str, operands: Sequence[Operand], outputs: int, **attributes: Any
    ) -> list[Value]:
        """Return the outputs of a new standard node, with types and shapes.

        Attributes that are ``None`` are left out.
        """
        inputs = [self.value(operand) for operand in operands]
        given = {key: value for key, value in attributes.items() if value is not None}
        self.emit._count += 1
        name = f"{self._prefix}_{op_type}_{self.emit._count - 1}"
        node = onnx_ir.node(op_type, inputs, given or None, name=name, num_outputs=outputs)
        for number, value in enumerate(node.outputs):
            value.name = f"{name}_out{number or ''}"
        _infer(node)
        self.emit.insert(node)
        return list(node.outputs)

    def floats(self, x: Value) -> Value:
        """Return a value in float32, as layers cast whole numbers that they are given."""
        is_whole = x.dtype is not None and not x.dtype.is_floating_point()
        return self.op("Cast", x, to=1) if is_whole else x

    def integers(self, numbers: Sequence[int], label: str = "sizes") -> Value:
        """Return int64 numbers: sizes, axes, pads."""
        return self.emit.integers(label, numbers)

    def reshape(self, x: Value, sizes: Sequence[int]) -> Value:
        """Return a value in another shape; 0 keeps a size, -1 is worked out."""
        return self.op("Reshape", x, self.integers(sizes, "shape"))

    def transpose(self, x: Value, perm: Sequence[int]) -> Value:
        """Return a value with its axes in another order."""
        if list(perm) == list(range(len(perm))):
            return x
        return self.op("Transpose", x, perm=list(perm))

    def shape(self, x: Value) -> list[int | None]:
        """Return the sizes of a value, ``None`` for open ones.

        Raises:
            SourceError: Not even the number of axes is known.
        """
        sizes = dims(x)
        if sizes is None:
            raise self.fail("the shape of its input is not known; give the input a shape")
        return [size if isinstance(size, int) else None for size in sizes]

    def known(self, x: Value, axis: int) -> int:
        """Return a size that must be known.

        Raises:
            SourceError: It is open.
        """
        size = self.shape(x)[axis]
        if size is None:
            raise self.fail(f"the size of axis {axis} of its input is open")
        return size

    def rank(self, x: Value) -> int:
        """Return the number of axes."""
        return len(self.shape(x))

    def weight(
        self,
        role: str,
        values: Array,
        quantizer: qk.Description | None = None,
        *,
        layout: Callable[[Array], Array] = lambda array: array,
    ) -> Value:
        """Return a weight, quantized by QKeras' rules where a quantizer is given.

        Args:
            role: What it is, for its name.
            values: As the file has it, float32.
            quantizer: What quantizes it.
            layout: Turns it, and scales of its rank, into the operator's order of axes.

        Raises:
            SourceError: The quantized values have no grid.
        """
        if quantizer is None:
            return self.stored(role, layout(values), None)
        given = np.asarray(values, dtype=np.float32)
        try:
            result, scale = quantized_weight(quantizer, given, self.net.generation)
            kept, grid = store(quantizer, given, result, scale)
        except (OffGridError, qk.UnreadableQuantizerError) as error:
            raise self.fail(f"its {role} cannot be stored: {error}") from error
        return self.stored(role, layout(kept), _turned(grid, kept, layout))

    def stored(self, role: str, values: Array, quantizer: Quantizer | None) -> Value:
        """Return stored values, once per layer and role, with the quantizer of their grid."""
        key = (self.name, role)
        if key in self.net._weights:
            return self.net._weights[key]
        label = f"{self.name}_{role}"
        array = np.ascontiguousarray(values, dtype=np.float32)
        value = dialect.add_initializer(self.net.graph, label, array)
        value.metadata_props[dialect.PROVENANCE] = label
        if quantizer is not None:
            node = dialect.quantizer_node(value, quantizer, f"{label}_quant", self.net.graph)
            value = self.emit.insert(node)
            value.metadata_props[dialect.PROVENANCE] = f"{label}_quant"
        self.net._weights[key] = value
        return value

    def quantize(
        self, x: Value, quantizer: qk.Description | None, name: str = "quantizer"
    ) -> Value:
        """Return an activation quantized as QKeras does.

        Args:
            x: The activation.
            quantizer: What quantizes it.
            name: Its class, for messages.

        Raises:
            SourceError: The quantizer has no fixed function.
        """
        if quantizer is None:
            return x
        write = Writer(self._mark)
        write.emit = self.emit
        try:
            y = expand(write, x, quantizer)
        except qk.UnreadableQuantizerError as error:
            raise self.fail(f"{name}: {error}") from error
        y.type, y.shape = x.type, x.shape
        return y


def _turned(
    grid: Quantizer | None, kept: Array, layout: Callable[[Array], Array]
) -> Quantizer | None:
    """Return a quantizer whose scale has the axes of the weight that was turned."""
    scale = getattr(grid, "scale", None)
    if grid is None or scale is None or scale.size == 1:
        return grid
    full = scale.reshape((1,) * (kept.ndim - scale.ndim) + scale.shape)
    return dataclasses.replace(
        grid, scale=_smallest(layout(np.broadcast_to(full, kept.shape)))
    )


def _smallest(values: Array) -> Array:
    """Return values with one element on every axis along which they are all equal."""
    for axis in range(values.ndim):
        first = np.take(values, [0], axis)
        if np.array_equal(np.broadcast_to(first, values.shape), values):
            values = first
    return np.ascontiguousarray(values)


_MOST_SCALES = 8
"""Floats that are looked at for sizes: one for each axis."""


def _infer(node: Node) -> None:
    """Give the outputs of a node their types and shapes, by ONNX's own inference."""
    proto = onnx.NodeProto(op_type=node.op_type)
    types, data = {}, {}
    for number, value in enumerate(node.inputs):
        name = "" if value is None else f"i{number}"
        proto.input.append(name)
        if value is None:
            continue
        if value.dtype is None:
            return
        sizes = dims(value)
        types[name] = helper.make_tensor_type_proto(int(value.dtype), sizes)
        known = dialect.constant_value(value)
        # Integers are shapes, axes and pads; few floats may be the scales of a Resize.
        if known is not None and (known.dtype.kind == "i" or known.size <= _MOST_SCALES):
            data[name] = numpy_helper.from_array(known, name)
    proto.output.extend(f"o{number}" for number in range(len(node.outputs)))
    for attr in node.attributes.values():
        if attr.type == onnx_ir.AttributeType.GRAPH:
            return
        proto.attribute.append(onnx_ir.serde.serialize_attribute(attr))
    schema = onnx.defs.get_schema(node.op_type, OPSET, "")
    imports = [helper.make_opsetid("", OPSET)]
    try:
        found = onnx.shape_inference.infer_node_outputs(
            schema, proto, types, data, opset_imports=imports
        )
    except (onnx.shape_inference.InferenceError, onnx.checker.ValidationError) as error:
        raise SourceError(f"'{node.name}': {' '.join(str(error).split())}") from error
    for number, value in enumerate(node.outputs):
        kind = found.get(f"o{number}")
        if kind is None or not kind.HasField("tensor_type"):
            continue
        tensor = kind.tensor_type
        value.type = onnx_ir.TensorType(onnx_ir.DataType(tensor.elem_type))
        if tensor.HasField("shape"):
            value.shape = onnx_ir.Shape(
                d.dim_value if d.HasField("dim_value") else (d.dim_param or None)
                for d in tensor.shape.dim
            )
