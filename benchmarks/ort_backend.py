"""Times sessions on onnxruntime against the same nets without quantizers.

    python benchmarks/ort_backend.py [--threads 1] [--batch 1] [--json PATH]

"plain" is the net with every quantizer taken out, on onnxruntime with its default
optimizations: what a runtime can at best come near to. "ours" is a session of the backend
"ort"; "float" and "qcdq" are what the converter writes with ``--encoding float`` and by
default, on a session that fuses no integer kernels. The best of many calls counts, taken in
turns, so that a machine that is busy for a while slows all of them.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import onnxruntime as ort

import qonnx_hub as qh
from qonnx_hub_ir import dialect

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks import nets

SECONDS_PER_NET = 6.0
NETS: dict[str, Callable[[], onnx.ModelProto]] = {
    "tfc_2w2a": nets.tfc,
    "cnv_2w2a": nets.cnv,
    "resnet8_4w4a": nets.resnet8,
    "mobilenet_v1_4w4a": nets.mobilenet_v1,
}


def without_quantizers(model: qh.ir.Model) -> qh.ir.Model:
    copy = model.clone()
    for node in copy.graph:
        if dialect.is_quantizer(node):
            node.resize_inputs(1)
            node.attributes.clear()
            node.domain, node.op_type = "", "Identity"
    return copy


def plain_session(model: qh.ir.Model, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    message = onnx_ir.to_proto(model).SerializeToString()
    return ort.InferenceSession(message, options, providers=["CPUExecutionProvider"])


def calls_for(
    model: qh.ir.Model, feeds: dict[str, Any], threads: int
) -> dict[str, Callable[[], object]]:
    sessions: dict[str, Any] = {"plain": plain_session(without_quantizers(model), threads)}
    for name, encoding in (("float", "float"), ("qcdq", "auto")):
        lowered = qh.convert(model, None, "qcdq", encoding=encoding, check=False).model
        assert lowered is not None
        sessions[name] = plain_session(lowered, threads)
    own = qh.Session(model, backend="ort", threads=threads)
    calls = {k: (lambda s=s: s.run(None, feeds)) for k, s in sessions.items()}
    return {**calls, "ours": lambda: own.run(feeds)}


def best_times(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the best time of each call in milliseconds, all of them taken in turns."""
    best = dict.fromkeys(calls, float("inf"))
    for call in calls.values():
        call()
    end = time.perf_counter() + SECONDS_PER_NET
    while time.perf_counter() < end:
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            best[name] = min(best[name], (time.perf_counter() - start) * 1e3)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    columns = ("plain", "ours", "float", "qcdq")
    print(f"{'net':20}" + "".join(f"{c + ' ms':>11}" for c in columns) + f"{'ours/plain':>12}")
    figures = {}
    for name, build in NETS.items():
        model = qh.load(nets.fix_batch(build(), args.batch))
        value = model.graph.inputs[0]
        shape = [int(d) for d in value.shape or ()]
        x = np.random.default_rng(0).uniform(0, 1, shape).astype(np.float32)
        figures[name] = best_times(calls_for(model, {str(value.name): x}, args.threads))
        row = figures[name]
        cells = "".join(f"{row[c]:11.3f}" for c in columns)
        print(f"{name:20}{cells}{row['ours'] / row['plain']:11.2f}x", flush=True)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
