"""What a conversion must pass before anything is written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import onnx
from onnx_ir import Model

from qonnx_hub.conversion.error_bounds import observe_bounds
from qonnx_hub.equivalence.check import check_runners
from qonnx_hub.equivalence.graph_slices import elements_per_sample
from qonnx_hub.equivalence.inputs.batches import (
    batch_length,
    shares_first_axis,
    take_samples,
)
from qonnx_hub.equivalence.inputs.generate import generate_inputs
from qonnx_hub.equivalence.layerwise import first_beyond
from qonnx_hub.equivalence.noise import live_batches
from qonnx_hub.equivalence.opaque_nodes import CutSides, cut_opaque_nodes
from qonnx_hub.equivalence.options import CheckOptions
from qonnx_hub.equivalence.reports.report import CheckResult
from qonnx_hub.equivalence.request import check_opened, require_accepted
from qonnx_hub.equivalence.runners.sides import (
    ExecutorRunner,
    Runner,
    SourceRunner,
    run_label,
)
from qonnx_hub.equivalence.verdicts import Verdict
from qonnx_hub.executor.batch_axis import batcher_of
from qonnx_hub.executor.explained import reason_not_to_run
from qonnx_hub.executor.onnxruntime.nodes import runs_somewhere
from qonnx_hub.executor.session import Session
from qonnx_hub.io.model_files import fits_one_message, weight_bytes
from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_adapters.protocol import (
    Artifact,
    BoundsLayers,
    Feeds,
    Importer,
    LayerDistances,
    NearForm,
)
from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import ConversionError, ExecutionError, UsageError
from qonnx_hub_ir.facts import fixed_batch, unchanged
from qonnx_hub_ir.graph.queries import dims
from qonnx_hub_ir.graph.subgraphs import every_node
from qonnx_hub_ir.quantizers import Array
from qonnx_hub_ir.validity import label

_MANY = 4096
"""Samples of a file's own batch from which on it need not be compared whole."""

_MOST_ELEMENTS = 1 << 22
"""Elements of all values of one run in a file's own batch: 16 MiB of float32."""


def feeds_for_check(
    model: Model, samples: int | None, seed: int, notes: list[str]
) -> dict[str, Array] | None:
    """Return inputs for the checks; ``None``, and a note, where they cannot be run.

    That is where the model leaves sizes open, or holds more than one message does: checking
    it would read all of it into memory. A model with nodes that nothing here runs has none
    either; what is around them is compared by :func:`check_around`.
    """
    if not fits_one_message(model):
        notes.append(
            f"not checked: the weights take {weight_bytes(model) / 1e9:.1f} GB; 'check' "
            "compares the files, where there is memory for both"
        )
        return None
    if nodes_not_run(model):
        return None
    try:
        return _inputs_of(model, samples, seed)
    except UsageError as error:
        notes.append(f"not checked: {error}")
        return None


def why_not_compared(model: Model, feeds: Feeds) -> str:
    """Return the note that generated inputs do not run in a model that others may run in.

    Indices, sizes and texts have values that a graph takes, and generated ones may be others.
    Empty where the inputs run, or where nothing says that others do.

    Args:
        model: What the inputs are for.
        feeds: The inputs, by name.
    """
    try:
        Session(model).run(feeds)
    except ExecutionError as error:
        kinds = {values.dtype.kind for values in feeds.values()}
        if kinds - {"f", "V"} or not reason_not_to_run(model):
            return (
                f"not compared: generated inputs do not run in the source: {error}; "
                "'check --inputs' compares the files on given ones"
            )
    return ""


def nodes_not_run(model: Model) -> list[str]:
    """Return the nodes that nothing here runs."""
    return [label(node) for node in every_node(model) if not runs_somewhere(node)]


def _inputs_of(model: Model, samples: int | None, seed: int) -> dict[str, Array]:
    feeds = generate_inputs(model, samples, seed)
    shapes = [shape for value in model.graph.inputs if (shape := dims(value))]
    declared = {shape[0] for shape in shapes if isinstance(shape[0], int)}
    if len(declared) > 1 or not shares_first_axis(feeds):
        # They are not all samples: each input gets its own size, and the model is run once.
        return generate_inputs(model, 1, seed)
    return feeds


