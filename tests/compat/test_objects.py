"""Wrappers in and out, execute_onnx, datatypes: as code for the qonnx package uses them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import qonnx_hub as qh
from qonnx_hub import compat
from qonnx_hub.compat.data_types import NamedDatatype
from qonnx_hub.compat.graph_methods import GraphMethods
from qonnx_hub_ir.datatypes import parse_datatype
from qonnx_hub_ir.errors import SourceError, UsageError
from tests.compat.models import annotated, constant, info, model

X = np.random.default_rng(1).integers(-8, 8, size=(1, 3, 8, 8)).astype(np.float32)


class Holder:
    """An object as other packages wrap models: with `model` and `graph`."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.graph = model.graph


def test_every_verb_takes_an_object_around_a_model():
    held = Holder(annotated(13))
    names = ["Quant", "Conv", "Relu", "Quant"]
    assert [node.op_type for node in qh.load(held).graph] == names
    assert qh.run(held, {"x": X})["y"].shape == (1, 6, 8, 8)
    assert qh.convert(held, check=False).model is not None
    assert qh.cost(held).macs == 6 * 27 * 64
    assert qh.inspect(held).to_dict()
    assert qh.lint(held, "finn").target == "finn"
    assert qh.check(held, annotated(13), samples=2)


def test_reading_a_wrapper_leaves_it_as_it_is():
    held = Holder(annotated(11))
    before = held.model.SerializeToString()
    model = qh.load(held)
    held.model.graph.initializer[0].raw_data = b"\0\0\0\0"
    assert model.graph.initializers["s"].const_value.numpy() == 1
    held.model.ParseFromString(before)
    assert held.model.SerializeToString() == before


def test_bytes_are_a_model_and_other_bytes_are_refused():
    assert len(list(qh.load(annotated(13).SerializeToString()).graph)) == 4
    with pytest.raises(SourceError, match="no ONNX model"):
        qh.load(b"no model at all")


@pytest.mark.parametrize("form", ["path", "bytes", "message", "wrapper", "ir"])
def test_a_wrapper_is_made_of_a_model_in_any_form(tmp_path, form):
    proto = annotated(19)
    onnx.save(proto, tmp_path / "m.onnx")
    source = {
        "path": str(tmp_path / "m.onnx"),
        "bytes": proto.SerializeToString(),
        "message": proto,
        "wrapper": Holder(proto),
        "ir": qh.load(proto),
    }[form]
    wrapper = compat.ModelWrapper(source)
    assert isinstance(wrapper.graph, onnx.GraphProto)
    assert wrapper.get_tensor_shape("c") == [1, 6, 8, 8]
    assert wrapper.get_tensor_datatype("W").name == "INT4"


def test_a_wrapper_holds_a_message_and_changes_it_in_place():
    proto = annotated(13)
    wrapper = compat.ModelWrapper(proto)
    wrapper.graph.node.remove(wrapper.get_nodes_by_op_type("Relu")[0])
    assert len(proto.graph.node) == 3


def test_a_wrapper_takes_a_pass_by_name():
    wrapper = compat.ModelWrapper(annotated(13))
    done = wrapper.transform("give_names")
    assert isinstance(done, compat.ModelWrapper)
    assert done.graph.node[0].name == "Quant_0"
    assert wrapper.graph.node[0].name == "Quant_xq"


def test_a_wrapper_takes_what_others_wrote_as_a_transformation():
    class DropRelu:
        def apply(self, model):
            for node in model.graph.node:
                if node.op_type == "Relu":
                    model.find_consumer(node.output[0]).input[0] = node.input[0]
                    model.graph.node.remove(node)
                    return model, True
            return model, False

    done = compat.ModelWrapper(annotated(13)).transform(DropRelu(), cleanup=False)
    assert [node.op_type for node in done.graph.node] == ["Quant", "Conv", "Quant"]


def test_a_transformation_that_makes_a_wrapper_of_its_own_leaves_ours():
    class Remake:
        def apply(self, model):
            return GraphMethods(model.model), False

    done = compat.ModelWrapper(annotated(13)).transform(Remake())
    assert isinstance(done, compat.ModelWrapper)
    assert len(done.transform("cleanup").graph.node) == 4


