"""Networks for hls4ml, as exporters write them: small enough to compile in seconds."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper

from tests.support import DOMAIN, model_of


class Net:
    """Collects nodes and constants of a network; every method returns a value's name."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, Any] = {}

    def constant(self, array: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(array, dtype=getattr(array, "dtype", np.float32))
        return name

    def add(self, op_type: str, inputs: list[str], domain: str = "", **attributes: Any) -> str:
        name = f"n{len(self.nodes)}"
        node = helper.make_node(op_type, inputs, [name], name, domain=domain, **attributes)
        self.nodes.append(node)
        return name

    def quant(
        self, x: str, bits: float, scale: Any, zero: Any = 0.0, **attributes: Any
    ) -> str:
        values = {"signed": 1, "narrow": 0, "rounding_mode": "ROUND", **attributes}
        parameters = [
            self.constant(np.asarray(p, dtype=np.float32)) for p in (scale, zero, bits)
        ]
        return self.add("Quant", [x, *parameters], DOMAIN, **values)

    def bipolar(self, x: str, scale: float = 1.0) -> str:
        return self.add("BipolarQuant", [x, self.constant(np.float32(scale))], DOMAIN)

    def weights(
        self, shape: tuple[int, ...], bits: float, scale: Any, **attributes: Any
    ) -> str:
        largest = 2.0 ** (bits - 1) * np.broadcast_to(np.asarray(scale), shape)
        values = self.random.uniform(-1, 1, shape) * largest
        return self.quant(self.constant(values.astype(np.float32)), bits, scale, **attributes)

    def norm(self, x: str, channels: int, mixed_signs: bool = False) -> str:
        draw = self.random.uniform
        gamma = draw(0.5, 1.5, channels)
        if mixed_signs:
            gamma[::2] *= -1
        parameters = (
            gamma,
            draw(-1, 1, channels),
            draw(-1, 1, channels),
            draw(1, 4, channels),
        )
        names = [self.constant(p.astype(np.float32)) for p in parameters]
        return self.add("BatchNormalization", [x, *names], epsilon=1e-3)

    def model(self, x: tuple[Any, ...], *outputs: str) -> onnx.ModelProto:
        return model_of(self.nodes, {"x": x}, list(outputs), self.constants)


def qkeras_cnn() -> onnx.ModelProto:
    """Powers of two everywhere, batch normalizations, both kinds of pooling, biases."""
    net = Net(1)
    x = net.quant("x", 8, 2.0**-6)
    bias = net.quant(net.constant(net.random.normal(0, 0.3, 4).astype(np.float32)), 8, 2.0**-5)
    y = net.add(
        "Conv",
        [x, net.weights((4, 2, 3, 3), 4, 2.0**-3), bias],
        pads=[1, 1, 1, 1],
        kernel_shape=[3, 3],
    )
    y = net.quant(net.add("Relu", [net.norm(y, 4)]), 6, 2.0**-4, signed=0)
    y = net.add("MaxPool", [y], kernel_shape=[2, 2], strides=[2, 2])
    y = net.add("Conv", [y, net.weights((5, 4, 2, 2), 4, 2.0**-3)], kernel_shape=[2, 2])
    y = net.quant(net.add("Relu", [net.norm(y, 5)]), 6, 2.0**-4, signed=0)
    y = net.add("AveragePool", [y], kernel_shape=[2, 2], strides=[1, 1])
    y = net.quant(y, 8, 2.0**-5, signed=0)
    y = net.add("Flatten", [y])
    bias = net.quant(net.constant(net.random.normal(0, 0.3, 3).astype(np.float32)), 8, 2.0**-5)
    y = net.add("MatMul", [y, net.weights((20, 3), 6, 2.0**-5)])
    return net.model((1, 2, 8, 8), net.add("Add", [y, bias]))


def brevitas_cnn() -> onnx.ModelProto:
    """Scales that are no powers of two: per channel for weights, one for activations."""
    net = Net(2)

    def scales(*shape: int) -> Any:
        return net.random.uniform(0.02, 0.2, shape).astype(np.float32)

    x = net.quant("x", 8, 0.0173)
    weight = net.weights((4, 2, 3, 3), 4, scales(4, 1, 1, 1), narrow=1)
    bias = net.constant(net.random.normal(0, 0.3, 4).astype(np.float32))
    y = net.add(
        "Conv", [x, weight, bias], pads=[1, 1, 1, 1], kernel_shape=[3, 3], strides=[2, 2]
    )
    y = net.quant(net.add("Relu", [net.norm(y, 4, mixed_signs=True)]), 4, 0.0913, signed=0)
    weight = net.weights((4, 1, 2, 2), 4, scales(4, 1, 1, 1), narrow=1)
    y = net.add("Conv", [y, weight], kernel_shape=[2, 2], group=4)
    y = net.quant(net.norm(y, 4), 4, 0.117)
    weight = net.weights((6, 4, 1, 1), 3, scales(6, 1, 1, 1), narrow=1)
    y = net.quant(
        net.add("Relu", [net.add("Conv", [y, weight], kernel_shape=[1, 1])]),
        4,
        0.031,
        signed=0,
    )
    y = net.add("GlobalAveragePool", [y])
    y = net.quant(y, 6, 0.0119, signed=0)
    y = net.add("Flatten", [y])
    weight = net.weights((3, 6), 4, scales(3, 1), narrow=1)
    bias = net.constant(net.random.normal(0, 0.3, 3).astype(np.float32))
    return net.model((1, 2, 7, 7), net.add("Gemm", [y, weight, bias], transB=1))


def residual_net() -> onnx.ModelProto:
    """Two branches that read one quantizer whose scale is no power of two, and their sum."""
    net = Net(3)

    def scale() -> float:
        return float(np.float32(net.random.uniform(0.03, 0.13)))

    common = scale()
    y = net.add("MatMul", [net.quant("x", 8, 0.0131), net.weights((8, 10), 4, scale())])
    y = net.quant(y, 5, common)
    inner = net.add("Relu", [net.add("MatMul", [y, net.weights((10, 10), 4, scale())])])
    inner = net.quant(inner, 4, scale(), signed=0)
    back = net.quant(net.add("MatMul", [inner, net.weights((10, 10), 4, scale())]), 5, common)
    total = net.quant(net.add("Relu", [net.add("Add", [y, back])]), 5, scale(), signed=0)
    return net.model((1, 8), net.add("MatMul", [total, net.weights((10, 4), 4, scale())]))
