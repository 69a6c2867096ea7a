"""Sides of a check: anything that answers feeds with named arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx
import onnx_ir
from onnx_ir import Model

from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.dependencies import require
from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import ExecutionError, SourceError
from qonnx_hub_ir.quant import Array

Feeds = Mapping[str, Array]

ORT_UNOPTIMIZED = "off"
ORT_OPTIMIZED = "all"


class Runner(Protocol):
    """One side of a check."""

    @property
    def label(self) -> str:
        """How reports call it."""

    def outputs(self, feeds: Feeds) -> dict[str, Array]:
        """Return the model's outputs, in order."""


@dataclass(slots=True)
class ExecutorRunner:
    """A model on the numpy executor.

    Attributes:
        model: The IR model.
        label: How reports call it.
    """

    model: Model
    label: str
    _session: Session | None = field(default=None, init=False)

    def outputs(self, feeds: Feeds) -> dict[str, Array]:
        """Return the model's outputs, in order."""
        return self._ready().run(feeds)

    def tensors(self, feeds: Feeds) -> dict[str, Array]:
        """Return every value of the graph, by name."""
        return self._ready().run(feeds, all_tensors=True)

    def _ready(self) -> Session:
        if self._session is None:
            self._session = Session(self.model)
        return self._session


@dataclass(slots=True)
class OrtRunner:
    """An ONNX file on onnxruntime.

    Attributes:
        source: Path or message of a file in standard ONNX.
        label: How reports call it.
        optimize: "off" (the graph as written) or "all" (onnxruntime's defaults, which fuse
            quantized operators and so change numbers by design).
        threads: Threads per session; onnxruntime's own choice by default.
    """

    source: str | Path | onnx.ModelProto
    label: str
    optimize: str = ORT_UNOPTIMIZED
    threads: int | None = None
    _session: Any = field(default=None, init=False)

    def outputs(self, feeds: Feeds) -> dict[str, Array]:
        """Return the model's outputs, in order.

        Raises:
            SourceError: onnxruntime does not load the file.
            ExecutionError: onnxruntime fails while running.
        """
        session = self.ready()
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

    def ready(self) -> Any:
        """Return the session, made on first use.

        Raises:
            SourceError: onnxruntime does not load the file.
        """
        if self._session is not None:
            return self._session
        ort = require("onnxruntime", needed_by="the backend 'ort'", extra="ort")
        options = ort.SessionOptions()
        options.log_severity_level = 4
        if self.threads is not None:
            options.intra_op_num_threads = self.threads
        if self.optimize == ORT_UNOPTIMIZED:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        model = (
            self.source.SerializeToString()
            if isinstance(self.source, onnx.ModelProto)
            else str(self.source)
        )
        try:
            self._session = ort.InferenceSession(
                model, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the binding raises its own exception types
            raise SourceError(
                f"{self.label}: onnxruntime does not load it: {_line(error)}"
            ) from error
        return self._session


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


def to_message(model: Model) -> onnx.ModelProto:
    """Return an IR model as a protobuf message."""
    return onnx_ir.to_proto(model)


def provenance(model: Model) -> dict[str, str]:
    """Return source layer name -> value name, for every value that carries one."""
    found: dict[str, str] = {}
    for node in model.graph:
        for value in node.outputs:
            source = value.metadata_props.get(dialect.PROVENANCE)
            if source and value.name:
                found.setdefault(source, value.name)
    return found


def steps(model: Model) -> dict[str, Array]:
    """Return value name -> step size, for values that an integer quantizer made."""
    found: dict[str, Array] = {}
    for node in model.graph:
        if dialect.is_quantizer(node) and node.op_type in {"Quant", "BipolarQuant"}:
            scale = dialect.constant_value(node.inputs[1])
            if scale is not None:
                found[str(node.outputs[0].name)] = scale
    return found
