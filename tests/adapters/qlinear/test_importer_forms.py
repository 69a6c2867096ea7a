"""More of what files hold: run-time ranges, two activations, odd zero points, subgraphs.

The reference is onnxruntime on the file itself, without optimizations.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.helper import make_node
from onnx.reference import ReferenceEvaluator

from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.protocol import ImportOptions
from qonnx_hub_adapters.qlinear.importer import QlinearImporter
from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import SourceError
from tests.adapters.qlinear.test_importer import (
    BASE,
    MICROSOFT,
    QLINEAR_INPUTS,
    answers,
    assert_same,
    file_of,
    framed,
    integers,
)

FLOAT = TensorProto.FLOAT


def load(proto: Any) -> Any:
    return QlinearImporter().load(proto, ImportOptions())


def kinds(model: Any) -> list[str]:
    return [node.op_type for node in model.graph.all_nodes()]


def contrib(op_type: str, inputs: list[str], outputs: list[str], **attrs: Any) -> Any:
    return make_node(op_type, inputs, outputs, "op", domain=MICROSOFT, **attrs)


def random_x(shape: tuple[int, ...], seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 4, shape).astype(np.float32)


def assert_close(proto: onnx.ModelProto, shape: tuple[int, ...], quantizers: int) -> None:
    """Float sums of a scale that is known at run time only: equal up to their rounding."""
    model = load(proto)
    assert kinds(model).count("Quant") == quantizers
    assert not {"MatMulInteger", "ConvInteger"} & set(kinds(model))
    for seed in range(3):
        x = random_x(shape, seed)
        expected = answers(proto, x)
        assert np.ptp(expected) > 0
        ours = Session(model).run({"x": x})["y"]
        # Fewer than 64 products, each rounded three times, and their sums.
        np.testing.assert_allclose(ours, expected, rtol=0, atol=np.abs(expected).max() * 4e-6)


DYNAMIC = make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"], "dynamic")


def assert_kept(proto: onnx.ModelProto, shape: tuple[int, ...], operator: str) -> None:
    """Sums of integers at run time stay sums of integers: equal in every bit."""
    model = load(proto)
    assert operator in kinds(model)
    assert dialect.BOUNDED not in model.metadata_props
    for seed in range(3):
        x = random_x(shape, seed)
        expected = answers(proto, x)
        assert np.ptp(expected) > 0
        np.testing.assert_array_equal(Session(model).run({"x": x})["y"], expected)


@pytest.mark.parametrize("columns", [False, True])
@pytest.mark.parametrize("weight_zero", [False, True])
def test_a_product_of_what_is_quantized_at_run_time_stays_one_of_integers(
    columns: bool, weight_zero: bool
) -> None:
    constants: dict[str, Any] = {"w": integers((8, 5)), "sw": np.float32(0.03)}
    if columns:
        constants["sw"] = np.array([0.01, 0.03, 0.002, 0.05, 0.007], dtype=np.float32)
    inputs = ["q", "w", "z"]
    if weight_zero:
        constants["zw"] = np.full(5 if columns else (), 3, dtype=np.int8)
        inputs.append("zw")
    nodes = [
        DYNAMIC,
        make_node("MatMulInteger", inputs, ["i"], "sum"),
        make_node("Cast", ["i"], ["f"], "cast", to=FLOAT),
        make_node("Mul", ["s", "sw"], ["unit"], "unit"),
        make_node("Mul", ["f", "unit"], ["y"], "scale"),
    ]
    assert_kept(file_of(nodes, constants, (3, 8)), (3, 8), "MatMulInteger")


def test_a_convolution_of_what_is_quantized_at_run_time_stays_one_of_integers() -> None:
    constants = {"w": integers((5, 2, 3, 3)), "sw": np.float32(0.03)}
    nodes = [
        DYNAMIC,
        make_node("ConvInteger", ["q", "w", "z"], ["i"], "sum", pads=[1, 1, 1, 1]),
        make_node("Cast", ["i"], ["f"], "cast", to=FLOAT),
        make_node("Mul", ["sw", "s"], ["unit"], "unit"),
        make_node("Mul", ["unit", "f"], ["y"], "scale"),
    ]
    assert_kept(file_of(nodes, constants, (1, 2, 5, 6)), (1, 2, 5, 6), "ConvInteger")


@pytest.mark.parametrize("bias", [False, True])
def test_onnxruntimes_own_dynamic_product_is_a_standard_one_of_integers(bias: bool) -> None:
    constants = BASE | {"w": integers((8, 5)), "b": np.arange(5, dtype=np.float32)}
    inputs = ["x", "w", "sw", "zw", *(["b"] if bias else [])]
    proto = file_of([contrib("DynamicQuantizeMatMul", inputs, ["y"])], constants, (3, 8))
    assert_kept(proto, (3, 8), "MatMulInteger")


@pytest.mark.parametrize("bias", [False, True])
def test_an_integer_product_with_its_scales_beside_it(bias: bool) -> None:
    constants = BASE | {"w": integers((8, 5)), "b": np.arange(5, dtype=np.float32)}
    inputs = ["q", "w", "sx", "sw", "zx", "zw", *(["b"] if bias else [])]
    nodes = [
        make_node("QuantizeLinear", ["x", "sx", "zx"], ["q"], "first"),
        contrib("MatMulIntegerToFloat", inputs, ["y"]),
    ]
    assert_same(file_of(nodes, constants, (3, 8)), (3, 8), 2)


def test_a_product_with_a_zero_point_of_its_own_at_run_time_stays_as_it_is() -> None:
    nodes = [
        DYNAMIC,
        make_node("QuantizeLinear", ["x", "sx", "zx"], ["r"], "other"),
        make_node("MatMulInteger", ["r", "w", "z"], ["i"], "sum"),
        make_node("Cast", ["i"], ["f"], "cast", to=FLOAT),
        make_node("Mul", ["f", "s"], ["y"], "scale"),
    ]
    proto = file_of(nodes, BASE | {"w": integers((8, 5))}, (3, 8))
    model = load(proto)
    assert "MatMulInteger" in kinds(model)
    x = random_x((3, 8))
    np.testing.assert_array_equal(Session(model).run({"x": x})["y"], answers(proto, x))


def test_a_product_of_two_activations() -> None:
    constants = BASE | {"sb": np.float32(0.5), "zb": np.uint8(90), "sy": np.float32(2.0)}
    nodes = [
        make_node("QuantizeLinear", ["x", "sx", "zx"], ["q"], "first"),
        make_node("Transpose", ["x"], ["t"], "turn", perm=[1, 0]),
        make_node("QuantizeLinear", ["t", "sb", "zb"], ["p"], "second"),
        make_node("QLinearMatMul", ["q", "sx", "zx", "p", "sb", "zb", "sy", "zy"], ["r"], "m"),
        make_node("DequantizeLinear", ["r", "sy", "zy"], ["y"], "last"),
    ]
    assert_same(file_of(nodes, constants, (5, 8)), (5, 8), 3)


def test_an_integer_product_of_two_activations_keeps_the_scales_of_both() -> None:
    constants = BASE | {"sb": np.float32(0.3), "zb": np.uint8(90), "sx": np.float32(0.7)}
    constants["unit"] = constants["sx"] * constants["sb"]
    nodes = [
        make_node("QuantizeLinear", ["x", "sx", "zx"], ["q"], "first"),
        make_node("Transpose", ["x"], ["t"], "turn", perm=[1, 0]),
        make_node("QuantizeLinear", ["t", "sb", "zb"], ["p"], "second"),
        make_node("MatMulInteger", ["q", "p", "zx", "zb"], ["i"], "sum"),
        make_node("Cast", ["i"], ["f"], "cast", to=FLOAT),
        make_node("Mul", ["f", "unit"], ["y"], "scale"),
    ]
    assert_close(file_of(nodes, constants, (5, 8)), (5, 8), 2)


ODD = BASE | {"zy": np.uint8(121), "sy": np.float32(0.25)}
"""An odd zero point behind: the place of rounding shows at every tie."""

PAIR = ["q", "sx", "zx", "q", "sx", "zx", "sy", "zy"]
SINGLE = ["q", "sx", "zx", "sy", "zy"]


@pytest.mark.parametrize(
    ("op_type", "inputs", "attrs"),
    [
        ("QLinearAdd", PAIR, {}),
        ("QLinearMul", PAIR, {}),
        ("QLinearAveragePool", SINGLE, {"kernel_shape": [2, 2]}),
        ("QLinearAveragePool", SINGLE, {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1]}),
        ("QLinearGlobalAveragePool", SINGLE, {}),
        ("QLinearLeakyRelu", SINGLE, {"alpha": 0.25}),
    ],
)
def test_an_odd_zero_point_keeps_its_ties(
    op_type: str, inputs: list[str], attrs: dict[str, Any]
) -> None:
    # A quarter of all sums of two codes lies on a tie here.
    constants = ODD | {"sx": np.float32(0.0625)}
    node = contrib(op_type, inputs, ["r"], **attrs)
    assert_same(file_of(framed(node), constants, (2, 3, 4, 6)), (2, 3, 4, 6), 2)


@pytest.mark.parametrize("where", ["rows", "outputs", "stack"])
def test_a_matrix_product_with_scales_per_row_stays_as_it_is(where: str) -> None:
    """onnxruntime has no kernel for it; the reference is ONNX's own evaluator."""
    rng = np.random.default_rng(2)
    scales = {"sx": (1,), "sw": (1,), "sy": (1,)}
    scales |= {
        "rows": {"sx": (2, 3, 1)},
        "outputs": {"sy": (2, 3, 1)},
        "stack": {"sw": (2, 1, 5)},
    }[where]
    constants = {name: rng.uniform(0.1, 0.2, size) for name, size in scales.items()}
    constants = {name: one.astype(np.float32) for name, one in constants.items()}
    for name, size in (("zx", scales["sx"]), ("zw", scales["sw"]), ("zy", scales["sy"])):
        constants[name] = rng.integers(90, 120, size).astype(np.uint8)
    constants["w"] = rng.integers(0, 256, (2, 4, 5)).astype(np.uint8)
    node = make_node("QLinearMatMul", ["x", *QLINEAR_INPUTS[1:]], ["y"], "layer")
    proto = file_of([node], constants, (2, 3, 4))
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.UINT8
    model = load(proto)
    assert kinds(model) == ["QLinearMatMul"]
    x = rng.integers(0, 256, (2, 3, 4)).astype(np.uint8)
    [expected] = ReferenceEvaluator(proto).run(None, {"x": x})
    np.testing.assert_array_equal(Session(model).run({"x": x})["y"], expected)


