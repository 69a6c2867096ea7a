"""QLinear in and out: the very operators again where nothing changed, plain ones where it did.

The reference is onnxruntime on the file itself, without optimizations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import helper
from onnx.helper import make_node
from onnx_ir import Model, Node

from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.protocol import Artifact, ImportOptions
from qonnx_hub_adapters.qlinear.importer import QlinearImporter
from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.builder import Emitter
from tests.adapters.qlinear.kit import export, ops
from tests.adapters.qlinear.test_importer import MICROSOFT, answers, file_of, integers

CONSTANTS: dict[str, Any] = {
    "sx": np.float32(0.0273),
    "zx": np.uint8(113),
    "sb": np.float32(0.0191),
    "zb": np.uint8(97),
    "sw": np.float32(0.0053),
    "zw": np.uint8(139),
    "sy": np.float32(0.0239),
    "zy": np.uint8(121),
}
"""No scale is a power of two, no zero point even."""

X, B, W, Y = (
    [name.replace("?", letter) for name in ("q?", "s?", "z?")]
    for letter in ("x", "b", "w", "y")
)
TO_Y = ["sy", "zy"]


def contrib(op_type: str, inputs: list[str], **attrs: Any) -> onnx.NodeProto:
    return make_node(op_type, inputs, ["r"], "layer", domain=MICROSOFT, **attrs)


def standard(op_type: str, inputs: list[str], **attrs: Any) -> onnx.NodeProto:
    return make_node(op_type, inputs, ["r"], "layer", **attrs)


def quantized_input(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """`x` in the integers `qx` and `qb`, the node, and its integers `r` as the floats `y`."""
    return [
        make_node("QuantizeLinear", ["x", "sx", "zx"], ["qx"], "first"),
        make_node("QuantizeLinear", ["x", "sb", "zb"], ["qb"], "second"),
        node,
        make_node("DequantizeLinear", ["r", "sy", "zy"], ["y"], "last"),
    ]


def with_floats(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    nodes = quantized_input(node)[:-1]
    return [*nodes, make_node("Relu", ["r"], ["y"], "relu")]


def unsigned(shape: tuple[int, ...]) -> np.ndarray:
    return (integers(shape).astype(np.int64) + 128).astype(np.uint8)


KERNELS = {"qw": unsigned((6, 4, 3, 3)), "b": np.arange(-300, 300, 100, dtype=np.int32)}
COLUMNS = {"qw": unsigned((7, 5))}
ROW = COLUMNS | {"b": np.arange(-250, 250, 100, dtype=np.int32)}
PER_KERNEL = {
    "qw": integers((6, 4, 3, 3)),
    "sw": np.linspace(0.003, 0.007, 6, dtype=np.float32),
    "zw": np.zeros(6, dtype=np.int8),
}

CASES: dict[str, tuple[onnx.NodeProto, dict[str, Any], tuple[int, ...]]] = {
    "conv": (
        standard("QLinearConv", [*X, *W, *TO_Y, "b"], pads=[1, 1, 1, 1]),
        KERNELS,
        (1, 4, 6, 7),
    ),
    "conv per channel": (
        standard("QLinearConv", [*X, *W, *TO_Y, "b"]),
        KERNELS | PER_KERNEL,
        (1, 4, 6, 7),
    ),
    "conv without bias": (standard("QLinearConv", [*X, *W, *TO_Y]), KERNELS, (1, 4, 6, 7)),
    "matmul": (standard("QLinearMatMul", [*X, *W, *TO_Y]), COLUMNS, (3, 7)),
    "matmul of stacks": (standard("QLinearMatMul", [*X, *W, *TO_Y]), COLUMNS, (2, 3, 7)),
    "matmul of activations": (
        standard("QLinearMatMul", [*X, *B, *TO_Y]),
        {},
        (6, 6),
    ),
    "gemm": (contrib("QGemm", [*X, *W, "b", *TO_Y]), ROW, (3, 7)),
    "gemm turned": (
        contrib("QGemm", [*X, *W, "b", *TO_Y], transB=1, alpha=0.7),
        ROW | {"qw": unsigned((5, 7))},
        (3, 7),
    ),
    "gemm to floats": (contrib("QGemm", [*X, *W, "b"]), ROW, (3, 7)),
    "integers to floats": (
        contrib("MatMulIntegerToFloat", ["qx", "qw", "sx", "sw", "zx", "zw"]),
        COLUMNS,
        (3, 7),
    ),
    "integers to floats with bias": (
        contrib("MatMulIntegerToFloat", ["qx", "qw", "sx", "sw", "zx", "zw", "f"]),
        COLUMNS | {"f": np.arange(5, dtype=np.float32)},
        (3, 7),
    ),
    "dynamic": (
        contrib("DynamicQuantizeMatMul", ["x", "qw", "sw", "zw", "f"]),
        COLUMNS | {"f": np.arange(5, dtype=np.float32)},
        (3, 7),
    ),
    "add": (contrib("QLinearAdd", [*X, *B, *TO_Y]), {}, (3, 7)),
    "add a constant": (contrib("QLinearAdd", [*X, *W, *TO_Y]), {"qw": unsigned((7,))}, (3, 7)),
    "add to an even zero point": (
        contrib("QLinearAdd", [*X, *B, *TO_Y]),
        {"zy": np.uint8(120)},
        (3, 7),
    ),
    "multiply": (contrib("QLinearMul", [*X, *B, *TO_Y]), {}, (3, 7)),
    "concat": (contrib("QLinearConcat", [*TO_Y, *X, *B], axis=1), {}, (3, 7)),
    "average": (
        contrib("QLinearAveragePool", [*X, *TO_Y], kernel_shape=[2, 2], strides=[2, 2]),
        {},
        (1, 3, 6, 6),
    ),
    "global average": (contrib("QLinearGlobalAveragePool", [*X, *TO_Y]), {}, (1, 3, 6, 6)),
    "leaky": (contrib("QLinearLeakyRelu", [*X, *TO_Y], alpha=0.3), {}, (3, 7)),
    "sigmoid": (contrib("QLinearSigmoid", [*X, *TO_Y]), {}, (3, 7)),
    "softmax": (contrib("QLinearSoftmax", [*X, *TO_Y], axis=-1, opset=13), {}, (3, 7)),
    "softmax of opset 12 along the last axis": (
        contrib("QLinearSoftmax", [*X, *TO_Y], axis=1, opset=12),
        {},
        (3, 7),
    ),
    "softmax of opset 12 over two axes": (
        contrib("QLinearSoftmax", [*X, *TO_Y], axis=1, opset=12),
        {},
        (2, 3, 7),
    ),
    "where": (
        contrib("QLinearWhere", ["c", *X, *B, *TO_Y]),
        {"c": np.arange(7) % 2 == 0},
        (3, 7),
    ),
}


def file_with(name: str) -> onnx.ModelProto:
    node, constants, shape = CASES[name]
    makes_floats = "to floats" in name or name == "dynamic"
    nodes = with_floats(node) if makes_floats else quantized_input(node)
    return file_of(nodes, CONSTANTS | constants, shape)


def load(proto: onnx.ModelProto) -> Model:
    return QlinearImporter().load(proto, ImportOptions())


def counted(proto: onnx.ModelProto) -> Counter[str]:
    """Count operators that somebody reads: the frame quantizes twice where once is needed."""
    graph = proto.graph
    read = {name for node in graph.node for name in node.input} | {"y"}
    return Counter(n.op_type for n in graph.node if read & set(n.output))


@pytest.mark.parametrize("name", CASES)
def test_an_operator_is_written_again_and_gives_the_same_bits(name: str) -> None:
    proto = file_with(name)
    written = onnx_ir.to_proto(export(load(proto)).model)
    assert counted(written) == counted(proto)
    shape = CASES[name][2]
    for seed in range(3):
        x = np.random.default_rng(seed).normal(0, 2, shape).astype(np.float32)
        expected = answers(proto, x)
        assert np.ptp(expected) > 0
        np.testing.assert_array_equal(answers(written, x), expected)


@pytest.mark.parametrize("name", ["conv", "conv per channel", "matmul", "gemm turned"])
def test_every_integer_of_the_file_is_stored_again(name: str) -> None:
    proto = file_with(name)
    written = onnx_ir.to_proto(export(load(proto)).model)

    def stored(message: onnx.ModelProto) -> list[tuple[str, list[int]]]:
        arrays = map(onnx.numpy_helper.to_array, message.graph.initializer)
        kept = (a for a in arrays if a.dtype.kind in "iu" and a.size > 1)
        return sorted((a.dtype.name, a.ravel().tolist()) for a in kept)

    assert stored(written) == stored(proto)


def test_a_table_that_no_layer_sums_stays_the_integers_of_its_file() -> None:
    nodes = [
        *quantized_input(contrib("QLinearSigmoid", [*X, *TO_Y])),
        make_node("DequantizeLinear", W, ["table"], "values"),
        make_node("Mul", ["y", "table"], ["scaled"], "scaled"),
    ]
    proto = file_of(nodes, CONSTANTS | {"qw": unsigned((7,))}, (3, 7))
    proto.graph.output[0].name = "scaled"
    written = onnx_ir.to_proto(export(load(proto)).model)
    arrays = map(onnx.numpy_helper.to_array, written.graph.initializer)
    (table,) = [array for array in arrays if array.shape == (7,)]
    np.testing.assert_array_equal(table, unsigned((7,)), strict=True)


def test_operators_of_onnxruntime_are_left_out_on_request() -> None:
    artifact = export(load(file_with("add")), dialect="onnx")
    assert {node.domain for node in artifact.model.graph} == {""}


@pytest.mark.parametrize("opset", [13, 17, 18])
def test_a_mean_is_written_again_at_opsets_with_axes_of_either_form(opset: int) -> None:
    node = contrib("QLinearReduceMean", [*X, *TO_Y], axes=[1], keepdims=0)
    proto = file_of(quantized_input(node), CONSTANTS, (3, 7))
    proto.opset_import[0].version = opset
    written = onnx_ir.to_proto(export(load(proto)).model)
    assert {one.domain: one.version for one in written.opset_import} == {
        "": opset,
        MICROSOFT: 1,
    }
    [mean] = [one for one in written.graph.node if one.op_type == node.op_type]
    assert {one.name: helper.get_attribute_value(one) for one in mean.attribute} == {
        "axes": [1],
        "keepdims": 0,
    }


def test_a_file_of_opset_10_keeps_its_opset_and_its_relu() -> None:
    node, constants, shape = CASES["conv"]
    nodes = quantized_input(node)[:-1]
    nodes += [
        make_node("DequantizeLinear", ["r", *TO_Y], ["f"], "floats"),
        make_node("Relu", ["f"], ["p"], "relu"),
        make_node("QuantizeLinear", ["p", *TO_Y], ["t"], "again"),
        make_node("DequantizeLinear", ["t", *TO_Y], ["y"], "last"),
    ]
    proto = file_of(nodes, CONSTANTS | constants, shape)
    proto.opset_import[0].version = 10
    written = onnx_ir.to_proto(export(load(proto)).model)
    assert {one.domain: one.version for one in written.opset_import} == {"": 10}
    assert counted(written) == counted(proto)
    x = np.random.default_rng(0).normal(0, 2, shape).astype(np.float32)
    np.testing.assert_array_equal(answers(written, x), answers(proto, x))


def layer_of(model: Model) -> Node:
    [layer] = [node for node in model.graph if node.op_type in ("Conv", "MatMul", "Gemm")]
    return layer


def behind(model: Model) -> Node:
    """The quantizer behind the layer."""
    [reader] = list(layer_of(model).outputs[0].consumers())
    return reader


def set_parameter(node: Node, index: int, change: Callable[[Any], Any]) -> None:
    value = dialect.constant_value(node.inputs[index])
    emit = Emitter(node)
    changed = np.asarray(change(value), dtype=np.float32)
    node.replace_input_with(index, emit.constant(f"changed_{index}", changed))


def source(value: Any) -> Node:
    node = value.producer()
    assert node is not None
    return node


def _bias_scale(model: Model) -> None:
    set_parameter(source(layer_of(model).inputs[2]), 1, lambda s: np.nextafter(s, np.inf))


def _bias_zero_point(model: Model) -> None:
    set_parameter(source(layer_of(model).inputs[2]), 2, lambda z: z + 1)


def _input_scale(model: Model) -> None:
    set_parameter(source(layer_of(model).inputs[0]), 1, lambda s: s * 2)


def _weight_scale(model: Model) -> None:
    set_parameter(source(layer_of(model).inputs[1]), 1, lambda s: s * np.float32(0.7))


def _weight_axis(model: Model) -> None:
    scale = np.linspace(0.003, 0.007, 4, dtype=np.float32).reshape(1, 4, 1, 1)
    set_parameter(source(layer_of(model).inputs[1]), 1, lambda _: scale)


def _weight_bits(model: Model) -> None:
    set_parameter(source(layer_of(model).inputs[1]), 3, lambda b: b + 1)


def _order(model: Model) -> None:
    del behind(model).attributes[dialect.ORDER]


def _narrow(model: Model) -> None:
    behind(model).attributes["narrow"] = onnx_ir.AttrInt64("narrow", 1)


def _bits(model: Model) -> None:
    set_parameter(behind(model), 3, lambda b: b - 1)


def _rounding(model: Model) -> None:
    del behind(model).attributes[dialect.ORDER]
    mode = onnx_ir.AttrString("rounding_mode", "FLOOR")
    behind(model).attributes["rounding_mode"] = mode


def _activation(model: Model) -> None:
    node = behind(model)
    node.replace_input_with(0, Emitter(node).add("Relu", [node.inputs[0]], node.inputs[0]))


def _second_reader(model: Model) -> None:
    layer = layer_of(model)
    extra = onnx_ir.node("Relu", [layer.outputs[0]], name="other")
    extra.outputs[0].name = "other"
    extra.outputs[0].type = layer.outputs[0].type
    extra.outputs[0].shape = layer.outputs[0].shape
    model.graph.append(extra)
    model.graph.outputs.append(extra.outputs[0])


EDITS = [
    *(_bias_scale, _bias_zero_point, _input_scale, _weight_scale, _weight_axis, _weight_bits),
    *(_order, _narrow, _bits, _rounding, _activation, _second_reader),
]


def is_as_it_was(artifact: Artifact) -> bool:
    return any("as it was read" in record.encoding for record in artifact.quantizers)


@pytest.mark.parametrize("edit", EDITS)
def test_what_is_edited_is_written_like_any_other_layer(edit: Callable[[Model], None]) -> None:
    model = load(file_with("conv"))
    assert is_as_it_was(export(model))
    edit(model)
    artifact = export(model)
    assert not is_as_it_was(artifact)
    x = np.random.default_rng(0).normal(0, 2, (1, 4, 6, 7)).astype(np.float32)
    ours = Session(artifact.model).run({"x": x})
    for name, expected in Session(model).run({"x": x}).items():
        step = 0.024
        assert np.abs(ours[name] - expected).max() <= 1.01 * step
        assert np.mean(np.abs(ours[name] - expected) > step / 2) < 0.01


def test_edited_weights_and_zero_points_are_those_that_are_written() -> None:
    model = load(file_with("conv without bias"))
    weight = source(layer_of(model).inputs[1])
    set_parameter(weight, 0, lambda w: np.float32(-1) * w[::-1])
    set_parameter(weight, 2, lambda _: 120.0)
    set_parameter(behind(model), 2, lambda _: 60.0)
    artifact = export(model)
    assert is_as_it_was(artifact)
    [layer] = [node for node in artifact.model.graph if node.op_type == "QLinearConv"]
    codes, zero, y_zero = (dialect.constant_value(layer.inputs[index]) for index in (3, 5, 7))
    assert (int(np.asarray(zero)), int(np.asarray(y_zero))) == (120, 60)
    # Levels are those of the file, from -139 to 116, turned: 120 holds a part of them.
    levels = KERNELS["qw"][::-1].astype(np.int64) - 139
    np.testing.assert_array_equal(codes, np.clip(120 - levels, 0, 255))


def test_an_origin_that_is_wrong_changes_no_number() -> None:
    """A name that the layer does not have the form of is not believed."""
    model = load(file_with("conv"))
    layer_of(model).metadata_props["qonnx_hub.origin"] = "QLinearMatMul"
    artifact = export(model)
    assert not is_as_it_was(artifact)
    assert "QLinearMatMul" not in ops(artifact)
