"""Times an inference on our executor, qonnx, onnxruntime and onnx.reference, in one run.

onnxruntime and onnx.reference run the float-domain lowering of each net: the same numbers,
without the fusion of quantized operators. onnxruntime computes on as many threads as ours,
once node by node as we do ("ort"), once with all its fusions ("fused"); "floor" is what numpy
needs for the same products and values alone, see :mod:`benchmarks.floor`. Ratios are what to
read: "vs" is how many times faster we are, "/" how many times slower. The last column is the
peak memory of one run of ours over what the values need that are alive at the same time.

    python benchmarks/executor.py [--models DIR] [--json PATH] [--quick]

``--models`` names a folder with public ONNX files (TFC_2W2A, kwsmlp_w3a3, qkeras_jettagging,
espcn_nn_resize_quant); nets that are missing there are left out. CNV, MobileNetV1, ResNet-8
and the U-Net are built.
"""

from __future__ import annotations

import argparse
import json
import sys
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
from qonnx_hub.executor.threads import default_threads

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks import nets
from benchmarks.floor import floor_call
from benchmarks.timing import in_turn

PUBLIC = ("TFC_2W2A", "kwsmlp_w3a3", "qkeras_jettagging", "espcn_nn_resize_quant")


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


def ort_call(
    model: onnx.ModelProto, feeds: dict[str, Any], *, fused: bool
) -> Callable[[], object] | None:
    """Return a call of onnxruntime on as many threads as ours, or ``None`` without it."""
    try:
        import onnxruntime as ort
    except ImportError:
        return None
    options = ort.SessionOptions()
    options.intra_op_num_threads = default_threads()
    if not fused:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options)
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
    """Return the timings of one net: ours, the peers', and numpy's floor."""
    model = qh.load(source)
    session = qh.Session(model)
    feeds = feed_of(model, batch)
    plain = lowered(model)
    times = in_turn(
        {
            "ours": lambda: session.run(feeds),
            "ort": ort_call(plain, feeds, fused=False),
            "ort_fused": ort_call(plain, feeds, fused=True),
            "floor": floor_call(model, session.run(feeds, all_tensors=True)),
            "qonnx": qonnx_call(source, feeds),
            "reference": reference_call(plain, feeds),
        }
    )
    return {"net": name, "batch": batch, **times, "memory": memory_ratio(model, feeds)}


COLUMNS = ("qonnx", "ort", "ort_fused", "floor", "reference")


def shown(figure: dict[str, Any]) -> str:
    """Return a row as text: our best and median, and ratios of the best of all."""
    ours = figure["ours"]
    cells = [
        f"{figure['net']:22}{figure['batch']:6}{ours['best']:10.3f}{ours['median']:10.3f}"
    ]
    for peer in COLUMNS:
        ratio = None if figure[peer] is None else figure[peer]["best"] / ours["best"]
        if peer in ("ort", "ort_fused", "floor") and ratio is not None:
            ratio = 1 / ratio
        cells.append(f"{'-':>11}" if ratio is None else f"{ratio:10.2f}x")
    return "".join(cells) + f"{figure['memory']:8.2f}"


HEADER = (
    f"{'net':22}{'batch':>6}{'best ms':>10}{'median':>10}{'vs qonnx':>11}{'/ ort':>11}"
    f"{'/ fused':>11}{'/ floor':>11}{'vs refer.':>11}{'memory':>8}"
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
