"""What a conversion must pass before anything is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx_ir import Model

from qonnx_hub import registry
from qonnx_hub.equivalence.check import How, check_runners
from qonnx_hub.equivalence.compare import Tolerance
from qonnx_hub.equivalence.inputs import generate_inputs
from qonnx_hub.equivalence.report import CheckResult
from qonnx_hub.equivalence.runners import (
    ORT_OPTIMIZED,
    ExecutorRunner,
    OrtRunner,
    SourceRunner,
)
from qonnx_hub.executor.session import Session
from qonnx_hub.writing import in_one_message
from qonnx_hub_adapters.dependencies import is_installed
from qonnx_hub_adapters.protocol import Artifact, Importer, ImportOptions
from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import HubError, UsageError
from qonnx_hub_ir.quant import Array

_INPUTS = "generated: random, ties, limits"

_RUNTIME_DOMAINS = frozenset({"", "ai.onnx", "com.microsoft"})
"""What onnxruntime runs without anything added."""

_NOISE = 1e-5
"""Relative difference that another order of float32 summation explains."""

_FLIPPED_SHARE = 0.01
"""Share of outputs that may lie beyond the noise: sums on a rounding tie of an inner quantizer
fall to either side."""


class ConversionError(HubError):
    """A converted file does not compute what its source computes: nothing was written."""


def feeds_for_check(
    model: Model, samples: int | None, seed: int, notes: list[str]
) -> dict[str, Array] | None:
    """Return inputs for the checks; ``None``, and a note, where sizes are left open."""
    try:
        return generate_inputs(model, samples, seed)
    except UsageError as error:
        notes.append(f"not checked: {error}")
        return None


def check_source(
    importer: Importer, source: Any, model: Model, feeds: Mapping[str, Array], label: str
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
        inputs=_INPUTS,
        how=How(_noise(answer.values()), layers=False),
    )
    flipped = sum(output.differing for output in result.outputs)
    compared = sum(output.count for output in result.outputs)
    bounded = dialect.BOUNDED in model.metadata_props
    if not result and not bounded and flipped > _FLIPPED_SHARE * compared:
        raise ConversionError(
            f"what was read of {label} computes something else than the model itself: "
            f"{result.summary()}; nothing was written. This is a defect of the importer"
        )
    return result


def check_artifact(
    model: Model,
    artifact: Artifact,
    feeds: Mapping[str, Array],
    label: str,
    to: str,
    dialect: str,
) -> tuple[CheckResult, CheckResult | None]:
    """Return how what was made compares to its source: on the executor, on onnxruntime.

    Raises:
        ConversionError: It differs although every quantizer was said to be exact.
        SourceError: onnxruntime does not load it.
    """
    message = in_one_message(artifact.model)
    noise = _noise(Session(model).run(_first_batch(model, feeds)).values())
    exact = all(record.exact for record in artifact.quantizers)
    # Read as it stands, node by node: an importer would turn encodings into quantizers.
    # Operators of onnxruntime are read as what they stand for.
    reader = registry.find_importer(message, "qlinear" if dialect == "ort" else "qonnx")
    result = check_runners(
        ExecutorRunner(model, label),
        ExecutorRunner(reader.load(message, ImportOptions()), f"{to} file"),
        feeds,
        inputs=_INPUTS,
        how=How(Tolerance() if exact else noise),
    )
    if not result and exact:
        raise ConversionError(
            f"the {to} form of {label} computes something else: "
            f"{result.summary()}; nothing was written. This is a defect of the converter"
        )
    return result, _on_onnxruntime(model, message, feeds, label, to, noise)


def _on_onnxruntime(
    model: Model,
    message: onnx.ModelProto,
    feeds: Mapping[str, Array],
    label: str,
    to: str,
    noise: Tolerance,
) -> CheckResult | None:
    runs = all(node.domain in _RUNTIME_DOMAINS for node in message.graph.node)
    if not runs or not is_installed("onnxruntime"):
        return None
    # Loading with default options is part of what the form promises; numbers are compared on
    # the graph as written, because the default optimizations change them by design.
    OrtRunner(message, f"{to} file", optimize=ORT_OPTIMIZED).ready()
    return check_runners(
        ExecutorRunner(model, label),
        OrtRunner(message, f"{to} file on onnxruntime"),
        feeds,
        inputs=_INPUTS,
        how=How(noise, layers=False),
    )


def _first_batch(model: Model, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Return as many samples of the feeds as the file's own batch holds."""
    sizes = {str(v.name): v.shape[0] for v in model.graph.inputs if v.shape and len(v.shape)}
    return {
        name: feed[:size] if isinstance(size := sizes.get(name), int) else feed
        for name, feed in feeds.items()
    }


def _noise(outputs: Iterable[Array]) -> Tolerance:
    """Return what another order of summation explains, with one step on a rounding tie."""
    numbers = [np.abs(y[np.isfinite(y)]) for y in outputs if y.dtype.kind == "f"]
    largest = max((float(n.max(initial=0)) for n in numbers), default=0.0)
    return Tolerance(atol=_NOISE * largest, rtol=_NOISE, lsb=1)