@pytest.mark.parametrize(
    ("op_type", "attrs"),
    [
        ("QLinearConv", {"pads": [1, 0, 1, 1], "strides": [2, 1]}),
        ("QLinearAveragePool", {"kernel_shape": [2, 3]}),
        ("QLinearGlobalAveragePool", {}),
    ],
)
def test_channels_that_come_last(op_type: str, attrs: dict[str, Any]) -> None:
    inputs, constants, quantizers = SINGLE, dict(BASE), 2
    if op_type == "QLinearConv":
        inputs, quantizers = QLINEAR_INPUTS, 3
        constants["w"] = integers((6, 3, 3, 2), -7, 8)
    node = contrib(op_type, inputs, ["r"], channels_last=1, **attrs)
    assert_same(file_of(framed(node), constants, (2, 5, 6, 3)), (2, 5, 6, 3), quantizers)


def test_the_largest_integers_of_windows_whose_channels_come_last() -> None:
    node = contrib("NhwcMaxPool", ["q"], ["r"], kernel_shape=[2, 2], strides=[2, 1])
    nodes = framed(node, y_scale="sx", y_zero="zx")
    assert_same(file_of(nodes, dict(BASE), (2, 5, 6, 3)), (2, 5, 6, 3), 1)


def test_a_convolution_behind_values_of_unknown_rank() -> None:
    """What onnxruntime writes has no shapes of inner values."""
    constants = dict(BASE) | {"w": integers((6, 3, 3, 2), -7, 8)}
    nodes = framed(
        contrib("NhwcMaxPool", ["q"], ["p"], kernel_shape=[2, 2]),
        make_node(
            *("QLinearConv", ["p", *QLINEAR_INPUTS[1:]], ["r"], "conv"),
            domain=MICROSOFT,
            channels_last=1,
        ),
    )
    assert_same(file_of(nodes, constants, (2, 5, 6, 3)), (2, 5, 6, 3), 3)


