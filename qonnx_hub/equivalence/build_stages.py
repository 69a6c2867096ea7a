"""What FINN made of a model, stage by stage: the first stage and node that compute else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx_ir
from onnx_ir import Model

from qonnx_hub.equivalence.inputs.batches import count_samples, cut_feeds
from qonnx_hub.equivalence.inputs.generate import generate_inputs
from qonnx_hub.equivalence.runners.sides import ExecutorRunner
from qonnx_hub.executor.session import Session
from qonnx_hub.io import registry
from qonnx_hub.io.arrays import npy_bytes
from qonnx_hub.io.atomic import replacing_all
from qonnx_hub.reporting.report import Part, Report
from qonnx_hub.reporting.tables import Table
from qonnx_hub_adapters.finn.hardware import moves_values
from qonnx_hub_adapters.finn.stages import BuildStage, read_stage, stage_files
from qonnx_hub_adapters.protocol import Feeds
from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import HubError, UsageError
from qonnx_hub_ir.facts import fixed_batch
from qonnx_hub_ir.graph.queries import attribute, is_constant, is_weight, known, quantizers
from qonnx_hub_ir.graph.rewriting import replace_node
from qonnx_hub_ir.quantizers import Array, IntQuant, Quantizer, Rounding
from qonnx_hub_ir.semantics import quantize_to_integers
from qonnx_hub_ir.thresholds import apply, channel_axis

_NOISE = 2e-5
"""What float32 sums in another order may be apart by, relative to the largest value."""

_TIE = 1e-5
"""Distance from a tie, in steps, at which another order of operations decides."""

_SAMPLES = 32

_TELLING = 4
"""Samples that meet no tie, without which a stage that differs at ties only is not decided."""


@dataclass(frozen=True, slots=True)
class StageResult:
    """How one stage compares to the source.

    Attributes:
        stage: The step that made it.
        verdict: "EQUAL"; "TIES" where only samples that meet a rounding tie differ;
            "DIFFERENT"; "UNDECIDED" where too few samples meet none; or "NOT RUN".
        values: How many output values were compared.
        differing: How many differ.
        ties: How many of them belong to samples in which a quantizer of the source meets a
            tie, which FINN rounds up and the source to even.
        upward: How many of those are what the source computes with ties rounded up.
        words: The first node that computes something else, or why nothing was run.
    """

    stage: str
    verdict: str
    values: int = 0
    differing: int = 0
    ties: int = 0
    upward: int = 0
    words: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class StagesReport(Report):
    """How the stages of a build compare to their source.

    Attributes:
        source: How reports call the source.
        folder: The folder of the stages.
        samples: How many inputs were compared.
        stages: One result per stage, in the order of the build.
    """

    schema: ClassVar[str] = "stages/1"
    heading: ClassVar[str] = "Stages of a build"

    source: str
    folder: str
    samples: int
    stages: tuple[StageResult, ...]

    @property
    def first_difference(self) -> StageResult | None:
        """The first stage that computes something else; ``None`` where none does."""
        return next((one for one in self.stages if one.verdict == "DIFFERENT"), None)

    def __bool__(self) -> bool:
        """Return whether every stage computes what the source does, ties aside."""
        return all(one.verdict in {"EQUAL", "TIES"} for one in self.stages)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data, fit for JSON."""
        return {**asdict(self), "stages": [asdict(one) for one in self.stages]}

    def summary(self) -> str:
        """Return what was found, in one line."""
        first = self.first_difference
        words = "every stage computes what the source does"
        if first is not None:
            words = f"'{first.stage}' is the first stage that differs: {first.words}"
        elif not self:
            words = "not every stage could be decided"
        return f"{self.samples} samples: {words}"

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per stage: verdict, values, how many differ, how many at ties."""
        return [asdict(one) for one in self.stages]

    def parts(self) -> Iterator[Part]:
        """Give the stages, and what was found."""
        columns = ("stage", "verdict", "values", "differ", "at ties", "first node")
        cells = [
            (
                *(one.stage, one.verdict, f"{one.values:,}", f"{one.differing:,}"),
                *(f"{one.ties:,}", one.words),
            )
            for one in self.stages
        ]
        yield Table(columns, cells)
        yield self.summary()


def check_stages(
    source: Any,
    folder: str | Path,
    inputs: Feeds | None = None,
    *,
    samples: int | None = None,
    seed: int = 0,
    save_golden: str | Path | None = None,
    label: str | None = None,
) -> StagesReport:
    """Return whether every model that a build of FINN kept computes what its source does.

    FINN's hardware layers are run as what they compute in Python. The first stage and node
    that compute something else are named; values that differ at rounding ties, which FINN
    rounds up, are counted apart.

    Args:
        source: As in ``load``: what was given to FINN, or what that was converted from.
        folder: ``intermediate_models`` of the build.
        inputs: Input name -> array; generated otherwise.
        samples: Samples to generate.
        seed: Seed of the generated values.
        save_golden: Folder for what FINN verifies its steps with, by its names: ``input.npy``,
            as the first stage takes it, and ``expected_output.npy``, of the samples that meet
            no tie.
        label: How the report calls the source.

    Raises:
        UsageError: The folder holds no stages of FINN, or inputs do not fit.
        HubError: The source cannot be read, or fails.
    """
    model = registry.read_model(source)
    named = str(source) if isinstance(source, (str, Path)) else type(source).__name__
    label, golden = label or named, save_golden
    files = stage_files(folder)
    if not files:
        raise UsageError(f"'{folder}' holds no models that a build of FINN kept")
    if fixed_batch(model) not in {None, 1}:
        raise UsageError(f"'{label}' has a batch of its own; FINN takes one sample at a time")
    feeds = dict(inputs or generate_inputs(model, samples or _SAMPLES, seed))
    reference = _Reference(ExecutorRunner(model, label), feeds)
    results = []
    before: BuildStage | None = None
    for path in files:
        try:
            stage = read_stage(path)
            result = _compare(stage, before, reference)
        except HubError as error:
            results.append(StageResult(path.stem, "NOT RUN", words=str(error).split("\n")[0]))
            continue
        results.append(result)
        if golden is not None and len(results) == 1:
            _write_golden(Path(golden), stage.model, reference)
        before = stage if result.verdict in {"EQUAL", "TIES"} else before
    return StagesReport(label, str(folder), count_samples(feeds), tuple(results))


class _Reference:
    """The source, its inputs, and its answers."""

    def __init__(self, source: ExecutorRunner, feeds: Feeds) -> None:
        self.source = source
        self.feeds = feeds
        session = Session(source.model)
        found = [any(_meets_tie(source.model, session, part)) for part in cut_feeds(feeds, 1)]
        self.at_ties = np.array(found, dtype=bool)
        self.outputs = list(source.outputs(feeds).values())
        upward = ExecutorRunner(_ties_upward(source.model), source.label)
        self.upward = list(upward.outputs(feeds).values())


def _write_golden(folder: Path, first: Model, reference: _Reference) -> None:
    """Write inputs and answers for FINN to verify its steps with.

    Raises:
        UsageError: There are several inputs or outputs, or every sample meets a tie.
    """
    feeds, kept = _fed(first, reference), ~reference.at_ties
    if len(feeds) != 1 or len(reference.outputs) != 1 or not kept.any():
        raise UsageError(
            "FINN verifies one input and one output, on samples that meet no rounding tie; "
            f"there are {len(feeds)}, {len(reference.outputs)} and {int(kept.sum())} of them"
        )
    folder.mkdir(parents=True, exist_ok=True)
    [fed] = feeds.values()
    paths = [folder / "input.npy", folder / "expected_output.npy"]
    with replacing_all(paths) as temporaries:
        for place, array in zip(temporaries, (fed, reference.outputs[0]), strict=True):
            place.write_bytes(npy_bytes(array[kept]))


def _compare(
    stage: BuildStage, before: BuildStage | None, reference: _Reference
) -> StageResult:
    if stage.opaque:
        words = f"it is not known what {', '.join(stage.opaque)} computes"
        return StageResult(stage.name, "NOT RUN", words=words)
    runner = ExecutorRunner(stage.model, stage.name)
    feeds = _fed(stage.model, reference)
    found = list(runner.outputs(feeds).values())
    if len(found) != len(reference.outputs):
        words = f"it has {len(found)} outputs, the source {len(reference.outputs)}"
        return StageResult(stage.name, "DIFFERENT", words=words)
    apart = [
        _apart(x, y, stage.gives_places) for x, y in zip(reference.outputs, found, strict=True)
    ]
    values = sum(array.size for array in apart)
    differing = sum(int(array.sum()) for array in apart)
    ties = sum(int(array[reference.at_ties].sum()) for array in apart)
    if not differing:
        return StageResult(stage.name, "EQUAL", values)
    if differing == ties:
        up = [
            _apart(x, y, stage.gives_places)
            for x, y in zip(reference.upward, found, strict=True)
        ]
        pairs = zip(apart, up, strict=True)
        upward = sum(int((one & ~other).sum()) for one, other in pairs)
        telling = int((~reference.at_ties).sum())
        if upward == differing or telling >= _TELLING:
            return StageResult(stage.name, "TIES", values, differing, ties, upward)
        words = f"only {telling} samples meet no tie; give others with --inputs"
        return StageResult(stage.name, "UNDECIDED", values, differing, ties, upward, words)
    rows = np.any([a.any(axis=1) for a in apart], axis=0) & ~reference.at_ties
    words = _first_node(stage, before, reference, feeds, int(np.argmax(rows)))
    return StageResult(stage.name, "DIFFERENT", values, differing, ties, words=words)


def _fed(model: Model, reference: _Reference) -> dict[str, Array]:
    """Return the source's inputs as a stage takes them: by place, channels first or last."""
    entries = list(model.graph.inputs)
    arrays = list(reference.feeds.values())
    if len(entries) != len(arrays):
        raise UsageError(f"it takes {len(entries)} inputs, the source {len(arrays)}")
    return {
        str(entry.name): _turned(array, entry)
        for entry, array in zip(entries, arrays, strict=True)
    }


