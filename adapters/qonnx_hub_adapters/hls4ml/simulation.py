"""hls4ml's own answers for a folder: compiled in a process of its own, and asked by files."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qonnx_hub_adapters.hls4ml import driver
from qonnx_hub_adapters.hls4ml.file_names import SCRIPT
from qonnx_hub_adapters.hls4ml.fixed_point import FixedType
from qonnx_hub_adapters.hls4ml.folder import Hls4mlFolder, has_own_script, read_folder
from qonnx_hub_adapters.hls4ml.inputs import parse_type
from qonnx_hub_adapters.hls4ml.traces import read_layers
from qonnx_hub_ir.errors import (
    ExecutionError,
    MissingDependencyError,
    SourceError,
    UsageError,
)
from qonnx_hub_ir.quantizers import Array

PROJECT = "hls4ml_check"
"""Where in the folder the compiled project lies: it is made again when a file changes."""


@dataclass(slots=True)
class Simulation:
    """A folder that hls4ml compiled, ready to be asked.

    Attributes:
        folder: What the folder holds.
        version: Version of hls4ml.
        types: Layer -> name of a type -> the type that hls4ml settled on.
        skipped: Nodes that are left to the host.
    """

    folder: Hls4mlFolder
    version: str
    types: Mapping[str, Mapping[str, FixedType]]
    skipped: tuple[str, ...]
    _process: subprocess.Popen[str] = field(repr=False)

    def run(self, feeds: Sequence[Array]) -> tuple[list[Array], dict[str, Array]]:
        """Return results in hls4ml's order, one row per sample, and what the layers compute.

        Args:
            feeds: The inputs in order, in the layout of the folder's model.

        Raises:
            ExecutionError: hls4ml fails.
        """
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "batch.npz"
            arrays: dict[str, Any] = {str(k): array for k, array in enumerate(feeds)}
            np.savez(path, **arrays)
            told = _ask(self._process, str(path))
            with np.load(path) as archive:
                results = [archive[f"y{k}"] for k in range(told["results"])]
                layers = {name: archive[f"l{k}"] for k, name in enumerate(told["layers"])}
        return [one.reshape(len(feeds[0]), -1) for one in results], layers

    def values(self, feeds: Sequence[Array]) -> dict[str, Array]:
        """Return the source's values, by name, as far as hardware holds them; see :meth:`run`.

        Outputs that end in a Softmax which is left to the host have that computed here.
        """
        results, layers = self.run(feeds)
        found = read_layers(layers, self.folder.model.graph, self.folder.tensors)
        makers = {str(v.name): v.producer() for v in self.folder.model.graph.outputs}
        for port in self.folder.outputs:
            values, maker = port.restored(results[port.result]), makers.get(port.name)
            if maker is not None and maker.name in self.skipped:
                shares = np.exp(values - values.max(axis=-1, keepdims=True))
                values = shares / shares.sum(axis=-1, keepdims=True)
            found[port.source] = values
        return found

    def close(self) -> None:
        """End the process."""
        _end(self._process)


def simulate(folder: Hls4mlFolder, python: str | None = None) -> Simulation:
    """Compile a folder with hls4ml, or load what was compiled of the same files before.

    Args:
        folder: What the folder holds.
        python: An interpreter that has hls4ml; the running one by default.

    Raises:
        MissingDependencyError: There is no hls4ml, or no compiler.
        SourceError: hls4ml does not take the folder, or does not compile it.
    """
    interpreter = python or sys.executable
    project = folder.path.absolute() / PROJECT
    # What hls4ml prints goes to a file: a pipe that nobody reads would stop it.
    log = tempfile.TemporaryFile(mode="w+", encoding="utf-8", errors="replace")  # noqa: SIM115
    call = [interpreter, "-W", "ignore", driver.__file__, str(folder.path.absolute())]
    try:
        project.mkdir(exist_ok=True)
        process = subprocess.Popen(
            [*call, str(project)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    except OSError as error:
        log.close()
        raise MissingDependencyError(
            f"'{interpreter}' cannot be run, or '{project}' not be made: {error.strerror}"
        ) from error
    try:
        told = _answer(process)
    except ExecutionError as error:
        log.seek(0)
        last = " ".join(deque(log, 3)).split()
        _end(process)
        raise SourceError(f"hls4ml: {error}: {' '.join(last)[-300:]}") from error
    except MissingDependencyError:
        _end(process)
        raise
    finally:
        log.close()
    found: dict[str, dict[str, FixedType]] = {}
    for layer, named in told["types"].items():
        known = {name: parse_type(text) for name, text in named.items() if "fixed<" in text}
        found[layer] = known
    return Simulation(folder, told["version"], found, tuple(told["skipped"]), process)


def build(
    path: Path,
    python: str | None = None,
    words: Sequence[str] = (),
    *,
    allow_code: bool = False,
) -> None:
    """Run a folder's own script, which converts and compiles it with hls4ml.

    What hls4ml and the compiler print goes where this process prints.

    Args:
        path: The folder.
        python: An interpreter that has hls4ml; the running one by default.
        words: What the script is given.
        allow_code: Run a script that is not the one that this version writes.

    Raises:
        SourceError: The folder is not whole, or the script fails.
        UsageError: The script is another one.
        MissingDependencyError: There is no hls4ml, or no compiler.
    """
    folder = read_folder(path)
    if not allow_code and not has_own_script(folder.path):
        raise UsageError(
            f"'{folder.path / SCRIPT}' is not the script that this version writes; write the "
            "folder again, or run that script with --allow-code"
        )
    interpreter = python or sys.executable
    if shutil.which("g++") is None:
        raise MissingDependencyError(_missing("there is no g++, which compiles"))
    try:
        asked = subprocess.run([interpreter, "-c", _HAS_HLS4ML], check=False)
    except OSError as error:
        raise MissingDependencyError(
            f"'{interpreter}' cannot be run: {error.strerror}"
        ) from error
    if asked.returncode:
        raise MissingDependencyError(_missing(f"{interpreter} has no hls4ml"))
    script = folder.path.absolute() / SCRIPT
    done = subprocess.run([interpreter, "-W", "ignore", str(script), *words], check=False)
    if done.returncode:
        raise SourceError(f"'{script}' ended with {done.returncode}; see what it printed")


_HAS_HLS4ML = "import importlib.util, sys; sys.exit(not importlib.util.find_spec('hls4ml'))"


def _missing(what: str) -> str:
    return (
        f"{what}; hls4ml is installed with: pip install 'qonnx-hub[hls4ml]', and --python "
        "names another interpreter that has it"
    )


def _ask(process: subprocess.Popen[str], words: str) -> dict[str, Any]:
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(words) + "\n")
        process.stdin.flush()
    except OSError as error:
        raise ExecutionError("hls4ml's process has ended") from error
    return _answer(process)


def _answer(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise ExecutionError("its process ended without an answer")
    told: dict[str, Any] = json.loads(line)
    if "missing" in told:
        raise MissingDependencyError(_missing(str(told["missing"])))
    if "error" in told:
        raise ExecutionError(" ".join(str(told["error"]).split())[:500])
    return told


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
