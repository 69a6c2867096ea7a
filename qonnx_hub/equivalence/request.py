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

from qonnx_hub.equivalence.check import Preparation, check_until_decided, match_sides
from qonnx_hub.equivalence.comparison.compare import Tolerance
from qonnx_hub.equivalence.inputs.batches import (
    ChainedInputs,
    GeneratedInputs,
    GivenInputs,
    InputSource,
    OneRun,
    file_batch,
    given_inputs,
    read_batches,
    run_length,
    shares_first_axis,
)
from qonnx_hub.equivalence.inputs.coverage import InputCoverage
from qonnx_hub.equivalence.inputs.generate import generate_inputs
from qonnx_hub.equivalence.inputs.meter import CoverageMeter
from qonnx_hub.equivalence.inputs.reach import find_inputs
from qonnx_hub.equivalence.inputs.sizes import sizes_of
from qonnx_hub.equivalence.opaque_nodes import CutSides, cut_opaque_nodes
from qonnx_hub.equivalence.options import LEVELS, CheckOptions
from qonnx_hub.equivalence.proving import look_for_proof
from qonnx_hub.equivalence.reports.report import CheckResult
from qonnx_hub.equivalence.runners.hls4ml import Hls4mlRunner
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
    run_label,
)
from qonnx_hub.executor.explained import explained
from qonnx_hub.io import registry
from qonnx_hub.io.arrays import read_arrays, read_feeds
from qonnx_hub.io.preprocessing import Preprocessing
from qonnx_hub.io.python_sources import resolve
from qonnx_hub_adapters.dependencies import require
from qonnx_hub_adapters.hls4ml.file_names import is_folder
from qonnx_hub_adapters.onnx_reader import is_onnx
from qonnx_hub_adapters.protocol import Feeds, Importer, ImportOptions
from qonnx_hub_adapters.tflite.litert import KERNELS, LitertSource
from qonnx_hub_ir.analysis import accumulators
from qonnx_hub_ir.choices import require_choice
from qonnx_hub_ir.errors import ConversionError, UsageError
from qonnx_hub_ir.facts import unchanged
from qonnx_hub_ir.graph.queries import dims
from qonnx_hub_ir.quantizers import Array

BACKENDS: Mapping[str, str] = {"ort": ORT_UNOPTIMIZED, "ort-optimized": ORT_OPTIMIZED}
"""Backend -> how onnxruntime optimizes."""

TFLITE_BACKENDS: Mapping[str, str] = {"tflite": "ref"} | {f"tflite:{k}": k for k in KERNELS}
"""Backend -> kernels of ai-edge-litert, on which the side runs that is a TFLite file."""


def _make_side(
    source: Any, backend: str, options: ImportOptions, label: str, python: str | None = None
) -> Runner:
    """Return the side that a source is; its own answer is compared, not what was read of it.

    Args:
        source: A golden folder, a folder for hls4ml, recorded tensors (path of an .npz file,
            or a mapping of arrays), an IR model, or whatever an importer reads.
        backend: "numpy", "ort", "ort-optimized", or one of :data:`TFLITE_BACKENDS`.
        options: How the source is read: sample inputs for a live model.
        label: How reports call it.
        python: An interpreter that has hls4ml, for folders that it compiles.

    Raises:
        UsageError: An unknown backend, or one that does not run such sources.
        HubError: The source cannot be read.
    """
    if backend != "numpy" and backend not in {*BACKENDS, *TFLITE_BACKENDS}:
        known = ", ".join(("numpy", *BACKENDS, *TFLITE_BACKENDS))
        raise UsageError(f"unknown backend '{backend}'; there are: {known}")
    if backend in TFLITE_BACKENDS:
        return _on_litert(source, TFLITE_BACKENDS[backend], label)
    if is_golden(source):
        return Golden(source)
    if is_folder(source):
        return Hls4mlRunner(source, label, python)
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
        _read(source, ImportOptions())
        return OrtRunner(source, f"{label} on onnxruntime", optimize=BACKENDS[backend])
    if isinstance(source, Model):
        return ExecutorRunner(source, label)
    if isinstance(source, (str, Path)):
        options = dataclasses.replace(options, args=())
    importer, source, model = _read(source, options)
    if is_onnx(source):
        return ExecutorRunner(model, label)
    # Where the model leaves sizes open, it shows later whether the importer runs it.
    with contextlib.suppress(UsageError):
        if importer.run_source(source, generate_inputs(model, 1)) is None:
            return ExecutorRunner(model, run_label(importer, source, label))
    return SourceRunner(importer, source, model, run_label(importer, source, label))


def _on_litert(source: Any, kernels: str, label: str) -> Runner:
    """Return a TFLite file as a side that runs on kernels of ai-edge-litert."""
    require("ai_edge_litert", needed_by="the backend 'tflite'", extra="litert")
    importer = LitertSource(kernels)
    model = importer.load(source, ImportOptions())
    return SourceRunner(importer, source, model, run_label(importer, source, label))