def _turned(array: Array, entry: onnx_ir.Value) -> Array:
    sizes = [] if entry.shape is None else list(entry.shape)[1:]
    rest = list(array.shape[1:])
    if sizes == rest or not all(isinstance(size, int) for size in sizes):
        return array
    first = np.moveaxis(array, -1, 1)
    if list(first.shape[1:]) == sizes:
        return np.ascontiguousarray(first)
    raise UsageError(f"'{entry.name}' takes {sizes}, a sample of the source has {rest}")


def _apart(wanted: Array, found: Array, places: bool) -> Array:
    """Return which values differ: (samples, values)."""
    x = wanted.reshape(len(wanted), -1).astype(np.float64)
    y = found.reshape(len(found), -1).astype(np.float64)
    noise = _NOISE * max(float(np.abs(x).max(initial=0.0)), 1e-9)
    if places and y.shape[1] <= x.shape[1]:
        # Of equal values, any may be named: the values at the places are compared.
        best = -np.sort(-x, axis=1)[:, : y.shape[1]]
        inside = (y >= 0) & (y < x.shape[1])
        named = np.take_along_axis(x, np.where(inside, y, 0).astype(np.int64), axis=1)
        return np.asarray(~inside | (np.abs(named - best) > noise))
    if x.shape != y.shape:
        return np.ones((len(x), max(x.shape[1], 1)), dtype=bool)
    return np.asarray(~(np.abs(x - y) <= noise))


