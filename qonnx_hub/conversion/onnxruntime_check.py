"""What was made, on onnxruntime: against the source there where it loads, and against ours."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx_ir import Model

from qonnx_hub.conversion.validation import folding_of
from qonnx_hub.equivalence.check import check_runners
from qonnx_hub.equivalence.inputs.batches import SampleBatch, take_samples
from qonnx_hub.equivalence.options import CheckOptions
from qonnx_hub.equivalence.reports.report import CheckResult
from qonnx_hub.equivalence.runners.sides import (
    ORT_OPTIMIZED,
    ExecutorRunner,
    OrtRunner,
    Runner,
)
from qonnx_hub.executor.onnxruntime.backend import refused_feed, refused_output
from qonnx_hub.executor.onnxruntime.nodes import first_refused
from qonnx_hub_adapters.dependencies import is_installed
from qonnx_hub_adapters.external_data import whole_message
from qonnx_hub_adapters.onnx_reader import describe, is_onnx
from qonnx_hub_adapters.protocol import Artifact, Feeds
from qonnx_hub_ir.errors import ExecutionError, HubError, SourceError
from qonnx_hub_ir.facts import fixed_batch
from qonnx_hub_ir.graph.queries import Dims, dims
from qonnx_hub_ir.graph.subgraphs import every_node

_RUNTIME_DOMAINS = frozenset({"", "ai.onnx", "com.microsoft"})
"""What onnxruntime runs without anything added."""

_WITHOUT_KERNEL = re.compile(r"implementation for (?:[\w.]+:)?(\w+)\(")


@dataclass(frozen=True, slots=True)
class OrtAnswers:
    """How what was made compares on onnxruntime.

    Attributes:
        first: Against the source on onnxruntime, or on the executor where onnxruntime does not
            load the source; ``None`` where what was made is not run there.
        executor: Against the source on the executor, where ``first`` is not.
        notes: Why something was not run.
    """

    first: CheckResult | None = None
    executor: CheckResult | None = None
    notes: tuple[str, ...] = ()


def check_on_onnxruntime(
    source: Any, model: Model, artifact: Artifact, message: onnx.ModelProto, feeds: Feeds
) -> OrtAnswers:
    """Return how what was made compares to its source on onnxruntime, where both load.

    Args:
        source: What the model was read of.
        model: The source's IR, with the inputs that the feeds are for.
        artifact: What was made of it.
        message: What is compared, as it will be written.
        feeds: Inputs, by the names of the model.

    Raises:
        SourceError: onnxruntime does not load it, and nothing in the source explains that.
    """
    made = artifact.compared or artifact.model
    if not (_is_for_onnxruntime(made, message) and is_installed("onnxruntime")):
        return OrtAnswers()
    file = OrtRunner(message, "the file on onnxruntime", graph=made)
    original = _on_onnxruntime(source, model)
    broken = original is not None and not _loads_optimized(source)
    said = ("the default optimizations of onnxruntime break the source already",)
    notes: tuple[str, ...] = said if broken else ()
    try:
        # Loading with default options is part of what the form promises; numbers are compared
        # on the graph as written: the default optimizations change them by design.
        if not broken:
            OrtRunner(message, file.label, optimize=ORT_OPTIMIZED).ready()
        file.ready()
    except SourceError as error:
        reason = _shared_reason(source, model, str(error), loads=original is not None)
        if not reason:
            told = first_refused(made)
            alone = f"{file.label}: onnxruntime does not load it: {told}"
            words = alone if told else f"{error} (no node of it is refused alone)"
            raise SourceError(f"{describe(source)}: {words}") from error
        return OrtAnswers(notes=(f"not run on onnxruntime: {reason}",))
    if problem := refused_feed(feeds) or refused_output(file.ready()):
        return OrtAnswers(notes=(f"not run on onnxruntime: {problem}",))
    own = ExecutorRunner(model, "the source on the executor")
    options = CheckOptions(
        level="output", proof_seconds=0, samples_only=True, folded=folding_of(artifact)
    )
    problem = "" if original is None else _problem_of(original, feeds)
    first: Runner = own if original is None or problem else original
    try:
        answers = [check_runners(first, file, feeds, options)]
    except ExecutionError:
        if not problem:
            raise
        return OrtAnswers(
            notes=(f"not run on onnxruntime: it fails on the source ({problem})",)
        )
    if first is own:
        notes += (f"the source is not run on onnxruntime: {problem}",) if problem else ()
        return OrtAnswers(answers[0], None, notes)
    return OrtAnswers(answers[0], check_runners(own, file, feeds, options), notes)


def _loads_optimized(source: Any) -> bool:
    """Return whether onnxruntime loads a source with its default optimizations."""
    try:
        OrtRunner(source, "the source on onnxruntime", optimize=ORT_OPTIMIZED).ready()
    except HubError:
        return False
    return True


def _problem_of(original: OrtRunner, feeds: Feeds) -> str:
    """Return why onnxruntime loads the source and does not run it; empty where it runs."""
    samples = take_samples(feeds, slice(0, fixed_batch(original.model) or 1))
    try:
        original.answer(SampleBatch(0, 0, samples), original.output_names)
    except ExecutionError as error:
        return " ".join(str(error).split())[:200]
    return ""


def _is_for_onnxruntime(made: Model, message: onnx.ModelProto) -> bool:
    """Return whether onnxruntime knows every operator, in branches and loops as well."""
    defined = {(function.domain, function.name) for function in message.functions}
    return all(
        node.domain in _RUNTIME_DOMAINS or (node.domain, node.op_type) in defined
        for node in every_node(made, functions=False)
    )


def _on_onnxruntime(source: Any, model: Model) -> OrtRunner | None:
    """Return the source on onnxruntime; ``None`` where it is no file of ONNX that loads there.

    The model may have other inputs by now: another layout, other names.
    """
    if not isinstance(source, (str, Path, onnx.ModelProto)) or not is_onnx(source):
        return None
    found = OrtRunner(source, "the source on onnxruntime")
    try:
        session = found.ready()
    except HubError:
        return None
    ours = [(str(v.name), dims(v)) for v in model.graph.inputs]
    theirs = [(one.name, one.shape) for one in session.get_inputs()]
    return found if _are_alike(ours, theirs) else None


def _are_alike(
    ours: Sequence[tuple[str, Dims | None]], theirs: Sequence[tuple[str, list[Any]]]
) -> bool:
    """Return whether two signatures have the same names, and no sizes that differ."""
    if [name for name, _ in ours] != [name for name, _ in theirs]:
        return False
    sizes = ((x, y) for (_, x), (_, y) in zip(ours, theirs, strict=True) if x is not None)
    return all(len(x) == len(y) and not _conflict(x, y) for x, y in sizes)


def _conflict(x: Dims, y: Sequence[Any]) -> bool:
    pairs = zip(x, y, strict=True)
    return any(isinstance(m, int) and isinstance(n, int) and m != n for m, n in pairs)


def _shared_reason(source: Any, model: Model, failure: str, *, loads: bool) -> str:
    """Return why onnxruntime cannot load the source either; empty where it can or may."""
    if loads:
        return ""
    missing = _WITHOUT_KERNEL.search(failure)
    if missing and missing[1] in {node.op_type for node in every_node(model)}:
        return f"it has no kernel for {missing[1]}, which the source holds as well"
    if not isinstance(source, (str, Path, onnx.ModelProto)) or not is_onnx(source):
        return ""
    held = source if isinstance(source, onnx.ModelProto) else whole_message(source)
    if not all(node.domain in _RUNTIME_DOMAINS for node in held.graph.node):
        return ""
    try:
        OrtRunner(held, "the source").ready()
    except HubError as error:
        return f"it does not load the source either ({' '.join(str(error).split())[:200]})"
    return ""