def check_source(
    importer: Importer, source: Any, model: Model, feeds: Feeds, label: str
) -> CheckResult | None:
    """Return how the IR compares to the live model it came from; ``None`` for files.

    Raises:
        ConversionError: They differ beyond what another order of summation explains.
    """
    answer = importer.run_source(source, feeds)
    if answer is None:
        return None
    result = check_runners(
        SourceRunner(importer, source, model, run_label(importer, source, label)),
        ExecutorRunner(model, "its IR"),
        feeds,
        CheckOptions(level="output", proof_seconds=0),
    )
    if isinstance(importer, BoundsLayers) and dialect.BOUNDED in model.metadata_props:
        return _judged_by_layers(result, importer.layer_distances(source), label)
    if result.verdict is not Verdict.DIFFERENT:
        return result
    if dialect.BOUNDED in model.metadata_props:
        reason = f"what was read is near, not exact: {model.metadata_props[dialect.BOUNDED]}"
        return replace(result, verdict=Verdict.WITHIN, reason=reason)
    layer = first_beyond(importer, source, model, live_batches(model, feeds))
    where = f"; the first layer that differs is '{layer}'" if layer else ""
    raise ConversionError(
        f"the imported graph of {label} computes other values than the model: "
        f"{result.summary()}{where}; nothing was written. This is a defect of the "
        f"importer, or the model does not compute the same every time"
    )


def _judged_by_layers(
    result: CheckResult, distances: LayerDistances, label: str
) -> CheckResult:
    """Return a comparison of kernels with float layers as what is proven of them allows.

    Raises:
        ConversionError: Outputs differ further than their layers may.
    """
    if not distances.layers and result.verdict is not Verdict.DIFFERENT:
        return result
    # Of outputs that are whole numbers.
    limit, sizes = distances.outputs, [x.max_abs for x in result.outputs]
    measured = max((size for size in sizes if size % 1 == 0), default=0.0)
    if limit is not None and measured > limit:
        raise ConversionError(
            f"{label} differs by {measured:g} steps from its float layers, which differ by "
            f"{limit} at most: {result.summary()}; nothing was written. This is a defect of "
            "the converter"
        )
    words = distances.words()
    if distances.unknown:
        reason = f"{words}: what differs at the outputs was measured on these inputs"
        return replace(result, verdict=Verdict.UNDECIDED, reason=reason)
    if limit is not None:
        reason = f"{words}; outputs within {limit} step{'s' if limit != 1 else ''} of the grid"
        return replace(result, verdict=Verdict.PROVEN_WITHIN, reason=reason)
    reason = f"{words}; at the outputs of the whole, what differs was measured"
    return replace(result, verdict=Verdict.WITHIN, reason=reason)


def _judged_as_near(
    result: CheckResult, near: NearForm, source: Runner, feeds: Feeds
) -> CheckResult:
    """Return how a near form compares: its float layers to the source, its own to these.

    Raises:
        ConversionError: Outputs differ further than their layers may.
    """
    floats = ExecutorRunner(near.model, "the file's float layers")
    whole = check_runners(source, floats, feeds, CheckOptions())
    if whole.verdict is Verdict.PROVEN:
        return _judged_by_layers(result, near.distances, source.label)
    if whole.verdict.holds and not near.distances.unknown:
        reason = (
            f"its float layers are {whole.verdict} ({whole.reason}); "
            f"{near.distances.words()}; at the outputs, what differs was measured"
        )
        return replace(result, verdict=Verdict.WITHIN, reason=reason)
    reason = (
        f"near: its float layers are {whole.verdict} from the source, {whole.summary()}; "
        f"{near.distances.words()}; what differs was measured on these inputs"
    )
    return replace(result, verdict=Verdict.UNDECIDED, reason=reason)


def folding_of(artifact: Artifact) -> str:
    """Return why what a form stores need not be what its source does; empty where it must."""
    if artifact.reordered:
        return "the form adds and multiplies in another order"
    return "the form computes in integers" if artifact.codes else ""


def check_artifact(
    model: Model,
    artifact: Artifact,
    message: onnx.ModelProto,
    feeds: Feeds,
    label: str,
    to: str,
) -> CheckResult:
    """Return how what was made compares to its source, both on the executor.

    Args:
        model: The source.
        artifact: What was made of it.
        message: What is compared, as it will be written.
        feeds: Inputs, by the names of the source.
        label: How reports call the source.
        to: Name of the form.

    Raises:
        ConversionError: It differs although every quantizer was said to be exact; or, where
            only the order of operations is another, beyond what that explains; or from what
            the exporter predicted.
    """
    sides = CutSides(*_sides(model, message, label, to))
    return _judge(*_of_any_batch(sides, feeds), artifact, label, to)


