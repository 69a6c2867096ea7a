"""What a conversion must pass before anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx_ir import Model

from qonnx_hub.conversion.error_bounds import broken_bounds
from qonnx_hub.equivalence.check import check_runners
from qonnx_hub.equivalence.comparison.compare import Tolerance
from qonnx_hub.equivalence.inputs.batches import count_samples, cut_feeds
from qonnx_hub.equivalence.inputs.generate import generate_inputs
from qonnx_hub.equivalence.layerwise import differs_by_ties_only
from qonnx_hub.equivalence.options import CheckOptions
from qonnx_hub.equivalence.reports.report import CheckResult
from qonnx_hub.equivalence.runners.sides import (
    ORT_OPTIMIZED,
    ExecutorRunner,
    OrtRunner,
    SourceRunner,
)
from qonnx_hub.executor.onnxruntime.nodes import runs_somewhere
from qonnx_hub.executor.session import Session
from qonnx_hub.io.model_files import fits_one_message, weight_bytes
from qonnx_hub_adapters.dependencies import is_installed
from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_adapters.protocol import (
    Artifact,
    Feeds,
    Importer,
    ShowsLayers,
)
from qonnx_hub_ir import dialect
from qonnx_hub_ir.analysis.float_error import REORDERED, reordering_error
from qonnx_hub_ir.errors import ConversionError, UsageError
from qonnx_hub_ir.facts import fixed_batch
from qonnx_hub_ir.graph.queries import dims
from qonnx_hub_ir.graph.subgraphs import every_node
from qonnx_hub_ir.quantizers import Array
from qonnx_hub_ir.verify import label

_RUNTIME_DOMAINS = frozenset({"", "ai.onnx", "com.microsoft"})
"""What onnxruntime runs without anything added."""

FLIPPED_SHARE = 0.01
"""Share of outputs that may lie beyond the noise: sums on a rounding tie of an inner quantizer
fall to either side."""


_LOCATED_BATCHES = 16
"""Batches of the feeds in which the first layer that differs is looked for."""


def feeds_for_check(
    model: Model, samples: int | None, seed: int, notes: list[str]
) -> dict[str, Array] | None:
    """Return inputs for the checks; ``None``, and a note, where they cannot be run.

    That is where the model leaves sizes open, has nodes that nothing here can run, or holds
    more than one message does: checking it would read all of it into memory.
    """
    if not fits_one_message(model):
        notes.append(
            f"not checked: the weights take {weight_bytes(model) / 1e9:.1f} GB; 'check' "
            "compares the files, where there is memory for both"
        )
        return None
    unknown = [label(node) for node in every_node(model) if not runs_somewhere(node)]
    if unknown:
        rest = f" and {len(unknown) - 3} others" if len(unknown) > 3 else ""
        notes.append(f"not compared: nothing here runs {', '.join(unknown[:3])}{rest}")
        return None
    try:
        feeds = generate_inputs(model, samples, seed)
    except UsageError as error:
        notes.append(f"not checked: {error}")
        return None
    shapes = [shape for value in model.graph.inputs if (shape := dims(value))]
    sizes = [shape[0] for shape in shapes if isinstance(shape[0], int)]
    if len(set(sizes)) > 1:
        words = ", ".join(map(str, sizes))
        notes.append(
            f"not checked: the first axes of the inputs ({words}) are not all samples"
        )
        return None
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
        SourceRunner(importer, source, model, label),
        ExecutorRunner(model, "its IR"),
        feeds,
        CheckOptions(summation_noise(answer.values()), level="output"),
    )
    bounded = dialect.BOUNDED in model.metadata_props
    if not result and not bounded and not explained_by_ties(result):
        if differs_by_ties_only(importer, source, model, _batches(model, feeds)):
            return result
        layer = _first_layer(importer, source, model, feeds)
        where = f"; the first layer that differs is '{layer}'" if layer else ""
        raise ConversionError(
            f"the imported graph of {label} computes other values than the model: "
            f"{result.summary()}{where}; nothing was written. This is a defect of the "
            f"importer, or the model does not compute the same every time"
        )
    return result


def _first_layer(importer: Importer, source: Any, model: Model, feeds: Feeds) -> str:
    """Return the first layer whose values differ from the live model's; "" if none shows."""
    if not isinstance(importer, ShowsLayers):
        return ""
    session = Session(model)
    for batch in _batches(model, feeds):
        shown = importer.run_layers(source, batch)
        computed = session.run(batch, all_tensors=True)
        for value in (value for node in model.graph for value in node.outputs):
            layer = value.metadata_props.get(dialect.PROVENANCE, "")
            ours, own = computed.get(str(value.name)), shown.get(layer)
            if ours is None or own is None or ours.shape != own.shape:
                continue
            beyond = ~(np.abs(ours - own) <= reordering_error([own])) & (ours != own)
            if np.count_nonzero(beyond) > FLIPPED_SHARE * own.size:
                return layer
    return ""