def test_execute_onnx_answers_as_the_executor():
    wrapper = compat.ModelWrapper(annotated(11))
    want = qh.run(annotated(11), {"x": X})["y"]
    assert np.array_equal(compat.execute_onnx(wrapper, {"x": X})["y"], want)


def test_the_full_context_holds_inputs_constants_and_inner_values():
    found = compat.execute_onnx(annotated(11), {"x": X}, return_full_exec_context=True)
    assert {"x", "s", "W", "xq", "c", "r", "y"} <= set(found)


def test_a_part_runs_from_a_node_to_a_node():
    proto = annotated(19)
    full = compat.execute_onnx(proto, {"x": X}, True)
    nodes = proto.graph.node
    part = compat.execute_onnx(proto, {"xq": full["xq"]}, False, nodes[1], nodes[2])
    assert np.array_equal(part["r"], full["r"])


def test_an_input_that_is_not_given_is_zero():
    zeros = np.zeros_like(X)
    want = compat.execute_onnx(annotated(11), {"x": zeros})["y"]
    assert np.array_equal(compat.execute_onnx(annotated(11), {})["y"], want)


def test_nodes_in_the_wrong_order_are_refused():
    proto = annotated(19)
    with pytest.raises(UsageError, match="stands before"):
        compat.execute_onnx(proto, {"x": X}, False, proto.graph.node[2], proto.graph.node[0])


# Bits, lowest, highest, by the definitions of the types.
ENDS = {
    "INT4": (4, -8, 7),
    "UINT8": (8, 0, 255),
    "BINARY": (1, 0, 1),
    "UINT1": (1, 0, 1),
    "BIPOLAR": (1, -1, 1),
    "TERNARY": (2, -1, 1),
    "FIXED<8,4>": (8, -8, 7.9375),
    "FLOAT<4,3>": (8, -480, 480),
    "FLOAT<3,2,1>": (6, -112, 112),
}


@pytest.mark.parametrize("name", list(ENDS))
def test_a_datatype_knows_its_bits_and_ends(name):
    found = NamedDatatype(parse_datatype(name, "here"))
    assert (found.bitwidth(), found.min(), found.max()) == ENDS[name]


def test_a_name_is_canonical_in_upper_case():
    assert parse_datatype("scaledint< 4 >", "here").name == "SCALEDINT<4>"
    assert parse_datatype("float<4,3>", "here").name == "FLOAT<4,3,7>"


@pytest.mark.parametrize("name", ["INT", "FIXED<4>", "FIXED<4,4>", "WORD", "INT0", "FLOAT<4>"])
def test_what_is_no_datatype_is_refused(name):
    with pytest.raises(UsageError):
        parse_datatype(name, "here")


def test_a_bipolar_value_is_never_zero():
    found = NamedDatatype(parse_datatype("BIPOLAR", "here"))
    assert found.allowed(np.array([-1, 0, 1, 2])).tolist() == [True, False, True, False]
    assert found.get_num_possible_values() == 2


def test_own_datatypes_answer_as_those_of_the_qonnx_package():
    real = pytest.importorskip("qonnx.core.datatype").DataType
    values = np.array([-9, -8, -1, -0.5, 0, 0.0625, 0.1, 1, 7, 8, 255, 256, 480, 512.0])
    questions = ("bitwidth", "signed", "is_integer", "is_fixed_point", "to_numpy_dt")
    for name in (*ENDS, "INT32", "FLOAT32", "FLOAT16", "SCALEDINT<8>"):
        own, other = NamedDatatype(parse_datatype(name, "here")), real[name]
        assert own == other.name
        for question in questions:
            assert getattr(own, question)() == getattr(other, question)(), (name, question)
        if name.startswith("SCALEDINT"):
            continue
        assert (own.min(), own.max()) == (other.min(), other.max()), name
        narrow = values.astype(np.float32)
        assert own.allowed(narrow).tolist() == np.asarray(other.allowed(narrow)).tolist(), name


