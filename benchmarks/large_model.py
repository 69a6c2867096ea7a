"""Converts a model with gigabytes of weights to QCDQ and measures the memory that it takes.

    python benchmarks/large_model.py [--gigabytes 3] [--folder DIR]

The model is a chain of matrix products with 4-bit weights in an external file. It is written
piece by piece, converted in a process of its own, and spot-checked: rows of every weight are
quantized by hand (divided, rounded half to even, clipped) and compared with the integers in
the converted file. The folder needs one and a half times the size; what is written there is
removed.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.convert import chain

ROOT = Path(__file__).resolve().parents[1]

LAYERS = 24
SCALE = 0.25
BITS = 4
SPOT_ROWS = 16
_BLOCK_ROWS = 256

CONVERT = """
import resource, sys
import qonnx_hub as qh
qh.convert(sys.argv[1], sys.argv[2], "qcdq", check=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def write_model(path: Path, size: int) -> int:
    """Write a chain of quantized matrix products; return the width of its matrices.

    Args:
        path: The file; the weights go into ``path + ".data"``.
        size: About how many bytes the weights take.
    """
    width = int((size / LAYERS / 4) ** 0.5)
    model = chain(2 * LAYERS, 8)
    rng = np.random.default_rng(0)
    data_path = Path(f"{path}.data")
    with data_path.open("wb") as data:
        for tensor in model.graph.initializer:
            if tensor.name.startswith("w"):
                _write_weight(tensor, data, rng, width, data_path.name)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[1].dim_value = width
    path.write_bytes(model.SerializeToString())
    return width


def _write_weight(
    tensor: TensorProto, data: object, rng: np.random.Generator, width: int, location: str
) -> None:
    offset = data.tell()  # type: ignore[attr-defined]
    for start in range(0, width, _BLOCK_ROWS):
        rows = min(_BLOCK_ROWS, width - start)
        block = rng.standard_normal((rows, width), dtype=np.float32)
        data.write(block.tobytes())  # type: ignore[attr-defined]
    tensor.ClearField("raw_data")
    tensor.dims[:] = [width, width]
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", width**2 * 4)):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)


def external(path: Path, name: str, dtype: type) -> np.ndarray:
    """Return a square weight of a file's external data, mapped and not read."""
    model = onnx.load(path, load_external_data=False)
    (tensor,) = [t for t in model.graph.initializer if t.name == name]
    place = {entry.key: entry.value for entry in tensor.external_data}
    return np.memmap(
        path.with_name(place["location"]),
        dtype=dtype,
        mode="r",
        offset=int(place.get("offset", 0)),
        shape=tuple(tensor.dims),
    )


def spot_check(source: Path, target: Path) -> int:
    """Return how many integers were compared; raise AssertionError if one differs."""
    rng = np.random.default_rng(1)
    compared = 0
    for layer in range(LAYERS):
        weight = external(source, f"w{layer}", np.float32)
        codes = external(target, f"wq{layer}_integers", np.int8)
        rows = rng.integers(0, len(weight), SPOT_ROWS)
        high = 2 ** (BITS - 1) - 1
        expected = np.clip(np.rint(weight[rows] / np.float32(SCALE)), -high, high)
        np.testing.assert_array_equal(codes[rows], expected.astype(np.int8))
        compared += expected.size
    return compared


def convert(source: Path, target: Path) -> tuple[float, float]:
    """Return the seconds and the peak memory, in bytes, of a conversion in a fresh process."""
    paths = [str(ROOT), str(ROOT / "ir"), str(ROOT / "adapters")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", CONVERT, str(source), str(target)],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return time.perf_counter() - start, float(done.stdout) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=3.0, help="size of the weights")
    parser.add_argument("--folder", type=Path, help="where to write; a temporary one else")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        source, target = Path(name) / "large.onnx", Path(name) / "large_qcdq.onnx"
        width = write_model(source, int(args.gigabytes * 2**30))
        seconds, peak = convert(source, target)
        sizes = [Path(f"{p}.data").stat().st_size / 2**30 for p in (source, target)]
        print(
            f"{LAYERS} weights of {width} x {width}: {sizes[0]:.2f} GiB -> {sizes[1]:.2f} GiB"
        )
        print(f"converted in {seconds:.1f} s, peak memory {peak / 2**20:.0f} MiB")
        print(f"spot check: {spot_check(source, target)} integers, all as by hand")
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"(this process: {own:.0f} MiB)")


if __name__ == "__main__":
    main()
