"""Times an inference on our executor, qonnx, onnxruntime and onnx.reference, in one run.

onnxruntime and onnx.reference run the float-domain lowering of each net: the same numbers,
without the fusion of quantized operators. Ratios are what to read; absolute times depend on
the machine. The last column is the peak memory of one run of ours over what the values need
that are alive at the same time.

    python benchmarks/executor.py [--models DIR] [--json PATH] [--quick]

``--models`` names a folder with public ONNX files (TFC_2W2A, kwsmlp_w3a3, qkeras_jettagging,
espcn_nn_resize_quant); nets that are missing there are left out. CNV, MobileNetV1, ResNet-8
and the U-Net are built.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.reference
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
    models["resnet8_4w4a"] = nets.fix_batch(nets.resnet8(), 1)
    models["unet_4w4a"] = nets.fix_batch(nets.unet(), 1)
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


def lowered(model: qh.ir.Model) -> onnx.ModelProto:
    """Return the net in float operators of the standard, for any batch."""
    copy = qh.convert(model, None, "qcdq", encoding="float", check=False).model
    assert copy is not None
    for value in copy.graph.inputs:
        if value.shape is not None:
            value.shape = onnx_ir.Shape(["N", *list(value.shape)[1:]])
    for value in (*copy.graph.outputs, *(v for n in copy.graph for v in n.outputs)):
        value.shape = None
    return onnx_ir.to_proto(copy)


def ort_call(model: onnx.ModelProto, feeds: dict[str, Any]) -> Callable[[], object] | None:
    """Return a call of onnxruntime, or ``None`` without it."""
    try:
        import onnxruntime as ort
    except ImportError:
        return None
    session = ort.InferenceSession(model.SerializeToString())
    return lambda: session.run(None, feeds)


def reference_call(
    model: onnx.ModelProto, feeds: dict[str, Any]
) -> Callable[[], object] | None:
    """Return a call of ONNX's own evaluator; ``None`` for convolutions, which take minutes."""
    if any(node.op_type == "Conv" for node in model.graph.node):
        return None
    evaluator = onnx.reference.ReferenceEvaluator(model)
    return lambda: evaluator.run(None, feeds)


def memory_ratio(model: qh.ir.Model, feeds: dict[str, Any]) -> float:
    """Return the peak memory of one run over the most that values alive together take."""
    session = qh.Session(model, threads=1)
    sizes = {
        name: value.nbytes for name, value in session.run(feeds, all_tensors=True).items()
    }
    constants = {str(name) for name in model.graph.initializers}
    last = {str(v.name): i for i, n in enumerate(model.graph) for v in n.inputs if v}
    last.update((str(v.name), len(model.graph)) for v in model.graph.outputs)
    alive = 0
    most = 1
    for index, node in enumerate(model.graph):
        alive += sum(sizes[str(v.name)] for v in node.outputs if str(v.name) not in constants)
        most = max(most, alive)
        for value in {v for v in (*node.inputs, *node.outputs) if v is not None}:
            name = str(value.name)
            if last.get(name, index) == index and value.producer() is not None:
                alive -= sizes[name]
    session.run(feeds)
    tracemalloc.start()
    session.run(feeds)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / most


def row(name: str, source: onnx.ModelProto, batch: int) -> dict[str, Any]:
    model = qh.load(source)
    session = qh.Session(model)
    feeds = feed_of(model, batch)
    times: dict[str, Any] = {"ours": measure(lambda: session.run(feeds))}
    plain = lowered(model)
    calls = {
        "qonnx": qonnx_call(source, feeds),
        "ort": ort_call(plain, feeds),
        "reference": reference_call(plain, feeds),
    }
    for peer, call in calls.items():
        times[peer] = None if call is None else measure(call)
    return {"net": name, "batch": batch, **times, "memory": memory_ratio(model, feeds)}


def shown(figure: dict[str, Any]) -> str:
    def cell(value: float | None, form: str) -> str:
        return f"{'-':>11}" if value is None else f"{value:{form}}"

    ours = figure["ours"]
    cells = [cell(figure[k], "11.3f") for k in ("ours", "qonnx", "ort", "reference")]
    faster = [None if (t := figure[k]) is None else t / ours for k in ("qonnx", "reference")]
    slower = None if figure["ort"] is None else ours / figure["ort"]
    ratios = [cell(faster[0], "10.1f"), cell(slower, "10.2f"), cell(faster[1], "10.1f")]
    return (
        f"{figure['net']:22}{figure['batch']:6}{''.join(cells)}"
        f"{'x'.join(ratios)}x{figure['memory']:8.2f}"
    )


HEADER = (
    f"{'net':22}{'batch':>6}{'ours ms':>11}{'qonnx ms':>11}{'ort ms':>11}{'reference':>11}"
    f"{'vs qonnx':>11}{'vs ort':>11}{'vs refer.':>11}{'memory':>8}"
)


def plan(folder: Path | None, quick: bool) -> Iterator[tuple[str, onnx.ModelProto, int]]:
    """Give every net with every batch to time."""
    for name, source in collect(folder).items():
        # Large images have no room for 64 beside the peers' copies.
        large = name.startswith(("mobilenet", "espcn"))
        for batch in [1] if quick else [1, 8] if large else [1, 8, 64]:
            yield name, source, batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, help="folder with public ONNX files")
    parser.add_argument("--json", type=Path, help="write the figures as JSON")
    parser.add_argument("--quick", action="store_true", help="batch 1 only")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    print(HEADER)
    figures = []
    for name, source, batch in plan(args.models, args.quick):
        figures.append(row(name, source, batch))
        print(shown(figures[-1]), flush=True)
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
