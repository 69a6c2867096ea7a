"""Layer by layer: whether each computes what the live model's own does, given its inputs.

Sums that fall on a rounding tie of a quantizer go to either side of it, as the order of the
summands has it, and all that follows differs. Given the live model's own values before it,
each layer is compared alone: nothing is passed on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
from onnx_ir import Model

from qonnx_hub.equivalence.graph_slices import GraphSlice
from qonnx_hub_adapters.protocol import Feeds, Importer, ShowsLayers
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.analysis.float_error import reordering_error
from qonnx_hub_ir.facts import facts_of
from qonnx_hub_ir.graph.queries import producer, quantizers
from qonnx_hub_ir.quantizers import Array


def differs_by_ties_only(
    importer: Importer, source: Any, model: Model, batches: Iterable[Feeds]
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
    layers: _Layers | None = None
    for batch in batches:
        own = _shown(importer, source, model, batch)
        if layers is None:
            layers = _Layers(model, list(own))
        if not layers.is_complete:
            return False
        if not layers.agree(batch, own, importer.run_source(source, batch) or {}):
            return False
    return layers is not None


class _Layers:
    """A graph cut into its layers, to be run on the values of another.

    Attributes:
        is_complete: Whether the results of all quantizers are among the values shown.
    """

    def __init__(self, model: Model, shown: Sequence[str]) -> None:
        outputs = [str(value.name) for value in model.graph.outputs]
        self._inner = [name for name in shown if name not in outputs]
        self._names = [*self._inner, *outputs]
        dynamic = facts_of(model).dynamic
        results = {str(node.outputs[0].name) for node in quantizers(model)} & dynamic
        self.is_complete = results <= set(self._names) and bool(results)
        self._sums = _sums_before(model, results)
        sums = list(dict.fromkeys(self._sums.values()))
        wanted = list(dict.fromkeys([*self._names, *sums]))
        self._layers = GraphSlice(model, self._inner, wanted)
        self._quantizers = GraphSlice(model, sums, list(self._sums))

    def agree(self, batch: Feeds, own: Feeds, answer: Feeds) -> bool:
        """Return whether every layer gives the other graph's values, given those before it."""
        computed = self._layers.run(own, batch)
        ends = []
        for sign in (-1, 1):
            moved = {name: _moved(computed[name], sign) for name in self._sums.values()}
            ends.append(self._quantizers.run(moved, batch))
        theirs = {**own, **answer}
        return all(
            _within(
                theirs[name],
                [end[name] for end in ends] if name in self._sums else [computed[name]],
            )
            for name in self._names
        )


def _sums_before(model: Model, quantizers: Collection[str]) -> dict[str, str]:
    """Return result of a quantizer -> the sum before it, for those with one."""
    facts, found = facts_of(model), {}
    for name in filter(quantizers.__contains__, facts.values):
        node = facts.values[name].producer()
        value = None if node is None else node.inputs[0]
        # What keeps each element and the order of elements keeps ends of ranges as well.
        while (node := producer(value)) is not None and not node.domain:
            keeps = operators.is_affine(node) or operators.rounds(node)
            inputs = [v for v in node.inputs if v is not None and v.name in facts.dynamic]
            if len(inputs) != 1 or not (keeps or operators.clamps(node)):
                break
            value = inputs[0]
        if value is not None and value.name in facts.values:
            found[name] = str(value.name)
    return found


def _moved(values: Array, sign: int) -> Array:
    """Return values with the noise of their sums taken off or put on."""
    return np.asarray(values + np.asarray(sign * reordering_error([values]), values.dtype))


def _shown(importer: ShowsLayers, source: Any, model: Model, batch: Feeds) -> dict[str, Array]:
    """Return the live model's own values by the names that the graph gives them."""
    layers = importer.run_layers(source, batch)
    found = {}
    for name, value in facts_of(model).values.items():
        array = layers.get(value.metadata_props.get(dialect.PROVENANCE, ""))
        sizes = None if value.shape is None else list(value.shape)
        if array is not None and (sizes is None or len(sizes) == array.ndim):
            found[name] = array
    return found


def _within(own: Array, ends: Sequence[Array]) -> bool:
    """Return whether the live model's values lie between two others, or are equal to one."""
    if own.dtype.kind != "f" or any(end.shape != own.shape for end in ends):
        return all(np.array_equal(end, own) for end in ends)
    limit = reordering_error([own])
    low, high = np.minimum(ends[0], ends[-1]), np.maximum(ends[0], ends[-1])
    within = (own >= low - limit) & (own <= high + limit)
    return bool(np.all(within | (np.isnan(own) & np.isnan(low))))
