"""Sides of a check: anything that answers feeds with named arrays."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import onnx_ir
from onnx_ir import Model

from qonnx_hub.equivalence.graph_slices import with_outputs
from qonnx_hub.equivalence.inputs.batches import (
    SampleBatch,
    count_samples,
    cut_feeds,
)
from qonnx_hub.executor.onnxruntime.backend import answers_of, refused_feed
from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.dependencies import require
from qonnx_hub_adapters.external_data import whole_message
from qonnx_hub_adapters.protocol import Feeds, Importer, NamesRuntime
from qonnx_hub_adapters.sparse_tensors import without_sparse
from qonnx_hub_ir.errors import ExecutionError, HubError, SourceError, UsageError, words_of
from qonnx_hub_ir.facts import facts_of, fixed_batch
from qonnx_hub_ir.quantizers import Array

ORT_UNOPTIMIZED = "off"
ORT_OPTIMIZED = "all"


class Runner(Protocol):
    """One side of a check."""

    @property
    def label(self) -> str:
        """How reports call it."""

    @property
    def model(self) -> Model | None:
        """The graph whose value names the side answers to; ``None`` where there is none."""

    @property
    def input_names(self) -> tuple[str, ...] | None:
        """Names of its inputs, in order; ``None`` for a record of one run, with any names."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of its outputs, in order."""

    def inner_names(self) -> tuple[str, ...]:
        """Return the names of the inner values that it can show."""

    def answer(self, batch: SampleBatch, names: Sequence[str]) -> dict[str, Array]:
        """Return the named values for a batch whose feeds have this side's input names."""

    def run_graph(self, model: Model, feeds: Feeds) -> dict[str, Array] | None:
        """Return what a slice of its graph computes; ``None`` where it runs no graphs."""


class _ModelRunner:
    """A side whose inputs and outputs are those of a graph."""

    __slots__ = ()
    model: Model

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of its inputs, in order."""
        return tuple(str(v.name) for v in self.model.graph.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of its outputs, in order."""
        return tuple(str(v.name) for v in self.model.graph.outputs)


