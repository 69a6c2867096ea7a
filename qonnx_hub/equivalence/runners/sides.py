"""Sides of a check: anything that answers feeds with named arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import onnx_ir
from onnx_ir import Model

from qonnx_hub.equivalence.graph_slices import with_outputs
from qonnx_hub.equivalence.inputs.batches import Batch, count_samples
from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.dependencies import require
from qonnx_hub_adapters.protocol import Importer
from qonnx_hub_ir.errors import ExecutionError, HubError, SourceError, UsageError
from qonnx_hub_ir.facts import facts_of, fixed_batch
from qonnx_hub_ir.quantizers import Array

Feeds = Mapping[str, Array]

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
        """Names of its inputs, in order; ``None`` where it takes whatever is given."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of its outputs, in order."""

    @property
    def is_record(self) -> bool:
        """Whether it knows answers to the batches of one run only."""

    def inner_names(self) -> tuple[str, ...]:
        """Return the names of the inner values that it can show."""

    def answer(self, batch: Batch, names: Sequence[str]) -> dict[str, Array]:
        """Return the named values for a batch whose feeds have this side's input names."""

    def run_graph(self, model: Model, feeds: Feeds) -> dict[str, Array] | None:
        """Return what a piece of its graph computes; ``None`` where it runs no graphs."""


@dataclass(slots=True)
class ExecutorRunner:
    """A model on the numpy executor.

    Attributes:
        model: The IR model.
        label: How reports call it.
    """

    model: Model
    label: str
    _sessions: dict[tuple[str, ...], Session] = field(default_factory=dict, init=False)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of its inputs, in order."""
        return tuple(str(v.name) for v in self.model.graph.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of its outputs, in order."""
        return tuple(str(v.name) for v in self.model.graph.outputs)

    @property
    def is_record(self) -> bool:
        """``False``: it answers to any inputs."""
        return False

    def inner_names(self) -> tuple[str, ...]:
        """Return the names of the inner values that it can show."""
        return tuple(facts_of(self.model).values)

    def answer(self, batch: Batch, names: Sequence[str]) -> dict[str, Array]:
        """Return the named values for a batch."""
        facts = facts_of(self.model)
        known = {*facts.values, *self.output_names}
        wanted = tuple(name for name in dict.fromkeys(names) if name in known)
        return self._run(wanted, batch.feeds) if wanted else {}

    def outputs(self, feeds: Feeds) -> dict[str, Array]:
        """Return the model's outputs, in order."""
        return self._run(self.output_names, feeds)

    def _run(self, names: tuple[str, ...], feeds: Feeds) -> dict[str, Array]:
        """Return values: those that have an axis for samples, or depend on no input."""
        unit = fixed_batch(self.model) or 1
        samples, session = count_samples(feeds), self._session(names)
        try:
            return session.run(feeds)
        except UsageError:
            if samples <= unit or samples % unit:
                raise
        parts = [
            session.run({n: x[k : k + unit] if x.ndim else x for n, x in feeds.items()})
            for k in range(0, samples, unit)
        ]
        still = set(names) - facts_of(self.model).dynamic
        return {
            name: first if name in still else np.concatenate([part[name] for part in parts])
            for name, first in parts[0].items()
            if name in still or (first.ndim and first.shape[0] == unit)
        }

    def run_graph(self, model: Model, feeds: Feeds) -> dict[str, Array]:
        """Return what a piece of its graph computes."""
        return Session(model).run(feeds)

    def _session(self, names: tuple[str, ...]) -> Session:
        if names not in self._sessions:
            own = names == self.output_names
            self._sessions[names] = Session(self.model, outputs=None if own else names)
        return self._sessions[names]


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
            self.graph = onnx_ir.from_proto(self._message())
        return self.graph

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of its inputs, in order."""
        return tuple(i.name for i in self.ready().get_inputs())

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of its outputs, in order."""
        return tuple(o.name for o in self.ready().get_outputs())

    @property
    def is_record(self) -> bool:
        """``False``: it answers to any inputs."""
        return False

    def inner_names(self) -> tuple[str, ...]:
        """Return the names of the inner values that it can show."""
        # An inner value that is an output cannot be fused away: optimization would be undone.
        return tuple(facts_of(self.model).values) if self.optimize == ORT_UNOPTIMIZED else ()

    def answer(self, batch: Batch, names: Sequence[str]) -> dict[str, Array]:
        """Return the named values for a batch."""
        if tuple(names) == self.output_names:
            return self.outputs(batch.feeds)
        key = tuple(names)
        if key not in self._sessions:
            self._sessions[key] = self._load(onnx_ir.to_proto(with_outputs(self.model, key)))
        return self._run(self._sessions[key], batch.feeds)

    def outputs(self, feeds: Feeds) -> dict[str, Array]:
        """Return the model's outputs, in order.

        Raises:
            SourceError: onnxruntime does not load the file.
            ExecutionError: onnxruntime fails while running.
        """
        return self._run(self.ready(), feeds)

    def run_graph(self, model: Model, feeds: Feeds) -> dict[str, Array] | None:
        """Return what a piece of its graph computes, or ``None`` if it does not load."""
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

    def _message(self) -> onnx.ModelProto:
        if isinstance(self.source, onnx.ModelProto):
            return self.source
        return onnx.load(str(self.source))

    def _run(self, session: Any, feeds: Feeds) -> dict[str, Array]:
        names = [output.name for output in session.get_outputs()]
        try:
            pieces = [session.run(None, piece) for piece in _pieces(session, feeds)]
        except Exception as error:  # the binding raises its own exception types
            raise ExecutionError(
                f"{self.label}: onnxruntime failed: {_line(error)}"
            ) from error
        if len(pieces) == 1:
            return dict(zip(names, pieces[0], strict=True))
        joined = [np.concatenate(parts, axis=0) for parts in zip(*pieces, strict=True)]
        return dict(zip(names, joined, strict=True))

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
            raise SourceError(
                f"{self.label}: onnxruntime does not load it: {_line(error)}"
            ) from error


@dataclass(slots=True)
class SourceRunner:
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

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of its inputs, in order."""
        return tuple(str(v.name) for v in self.model.graph.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of its outputs, in order."""
        return tuple(str(v.name) for v in self.model.graph.outputs)

    @property
    def is_record(self) -> bool:
        """``False``: it answers to any inputs."""
        return False

    def inner_names(self) -> tuple[str, ...]:
        """Return nothing: a forward pass shows outputs only."""
        return ()

    def answer(self, batch: Batch, names: Sequence[str]) -> dict[str, Array]:
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


def _pieces(session: Any, feeds: Feeds) -> list[dict[str, Array]]:
    """Return the feeds in pieces of the batch that the file asks for."""
    units = {
        i.name: i.shape[0]
        for i in session.get_inputs()
        if i.shape and isinstance(i.shape[0], int)
    }
    counts = {len(feeds[n]) // unit for n, unit in units.items() if n in feeds and unit > 0}
    if len(counts) != 1 or counts == {1} or len(units) != len(feeds):
        return [dict(feeds)]
    return [
        {name: feeds[name][k * unit : (k + 1) * unit] for name, unit in units.items()}
        for k in range(counts.pop())
    ]


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


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
