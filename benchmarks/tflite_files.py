"""How TFLite files compare on their kernels, as a table: ``docs/tflite_files.csv``.

    python benchmarks/tflite_files.py FILE.tflite ... > docs/tflite_files.csv

Random codes of the whole range, every output; needs ai-edge-litert and onnxruntime (extras
``litert`` and ``ort``). Times are medians of 21 readings on one core.
"""

from __future__ import annotations

import csv
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import qonnx_hub as qh
from qonnx_hub_adapters.tflite.distances import distances_of
from qonnx_hub_adapters.tflite.interpreter import run_samples
from qonnx_hub_adapters.tflite.litert import run_on_litert
from qonnx_hub_adapters.tflite.net import TfliteNet
from qonnx_hub_adapters.tflite.reader import read_file, read_net
from qonnx_hub_ir.errors import HubError

SAMPLES = 20
COLUMNS = (
    *("file", "operations", "constants", "read_ms", "values", "run", "integer", "qdq"),
    *("qdq_steps_a_layer", "again", "optimized", "xnnpack"),
)


def inputs(net: TfliteNet) -> dict[str, Any]:
    """Return random inputs: codes of the whole range, floats around zero."""
    rng = np.random.default_rng(0)
    found = {}
    for index, name in zip(net.inputs, net.input_names, strict=True):
        tensor = net.tensors[index]
        shape = (SAMPLES * tensor.shape[0], *tensor.shape[1:])
        if tensor.dtype.kind == "f":
            found[name] = rng.normal(0, 3, shape).astype(np.float32)
        else:
            ends = np.iinfo(tensor.dtype)
            found[name] = rng.integers(ends.min, ends.max + 1, shape).astype(tensor.dtype)
    return found


def differing(expected: dict[str, Any], made: Any) -> int:
    """Return how many values of the outputs differ."""
    pairs = zip(expected.values(), made.values(), strict=True)
    return sum(int(np.count_nonzero(x != np.reshape(y, x.shape))) for x, y in pairs)


def read_time(path: Path) -> float:
    """Return the median time of reading, in milliseconds."""
    times = []
    for _ in range(21):
        start = time.perf_counter()
        read_file(path)
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def as_onnx(path: Path, feeds: dict[str, Any], **how: Any) -> Any:
    """Return what an ONNX form of a file gives; ``None`` where it has none."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "made.onnx"
        try:
            qh.convert(path, made, to="qcdq", samples=2, **how)
        except HubError:
            return None
        names = [str(value.name) for value in qh.load(made).graph.inputs]
        return qh.run(str(made), dict(zip(names, feeds.values(), strict=True)))


def row(path: Path) -> dict[str, Any]:
    """Return the row of one file: values that differ from the reference kernels."""
    content = path.read_bytes()
    net = read_net(content)
    feeds = inputs(net)
    reference = run_on_litert(content, net, feeds, "ref")
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder) / "again.tflite"
        qh.convert(path, again, to="tflite", samples=2)
        written = again.read_bytes()
    forms = {
        "run": run_samples(net, feeds),
        "integer": as_onnx(path, feeds, encoding="integer"),
        "qdq": as_onnx(path, feeds, encoding="qdq", allow_lossy=True),
        "again": run_on_litert(written, net, feeds, "ref"),
        "optimized": run_on_litert(content, net, feeds, "opt"),
        "xnnpack": run_on_litert(content, net, feeds, "xnn"),
    }
    found = {name: "" if x is None else differing(reference, x) for name, x in forms.items()}
    constants = sum(t.data.size for t in net.tensors if t.data is not None)
    return found | {
        "file": path.stem,
        "operations": len(net.operations),
        "constants": constants,
        "read_ms": f"{read_time(path):.1f}",
        "values": sum(x.size for x in reference.values()),
        "qdq_steps_a_layer": distances_of(net).steps,
    }


def main() -> None:
    """Write a row for each file given."""
    table = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    table.writeheader()
    for name in sys.argv[1:]:
        table.writerow(row(Path(name)))


if __name__ == "__main__":
    main()
