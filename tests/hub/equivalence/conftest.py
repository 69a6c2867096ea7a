"""Small quantized networks of three shapes, and ways to make faults in copies of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

DOMAIN = "qonnx.custom_op.general"


class Builder:
    """A graph that grows node by node; every value is called what its node is called."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []

    def constant(self, name, value):
        array = np.asarray(value, dtype=np.float32)
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def add(self, op, inputs, name, domain=None, **attributes):
        self.nodes.append(
            helper.make_node(op, inputs, [name], name=name, domain=domain, **attributes)
        )
        return name

    def quant(self, x, name, scale, bits, signed=1, narrow=0, zero=0.0):
        inputs = [
            x,
            self.constant(f"{name}.scale", scale),
            self.constant(f"{name}.zero", zero),
            self.constant(f"{name}.bits", bits),
        ]
        flags = {"signed": signed, "narrow": narrow, "rounding_mode": "ROUND"}
        return self.add("Quant", inputs, name, DOMAIN, **flags)

    def weight(self, name, shape, bits=4):
        w = self.rng.normal(0, 0.5, shape).astype(np.float32)
        peaks = np.abs(w).max(axis=tuple(range(1, len(shape))), keepdims=True)
        scale = (peaks / np.float32(2 ** (bits - 1) - 1)).astype(np.float32)
        return self.quant(self.constant(f"{name}.w", w), f"{name}.wq", scale, bits, narrow=1)

    def dense(self, x, name, inputs, outputs):
        w = self.add(
            "Transpose", [self.weight(name, (outputs, inputs))], f"{name}.wt", perm=[1, 0]
        )
        return self.add("MatMul", [x, w], name)

    def conv(self, x, name, inputs, outputs, kernel=3):
        pads = [kernel // 2] * 4
        w = self.weight(name, (outputs, inputs, kernel, kernel))
        return self.add("Conv", [x, w], name, kernel_shape=[kernel, kernel], pads=pads)

    def batchnorm(self, x, name, channels):
        values = {
            "gain": self.rng.uniform(0.5, 1.5, channels),
            "shift": self.rng.normal(0, 0.2, channels),
            "mean": self.rng.normal(0, 0.2, channels),
            "variance": self.rng.uniform(0.5, 1.5, channels),
        }
        names = [self.constant(f"{name}.{k}", v) for k, v in values.items()]
        return self.add("BatchNormalization", [x, *names], name)

    def act(self, x, name, scale=0.37, bits=4):
        x = self.add("Relu", [x], f"{name}.relu")
        return self.quant(x, name, scale, bits, signed=0)

    def model(self, shape, outputs):
        graph = helper.make_graph(
            self.nodes,
            self.name,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", outputs])],
            self.initializers,
        )
        opsets = [helper.make_opsetid("", 19), helper.make_opsetid(DOMAIN, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def mlp() -> onnx.ModelProto:
    """Three dense layers, 12-16-16-5."""
    net = Builder("mlp", 1)
    x = net.quant("x", "in", 2.0**-4, 6)
    x = net.dense(x, "fc1", 12, 16)
    x = net.act(net.batchnorm(x, "bn1", 16), "act1")
    x = net.dense(x, "fc2", 16, 16)
    x = net.act(net.batchnorm(x, "bn2", 16), "act2")
    net.dense(x, "y", 16, 5)
    return net.model((12,), 5)


def cnn() -> onnx.ModelProto:
    """Two convolutions on 8x8 pixels, pooling, one dense layer."""
    net = Builder("cnn", 2)
    x = net.quant("x", "in", 2.0**-4, 6)
    x = net.conv(x, "conv1", 2, 4)
    x = net.act(net.batchnorm(x, "bn1", 4), "act1", scale=0.61)
    x = net.add("MaxPool", [x], "pool", kernel_shape=[2, 2], strides=[2, 2])
    x = net.conv(x, "conv2", 4, 6)
    x = net.act(net.batchnorm(x, "bn2", 6), "act2", scale=1.3)
    x = net.add("Flatten", [x], "flat", axis=1)
    net.dense(x, "y", 96, 5)
    return net.model((2, 8, 8), 5)


def residual() -> onnx.ModelProto:
    """A convolution around which a shortcut leads; both summands are quantized alike."""
    net = Builder("residual", 3)
    x = net.quant("x", "in", 2.0**-4, 6)
    x = net.conv(x, "conv1", 2, 4)
    x = net.act(net.batchnorm(x, "bn1", 4), "act1", scale=0.61)
    y = net.conv(x, "conv2", 4, 4)
    y = net.quant(net.batchnorm(y, "bn2", 4), "act2", 0.43, 4)
    x = net.quant(net.conv(x, "short", 4, 4, kernel=1), "shortcut", 0.43, 4)
    x = net.add("Add", [y, x], "sum")
    x = net.act(x, "act3", scale=0.43)
    x = net.add("GlobalAveragePool", [x], "mean")
    x = net.add("Flatten", [x], "flat", axis=1)
    net.dense(x, "y", 4, 5)
    return net.model((2, 8, 8), 5)


NETS: dict[str, Callable[[], onnx.ModelProto]] = {"mlp": mlp, "cnn": cnn, "residual": residual}


def node_of(model, name):
    return next(node for node in model.graph.node if node.name == name)


def set_attribute(model, node, name, value):
    found = node_of(model, node)
    kept = [a for a in found.attribute if a.name != name]
    del found.attribute[:]
    found.attribute.extend([*kept, helper.make_attribute(name, value)])


def change_constant(model, name, change):
    tensor = next(t for t in model.graph.initializer if t.name == name)
    array = change(np.array(numpy_helper.to_array(tensor)))
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(array, dtype=np.float32), name))


def replace_node(model, name, nodes, constants=None):
    """Put other nodes in the place of one; the last of them makes its output."""
    position = [node.name for node in model.graph.node].index(name)
    del model.graph.node[position]
    for k, node in enumerate(nodes):
        model.graph.node.insert(position + k, node)
    for key, value in (constants or {}).items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), key))


def bypass_node(model, name):
    """Take a node out: its readers read what it read."""
    gone = node_of(model, name)
    source, target = gone.input[0], gone.output[0]
    model.graph.node.remove(gone)
    for node in model.graph.node:
        for k, value in enumerate(node.input):
            if value == target:
                node.input[k] = source


def make_node(op, inputs, output, **attributes):
    return helper.make_node(op, inputs, [output], name=output, **attributes)


@pytest.fixture(params=list(NETS))
def net(request):
    """A network of each of the three shapes."""
    return NETS[request.param]()


@pytest.fixture
def nets():
    """Name -> function that makes a network."""
    return NETS


@pytest.fixture
def surgery():
    """Ways to change a model, all in place, and ``copied`` to make a copy first."""
    return SimpleNamespace(
        copied=copy.deepcopy,
        node_of=node_of,
        set_attribute=set_attribute,
        change_constant=change_constant,
        replace_node=replace_node,
        bypass_node=bypass_node,
        make_node=make_node,
        Builder=Builder,
    )
