"""Which values a tensor can hold, where they are few enough to be listed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir
from onnx_ir import Node, Value

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.queries import dims
from qonnx_hub_ir.quantizers import Array, BipolarQuant, IntQuant, is_bipolar
from qonnx_hub_ir.semantics import levels

MOST_VALUES = 1 << 20
"""Values of a set, all channels together: more are not listed."""

_MOST_BITS = 16


@dataclass(frozen=True, slots=True, eq=False)
class ValueSet:
    """Values that a tensor can hold.

    Attributes:
        values: Shape (n, *axes): those of each channel along the first axis; the other axes
            are aligned to the last ones of the tensor, as in broadcasting.
        keeps_nan: Whether a NaN can come along as well.
    """

    values: Array
    keeps_nan: bool


class ValueSets:
    """The sets of a graph's values, each found once."""

    def __init__(self) -> None:
        self._found: dict[Value, ValueSet | None] = {}

    def of(self, value: Value) -> ValueSet | None:
        """Return what a value can hold; ``None`` where that is not known or too much."""
        waiting = [value]
        while waiting:
            current = waiting[-1]
            sources = _sources(current)
            missing = [source for source in sources if source not in self._found]
            if missing and current not in self._found:
                waiting.extend(missing)
                continue
            waiting.pop()
            if current not in self._found:
                self._found[current] = self._make(current, sources)
        return self._found[value]

    def _make(self, value: Value, sources: list[Value]) -> ValueSet | None:
        node = value.producer()
        if node is None:
            return _constant_set(value)
        if dialect.is_quantizer(node):
            return _quantizer_set(node)
        if not sources:
            return None
        found = (self._found[source] for source in sources)
        known = [one for one in found if one is not None]
        rule = _rule(node)
        made = rule(node, known) if rule is not None and len(known) == len(sources) else None
        return None if made is None or made.values.size > MOST_VALUES else made


def _sources(value: Value) -> list[Value]:
    """Return the values whose sets decide that of a value; none where no rule says how."""
    node = value.producer()
    if node is None or _rule(node) is None or value not in operators.value_outputs(node):
        return []
    inputs = [node.inputs[index] for index in operators.data_inputs(node)]
    known = [one for one in inputs if one is not None]
    return known if len(known) == len(inputs) else []


def _constant_set(value: Value) -> ValueSet | None:
    tensor = dialect.constant_tensor(value)
    if tensor is None or tensor.dtype != onnx_ir.DataType.FLOAT or tensor.size > MOST_VALUES:
        return None
    values = np.unique(tensor.numpy())
    return None if np.isnan(values).any() else ValueSet(values, keeps_nan=False)


def _quantizer_set(node: Node) -> ValueSet | None:
    quant = dialect.read_quantizer(node)
    x = node.inputs[0]
    if not isinstance(quant, (IntQuant, BipolarQuant)) or x is None:
        return None
    known = [array for array in dialect.parameters(quant) if array is not None]
    if len(known) < len(dialect.parameters(quant)) or x.dtype != onnx_ir.DataType.FLOAT:
        return None
    bits = np.float64(1) if isinstance(quant, BipolarQuant) else np.max(known[2])
    size = math.prod(np.broadcast_shapes(*(a.shape for a in known)))
    if not bits <= _MOST_BITS or size << int(bits) > MOST_VALUES:
        return None
    values = levels(quant)
    if not np.all(np.isfinite(values)):
        return None
    return ValueSet(values, keeps_nan=not is_bipolar(quant))


def _joined(node: Node, sets: list[ValueSet]) -> ValueSet | None:
    """Return the union: which value stands where is not followed."""
    values = [np.unique(one.values) for one in sets]
    if operators.inserts(node):
        inserted = operators.inserted_constant(node)
        if inserted is None or np.isnan(inserted).any():
            return None
        values.append(inserted.reshape(-1).astype(np.float32))
    together = np.unique(np.concatenate(values))
    return ValueSet(together, any(one.keeps_nan for one in sets))


def _pooled(node: Node, sets: list[ValueSet]) -> ValueSet | None:
    """Return the set of a window's choice: channels keep theirs, places do not."""
    shape = dims(node.inputs[0])
    places = 0 if shape is None else len(shape) - 2
    if shape is not None and all(n == 1 for n in sets[0].values.shape[1:][-places:]):
        return sets[0]
    return _joined(node, sets)


def _applied(function: Callable[[Array], Array]) -> _Rule:
    """Return the rule of a function of single values."""
    return lambda node, sets: ValueSet(function(sets[0].values), sets[0].keeps_nan)


def _clipped(node: Node, sets: list[ValueSet]) -> ValueSet | None:
    values = sets[0].values
    for given, limit in zip(node.inputs[1:], (np.maximum, np.minimum), strict=False):
        if given is None:
            continue
        known = dialect.constant_value(given)
        if known is None or known.size != 1 or np.isnan(known).any():
            return None
        values = np.asarray(limit(values, known.reshape(())))
    return ValueSet(values, sets[0].keeps_nan)


_Rule = Callable[[Node, list[ValueSet]], "ValueSet | None"]

_FUNCTIONS: Mapping[str, _Rule] = {
    "Abs": _applied(np.abs),
    "Clip": _clipped,
    "Neg": _applied(np.negative),
    "Relu": _applied(lambda values: np.maximum(values, np.float32(0))),
}
"""Functions of single values whose results are listed."""


def _rule(node: Node) -> _Rule | None:
    """Return how the results follow from the values of the data inputs, if that is known."""
    if node.domain not in dialect.STANDARD_DOMAINS:
        return None
    if operators.is_identity(node):
        return lambda node, sets: sets[0]
    if operators.is_max_pool(node):
        return _pooled
    if operators.inserts(node) or operators.keeps_values(node):
        return _joined
    return _FUNCTIONS.get(node.op_type)