def test_where_of_two_integers() -> None:
    constants = BASE | {"nil": np.float32(0.5), "sb": np.float32(0.5), "zb": np.uint8(90)}
    nodes = framed(
        make_node("QuantizeLinear", ["x", "sb", "zb"], ["p"], "second"),
        make_node("Greater", ["x", "nil"], ["c"], "condition"),
        contrib("QLinearWhere", ["c", *PAIR[:3], "p", "sb", "zb", "sy", "zy"], ["r"]),
    )
    assert_same(file_of(nodes, constants, (5, 8)), (5, 8), 3)


@pytest.mark.parametrize("keepdims", [0, 1])
def test_a_mean_over_axes(keepdims: int) -> None:
    # onnxruntime has no kernel; the mean by hand, of codes 0.125 apart, in steps of 0.25.
    node = contrib("QLinearReduceMean", SINGLE, ["r"], axes=[1], keepdims=keepdims)
    model = load(file_of(framed(node), BASE, (4, 8, 3)))
    assert kinds(model).count("Quant") == 2
    x = random_x((4, 8, 3))
    codes = np.clip(np.rint(x.astype(np.float64) / 0.125) + 100, 0, 255) - 100
    mean = codes.mean(axis=1, keepdims=bool(keepdims)) * 0.125
    expected = (np.clip(np.rint(mean / 0.25) + 120, 0, 255) - 120) * 0.25
    np.testing.assert_array_equal(Session(model).run({"x": x})["y"], expected)


