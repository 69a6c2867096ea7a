"""How long passes take on graphs of growing size: seconds, and how they grow.

    python benchmarks/passes.py
    python benchmarks/passes.py --passes streamline to_channels_last --sizes 1000 8000

Every pass that can be made without options runs on copies of one synthetic network of
convolutions, normalizations, residual sums and fully connected layers with that many nodes. A
pass whose time is linear in the size doubles from column to column; the last column is the
exponent between the smallest and the largest size.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import math
import sys
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir
from onnx import helper, numpy_helper
from onnx_ir.passes import InPlacePass

import qonnx_hub_ir.passes as own_passes
from qonnx_hub_ir.passes import IMPORT_PIPELINE, run_passes

DOMAIN = "qonnx.custom_op.general"
SIZES = (625, 1250, 2500, 5000)

_CHANNELS = 4
_FEATURES = 16
_BLOCK = 16


class _Growing:
    """A graph that grows block by block."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(0)
        for name, value in (("scale", 0.125), ("zero", 0.0), ("bits", 4.0)):
            self.constant(name, np.asarray(value, dtype=np.float32))

    def constant(self, name: str, array: npt.NDArray[np.float32]) -> str:
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def normal(self, name: str, *shape: int) -> str:
        return self.constant(name, self.random.normal(size=shape).astype(np.float32))

    def add(self, op_type: str, inputs: list[str], **attributes: object) -> str:
        name = f"n{len(self.nodes)}"
        quantizer = op_type == "Quant"
        domain = DOMAIN if quantizer else ""
        if quantizer:
            inputs = [*inputs, "scale", "zero", "bits"]
        node = helper.make_node(op_type, inputs, [name], name, domain=domain, **attributes)
        self.nodes.append(node)
        return name

    def convolutional(self, x: str) -> str:
        """Sixteen nodes: two convolutions, a residual sum between Transposes, a pool."""
        start = x
        for _ in range(2):
            label = f"w{len(self.nodes)}"
            kernel = self.normal(label, _CHANNELS, _CHANNELS, 3, 3)
            weight = self.add("Quant", [kernel])
            bias = self.normal(f"{label}_bias", _CHANNELS)
            x = self.add("Conv", [x, weight, bias], kernel_shape=[3, 3], pads=[1] * 4)
            parts = [self.normal(f"{label}_{part}", _CHANNELS) for part in "gbm"]
            ones = np.ones(_CHANNELS, dtype=np.float32)
            spread = self.constant(f"{label}_v", ones)
            x = self.add("BatchNormalization", [x, *parts, spread])
            x = self.add("Relu", [x])
            x = self.add("Quant", [x])
        x = self.add("Transpose", [x], perm=[0, 2, 3, 1])
        x = self.add("Relu", [x])
        x = self.add("Transpose", [x], perm=[0, 3, 1, 2])
        x = self.add("Add", [x, start])
        return self.add("MaxPool", [x], kernel_shape=[1, 1])

    def connected(self, x: str) -> str:
        """Fourteen nodes: two products by weights that are transposed, and what follows."""
        for turned in (True, False):
            label = f"w{len(self.nodes)}"
            weight = self.add("Quant", [self.normal(label, _FEATURES, _FEATURES)])
            bias = self.normal(f"{label}_bias", _FEATURES)
            if turned:
                weight = self.add("Transpose", [weight], perm=[1, 0])
                x = self.add("Add", [self.add("MatMul", [x, weight]), bias])
            else:
                x = self.add("Gemm", [x, weight, bias], transB=1)
            x = self.add("Mul", [x, self.normal(f"{label}_gain", _FEATURES)])
            x = self.add("Identity", [x])
            x = self.add("Quant", [x])
            x = self.add("Relu", [x])
        return x


def network(size: int) -> onnx.ModelProto:
    """Return a network of about that many nodes."""
    grow = _Growing()
    x = "x"
    while len(grow.nodes) < size // 2:
        x = grow.convolutional(x)
    x = grow.add("GlobalAveragePool", [x])
    x = grow.add("Flatten", [x])
    x = grow.add("MatMul", [x, grow.normal("widen", _CHANNELS, _FEATURES)])
    while len(grow.nodes) < size - _BLOCK:
        x = grow.connected(x)
    graph = helper.make_graph(
        grow.nodes,
        f"passes_{size}",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, _CHANNELS, 6, 6])],
        [helper.make_tensor_value_info(x, onnx.TensorProto.FLOAT, [1, _FEATURES])],
        grow.weights,
    )
    imports = [helper.make_opsetid("", 19), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


def passes_without_options() -> dict[str, InPlacePass]:
    """Return the exported passes that need no options, by the names of their modules."""
    found = {}
    for name in own_passes.__all__:
        cls = getattr(own_passes, name)
        if not (inspect.isclass(cls) and issubclass(cls, InPlacePass)):
            continue
        fields = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()
        missing = dataclasses.MISSING
        if all(f.default is not missing or f.default_factory is not missing for f in fields):
            found[cls.__module__.rpartition(".")[2]] = cls()
    return found


def seconds(step: InPlacePass, model: onnx_ir.Model, repeat: int) -> float:
    """Return the least time that a pass took on a copy of the model."""
    times = []
    for _ in range(repeat):
        copy = model.clone()
        start = time.perf_counter()
        step(copy)
        times.append(time.perf_counter() - start)
    return min(times)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table and return 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--passes", nargs="*", help="names of passes; all by default")
    parser.add_argument("--sizes", nargs="*", type=int, default=list(SIZES))
    parser.add_argument("--repeat", type=int, default=1, help="runs of which the best counts")
    options = parser.parse_args(arguments)
    known = passes_without_options()
    unknown = sorted(set(options.passes or ()) - set(known))
    if unknown:
        parser.error(f"unknown passes {', '.join(unknown)}; there are {', '.join(known)}")
    models = {}
    for size in options.sizes:
        models[size] = onnx_ir.from_proto(network(size))
        run_passes(models[size], IMPORT_PIPELINE)
    print("seconds".ljust(28), *(f"{size:>8}" for size in models), " exponent")
    for name in options.passes or sorted(known):
        taken = [seconds(known[name], model, options.repeat) for model in models.values()]
        line = " ".join(f"{value:8.3f}" for value in taken)
        print(f"{name:28} {line} {_exponent(list(models), taken):9.2f}", flush=True)
    return 0


def _exponent(sizes: list[int], taken: list[float]) -> float:
    if len(sizes) < 2 or min(taken) <= 0:
        return float("nan")
    return math.log(taken[-1] / taken[0]) / math.log(sizes[-1] / sizes[0])


if __name__ == "__main__":
    sys.exit(main())
