"""How long checking 10,000 samples takes, and that it needs no more memory than 1,000.

Checks a network against its QCDQ form, outputs and inner values. Usage:
``python benchmarks/checker.py [MODEL.onnx]``; without a file, a network shaped like the model
zoo's keyword spotting (490-256-256-256-12, 3-bit weights and activations) with random weights.
Each count of samples runs in a process of its own, whose peak memory is printed.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nets
import onnx

import qonnx_hub as qh

COUNTS = (1_000, 10_000, 40_000)
LEVELS = ("output", "layer")
WORKERS = (0, 2)


def keyword_net() -> onnx.ModelProto:
    net = nets._Net("kws_w3a3", seed=5)
    x = net.add("Flatten", ["x"], "flat", axis=1)
    x = net.quant(x, "input_quant", scale=0.5, bits=8, narrow=True)
    features = 490
    for layer in (1, 2, 3):
        weight = net.scaled_weight(f"fc{layer}.weight", (256, features), 3)
        weight = net.add("Transpose", [weight], f"fc{layer}.weight_t", perm=[1, 0])
        x = net.add("MatMul", [x, weight], f"fc{layer}")
        x = net.relu_activation(net.batchnorm(x, f"bn{layer}", 256), f"act{layer}", 3)
        features = 256
    net.gemm(x, "logits", 256, 12, 3)
    return net.model({"x": (10, 49)}, {"logits": (12,)})


def measure(a: str, b: str, samples: int, level: str, workers: int) -> None:
    start = time.perf_counter()
    result = qh.check(a, b, samples=samples, level=level, workers=workers, boundary=False)
    seconds = time.perf_counter() - start
    who = resource.RUSAGE_CHILDREN if workers else resource.RUSAGE_SELF
    peak = resource.getrusage(who).ru_maxrss / 1024
    print(
        f"{samples:>7} samples  {level:<6}  {workers} workers  {seconds:6.2f} s  "
        f"peak {peak:5.0f} MiB  {result.verdict}, {result.layers} inner values"
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        source = sys.argv[1] if len(sys.argv) > 1 else str(path)
        if len(sys.argv) == 1:
            onnx.save(keyword_net(), path)
        other = str(Path(folder) / "qcdq.onnx")
        qh.convert(source, other, to="qcdq")
        for workers in WORKERS:
            for level in LEVELS:
                for samples in COUNTS:
                    arguments = [source, other, str(samples), level, str(workers)]
                    subprocess.run([sys.executable, __file__, "one", *arguments], check=True)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "one":
        measure(sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5], int(sys.argv[6]))
    else:
        main()
