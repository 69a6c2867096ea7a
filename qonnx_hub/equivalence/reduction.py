"""The smallest part of two models that still differs, and an input that shows it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import onnx_ir
from onnx_ir import Model

from qonnx_hub.equivalence.check import match_sides
from qonnx_hub.equivalence.comparison.compare import differs
from qonnx_hub.equivalence.comparison.matching import Pair
from qonnx_hub.equivalence.diagnosis.minimize import FailingInput, find_failing_input
from qonnx_hub.equivalence.graph_slices import nodes_between
from qonnx_hub.equivalence.inputs.batches import SampleBatch
from qonnx_hub.equivalence.options import CheckOptions
from qonnx_hub.equivalence.reports.report import CheckResult
from qonnx_hub.equivalence.request import BACKENDS, check_opened, open_sides
from qonnx_hub.equivalence.runners.sides import ExecutorRunner, OrtRunner, Runner, for_side
from qonnx_hub.equivalence.verdicts import Verdict
from qonnx_hub.io.arrays import npz_bytes
from qonnx_hub.io.atomic import write_folder
from qonnx_hub.io.model_files import in_one_message
from qonnx_hub.reporting.plain_data import plain
from qonnx_hub.reporting.progress import stage
from qonnx_hub.reporting.report import Part, Report
from qonnx_hub.reporting.tables import Table
from qonnx_hub_adapters.onnx_reader import is_onnx
from qonnx_hub_adapters.protocol import Feeds
from qonnx_hub_ir.errors import HubError, UsageError
from qonnx_hub_ir.graph.partition import extract_model


@dataclass(frozen=True, slots=True)
class ReducedSide:
    """What is left of one model.

    Attributes:
        label: How reports call the model.
        message: The part, as it is written.
        nodes: Nodes of the part.
        of: Nodes of the model.
        operators: Operators of the part, in order.
    """

    label: str
    message: onnx.ModelProto
    nodes: int
    of: int
    operators: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, without the model."""
        found = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        del found["message"]
        return {**plain(found), "bytes": self.message.ByteSize()}


@dataclass(frozen=True, slots=True, repr=False)
class ReduceReport(Report):
    """The smallest part of two models that still differs. True where there is one.

    Attributes:
        a: What is left of the reference.
        b: What is left of the other side.
        failing: The input of both, and where they differ.
        result: The check of the parts on that input, which shows the difference.
        whole: The check of the models.
        backend: Where the other side runs.
        files: What was written.
    """

    schema: ClassVar[str] = "reduce/1"
    heading: ClassVar[str] = "Smallest part that fails"

    a: ReducedSide
    b: ReducedSide
    failing: FailingInput
    result: CheckResult
    whole: CheckResult
    backend: str = "numpy"
    files: tuple[str, ...] = ()

    def summary(self) -> str:
        """Return what is left, in one line."""
        return (
            f"{self.a.label} against {self.b.label}: {self.a.nodes} of {self.a.of} and "
            f"{self.b.nodes} of {self.b.of} nodes still differ; '{self.failing.layer}' is "
            f"{self.failing.values[0]!r} against {self.failing.values[1]!r}"
        )

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per side."""
        return [side.to_dict() for side in (self.a, self.b)]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data, fit for JSON."""
        return {
            "a": self.a.to_dict(),
            "b": self.b.to_dict(),
            "failing": plain(self.failing),
            "result": self.result.to_dict(),
            "whole": self.whole.to_dict(),
            "backend": self.backend,
            "files": list(self.files),
        }

    def parts(self) -> Iterator[Part]:
        """Give both parts, the cause, what was written, and the summary."""
        rows = [
            (side.label, f"{side.nodes} of {side.of}", ", ".join(side.operators))
            for side in (self.a, self.b)
        ]
        yield Table(("model", "nodes", "operators"), rows)
        yield ""
        shapes = {n: f"{x.dtype.name}{list(x.shape)}" for n, x in self.failing.feeds.items()}
        yield f"input: {', '.join(f'{name} {what}' for name, what in shapes.items())}"
        if self.result.findings:
            first = self.result.findings[0]
            yield f"cause: {first.cause} in layer '{first.layer}': {first.words}"
        yield from (f"written: {path}" for path in self.files)
        yield self.summary()


