"""Times every verb of the command line on graphs of 1,000 and of 10,000 nodes.

    python benchmarks/big_graphs.py [--nodes 1000 10000] [--json PATH]

The graph is a chain of small quantized layers: a weight quantizer, a matrix product and an
activation quantizer each. What is measured is the handling of nodes, not arithmetic. Seconds
are those that the processor spent on the whole process, its start included, so that other work
on the machine does not count. The last column is the growth of the time from the smallest
graph to the largest, over the growth of the graph: 1 means linear.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.convert import chain

VERBS = {
    "convert to qcdq": "convert {model} -o {folder}/qcdq.onnx --to qcdq --no-check",
    "convert and check": "convert {model} -o {folder}/checked.onnx --to qcdq",
    "convert from qcdq": "convert {folder}/qcdq.onnx -o {folder}/qonnx.onnx --no-check",
    "self-contained": "convert {model} -o {folder}/own.onnx --self-contained --no-check",
    "run": "run {model} --inputs {inputs} -o {folder}/y.npz",
    "run --backend ort": "run {model} --inputs {inputs} -o {folder}/y.npz --backend ort",
    "check": "check {model} {folder}/qcdq.onnx",
    "check --level proof": "check {model} {folder}/qcdq.onnx --level proof",
    "inspect": "inspect {model}",
}


def seconds_of(command: list[str]) -> float:
    """Return the processor seconds of a process that must succeed."""
    before = os.times()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = os.times()
    spent = after.children_user - before.children_user
    return spent + after.children_system - before.children_system


def measure(nodes: int, folder: Path) -> dict[str, float]:
    model, inputs = folder / f"chain_{nodes}.onnx", folder / "x.npz"
    model.write_bytes(chain(nodes // 3 * 2).SerializeToString())
    np.savez(inputs, x=np.ones((1, 16), dtype=np.float32))
    figures = {}
    for name, text in VERBS.items():
        words = text.format(model=model, folder=folder, inputs=inputs).split()
        figures[name] = seconds_of([sys.executable, "-m", "qonnx_hub", *words])
        print(f"{nodes:8} nodes  {name:22}{figures[name]:8.1f} s", flush=True)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--json", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        figures = {nodes: measure(nodes, Path(name)) for nodes in args.nodes}
    low, high = min(figures), max(figures)
    print(f"\n{'verb':22}" + "".join(f"{n:>10}" for n in figures) + f"{'growth':>10}")
    for verb, first in figures[low].items():
        growth = figures[high][verb] / first / (high / low)
        row = "".join(f"{figures[n][verb]:9.1f}s" for n in figures)
        print(f"{verb:22}{row}{growth:9.1f}x")
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