def _backends(first: Any, second: Any, backend: str) -> tuple[str, str]:
    """Return where either side runs: the second one; for TFLite, that which is such a file.

    Raises:
        UsageError: Neither is a TFLite file.
    """
    if backend not in TFLITE_BACKENDS:
        return "numpy", backend
    importer = LitertSource(TFLITE_BACKENDS[backend])
    if importer.accepts(second):
        return "numpy", backend
    if importer.accepts(first):
        return backend, "numpy"
    raise UsageError(f"backend '{backend}' runs TFLite files only, and neither side is one")


def _read(source: Any, options: ImportOptions) -> tuple[Importer, Any, Model]:
    """Return who reads a source, the source with its sample, and the IR model read of it."""
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
    return check_opened(*open_sides(first, second, labels, options))


def open_sides(
    first: Any, second: Any, labels: tuple[str, str], options: CheckOptions
) -> tuple[Runner, Runner, CheckOptions]:
    """Return both sides of a check, ready to run, and what is asked of them.

    Args:
        first: As in :func:`check_request`.
        second: The other side.
        labels: How reports call them.
        options: What is asked for.

    Raises:
        UsageError: The sides cannot be compared.
        HubError: A source cannot be read.
    """
    reading = ImportOptions(args=options.args, allow_code=options.allow_code)
    own = dataclasses.replace(reading, weights=options.weights)
    require_choice("level", options.level, LEVELS)
    backends = _backends(first, second, options.backend)
    a = _make_side(first, backends[0], own, labels[0], options.python)
    b = _make_side(second, backends[1], reading, labels[1], options.python)
    if options.backend in TFLITE_BACKENDS:
        if options.level == "proof":
            raise UsageError("nothing is proven of an interpreter: it is sampled")
        options = dataclasses.replace(options, proof_seconds=0)
    if isinstance(b, Golden):
        raise UsageError(f"{b.label} is a reference: name it first")
    if not options.mapping:
        # A record takes the names of the other side's graph.
        if isinstance(a, RecordedRunner):
            a = named_like(a, b.model)
        elif isinstance(b, RecordedRunner):
            b = named_like(b, a.model)
    if options.level == "proof" and (a.model is None or b.model is None):
        raise UsageError("a proof needs two graphs; recorded tensors have none")
    compiled = isinstance(a, Hls4mlRunner) or isinstance(b, Hls4mlRunner)
    if compiled and options.tolerance == Tolerance() and not options.strict:
        options = dataclasses.replace(options, tolerance=_OF_SUMS)
    return a, b, options


def check_opened(a: Runner, b: Runner, options: CheckOptions) -> CheckResult:
    """Return how an opened side compares to the first; see :func:`open_sides`."""
    held = unchanged(a.model, b.model)
    with explained(a.model, a.label), explained(b.model, b.label), held:
        return _check(a, b, options)


_OF_SUMS = Tolerance(atol=1e-5, rtol=1e-5)
_SUMS = "fixed-point sums are exact where float32 rounds: within 1e-5 counts as the same"


def _check(a: Runner, b: Runner, options: CheckOptions) -> CheckResult:
    _require_inputs(a, b, options)
    cut = CutSides(a, b) if options.inputs is not None else cut_opaque_nodes(a, b)
    a, b = cut.a, cut.b
    pairs = match_sides(a, b, options, cut.left_out)
    certificate = look_for_proof(a, b, pairs.outputs, options.proof_seconds)
    known = Preparation(
        pairs, certificate, given=options.inputs is not None or isinstance(a, Golden)
    )
    source, coverage = _inputs(a, b, options, known)
    seed = None if options.inputs is not None else options.seed
    known = dataclasses.replace(known, coverage=coverage)
    result = cut.judged(check_until_decided(a, b, source, options, known))
    if options.level == "proof" and a.model is not None:
        sums = (dataclasses.asdict(s.summary()) for s in accumulators(a.model))
        result = dataclasses.replace(result, accumulators=tuple(sums))
    records = [side for side in (a, b) if isinstance(side, RecordedRunner)]
    told = [side for side in (a, b) if isinstance(side, (RecordedRunner, Hls4mlRunner))]
    notes = [note for side in told for note in side.notes]
    strict = options.tolerance == Tolerance()
    if strict and result.first_divergence and any(record.of_hardware for record in records):
        notes.append(
            "fixed-point sums are exact where float32 rounds: --rtol 1e-5 --atol 1e-5 looks "
            "past that, for the first layer that computes other values"
        )
    notes = [*result.notes, *notes, *([_SUMS] if options.tolerance is _OF_SUMS else [])]
    return dataclasses.replace(result, notes=tuple(notes), seed=seed)


def require_accepted(result: CheckResult, what: str) -> None:
    """Refuse what does not keep the bounds that were given.

    Args:
        result: How it compares on the data.
        what: What is to be written.

    Raises:
        ConversionError: A bound is given, and not kept.
    """
    if result.accepted is False:
        raise ConversionError(f"{what} is {result.acceptance}; nothing was written")