def _batches(model: Model, feeds: Feeds) -> Iterator[Feeds]:
    """Give the first batches of the feeds, each of the file's own size."""
    length = fixed_batch(model) or max(count_samples(feeds), 1)
    return cut_feeds(feeds, length, _LOCATED_BATCHES)


def check_artifact(
    model: Model,
    artifact: Artifact,
    message: onnx.ModelProto,
    feeds: Feeds,
    label: str,
    to: str,
) -> tuple[CheckResult, CheckResult | None]:
    """Return how what was made compares to its source: on the executor, on onnxruntime.

    Args:
        model: The source.
        artifact: What was made of it.
        message: What is compared, as it will be written.
        feeds: Inputs, by the names of the source.
        label: How reports call the source.
        to: Name of the form.

    Raises:
        ConversionError: It differs although every quantizer was said to be exact; or, where
            only the order of operations is another, beyond what that explains.
        SourceError: onnxruntime does not load it.
    """
    source, made = ExecutorRunner(model, label), artifact.compared or artifact.model
    # One sample can be zero everywhere, and say nothing about magnitudes.
    measured = feeds if artifact.reordered else next(_batches(model, feeds))
    noise = summation_noise(source.outputs(measured).values())
    exact = all(record.exact for record in artifact.quantizers)
    # Read as it stands, node by node: an importer would turn encodings into quantizers.
    written = read_model(message)
    result = check_runners(
        source,
        ExecutorRunner(written, f"{to} file"),
        feeds,
        CheckOptions(Tolerance() if exact and not artifact.reordered else noise),
    )
    tolerated = artifact.reordered and explained_by_ties(result)
    if not result and exact and not tolerated:
        raise ConversionError(
            f"the {to} form of {label} computes other values: "
            f"{result.summary()}; nothing was written. This is a defect of the converter"
        )
    broken = [] if exact else broken_bounds(model, artifact, written, feeds)
    if broken:
        raise ConversionError(
            f"the {to} form of {label} is further from its source than its exporter "
            f"predicted: {'; '.join(broken)}; nothing was written. This is a defect of the "
            "converter"
        )
    file = OrtRunner(message, f"{to} file on onnxruntime", graph=made)
    if not (_is_for_onnxruntime(made, message) and is_installed("onnxruntime")):
        return result, None
    # Loading with default options is part of what the form promises; numbers are compared on
    # the graph as written, because the default optimizations change them by design.
    OrtRunner(message, file.label, optimize=ORT_OPTIMIZED).ready()
    return result, check_runners(source, file, feeds, CheckOptions(noise, level="output"))


def _is_for_onnxruntime(made: Model, message: onnx.ModelProto) -> bool:
    """Return whether onnxruntime knows every operator, in branches and loops as well."""
    defined = {(function.domain, function.name) for function in message.functions}
    return all(
        node.domain in _RUNTIME_DOMAINS or (node.domain, node.op_type) in defined
        for node in every_node(made, functions=False)
    )


def explained_by_ties(result: CheckResult) -> bool:
    """Return whether no more values are out of bounds than lie on a rounding tie."""
    beyond = sum(output.beyond for output in result.outputs)
    return beyond <= FLIPPED_SHARE * sum(output.count for output in result.outputs)


def summation_noise(outputs: Iterable[Array]) -> Tolerance:
    """Return what another order of summation explains, with one step on a rounding tie."""
    return Tolerance(atol=reordering_error(outputs), rtol=REORDERED, lsb=1)
