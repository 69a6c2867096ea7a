"""Which files onnxruntime loads and the reader does not.

    python -m tests.e2e.reading FOLDER ...

One line for every file that onnxruntime loads (optimizations off) and that is not read, with
the reason; then the counts. Exit code 1 if there is such a file, or one that ends in anything
but an error of ours.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import qonnx_hub as qh
from qonnx_hub_ir.errors import HubError


@dataclass(frozen=True, slots=True)
class Reading:
    """What became of one file.

    Attributes:
        path: The file.
        runs: Whether onnxruntime loads it; what it says where it does not is of no interest.
        refusal: Why the reader refused it; empty where it read it.
        clean: Whether the refusal, if any, is an error of ours.
    """

    path: Path
    runs: bool
    refusal: str
    clean: bool

    @property
    def is_lost(self) -> bool:
        """Whether it could be run, and is not read."""
        return (self.runs and bool(self.refusal)) or not self.clean


def read_all(folders: Iterable[Path]) -> list[Reading]:
    """Return what became of every ONNX file below the folders, by path."""
    files = sorted(file for folder in folders for file in folder.rglob("*.onnx"))
    return [_read(file) for file in files]


def _read(path: Path) -> Reading:
    try:
        qh.load(path)
    except HubError as error:
        return Reading(path, _runs(path), " ".join(str(error).split()), True)
    except Exception as error:
        return Reading(path, _runs(path), f"{type(error).__name__}: {error}", False)
    return Reading(path, _runs(path), "", True)


def _runs(path: Path) -> bool:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception:  # the binding raises its own types
        return False
    return True


def main(folders: list[str]) -> int:
    """Print what is lost, and the counts; return the exit code."""
    logging.disable(logging.CRITICAL)
    found = read_all(map(Path, folders))
    lost = [one for one in found if one.is_lost]
    for one in lost:
        print(f"{one.path}: {one.refusal[:300]}")
    counts = Counter((one.runs, not one.refusal) for one in found)
    for (runs, read), count in sorted(counts.items(), reverse=True):
        words = "loads" if runs else "does not load"
        print(f"{count:5d} that onnxruntime {words} are {'read' if read else 'refused'}")
    for one in found:
        if one.refusal and not one.runs:
            print(f"  refused by both: {one.path.name}: {one.refusal[:160]}")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