def test_a_gemm_with_a_factor_scales_its_bias_too() -> None:
    constants = BASE | {"w": integers((8, 5), -7, 8), "b": np.array([90] * 5, dtype=np.int32)}
    node = contrib("QGemm", [*QLINEAR_INPUTS[:6], "b", "sy", "zy"], ["r"], alpha=0.5)
    assert_same(file_of(framed(node), constants, (3, 8)), (3, 8), 4)


def test_parts_of_a_split_are_parts_of_the_quantized_value() -> None:
    constants = BASE | {"w": integers((4, 5), -7, 8), "sizes": np.array([4, 4], np.int64)}
    nodes = [
        make_node("QuantizeLinear", ["x", "sx", "zx"], ["q"], "first"),
        make_node("Split", ["q", "sizes"], ["q0", "q1"], "split", axis=1),
        make_node("QLinearMatMul", ["q0", *QLINEAR_INPUTS[1:]], ["r0"], "left"),
        make_node("QLinearMatMul", ["q1", *QLINEAR_INPUTS[1:]], ["r1"], "right"),
        contrib("QLinearAdd", ["r0", "sy", "zy", "r1", "sy", "zy", "sx", "zx"], ["r"]),
        make_node("DequantizeLinear", ["r", "sx", "zx"], ["y"], "last"),
    ]
    # One quantizer of the input, the weight once or twice, both products, the sum.
    proto = file_of(nodes, constants, (3, 8))
    model = load(proto)
    assert "Split" in kinds(model)
    assert not {"QuantizeLinear", "DequantizeLinear"} & set(kinds(model))
    x = random_x((3, 8))
    np.testing.assert_array_equal(Session(model).run({"x": x})["y"], answers(proto, x))


def test_a_part_of_a_split_with_a_reader_of_its_own_grid_stays_integer() -> None:
    constants = BASE | {"sizes": np.array([4, 4], np.int64)}
    nodes = [
        make_node("QuantizeLinear", ["x", "sx", "zx"], ["q"], "first"),
        make_node("Split", ["q", "sizes"], ["q0", "q1"], "split", axis=1),
        make_node("DequantizeLinear", ["q0", "sx", "zx"], ["y0"], "left"),
        make_node("DequantizeLinear", ["q1", "sy", "zx"], ["y1"], "right"),
        contrib("QLinearAdd", PAIR, ["r"]),
        make_node("DequantizeLinear", ["r", "sy", "zy"], ["y2"], "sum"),
        make_node("Concat", ["y0", "y1", "y2"], ["y"], "join", axis=1),
    ]
    proto = file_of(nodes, constants, (3, 8))
    model = load(proto)
    assert kinds(model).count("DequantizeLinear") == 2
    x = random_x((3, 8))
    np.testing.assert_array_equal(Session(model).run({"x": x})["y"], answers(proto, x))


