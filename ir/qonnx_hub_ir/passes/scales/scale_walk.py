"""One walk in which constant factors and summands wait until somebody needs them applied.

A value of the graph as it was (its *logical* value) is ``value * factor + offset``, both of
them constants; what is stored is ``value``. Mul and Add are written only where a reader cannot
go on with the value as it is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir
from onnx_ir import Model, Node, Value

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.annotations import DATATYPE, annotate, carry, retract
from qonnx_hub_ir.graph.affine import PendingAffine
from qonnx_hub_ir.graph.constants import full_rank
from qonnx_hub_ir.graph.deferral import DeferredRewrite
from qonnx_hub_ir.graph.names import free_name, value_names
from qonnx_hub_ir.graph.queries import dims, fits_into
from qonnx_hub_ir.quantizers import Array, is_power_of_two

Rule = Callable[["PendingScales", Node], bool]
"""Handles one node; returns False where it cannot go on with what is stored, having changed
nothing. Then the node gets its inputs as they were."""


class PendingScales(DeferredRewrite[PendingAffine]):
    """The state of one walk.

    Attributes:
        exact: Move only what no rounding depends on: factors that are powers of two.
        weights: Whether the scales of weights come out.
        wanted: Values that a linear layer reads, directly or through operators that a factor
            can pass: where they come from a quantizer, its scale comes out.
        units: Quantizers of weights -> the value with scale 1 that took their place.
    """

    def __init__(
        self,
        model: Model,
        rules: Mapping[tuple[str, str], Rule],
        *,
        exact: bool,
        weights: bool,
        wanted: set[Value],
    ) -> None:
        """Start with nothing pending."""
        super().__init__(model, rules)
        self.exact, self.weights, self.wanted = exact, weights, wanted
        self.units: dict[Node, Value] = {}
        self._applied: dict[Value, Value] = {}
        self._provenance: dict[Value, str] = {}
        self._datatypes: dict[Value, dict[str, str]] = {}
        self._taken = value_names(self.graph)
        self._one: Value | None = None

    def place(self, value: Value) -> PendingAffine:
        """Return what is pending for a value."""
        return self.places.get(value) or PendingAffine(value)

    def put(self, output: Value, factor: Array | None, offset: Array | None = None) -> None:
        """Say that a node now makes a value that is still to be scaled."""
        self.modified = True
        if factor is None and offset is None:
            return
        self.places[output] = PendingAffine(output, factor, offset)
        self._datatypes[output] = retract(output, DATATYPE)
        source = output.metadata_props.pop(dialect.PROVENANCE, None)
        if source is not None:
            self._provenance[output] = source

    def one(self) -> Value:
        """Return a constant scale of 1."""
        if self._one is None:
            array = np.ones((), dtype=np.float32)
            self._one = dialect.add_initializer(self.graph, "unit_scale", array)
        return self._one

    def claim_value(self, name: str) -> str:
        """Return a name that no value has."""
        return free_name(name, self._taken)

    def apply(
        self, op_type: str, value: Value, constant: Array, before: Node | None, label: str
    ) -> Value:
        """Return what a new node makes of a value and a constant; see :meth:`write`."""
        name = self.node_name(f"{label}_{op_type.lower()}")
        held = self.claim_value(f"{name}_constant")
        inputs = [value, dialect.add_initializer(self.graph, held, constant)]
        fresh = onnx_ir.node(op_type, inputs, name=name)
        output = fresh.outputs[0]
        output.name = self.claim_value(f"{name}_out")
        output.type, output.shape = value.type, value.shape
        return self.insert(fresh, before)

    def restored(self, value: Value, before: Node | None) -> Value:
        """Return a logical value, applied before a node, or at the end of the graph."""
        pending = self.places.get(value)
        if pending is None or pending.written:
            return value
        if value not in self._applied:
            self._applied[value] = self._apply(value, pending, before)
        return self._applied[value]

    def _apply(self, value: Value, pending: PendingAffine, before: Node | None) -> Value:
        self.modified = True
        found = self.write(pending.value, pending.factor, pending.offset, before, value.name)
        if found is pending.value or value.is_graph_input():
            return found
        name = value.name
        value.name = self.claim_value(f"{name}_unscaled")
        found.name = name
        found.metadata_props.update(value.metadata_props)
        carry(value, found)
        annotate(found, self._datatypes.get(value, {}))
        if value in self._provenance:
            found.metadata_props[dialect.PROVENANCE] = self._provenance[value]
        return found

    def write(
        self,
        value: Value,
        factor: Array | None,
        offset: Array | None,
        before: Node | None,
        label: str | None = None,
    ) -> Value:
        """Return a value with a factor and an offset applied, in new nodes.

        Args:
            value: What they apply to.
            factor: Left out where it is 1.
            offset: Left out where it is 0.
            before: The node in front of which they go; the end of the graph without one.
            label: What the nodes are named after: the node that reads them by default.
        """
        found = value
        for op_type, constant, neutral in (("Mul", factor, 1.0), ("Add", offset, 0.0)):
            if constant is None or np.all(constant == neutral):
                continue
            named = label or (str(value.name) if before is None else str(before.name))
            found = self.apply(op_type, found, constant, before, named)
        return found

    def finish(self) -> None:
        """Give the graph its outputs as they were, and drop nodes that nobody reads."""
        names = [str(value.name) for value in self.graph.outputs]
        for index, value in enumerate(list(self.graph.outputs)):
            self.expose(index, names[index], self.restored(value, None))
        self.sweep(operators.is_affine)

    def movable(self, factor: Array) -> bool:
        """Return whether a factor may be moved at all."""
        if not np.all(np.isfinite(factor)) or np.any(factor == 0):
            return False
        return not self.exact or is_power_of_two(np.abs(factor))


def constant_for(value: Value, constant: Value | None) -> Array | None:
    """Return a float32 constant that broadcasts to a value without enlarging it.

    Its shape is () or has the value's rank.
    """
    array, shape = dialect.constant_value(constant), dims(value)
    if array is None or array.dtype != np.float32 or array.size == 0:
        return None
    if array.size == 1:
        return array.reshape(()) if shape is None or array.ndim <= len(shape) else None
    if shape is None or array.ndim > len(shape):
        return None
    full = full_rank(array, len(shape))
    return full if fits_into(full.shape, shape) else None
