"""Says what inputs reached in a model while it ran.

Which thresholds can be reached at all follows from interval analysis and, behind quantizers,
from the values that a tensor can hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from onnx_ir import Model, Value

from qonnx_hub.equivalence.inputs.coverage import BendCoverage, Coverage, InputCoverage
from qonnx_hub.equivalence.inputs.watch import WatchedBend, WatchedSteps, Watcher
from qonnx_hub_adapters.protocol import Feeds
from qonnx_hub_ir.analysis.rule_context import rounded_outward
from qonnx_hub_ir.analysis.value_info import ValueInfo
from qonnx_hub_ir.analysis.value_ranges import infer_values
from qonnx_hub_ir.analysis.value_sets import ValueSets
from qonnx_hub_ir.errors import HubError
from qonnx_hub_ir.graph.queries import dims
from qonnx_hub_ir.quantizers import Array

_MOST_READ = 1 << 16
"""Elements of a batch whose codes are counted; the ends are those of all its elements."""

_MOST_LISTED = 1 << 14
"""Values of a grid: more are not listed."""


@dataclass(slots=True)
class _Bands:
    """The bands of a quantizer: which can come, and which came."""

    watched: WatchedSteps
    possible: Array
    seen: Array


@dataclass(slots=True)
class _Pieces:
    """The pieces of a node that bends: which can come, and which came."""

    watched: WatchedBend
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
        self,
        model: Model,
        ranges: Mapping[str, tuple[float, float]] | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        """Find what is watched, and what of it can be reached.

        Args:
            model: The reference.
            ranges: Input name -> (lowest, highest) value that inputs may have.
            watcher: What runs the model, where there is one already.
        """
        self._watcher = watcher or Watcher(model)
        info, sets = infer_values(model, dict(ranges or {})), ValueSets()
        self._bands = []
        for one in self._watcher.steps:
            if one.counted:
                possible = _possible_bands(one, info[one.source], sets)
                self._bands.append(_Bands(one, possible, np.zeros_like(possible)))
        self._pieces = []
        for bend in self._watcher.bends:
            possible = _possible_pieces(bend, info[bend.source])
            self._pieces.append(_Pieces(bend, possible, np.zeros_like(possible)))
        self._first: dict[str, Array] = {}
        self._changed: set[str] = set()
        self._measured = True

    def add(self, feeds: Feeds) -> None:
        """Run a batch; a model that does not run on it is no longer measured."""
        try:
            for values in self._watcher.runs(feeds):
                self._count(values)
        except (HubError, ValueError):
            self._measured = False

    def _count(self, values: Feeds) -> None:
        for one in self._bands:
            x = values[one.watched.source]
            if x.size:
                codes = one.watched.codes(_some(x, uniform=one.watched.uniform))
                one.seen[np.unique(one.watched.bands(codes))] = True
        for bend in self._pieces:
            pieces = np.unique(bend.watched.pieces(_some(values[bend.watched.source])))
            bend.seen[pieces[pieces >= 0]] = True
        for output, name in self._watcher.judged.items():
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
            quantizers=tuple(map(_row, self._bands)),
            bends=tuple(
                BendCoverage(
                    one.watched.name,
                    int(np.count_nonzero(one.seen & one.possible)),
                    int(np.count_nonzero(one.possible)),
                )
                for one in self._pieces
            ),
            unchanged=tuple(n for n in self._watcher.judged if n not in self._changed),
        )


def _row(one: _Bands) -> Coverage:
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


def _some(x: Array, *, uniform: bool = True) -> Array:
    """Return enough of a large tensor to count codes in, its ends among them."""
    if x.size <= _MOST_READ:
        return x if x.ndim else x.reshape(1)
    if uniform:
        flat = x.reshape(-1)
        ends = np.array([np.nanmin(x), np.nanmax(x)], dtype=x.dtype)
        return np.concatenate([ends, flat[:: flat.size // _MOST_READ]])
    return x[: max(_MOST_READ // (x.size // len(x)), 1)]


def _possible_bands(one: WatchedSteps, info: ValueInfo, sets: ValueSets) -> Array:
    """Return which bands of a quantizer some input leads to, as far as ranges tell."""
    possible = np.zeros(one.total + 1, dtype=np.bool_)
    dtype = np.float32 if one.reads.dtype is None else one.reads.dtype.numpy()
    listed = _listed_values(one.reads, info, sets)
    try:
        if listed is not None:
            codes = one.code_of(listed.astype(dtype))
            possible[np.unique(one.bands(codes))] = True
            return possible
        low, high = (
            one.bands(one.code_of(end)).reshape(-1)
            for end in rounded_outward(info.low, info.high, np.dtype(dtype))
        )
    except (ValueError, IndexError):
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


def _possible_pieces(bend: WatchedBend, info: ValueInfo) -> Array:
    """Return on which pieces some input leads, as far as ranges tell."""
    low, high = float(np.min(info.low)), float(np.max(info.high))
    first = np.searchsorted(bend.points, low, side="right")
    last = np.searchsorted(bend.points, high, side="left")
    possible = np.zeros(len(bend.points) + 1, dtype=np.bool_)
    possible[first : last + 1] = True
    return possible
