"""Times one inference on our executor, on qonnx and on onnxruntime, in one run.

onnxruntime runs the float-domain lowering of each net: the same numbers, without the fusion of
quantized operators. Ratios are what to read; absolute times depend on the machine.

    python benchmarks/executor.py [--models DIR] [--json PATH] [--quick]

``--models`` names a folder with public ONNX files (TFC_2W2A, kwsmlp_w3a3, qkeras_jettagging,
espcn_nn_resize_quant); nets that are missing there are left out. CNV and MobileNetV1 are
built.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir

import qonnx_hub as qh

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks import nets

PUBLIC = ("TFC_2W2A", "kwsmlp_w3a3", "qkeras_jettagging", "espcn_nn_resize_quant")
SECONDS_PER_FIGURE = 1.5


def measure(call: Callable[[], object]) -> float:
    """Return the best time of one call in milliseconds."""
    call()
    best, spent = float("inf"), 0.0
    while spent < SECONDS_PER_FIGURE:
        start = time.perf_counter()
        call()
        took = time.perf_counter() - start
        best, spent = min(best, took), spent + took
    return best * 1e3


def collect(folder: Path | None) -> dict[str, onnx.ModelProto]:
    models: dict[str, onnx.ModelProto] = {}
    found = {p.stem: p for p in folder.rglob("*.onnx")} if folder else {}
    for name in PUBLIC:
        if name in found:
            models[name] = onnx.load(found[name])
    models["cnv_2w2a"] = nets.fix_batch(nets.cnv(2, 2), 1)
    models["mobilenet_v1_4w4a"] = nets.fix_batch(nets.mobilenet_v1(), 1)
    return models


def feed_of(model: qh.ir.Model, batch: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    feeds = {}
    for value in model.graph.inputs:
        dims = [] if value.shape is None else list(value.shape)[1:]
        shape = (batch, *(d for d in dims if isinstance(d, int)))
        feeds[str(value.name)] = rng.uniform(-1, 1, shape).astype(np.float32)
    return feeds


def with_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """Return a copy whose inputs and outputs hold ``batch`` samples."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    initializers = {tensor.name for tensor in copy.graph.initializer}
    for value in copy.graph.input:
        if value.name not in initializers:
            value.type.tensor_type.shape.dim[0].dim_value = batch
    for value in copy.graph.output:
        value.type.tensor_type.shape.dim[0].dim_value = batch
    del copy.graph.value_info[:]
    return copy


def qonnx_call(source: onnx.ModelProto, feeds: dict[str, Any]) -> Callable[[], object] | None:
    """Return a call of qonnx' executor, or ``None`` where it is not there or fails."""
    try:
        from qonnx.core.modelwrapper import ModelWrapper
        from qonnx.core.onnx_exec import execute_onnx
        from qonnx.util.cleanup import cleanup_model

        batch = next(iter(feeds.values())).shape[0]
        wrapped = cleanup_model(ModelWrapper(with_batch(source, batch)))
        given = dict(zip([i.name for i in wrapped.graph.input], feeds.values(), strict=True))
        execute_onnx(wrapped, given)
    except Exception as error:  # another tool's failure is a result here
        print(f"    qonnx: {type(error).__name__}: {str(error)[:80]}", file=sys.stderr)
        return None
    return lambda: execute_onnx(wrapped, given)


def ort_call(model: qh.ir.Model, feeds: dict[str, Any]) -> Callable[[], object] | None:
    """Return a call of onnxruntime on the float-domain lowering, or ``None`` without it."""
    try:
        import onnxruntime as ort
    except ImportError:
        return None
    lowered = qh.convert(model, None, "qcdq", encoding="float", check=False).model
    if lowered is None:
        return None
    for value in lowered.graph.inputs:
        if value.shape is not None:
            value.shape = onnx_ir.Shape(["N", *list(value.shape)[1:]])
    for value in (*lowered.graph.outputs, *(v for n in lowered.graph for v in n.outputs)):
        value.shape = None
    session = ort.InferenceSession(onnx_ir.to_proto(lowered).SerializeToString())
    return lambda: session.run(None, feeds)


def row(name: str, source: onnx.ModelProto, batch: int) -> dict[str, Any]:
    model = qh.load(source)
    session = qh.Session(model)
    feeds = feed_of(model, batch)
    times: dict[str, Any] = {"ours": measure(lambda: session.run(feeds))}
    for peer, call in (("qonnx", qonnx_call(source, feeds)), ("ort", ort_call(model, feeds))):
        times[peer] = None if call is None else measure(call)
    return {"net": name, "batch": batch, **times}


def shown(figure: dict[str, Any]) -> str:
    def cell(value: float | None, form: str) -> str:
        return f"{'-':>10}" if value is None else f"{value:{form}}"

    ours = figure["ours"]
    faster = None if figure["qonnx"] is None else figure["qonnx"] / ours
    slower = None if figure["ort"] is None else ours / figure["ort"]
    cells = [cell(figure[k], "10.3f") for k in ("ours", "qonnx", "ort")]
    return (
        f"{figure['net']:24}{figure['batch']:6}{''.join(cells)}"
        f"{cell(faster, '9.1f')}x{cell(slower, '9.2f')}x"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, help="folder with public ONNX files")
    parser.add_argument("--json", type=Path, help="write the figures as JSON")
    parser.add_argument("--quick", action="store_true", help="batch 1 only")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"{'net':24}{'batch':>6}{'ours ms':>10}{'qonnx ms':>10}{'ort ms':>10}", end="")
    print(f"{'vs qonnx':>10}{'vs ort':>10}")
    figures = []
    for name, source in collect(args.models).items():
        # The largest net has no room for 64 images beside the peers' copies.
        batches = [1] if args.quick else [1, 8 if name.startswith("mobilenet") else 64]
        for batch in batches:
            figures.append(row(name, source, batch))
            print(shown(figures[-1]), flush=True)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