@dataclass(slots=True)
class ExecutorRunner(_ModelRunner):
    """A model on the numpy executor.

    Attributes:
        model: The IR model.
        label: How reports call it.
    """

    model: Model
    label: str
    _sessions: dict[tuple[str, ...], Session] = field(default_factory=dict, init=False)
    _shown: frozenset[str] = field(default=frozenset(), init=False)

    def inner_names(self) -> tuple[str, ...]:
        """Return the names of the inner values that it can show."""
        return tuple(facts_of(self.model).values)

    def answer(self, batch: SampleBatch, names: Sequence[str]) -> dict[str, Array]:
        """Return the named values for a batch."""
        # Once: looking whether a graph has changed takes longer than a small one runs, and a
        # planned one does not change.
        self._shown = self._shown or frozenset((*self.inner_names(), *self.output_names))
        wanted = tuple(name for name in dict.fromkeys(names) if name in self._shown)
        return self._run(wanted, batch.feeds) if wanted else {}

    def outputs(self, feeds: Feeds) -> dict[str, Array]:
        """Return the model's outputs, in order."""
        return self._run(self.output_names, feeds)

    def _run(self, names: tuple[str, ...], feeds: Feeds) -> dict[str, Array]:
        """Return values: those that have an axis for samples, or depend on no input."""
        unit = fixed_batch(self.model) or 1
        samples, session = count_samples(feeds), self._session(names)
        try:
            found = session.run(feeds)
        except UsageError:
            if samples <= unit or samples % unit:
                raise
            parts = [session.run(part) for part in cut_feeds(feeds, unit)]
            found = _joined(parts, unit, self.model)
        return {name: found[name] for name in names if name in found}

    def run_graph(self, model: Model, feeds: Feeds) -> dict[str, Array]:
        """Return what a slice of its graph computes; it is planned once."""
        session: Session = facts_of(model).remember("session", lambda: Session(model))
        return session.run(feeds)

    def _session(self, names: tuple[str, ...]) -> Session:
        if names not in self._sessions:
            own = names == self.output_names
            # What is asked once, of the first batch, are constants: they cost no run anything.
            constants = self._shown - facts_of(self.model).dynamic
            asked, made = {*names}, self._sessions.items()
            near = (one for known, one in made if {*known} - constants <= asked <= {*known})
            session = next(near, None)
            if session is None:
                session = Session(self.model, outputs=None if own else names)
            self._sessions[names] = session
        return self._sessions[names]

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process as a message: a graph cannot be pickled."""
        return _read_executor, (onnx_ir.to_proto(self.model).SerializeToString(), self.label)


def _joined(parts: Sequence[Mapping[str, Array]], unit: int, model: Model) -> dict[str, Array]:
    """Return the values of several runs behind each other, without those that have no samples.

    What depends on no input is the same in all runs, and is given once.
    """
    dynamic = facts_of(model).dynamic
    joined = {}
    for name, first in parts[0].items():
        arrays = [part[name] for part in parts]
        if name not in dynamic:
            joined[name] = first
        elif all(x.ndim and x.shape == (unit, *first.shape[1:]) for x in arrays):
            joined[name] = np.concatenate(arrays)
    return joined


def _read_executor(message: bytes, label: str) -> ExecutorRunner:
    return ExecutorRunner(onnx_ir.from_proto(onnx.load_from_string(message)), label)


@dataclass(slots=True)
class OrtRunner:
    """An ONNX file on onnxruntime.

    Attributes:
        source: Path or message of a file in standard ONNX.
        label: How reports call it.
        optimize: "off" (the graph as written) or "all" (onnxruntime's defaults, which fuse
            quantized operators and so change numbers by design).
        threads: Threads per session; onnxruntime's own choice by default.
        graph: The graph of the source, where it is at hand; read from the source otherwise.
    """

    source: str | Path | onnx.ModelProto
    label: str
    optimize: str = ORT_UNOPTIMIZED
    threads: int | None = None
    graph: Model | None = None
    _sessions: dict[tuple[str, ...], Any] = field(default_factory=dict, init=False)

    @property
    def model(self) -> Model:
        """The graph as the file has it, before any normalization."""
        if self.graph is None:
            source = self.source
            if not isinstance(source, onnx.ModelProto):
                source = whole_message(source)
            self.graph = onnx_ir.from_proto(without_sparse(source))
            with contextlib.suppress(ValueError):  # a cycle is onnxruntime's to refuse
                self.graph.graph.sort()  # runtimes take nodes in any order, copies do not
            inputs, stored = self.graph.graph.inputs, self.graph.graph.initializers
            # What is stored as well has a default, and nobody gives it another value.
            inputs[:] = [value for value in inputs if str(value.name) not in stored]
        return self.graph

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of its inputs, in order."""
        return tuple(i.name for i in self.ready().get_inputs())

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of its outputs, in order."""
        return tuple(o.name for o in self.ready().get_outputs())

    def inner_names(self) -> tuple[str, ...]:
        """Return the names of the inner values that it can show."""
        # An inner value that is an output cannot be fused away: optimization would be undone.
        return tuple(facts_of(self.model).values) if self.optimize == ORT_UNOPTIMIZED else ()

    def answer(self, batch: SampleBatch, names: Sequence[str]) -> dict[str, Array]:
        """Return the named values for a batch.

        Raises:
            SourceError: onnxruntime does not load the file.
            ExecutionError: onnxruntime fails while running.
        """
        key = tuple(names)
        if key == self.output_names:
            return self._run(self.ready(), batch.feeds)
        if key not in self._sessions:
            self._sessions[key] = self._load(onnx_ir.to_proto(with_outputs(self.model, key)))
        return self._run(self._sessions[key], batch.feeds)

    def run_graph(self, model: Model, feeds: Feeds) -> dict[str, Array] | None:
        """Return what a slice of its graph computes, or ``None`` if it does not load."""
        for value in model.graph.inputs:
            if value.dtype is None and str(value.name) in feeds:
                # The file need not declare the types of inner values; runtimes want those of
                # inputs.
                value.dtype = onnx_ir.DataType.from_numpy(feeds[str(value.name)].dtype)
        try:
            return self._run(self._load(onnx_ir.to_proto(model)), feeds)
        except HubError:
            return None

    def ready(self) -> Any:
        """Return the session of the file as it is, made on first use.

        Raises:
            SourceError: onnxruntime does not load the file.
        """
        if () not in self._sessions:
            self._sessions[()] = self._load(self.source)
        return self._sessions[()]

    def _run(self, session: Any, feeds: Feeds) -> dict[str, Array]:
        names = [output.name for output in session.get_outputs()]
        first = {i.name: i.shape[0] if i.shape else None for i in session.get_inputs()}
        unit = next(iter(first.values()), None)
        if problem := refused_feed(feeds):
            raise ExecutionError(f"{self.label}: {problem}")
        parts = [dict(feeds)]
        if isinstance(unit, int) and all(size == unit for size in first.values()):
            parts = list(cut_feeds(feeds, unit)) if feeds and unit > 0 else parts
        try:
            answers = [answers_of(session, names, part) for part in parts]
        except ExecutionError as error:
            raise ExecutionError(f"{self.label}: {error}") from error
        if len(answers) == 1 or unit is None:
            return answers[0]
        return _joined(answers, unit, self.model)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process with the source alone, to run on one thread there."""
        # One process per core is enough: more threads would only fight for the cores.
        return OrtRunner, (self.source, self.label, self.optimize, 1)

    def _load(self, source: str | Path | onnx.ModelProto) -> Any:
        ort = require("onnxruntime", needed_by="the backend 'ort'", extra="ort")
        options = ort.SessionOptions()
        options.log_severity_level = 4
        if self.threads is not None:
            options.intra_op_num_threads = self.threads
        if self.optimize == ORT_UNOPTIMIZED:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        is_message = isinstance(source, onnx.ModelProto)
        model = source.SerializeToString() if is_message else str(source)  # type: ignore[union-attr]
        try:
            return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the binding raises its own exception types
            said = words_of(error)
            remedy = ""
            # Both are said of QONNX's operators, the second where nothing names their domain.
            if "not a registered function" in said or "No opset import for domain" in said:
                remedy = (
                    "; convert the file with --to qcdq, or with --self-contained, and check "
                    "that (lint --target ort tells of every node)"
                )
            raise SourceError(
                f"{self.label}: onnxruntime does not load it: {said}{remedy}"
            ) from error


