"""Averages and matrix products that are written as QLinearConv are read as what they were."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import helper, numpy_helper
from onnx.helper import make_node

from qonnx_hub_adapters.protocol import ImportOptions
from qonnx_hub_adapters.qcdq.importer import QcdqImporter
from qonnx_hub_adapters.qlinear.importer import QlinearImporter
from tests.adapters.qlinear.kit import export
from tests.support import model_of

ORIGIN = "qonnx_hub.origin"
NUMBERS: dict[str, Any] = {
    "s": np.float32(0.25),
    "z": np.array(3, dtype=np.uint8),
    "w": np.arange(-6, 6, dtype=np.int8).reshape(4, 3),
    "ws": np.float32(0.125),
    "wz": np.array(0, dtype=np.int8),
    "b": np.array([40, -50, 60], dtype=np.int32),
    "bs": np.float32(0.25 * 0.125),
    "t": np.float32(0.5),
}


def pair(x: str, scale: str, out: str) -> list[onnx.NodeProto]:
    return [
        make_node("QuantizeLinear", [x, scale, "z"], [f"{out}_q"]),
        make_node("DequantizeLinear", [f"{out}_q", scale, "z"], [out]),
    ]


def written(layer: list[onnx.NodeProto], shape: tuple[int, ...]) -> onnx.ModelProto:
    """Return the integer operators of a layer between two quantizers."""
    nodes = [*pair("x", "s", "one"), *layer, *pair("sum", "t", "out")]
    model = QcdqImporter().load(
        model_of(nodes, {"x": shape}, ["out"], NUMBERS), ImportOptions()
    )
    return onnx_ir.to_proto(export(model).model)


def average(name: str = "AveragePool", **attributes: Any) -> onnx.ModelProto:
    return written([make_node(name, ["one"], ["sum"], **attributes)], (1, 2, 4, 6))


def rows() -> onnx.ModelProto:
    layer = [
        make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"]),
        make_node("DequantizeLinear", ["b", "bs"], ["bd"]),
        make_node("Gemm", ["one", "wd", "bd"], ["sum"]),
    ]
    return written(layer, (5, 4))


def layers(proto: onnx.ModelProto) -> list[str]:
    model = QlinearImporter().load(proto, ImportOptions())
    return [n.op_type for n in model.graph if n.op_type not in ("Quant", "Identity")]


def conv(proto: onnx.ModelProto) -> onnx.NodeProto:
    return next(node for node in proto.graph.node if node.op_type == "QLinearConv")


def edited(proto: onnx.ModelProto, index: int, change: Any) -> onnx.ModelProto:
    """Give an input of the convolution other numbers."""
    name = conv(proto).input[index]
    for tensor in proto.graph.initializer:
        if tensor.name == name:
            found = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(change(found).astype(found.dtype), name))
    return proto


POOLS = {
    "AveragePool": {"kernel_shape": [2, 3]},
    "padded": {"kernel_shape": [2, 2], "pads": [1, 0, 1, 0], "count_include_pad": 1},
    "strided": {"kernel_shape": [2, 2], "strides": [2, 2]},
    "GlobalAveragePool": {},
}


@pytest.mark.parametrize("name", POOLS)
def test_an_average_comes_back_with_its_window(name: str) -> None:
    kind = name if name[0].isupper() else "AveragePool"
    proto = average(kind, **POOLS[name])
    assert conv(proto).op_type == "QLinearConv"
    assert layers(proto) == [kind]
    model = QlinearImporter().load(proto, ImportOptions())
    (pool,) = (node for node in model.graph if node.op_type == kind)
    read = {k: a.value for k, a in pool.attributes.items() if k != "ceil_mode"}
    assert {k: list(v) if isinstance(v, tuple) else v for k, v in read.items()} == POOLS[name]


def changed_first(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flat[0] += 1
    return array


@pytest.mark.parametrize("index", [3, 4, 5])
def test_a_window_that_is_no_average_stays_a_convolution(index: int) -> None:
    change = (lambda a: a * 2) if index == 4 else (changed_first)
    assert layers(edited(average(kernel_shape=[2, 2]), index, change)) == ["Conv"]


def test_an_average_by_other_weights_of_one_value_is_one_still() -> None:
    proto = edited(average(kernel_shape=[2, 2]), 3, lambda a: a * 2)
    assert layers(edited(proto, 4, lambda a: a / 2)) == ["AveragePool"]


@pytest.mark.parametrize(
    ("name", "value"), [("dilations", [2, 2]), ("auto_pad", "SAME_UPPER")]
)
def test_an_average_of_other_windows_stays_a_convolution(name: str, value: Any) -> None:
    proto = average(kernel_shape=[2, 2])
    node = conv(proto)
    kept = [a for a in node.attribute if a.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])
    assert layers(proto) == ["Conv"]


def test_a_window_smaller_than_the_image_is_no_global_average() -> None:
    proto = average("AveragePool", kernel_shape=[2, 2])
    conv(proto).metadata_props[0].value = "GlobalAveragePool"
    assert layers(proto) == ["Conv"]


def test_a_convolution_that_says_nothing_stays_one() -> None:
    for proto in (average(kernel_shape=[2, 2]), rows()):
        del conv(proto).metadata_props[:]
        assert "Conv" in layers(proto)


def test_a_name_that_is_no_average_changes_nothing() -> None:
    for name in ("MaxPool", "Relu", "nothing"):
        proto = average(kernel_shape=[2, 2])
        conv(proto).metadata_props[0].value = name
        assert layers(proto) == ["Conv"]


def test_rows_come_back_as_a_matrix_product() -> None:
    assert {"Unsqueeze", "Squeeze"} <= {node.op_type for node in rows().graph.node}
    assert layers(rows()) == ["Gemm"]


def test_rows_along_another_axis_stay_a_convolution() -> None:
    proto = rows()
    before = next(node for node in proto.graph.node if node.op_type == "Unsqueeze")
    proto.graph.initializer.append(
        numpy_helper.from_array(np.array([-1], dtype=np.int64), "last")
    )
    before.input[1] = "last"
    assert "Conv" in layers(proto)


def test_integers_that_somebody_else_reads_stay_those_of_a_convolution() -> None:
    proto = rows()
    codes = conv(proto).output[0]
    scale, zero = conv(proto).input[6:8]
    proto.graph.node.append(make_node("DequantizeLinear", [codes, scale, zero], ["more"]))
    more = helper.make_tensor_value_info("more", onnx.TensorProto.FLOAT, (5, 3, 1))
    proto.graph.output.append(more)
    assert "Conv" in layers(proto)
