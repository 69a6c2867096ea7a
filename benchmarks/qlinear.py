"""Milliseconds and integer layers of QLinear files, beside onnxruntime and fake quantization.

For each net: how many layers are integer-only, how long the export takes, and one run of the
integer file on our executor and on onnxruntime (one thread, default options), beside the
executor on the graph with its quantizers. Answers of both engines are compared first; a
difference ends the script. ``--models DIR`` adds public ONNX files.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nets
import numpy as np
import onnx_ir

import qonnx_hub as qh
from qonnx_hub_adapters.protocol import export_options
from qonnx_hub_adapters.qlinear.exporter import QlinearExporter

BUDGET = 0.5
"""Seconds spent on one figure."""

PUBLIC = ("TFC_2W2A", "TFC_1W1A", "kwsmlp_w3a3", "qkeras_jettagging")


def collect(folder: Path | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "tfc 2w2a": nets.tfc(),
        "cnv 2w2a": nets.cnv(),
        "cnv 1w1a": nets.cnv(1, 1),
        "resnet8 4w4a": nets.resnet8(),
        "mobilenet 0.25 96": nets.mobilenet_v1(0.25, 96),
    }
    for name in PUBLIC if folder is not None else ():
        path = folder / f"{name}.onnx"
        if path.exists():
            found[name] = str(path)
    return found


def measure(call: Callable[[], object]) -> float:
    """Return the best time of a call in milliseconds."""
    call()
    best, end = float("inf"), time.perf_counter() + BUDGET
    while time.perf_counter() < end:
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best * 1000


def feed_of(model: qh.ir.Model, batch: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    feeds = {}
    for value in model.graph.inputs:
        dims = [] if value.shape is None else list(value.shape)
        shape = [d if isinstance(d, int) else batch for d in dims]
        feeds[str(value.name)] = rng.uniform(-1, 1, shape).astype(np.float32)
    return feeds


def ort_call(message: bytes, feeds: dict[str, Any]) -> Callable[[], list[Any]] | None:
    try:
        import onnxruntime as ort
    except ImportError:
        return None
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(message, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, feeds)


def row(name: str, source: Any, batch: int, dialect: str) -> dict[str, Any]:
    model = qh.load(source, from_="qonnx")
    start = time.perf_counter()
    artifact = QlinearExporter().export(model, export_options(dialect=dialect))
    seconds = time.perf_counter() - start
    feeds = feed_of(model, batch)
    proto = onnx_ir.to_proto(artifact.model)
    session, fake = qh.Session(qh.load(proto, from_="qonnx")), qh.Session(model)
    ours = list(session.run(feeds).values())
    theirs = ort_call(proto.SerializeToString(), feeds)
    for mine, other in zip(ours, theirs() if theirs is not None else ours, strict=True):
        # Float operators behind the last integers (a Softmax) may differ in their last bit.
        np.testing.assert_allclose(mine, other, rtol=1e-6, atol=1e-6)
    return {
        "net": name,
        "batch": batch,
        "layers": artifact.notes[0],
        "export s": seconds,
        "integer ms": measure(lambda: session.run(feeds)),
        "fake ms": measure(lambda: fake.run(feeds)),
        "ort ms": None if theirs is None else measure(theirs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, help="folder with public ONNX files")
    parser.add_argument("--json", type=Path, help="write the figures as JSON")
    parser.add_argument("--batch", type=int, default=1, help="samples per run")
    parser.add_argument("--dialect", default="onnx", help="onnx, or ort for its own operators")
    args = parser.parse_args()
    columns = ("export s", "integer ms", "fake ms", "ort ms")
    print(f"{'net':20}{''.join(f'{c:>12}' for c in columns)}  layers")
    figures = []
    for name, source in collect(args.models).items():
        figures.append(row(name, source, args.batch, args.dialect))
        cells = [figures[-1][c] for c in columns]
        shown = "".join(f"{'-':>12}" if c is None else f"{c:12.3f}" for c in cells)
        print(f"{name:20}{shown}  {figures[-1]['layers']}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
