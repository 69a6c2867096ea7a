"""Watches a model run, to say what its inputs reached.

Which thresholds can be reached at all follows from interval analysis and, behind quantizers,
from the values that a tensor can hold.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from onnx_ir import Model, Node, Value

from qonnx_hub.equivalence.graph_slices import source_layer
from qonnx_hub.equivalence.inputs.batches import cut_feeds
from qonnx_hub.equivalence.inputs.coverage import BendCoverage, Coverage, InputCoverage
from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.protocol import Feeds
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.analysis.rule_context import rounded_outward
from qonnx_hub_ir.analysis.value_info import ValueInfo
from qonnx_hub_ir.analysis.value_ranges import infer_values
from qonnx_hub_ir.analysis.value_sets import ValueSets
from qonnx_hub_ir.errors import HubError, UsageError
from qonnx_hub_ir.facts import facts_of, fixed_batch
from qonnx_hub_ir.graph.queries import dims, input_of, is_standard, known, quantizers
from qonnx_hub_ir.quantizers import (
    Array,
    BipolarQuant,
    IntQuant,
    integer_bounds,
    is_bipolar,
    single_value,
)
from qonnx_hub_ir.semantics import quantize_to_integers

_BANDS = 8
"""Bits of the codes that are told apart: wider quantizers are counted in 256 bands."""

_MOST_BITS = 24
"""Wider quantizers are as good as floats: nobody counts their thresholds."""

_MOST_READ = 1 << 16
"""Elements of a batch whose codes are counted; the ends are those of all its elements."""

_MOST_LISTED = 1 << 14
"""Values of a grid: more are not listed."""


@dataclass(frozen=True, slots=True)
class WatchedQuantizer:
    """A quantizer whose thresholds are counted.

    Attributes:
        name: Name of its source layer.
        reads: The value it quantizes.
        quant: What it does.
        gap: Distance of neighbouring codes.
        low: Its lowest code.
        high: Its highest code.
        width: Codes that are counted as one band.
    """

    name: str
    reads: Value
    quant: IntQuant | BipolarQuant
    gap: int
    low: int
    high: int
    width: int

    @property
    def source(self) -> str:
        """Name of the value it quantizes."""
        return str(self.reads.name)

    @property
    def total(self) -> int:
        """Its thresholds."""
        return (self.high - self.low) // (self.gap * self.width)

    def bands(self, codes: Array) -> Array:
        """Return the bands in which codes lie, counted from the lowest one."""
        return np.asarray((codes - self.low) // (self.gap * self.width))

    def codes(self, x: Array) -> Array:
        """Return the codes of values, one row per sample."""
        return quantize_to_integers(np.nan_to_num(x), self.quant).reshape(len(x), -1)


def watched_quantizers(model: Model) -> list[WatchedQuantizer]:
    """Return the quantizers with known parameters that read what is computed at run time."""
    dynamic = facts_of(model).dynamic
    found = []
    for node in quantizers(model):
        value, quant = node.inputs[0], known(node)
        if quant is None or value is None or value.name not in dynamic:
            continue
        gap, low, high, width = 2, -1, 1, 1
        if isinstance(quant, IntQuant) and not is_bipolar(quant):
            bits = single_value(quant.bits)
            if bits is None or bits > _MOST_BITS:
                continue
            ends = integer_bounds(bits, signed=quant.signed, narrow=quant.narrow)
            gap, low, high = 1, int(ends[0]), int(ends[1])
            width = 1 << max(int(bits) - _BANDS, 0)
        name = source_layer(node)
        found.append(WatchedQuantizer(name, value, quant, gap, low, high, width))
    return found


@dataclass(slots=True)
class _Codes:
    """The bands of a quantizer: which can come, and which came."""

    watched: WatchedQuantizer
    possible: Array
    seen: Array


@dataclass(slots=True)
class _Pieces:
    """The pieces of a node that bends: the points between them, which can come, which came."""

    layer: str
    reads: str
    points: Array
    possible: Array
    seen: Array


class CoverageMeter:
    """Watches a model run, batch after batch.

    Example:
        >>> meter = CoverageMeter(model)
        >>> meter.add({"x": x})
        >>> meter.coverage().share
        0.93
    """

    def __init__(
        self, model: Model, ranges: Mapping[str, tuple[float, float]] | None = None
    ) -> None:
        """Find what is watched, and what of it can be reached.

        Args:
            model: The reference.
            ranges: Input name -> (lowest, highest) value that inputs may have.
        """
        self._unit = fixed_batch(model) or 1
        info, sets = infer_values(model, dict(ranges or {})), ValueSets()
        self._codes = []
        for one in watched_quantizers(model):
            possible = _possible_bands(one, info[one.source], sets)
            self._codes.append(_Codes(one, possible, np.zeros_like(possible)))
        self._pieces = list(_bends(model, info))
        self._judged = _judged_outputs(model)
        self._first: dict[str, Array] = {}
        self._changed: set[str] = set()
        read = [one.watched.source for one in self._codes]
        read += [one.reads for one in self._pieces] + list(self._judged.values())
        inputs = {str(v.name) for v in model.graph.inputs}
        names = [name for name in dict.fromkeys(read) if name not in inputs]
        self._session = Session(model, outputs=names) if names else None
        self._measured = True

    def add(self, feeds: Feeds) -> None:
        """Run a batch; a model that does not run on it is no longer measured."""
        try:
            for values in self._runs(feeds):
                self._count({**feeds, **values})
        except (HubError, ValueError):
            self._measured = False

    def _runs(self, feeds: Feeds) -> Iterable[Feeds]:
        if self._session is None:
            return [{}]
        try:
            return [self._session.run(feeds)]
        except UsageError:
            # A file that mixes samples runs as many at once as it asks for.
            parts = cut_feeds(feeds, self._unit)
            return [self._session.run(part) for part in parts]

    def _count(self, values: Feeds) -> None:
        for one in self._codes:
            x = values[one.watched.source]
            if x.size:
                codes = one.watched.codes(_some(x, one.watched.quant))
                one.seen[np.unique(one.watched.bands(codes))] = True
        for bend in self._pieces:
            x = values[bend.reads]
            if x.size:
                bend.seen[0] |= bool(np.any(x < bend.points[0]))
                bend.seen[-1] |= bool(np.any(x > bend.points[-1]))
                for k, (low, high) in enumerate(itertools.pairwise(bend.points), start=1):
                    bend.seen[k] |= bool(np.any((x > low) & (x < high)))
        for output, name in self._judged.items():
            self._compare(output, values[name])

    def _compare(self, output: str, x: Array) -> None:
        if output in self._changed or not x.size:
            return
        rows = x if x.ndim else x.reshape(1)
        first = self._first.setdefault(output, rows[:1].copy())
        same = rows.shape[1:] == first.shape[1:] and np.array_equal(
            rows, np.broadcast_to(first, rows.shape), equal_nan=rows.dtype.kind == "f"
        )
        if not same:
            self._changed.add(output)

    def coverage(self) -> InputCoverage:
        """Return what the batches so far reached."""
        if not self._measured:
            return InputCoverage(measured=False)
        return InputCoverage(
            quantizers=tuple(map(_code_row, self._codes)),
            bends=tuple(
                BendCoverage(
                    one.layer,
                    int(np.count_nonzero(one.seen & one.possible)),
                    int(np.count_nonzero(one.possible)),
                )
                for one in self._pieces
            ),
            unchanged=tuple(name for name in self._judged if name not in self._changed),
        )


def _code_row(one: _Codes) -> Coverage:
    def thresholds(bands: Array) -> int:
        return int(np.count_nonzero(bands[1:] & bands[:-1]))

    ends, possible_ends = one.seen[[0, -1]], one.possible[[0, -1]]
    return Coverage(
        layer=one.watched.name,
        exercised=0,
        reached=thresholds(one.seen & one.possible),
        total=one.watched.total,
        reachable=thresholds(one.possible),
        ends=int(np.count_nonzero(ends & possible_ends)),
        reachable_ends=int(np.count_nonzero(possible_ends)),
    )


def _some(x: Array, quant: IntQuant | BipolarQuant) -> Array:
    """Return enough of a large tensor to count codes in, its ends among them."""
    if x.size <= _MOST_READ:
        return x if x.ndim else x.reshape(1)
    if all(p is None or np.size(p) == 1 for p in dialect.parameters(quant)):
        flat = x.reshape(-1)
        ends = np.array([np.nanmin(x), np.nanmax(x)], dtype=x.dtype)
        return np.concatenate([ends, flat[:: flat.size // _MOST_READ]])
    return x[: max(_MOST_READ // (x.size // len(x)), 1)]


def _possible_bands(one: WatchedQuantizer, info: ValueInfo, sets: ValueSets) -> Array:
    """Return which bands of a quantizer some input leads to, as far as ranges tell."""
    possible = np.zeros(one.total + 1, dtype=np.bool_)
    dtype = np.float32 if one.reads.dtype is None else one.reads.dtype.numpy()
    listed = _listed_values(one.reads, info, sets)
    try:
        if listed is not None:
            codes = quantize_to_integers(listed.astype(dtype), one.quant)
            possible[np.unique(one.bands(codes))] = True
            return possible
        low, high = (
            one.bands(quantize_to_integers(end, one.quant)).reshape(-1)
            for end in rounded_outward(info.low, info.high, np.dtype(dtype))
        )
    except ValueError:
        # What it reads is of a type or shape that no range is known of.
        possible[:] = True
        return possible
    for first, last in zip(low, high, strict=True):
        possible[first : last + 1] = True
    return possible


def _listed_values(value: Value, info: ValueInfo, sets: ValueSets) -> Array | None:
    """Return what a tensor can hold, along a first axis of its own; ``None`` if too much."""
    found, grid, rank = sets.of(value), info.grid, len(dims(value) or ())
    if found is not None:
        values = found.values
        spread = (len(values), *(1,) * (rank - values.ndim + 1), *values.shape[1:])
        return np.asarray(values.reshape(spread))
    if grid is None or not grid.exact or grid.scale.size > 1 or grid.offset.size > 1:
        return None
    low, high = int(np.min(grid.low)), int(np.max(grid.high))
    if high - low > _MOST_LISTED:
        return None
    integers = np.arange(low, high + 1, dtype=np.float64)
    values = integers * float(grid.scale.item()) + float(grid.offset.item())
    return values.reshape(-1, *[1] * rank)


def _bends(model: Model, info: Mapping[str, ValueInfo]) -> Iterable[_Pieces]:
    """Give the nodes that bend, with the points between their pieces."""
    dynamic = facts_of(model).dynamic
    for node in model.graph:
        value = input_of(node, 0)
        if value is None or value.name not in dynamic or value.dtype is None:
            continue
        points = _bend_points(node) if value.dtype.is_floating_point() else None
        if points is None:
            continue
        name = str(value.name)
        low, high = float(np.min(info[name].low)), float(np.max(info[name].high))
        first = np.searchsorted(points, low, side="right")
        last = np.searchsorted(points, high, side="left")
        possible = np.zeros(len(points) + 1, dtype=np.bool_)
        possible[first : last + 1] = True
        yield _Pieces(source_layer(node), name, points, possible, np.zeros_like(possible))


def _bend_points(node: Node) -> Array | None:
    if is_standard(node, "Clip"):
        ends = [dialect.constant_value(v) for v in node.inputs[1:] if v is not None]
        known_ends = [
            float(end.reshape(-1)[0]) for end in ends if end is not None and end.size
        ]
        return np.array(sorted(known_ends), dtype=np.float64) if known_ends else None
    if is_standard(node, "Relu", "LeakyRelu", "PRelu"):
        return np.zeros(1, dtype=np.float64)
    return None


def _judged_outputs(model: Model) -> dict[str, str]:
    """Return outputs that depend on an input -> the value by which their change is judged."""
    dynamic = facts_of(model).dynamic
    found = {}
    for value in model.graph.outputs:
        if value.name in dynamic:
            front, node = value, value.producer()
            while node is not None and operators.moves(node) is not None:
                front = node.inputs[0] or front
                node = front.producer()
            ranks = node is not None and is_standard(node, "ArgMax", "ArgMin", "TopK")
            judged = input_of(node, 0) if ranks and node is not None else None
            found[str(value.name)] = str((judged or value).name)
    return found