def check_on_data(
    model: Model, message: onnx.ModelProto, options: CheckOptions, label: str, to: str
) -> CheckResult:
    """Return how predictions on a user's data compare, both on the executor.

    Args:
        model: The source.
        message: What is compared, as it will be written.
        options: The data, labels, and bounds.
        label: How reports call the source.
        to: Name of the form.

    Raises:
        UsageError: Data that do not fit the model.
        ConversionError: A bound is not kept.
    """
    result = check_opened(*_sides(model, message, label, to), options)
    require_accepted(result, f"the {to} form of {label}")
    return result


def check_around(
    model: Model,
    artifact: Artifact,
    message: onnx.ModelProto,
    asked: tuple[int | None, int],
    label: str,
    to: str,
) -> tuple[CheckResult | None, str]:
    """Return how what was made compares around nodes that nothing runs; it is never equal.

    Args:
        model: The source.
        artifact: What was made of it.
        message: What is compared, as it will be written.
        asked: How many samples, and their seed.
        label: How reports call the source.
        to: Name of the form.

    Returns:
        ``None`` and why, where it cannot be told what stands in the place of such a node.

    Raises:
        ConversionError: As :func:`check_artifact`.
    """
    cut = cut_opaque_nodes(*_sides(model, message, label, to))
    if not cut.not_run or cut.a.model is None:
        unknown = nodes_not_run(model)
        rest = f" and {len(unknown) - 3} others" if len(unknown) > 3 else ""
        return None, f"not compared: nothing here runs {', '.join(unknown[:3])}{rest}"
    try:
        feeds = _inputs_of(cut.a.model, *asked)
    except UsageError as error:
        return None, f"not checked: {error}"
    return _judge(cut, feeds, artifact, label, to), ""


def _sides(
    model: Model, message: onnx.ModelProto, label: str, to: str
) -> tuple[ExecutorRunner, ExecutorRunner]:
    # Read as it stands, node by node: an importer would turn encodings into quantizers.
    return ExecutorRunner(model, label), ExecutorRunner(read_model(message), f"{to} file")


def _of_any_batch(sides: CutSides, feeds: Feeds) -> tuple[CutSides, Feeds]:
    """Return both sides for any number of samples, where files ask for very many at once.

    Whole batches of theirs would take minutes and show no more: both keep samples apart.
    """
    assert sides.a.model is not None, "the executor runs graphs"
    assert sides.b.model is not None, "the executor runs graphs"
    frozen = fixed_batch(sides.a.model) or 0
    if frozen < _MANY or elements_per_sample(sides.a.model) <= _MOST_ELEMENTS:
        return sides, feeds
    a, b = batcher_of(sides.a.model).wide_model, batcher_of(sides.b.model).wide_model
    if a is None or b is None:
        return sides, feeds
    opened = CutSides(ExecutorRunner(a, sides.a.label), ExecutorRunner(b, sides.b.label))
    return opened, take_samples(feeds, slice(0, batch_length(a)))


def _judge(
    sides: CutSides, feeds: Feeds, artifact: Artifact, label: str, to: str
) -> CheckResult:
    source, file = sides.a, sides.b
    assert source.model is not None, "the executor runs graphs"
    assert file.model is not None, "the executor runs graphs"
    options = CheckOptions(folded=folding_of(artifact))
    with unchanged(source.model, file.model):
        result = sides.judged(check_runners(source, file, feeds, options, sides.left_out))
    if artifact.near is not None:
        return _judged_as_near(result, artifact.near, source, feeds)
    if not all(record.exact for record in artifact.quantizers):
        kept = observe_bounds(source.model, artifact, file.model, feeds)
        if kept.broken:
            raise ConversionError(
                f"the {to} form of {label} is further from its source than its exporter "
                f"predicted: {'; '.join(kept.broken)}; nothing was written. This is a defect "
                "of the converter"
            )
        reason = "each near quantizer stays within what its exporter predicts"
        verdict = Verdict.WITHIN
        if result.verdict not in {Verdict.DIFFERENT, Verdict.UNDECIDED}:
            return result
        said = f"{reason}: {kept.measured}" if kept.measured else reason
        if sides.not_run:
            verdict, said = Verdict.INCOMPLETE, f"not run: {', '.join(sides.not_run)}; {said}"
        return replace(result, verdict=verdict, reason=said)
    if result.verdict is not Verdict.DIFFERENT:
        return result
    raise ConversionError(
        f"the {to} form of {label} computes other values: "
        f"{result.summary()}; nothing was written. This is a defect of the converter"
    )