def reduce_models(
    first: Any, second: Any, labels: tuple[str, str], options: CheckOptions
) -> ReduceReport:
    """Return the smallest part of two models that still differs, with an input for it.

    The models are checked; the first inner value that differs is taken, and of the values
    before it the nearest on which both sides agree. What lies between is checked anew, and
    only parts that differ are given back.

    Args:
        first: The reference: a model file or a model.
        second: The other side, likewise.
        labels: How reports call them.
        options: As for a check.

    Raises:
        UsageError: The models do not differ, or have no graphs that can be cut.
        HubError: As in :func:`qonnx_hub.equivalence.request.check_request`.
    """
    options = dataclasses.replace(options, level="layer")
    a, b, asked = open_sides(first, second, labels, options)
    for side in (a, b):
        if not isinstance(side, (ExecutorRunner, OrtRunner)):
            raise UsageError(f"{side.label} has no graph that could be cut; give model files")
    whole = check_opened(a, b, asked)
    if whole.verdict is not Verdict.DIFFERENT:
        raise UsageError(
            f"there is nothing to reduce, since no input shows a difference: {whole.summary()}"
        )
    if whole.failing is None:
        raise UsageError(
            f"no single input shows the difference, so that nothing can be cut: "
            f"{whole.summary()}"
        )
    stage("cutting the models")
    batch = SampleBatch(0, 0, whole.failing.feeds)
    pairs = match_sides(a, b, asked)
    graphs = [(_as_written(a, first), _as_written(b, second)), (_graph(a), _graph(b))]
    for known, pair in _cuts(a, b, [*pairs.layers, *pairs.outputs], batch):
        for both in graphs:
            found = _reduced(a, b, both, known, pair, batch)
            if found is not None:
                return dataclasses.replace(found, whole=whole)
    raise UsageError(f"no part of the models shows the difference alone: {whole.summary()}")


def _graph(side: Runner) -> Model:
    assert side.model is not None
    return side.model


def _as_written(side: Runner, source: Any) -> Model:
    """Return the graph of a file in its own operators, where it is one of ONNX."""
    is_file = isinstance(source, (str, Path)) and is_onnx(source)
    return OrtRunner(source, side.label).model if is_file else _graph(side)


def _cuts(
    a: Runner, b: Runner, pairs: Sequence[Pair], batch: SampleBatch
) -> Iterator[tuple[list[Pair], Pair]]:
    """Give cuts before values that differ: the first one's nearest cut, then wider ones."""
    shown_a = a.answer(batch, [p.a for p in pairs])
    shown_b = b.answer(for_side(batch, b), [p.b for p in pairs])
    agreeing: list[Pair] = []
    for pair in pairs:
        x, y = shown_a.get(pair.a), shown_b.get(pair.b)
        if pair.constant or not isinstance(x, np.ndarray) or not isinstance(y, np.ndarray):
            continue
        if x.shape == y.shape and not differs(x, y).any():
            agreeing.append(pair)
            continue
        known = list(agreeing)
        while cut := _read_before(a, b, known, pair):
            yield cut, pair
            known = [p for p in known if p not in cut]
        yield [], pair


def _read_before(a: Runner, b: Runner, known: Sequence[Pair], pair: Pair) -> list[Pair]:
    """Return the known pairs that either side reads on its way to a pair."""
    read: set[str] = set()
    ours, theirs = {p.a: p for p in known}, {p.b: p for p in known}
    for side, names, wanted in ((a, ours, pair.a), (b, theirs, pair.b)):
        for node in nodes_between(_graph(side), names.keys(), wanted):
            found = (names.get(str(v.name)) for v in node.inputs if v is not None)
            read.update(p.a for p in found if p is not None)
    return [p for p in known if p.a in read]


