"""A folder for hls4ml as a side: what hls4ml compiles answers, layer by layer."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from onnx_ir import Model

from qonnx_hub.equivalence.inputs.batches import SampleBatch
from qonnx_hub_adapters.hls4ml.folder import read_folder
from qonnx_hub_adapters.hls4ml.simulation import Simulation, simulate
from qonnx_hub_adapters.hls4ml.traces import types_of_values
from qonnx_hub_adapters.protocol import Feeds
from qonnx_hub_ir.quantizers import Array


class Hls4mlRunner:
    """What hls4ml compiles of a folder, under the names of the folder's source."""

    def __init__(self, folder: str | Path, label: str, python: str | None = None) -> None:
        """Compile a folder, or load what was compiled of the same files.

        Args:
            folder: A folder that was written with ``--to hls4ml``.
            label: How reports call it.
            python: An interpreter that has hls4ml; the running one by default.

        Raises:
            MissingDependencyError: There is no hls4ml, or no compiler.
            SourceError: The folder cannot be read, or hls4ml does not compile it.
        """
        self._simulation: Simulation = simulate(read_folder(folder), python)
        weakref.finalize(self, self._simulation.close)
        held = self._simulation.folder
        self.label = f"{label} compiled by hls4ml {self._simulation.version}"
        self.types = types_of_values(self._simulation.types, held.model.graph, held.tensors)
        still = [
            np.zeros((1, *port.source_shape[1:]), dtype=np.float32) for port in held.inputs
        ]
        self._shown = tuple(self._run(still))

    @property
    def model(self) -> Model | None:
        """``None``: hardware has no graph of the source's."""
        return None

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said about the answers."""
        if not self._simulation.skipped:
            return ()
        return ("hls4ml leaves the trailing Softmax to the host; here float32 computes it",)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the source's inputs, in order."""
        return tuple(port.source for port in self._simulation.folder.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of its outputs, in order."""
        return tuple(port.source for port in self._simulation.folder.outputs)

    def inner_names(self) -> tuple[str, ...]:
        """Return the names of the source's values that layers of hardware hold."""
        return tuple(name for name in self._shown if name not in self.output_names)

    def answer(self, batch: SampleBatch, names: Sequence[str]) -> dict[str, Array]:
        """Return the named values for a batch.

        Raises:
            ExecutionError: hls4ml fails.
        """
        found = self._run([batch.feeds[name] for name in self.input_names])
        return {name: found[name] for name in names if name in found}

    def run_graph(self, model: Model, feeds: Feeds) -> dict[str, Array] | None:
        """Return ``None``: layers are not run by themselves."""
        return None

    def _run(self, arrays: Sequence[Array]) -> Mapping[str, Array]:
        ports = self._simulation.folder.inputs
        pairs = zip(ports, arrays, strict=True)
        return self._simulation.values([port.stored(array) for port, array in pairs])