def _ties_upward(model: Model) -> Model:
    """Return a copy whose activations round ties up, as FINN's thresholds do.

    Codes count from the lowest: where none is below 0, up is away from 0.
    """
    copy = model.clone()
    for node in quantizers(copy):
        quant = None if is_weight(node) else known(node)
        if not isinstance(quant, IntQuant) or quant.rounding is not Rounding.ROUND:
            continue
        if node.inputs[0] is None or (quant.signed and np.any(quant.bits == 1)):
            continue  # one bit with a sign has its threshold at 0, without a tie
        lowest = quantize_to_integers(np.array([-np.inf], dtype=np.float32), quant)
        zero = np.asarray(quant.zero_point - lowest, dtype=np.float32)
        counted = replace(
            quant,
            zero_point=zero,
            signed=False,
            rounding=Rounding.HALF_UP,
            zero_point_after_rounding=False,
        )
        twin = dialect.quantizer_node(node.inputs[0], counted, str(node.name), copy.graph)
        node.prepend(twin)
        replace_node(node, twin.outputs[0])
    return copy


def _meets_tie(model: Model, session: Session, feeds: Feeds) -> Iterator[bool]:
    values = {**session.run(feeds, all_tensors=True), **feeds}
    for node in model.graph:
        read = node.inputs[0] if node.inputs else None
        held = None if read is None or is_constant(read) else values.get(str(read.name))
        if held is None:
            continue
        if dialect.is_thresholds(node):
            yield _is_at_threshold(node, held)
        elif dialect.is_quantizer(node):
            quant = dialect.read_quantizer(node)
            # Parameters that are computed are not known here: any value may be a tie.
            yield True if quant is None else _is_at_tie(quant, held)


