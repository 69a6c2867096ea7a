"""A check as a user asks for it: sources become sides, options become inputs."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx_ir import Model

from qonnx_hub.equivalence.check import check_sides
from qonnx_hub.equivalence.comparison.compare import Tolerance, Verdict
from qonnx_hub.equivalence.inputs.batches import (
    ChainedInputs,
    GivenInputs,
    InputSource,
    file_batch,
    run_length,
)
from qonnx_hub.equivalence.inputs.coverage import Coverage
from qonnx_hub.equivalence.inputs.generate import generate_inputs
from qonnx_hub.equivalence.inputs.reach import find_inputs
from qonnx_hub.equivalence.options import LEVELS, CheckOptions
from qonnx_hub.equivalence.reports.report import CheckResult
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
from qonnx_hub.io.arrays import read_arrays
from qonnx_hub.io.python_sources import resolve
from qonnx_hub_adapters.onnx_reader import is_onnx
from qonnx_hub_adapters.protocol import Importer, ImportOptions
from qonnx_hub_ir.analysis import accumulators
from qonnx_hub_ir.errors import UsageError

BACKENDS: Mapping[str, str] = {"ort": ORT_UNOPTIMIZED, "ort-optimized": ORT_OPTIMIZED}
"""Backend -> how onnxruntime optimizes."""


def _make_side(source: Any, backend: str, args: tuple[Any, ...], label: str) -> Runner:
    """Return the side that a source is; its own answer is compared, not what was read of it.

    Args:
        source: A golden folder, recorded tensors (path of an .npz file, or a mapping of
            arrays), an IR model, or whatever an importer reads.
        backend: "numpy", "ort" or "ort-optimized".
        args: Sample inputs, for a live model.
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
    # Once: a callable may build another model at every call.
    source = resolve(source)
    if isinstance(source, (str, Path)) and Path(source).suffix.lower() == ".npz":
        path = Path(source)
        return RecordedRunner(read_arrays(path), label, folder=path.absolute().parent)
    if isinstance(source, Mapping):
        return RecordedRunner({str(k): np.asarray(v) for k, v in source.items()}, label)
    if backend in BACKENDS:
        if not isinstance(source, (str, Path, onnx.ModelProto)) or not is_onnx(source):
            raise UsageError(f"backend '{backend}' runs ONNX files and messages only")
        # Read as well: its errors say more about a file than those of onnxruntime.
        _read(source)
        return OrtRunner(source, f"{label} on onnxruntime", optimize=BACKENDS[backend])
    if isinstance(source, Model):
        return ExecutorRunner(source, label)
    importer, source, model = _read(source, () if isinstance(source, (str, Path)) else args)
    if is_onnx(source):
        return ExecutorRunner(model, label)
    # Where the model leaves sizes open, it shows later whether the importer runs it.
    with contextlib.suppress(UsageError):
        if importer.run_source(source, generate_inputs(model, 1)) is None:
            return ExecutorRunner(model, label)
    return SourceRunner(importer, source, model, label)


def _read(source: Any, args: tuple[Any, ...] = ()) -> tuple[Importer, Any, Model]:
    """Return who reads a source, the source with its sample, and the IR model read of it."""
    options = ImportOptions(args=args)
    importer, source = registry.open_source(source, None, options)
    return importer, source, importer.load(source, options)


def check_request(
    first: Any, second: Any, labels: tuple[str, str], options: CheckOptions
) -> CheckResult:
    """Return how a source compares to the first, with inputs as the options ask for them.

    Args:
        first: The reference: a file, a live model, recorded tensors, a golden folder.
        second: The other side, likewise.
        labels: How reports call them.
        options: What is asked for.

    Raises:
        UsageError: The sides cannot be compared, or nothing would be.
        HubError: A source cannot be read, or a side fails.
    """
    a = _make_side(first, "numpy", options.args, labels[0])
    b = _make_side(second, options.backend, options.args, labels[1])
    if options.level not in LEVELS:
        raise UsageError(f"unknown level '{options.level}'; there are: {', '.join(LEVELS)}")
    if isinstance(b, Golden):
        raise UsageError(f"{b.label} is a reference: name it first")
    if not options.mapping:
        # A record takes the names of the other side's graph.
        if isinstance(a, RecordedRunner):
            a = named_like(a, b.model)
        elif isinstance(b, RecordedRunner):
            b = named_like(b, a.model)
    source, coverage = _inputs(a, b, options)
    seed = None if options.inputs is not None else options.seed
    answer = _prove if options.level == "proof" else check_sides
    result = answer(a, b, source, options)
    records = [side for side in (a, b) if isinstance(side, RecordedRunner)]
    notes = [note for record in records for note in record.notes]
    strict = options.tolerance == Tolerance()
    if strict and result.first_divergence and any(record.of_hardware for record in records):
        notes.append(
            "fixed-point sums are exact where float32 rounds: --rtol 1e-5 --atol 1e-5 looks "
            "past that, for the first layer that computes other values"
        )
    notes = [*result.notes, *notes]
    return dataclasses.replace(result, notes=tuple(notes), seed=seed, coverage=coverage)


def _inputs(
    a: Runner, b: Runner, options: CheckOptions
) -> tuple[InputSource, tuple[Coverage, ...]]:
    if isinstance(a, Golden):
        if options.inputs is not None:
            raise UsageError("a golden folder brings its own inputs; leave out the given ones")
        return a, ()
    model = a.model if a.model is not None else b.model
    unit = max(file_batch(a.model), file_batch(b.model))
    length = run_length(model, unit)
    if options.inputs is not None:
        arrays = {str(name): np.asarray(x) for name, x in options.inputs.items()}
        return GivenInputs(renamed(arrays, b if a.input_names is None else a), length), ()
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
    steer = options.boundary and options.level != "output"
    found = find_inputs(
        model, options.samples, options.seed, options.ranges, length, steer=steer
    )
    return found.source, found.coverage.quantizers


def _prove(a: Runner, b: Runner, source: InputSource, options: CheckOptions) -> CheckResult:
    """Return the result with a certificate; samples are run as well, to be sure."""
    from qonnx_hub.equivalence.proof.prove import prove_models

    if a.model is None or b.model is None:
        raise UsageError("a proof needs two graphs; recorded tensors have none")
    certificate = prove_models(a.model, b.model)
    found = certificate.counterexample
    if found is not None and found.feeds is not None and a.input_names is not None:
        unit = max(file_batch(a.model), file_batch(b.model))
        feeds = renamed(found.feeds, a)
        shown = GivenInputs(feeds, unit, "the counterexample of the proof")
        source = ChainedInputs((source, shown))
    result = check_sides(a, b, source, options)
    notes = [*result.notes, *(f"not proven: {item}" for item in certificate.unmatched)]
    if found is not None:
        read = "" if found.input_value is None else f" of {found.input_value!r}"
        unseen = "" if found.feeds else "; no input was found that brings this about"
        notes.append(
            f"refuted: '{found.layer}' makes {found.value_a!r}{read}, the other side "
            f"{found.value_b!r}{unseen}"
        )
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
            dataclasses.asdict(sums.summary()) for sums in accumulators(a.model)
        ),
    )
