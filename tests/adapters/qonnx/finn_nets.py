"""Random small nets with what troubles FINN: forks, shared Relus, residuals, averages."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper

from tests.support import DOMAIN, model_of

Value = tuple[str, int, int]
"""Name, channels, height: 0 for what has no height."""


class RandomNet:
    """A net of one to five layers, each behind another; the same seed gives the same net."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}

    def chance(self, share: float) -> bool:
        return bool(self.random.random() < share)

    def pick(self, *values: Any) -> Any:
        return values[int(self.random.integers(0, len(values)))]

    def const(self, values: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(values, dtype=np.float32)
        return name

    def add(self, op: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        node = helper.make_node(op, list(inputs), [name], f"n{name}", domain=domain)
        node.attribute.extend(helper.make_attribute(*one) for one in attributes.items())
        self.nodes.append(node)
        return name

    def scale(self) -> float:
        return self.pick(0.5, 0.25, 0.125, float(self.random.uniform(0.05, 0.4)))

    def quant(self, x: str, *, signed: int, bipolar: bool = False) -> str:
        if bipolar and self.chance(0.2):
            return self.add("BipolarQuant", x, self.const(self.scale()), domain=DOMAIN)
        zero = self.pick(0, 0, 0, 0, 0, 1, 3)
        numbers = (self.scale(), zero, self.pick(2, 3, 4, 6, 8))
        return self.add(
            *("Quant", x, *map(self.const, numbers)),
            domain=DOMAIN,
            signed=signed,
            narrow=int(bool(signed) and self.chance(0.5)),
            rounding_mode="ROUND",
        )

    def weight(self, *shape: int, channels: int = 0) -> str:
        values, sizes = self.const(self.random.normal(size=shape)), [1] * len(shape)
        if self.chance(0.2):
            return self.add("BipolarQuant", values, self.const(self.scale()), domain=DOMAIN)
        sizes[channels] = shape[channels]
        scales = self.random.uniform(0.05, 0.4, size=sizes)
        numbers = (self.pick(self.scale(), scales), 0, self.pick(2, 3, 4, 8))
        settings = {"signed": 1, "narrow": self.pick(0, 1), "rounding_mode": "ROUND"}
        return self.add(
            *("Quant", values, *map(self.const, numbers)), domain=DOMAIN, **settings
        )

    def layer(self, x: Value) -> Value:
        name, channels, height = x
        made = self.pick(1, 2, 3, 5)
        bias = [self.const(self.random.normal(size=made))] if self.chance(0.3) else []
        if height:
            size = self.pick(1, 3)
            kernel = self.weight(made, channels, size, size)
            window = {"kernel_shape": [size] * 2, "pads": [size // 2] * 4}
            y = self.add("Conv", name, kernel, *bias, **window)
        elif self.chance(0.3):
            y = self.add("Gemm", name, self.weight(made, channels), *bias, transB=1)
        else:
            y = self.add("MatMul", name, self.weight(channels, made, channels=1))
        if self.chance(0.3):
            shape = (1, made, 1, 1) if height else (1, made)
            y = self.add("Mul", y, self.const(self.random.uniform(0.5, 2, size=shape)))
            y = self.add("Add", y, self.const(self.random.normal(size=shape)))
        return y, made, height

    def step(self, known: list[Value]) -> Value:
        """Return a value made of one of the newest two."""
        name, channels, height = x = self.pick(*known[-2:])
        kind = self.pick("layer", "layer", "sum", "pool", "flat")
        if kind == "sum":
            alike = [value[0] for value in known if value[1:] == x[1:]]
            return self.add("Add", name, self.pick(*alike)), channels, height
        if kind == "pool" and height > 2:
            settings = {"kernel_shape": [2, 2], "strides": [2, 2]}
            pooled = self.add(self.pick("MaxPool", "AveragePool"), name, **settings)
            return pooled, channels, height // 2
        if kind == "flat" and height:
            return self.add("Flatten", name, axis=1), channels * height**2, 0
        return self.layer(x)

    def build(self) -> onnx.ModelProto:
        height, channels = self.pick(0, 4, 8), self.pick(1, 2, 3, 6)
        known: list[Value] = [("x", channels, height)]
        if self.chance(0.8):
            known = [(self.quant("x", signed=1, bipolar=True), channels, height)]
        for _ in range(self.pick(1, 2, 3, 4, 5)):
            y = self.step(known)
            if self.chance(0.5):
                relu, *sizes = self.add("Relu", y[0]), *y[1:]
                known.append((self.quant(relu, signed=self.pick(0, 0, 0, 1)), *sizes))
                if self.chance(0.35):  # the Relu has another reader
                    known.append((self.quant(relu, signed=0), *sizes))
                elif self.chance(0.2):
                    known.append((relu, *sizes))
            elif self.chance(0.5):
                known.append((self.quant(y[0], signed=1, bipolar=True), *y[1:]))
            else:
                known.append(y)
        ends = [known[-1][0]]
        if self.chance(0.4) and len(known) > 1:
            rows = [self.add("Flatten", value[0], axis=1) for value in known[-2:]]
            ends = [self.add("Concat", *rows, axis=1)]
        shape = (1, channels, height, height) if height else (1, channels)
        return model_of(self.nodes, {"x": shape}, ends, self.constants)