def _is_at_tie(quant: Quantizer, read: Array) -> bool:
    steps = read.astype(np.float64) / np.asarray(getattr(quant, "scale", 1.0))
    if not isinstance(quant, IntQuant):
        return bool(np.any(np.abs(steps) < _TIE))
    shift = 0.0 if quant.rounding is Rounding.FLOOR else 0.5
    codes = steps + np.asarray(quant.zero_point) + shift
    return bool(np.any(np.abs(codes - np.rint(codes)) < _TIE))


def _is_at_threshold(node: onnx_ir.Node, read: Array) -> bool:
    """Return whether a value lies within a small part of a step of a threshold."""
    known = dialect.constant_value(node.inputs[1])
    if known is None:
        return True
    rows = known.astype(np.float64)
    steps = np.diff(rows, axis=1) if rows.shape[1] > 1 else np.abs(rows)
    near = _TIE * max(float(np.median(steps)), float(np.abs(rows).max(initial=0.0)) * _TIE)
    axis = channel_axis(str(attribute(node, "data_layout", "")), read.ndim)
    below, above = (
        apply(read.astype(np.float64) + side * near, rows, axis, 1.0, 0.0) for side in (-1, 1)
    )
    return bool(np.any(below != above))


def _first_node(
    stage: BuildStage,
    before: BuildStage | None,
    reference: _Reference,
    feeds: Mapping[str, Array],
    sample: int,
) -> str:
    """Return the first node whose result is in nothing that the stage before computes.

    Steps move scales and axes about: a tensor is found again where its sorted values are those
    of another one up to a factor and an offset.
    """
    known: dict[str, Array] = {}
    for model in (reference.source.model, None if before is None else before.model):
        if model is not None:
            known |= _tensors(model, _one(_fed(model, reference), sample))
    shapes = [_outline(array) for array in known.values()]
    own = _tensors(stage.model, _one(feeds, sample))
    found = {name for name, array in own.items() if _is_among(_outline(array), shapes)}
    _add_moved(stage, own, found)
    lost = _lost(stage, own, found)
    inputs = {str(value.name) for value in stage.model.graph.inputs}
    for label, reads, makes in stage.nodes:
        moving = [name for name in reads if name in own or name in inputs]
        if not lost & {*makes} or not moving:
            continue
        if all(name in found or name in inputs for name in moving):
            return f"{label}: what it reads is as before, what it makes is not"
    return "no single node: what differs was moved and scaled along the way"


def _add_moved(stage: BuildStage, own: Mapping[str, Array], found: set[str]) -> None:
    """Add values found that were only moved and repeated, such as windows of an image."""
    for label, reads, makes in stage.nodes:
        moving = [name for name in reads if name in own]
        if moves_values(label.split(" ")[0]) and moving and found.issuperset(moving):
            found.update(name for name in makes if name in own)


def _lost(stage: BuildStage, own: Mapping[str, Array], found: set[str]) -> set[str]:
    """Return values that are not found again, and behind which nothing is."""
    good: set[str] = set()
    lost: set[str] = set()
    for _, reads, makes in reversed(stage.nodes):
        held = [name for name in makes if name in own]
        if not held:
            continue
        if any(name in found or name in good for name in held):
            good.update(reads)
        else:
            lost.update(held)
    return lost


def _one(feeds: Mapping[str, Array], sample: int) -> dict[str, Array]:
    return {name: array[sample : sample + 1] for name, array in feeds.items()}


def _tensors(model: Model, feeds: Mapping[str, Array]) -> dict[str, Array]:
    found = Session(model).run(feeds, all_tensors=True)
    arrays = ((k, v) for k, v in found.items() if isinstance(v, np.ndarray))
    return {name: array for name, array in arrays if array.dtype.kind == "f"}


def _outline(array: Array) -> Array:
    """Return the sorted values between 0 and 1, whatever factor and offset they have."""
    values = np.sort(array.reshape(-1).astype(np.float64))
    if not values.size or values[0] == values[-1]:
        return np.zeros(values.size)
    return np.asarray((values - values[0]) / (values[-1] - values[0]))


def _is_among(outline: Array, others: Sequence[Array]) -> bool:
    turned = 1.0 - outline[::-1]
    return any(
        outline.shape == other.shape
        and (
            np.abs(outline - other).max(initial=0.0) < 1e-4
            or np.abs(turned - other).max(initial=0.0) < 1e-4
        )
        for other in others
    )
