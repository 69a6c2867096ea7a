"""Layer by layer: whether each computes what the live model's own does, given its inputs.

Sums that fall on a rounding tie of a quantizer go to either side of it, as the order of the
summands has it, and all that follows differs. Given the live model's own values before it,
each layer is compared alone: nothing is passed on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from onnx_ir import Model

from qonnx_hub.equivalence.diagnosis.isolation import SlicedGraph
from qonnx_hub.equivalence.graph_slices import nodes_between
from qonnx_hub.equivalence.sum_enclosures import SumEnclosures, UnboundedError, holds_all
from qonnx_hub_adapters.protocol import Feeds, Importer, ShowsLayers
from qonnx_hub_ir import dialect
from qonnx_hub_ir.facts import facts_of
from qonnx_hub_ir.graph.queries import quantizers
from qonnx_hub_ir.quantizers import Array


def differs_by_ties_only(
    importer: Importer, source: Any, model: Model, batches: Iterable[Feeds]
) -> bool:
    """Return whether every layer, given the live model's values before it, agrees with it.

    Every value must lie in what orders of the layer's sums make of those before it. It is not
    so where the importer shows no layers, or not all quantizers of the graph are among them.

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
        if any(layers.beyond(batch, own, importer.run_source(source, batch) or {})):
            return False
    return layers is not None


class _Layers:
    """A graph cut into its layers, each enclosed on the values of another.

    Attributes:
        is_complete: Whether the results of all quantizers are among the values shown.
    """

    def __init__(self, model: Model, shown: Sequence[str]) -> None:
        outputs = [str(value.name) for value in model.graph.outputs]
        self._names = list(dict.fromkeys([*shown, *outputs]))
        dynamic = facts_of(model).dynamic
        results = {str(node.outputs[0].name) for node in quantizers(model)} & dynamic
        self.is_complete = results <= set(self._names) and bool(results)
        self._bounds = SumEnclosures(SlicedGraph(model), live=True)
        self._nodes = {
            name: nodes_between(model, {*shown} - {name}, name) for name in self._names
        }

    def beyond(self, batch: Feeds, own: Feeds, answer: Feeds) -> Iterator[tuple[str, bool]]:
        """Give the values that no order of sums is seen to explain, and whether it cannot.

        It is not known where no order is bounded.
        """
        theirs = {**own, **answer}
        for name in filter(self._nodes.get, self._names):
            known = {key: x for key, x in own.items() if key != name}
            try:
                found = self._bounds.enclose(self._nodes[name], name, known, batch)
            except UnboundedError:
                yield name, False
                continue
            fits = found.low.shape == theirs[name].shape
            if not fits or not holds_all(found, theirs[name]).all():
                yield name, True


def first_beyond(
    importer: Importer, source: Any, model: Model, batches: Iterable[Feeds]
) -> str:
    """Return the first layer that no order of its sums explains, given the live values before.

    Args:
        importer: Runs the source.
        source: The live model.
        model: Its IR.
        batches: Inputs, as the file takes them.

    Returns:
        Its name; "" where none is seen, or the importer shows no layers.
    """
    if not isinstance(importer, ShowsLayers):
        return ""
    for batch in batches:
        own = _shown(importer, source, model, batch)
        answer = importer.run_source(source, batch) or {}
        for name, is_seen in _Layers(model, list(own)).beyond(batch, own, answer):
            if is_seen:
                value = facts_of(model).values[name]
                return str(value.metadata_props.get(dialect.PROVENANCE) or name)
    return ""


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
