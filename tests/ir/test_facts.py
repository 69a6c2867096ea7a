"""Facts of a model are computed once per version, and never outlive a change of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir
import pytest
from onnx import TensorProto, helper
from onnx_ir import Attr, AttributeType, Model, Node, Value

from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_ir import dialect
from qonnx_hub_ir.facts import facts_of, fixed_batch, unchanged
from qonnx_hub_ir.passes import DropUnused, RenameTensors
from tests.ir.graphs import f32, info, parameters, proto, quant


def _model() -> Model:
    """``Quant`` then ``Relu``, and a weight that no input reaches."""
    nodes = [
        quant("x", "q", "quantize"),
        helper.make_node("Relu", ["q"], ["r"], name="relu"),
        quant("w", "wq", "weight"),
        helper.make_node("Add", ["r", "wq"], ["y"], name="add"),
    ]
    return read_model(proto(nodes, weights={**parameters(), "w": f32([1.0, 2.0, 3.0])}))


def _node(model: Model, name: str) -> Node:
    return next(node for node in model.graph.all_nodes() if node.name == name)


def _value(model: Model, name: str) -> Value:
    return facts_of(model).values[name]


def test_facts_of_an_unchanged_model_are_computed_once() -> None:
    model = _model()
    facts = facts_of(model)
    assert facts_of(model) is facts
    assert facts.values is facts_of(model).values


def test_values_come_in_the_order_of_the_nodes() -> None:
    assert list(facts_of(_model()).values) == ["q", "r", "wq", "y"]


def test_dynamic_is_what_an_input_reaches() -> None:
    assert facts_of(_model()).dynamic == {"x", "q", "r", "y"}


def test_steps_follow_a_quantizer_through_what_keeps_its_grid() -> None:
    steps = facts_of(_model()).steps
    assert set(steps) == {"q", "r", "wq"}
    assert float(steps["r"]) == 0.5


def test_layers_are_named_by_their_source() -> None:
    model = _model()
    _value(model, "r").metadata_props[dialect.PROVENANCE] = "block"
    _value(model, "y").metadata_props[dialect.PROVENANCE] = "block"
    assert facts_of(model).layers["block"] == ("r", "y")


def test_a_copy_has_facts_of_its_own() -> None:
    model = _model()
    facts, copy = facts_of(model), model.clone()
    assert facts_of(copy) is not facts
    assert facts_of(copy).values["q"] is not facts.values["q"]


def _rewire(model: Model) -> None:
    _node(model, "add").replace_input_with(0, _value(model, "q"))


def _swap(model: Model) -> None:
    add = _node(model, "add")
    add.replace_input_with(0, _value(model, "wq"))
    add.replace_input_with(1, _value(model, "r"))


def _remove(model: Model) -> None:
    relu = _node(model, "relu")
    relu.outputs[0].replace_all_uses_with(relu.inputs[0])
    model.graph.remove(relu, safe=True)


def _append(model: Model) -> None:
    node = onnx_ir.node("Neg", [_value(model, "q")], name="neg")
    node.outputs[0].name = "n"
    model.graph.append(node)


def _new_scale(model: Model) -> None:
    scale = _node(model, "quantize").inputs[1]
    assert scale is not None
    scale.const_value = onnx_ir.tensor(f32(0.25))


def _new_operator(model: Model) -> None:
    _node(model, "relu").op_type = "Sigmoid"


def _new_attribute(model: Model) -> None:
    attribute = Attr("narrow", AttributeType.INT, 1)
    _node(model, "quantize").attributes["narrow"] = attribute


def _new_name(model: Model) -> None:
    _value(model, "r").name = "renamed"


def _new_shape(model: Model) -> None:
    model.graph.inputs[0].shape = onnx_ir.Shape([5, 3])


def _new_type(model: Model) -> None:
    _value(model, "r").type = onnx_ir.TensorType(onnx_ir.DataType.DOUBLE)


def _new_source(model: Model) -> None:
    _value(model, "r").metadata_props[dialect.PROVENANCE] = "elsewhere"


def _new_output(model: Model) -> None:
    model.graph.outputs.append(_value(model, "r"))


def _weight_becomes_input(model: Model) -> None:
    model.graph.inputs.append(model.graph.initializers.pop("w"))


def _new_opset(model: Model) -> None:
    model.opset_imports[""] = 21


@pytest.mark.parametrize(
    "change",
    [
        _rewire,
        _swap,
        _remove,
        _append,
        _new_scale,
        _new_operator,
        _new_attribute,
        _new_name,
        _new_shape,
        _new_type,
        _new_source,
        _new_output,
        _weight_becomes_input,
        _new_opset,
    ],
)
def test_a_change_by_hand_gives_new_facts(change: Callable[[Model], None]) -> None:
    model = _model()
    before = facts_of(model)
    before.has_inferred_shapes = True
    change(model)
    after = facts_of(model)
    assert after is not before
    assert not after.has_inferred_shapes


def test_a_size_changed_in_place_gives_new_facts() -> None:
    model = _model()
    shape = onnx_ir.Shape([2, 3])
    _value(model, "r").shape = shape
    before = facts_of(model)
    shape[0] = 7
    assert facts_of(model) is not before


def test_a_change_inside_a_body_gives_new_facts() -> None:
    body = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["b"], name="inside")],
        "body",
        [],
        [info("b", [2, 3])],
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)
    condition = info("c", [], TensorProto.BOOL)
    model = onnx_ir.from_proto(proto([node], [condition, info("x", [2, 3])], weights={}))
    before = facts_of(model)
    _node(model, "inside").op_type = "Abs"
    assert facts_of(model) is not before


def test_passes_that_change_a_model_give_new_facts() -> None:
    model = _model()
    before = facts_of(model)
    assert not DropUnused()(model).modified
    assert facts_of(model) is before
    assert RenameTensors({"r": "other"})(model).modified
    assert "other" in facts_of(model).values


def test_the_step_after_a_new_scale_is_the_new_one() -> None:
    model = _model()
    assert float(facts_of(model).steps["q"]) == 0.5
    _new_scale(model)
    assert float(facts_of(model).steps["q"]) == 0.25


def test_what_other_rooms_remember_goes_with_the_version() -> None:
    model, calls = _model(), []

    def count() -> int:
        calls.append(len(model.graph))
        return len(model.graph)

    for _ in range(2):
        assert facts_of(model).remember("size", count) == 4
    _append(model)
    assert facts_of(model).remember("size", count) == 5
    assert calls == [4, 5]


def test_a_model_as_read_has_the_shapes_of_inference() -> None:
    assert facts_of(_model()).has_inferred_shapes


def test_an_open_batch_is_none() -> None:
    relu = helper.make_node("Relu", ["x"], ["y"])
    open_ends = [info("x", ["N", 3])], [info("y", ["N", 3])]
    assert fixed_batch(read_model(proto([relu], *open_ends, weights={}))) is None
    assert fixed_batch(read_model(proto([relu], weights={}))) == 2


def test_vector_steps_are_lost_where_channels_move() -> None:
    scale = np.array([[0.5, 0.25, 1.0]], dtype=np.float32)
    nodes = [
        quant("x", "q"),
        helper.make_node("Relu", ["q"], ["r"]),
        helper.make_node("Transpose", ["r"], ["y"], perm=[1, 0]),
    ]
    model = read_model(
        proto(nodes, [info("x", [2, 3])], [info("y", [3, 2])], parameters(scale))
    )
    steps = facts_of(model).steps
    np.testing.assert_array_equal(steps["r"], scale)
    assert "y" not in steps


def test_facts_are_not_asked_anew_of_a_model_that_stays_as_it_is() -> None:
    model = _model()
    with unchanged(model, None):
        held = facts_of(model)
        _node(model, "relu").name = "renamed meanwhile"
        assert facts_of(model) is held
    assert facts_of(model) is not held


def test_a_copy_of_a_model_that_stays_has_facts_of_its_own() -> None:
    model = _model()
    with unchanged(model):
        copy = model.clone()
        assert facts_of(copy).model is copy
