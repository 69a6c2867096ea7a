"""A process that imports once, and children of it that run the command line case by case.

A child runs cases until one kills it or takes too long; the next case gets a new child. So
what costs is the case, and no case can harm another.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import resource
import select
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

BYTES = 4 << 30
"""Address space of a child."""

SECONDS = 20.0
"""Seconds of computing that a case may take; longer counts as a hang."""

_PATIENCE = 6
"""How many times as long a case may take on the clock: others may have the processor."""


@dataclass(frozen=True)
class Outcome:
    """What one call of the command line did.

    Attributes:
        code: Exit code; negative for a signal, ``None`` where it did not end in time.
        out: Standard output.
        err: Standard error.
        seconds: How long it took.
    """

    code: int | None
    out: str
    err: str
    seconds: float


def warm_up() -> None:
    """Import what the verbs import, so that every child has it."""
    import importlib

    for name in (
        *("qonnx_hub.api", "qonnx_hub.cli", "qonnx_hub.io.terminal", "rich.table"),
        *("qonnx_hub.conversion.convert", "qonnx_hub.equivalence.request"),
        *("qonnx_hub.analysis.lint", "qonnx_hub.analysis.inspection", "qonnx_hub.passes"),
        *("qonnx_hub.analysis.cost.cost", "qonnx_hub.analysis.diff", "onnx.reference"),
        *("qonnx_hub.transformation.transform", "qonnx_hub.reporting.pages.page"),
        *("qonnx_hub.executor.session", "qonnx_hub.equivalence.proof.prove"),
    ):
        importlib.import_module(name)
    from qonnx_hub.io import registry

    for kind in (registry.importers(), registry.exporters(), registry.lint_targets()):
        for name in kind.names():
            with contextlib.suppress(ImportError):  # a framework that is not installed
                kind.load(name)
    with contextlib.suppress(ImportError):
        importlib.import_module("onnxruntime")
    _remember(importlib.import_module("typer.main"), "get_command")
    _remember(registry, "entry_points")


def _remember(module: ModuleType, name: str) -> None:
    """Let a function answer again what it answered: a process of a user's asks it once."""
    if not hasattr(getattr(module, name), "cache_info"):
        setattr(module, name, functools.cache(getattr(module, name)))


class Worker:
    """Runs calls of the command line in children of this process.

    Example:
        >>> with Worker(folder) as worker:
        ...     worker.run(["inspect", "model.onnx"]).code
        0
    """

    def __init__(self, folder: Path, seconds: float = SECONDS) -> None:
        self.folder = folder
        self.seconds = seconds
        self._child = 0
        self._to = self._from = -1

    def __enter__(self) -> Worker:
        warm_up()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def run(self, words: Sequence[str]) -> Outcome:
        """Return what a call does; ``words`` as a shell would give them."""
        if not self._child:
            self._start()
        start = time.monotonic()
        os.write(self._to, (json.dumps([*words]) + "\n").encode())
        code: int | None = None
        if self._answers():
            answer = os.read(self._from, 64)
            code = int(answer) if answer else None
            if not answer:
                code = os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])
                self._forget()
        seconds = time.monotonic() - start
        if code is None:
            self._end()
        out, err = (self._text(name) for name in ("out", "err"))
        return Outcome(code, out, err, seconds)

    def _answers(self) -> bool:
        """Return whether the child answers before it has computed for too long."""
        start, before = time.monotonic(), _computed(self._child)
        while True:
            ready, _, _ = select.select([self._from], [], [], self.seconds / 4)
            waited = time.monotonic() - start
            spent = _computed(self._child) - before or waited
            if ready or spent > self.seconds or waited > _PATIENCE * self.seconds:
                return bool(ready)

    def _text(self, name: str) -> str:
        return (self.folder / name).read_bytes().decode("utf-8", "backslashreplace")

    def _start(self) -> None:
        read, self._to = os.pipe()
        self._from, write = os.pipe()
        self._child = os.fork()
        if self._child:
            os.close(read)
            os.close(write)
            return
        # The child: it never leaves this block.
        try:
            os.close(self._to)
            os.close(self._from)
            _serve(self.folder, read, write)
        finally:
            os._exit(99)

    def _end(self) -> None:
        if self._child:
            os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0)
            self._forget()

    def _forget(self) -> None:
        os.close(self._to)
        os.close(self._from)
        self._child = 0


def _computed(process: int) -> float:
    """Return the seconds that a process has computed; 0 where the system does not say."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _serve(folder: Path, read: int, write: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    out, err = (os.open(folder / n, os.O_RDWR | os.O_CREAT, 0o600) for n in ("out", "err"))
    os.dup2(out, 1)
    os.dup2(err, 2)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
    os.chdir(folder)
    with os.fdopen(read, encoding="utf-8") as calls:
        for call in calls:
            for stream in (out, err):
                os.ftruncate(stream, 0)
                os.lseek(stream, 0, os.SEEK_SET)
            code = _call(json.loads(call))
            sys.stdout.flush()
            sys.stderr.flush()
            os.write(write, str(code).encode())


def _call(words: Sequence[str]) -> int:
    from qonnx_hub.cli import main

    sys.argv = ["qonnx-hub", *words]
    try:
        main()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
        return 1
    return 0


def emptied(folder: Path) -> Path:
    """Return a folder without content."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
