"""TFLite files on the kernels of ai-edge-litert, in a process of their own."""

from __future__ import annotations

import contextlib
import io
import os
import select
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from types import TracebackType
from typing import IO, Any

import numpy as np
from onnx_ir import Model

from qonnx_hub_adapters.dependencies import is_installed, require
from qonnx_hub_adapters.protocol import AdapterInfo, Feeds, ImportOptions, Outputs
from qonnx_hub_adapters.tflite import litert_process
from qonnx_hub_adapters.tflite.importer import TfliteImporter, bytes_of
from qonnx_hub_adapters.tflite.info import INFO
from qonnx_hub_adapters.tflite.interpreter import joined, parts_of_runs
from qonnx_hub_adapters.tflite.net import TfliteNet
from qonnx_hub_adapters.tflite.reader import read_net
from qonnx_hub_ir.errors import ExecutionError
from qonnx_hub_ir.quantizers import Array

KERNELS: Mapping[str, str] = {
    "ref": "the reference kernels",
    "opt": "the optimized kernels",
    "xnn": "XNNPACK",
}
"""Name -> the kernels that it stands for."""

SECONDS = 120.0
"""How long one answer may take."""

_MODULE, _DISTRIBUTION = "ai_edge_litert", "ai-edge-litert"


def is_litert_installed() -> bool:
    """Return whether ai-edge-litert can be found."""
    return is_installed(_MODULE)


def litert_version() -> str:
    """Return name and version of the interpreter, such as "ai-edge-litert 2.3.0"."""
    try:
        return f"{_DISTRIBUTION} {metadata.version(_DISTRIBUTION)}"
    except metadata.PackageNotFoundError:
        return _DISTRIBUTION


@dataclass(slots=True)
class LitertSession:
    """One file in the interpreter; a context manager, whose process ends with it.

    Attributes:
        content: The bytes of the file; they were read by our own reader.
        kernels: A key of :data:`KERNELS`.
        seconds: How long one answer may take.
    """

    content: bytes
    kernels: str
    seconds: float = SECONDS
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _said: IO[bytes] | None = field(default=None, init=False)

    def __enter__(self) -> LitertSession:
        """Start the process and load the file.

        Raises:
            MissingDependencyError: ai-edge-litert is not installed.
            ExecutionError: The interpreter refuses the file, or ends on it.
        """
        require(_MODULE, needed_by="the backend 'tflite'", extra="litert")
        self._said = tempfile.TemporaryFile()
        program = [sys.executable, str(litert_process.__file__), self.kernels]
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            program,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env={**os.environ, **quiet},
        )
        try:
            self._ask(self.content)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process."""
        self._end()

    def run(self, inputs: Sequence[Array]) -> list[Array]:
        """Return the outputs of one run, in order; variables start anew.

        Raises:
            ExecutionError: The interpreter refuses, fails, or takes too long.
        """
        stream = io.BytesIO()
        named: dict[str, Any] = {f"x{i}": np.asarray(x) for i, x in enumerate(inputs)}
        np.savez(stream, **named)
        made = np.load(io.BytesIO(self._ask(stream.getvalue())), allow_pickle=False)
        return [made[f"y{i}"] for i in range(len(made.files))]

    def _ask(self, message: bytes) -> bytes:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise ExecutionError("the interpreter was not started")
        where = f"{litert_version()}, {KERNELS[self.kernels]}"
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(struct.pack("<Q", len(message)) + message)
            process.stdin.flush()
        answer = self._answer(process)
        if not answer:
            process.wait()
            raise ExecutionError(f"{where}: the interpreter ended{self._last_words()}")
        if answer[:1] == b"e":
            words = " ".join(answer[1:].decode(errors="replace").split())
            raise ExecutionError(f"{where}: {words[:300]}")
        return answer[1:]

    def _answer(self, process: subprocess.Popen[bytes]) -> bytes:
        """Return the next answer; empty where the process is at its end."""
        assert process.stdout is not None, "it was opened with a pipe"
        number, until = process.stdout.fileno(), time.monotonic() + self.seconds
        head = _received(number, 8, until)
        if len(head) < 8:
            return b""
        return _received(number, struct.unpack("<Q", head)[0], until)

    def _last_words(self) -> str:
        if self._said is None:
            return ""
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").split("\n")
        told = [" ".join(line.split()) for line in lines if line.strip()]
        return f" ({told[-1][:200]})" if told else ""

    def _end(self) -> None:
        process = self._process
        if process is not None:
            process.kill()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
            process.wait()
        if self._said is not None:
            self._said.close()
        self._process = self._said = None


def _received(number: int, size: int, until: float) -> bytes:
    """Return so many bytes of a pipe, or fewer where it ends.

    Raises:
        ExecutionError: They do not come in time.
    """
    found = bytearray()
    while len(found) < size:
        left = until - time.monotonic()
        if left <= 0 or not select.select([number], [], [], left)[0]:
            raise ExecutionError("the interpreter of ai-edge-litert does not answer in time")
        part = os.read(number, min(size - len(found), 1 << 20))
        if not part:
            return b""
        found += part
    return bytes(found)


def run_on_litert(
    content: bytes, net: TfliteNet, feeds: Feeds, kernels: str
) -> dict[str, Array]:
    """Return what a file's kernels give for samples behind each other, by the outputs' names.

    Args:
        content: The bytes of the file.
        net: What our own reader read of them.
        feeds: Name of an input -> codes or floats, any number of the file's own batch.
        kernels: A key of :data:`KERNELS`.

    Raises:
        MissingDependencyError: ai-edge-litert is not installed.
        ExecutionError: The interpreter refuses the file, ends on it, or fails.

    Example:
        >>> run_on_litert(data, read_net(data), {"x": codes}, "xnn")["y"]
    """
    with LitertSession(content, kernels) as session:
        runs = [
            session.run([np.asarray(part[name]) for name in net.input_names])
            for part in parts_of_runs(net, feeds)
        ]
    return {name: joined([run[i] for run in runs]) for i, name in enumerate(net.output_names)}


@dataclass(slots=True)
class LitertSource:
    """What answers for TFLite files in place of our own kernels.

    Attributes:
        kernels: A key of :data:`KERNELS`.
    """

    kernels: str

    @property
    def info(self) -> AdapterInfo:
        """What is known of the form."""
        return INFO

    def accepts(self, source: object) -> bool:
        """Return whether a source is a TFLite file."""
        return TfliteImporter().accepts(source)

    def load(self, source: object, options: ImportOptions) -> Model:
        """Return the net as IR; see :class:`TfliteImporter`."""
        return TfliteImporter().load(source, options)

    def load_as_written(self, source: object) -> Model:
        """Return the net as nodes of its own; see :class:`TfliteImporter`."""
        return TfliteImporter().load_as_written(source)

    def run_source(self, source: object, feeds: Feeds) -> Outputs | None:
        """Return what the kernels give.

        Raises:
            SourceError: Our own reader refuses the file: the interpreter never sees it.
            ExecutionError: As in :func:`run_on_litert`.
        """
        content = bytes_of(source)
        return run_on_litert(content, read_net(content), feeds, self.kernels)

    def runtime(self, source: object) -> str:
        """Return what answers for a file."""
        return f"on {KERNELS[self.kernels]} of {litert_version()}"
