"""What is watched while a model runs: quantizers, what rounds, where nodes bend, outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx_ir import Model, Node, Value

from qonnx_hub.equivalence.graph_slices import source_layer
from qonnx_hub.equivalence.inputs.batches import (
    GeneratedInputs,
    GivenInputs,
    InputSource,
    SeparateRuns,
    count_samples,
    cut_feeds,
)
from qonnx_hub.equivalence.inputs.generate import linear_quantizer
from qonnx_hub.equivalence.inputs.sizes import InputLayout, layout_of
from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.protocol import Feeds
from qonnx_hub_ir import dialect, operators, thresholds
from qonnx_hub_ir.errors import ExecutionError
from qonnx_hub_ir.facts import facts_of, fixed_batch
from qonnx_hub_ir.graph.queries import (
    attribute,
    dims,
    input_of,
    is_standard,
    known,
    may_be_float,
)
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


@dataclass(frozen=True, slots=True)
class WatchedSteps:
    """A node whose result jumps at thresholds: a quantizer, MultiThreshold, Round.

    Attributes:
        name: Name of its source layer.
        reads: The value that it reads.
        code_of: Values -> codes, element by element.
        gap: Distance of neighbouring codes.
        low: Its lowest code; lower ones count as this one.
        high: Its highest code.
        width: Codes that are counted as one band.
        uniform: Whether all elements have the same thresholds.
        sizes: Magnitudes of inputs that lead to its first code and to its last ones.
        counted: Whether its thresholds are counted in the coverage: those of Round go on
            without an end.
    """

    name: str
    reads: Value
    code_of: Callable[[Array], Array]
    gap: int
    low: int
    high: int
    width: int
    uniform: bool
    sizes: Array
    counted: bool = True

    @property
    def source(self) -> str:
        """Name of the value that it reads."""
        return str(self.reads.name)

    @property
    def total(self) -> int:
        """Its thresholds."""
        return (self.high - self.low) // (self.gap * self.width)

    def bands(self, codes: Array) -> Array:
        """Return the bands in which codes lie, counted from the lowest one."""
        inside = np.clip(codes, self.low, self.high)
        return np.asarray((inside - self.low) // (self.gap * self.width))

    def codes(self, x: Array) -> Array:
        """Return the codes of values, one row per sample."""
        return self.code_of(np.nan_to_num(x)).reshape(len(x), -1)


def watched_steps(model: Model) -> list[WatchedSteps]:
    """Return the nodes with known parameters that jump, and read what is computed at run time.

    Quantizers come first, in order, then what rounds.
    """
    dynamic = facts_of(model).dynamic
    found = []
    for node in model.graph:
        value = input_of(node, 0)
        if value is None or value.name not in dynamic or not may_be_float(value):
            continue
        if dialect.is_thresholds(node):
            made = _multi_threshold(node, value)
        elif operators.rounds(node):
            made = _quantizer(node, value, _WHOLE_NUMBERS, counted=False)
        else:
            quant = known(node) if dialect.is_quantizer(node) else linear_quantizer(node)
            made = None if quant is None else _quantizer(node, value, quant)
        found += [made] if made is not None else []
    return sorted(found, key=lambda one: not one.counted)


_WHOLE_NUMBERS = IntQuant(np.float32(1), np.float32(0), np.float32(_BANDS))


def _quantizer(
    node: Node, value: Value, quant: IntQuant | BipolarQuant, *, counted: bool = True
) -> WatchedSteps | None:
    rank = None if value.shape is None else len(value.shape)
    shapes = [np.shape(p) for p in dialect.parameters(quant) if p is not None]
    if any(len(shape) == rank and shape[0] > 1 for shape in shapes if shape):
        return None
    gap, low, high, width = 2, -1, 1, 1
    if isinstance(quant, IntQuant) and not is_bipolar(quant):
        bits = single_value(quant.bits)
        if bits is None or bits > _MOST_BITS:
            return None
        ends = integer_bounds(bits, signed=quant.signed, narrow=quant.narrow)
        gap, low, high = 1, int(ends[0]), int(ends[1])
        width = 1 << max(int(bits) - _BANDS, 0)
    return WatchedSteps(
        source_layer(node),
        value,
        lambda x: quantize_to_integers(x, quant),
        *(gap, low, high, width),
        uniform=all(p is None or np.size(p) == 1 for p in dialect.parameters(quant)),
        sizes=_sizes(quant, high - low),
        counted=counted,
    )


def _sizes(quant: IntQuant | BipolarQuant, codes: int) -> Array:
    if isinstance(quant, BipolarQuant) or quant.scale is None:
        return np.ones(1, dtype=np.float64)
    scale = np.asarray(quant.scale, dtype=np.float64).reshape(-1)
    return np.array([scale.min(), scale.max() * codes], dtype=np.float64)


def _multi_threshold(node: Node, value: Value) -> WatchedSteps | None:
    steps = dialect.constant_value(node.inputs[1])
    shape = dims(value)
    if steps is None or steps.ndim != 2 or shape is None:
        return None
    rank = len(shape)
    axis = thresholds.channel_axis(attribute(node, "data_layout", ""), rank)

    def count(x: Array) -> Array:
        # Whole runs have an axis in front.
        return thresholds.apply(x, steps, axis + x.ndim - rank, 1.0, 0.0).astype(np.int64)

    name, high = source_layer(node), steps.shape[1]
    sizes = np.abs(steps[np.isfinite(steps) & (steps != 0)]).astype(np.float64)
    width, uniform = 1 + high // 256, len(steps) == 1
    return WatchedSteps(name, value, count, 1, 0, high, width, uniform, sizes)


@dataclass(frozen=True, slots=True)
class WatchedBend:
    """A node whose function has a bend: Relu, LeakyRelu, Clip.

    Attributes:
        name: Name of its source layer.
        reads: The value that it reads.
        points: Where it bends, in order; values between two points, and beyond the outer ones,
            are a piece each.
    """

    name: str
    reads: Value
    points: Array

    @property
    def source(self) -> str:
        """Name of the value that it reads."""
        return str(self.reads.name)

    def pieces(self, x: Array) -> Array:
        """Return on which piece values lie; -1 on a point between two."""
        left = np.searchsorted(self.points, x, side="left")
        right = np.searchsorted(self.points, x, side="right")
        return np.where(left == right, left, -1)


def watched_bends(model: Model) -> list[WatchedBend]:
    """Return the nodes that bend, with the points between their pieces."""
    dynamic = facts_of(model).dynamic
    found = []
    for node in model.graph:
        value = input_of(node, 0)
        if value is None or value.name not in dynamic or value.dtype is None:
            continue
        points = _bend_points(node) if value.dtype.is_floating_point() else None
        if points is not None:
            found.append(WatchedBend(source_layer(node), value, points))
    return found


def _bend_points(node: Node) -> Array | None:
    if is_standard(node, "Clip"):
        ends = [dialect.constant_value(v) for v in node.inputs[1:] if v is not None]
        found = [float(end.reshape(-1)[0]) for end in ends if end is not None and end.size]
        return np.array(sorted(found), dtype=np.float64) if found else None
    if is_standard(node, "ThresholdedRelu"):
        return np.array([attribute(node, "alpha", 1.0)], dtype=np.float64)
    if is_standard(node, "HardSigmoid"):
        gain, shift = attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5)
        corners = (-shift / gain, (1 - shift) / gain) if gain else (0.0,)
        return np.array(sorted(corners), dtype=np.float64)
    if is_standard(node, "Relu", "LeakyRelu", "PRelu", "Elu", "Celu", "Selu"):
        return np.zeros(1, dtype=np.float64)
    return None


def _as_steps(bend: WatchedBend) -> WatchedSteps:
    """Return a bend as thresholds between its pieces, which are crossed as well."""
    return WatchedSteps(
        bend.name,
        bend.reads,
        lambda x: np.searchsorted(bend.points, x, side="right"),
        gap=1,
        low=0,
        high=len(bend.points),
        width=1,
        uniform=True,
        sizes=np.abs(bend.points[bend.points != 0]),
        counted=False,
    )


def judged_outputs(model: Model) -> dict[str, str]:
    """Return outputs that depend on an input -> the value by which their change is judged.

    That is the output itself; where ArgMax or TopK made it, what that read.
    """
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


class Watcher:
    """Runs a model for the values that are watched.

    Attributes:
        model: The model.
        steps: The nodes that jump, and behind them those that bend, which are no more counted
            than what rounds.
        bends: The nodes that bend.
        judged: Outputs, and the values by which their change is judged.
        inputs: Names of the model's inputs.
        layout: What the first axes of the inputs are.
        unit: Samples per run that the file asks for.
    """

    def __init__(self, model: Model) -> None:
        """Find what is watched."""
        self.model = model
        self.bends = watched_bends(model)
        self.steps = [*watched_steps(model), *map(_as_steps, self.bends)]
        self.judged = judged_outputs(model)
        self.inputs = tuple(str(v.name) for v in model.graph.inputs)
        self.layout = layout_of(model)
        self.unit = fixed_batch(model) or 1
        self._sessions: dict[tuple[str, ...], Session] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The values that are watched, each once."""
        steps, bends = (one.source for one in self.steps), (one.source for one in self.bends)
        return tuple(dict.fromkeys((*steps, *bends, *self.judged.values())))

    def run(self, feeds: Feeds, names: Iterable[str]) -> dict[str, Array]:
        """Return values by name, inputs among them, a row for each try.

        A try is a sample; where the model mixes samples, or its inputs have other first axes,
        it is a whole run: feeds and values then have an axis over tries in front.

        Raises:
            HubError: The model does not run on them.
        """
        wanted = tuple(name for name in dict.fromkeys(names) if name not in self.inputs)
        if not wanted:
            return dict(feeds)
        if wanted not in self._sessions:
            self._sessions[wanted] = Session(self.model, outputs=wanted)
        session = self._sessions[wanted]
        if self.layout is InputLayout.SAMPLES:
            return {**feeds, **session.run(feeds)}
        tries = len(next(iter(feeds.values())))
        runs = [session.run({n: x[k] for n, x in feeds.items()}) for k in range(tries)]
        if any(len({run[name].shape for run in runs}) > 1 for name in wanted):
            raise ExecutionError("the shapes of values depend on the values of inputs")
        return {**feeds, **{name: np.stack([run[name] for run in runs]) for name in wanted}}

    def tries(self, source: GeneratedInputs) -> dict[str, Array]:
        """Return the first inputs of a source, a row for each try."""
        if self.layout is InputLayout.SAMPLES:
            return dict(source.feeds(0))
        if self.layout is InputLayout.UNITS:
            feeds, unit = source.feeds(0), self.unit
            return {n: x.reshape(-1, unit, *x.shape[1:]) for n, x in feeds.items()}
        first = source.feeds(0)
        runs = [first, *(source.feeds(k) for k in range(1, source.count))]
        fitting = [
            run for run in runs if all(run[n].shape == x.shape for n, x in first.items())
        ]
        return {n: np.stack([run[n] for run in fitting]) for n in first}

    def source_of(self, tries: Feeds, length: int | None, words: str) -> InputSource:
        """Return tries as inputs of a check."""
        if self.layout is InputLayout.RUNS:
            return SeparateRuns(tries, words)
        if self.layout is InputLayout.UNITS:
            tries = {n: x.reshape(-1, *x.shape[2:]) for n, x in tries.items()}
        return GivenInputs(tries, length or count_samples(tries), words)

    def shown(self, feeds: Feeds, words: str) -> InputSource:
        """Return some inputs of a check as inputs by themselves."""
        if self.layout is InputLayout.RUNS:
            runs = {name: np.asarray(x)[np.newaxis] for name, x in feeds.items()}
            return SeparateRuns(runs, words)
        return GivenInputs(feeds, count_samples(feeds), words)

    def runs(self, feeds: Feeds) -> list[dict[str, Array]]:
        """Return what is watched for inputs of a check, in one run or several.

        Raises:
            HubError: The model does not run on them.
        """
        names = tuple(name for name in self.names if name not in self.inputs)
        if names not in self._sessions:
            self._sessions[names] = Session(self.model, outputs=names or None)
        session = self._sessions[names]
        parts: list[Feeds] = [feeds]
        if self.layout is InputLayout.UNITS:
            parts = list(cut_feeds(feeds, self.unit))
        return [{**part, **session.run(part)} for part in parts]


def rows_of(values: Mapping[str, Array], names: Sequence[str], samples: int) -> bool:
    """Return whether all named values have an axis over samples in front."""
    return all(values[name].ndim and len(values[name]) == samples for name in names)