def _reduced(
    a: Runner,
    b: Runner,
    graphs: tuple[Model, Model],
    known: Sequence[Pair],
    pair: Pair,
    batch: SampleBatch,
) -> ReduceReport | None:
    """Return the parts between known values and a pair; ``None`` where they do not differ."""
    given = a.answer(batch, [p.a for p in known])
    feeds = {**batch.feeds, **given}
    there = {**for_side(batch, b).feeds, **{p.b: given[p.a] for p in known}}
    try:
        left = _part(a, graphs[0], [p.a for p in known], pair.a, feeds)
        right = _part(b, graphs[1], [p.b for p in known], pair.b, there)
        names = [[v.name for v in side.message.graph.input] for side in (left, right)]
        own = {name: feeds[name] for name in names[0]}
        twins = dict(zip(feeds, there, strict=True))
        if not own or [twins[name] for name in own] != names[1]:
            return None
        backend = "numpy"
        if isinstance(b, OrtRunner):
            backend = next(name for name, how in BACKENDS.items() if how == b.optimize)
        options = CheckOptions(inputs=own, backend=backend, proof_seconds=0)
        labels = (a.label, b.label)
        c, d, asked = open_sides(left.message, right.message, labels, options)
        output = Pair(pair.source, c.output_names[0], d.output_names[0])
        smallest = find_failing_input(c, d, output, SampleBatch(0, 0, own))
        if smallest is None:
            return None
        asked = dataclasses.replace(asked, inputs=smallest.feeds)
        result = check_opened(c, d, asked)
    except HubError:
        return None
    if result.verdict is not Verdict.DIFFERENT:
        return None
    return ReduceReport(left, right, smallest, result, result, backend)


def _part(
    side: Runner, graph: Model, known: Sequence[str], wanted: str, feeds: Feeds
) -> ReducedSide:
    """Return the part of a graph between known values, or its inputs, and a value.

    Raises:
        PassError: The graph has no such values.
    """
    own = [str(v.name) for v in graph.graph.inputs]
    part = extract_model(graph, [*known, *own] if known else (), [wanted])
    for value in part.graph.inputs:
        array = feeds[str(value.name)]
        # A file need not declare what its inner values are; of its inputs it must.
        if value.dtype is None:
            value.dtype = onnx_ir.DataType.from_numpy(array.dtype)
        if value.shape is None:
            value.shape = onnx_ir.Shape(array.shape)
    (output,) = part.graph.outputs
    if output.dtype is None:
        output.dtype = onnx_ir.DataType.FLOAT
    message = in_one_message(part)
    operators = tuple(dict.fromkeys(node.op_type for node in part.graph))
    return ReducedSide(side.label, message, len(part.graph), len(graph.graph), operators)


def write_reduction(report: ReduceReport, folder: str | Path) -> ReduceReport:
    """Write both parts, the input and a text that says how to see the difference.

    Args:
        report: What is left of two models.
        folder: A new folder, or one that was written before.

    Raises:
        UsageError: The folder cannot be written, or others filled it.
    """
    backend = f" --backend {name}" if (name := report.backend) != "numpy" else ""
    command = f"qonnx-hub check a.onnx b.onnx --inputs input.npz{backend}"
    versions = ", ".join(f"{k} {v}" for k, v in report.whole.environment.items())
    text = "\n".join((report.table().rstrip(), "", command, "", versions, ""))
    files = {
        "a.onnx": report.a.message.SerializeToString(deterministic=True),
        "b.onnx": report.b.message.SerializeToString(deterministic=True),
        "input.npz": npz_bytes(report.failing.feeds),
        "README.txt": text.encode(),
    }
    write_folder(folder, files)
    return dataclasses.replace(report, files=tuple(str(Path(folder) / x) for x in files))