def _require_inputs(a: Runner, b: Runner, options: CheckOptions) -> None:
    if options.preprocess is not None and options.inputs is None:
        raise UsageError("--preprocess is for data of yours: --data or --inputs")
    given = options.inputs is not None or isinstance(a, Golden)
    has_labels = options.labels is not None
    options.acceptance.require_data(has_inputs=given, has_labels=has_labels)
    if isinstance(a, Golden):
        if options.inputs is not None:
            raise UsageError("a golden folder brings its own inputs; leave out the given ones")
    elif options.inputs is None and a.model is None and b.model is None:
        raise UsageError(
            "neither side has a graph to generate inputs for; give the inputs that the "
            "tensors were recorded with"
        )
    elif options.inputs is None and any(isinstance(x, RecordedRunner) for x in (a, b)):
        raise UsageError(
            "recorded tensors can only be checked with the inputs that they were recorded "
            "with; give those inputs"
        )


def _inputs(
    a: Runner, b: Runner, options: CheckOptions, known: Preparation
) -> tuple[InputSource, InputCoverage | None]:
    model = a.model or b.model
    if isinstance(a, Golden):
        return a, _reached(model, a, b, known)
    unit = max(file_batch(a.model), file_batch(b.model))
    length = run_length(model, unit)
    if options.inputs is not None:
        side = b if a.input_names is None else a
        given = source_of_given(side, model, options, length)
        return given, _reached(model, given, side, known)
    assert model is not None, "records have no graph, and come with their inputs"
    shown = _counterexample(a, b, known)
    if known.is_proven:
        # Samples only watch over the proof: nothing has to be reached.
        source = GeneratedInputs(model, options.samples, options.seed, options.ranges, length)
        return _chained(source, shown), InputCoverage(sizes=source.sizes, measured=False)
    steer = options.boundary and options.level != "output"
    found = find_inputs(
        model,
        options.samples,
        options.seed,
        options.ranges,
        length,
        options.effort,
        steer=steer,
    )
    return _chained(found.source, shown), found.coverage


def source_of_given(
    side: Runner, model: Model | None, options: CheckOptions, length: int
) -> InputSource:
    """Return the inputs that a user gave, by a side's names, prepared as the user asks for.

    Args:
        side: The side whose names the inputs take.
        model: The graph that they are for, where there is one.
        options: Inputs, and what is done to them.
        length: Samples per batch.

    Raises:
        UsageError: They do not fit, or nothing could be concluded from them.
    """
    names = [] if model is None else [str(value.name) for value in model.graph.inputs]
    feeds = read_feeds(options.inputs, side.input_names or names)
    arrays = {str(name): np.asarray(x) for name, x in feeds.items()}
    given = given_inputs(renamed(arrays, side), model, length)
    return given if options.preprocess is None else _prepared(given, model, options.preprocess)


def _prepared(
    given: InputSource, model: Model | None, preprocess: Preprocessing
) -> InputSource:
    """Return inputs to which something is done, batch by batch.

    Raises:
        UsageError: Several inputs, or one run: it is not known what they are.
    """
    if not isinstance(given, GivenInputs) or len(given.arrays) > 1:
        raise UsageError("--preprocess is for the samples of one input")
    values = [] if model is None else model.graph.inputs
    shapes = {str(value.name): dims(value) for value in values}

    def prepare(name: str, part: Array) -> Array:
        return preprocess(part, shapes.get(name))

    return dataclasses.replace(given, prepare=prepare)


def _reached(
    model: Model | None, source: InputSource, side: Runner, known: Preparation
) -> InputCoverage | None:
    """Return what given inputs reach, where samples decide and a graph is there to watch."""
    if model is None:
        return None
    batches = (renamed(batch.feeds, side) for batch in read_batches(source))
    if known.is_proven:
        return InputCoverage(sizes=sizes_of(model, batches), measured=False)
    meter = CoverageMeter(model)

    def watched(feeds: Feeds) -> Feeds:
        meter.add(feeds)
        return feeds

    sizes = sizes_of(model, map(watched, batches))
    return dataclasses.replace(meter.coverage(), sizes=sizes)


def _chained(first: InputSource, *others: InputSource | None) -> InputSource:
    parts = (first, *(part for part in others if part is not None))
    return ChainedInputs(parts) if len(parts) > 1 else first


def _counterexample(a: Runner, b: Runner, known: Preparation) -> InputSource | None:
    """Return the input on which a proof saw outputs differ; ``None`` where it saw none."""
    found = None if known.certificate is None else known.certificate.counterexample
    if found is None or found.feeds is None:
        return None
    feeds, words = renamed(found.feeds, a), "the counterexample of the proof"
    if not shares_first_axis(feeds):
        return OneRun(feeds, words)
    return GivenInputs(feeds, max(file_batch(a.model), file_batch(b.model)), words)
