"""How many samples a model takes at once."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir
from onnx_ir import Graph, Model, Node, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.effects import Effect
from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.graph.builder import set_constant
from qonnx_hub_ir.graph.constants import drop_unread, known_integers, read_initializers
from qonnx_hub_ir.graph.queries import Dims, attribute, dims, element_count
from qonnx_hub_ir.operators import Batch
from qonnx_hub_ir.passes.shapes.infer_shapes import InferShapes

_PROBES = (7919, 104729)
"""Batches that stand for any: an axis as long as either of these primes is the batch."""

_TARGETS = {"Reshape": 1, "Expand": 1, "Resize": 3}
"""Operators with a shape among their inputs -> its position."""


@dataclass(frozen=True)
class ChangeBatch(InPlacePass):
    """Change the number of samples that a model takes at once, to a number or a symbol.

    Before -> after (batch 4)::

        x[1, 1, 28, 28];  y = Reshape(x, [1, 784])
        x[4, 1, 28, 28];  y = Reshape(x, [0, 784])

    The first axis of all inputs is the batch. A Reshape to the old batch, or to -1 in its
    place, copies that axis instead (0), an Expand leaves it, a Resize to given sizes gets the
    new number. That samples stay apart is found by trying two large primes in its
    place: the first axis of every output must come out as either. Each sample's answer
    is what it was, up to the order in which a matrix product of another height is summed.

    Does not fire where the batch is that already.

    Attributes:
        batch: The number, from 1 on, or the name of a symbol.

    Raises:
        PassError: Inputs disagree on the batch or have none, an operator mixes samples, or the
            batch is written where it cannot be changed; the message names the node. The model
            is left as it was.
    """

    effect = Effect.SIGNATURE

    batch: int | str

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        if isinstance(self.batch, int) and self.batch < 1:
            raise PassError(f"the batch is a number from 1 on or a name, not {self.batch}")
        old = _batch_of(model)
        if old == self.batch:
            return PassResult(model, modified=False)
        for size in _PROBES:
            probe = model.clone()
            _change(probe, old, self.batch, size)
            _require_apart(probe, size)
        known = self.batch if isinstance(self.batch, int) else _PROBES[0]
        _change(model, old, self.batch, known)
        _name_axes(model, known, self.batch)
        return PassResult(model, modified=True)


def _batch_of(model: Model) -> int | str | None:
    """Return the first axis that all inputs share; ``None`` where it is open."""
    found: dict[int | str | None, str] = {}
    for value in model.graph.inputs:
        known = dims(value)
        if not known:
            raise PassError(f"input '{value.name}' has no first axis, or an unknown rank")
        found.setdefault(known[0], str(value.name))
    if len(found) != 1:
        listed = ", ".join(f"{size} of '{name}'" for size, name in found.items())
        raise PassError(f"the inputs do not share one batch: {listed or 'there are none'}")
    return next(iter(found))


def _change(model: Model, old: int | str | None, new: int | str, size: int) -> None:
    """Write a new batch wherever the old one is written, and infer shapes for some size."""
    graph = model.graph
    read = read_initializers(graph)
    for node in list(graph):
        _change_target(graph, node, old, new, size)
    drop_unread(graph, read)
    kept = {value: dims(value) for node in graph for value in node.outputs}
    for value in kept:
        value.shape = None
    for value in graph.inputs:
        value.shape = onnx_ir.Shape([size, *(dims(value) or ())[1:]])
    try:
        InferShapes()(model)
    except PassError as error:
        raise PassError(f"the batch cannot be changed to {new}: {error}") from error
    for value, before in kept.items():
        if value.shape is None and before:
            # Inference knows nothing of this operator; what was batch is so still.
            first = size if before[0] == old else before[0]
            value.shape = onnx_ir.Shape([first, *before[1:]])


def _name_axes(model: Model, size: int, new: int | str) -> None:
    """Write the new batch into the shapes that were inferred for another size."""
    if isinstance(new, int):
        return
    graph = model.graph
    for value in (*graph.inputs, *(v for node in graph for v in node.outputs)):
        sizes = dims(value)
        if sizes is not None:
            # A multiple of the batch has no name.
            batch = {
                axis: new if axis == size else None for axis in sizes if _is_batch(axis, size)
            }
            value.shape = onnx_ir.Shape([batch.get(axis, axis) for axis in sizes])


def _change_target(
    graph: Graph, node: Node, old: int | str | None, new: int | str, size: int
) -> None:
    """Change a constant shape in which the batch is written."""
    position = _TARGETS.get(node.op_type)
    if node.domain != "" or position is None or len(node.inputs) <= position:
        return
    target = dialect.constant_value(node.inputs[position])
    source, made = dims(node.inputs[0]), dims(node.outputs[0])
    if target is None or target.size == 0 or dialect.constant_tensor(node.inputs[0]):
        return
    changed = np.array(target, dtype=np.int64)
    if node.op_type == "Reshape":
        if not _keeps_first_axis(source, made, target, old):
            return
        if attribute(node, "allowzero", 0):
            if 0 in target:
                return
            # Without zeros it says nothing; it would give the zero written here a meaning.
            del node.attributes["allowzero"]
        changed[0] = 0
    elif int(target[0]) != old or attribute(node, "axes", None) is not None:
        return
    elif node.op_type == "Expand":
        if not source or len(source) != target.size or source[0] != old:
            return
        changed[0] = 1
    elif isinstance(new, int):
        changed[0] = size
    else:
        # A symbol cannot stand among sizes: the batch is lost here, and the pass refuses.
        return
    if np.array_equal(changed, target):
        return
    set_constant(graph, node, position, changed, f"{node.name}_any_batch")


def _keeps_first_axis(
    source: Dims | None, made: Dims | None, target: np.ndarray, old: int | str | None
) -> bool:
    """Return whether a Reshape only rearranges what is behind the first axis."""
    if not source or source[0] != old or int(target[0]) == 0:
        return False
    if isinstance(old, int):
        becomes = made[0] if made else None
        return int(target[0]) == old or (int(target[0]) == -1 and becomes == old)
    rest = [int(size) for size in target[1:]]
    if int(target[0]) != -1 or min(rest, default=1) < 1:
        return False
    return element_count(source[1:]) == math.prod(rest)


def _require_apart(probe: Model, size: int) -> None:
    """Raise unless the first axis of every output is the batch that was tried."""
    # Values that depend on an input other than through a shape.
    carried: set[Value | None] = set(probe.graph.inputs)
    for node in probe.graph:
        if not operators.reads_shape_only(node) and any(v in carried for v in node.inputs):
            carried.update(node.outputs)
    carried.discard(None)
    for node in probe.graph:
        for reason in _mixes(node, carried, size):
            raise PassError(f"{node.op_type} '{node.name}' {reason}")
    for value in probe.graph.outputs:
        if value in carried and (dims(value) or (None,))[0] != size:
            raise PassError(
                f"output '{value.name}' does not keep the batch as its first axis; "
                f"{_blame(probe, carried, size)}"
            )


def _mixes(node: Node, carried: set[Value | None], size: int) -> Iterator[str]:
    if node.domain != "" or not any(v in carried for v in node.inputs):
        return
    sizes, axis = dims(node.inputs[0]) or (), None
    if operators.of(node).batch is Batch.OTHER_AXIS:
        axis = int(attribute(node, "axis", operators.default_axis(node) or 0))
    elif operators.input_role(node, 1) == "axis":
        axis = (known_integers(node.inputs[1]) or [0])[0]
    if axis is not None and sizes and axis % len(sizes) == 0:
        yield "works along the batch"
    if node.op_type == "BatchNormalization" and attribute(node, "training_mode", 0):
        yield "takes its statistics from the batch"
    if operators.is_recurrent(node) and (*sizes, None)[0] == size:
        yield "reads its input as one sequence along the first axis"
    if operators.is_recurrent(node) and any(
        dialect.constant_value(value) is not None for value in node.inputs[5:7]
    ):
        yield "starts from a constant state, which has the batch in its shape"
    if operators.has_subgraphs(node):
        yield "has graphs inside it: what they do with the batch is not looked into"


def _blame(model: Model, carried: set[Value | None], size: int) -> str:
    """Return a sentence that names the first node at which the batch is lost."""
    for node in model.graph:
        known = [dims(value) or () for value in (*node.inputs[:1], *node.outputs[:1])]
        if len(known) < 2 or node.outputs[0] not in carried:
            continue
        before, after = (any(_is_batch(axis, size) for axis in sizes) for sizes in known)
        if before and not after:
            made, taken = list(known[1]), list(known[0])
            shown = f"{taken} -> {made}".replace(str(size), "batch")
            return f"it is lost at {node.op_type} '{node.name}' ({shown})"
    return "it ends on another axis"


def _is_batch(axis: int | str | None, size: int) -> bool:
    return isinstance(axis, int) and axis > 0 and axis % size == 0
