"""What a user asks to be checked: sources become sides, options become inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx_ir import Model

from qonnx_hub.equivalence.check import LEVELS, How, check_sides
from qonnx_hub.equivalence.comparison.compare import Tolerance, Verdict
from qonnx_hub.equivalence.inputs.batches import (
    ChainedInputs,
    Feeds,
    GeneratedInputs,
    GivenInputs,
    InputSource,
    file_batch,
    run_length,
)
from qonnx_hub.equivalence.inputs.boundary import search_boundaries
from qonnx_hub.equivalence.inputs.generate import generate_inputs
from qonnx_hub.equivalence.proof.certificate import Certificate
from qonnx_hub.equivalence.reports.report import CheckResult, Coverage
from qonnx_hub.equivalence.runners.recorded import (
    Golden,
    RecordedRunner,
    is_golden,
    named_like,
)
from qonnx_hub.equivalence.runners.sides import (
    ORT_OPTIMIZED,
    ORT_UNOPTIMIZED,
    ExecutorRunner,
    OrtRunner,
    Runner,
    SourceRunner,
    renamed,
)
from qonnx_hub.io import registry
from qonnx_hub_adapters.onnx_reader import is_onnx
from qonnx_hub_ir.analysis import accumulators
from qonnx_hub_ir.errors import UsageError
from qonnx_hub_ir.quantizers import Array

BACKENDS: Mapping[str, str] = {"ort": ORT_UNOPTIMIZED, "ort-optimized": ORT_OPTIMIZED}
"""Backend -> how onnxruntime optimizes."""

Loader = Callable[[Any], Model]


@dataclass(frozen=True, slots=True)
class Request:
    """A check as a user asks for it.

    Attributes:
        inputs: Input name -> array; generated where there are none.
        samples: Samples to generate.
        seed: Seed of the generated values.
        ranges: Input name -> (lowest, highest) generated value.
        boundary: Steer further inputs to the thresholds of inner quantizers.
        level: "output", "layer" or "proof".
        how: Everything else.
    """

    inputs: Mapping[str, Array] | None = None
    samples: int | None = None
    seed: int = 0
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    boundary: bool = True
    level: str = "layer"
    how: How = field(default_factory=How)


def make_side(source: Any, backend: str, load: Loader, label: str) -> Runner:
    """Return the side that a source is.

    Args:
        source: A golden folder, recorded tensors (path of an .npz file, or a mapping of
            arrays), an IR model, or whatever is loaded.
        backend: "numpy", "ort" or "ort-optimized".
        load: Reads a source as an IR model.
        label: How reports call it.

    Raises:
        UsageError: An unknown backend, or one that does not run such sources.
        HubError: The source cannot be read.
    """
    if backend != "numpy" and backend not in BACKENDS:
        known = ", ".join(("numpy", *BACKENDS))
        raise UsageError(f"unknown backend '{backend}'; there are: {known}")
    if is_golden(source):
        return Golden(source)
    if isinstance(source, (str, Path)) and Path(source).suffix.lower() == ".npz":
        path = Path(source)
        return RecordedRunner(_read_recorded(path), label, folder=path.absolute().parent)
    if isinstance(source, Mapping):
        return RecordedRunner({str(k): np.asarray(v) for k, v in source.items()}, label)
    if backend in BACKENDS:
        if not isinstance(source, (str, Path, onnx.ModelProto)) or not is_onnx(source):
            raise UsageError(f"backend '{backend}' runs ONNX files and messages only")
        load(source)  # says what is wrong with a file better than onnxruntime does
        return OrtRunner(source, f"{label} on onnxruntime", optimize=BACKENDS[backend])
    if isinstance(source, Model):
        return ExecutorRunner(source, label)
    model = load(source)
    if is_onnx(source):
        return ExecutorRunner(model, label)
    return _live_side(source, model, label)


def _live_side(source: Any, model: Model, label: str) -> Runner:
    importer = registry.find_importer(source)
    try:
        answer = importer.run_source(source, generate_inputs(model, 1))
    except UsageError:
        # The model leaves sizes open: whether the importer runs it shows when it is asked to.
        return SourceRunner(importer, source, model, label)
    if answer is None:
        return ExecutorRunner(model, label)
    return SourceRunner(importer, source, model, label)


def _read_recorded(path: Path) -> dict[str, Array]:
    import zipfile

    if not path.exists():
        raise UsageError(f"'{path}' does not exist")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise UsageError(f"'{path}' is not an .npz file of plain arrays: {error}") from error
    if not arrays:
        raise UsageError(f"'{path}' holds no arrays")
    return arrays


def check_request(a: Runner, b: Runner, request: Request) -> CheckResult:
    """Return how side ``b`` compares to side ``a``.

    Raises:
        UsageError: The sides cannot be compared, or nothing would be.
        HubError: A side fails.
    """
    if request.level not in LEVELS:
        raise UsageError(f"unknown level '{request.level}'; there are: {', '.join(LEVELS)}")
    if isinstance(b, Golden):
        raise UsageError(f"{b.label} is a reference: name it first")
    if not request.how.mapping:
        a, b = _under_one_set_of_names(a, b)
    source, coverage = _inputs(a, b, request)
    how = dataclasses.replace(
        request.how,
        layers=request.level != "output",
        coverage=coverage,
        seed=None if request.inputs is not None else request.seed,
    )
    if request.level == "proof":
        return _prove(a, b, source, how)
    result = check_sides(a, b, source, how)
    return dataclasses.replace(
        result, notes=(*result.notes, *_notes_on_records(a, b, result, how))
    )


def _notes_on_records(a: Runner, b: Runner, result: CheckResult, how: How) -> list[str]:
    records = [side for side in (a, b) if isinstance(side, RecordedRunner)]
    notes = [note for record in records for note in record.notes]
    strict = how.tolerance == Tolerance()
    if strict and result.first_divergence and any(record.of_hardware for record in records):
        notes.append(
            "fixed-point sums are exact where float32 rounds: --rtol 1e-5 --atol 1e-5 looks "
            "past that, for the first layer that computes something else"
        )
    return notes


def _under_one_set_of_names(a: Runner, b: Runner) -> tuple[Runner, Runner]:
    """Return both sides, a record among them under the names of the other's graph."""
    if isinstance(a, RecordedRunner):
        return named_like(a, b.model), b
    return a, named_like(b, a.model) if isinstance(b, RecordedRunner) else b


