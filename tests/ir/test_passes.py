"""Each pass fires, leaves a done graph alone, and keeps values bit for bit."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper

from qonnx_hub_ir.dialect import PROVENANCE
from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.passes import (
    IMPORT_PIPELINE,
    DropUnused,
    FoldConstants,
    InferShapes,
    NameNodes,
    run_passes,
)
from qonnx_hub_ir.validity import verify
from tests.ir.graphs import (
    BARE,
    CHANNELS_LAST,
    DOMAIN,
    attributes,
    constants,
    evaluate,
    f32,
    i64,
    info,
    model,
    operators,
    parameters,
    proto,
    quant,
)


def relu(x: str, y: str, name: str = "") -> onnx.NodeProto:
    return helper.make_node("Relu", [x], [y], name=name)


def shape_of(found: onnx_ir.Model, name: str) -> list | None:
    """Shape of a value by name; symbolic dimensions by their names."""
    values = {v.name: v for node in found.graph.all_nodes() for v in node.outputs}
    shape = values[name].shape
    if shape is None:
        return None
    return [dim if isinstance(dim, int) else dim.value for dim in shape]


def type_of(found: onnx_ir.Model, name: str) -> onnx_ir.DataType | None:
    values = {v.name: v for node in found.graph.all_nodes() for v in node.outputs}
    return values[name].dtype


# FoldConstants


def test_a_computed_bit_width_becomes_a_constant():
    # Exporters of average pooling write Ceil(Log(15) / Log(2)) = Ceil(3.9...) = 4.
    nodes = [
        helper.make_node("Log", ["fifteen"], ["a"]),
        helper.make_node("Log", ["two"], ["b"]),
        helper.make_node("Div", ["a", "b"], ["c"]),
        helper.make_node("Ceil", ["c"], ["bits"]),
        quant(inputs=("s", "z", "bits")),
    ]
    weights = {"s": f32(0.5), "z": f32(0), "fifteen": f32(15), "two": f32(2)}
    found = model(nodes, weights=weights)
    assert FoldConstants()(found).modified
    assert operators(found) == ["Quant"]
    assert found.graph[0].inputs[3].const_value.numpy().tolist() == 4.0
    assert not FoldConstants()(found).modified
    assert verify(found) == []


def test_folding_keeps_the_values_bit_for_bit():
    nodes = [
        helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
        helper.make_node("Mul", ["t", "c"], ["v"]),
        helper.make_node("MatMul", ["x", "v"], ["y"]),
    ]
    random = np.random.default_rng(0)
    weights = {
        "w": random.normal(size=(4, 3)).astype(np.float32),
        "c": f32([0.1, 0.2, 0.3, 7]),
    }
    shapes = [info("x", [2, 3])], [info("y", [2, 4])]
    x = random.normal(size=(2, 3)).astype(np.float32)
    found = model(nodes, *shapes, weights)
    assert FoldConstants()(found).modified
    assert operators(found) == ["MatMul"]
    before = evaluate(proto(nodes, *shapes, weights), x=x)[0]
    assert np.array_equal(evaluate(found, x=x)[0], before)


@pytest.mark.parametrize(
    "nodes",
    [
        [quant("w", "y")],
        [quant("w", "t"), helper.make_node("Transpose", ["t"], ["y"])],
        [
            helper.make_node("QuantizeLinear", ["w", "s", "zero"], ["t"]),
            helper.make_node("DequantizeLinear", ["t", "s", "zero"], ["y"]),
        ],
        [helper.make_node("DequantizeLinear", ["codes", "s", "zero"], ["y"])],
        [helper.make_node("RandomUniformLike", ["w"], ["y"])],
        [relu("x", "y")],
        [
            helper.make_node("Shape", ["x"], ["t"]),
            helper.make_node("Reshape", ["w", "t"], ["y"]),
        ],
        [
            helper.make_node("SequenceConstruct", ["w", "w"], ["t"]),
            helper.make_node("ConcatFromSequence", ["t"], ["y"], axis=0),
        ],
    ],
)
def test_what_must_stay_is_not_folded(nodes):
    weights = parameters() | {
        "w": np.ones((2, 3), dtype=np.float32),
        "codes": np.ones((2, 3), dtype=np.int8),
        "zero": np.array(0, dtype=np.int8),
    }
    found = model(nodes, weights=weights)
    assert not FoldConstants()(found).modified
    assert operators(found) == [node.op_type for node in nodes]


def test_a_branch_on_a_constant_is_not_folded():
    graphs = {
        name: helper.make_graph(
            [relu("x", f"{name}_y")], name, [], [info(f"{name}_y", [2, 3])]
        )
        for name in ("then_branch", "else_branch")
    }
    nodes = [helper.make_node("If", ["c"], ["y"], **graphs)]
    found = model(nodes, weights={"c": np.array(True)})
    assert not FoldConstants()(found).modified


def test_an_initializer_that_is_an_input_is_no_constant():
    inputs = [info("x", [2, 3]), info("s", [])]
    nodes = [helper.make_node("Neg", ["s"], ["n"]), helper.make_node("Add", ["x", "n"], ["y"])]
    assert not FoldConstants()(model(nodes, inputs)).modified


def test_a_node_that_would_grow_stays_a_node():
    expand = helper.make_node("Expand", ["s", "shape"], ["t"])
    nodes = [expand, helper.make_node("Add", ["x", "t"], ["y"])]
    big = parameters() | {"shape": i64([300, 300])}
    found = model(nodes, [info("x", [300, 300])], [info("y", [300, 300])], big)
    assert not FoldConstants()(found).modified
    small = parameters() | {"shape": i64([2, 3])}
    found = model(nodes, weights=small)
    assert FoldConstants()(found).modified
    assert operators(found) == ["Add"]


def test_a_large_node_that_does_not_grow_is_folded():
    weights = {"w": np.arange(90_000, dtype=np.float32).reshape(300, 300)}
    nodes = [
        helper.make_node("Transpose", ["w"], ["t"]),
        helper.make_node("Add", ["x", "t"], ["y"]),
    ]
    found = model(nodes, [info("x", [300, 300])], [info("y", [300, 300])], weights)
    assert FoldConstants()(found).modified
    assert np.array_equal(found.graph[0].inputs[1].const_value.numpy(), weights["w"].T)


def test_a_constant_node_that_fails_is_named():
    node = helper.make_node("Reshape", ["w", "shape"], ["y"], name="r7")
    found = model([node], weights={"w": f32([1, 2, 3]), "shape": i64([2, 2])})
    with pytest.raises(PassError, match="constant node Reshape 'r7' cannot be computed: "):
        FoldConstants()(found)


def test_a_constant_output_keeps_its_name():
    found = model([helper.make_node("Neg", ["s"], ["y"])], outputs=[info("y", [])])
    assert FoldConstants()(found).modified
    assert [value.name for value in found.graph.outputs] == ["y"]
    assert constants(found)["y"].tolist() == -0.5
    assert verify(found) == []


def test_every_output_of_a_constant_node_is_folded():
    nodes = [
        helper.make_node("Split", ["w"], ["a", "b", "unused"], axis=0, num_outputs=3),
        helper.make_node("Concat", ["x", "b", "a"], ["y"], axis=0),
    ]
    weights = {"w": f32([[1, 1, 1], [2, 2, 2], [3, 3, 3]])}
    found = model(nodes, outputs=[info("y", [4, 3])], weights=weights)
    assert FoldConstants()(found).modified
    x = np.zeros((2, 3), dtype=np.float32)
    assert evaluate(found, x=x)[0][2:].tolist() == [[2, 2, 2], [1, 1, 1]]


def test_an_absent_optional_input_does_not_hinder_folding():
    node = helper.make_node("Clip", ["w", "", "s"], ["t"])
    nodes = [node, helper.make_node("Add", ["x", "t"], ["y"])]
    found = model(nodes, weights={"w": f32([-1, 0, 1]), "s": f32(0.5)})
    assert FoldConstants()(found).modified
    assert found.graph[0].inputs[1].const_value.numpy().tolist() == [-1, 0, 0.5]


def test_a_folded_value_keeps_its_metadata():
    nodes = [helper.make_node("Neg", ["s"], ["n"]), helper.make_node("Add", ["x", "n"], ["y"])]
    found = model(nodes)
    found.graph[0].outputs[0].metadata_props[PROVENANCE] = "layer"
    FoldConstants()(found)
    assert found.graph[0].inputs[1].metadata_props[PROVENANCE] == "layer"


# InferShapes


@pytest.mark.parametrize(
    "node",
    [
        quant("x", "t"),
        quant("x", "t", op="BipolarQuant", inputs=("s",), **BARE),
        quant("x", "t", op="FloatQuant", inputs=("s", "b", "b", "b", "b"), **BARE),
        quant("x", "t", op="Trunc", inputs=("s", "z", "b", "s", "b")),
    ],
)
def test_a_quantizer_has_the_type_and_shape_of_its_input(node):
    found = model([node, relu("t", "y")])
    assert shape_of(found, "t") is None
    assert InferShapes()(found).modified
    assert shape_of(found, "t") == [2, 3]
    assert type_of(found, "t") is onnx_ir.DataType.FLOAT
    assert operators(found) == [node.op_type, "Relu"]
    assert not InferShapes()(found).modified


def test_a_quantizer_of_half_precision_stays_in_half_precision():
    half = TensorProto.FLOAT16
    found = model(
        [quant("x", "t"), relu("t", "y")], [info("x", [4], half)], [info("y", [4], half)]
    )
    InferShapes()(found)
    assert type_of(found, "t") is onnx_ir.DataType.FLOAT16


def test_shapes_go_through_quantizers_and_keep_symbolic_dimensions():
    nodes = [
        quant("x", "xq", "qx"),
        quant("w", "wq", "qw"),
        helper.make_node("Conv", ["xq", "wq"], ["c"], strides=[2, 2]),
        quant("c", "y", "qc"),
    ]
    weights = parameters() | {"w": np.ones((4, 3, 3, 3), dtype=np.float32)}
    found = model(nodes, [info("x", ["N", 3, 9, 9])], [info("y", None)], weights)
    assert InferShapes()(found).modified
    assert shape_of(found, "xq") == ["N", 3, 9, 9]
    assert shape_of(found, "wq") == [4, 3, 3, 3]
    assert shape_of(found, "y") == ["N", 4, 4, 4]
    assert not InferShapes()(found).modified


@pytest.mark.parametrize(
    ("op", "changes", "weights", "shape"),
    [
        (
            "Conv",
            {"strides": [2, 2]},
            {"w": np.ones((5, 3, 3, 4), np.float32)},
            ["N", 3, 3, 5],
        ),
        ("MaxPool", {"kernel_shape": [2, 2]}, {}, ["N", 7, 7, 4]),
        (
            "BatchNormalization",
            {},
            {name: np.ones(4, np.float32) for name in "abcd"},
            ["N", 8, 8, 4],
        ),
    ],
)
def test_channels_last_operators_have_shapes_and_stay(op, changes, weights, shape):
    inputs = ["t", *weights]
    node = helper.make_node(op, inputs, ["y"], domain=CHANNELS_LAST, **changes)
    imports = {"": 19, DOMAIN: 2, CHANNELS_LAST: 19}
    weights = parameters() | weights
    found = model(
        [quant("x", "t"), node],
        [info("x", ["N", 8, 8, 4])],
        [info("y", None)],
        weights,
        imports,
        value_info=[info("t", ["N", 8, 8, 4])],
    )
    InferShapes()(found)
    assert shape_of(found, "y") == shape
    assert operators(found) == ["Quant", op]
    assert found.graph[1].domain == CHANNELS_LAST
    assert CHANNELS_LAST in found.opset_imports


def test_shapes_that_contradict_each_other_are_refused():
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="m")
    with pytest.raises(PassError, match=r"shapes do not fit together: .*MatMul"):
        InferShapes()(model([node], weights={"w": np.ones((4, 2), dtype=np.float32)}))


def test_types_that_contradict_each_other_are_refused():
    node = helper.make_node("Add", ["x", "w"], ["y"], name="a")
    with pytest.raises(PassError, match=r"shapes do not fit together: .*Add"):
        InferShapes()(model([node], weights={"w": i64([1, 2, 3])}))


def test_a_stale_shape_is_corrected():
    stale = [info("t", [7, 7, 7])]
    found = model([quant("x", "t"), relu("t", "y")], value_info=stale)
    assert InferShapes()(found).modified
    assert shape_of(found, "t") == [2, 3]


def test_what_only_the_file_knows_is_kept():
    nodes = [
        helper.make_node("NonZero", ["x"], ["t"]),
        helper.make_node("Cast", ["t"], ["y"], to=1),
    ]
    found = model(nodes, value_info=[info("t", [2, 5], TensorProto.INT64)])
    InferShapes()(found)
    assert shape_of(found, "t") == [2, 5]


def test_a_reshape_is_followed_through_shape_arithmetic():
    nodes = [
        quant("x", "t"),
        helper.make_node("Shape", ["t"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["n"], axis=0),
        helper.make_node("Concat", ["n", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["t", "target"], ["y"]),
    ]
    weights = parameters() | {"first": i64([0]), "rest": i64([6])}
    found = model(nodes, [info("x", [5, 2, 3])], [info("y", None)], weights)
    InferShapes()(found)
    assert shape_of(found, "y") == [5, 6]


def test_a_shape_in_another_file_is_read(tmp_path):
    node = helper.make_node("Reshape", ["x", "target"], ["y"])
    found = proto([node], outputs=[info("y", None)], weights={"target": i64([3, 2])})
    path = tmp_path / "net.onnx"
    onnx.save(found, path, save_as_external_data=True, size_threshold=0, location="net.data")
    loaded = onnx_ir.load(path)
    InferShapes()(loaded)
    assert shape_of(loaded, "y") == [3, 2]


def test_weights_are_neither_copied_nor_turned_into_inputs():
    weight = np.ones((3, 500), dtype=np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    found = model([node], outputs=[info("y", None)], weights={"w": weight})
    tensor = found.graph.initializers["w"].const_value
    InferShapes()(found)
    assert shape_of(found, "y") == [2, 500]
    assert found.graph.initializers["w"].const_value is tensor
    assert [value.name for value in found.graph.inputs] == ["x"]


# DropUnused


def test_what_no_output_needs_is_dropped():
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    opsets = [helper.make_opsetid("", 19)]
    twice = helper.make_function("local", "Twice", ["a"], ["b"], body, opsets)
    nodes = [relu("x", "y"), relu("x", "nobody"), quant("nobody", "nobody_2")]
    inputs = [info("x", [2, 3]), info("unread", [1])]
    imports = {"": 21, DOMAIN: 2, "local": 1}
    found = model(nodes, inputs, imports=imports, functions=[twice])
    assert DropUnused()(found).modified
    assert operators(found) == ["Relu"]
    assert not found.graph.initializers
    assert not found.functions
    assert dict(found.opset_imports) == {"": 21}
    assert [value.name for value in found.graph.inputs] == ["x", "unread"]
    assert not DropUnused()(found).modified


def test_what_an_output_needs_stays():
    found = model([quant("x", "t"), relu("t", "y")])
    assert not DropUnused()(found).modified
    assert sorted(found.graph.initializers) == ["b", "s", "z"]


def test_a_graph_of_quantizers_keeps_its_standard_opset():
    found = model([quant()], imports={"": 21, DOMAIN: 2})
    assert not DropUnused()(found).modified
    assert dict(found.opset_imports) == {"": 21, DOMAIN: 2}


# NameNodes


def test_nodes_without_a_name_are_named_after_their_operator():
    found = model([relu("x", "t"), quant("t", "u", ""), relu("u", "y")])
    assert NameNodes()(found).modified
    assert [node.name for node in found.graph] == ["Relu_0", "Quant_0", "Relu_1"]
    assert not NameNodes()(found).modified


def test_a_second_node_of_one_name_gets_another():
    names = ["r", "r_0", "r", "", "Relu_0", "r"]
    values = ["x", "t0", "t1", "t2", "t3", "t4", "y"]
    nodes = [
        relu(x, y, name) for x, y, name in zip(values[:-1], values[1:], names, strict=True)
    ]
    found = model(nodes)
    assert NameNodes()(found).modified
    assert [n.name for n in found.graph] == ["r", "r_0", "r_1", "Relu_1", "Relu_0", "r_2"]
    assert not NameNodes()(found).modified


def test_names_are_unique_across_branches():
    graphs = {
        name: helper.make_graph(
            [relu("x", f"{name}_y", "inner")], name, [], [info(f"{name}_y", [2, 3])]
        )
        for name in ("then_branch", "else_branch")
    }
    node = helper.make_node("If", ["c"], ["y"], name="inner", **graphs)
    found = model([node], [info("x", [2, 3]), info("c", [], TensorProto.BOOL)])
    NameNodes()(found)
    names = [node.name for node in found.graph.all_nodes()]
    assert len(names) == len(set(names)) == 3


# run_passes


def test_running_passes_tells_whether_any_changed_something():
    found = model([relu("x", "y")], weights={})
    assert run_passes(found, [DropUnused(), NameNodes()])
    assert not run_passes(found, [DropUnused(), NameNodes(), InferShapes()])
    assert not run_passes(found, [])


def test_the_import_pipeline_makes_a_file_of_old_days_canonical():
    nodes = [
        helper.make_node("Constant", [], ["c"], value_float=2.0),
        helper.make_node("Mul", ["c", "s"], ["s2"]),
        quant("x", "t", "", op="IntQuant", domain="onnx.brevitas", inputs=("s2", "z", "b")),
        helper.make_node("Unsqueeze", ["t"], ["y"], axes=[0]),
        relu("x", "unread"),
    ]
    inputs = [info("x", ["N", 3]), info("s", []), info("z", []), info("b", [])]
    found = model(nodes, inputs, [info("y", None)], imports={"": 9}, ir_version=3)
    assert run_passes(found, IMPORT_PIPELINE)
    assert verify(found) == []
    assert [(n.domain, n.op_type, n.name) for n in found.graph] == [
        (DOMAIN, "Quant", "IntQuant_0"),
        ("", "Unsqueeze", "Unsqueeze_0"),
    ]
    assert dict(found.opset_imports) == {"": 19, DOMAIN: 2}
    assert attributes(found.graph[0])["rounding_mode"] == "ROUND"
    assert found.graph[0].inputs[1].const_value.numpy().tolist() == 1.0
    assert shape_of(found, "y") == [1, "N", 3]
    assert not run_passes(found, IMPORT_PIPELINE)


def test_branches_that_name_their_values_alike_are_inferred() -> None:
    def branch(number: int) -> onnx.GraphProto:
        nodes = [
            helper.make_node("Shape", ["x"], ["sizes"]),
            helper.make_node("Cast", ["sizes"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("ReduceSum", ["floats"], [f"y{number}"], keepdims=0),
        ]
        made = helper.make_tensor_value_info(f"y{number}", TensorProto.FLOAT, None)
        return helper.make_graph(nodes, f"branch{number}", [], [made])

    node = helper.make_node("If", ["c"], ["y"], then_branch=branch(0), else_branch=branch(1))
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "g",
        [info("c", TensorProto.BOOL, []), info("x", TensorProto.FLOAT, [2, 3])],
        [info("y", TensorProto.FLOAT, None)],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])
    model = onnx_ir.from_proto(proto)
    InferShapes()(model)
    assert model.graph.outputs[0].shape == onnx_ir.Shape([])
