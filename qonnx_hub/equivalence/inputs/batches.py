"""Where the inputs of a check come from, in batches, so that no run needs all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from onnx_ir import Model

from qonnx_hub.equivalence.graph_slices import elements_per_sample
from qonnx_hub.equivalence.inputs.generate import InputGenerator, Ranges
from qonnx_hub.equivalence.inputs.sizes import (
    InputLayout,
    axis_name,
    batch_axes,
    layout_of,
    sizes_to_run,
)
from qonnx_hub.executor.batch_axis import batcher_of
from qonnx_hub_adapters.protocol import Feeds
from qonnx_hub_ir.errors import UsageError
from qonnx_hub_ir.facts import fixed_batch
from qonnx_hub_ir.graph.queries import dims, may_be_float
from qonnx_hub_ir.quantizers import Array

_BATCH_ELEMENTS = 1 << 22
"""Elements of all values of a model that one batch may fill: 16 MiB of float32."""

_MOST_SAMPLES_A_BATCH = 1024

_SMALL_BATCHES = [1, 2, 3]
"""Batches that are run besides the large ones, where their length is open."""

_ENOUGH_FOR_SMALL_BATCHES = 64
"""Samples from which on a few more take no time."""

GENERATED = "generated: random, ties, limits"
"""How reports call generated inputs."""


@dataclass(frozen=True, slots=True)
class SampleBatch:
    """Some of the inputs of a run.

    Attributes:
        index: Position among the batches of the run.
        start: Position of its first sample in the run.
        feeds: Inputs by the names of the reference side.
    """

    index: int
    start: int
    feeds: Feeds

    @property
    def samples(self) -> int:
        """How many samples it holds."""
        return count_samples(self.feeds)


class InputSource(Protocol):
    """Inputs in batches; asking twice for one batch gives the same values."""

    @property
    def description(self) -> str:
        """Where they come from, for reports."""

    @property
    def samples(self) -> int:
        """Samples in all batches together."""

    @property
    def count(self) -> int:
        """How many batches there are."""

    def feeds(self, index: int) -> Feeds:
        """Return the inputs of one batch."""


def count_samples(feeds: Feeds) -> int:
    """Return the length of the first axis; 1 for inputs without axes."""
    return max((int(f.shape[0]) if f.ndim else 1 for f in feeds.values()), default=1)


def take_samples(feeds: Feeds, rows: slice | Sequence[int]) -> dict[str, Array]:
    """Return some samples of every input; an input without axes is the same for all.

    Inputs whose first axes differ are one run, which has no parts.
    """
    if not shares_first_axis(feeds):
        return dict(feeds)
    return {name: x[rows] if x.ndim else x for name, x in feeds.items()}


def cut_feeds(
    feeds: Feeds, length: int, most: int | None = None
) -> Iterator[dict[str, Array]]:
    """Give batches of ``length`` samples, one after the other, ``most`` of them at most."""
    samples = count_samples(feeds)
    stop = samples if most is None else min(samples, most * length)
    for start in range(0, stop, length):
        yield take_samples(feeds, slice(start, start + length))


def read_batches(source: InputSource) -> Iterator[SampleBatch]:
    """Give the batches of a source, one after the other."""
    start = 0
    for index in range(source.count):
        batch = SampleBatch(index, start, source.feeds(index))
        start += batch.samples
        yield batch


def batch_length(model: Model | None, unit: int = 1) -> int:
    """Return how many samples one batch should hold, a multiple of ``unit``.

    Args:
        model: The model whose values all have to fit; 64 samples where it is not known.
        unit: Samples per run that the file asks for.
    """
    if model is None:
        return 64
    per_sample = max(elements_per_sample(model) // unit, 1)
    fit = int(np.clip(_BATCH_ELEMENTS // per_sample, 1, _MOST_SAMPLES_A_BATCH))
    return max(fit // unit, 1) * unit


def run_length(model: Model | None, unit: int) -> int:
    """Return :func:`batch_length`, or ``unit`` for a model that mixes samples of longer runs.

    Such a model computes longer batches unit by unit anyway, and its outputs may have no axis
    along which they could be put together.
    """
    if model is not None and fixed_batch(model) and not batcher_of(model).is_apart():
        return unit
    return batch_length(model, unit)


def file_batch(model: Model | None) -> int:
    """Return the samples per run that the inputs ask for; 1 where they leave it open."""
    return 1 if model is None else fixed_batch(model) or 1


@dataclass(frozen=True, slots=True)
class GivenInputs:
    """Arrays that the user gave.

    Attributes:
        arrays: Input name -> array, the first axis over samples.
        length: Samples per batch.
        description: Where they come from.
        prepare: What is done to a part of an input, by its name, before a model takes it.
    """

    arrays: Feeds
    length: int
    description: str = "given"
    prepare: Callable[[str, Array], Array] | None = None

    def __post_init__(self) -> None:
        """Refuse inputs from which nothing could be concluded."""
        _require_usable(self.arrays)
        if not shares_first_axis(self.arrays):
            raise _unequal(self.arrays)

    @property
    def samples(self) -> int:
        """Samples in all batches together."""
        return count_samples(self.arrays)

    @property
    def count(self) -> int:
        """How many batches there are."""
        return -(-self.samples // self.length)

    def feeds(self, index: int) -> Feeds:
        """Return the inputs of one batch."""
        start = index * self.length
        part = take_samples(self.arrays, slice(start, start + self.length))
        if self.prepare is not None:
            # Part by part: as numbers of four bytes, data may be larger than memory.
            part = {name: self.prepare(name, a) for name, a in part.items()}
        return {name: np.ascontiguousarray(a) if a.ndim else a for name, a in part.items()}


def shares_first_axis(feeds: Feeds) -> bool:
    """Return whether the first axes of all inputs are as long, and so may be of samples."""
    return len({len(x) for x in feeds.values() if x.ndim}) < 2


@dataclass(frozen=True, slots=True)
class OneRun:
    """Inputs whose first axes are not all of samples: they are run at once, as they are.

    Attributes:
        arrays: Input name -> array.
        description: Where they come from.
    """

    arrays: Feeds
    description: str = "given"

    @property
    def samples(self) -> int:
        """One: the run."""
        return 1

    @property
    def count(self) -> int:
        """How many batches there are."""
        return 1

    def feeds(self, index: int) -> Feeds:
        """Return all inputs."""
        return self.arrays


def given_inputs(arrays: Feeds, model: Model | None, length: int) -> InputSource:
    """Return inputs as they are: samples in batches, or one run where first axes differ.

    Args:
        arrays: Input name -> array.
        model: What they are for, with the same names; ``None`` where it is not known.
        length: Samples per batch.

    Raises:
        UsageError: Inputs from which nothing could be concluded, or whose first axes differ
            though the file gives them one name.
    """
    if shares_first_axis(arrays):
        return GivenInputs(arrays, length)
    _require_usable(arrays)
    firsts = [] if model is None else [v for v in model.graph.inputs if dims(v)]
    names = {axis_name(value, 0) for value in firsts if str(value.name) in arrays}
    if len(names) == 1 and names != {None}:
        raise _unequal(arrays)
    return OneRun(arrays)


def _require_usable(arrays: Feeds) -> None:
    if not arrays:
        raise UsageError("no inputs are given: nothing would be compared")
    for name, array in arrays.items():
        if array.size == 0:
            raise UsageError(f"input '{name}' is empty: nothing would be compared")
        _require_numbers(name, array)


def _unequal(arrays: Feeds) -> UsageError:
    sizes = ", ".join(f"'{name}' {len(x)}" for name, x in arrays.items() if x.ndim)
    return UsageError(f"the inputs hold different numbers of samples: {sizes}")


def _require_numbers(name: str, array: Array) -> None:
    if array.dtype.kind == "O":
        raise UsageError(f"input '{name}' holds objects, not numbers")
    if array.dtype.kind != "f":
        return
    for start in range(0, len(array) if array.ndim else 1, 4096):
        part = array[start : start + 4096] if array.ndim else array
        if np.isnan(part).any():
            where = [int(i) for i in np.argwhere(np.isnan(part))[0]] if array.ndim else []
            if where:
                where[0] += start
            raise UsageError(
                f"input '{name}' holds NaN (first at {where}); a comparison would say nothing"
            )


@dataclass(frozen=True, slots=True)
class SeparateRuns:
    """Inputs that are not all samples, one set after the other.

    Attributes:
        arrays: Input name -> array with an axis over runs in front.
        description: Where they come from.
    """

    arrays: Feeds
    description: str = "given"

    @property
    def samples(self) -> int:
        """How many runs there are."""
        return len(next(iter(self.arrays.values())))

    @property
    def count(self) -> int:
        """How many batches there are: one for each run."""
        return self.samples

    def feeds(self, index: int) -> Feeds:
        """Return the inputs of one run."""
        return {name: np.asarray(x[index]) for name, x in self.arrays.items()}


class GeneratedInputs:
    """Random values, ties, limits, zeros: :mod:`qonnx_hub.equivalence.inputs.generate`.

    Where the file leaves sizes open, batches have several: see :func:`sizes_to_run`.
    """

    def __init__(
        self,
        model: Model,
        samples: int | None = None,
        seed: int = 0,
        ranges: Ranges | None = None,
        length: int | None = None,
    ) -> None:
        """Prepare the inputs of a model.

        Args:
            model: The model whose input signature and first quantizers are used.
            samples: How many; as many as suit the model by default.
            seed: Seed of the random values; the same seed gives the same inputs.
            ranges: Input name -> (lowest, highest) value.
            length: Samples per batch; as many as suit the model by default.

        Raises:
            UsageError: No sizes with which the model runs, or a range that is none.
        """
        self._sizes = sizes_to_run(model)
        self._generators = [
            InputGenerator(model, seed, ranges or {}, sizes) for sizes in self._sizes
        ]
        self.layout, self._batch = layout_of(model), batch_axes(model)
        self.floats = [str(v.name) for v in model.graph.inputs if may_be_float(v) and dims(v)]
        self.description = f"{GENERATED}; seed {seed}"
        most = self._generators[0].default_samples()
        if self.layout is InputLayout.RUNS:
            self._lengths = [1] * max(most if samples is None else samples, len(self._sizes))
        else:
            self._lengths = self._batch_lengths(model, samples, most, length)

    def _batch_lengths(
        self, model: Model, samples: int | None, most: int, length: int | None
    ) -> list[int]:
        unit = file_batch(model)
        fit = batch_length(model, unit)
        wanted = most if samples is None else samples
        if samples is None:
            # Unasked, a check should not take longer than one batch or so.
            wanted = min(wanted, max(fit, 2))
        wanted = max(wanted // unit, 1) * unit
        step = max((length or min(fit, wanted)) // unit, 1) * unit
        if len(self._sizes) > 1:
            step = min(step, max(wanted // len(self._sizes) // unit, 1) * unit)
        lengths = [min(step, wanted - start) for start in range(0, wanted, step)]
        lengths += [step] * (len(self._sizes) - len(lengths))
        if self._batch and samples is None and wanted >= _ENOUGH_FOR_SMALL_BATCHES:
            lengths += _SMALL_BATCHES
        return lengths

    @property
    def samples(self) -> int:
        """Samples in all batches together."""
        return sum(self._lengths)

    @property
    def count(self) -> int:
        """How many batches there are."""
        return len(self._lengths)

    @property
    def sizes(self) -> dict[str, tuple[int, ...]]:
        """Open axis -> the sizes that it has in some batch."""
        found = {name: {s[name] for s in self._sizes} for name in self._sizes[0]}
        found |= {name: set(self._lengths) for name in self._batch}
        return {name: tuple(sorted(sizes)) for name, sizes in found.items()}

    def feeds(self, index: int) -> Feeds:
        """Return the inputs of one batch."""
        generator = self._generators[index % len(self._generators)]
        if self.layout is InputLayout.RUNS:
            return generator.run(index)
        return generator.feeds(self._lengths[index], index)


@dataclass(frozen=True, slots=True)
class ChainedInputs:
    """Several sources, one behind the other."""

    parts: Sequence[InputSource]

    @property
    def description(self) -> str:
        """Where they come from, for reports."""
        return " + ".join(part.description for part in self.parts)

    @property
    def samples(self) -> int:
        """Samples in all batches together."""
        return sum(part.samples for part in self.parts)

    @property
    def count(self) -> int:
        """How many batches there are."""
        return sum(part.count for part in self.parts)

    def feeds(self, index: int) -> Feeds:
        """Return the inputs of one batch."""
        for part in self.parts:
            if index < part.count:
                return part.feeds(index)
            index -= part.count
        raise IndexError("there are not so many batches")
