"""The net that a changed model stands for: its numbers and names in the net that was read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir
from onnx_ir import Model, Node, Value

from qonnx_hub_adapters.tflite.float_form import Source
from qonnx_hub_adapters.tflite.net import CodeGrid, NetTensor, TfliteNet
from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.queries import is_weight
from qonnx_hub_ir.quantizers import Array, IntQuant
from qonnx_hub_ir.semantics import quantize_to_integers

ReadModel = Callable[[TfliteNet], tuple[Model, Mapping[str, Source]]]
"""Gives the model that is read of a net, and which of its values stand for which tensors."""


@dataclass(frozen=True, slots=True, eq=False)
class Edit:
    """A constant that has other numbers in one model than in the other.

    Attributes:
        before: The node that reads it, as the net's model has it.
        after: The same node of the changed model.
        index: Which of their inputs it is.
    """

    before: Node
    after: Node
    index: int


def edited_net(model: Model, net: TfliteNet, read: ReadModel) -> TfliteNet | None:
    """Return the net that a changed model stands for; ``None`` where its nodes are others.

    Numbers of weights, biases and grids, and names, are put into the net. What is read of that
    must be the changed model again, in every node and number: so a scale that the sums of a
    layer do not have any more, or a weight off its grid, is never taken for the net's.
    """
    original, sources = read(net)
    edits = _edits(original, model)
    if edits is None:
        return None
    tensors = list(net.tensors)
    for edit in edits:
        if not _apply(edit, sources, tensors):
            return None
    made = replace(
        net,
        tensors=tuple(tensors),
        input_names=tuple(str(value.name) for value in model.graph.inputs),
        output_names=tuple(str(value.name) for value in model.graph.outputs),
    )
    return made if _edits(read(made)[0], model) == [] else None


def _edits(before: Model, after: Model) -> list[Edit] | None:
    """Return the constants in which two models differ; ``None`` where more does."""
    nodes, others = list(before.graph), list(after.graph)
    pairs = dict(zip(before.graph.inputs, after.graph.inputs, strict=False))
    if len(nodes) != len(others) or not _same_ends(before, after):
        return None
    found: list[Edit] = []
    for node, other in zip(nodes, others, strict=True):
        if not _same_operator(node, other):
            return None
        for index, (value, its) in enumerate(zip(node.inputs, other.inputs, strict=True)):
            if value is None or its is None:
                if value is not its:
                    return None
                continue
            if value in pairs:
                if pairs[value] is not its:
                    return None
                continue
            numbers, others_numbers = map(dialect.constant_value, (value, its))
            if numbers is None or others_numbers is None:
                return None
            if numbers.shape != others_numbers.shape or numbers.dtype != others_numbers.dtype:
                return None
            if not np.array_equal(
                numbers, others_numbers, equal_nan=numbers.dtype.kind == "f"
            ):
                found.append(Edit(node, other, index))
        pairs |= dict(zip(node.outputs, other.outputs, strict=True))
    ends = zip(before.graph.outputs, after.graph.outputs, strict=True)
    if any(pairs.get(value) is not its for value, its in ends):
        return None
    return [edit for edit in found if not _makes_equal_codes(edit)]


def _same_ends(before: Model, after: Model) -> bool:
    """Return whether inputs and outputs have the same types and sizes."""

    def ends(model: Model) -> list[tuple[object, object]]:
        values = (*model.graph.inputs, *model.graph.outputs)
        return [(value.dtype, value.shape) for value in values]

    counts = len(before.graph.inputs) == len(after.graph.inputs)
    return counts and ends(before) == ends(after)


def _same_operator(node: Node, other: Node) -> bool:
    if (node.domain, node.op_type) != (other.domain, other.op_type):
        return False
    if len(node.inputs) != len(other.inputs) or len(node.outputs) != len(other.outputs):
        return False
    first, second = (
        sorted(a.SerializeToString(deterministic=True) for a in onnx_ir.to_proto(n).attribute)
        for n in (node, other)
    )
    return first == second


def _makes_equal_codes(edit: Edit) -> bool:
    """Return whether constants differ that one quantizer brings to equal codes."""
    if edit.index or not (dialect.is_quantizer(edit.before) and is_weight(edit.before)):
        return False
    first, second = _codes(edit.before), _codes(edit.after)
    return first is not None and second is not None and np.array_equal(first, second)


def _codes(node: Node) -> Array | None:
    quant, data = dialect.read_quantizer(node), dialect.constant_value(node.inputs[0])
    if not isinstance(quant, IntQuant) or quant.scale is None or data is None:
        return None
    return quantize_to_integers(data, quant).astype(np.int64)


def _apply(edit: Edit, sources: Mapping[str, Source], tensors: list[NetTensor]) -> bool:
    """Put a constant into the tensor that it stands for; return whether that could be done."""
    value: Value | None = edit.before.inputs[edit.index]
    numbers = dialect.constant_value(edit.after.inputs[edit.index])
    source = sources.get("" if value is None else str(value.name))
    is_plain = source is not None
    source = source or sources.get(str(edit.before.outputs[0].name))
    if source is None or numbers is None or source.tensor >= len(tensors):
        return False
    tensor = tensors[source.tensor]
    grid = tensor.grid
    if edit.index == 0 or is_plain:
        data = numbers if is_plain else _codes(edit.after)
        if data is None or tensor.data is None:
            return False
        if source.order:
            data = data.transpose(np.argsort(source.order))
        if data.shape != tensor.data.shape:
            return False
        tensors[source.tensor] = replace(tensor, data=data.astype(tensor.data.dtype))
        return True
    flat = numbers.reshape(-1)
    if grid is None or edit.index > 2 or flat.size not in (1, grid.scale.size):
        return False
    flat = np.broadcast_to(flat, grid.scale.shape)
    scale, zero = (flat, grid.zero) if edit.index == 1 else (grid.scale, np.rint(flat))
    made = CodeGrid(scale.astype(np.float32), zero.astype(np.int64), grid.axis)
    tensors[source.tensor] = replace(tensor, grid=made)
    return True
