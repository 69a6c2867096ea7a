"""Times conversions to QCDQ against qonnx-convert, and measures memory on large weights.

    python benchmarks/convert.py [--peer-limit 100] [--gigabytes 1] [--folder DIR]

Chains of quantized matrix products with 50 to 2000 quantizers show how time grows with the
graph. qonnx-convert runs on the shorter ones only (``--peer-limit`` quantizers): its time
grows faster than the square. A model with external weights shows the peak memory of a whole
conversion, in a process of its own.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIZES = (50, 100, 200, 400, 2000)
DOMAIN = "qonnx.custom_op.general"


def chain(quantizers: int, width: int = 16) -> onnx.ModelProto:
    """Return a chain of MatMuls with one weight and one activation quantizer each."""
    rng = np.random.default_rng(0)
    flags = {"signed": 1, "narrow": 1, "rounding_mode": "ROUND"}
    parameters = {"s": 0.25, "z": 0.0, "b": 4.0}
    arrays = {name: np.float32(value) for name, value in parameters.items()}
    nodes, x = [], "x"
    for layer in range(quantizers // 2):
        arrays[f"w{layer}"] = rng.normal(0, 1, (width, width)).astype(np.float32)
        nodes += [
            _quant(f"w{layer}", f"wq{layer}", flags),
            helper.make_node("MatMul", [x, f"wq{layer}"], [f"m{layer}"]),
            _quant(f"m{layer}", f"a{layer}", flags),
        ]
        x = f"a{layer}"
    return _model(nodes, arrays, x, width)


def _quant(x: str, y: str, flags: dict[str, object]) -> onnx.NodeProto:
    return helper.make_node("Quant", [x, "s", "z", "b"], [y], y, domain=DOMAIN, **flags)


def _model(
    nodes: list[onnx.NodeProto], arrays: dict[str, np.ndarray], last: str, width: int
) -> onnx.ModelProto:
    tensors = [numpy_helper.from_array(np.asarray(a), name) for name, a in arrays.items()]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, width])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, [1, width])],
        tensors,
    )
    imports = [helper.make_opsetid("", 19), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


def ours(source: Path, target: Path) -> float:
    import qonnx_hub as qh

    start = time.perf_counter()
    qh.convert(source, target, "qcdq", check=False)
    return time.perf_counter() - start


def theirs(source: Path, target: Path) -> float | None:
    try:
        from qonnx.util.convert import convert
    except ImportError:
        return None
    start = time.perf_counter()
    convert(str(source), output_file=str(target), output_style="qcdq")
    return time.perf_counter() - start


def growth(folder: Path, peer_limit: int) -> list[dict[str, float | None]]:
    """Print and return the times of chains of all sizes."""
    found: list[dict[str, float | None]] = []
    ours(_saved(chain(4), folder), folder / "warm.onnx")
    print(f"{'quantizers':>10}{'ours s':>10}{'ms each':>10}{'qonnx s':>10}{'ratio':>8}")
    for size in SIZES:
        source = _saved(chain(size), folder)
        own = ours(source, folder / "ours.onnx")
        peer = theirs(source, folder / "theirs.onnx") if size <= peer_limit else None
        tail = f"{'-':>10}{'-':>8}" if peer is None else f"{peer:10.2f}{peer / own:7.1f}x"
        print(f"{size:10}{own:10.3f}{own / size * 1e3:10.3f}{tail}", flush=True)
        found.append({"quantizers": size, "ours": own, "qonnx": peer})
    return found


def _saved(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / f"chain_{len(model.graph.node)}.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def large(folder: Path, gigabytes: float) -> None:
    """Convert a model with weights in an external file and print the peak memory."""
    layers, width = 16, int((gigabytes * 2**30 / 16 / 4) ** 0.5)
    path = folder / "large.onnx"
    _write_large(path, layers, width)
    script = (
        "import sys, resource, time; import qonnx_hub as qh; start = time.perf_counter(); "
        "qh.convert(sys.argv[1], sys.argv[2], 'qcdq', check=False); "
        "took = time.perf_counter() - start; "
        "print(took, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    )
    target = folder / "large_qcdq.onnx"
    command = [sys.executable, "-c", script, str(path), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    took, peak = map(float, done.stdout.split())
    before, after = (
        sum(p.stat().st_size for p in (file, Path(f"{file}.data"))) / 2**20
        for file in (path, target)
    )
    print(f"{layers * width * width * 4 / 2**20:.0f} MiB of external weights: {took:.1f} s,")
    print(f"  peak {peak:.0f} MiB; {before:.0f} -> {after:.0f} MiB on disk")


def _write_large(path: Path, layers: int, width: int) -> None:
    model = chain(2 * layers, 8)
    rng = np.random.default_rng(0)
    with Path(f"{path}.data").open("wb") as data:
        for tensor in model.graph.initializer:
            if not tensor.name.startswith("w"):
                continue
            offset = data.tell()
            for _ in range(0, width, 256):
                data.write(rng.normal(0, 1, (256, width)).astype(np.float32)[:width].tobytes())
            tensor.ClearField("raw_data")
            tensor.dims[:] = [(data.tell() - offset) // (4 * width), width]
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (
                ("location", f"{path.name}.data"),
                ("offset", str(offset)),
                ("length", str(data.tell() - offset)),
            ):
                entry = tensor.external_data.add()
                entry.key, entry.value = key, value
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[1].dim_value = width
    path.write_bytes(model.SerializeToString())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-limit", type=int, default=100, help="longest chain for qonnx")
    parser.add_argument("--gigabytes", type=float, default=1.0, help="size of the large model")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        growth(Path(name), args.peer_limit)
        if args.gigabytes:
            large(Path(name), args.gigabytes)
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"(this process: {own:.0f} MiB)")


if __name__ == "__main__":
    main()
