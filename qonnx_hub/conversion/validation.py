"""What a conversion must pass before anything is written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx_ir import Model

from qonnx_hub.conversion.error_bounds import observe_bounds
from qonnx_hub.equivalence.check import check_runners
from qonnx_hub.equivalence.inputs.batches import shares_first_axis
from qonnx_hub.equivalence.inputs.generate import generate_inputs
from qonnx_hub.equivalence.noise import (
    FLIPPED_SHARE,
    live_batches,
)
from qonnx_hub.equivalence.options import CheckOptions
from qonnx_hub.equivalence.reports.report import CheckResult
from qonnx_hub.equivalence.runners.sides import (
    ExecutorRunner,
    SourceRunner,
    run_label,
)
from qonnx_hub.equivalence.verdicts import Verdict
from qonnx_hub.executor.onnxruntime.nodes import runs_somewhere
from qonnx_hub.executor.session import Session
from qonnx_hub.io.model_files import fits_one_message, weight_bytes
from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_adapters.protocol import (
    Artifact,
    Feeds,
    Importer,
    ShowsLayers,
)
from qonnx_hub_ir import dialect
from qonnx_hub_ir.analysis.float_error import reordering_error
from qonnx_hub_ir.errors import ConversionError, UsageError
from qonnx_hub_ir.graph.queries import dims
from qonnx_hub_ir.graph.subgraphs import every_node
from qonnx_hub_ir.quantizers import Array
from qonnx_hub_ir.verify import label


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
    if result.verdict is not Verdict.DIFFERENT:
        return result
    if dialect.BOUNDED in model.metadata_props:
        reason = f"what was read is near, not exact: {model.metadata_props[dialect.BOUNDED]}"
        return replace(result, verdict=Verdict.WITHIN, reason=reason)
    layer = _first_layer(importer, source, model, feeds)
    where = f"; the first layer that differs is '{layer}'" if layer else ""
    raise ConversionError(
        f"the imported graph of {label} computes other values than the model: "
        f"{result.summary()}{where}; nothing was written. This is a defect of the "
        f"importer, or the model does not compute the same every time"
    )


def _first_layer(importer: Importer, source: Any, model: Model, feeds: Feeds) -> str:
    """Return the first layer whose values differ from the live model's; "" if none shows."""
    if not isinstance(importer, ShowsLayers):
        return ""
    session = Session(model)
    for batch in live_batches(model, feeds):
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
    # Read as it stands, node by node: an importer would turn encodings into quantizers.
    written = read_model(message)
    source, file = ExecutorRunner(model, label), ExecutorRunner(written, f"{to} file")
    folded = "the form computes in integers" if artifact.codes else ""
    if artifact.reordered:
        folded = "the form adds and multiplies in another order"
    result = check_runners(source, file, feeds, CheckOptions(folded=folded))
    if not all(record.exact for record in artifact.quantizers):
        kept = observe_bounds(model, artifact, written, feeds)
        if kept.broken:
            raise ConversionError(
                f"the {to} form of {label} is further from its source than its exporter "
                f"predicted: {'; '.join(kept.broken)}; nothing was written. This is a defect "
                "of the converter"
            )
        reason = "each near quantizer stays within what its exporter predicts"
        verdict = Verdict.WITHIN
        if not artifact.is_bounded:
            reason = "near, and no bound is known: what differs was measured on these inputs"
            verdict = Verdict.UNDECIDED
        if result.verdict not in {Verdict.DIFFERENT, Verdict.UNDECIDED}:
            return result
        said = f"{reason}: {kept.measured}" if kept.measured else reason
        return replace(result, verdict=verdict, reason=said)
    if result.verdict is not Verdict.DIFFERENT:
        return result
    raise ConversionError(
        f"the {to} form of {label} computes other values: "
        f"{result.summary()}; nothing was written. This is a defect of the converter"
    )
