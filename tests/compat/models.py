"""Small QONNX models as other tools write them, with annotations."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DOMAIN = "qonnx.custom_op.general"


def constant(name: str, values, dtype=np.float32) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, dtype=dtype), name)


def info(name: str, shape, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def quant(
    x: str, y: str, *, scale: str = "s", signed: int = 1, name: str = ""
) -> onnx.NodeProto:
    return helper.make_node(
        "Quant",
        [x, scale, "z", "b"],
        [y],
        name=name or f"Quant_{y}",
        domain=DOMAIN,
        signed=signed,
        narrow=0,
        rounding_mode="ROUND",
    )


def model(nodes, inputs, outputs, constants, opset: int = 13) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", inputs, outputs, constants)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def note(proto: onnx.ModelProto, tensor: str, **entries: str) -> None:
    found = proto.graph.quantization_annotation.add(tensor_name=tensor)
    for key, value in entries.items():
        found.quant_parameter_tensor_names.add(key=key, value=value)


def notes(proto: onnx.ModelProto) -> dict[str, dict[str, str]]:
    return {
        one.tensor_name: {e.key: e.value for e in one.quant_parameter_tensor_names}
        for one in proto.graph.quantization_annotation
    }


def annotated(opset: int) -> onnx.ModelProto:
    """Quant, Conv, Relu, Quant; every tensor has a datatype, two of them more."""
    conv = {"kernel_shape": [3, 3], "pads": [1] * 4, "strides": [1, 1], "dilations": [1, 1]}
    kernel = np.random.default_rng(0).integers(-4, 4, size=(6, 3, 3, 3))
    proto = model(
        [
            quant("x", "xq"),
            helper.make_node("Conv", ["xq", "W"], ["c"], name="Conv_0", group=1, **conv),
            helper.make_node("Relu", ["c"], ["r"], name="Relu_0"),
            quant("r", "y", scale="s2", signed=0),
        ],
        [info("x", [1, 3, 8, 8])],
        [info("y", [1, 6, 8, 8])],
        [
            constant("s", 1),
            constant("s2", 0.5),
            constant("z", 0),
            constant("b", 4),
            constant("W", kernel),
        ],
        opset,
    )
    for name, channels in (("xq", 3), ("c", 6), ("r", 6)):
        proto.graph.value_info.append(info(name, [1, channels, 8, 8]))
    note(proto, "x", finn_datatype="INT8", tensor_layout="['N', 'C', 'H', 'W']", mine="42")
    note(proto, "W", finn_datatype="INT4", tensor_sparsity="{'dw': {'kernel_shape': [3, 3]}}")
    note(proto, "c", finn_datatype="INT32")
    note(proto, "r", finn_datatype="FIXED<16,14>")
    note(proto, "y", finn_datatype="SCALEDINT<4>", tensor_layout="['N', 'C', 'H', 'W']")
    return proto