def test_own_questions_answer_as_those_of_the_qonnx_package():
    real = pytest.importorskip("qonnx.core.modelwrapper").ModelWrapper
    a, b = real(annotated(13)), GraphMethods(annotated(13))
    for name in ("x", "xq", "c", "W", "y", "nothing"):
        assert a.get_tensor_shape(name) == b.get_tensor_shape(name)
        assert a.get_tensor_layout(name) == b.get_tensor_layout(name)
        assert a.get_tensor_sparsity(name) == b.get_tensor_sparsity(name)
        assert a.get_tensor_fanout(name) == b.get_tensor_fanout(name)
        assert a.find_producer(name) == b.find_producer(name)
        assert a.find_consumers(name) == b.find_consumers(name)
    for one, other in zip(a.graph.node, b.graph.node, strict=True):
        assert a.is_fork_node(one) == b.is_fork_node(other)
        assert a.is_join_node(one) == b.is_join_node(other)
        assert a.find_direct_successors(one) == b.find_direct_successors(other)
        assert a.find_direct_predecessors(one) == b.find_direct_predecessors(other)
        assert a.get_node_index(one) == b.get_node_index(other)
    for wrapper in (a, b):
        wrapper.set_initializer("W", np.zeros((6, 3, 1, 1), dtype=np.float32))
        wrapper.rename_tensor("c", "conv")
        wrapper.set_metadata_prop("key", "value")
        wrapper.set_tensor_datatype("W", None)
        wrapper.set_tensor_shape("xq", [1, 3, 9, 9])
    assert a.get_metadata_prop("key") == b.get_metadata_prop("key") == "value"
    assert a.get_tensor_shape("W") == b.get_tensor_shape("W") == [6, 3, 1, 1]
    assert a.get_tensor_shape("xq") == b.get_tensor_shape("xq")
    assert [n.output for n in a.graph.node] == [n.output for n in b.graph.node]
    assert a.get_tensor_datatype("W").name == b.get_tensor_datatype("W").name == "FLOAT32"


def test_a_type_of_the_input_bounds_its_range():
    found = qh.inspect(annotated(13), ranges=True, inputs={"x": "FIXED<4,2>"}).ranges
    held = {one.name: (one.low, one.high) for one in found}
    assert held["x"] == (-2.0, 1.75)


class ReluToNeg:
    """A Transformation as users of the qonnx package write them."""

    def apply(self, wrapper):
        for node in wrapper.graph.node:
            if node.op_type == "Relu":
                node.op_type = "Neg"
        return wrapper, False


def branching():
    def body(op: str):
        nodes = [
            helper.make_node("Mul", ["k", "k"], ["m"]),
            helper.make_node(op, ["m"], ["o"], name=op),
        ]
        return helper.make_graph(nodes, op, [], [info("o", [2])], [constant("k", [1, -2])])

    nodes = [
        helper.make_node(
            "If", ["c"], ["i"], name="I", then_branch=body("Relu"), else_branch=body("Abs")
        ),
        helper.make_node("Relu", ["i"], ["y"], name="R"),
    ]
    return model(nodes, [info("c", [], TensorProto.BOOL)], [info("y", [2])], [])


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("kind", ["own", "theirs"])
def test_bodies_are_transformed_where_that_is_asked_for(kind, inside, first):
    if kind == "theirs":
        pytest.importorskip("qonnx")
    made = (GraphMethods if kind == "own" else compat.ModelWrapper)(branching())
    done = made.transform(
        ReluToNeg(), cleanup=False, apply_to_subgraphs=inside, use_preorder_traversal=first
    )
    branches = {a.name: [n.op_type for n in a.g.node] for a in done.graph.node[0].attribute}
    assert branches["then_branch"] == ["Mul", "Neg" if inside else "Relu"]
    assert branches["else_branch"] == ["Mul", "Abs"]
    assert done.graph.node[1].op_type == "Neg"
    assert made.graph.node[1].op_type == "Relu"