def test_a_quantized_table_becomes_a_quantizer_and_its_rows_are_gathered() -> None:
    constants = BASE | {"table": integers((7, 8)), "w": integers((8, 5), -7, 8)}
    constants["ids"] = np.array([3, 0, 6, 3], dtype=np.int64)
    nodes = [
        make_node("Cast", ["x"], ["numbers"], "cast", to=TensorProto.INT64),
        make_node("Gather", ["table", "numbers"], ["q"], "gather"),
        make_node("QLinearMatMul", ["q", "sw", "zw", "w", "sw", "zw", "sw", "zw"], ["r"], "m"),
        make_node("DequantizeLinear", ["r", "sw", "zw"], ["y"], "last"),
    ]
    proto = file_of(nodes, constants, (4,))
    model = load(proto)
    weights = [n for n in model.graph if dialect.is_quantizer(n)]
    stored = {tuple(t.shape) for n in weights if (t := dialect.constant_tensor(n.inputs[0]))}
    assert stored == {(7, 8), (8, 5)}
    assert not {"QuantizeLinear", "DequantizeLinear"} & set(kinds(model))
    x = np.array([3, 0, 6, 3], dtype=np.float32)
    np.testing.assert_array_equal(Session(model).run({"x": x})["y"], answers(proto, x))


def in_branches(then: list[Any], other: list[Any]) -> onnx.ModelProto:
    """A file that takes one branch where the first input is positive, else the other."""
    branches = [
        helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(out, FLOAT, None)])
        for nodes, name, out in ((then, "then", "a"), (other, "else", "b"))
    ]
    constants = BASE | {
        "w": integers((8, 5), -7, 8),
        "nil": np.float32(0),
        "first": np.int64(0),
    }
    nodes = [
        make_node("ReduceMax", ["x"], ["most"], "most", keepdims=0),
        make_node("Greater", ["most", "nil"], ["c"], "positive"),
        make_node("If", ["c"], ["y"], "if", then_branch=branches[0], else_branch=branches[1]),
    ]
    return file_of(nodes, constants, (3, 8))


def test_layers_in_branches_are_read_as_well() -> None:
    then = [
        make_node("QuantizeLinear", ["x", "sx", "zx"], ["q"], "first"),
        make_node("QLinearMatMul", QLINEAR_INPUTS, ["r"], "matmul"),
        make_node("DequantizeLinear", ["r", "sy", "zy"], ["a"], "last"),
    ]
    other = [make_node("MatMul", ["x", "m"], ["b"], "float")]
    proto = in_branches(then, other)
    proto.graph.initializer.append(
        numpy_helper.from_array(np.ones((8, 5), dtype=np.float32), "m")
    )
    model = load(proto)
    assert "QLinearMatMul" not in kinds(model)
    for sign in (1, -1):
        x = np.abs(random_x((3, 8))) * sign
        expected = answers(proto, x)
        assert np.ptp(expected) > 0
        np.testing.assert_array_equal(Session(model).run({"x": x})["y"], expected)


def test_layers_in_a_loop_are_read_as_well() -> None:
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            make_node("QuantizeLinear", ["state", "sx", "zx"], ["q"], "first"),
            make_node("QLinearMatMul", QLINEAR_INPUTS, ["r"], "matmul"),
            make_node("DequantizeLinear", ["r", "sy", "zy"], ["next"], "last"),
            make_node("Identity", ["go"], ["on"], "on"),
        ],
        "body",
        [
            value("turn", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("state", FLOAT, [3, 8]),
        ],
        [value("on", TensorProto.BOOL, []), value("next", FLOAT, [3, 8])],
    )
    constants = BASE | {"w": integers((8, 8), -3, 4), "three": np.int64(3), "yes": np.bool_(1)}
    nodes = [make_node("Loop", ["three", "yes", "x"], ["y"], "loop", body=body)]
    proto = file_of(nodes, constants, (3, 8))
    model = load(proto)
    assert "QLinearMatMul" not in kinds(model)
    x = random_x((3, 8))
    expected = answers(proto, x)
    assert np.ptp(expected) > 0
    np.testing.assert_array_equal(Session(model).run({"x": x})["y"], expected)


