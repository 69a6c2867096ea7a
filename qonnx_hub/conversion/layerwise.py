"""Layer by layer: whether each computes what the live model's own does, given its inputs.

Sums that fall on a rounding tie of a quantizer go to either side of it, as the order of the
summands has it, and all that follows differs. Given the live model's own values before it,
each layer is compared alone: nothing is passed on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from onnx_ir import Model, Node, Value

from qonnx_hub.equivalence.graph_slices import CUT, cut_at
from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.protocol import Feeds, Importer, ShowsLayers
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.facts import facts_of
from qonnx_hub_ir.quantizers import Array

_NOISE = 1e-5
"""Relative difference that another order of float32 summation explains."""


def differs_by_ties_only(
    importer: Importer, source: Any, model: Model, batches: Iterable[Mapping[str, Array]]
) -> bool:
    """Return whether every layer, given the live model's values before it, agrees with it.

    Values must agree up to the order of summation; those of a quantizer must lie between what
    it makes of its input with that much taken off and put on. It is not so where the importer
    shows no layers, or not all quantizers of the graph are among them.

    Args:
        importer: Runs the source.
        source: The live model.
        model: Its IR.
        batches: Inputs, as the file takes them.
    """
    if not isinstance(importer, ShowsLayers):
        return False
    comparison: _Comparison | None = None
    for batch in batches:
        own = _shown(importer, source, model, batch)
        if comparison is None:
            comparison = _Comparison(model, list(own))
        if not comparison.is_complete:
            return False
        if not comparison.agrees(batch, own, importer.run_source(source, batch) or {}):
            return False
    return comparison is not None


class _Comparison:
    """A graph cut into its layers, to be run on the values of another."""

    def __init__(self, model: Model, shown: Sequence[str]) -> None:
        self._outputs = [str(value.name) for value in model.graph.outputs]
        self._inner = [name for name in shown if name not in self._outputs]
        quantizers = _quantizers(model)
        self.is_complete = quantizers <= {*self._inner, *self._outputs} and bool(quantizers)
        self._sums = _sums_before(model, quantizers)
        wanted = dict.fromkeys([*self._inner, *self._outputs, *self._sums.values()])
        self._local = _Piece(cut_at(model, self._inner, list(wanted)))
        between = list(dict.fromkeys(self._sums.values()))
        self._quantizers = _Piece(cut_at(model, between, list(self._sums)))

    def agrees(self, batch: Feeds, own: Feeds, answer: Feeds) -> bool:
        """Return whether every layer gives the other graph's values, given those before it."""
        computed = self._local.run(batch, own)
        lowest, highest = (
            self._quantizers.run(
                batch, {name: _moved(computed[name], sign) for name in self._sums.values()}
            )
            for sign in (-1, 1)
        )
        return all(
            _agree(
                computed[name],
                {**own, **answer}[name],
                (lowest[name], highest[name]) if name in self._sums else None,
            )
            for name in (*self._inner, *self._outputs)
        )


class _Piece:
    """A cut graph that takes what it needs out of all that is known."""

    def __init__(self, model: Model) -> None:
        self._needed = {str(value.name) for value in model.graph.inputs}
        self._session = Session(model)

    def run(self, batch: Feeds, given: Feeds) -> dict[str, Array]:
        """Return its outputs."""
        feeds = {**batch, **{name + CUT: array for name, array in given.items()}}
        return self._session.run({n: x for n, x in feeds.items() if n in self._needed})


def _quantizers(model: Model) -> set[str]:
    """Return the results of quantizers that depend on inputs."""
    results = {str(node.outputs[0].name) for node in model.graph if dialect.is_quantizer(node)}
    return results & facts_of(model).dynamic


def _sums_before(model: Model, quantizers: Collection[str]) -> dict[str, str]:
    """Return result of a quantizer -> the sum before it, for those with one."""
    facts = facts_of(model)
    moving, values, found = facts.dynamic, facts.values, {}
    for name in values:
        node = values[name].producer()
        if name not in quantizers or node is None:
            continue
        value = node.inputs[0]
        while (before := _only_moving_input(value, moving)) is not None:
            value = before
        if value is not None and value.name in values:
            found[name] = str(value.name)
    return found


def _only_moving_input(value: Value | None, moving: Collection[str]) -> Value | None:
    node = None if value is None else value.producer()
    if node is None or node.domain or not _is_in_order(node):
        return None
    inputs = [one for one in node.inputs if one is not None and one.name in moving]
    return inputs[0] if len(inputs) == 1 else None


def _is_in_order(node: Node) -> bool:
    """Return whether a node keeps each element, and the order of what it makes of them."""
    return operators.is_affine(node) or operators.rounds(node) or operators.clamps(node)


def _moved(values: Array, sign: int) -> Array:
    """Return values with the noise of their sums taken off or put on."""
    noise = _NOISE * float(np.max(np.abs(values), initial=0.0))
    return np.asarray(values + np.asarray(sign * noise, dtype=values.dtype))


def _shown(
    importer: ShowsLayers, source: Any, model: Model, batch: Mapping[str, Array]
) -> dict[str, Array]:
    """Return the live model's own values by the names that the graph gives them."""
    layers = importer.run_layers(source, batch)
    found = {}
    for name, value in facts_of(model).values.items():
        array = layers.get(value.metadata_props.get(dialect.PROVENANCE, ""))
        sizes = None if value.shape is None else list(value.shape)
        if array is not None and (sizes is None or len(sizes) == array.ndim):
            found[name] = array
    return found


def _agree(ours: Array, own: Array, ends: tuple[Array, Array] | None) -> bool:
    if ours.shape != own.shape or ours.dtype.kind != "f":
        return bool(np.array_equal(ours, own))
    limit = _NOISE * float(np.max(np.abs(own), initial=0.0))
    low, high = (ours, ours) if ends is None else (np.minimum(*ends), np.maximum(*ends))
    within = (own >= low - limit) & (own <= high + limit)
    return bool(np.all(within | (np.isnan(own) & np.isnan(ours))))