@dataclass(slots=True)
class SourceRunner(_ModelRunner):
    """A live model of a framework: its own forward pass is the truth.

    Attributes:
        importer: Runs the source.
        source: The live model.
        model: Its IR, for names and quantizers.
        label: How reports call it.
    """

    importer: Importer
    source: Any
    model: Model
    label: str

    def inner_names(self) -> tuple[str, ...]:
        """Return nothing: a forward pass shows outputs only."""
        return ()

    def answer(self, batch: SampleBatch, names: Sequence[str]) -> dict[str, Array]:
        """Return the model's outputs for a batch.

        Raises:
            UsageError: The importer answers with other outputs than the IR has.
        """
        found = self.importer.run_source(self.source, batch.feeds)
        if found is None:
            raise UsageError(f"{self.label} cannot be run by itself")
        if set(found) != set(self.output_names):
            if len(found) != len(self.output_names):
                raise UsageError(
                    f"{self.label} answers with {len(found)} outputs "
                    f"({', '.join(found)}), its IR has {len(self.output_names)}"
                )
            found = dict(zip(self.output_names, found.values(), strict=True))
        return {name: np.asarray(found[name]) for name in names}

    def run_graph(self, model: Model, feeds: Feeds) -> dict[str, Array] | None:
        """Return ``None``: a framework runs its own models only."""
        return None


def same_library(a: Runner, b: Runner) -> bool:
    """Return whether one library computes both sides: functions of equal numbers are equal."""
    kinds = [type(side) for side in (a, b)]
    return kinds[0] is kinds[1] and kinds[0] in {ExecutorRunner, OrtRunner}


def run_label(importer: Importer, source: Any, label: str) -> str:
    """Return how reports call a source: with what answers for it."""
    if not isinstance(importer, NamesRuntime):
        return label
    return f"{label} {importer.runtime(source)}"


def for_side(batch: SampleBatch, side: Runner) -> SampleBatch:
    """Return a batch under a side's own input names; see :func:`renamed`."""
    return SampleBatch(batch.index, batch.start, renamed(batch.feeds, side))


def renamed(feeds: Feeds, side: Runner) -> dict[str, Array]:
    """Return the feeds under a side's own input names, matched by name or by position.

    Raises:
        UsageError: The side takes another number of inputs.
    """
    names = side.input_names
    if names is None or set(names) == set(feeds):
        return dict(feeds)
    if len(names) != len(feeds):
        raise UsageError(
            f"{side.label} takes {len(names)} inputs ({', '.join(names)}), "
            f"{len(feeds)} are given ({', '.join(feeds)})"
        )
    return dict(zip(names, feeds.values(), strict=True))
