"""The graph kit: what travels when a value is replaced, and which graphs a walk visits."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper

import qonnx_hub_ir.graph
from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph import permutations, subgraphs
from qonnx_hub_ir.graph.builder import Emitter, copy_node
from qonnx_hub_ir.graph.names import free_name, rename_values, value_names
from qonnx_hub_ir.graph.queries import element_count, rank_of, weight_axes
from qonnx_hub_ir.graph.rearrange import Rearranger, rearrange_at, transposing
from qonnx_hub_ir.graph.rewriting import bypass, read_behind, replace_node, replace_value
from qonnx_hub_ir.quantizers import IntQuant
from tests.ir.graphs import f32, info, model, node_of, operators, quant


def _relu_and_neg(output: str = "y") -> onnx_ir.Model:
    """Relu and Neg of one input, and Abs of the Relu; one of them is the output."""
    return model(
        [
            helper.make_node("Relu", ["x"], ["r"], name="relu"),
            helper.make_node("Neg", ["x"], ["n"], name="neg"),
            helper.make_node("Abs", ["r"], ["y"], name="abs"),
        ],
        outputs=[info(output, [2, 3])],
        weights={},
    )


def _with_branches() -> onnx_ir.Model:
    """An If whose branches read ``x`` and ``r``; the second holds a quantizer and an If."""

    def branch(nodes: list[onnx.NodeProto], output: str) -> onnx.GraphProto:
        return helper.make_graph(nodes, output, [], [info(output, [2, 3])])

    inner = helper.make_node(
        "If",
        ["c"],
        ["deep"],
        name="inner",
        then_branch=branch([helper.make_node("Neg", ["r"], ["d1"], name="deep1")], "d1"),
        else_branch=branch([helper.make_node("Abs", ["q"], ["d2"], name="deep2")], "d2"),
    )
    first = branch([helper.make_node("Abs", ["x"], ["a"], name="abs")], "a")
    second = branch([quant("x", "q", "quant"), inner], "deep")
    function = helper.make_function(
        "local", "F", ["i"], ["o"], [helper.make_node("Exp", ["i"], ["o"])], IMPORTS
    )
    return model(
        [
            helper.make_node("Relu", ["x"], ["r"], name="relu"),
            helper.make_node(
                "If", ["c"], ["y"], name="if", then_branch=first, else_branch=second
            ),
        ],
        inputs=[info("x", [2, 3]), info("c", [], TensorProto.BOOL)],
        functions=[function],
    )


IMPORTS = [helper.make_opsetid("", 19)]


def test_a_walk_visits_bodies_at_any_depth_and_local_functions():
    found = [node.op_type for node in subgraphs.every_node(_with_branches())]
    assert sorted(found) == ["Abs", "Abs", "Exp", "If", "If", "Neg", "Quant", "Relu"]


def test_a_walk_without_functions_leaves_them_out():
    found = [n.op_type for n in subgraphs.every_node(_with_branches(), functions=False)]
    assert "Exp" not in found
    assert len(found) == 7


def test_a_walk_yields_each_graph_once_the_main_graph_first():
    built = _with_branches()
    graphs = list(subgraphs.every_graph(built))
    assert graphs[0] is built.graph
    assert len(graphs) == len(set(map(id, graphs))) == 6


def test_a_node_captures_what_its_bodies_read_from_outside_each_once():
    node = next(n for n in _with_branches().graph if n.op_type == "If")
    names = [value.name for value in subgraphs.captured_values(node)]
    assert sorted(names) == ["b", "c", "r", "s", "x", "z"]


def test_a_node_without_bodies_captures_nothing():
    built = _with_branches()
    assert subgraphs.captured_values(node_of(built, "Relu")) == []
    assert [v.name for v in subgraphs.read_values(node_of(built, "Relu"))] == ["x"]


def test_captured_reads_name_the_inner_node_and_its_input():
    built = _with_branches()
    ((owner, reads),) = subgraphs.captured_reads(built.graph).items()
    assert owner.name == "if"
    found = {(node.name, index) for node, index in reads}
    assert {("abs", 0), ("quant", 0), ("deep1", 0), ("inner", 0)} <= found
    assert ("deep2", 0) not in found


def test_a_replaced_value_gives_its_name_type_shape_and_metadata():
    built = _relu_and_neg()
    old, new = (node_of(built, name).outputs[0] for name in ("Relu", "Neg"))
    old.shape, old.type = onnx_ir.Shape([2, 3]), onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
    old.metadata_props[dialect.PROVENANCE] = "layer"
    new.metadata_props["own"] = "kept"
    replace_value(old, new)
    assert (new.name, old.name) == ("r", None)
    assert new.shape == onnx_ir.Shape([2, 3])
    assert new.dtype is onnx_ir.DataType.FLOAT
    assert new.metadata_props == {dialect.PROVENANCE: "layer", "own": "kept"}
    assert node_of(built, "Abs").inputs[0] is new


def test_a_shape_that_the_old_value_does_not_know_stays():
    built = _relu_and_neg()
    old, new = (node_of(built, name).outputs[0] for name in ("Relu", "Neg"))
    old.shape, new.shape = None, onnx_ir.Shape([2, 3])
    replace_value(old, new)
    assert new.shape == onnx_ir.Shape([2, 3])


def test_without_keep_name_and_metadata_both_stay_where_they_are():
    built = _relu_and_neg()
    old, new = (node_of(built, name).outputs[0] for name in ("Relu", "Neg"))
    old.metadata_props[dialect.PROVENANCE] = "layer"
    replace_value(old, new, keep_name=False, keep_metadata=False)
    assert (new.name, old.name) == ("n", "r")
    assert new.metadata_props == {}


def test_the_name_of_a_graph_output_travels_in_any_case():
    built = _relu_and_neg("r")
    old, new = (node_of(built, name).outputs[0] for name in ("Relu", "Neg"))
    replace_value(old, new, keep_name=False)
    assert [value.name for value in built.graph.outputs] == ["r"]
    assert built.graph.outputs[0] is new


def test_a_graph_input_is_refused_as_a_graph_output():
    built = _relu_and_neg("r")
    with pytest.raises(ValueError, match="cannot become the graph output 'r'"):
        replace_value(node_of(built, "Relu").outputs[0], built.graph.inputs[0])


def test_a_replaced_node_leaves_an_identity_where_an_input_would_be_an_output():
    built = _relu_and_neg("r")
    replace_node(node_of(built, "Relu"), built.graph.inputs[0])
    assert "Relu" not in operators(built)
    assert built.graph.outputs[0].name == "r"
    identity = built.graph.outputs[0].producer()
    assert identity is not None
    assert (identity.op_type, identity.name) == ("Identity", "relu")


def test_what_read_a_value_reads_the_node_behind_it():
    found = _relu_and_neg()
    relu, y = node_of(found, "Relu"), found.graph.outputs[0]
    behind = onnx_ir.node("Identity", [y], name="behind")
    found.graph.append(behind)
    read_behind(behind, "y_before")
    assert [value.name for value in found.graph.outputs] == ["y"]
    assert (behind.inputs[0], y.name) == (y, "y_before")
    inner = onnx_ir.node("Identity", [relu.outputs[0]], name="inner")
    relu.append(inner)
    read_behind(inner, "unused")
    assert node_of(found, "Abs").inputs[0] is inner.outputs[0]
    assert relu.outputs[0].name == "r"


def test_a_value_is_replaced_inside_of_branches_too():
    built = _with_branches()
    relu = node_of(built, "Relu")
    replace_node(relu, built.graph.inputs[0], keep_name=False)
    inner = [n for n in built.graph.all_nodes() if n.name == "deep1"]
    assert inner[0].inputs[0] is built.graph.inputs[0]


def test_a_bypassed_node_keeps_the_name_of_a_graph_output():
    built = _relu_and_neg("y")
    abs_node, relu = node_of(built, "Abs"), node_of(built, "Relu")
    assert bypass(abs_node, relu.outputs[0])
    assert built.graph.outputs[0] is relu.outputs[0]
    assert relu.outputs[0].name == "y"


def test_a_node_is_not_bypassed_where_an_input_would_become_an_output():
    built = _relu_and_neg("r")
    assert not bypass(node_of(built, "Relu"), built.graph.inputs[0])
    assert "Relu" in operators(built)


def test_an_emitter_writes_into_the_branch_of_its_node():
    built = _with_branches()
    node = node_of(built, "Quant")
    emit = Emitter(node)
    value = emit.constant("half", f32(0.5))
    emit.replace_with(emit.add("Mul", [node.inputs[0], value]))
    branch = next(g for g in built.graph.subgraphs() if "quant_half" in g.initializers)
    assert [n.op_type for n in branch] == ["Mul", "If"]
    assert branch[0].outputs[0].name == "q"
    onnx.checker.check_model(onnx_ir.to_proto(built))


def test_equal_constants_of_an_emitter_are_one():
    built = _relu_and_neg()
    emit = Emitter(node_of(built, "Abs"))
    assert emit.constant("c", f32([1, 2])) is emit.constant("c", f32([1, 2]))
    assert emit.constant("c", f32([1, 2])) is not emit.constant("c", f32([1, 3]))


def test_an_emitter_numbers_its_quantizers():
    built = _relu_and_neg()
    emit, x = Emitter(node_of(built, "Abs")), built.graph.inputs[0]
    one = IntQuant(f32(1), f32(0), f32(8))
    names = [emit.quantizer(x, one).producer().name for _ in range(2)]
    assert names == ["abs_quant", "abs_quant_1"]


def test_a_copied_node_has_the_attributes_and_the_provenance_of_the_other():
    built = model([quant(narrow=1)])
    node = node_of(built, "Quant")
    node.outputs[0].metadata_props[dialect.PROVENANCE] = "layer"
    copy = copy_node(node, node.inputs, name="twin")
    assert copy.op_identifier() == node.op_identifier()
    assert {k: a.value for k, a in copy.attributes.items()}["narrow"] == 1
    assert copy.outputs[0].metadata_props == {dialect.PROVENANCE: "layer"}
    assert (copy.name, copy.outputs[0].name, copy.graph) == ("twin", "twin_out0", None)


@pytest.mark.parametrize("perm", list(itertools.permutations(range(3))))
def test_permutations_do_what_transpose_does(perm):
    x = np.arange(24, dtype=np.int64).reshape(2, 3, 4)
    back = permutations.inverse(perm)
    np.testing.assert_array_equal(x.transpose(perm).transpose(back), x)
    joined = permutations.compose(perm, (2, 0, 1))
    np.testing.assert_array_equal(x.transpose(joined), x.transpose(perm).transpose(2, 0, 1))


@pytest.mark.parametrize("rank", [2, 3, 4, 5])
def test_the_two_layouts_undo_each_other(rank):
    assert permutations.inverse(permutations.to_last(rank)) == permutations.to_first(rank)
    assert permutations.to_last(4) == (0, 2, 3, 1)


def test_a_transpose_without_permutation_reverses_the_axes():
    built = model(
        [helper.make_node("Transpose", ["x"], ["y"], name="t")],
        outputs=[info("y", [3, 2])],
        weights={},
    )
    assert permutations.perm_of(node_of(built, "Transpose")) == (1, 0)
    built.graph.inputs[0].shape = None
    assert permutations.perm_of(node_of(built, "Transpose")) is None


def test_the_rank_of_a_quantized_constant_is_known_without_inference():
    built = model([quant("w", "y")], weights={"w": f32([[1, 2, 3]])} | PARAMETERS)
    node = node_of(built, "Quant")
    node.outputs[0].shape = None
    assert rank_of(node.outputs[0]) == 2


PARAMETERS = {"s": f32(0.5), "z": f32(0), "b": f32(4)}


@pytest.mark.parametrize(
    ("op", "x", "w", "attributes"),
    [
        ("Conv", [1, 2, 5, 5], [7, 2, 3, 3], {}),
        ("ConvTranspose", [1, 2, 5, 5], [2, 7, 3, 3], {}),
        ("Gemm", [4, 2], [2, 7], {}),
        ("Gemm", [4, 2], [7, 2], {"transB": 1}),
        ("MatMul", [4, 2], [2, 7], {}),
        ("MatMul", [3, 4, 2], [3, 2, 7], {}),
    ],
)
def test_the_axes_of_a_weight_are_those_that_shape_inference_uses(op, x, w, attributes):
    node = helper.make_node(op, ["x", "w"], ["y"], name="n", **attributes)
    weights = {"w": np.zeros(w, dtype=np.float32)}
    built = model([node], [info("x", x)], [info("y", None)], weights)
    inferred = onnx.shape_inference.infer_shapes(onnx_ir.to_proto(built))
    sizes = [d.dim_value for d in inferred.graph.output[0].type.tensor_type.shape.dim]
    outputs, inputs = weight_axes(node_of(built, op))
    assert w[outputs] == 7
    assert w[inputs] == 2
    assert 7 in sizes


def test_a_foreign_operator_of_a_layers_name_has_no_weight_axes():
    built = model([quant(op="Conv", domain="mine")])
    assert weight_axes(node_of(built, "Conv")) is None


@pytest.mark.parametrize(
    ("sizes", "count"), [((2, 3), 6), ((), 1), ((2, "batch"), None), ((None,), None)]
)
def test_elements_are_counted_where_every_size_is_a_number(sizes, count):
    assert element_count(sizes) == count


def test_values_may_exchange_their_names():
    built = _relu_and_neg()
    relu, neg = (node_of(built, name).outputs[0] for name in ("Relu", "Neg"))
    rename_values(built, [(relu, "n"), (neg, "r")])
    assert (relu.name, neg.name) == ("n", "r")


def test_a_constant_with_one_reader_is_rearranged_in_place():
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="n")
    weights = {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}
    built = model([node], [info("x", [4, 3])], [info("y", None)], weights)
    matmul = node_of(built, "MatMul")

    def rule(node, rearranger):
        moved = rearranger(node.inputs[1], transposing((1, 0)), "t", node, 2)
        node.replace_input_with(1, moved)

    assert rearrange_at(built.graph, [matmul], rule)
    assert list(built.graph.initializers) == ["w"]
    np.testing.assert_array_equal(
        matmul.inputs[1].const_value.numpy(), [[0, 3], [1, 4], [2, 5]]
    )


def test_a_constant_that_others_read_is_rearranged_in_a_copy():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="n"),
        helper.make_node("Add", ["m", "w"], ["y"], name="a"),
    ]
    weights = {"w": np.arange(9, dtype=np.float32).reshape(3, 3)}
    built = model(nodes, [info("x", [3, 3])], [info("y", None)], weights)
    matmul = node_of(built, "MatMul")
    moved = Rearranger(built.graph)(matmul.inputs[1], transposing((1, 0)), "t", matmul, 2)
    assert moved is not matmul.inputs[1]
    np.testing.assert_array_equal(
        node_of(built, "Add").inputs[1].const_value.numpy(), weights["w"]
    )


def test_names_of_inner_graphs_are_taken():
    taken = value_names(_with_branches().graph)
    assert {"d1", "q", "x", "s"} <= taken
    assert free_name("d1", taken) == "d1_1"
    assert free_name("d1", taken) == "d1_2"


def test_the_kit_imports_nothing_that_is_built_on_it():
    (folder,) = qonnx_hub_ir.graph.__path__
    imported = {
        str(node.module)
        for file in Path(folder).glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom)
    }
    rooms = tuple(f"qonnx_hub_ir.{room}" for room in ("passes", "analysis", "lowering"))
    assert "qonnx_hub_ir.graph.queries" in imported
    assert [name for name in imported if name.startswith(rooms)] == []
