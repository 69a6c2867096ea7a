"""In what two models differ, found without running them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import qonnx_hub as qh
from benchmarks import nets
from qonnx_hub.analysis.diff import Change, Difference
from tests.support import DOMAIN, SHARED, model_of, needs_shared, quant_node

CONSTANTS = {
    "sx": 0.25,
    "z": 0.0,
    "b": 4.0,
    "sw": 0.5,
    "weight": np.array([[1, -2], [0.5, 3]], dtype=np.float32),
}


def net(
    changes: dict[str, Any] | None = None,
    extra: list[Any] | None = None,
    y: str = "y",
    **attributes: Any,
) -> onnx.ModelProto:
    """x -> Quant -> MatMul with a quantized weight -> Relu, with changed constants."""
    nodes = [
        quant_node("x", "qx", scale="sx"),
        quant_node("weight", "qw", scale="sw", **attributes),
        helper.make_node("MatMul", ["qx", "qw"], ["sum"], "layer"),
        *(extra or []),
        helper.make_node("Relu", ["sum2" if extra else "sum"], [y], "last"),
    ]
    return model_of(nodes, {"x": (1, 2)}, [y], {**CONSTANTS, **(changes or {})})


def fields(found: Difference) -> list[tuple[str, str, str, str]]:
    return [(c.kind, c.field, c.before, c.after) for c in found.changes]


def test_a_model_does_not_differ_from_itself():
    found = qh.diff(net(), net())
    assert not found
    assert (found.matched, found.changes, found.weights) == (4, (), ())


@pytest.mark.parametrize(
    ("changes", "attributes", "expected"),
    [
        ({"sx": 0.125}, {}, [("quantizer", "scale", "0.25", "0.125")]),
        ({}, {"narrow": 1}, [("quantizer", "narrow", "no", "yes")]),
        ({}, {"rounding_mode": "FLOOR"}, [("quantizer", "rounding", "ROUND", "FLOOR")]),
    ],
)
def test_a_changed_quantizer_is_told_field_by_field(changes, attributes, expected):
    assert fields(qh.diff(net(), net(changes, **attributes))) == expected


def test_all_changed_fields_are_told():
    found = qh.diff(net(), net({"b": 3.0, "z": 1.0}))
    told = {(c.a, c.field) for c in found.changes}
    assert told == {
        (f"Quant '{name}'", field) for name in ("qx", "qw") for field in ("bits", "zero_point")
    }


def test_a_scale_per_channel_is_told_with_its_first_change():
    first = np.array([[0.5, 0.25]], dtype=np.float32)
    second = np.array([[0.5, 0.125]], dtype=np.float32)
    found = qh.diff(net({"sw": first}), net({"sw": second}))
    assert ("quantizer", "scale", "0.25", "0.125 (and so 1 of 2)") in fields(found)


def test_one_scale_for_all_is_the_same_as_equal_scales_per_channel():
    assert not qh.diff(net(), net({"sw": np.full((1, 2), 0.5, dtype=np.float32)}))


def test_changed_weights_are_counted_in_steps():
    moved = CONSTANTS["weight"] + np.array([[0.5, 0], [0, -1.5]], dtype=np.float32)
    found = qh.diff(net(), net({"weight": moved}))
    (change,) = found.weights
    # One weight by one step of 1/2, another by three.
    assert (change.name, change.elements, change.different) == ("weight", 4, 2)
    assert (change.largest, change.unit) == (3.0, "LSB")
    assert str(change) == "weight: 2 of 4 weights differ, by 3 LSB at most"


def test_other_floats_with_the_same_integers_are_a_note():
    found = qh.diff(net(), net({"weight": CONSTANTS["weight"] + np.float32(0.1)}))
    assert not found
    assert found.notes == ("weight: the stored floats differ, what they quantize to does not",)


def test_float_weights_are_compared_as_values():
    def plain(value: float) -> onnx.ModelProto:
        node = helper.make_node("Mul", ["x", "gain"], ["y"], "mul")
        return model_of([node], {"x": (1, 2)}, ["y"], {"gain": value})

    (change,) = qh.diff(plain(1.5), plain(1.75)).weights
    assert (change.name, change.largest, change.unit) == ("gain", 0.25, "value")


def test_a_missing_node_is_named_and_the_rest_is_matched():
    extra = [helper.make_node("Clip", ["sum"], ["sum2"], "between")]
    found = qh.diff(net(extra=extra), net())
    assert fields(found) == [("missing", "node", "Clip 'between'", "")]
    assert found.matched == 4
    back = qh.diff(net(), net(extra=extra))
    assert fields(back) == [("added", "node", "", "Clip 'between'")]


def test_another_operator_in_the_place_of_a_quantizer_of_the_same_name():
    bipolar = helper.make_node("BipolarQuant", ["x", "sx"], ["qx"], "qx", domain=DOMAIN)
    proto = net()
    proto.graph.node[0].CopyFrom(bipolar)
    assert fields(qh.diff(net(), proto)) == [
        ("quantizer", "operator", "Quant", "BipolarQuant")
    ]


def test_a_changed_attribute_is_told():
    def pool(stride: int) -> onnx.ModelProto:
        node = helper.make_node(
            "MaxPool", ["x"], ["y"], "pool", kernel_shape=[2, 2], strides=[stride, stride]
        )
        return model_of([node], {"x": (1, 1, 4, 4)}, ["y"])

    assert ("attribute", "strides", "1, 1", "2, 2") in fields(qh.diff(pool(1), pool(2)))


def test_changed_wiring_is_told():
    def add(first: str, second: str) -> onnx.ModelProto:
        nodes = [
            helper.make_node("Relu", ["x"], ["r"], "relu"),
            helper.make_node("Abs", ["x"], ["a"], "abs"),
            helper.make_node("Sub", [first, second], ["y"], "sub"),
        ]
        return model_of(nodes, {"x": (1, 2)}, ["y"])

    found = qh.diff(add("r", "a"), add("a", "r"))
    assert ("wiring", "input 0", "Relu 'relu'", "Abs 'abs'") in fields(found)


def test_other_inputs_and_outputs_are_told():
    other = net(y="z2")
    del other.graph.input[0].type.tensor_type.shape.dim[:]
    found = qh.diff(net(), net(y="z2"))
    assert [c.kind for c in found.changes] == ["output"]
    assert found.changes[0].before.startswith("y float")


def test_renamed_nodes_are_matched_by_their_place():
    proto = nets.tfc()
    names: dict[str, str] = {}
    outputs = {value.name for value in proto.graph.output}
    for node in proto.graph.node:
        for k, name in enumerate(node.output):
            if name not in outputs:
                names[name] = f"{len(names)}"
                node.output[k] = names[name]
        for k, name in enumerate(node.input):
            node.input[k] = names.get(name, name)
        node.name = f"n{len(names)}"
    for k, tensor in enumerate(proto.graph.initializer):
        for node in proto.graph.node:
            node.input[:] = [f"{900 + k}" if n == tensor.name else n for n in node.input]
        tensor.name = f"{900 + k}"
    found = qh.diff(nets.tfc(), proto)
    assert not found
    assert found.matched == len(proto.graph.node)
    # The output keeps its name.
    assert found.by_position == found.matched - 1


def test_a_number_as_a_name_tells_between_versions_of_one_export():
    def chain(count: int, left_out: int = -1) -> onnx.ModelProto:
        nodes, last = [], "x"
        for k in range(count):
            if k != left_out:
                nodes.append(helper.make_node("Relu", [last], [f"{k}"], f"relu{k}"))
                last = f"{k}"
        return model_of(nodes, {"x": (1, 2)}, [last])

    # All alike: only the numbers say which of them is gone.
    found = qh.diff(chain(20), chain(20, left_out=7))
    assert fields(found) == [("missing", "node", "Relu 'relu7'", "")]


def test_a_model_does_not_differ_from_its_conversion_to_qcdq(tmp_path):
    target = tmp_path / "qcdq.onnx"
    qh.convert(nets.tfc(), target, to="qcdq", check=False)
    assert not qh.diff(nets.tfc(), target)


@needs_shared
def test_two_public_models_of_one_family_differ_in_quantizers_and_weights():
    folder = SHARED / "models" / "zoo"
    found = qh.diff(folder / "TFC_1W1A.onnx", folder / "TFC_2W2A.onnx")
    # Four weights and four activations, bipolar in one and two bits in the other.
    changed = [c for c in found.changes if c.kind == "quantizer"]
    assert len(changed) == 8
    assert {(c.field, c.before, c.after) for c in changed} == {
        ("operator", "BipolarQuant", "Quant")
    }
    assert {c.kind for c in found.changes} == {"quantizer", "output"}
    weight = {w.name for w in found.weights}
    assert {f"features.{k}.weight" for k in (3, 7, 11, 15)} <= weight


def test_the_report_is_plain_data():
    proto = net({"weight": np.ones((2, 2, 1), dtype=np.float32)[:, :, 0]})
    data = qh.diff(net(), proto).to_dict()
    assert data["different"] is True
    assert data["weights"][0]["unit"] == "LSB"


def test_a_change_reads_as_one_line():
    change = Change("Quant 'a'", "Quant 'b'", "quantizer", "scale", "1", "2")
    assert str(change) == "Quant 'a' (there Quant 'b'): scale: 1 -> 2"


def test_initializers_of_another_shape_are_told():
    def plain(shape: tuple[int, ...]) -> onnx.ModelProto:
        node = helper.make_node("Mul", ["x", "gain"], ["y"], "mul")
        tensor = numpy_helper.to_array(numpy_helper.from_array(np.ones(shape, np.float32)))
        return model_of([node], {"x": (1, 2)}, ["y"], {"gain": tensor})

    (change,) = qh.diff(plain((1,)), plain((1, 2))).weights
    assert "another shape" in change.name


def test_an_axis_counted_from_the_end_is_the_same_axis():
    def net(axis, rank=2):
        node = helper.make_node("Softmax", ["x"], ["y"], "shares", axis=axis)
        return model_of([node], {"x": (2,) * rank}, ["y"], {})

    assert not qh.diff(net(-1), net(1))
    assert qh.diff(net(-1), net(0))
    assert qh.diff(net(-1, 3), net(1, 3))