def _inputs(
    a: Runner, b: Runner, request: Request
) -> tuple[InputSource, tuple[Coverage, ...]]:
    if isinstance(a, Golden):
        if request.inputs is not None:
            raise UsageError("a golden folder brings its own inputs; leave out the given ones")
        return a, ()
    model = a.model if a.model is not None else b.model
    unit = max(file_batch(a.model), file_batch(b.model))
    length = run_length(model, unit)
    if request.inputs is not None:
        named = _named(request.inputs, a, b)
        return GivenInputs(named, length), ()
    if model is None:
        raise UsageError(
            "neither side has a graph to generate inputs for; give the inputs that the "
            "tensors were recorded with"
        )
    if isinstance(a, RecordedRunner) or isinstance(b, RecordedRunner):
        raise UsageError(
            "recorded tensors can only be checked with the inputs that they were recorded "
            "with; give those inputs"
        )
    source = GeneratedInputs(model, request.samples, request.seed, request.ranges, length)
    if not request.boundary or request.level == "output":
        return source, ()
    feeds, coverage = search_boundaries(model, source.feeds(0), request.seed)
    if feeds is None:
        return source, coverage
    beside = GivenInputs(feeds, length, "thresholds of inner quantizers")
    return ChainedInputs((source, beside)), coverage


def _named(inputs: Mapping[str, Array], a: Runner, b: Runner) -> Feeds:
    """Return given inputs under the names of the side that runs, as arrays."""
    arrays = {str(name): np.asarray(x) for name, x in inputs.items()}
    runs = a if a.input_names is not None else b
    return renamed(arrays, runs)


def _prove(a: Runner, b: Runner, source: InputSource, how: How) -> CheckResult:
    """Return the result with a certificate; samples are run as well, to be sure."""
    from qonnx_hub.equivalence.proof.prove import prove_models

    if a.model is None or b.model is None:
        raise UsageError("a proof needs two graphs; recorded tensors have none")
    certificate = prove_models(a.model, b.model)
    found = certificate.counterexample
    if found is not None and found.feeds is not None and not a.is_record:
        unit = max(file_batch(a.model), file_batch(b.model))
        named = renamed(found.feeds, a)
        shown = GivenInputs(named, unit, "the counterexample of the proof")
        source = ChainedInputs((source, shown))
    result = check_sides(a, b, source, how)
    notes = [*result.notes, *_proof_notes(certificate)]
    verdict = result.verdict
    runs_as_proven = isinstance(a, ExecutorRunner) and isinstance(b, ExecutorRunner)
    if certificate.proven and verdict is Verdict.EQUAL and runs_as_proven:
        verdict = Verdict.PROVEN
    elif certificate.proven:
        notes.append("the graphs are proven equal; the sides as they run are sampled only")
    return dataclasses.replace(
        result,
        verdict=verdict,
        notes=tuple(notes),
        certificate=certificate.to_dict(),
        accumulators=tuple(
            dataclasses.asdict(found.summary()) for found in accumulators(a.model)
        ),
    )


def _proof_notes(certificate: Certificate) -> list[str]:
    notes = [f"not proven: {item}" for item in certificate.unmatched]
    found = certificate.counterexample
    if found is not None:
        read = "" if found.input_value is None else f" of {found.input_value!r}"
        notes.append(
            f"refuted: '{found.layer}' makes {found.value_a!r}{read}, the other side "
            f"{found.value_b!r}"
            + (
                ""
                if found.feeds is not None
                else "; no input was found that brings this about"
            )
        )
    return notes