def test_layers_in_functions_are_read_as_well() -> None:
    body = [
        make_node("QuantizeLinear", ["a", "s", "z"], ["q"]),
        make_node("QLinearMatMul", ["q", "s", "z", "b", "t", "u", "s", "z"], ["r"]),
        make_node("DequantizeLinear", ["r", "s", "z"], ["c"]),
    ]
    function = helper.make_function(
        "own", "Layer", ["a", "s", "z", "b", "t", "u"], ["c"], body,
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    node = make_node("Layer", ["x", "sx", "zx", "w", "sw", "zw"], ["y"], "layer", domain="own")
    proto = file_of([node], BASE | {"w": integers((8, 5), -7, 8)}, (3, 8))
    proto.opset_import.append(helper.make_opsetid("own", 1))
    proto.functions.append(function)
    assert_same(proto, (3, 8), 3)


def test_weights_beside_the_file_are_read(tmp_path: Path) -> None:
    constants = BASE | {"w": integers((8, 40), -7, 8)}
    node = make_node("QLinearMatMul", QLINEAR_INPUTS, ["r"], "matmul")
    path = tmp_path / "model.onnx"
    proto = file_of(framed(node), constants, (3, 8))
    x = random_x((3, 8))
    expected = answers(proto, x)
    onnx.save(proto, path, save_as_external_data=True, size_threshold=16, location="w.bin")
    model = load(path)
    np.testing.assert_array_equal(Session(model).run({"x": x})["y"], expected)
    (tmp_path / "w.bin").unlink()
    with pytest.raises(SourceError, match=r"model\.onnx.*w\.bin.*is missing"):
        load(path)


@pytest.mark.parametrize(
    ("node", "problem"),
    [
        (
            contrib("QLinearLeakyRelu", [*SINGLE[:3], "many", "zy"], ["r"]),
            "QLinearLeakyRelu 'op' has several scales or zero points of its output",
        ),
        (
            make_node(
                "QLinearMatMul",
                ["q", "sx", "zx", "w", "sw", "ten", *QLINEAR_INPUTS[6:]],
                ["r"],
                "op",
            ),
            "QLinearMatMul 'op' has 10 scales or zero points for the 5 channels of axis 1",
        ),
    ],
)
def test_what_cannot_be_read_is_refused_by_name_and_file(
    node: onnx.NodeProto, problem: str, tmp_path: Path
) -> None:
    constants = BASE | {"w": integers((8, 5)), "ten": np.zeros((2, 1, 5), dtype=np.int8)}
    constants["many"] = np.full(3, 0.125, dtype=np.float32)
    path = tmp_path / "model.onnx"
    onnx.save(file_of(framed(node), constants, (3, 8)), path)
    with pytest.raises(SourceError, match=rf"^'.*model\.onnx': {problem}"):
        load(path)


def test_nodes_may_stand_in_any_order_before_the_opset_is_raised() -> None:
    constants = BASE | {"w": integers((8, 5), -7, 8)}
    node = make_node("QLinearMatMul", QLINEAR_INPUTS, ["r"], "matmul")
    proto = file_of(framed(node), constants, (3, 8))
    proto.opset_import[0].version = 12
    x = random_x((3, 8))
    expected = answers(proto, x)
    turned = list(reversed(proto.graph.node))
    del proto.graph.node[:]
    proto.graph.node.extend(turned)
    np.testing.assert_array_equal(Session(load(proto)).run({"x": x})["y"], expected)


def test_an_operator_that_nobody_knows_stays_and_what_is_behind_it_is_read() -> None:
    node = contrib("QLinearTanh", SINGLE, ["t"])
    other = make_node("QLinearMatMul", ["t", *QLINEAR_INPUTS[1:]], ["r"], "matmul")
    proto = file_of(framed(node, other), BASE | {"w": integers((8, 5))}, (3, 8))
    read = [n.op_type for n in load(proto).graph]
    assert "QLinearTanh" in read
    assert "QLinearMatMul" not in read
