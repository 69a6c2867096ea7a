"""Read a TFLite file, write it as QDQ and as TFLite again, and compare the codes.

Nothing beside qonnx-hub is needed for that. Where ai-edge-litert is installed (extra
``litert``), the reports also say what its reference kernels and XNNPACK answer::

    python examples/tflite_trip.py net.tflite
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

import qonnx_hub as qh


def trip(path: Path, folder: Path) -> int:
    """Return how many codes of random inputs differ after the way to QDQ and back."""
    graph, again = folder / "qdq.onnx", folder / "again.tflite"
    there = qh.convert(path, graph, to="qcdq", encoding="qdq", allow_lossy=True)
    print(there.summary(), there.conclusion(), *there.notes, sep="\n  ")
    back = qh.convert(graph, again, to="tflite", allow_lossy=True)
    print(back.summary(), back.conclusion(), *back.notes, sep="\n  ")
    rng = np.random.default_rng(0)
    differing = 0
    for _ in range(8):
        feeds = {}
        for value in qh.load(path).graph.inputs:
            shape = [n if isinstance(n, int) else 1 for n in value.shape or ()]
            dtype = np.dtype(value.dtype.numpy() if value.dtype else np.float32)
            if dtype.kind == "f":
                feeds[str(value.name)] = rng.normal(size=shape).astype(dtype)
            else:
                ends = np.iinfo(dtype)
                codes = rng.integers(ends.min, ends.max + 1, shape)
                feeds[str(value.name)] = codes.astype(dtype)
        first, second = (qh.run(str(file), feeds).values() for file in (path, again))
        pairs = zip(first, second, strict=True)
        differing += sum(int(np.count_nonzero(a != b)) for a, b in pairs)
    return differing


def main() -> None:
    """Take the file's path, print both reports and how many codes differ."""
    if len(sys.argv) != 2:
        sys.exit("usage: python examples/tflite_trip.py net.tflite")
    with tempfile.TemporaryDirectory() as folder:
        count = trip(Path(sys.argv[1]), Path(folder))
    print(f"{count} codes differ between {sys.argv[1]} and what came back")
    sys.exit(1 if count else 0)


if __name__ == "__main__":
    main()
