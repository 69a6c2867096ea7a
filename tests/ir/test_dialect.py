"""Nodes and dataclasses say the same thing."""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest

from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import SourceError
from qonnx_hub_ir.quantizers import BipolarQuant, FloatQuant, IntQuant, Rounding, Trunc
from tests.ir.graphs import BARE, DOMAIN, attributes, f32, i64, info, model, quant

INT = IntQuant(f32(0.5), f32(1), f32(4), signed=False, narrow=True, rounding=Rounding.CEIL)
BIPOLAR = BipolarQuant(f32([0.5]))
FLOAT = FloatQuant(
    *(f32(v) for v in (1, 4, 3, 7, 448)),
    has_inf=True,
    has_nan=True,
    has_subnormal=True,
    saturation=False,
    rounding=Rounding.FLOOR,
)
TRUNC_1 = Trunc(f32(0.5), f32(0), f32(8), None, f32(4), rounding=Rounding.ROUND, version=1)
TRUNC_2 = Trunc(f32(0.5), f32(0), f32(8), f32(2), f32(6), False, True, Rounding.HALF_UP)
ALL = [INT, BIPOLAR, FLOAT, TRUNC_1, TRUNC_2]


def graph_and_input() -> tuple[onnx_ir.Graph, onnx_ir.Value]:
    graph = model([], weights={}, outputs=[info("x", [2, 3])]).graph
    return graph, graph.inputs[0]


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        *[(mode.value, mode) for mode in Rounding],
        *[(mode.value.lower(), mode) for mode in Rounding],
        ("Half_Up", Rounding.HALF_UP),
        ("HALF_EVEN", Rounding.ROUND),
        ("half_even", Rounding.ROUND),
        ("ROUND_TO_ZERO", Rounding.DOWN),
        ("round_to_zero", Rounding.DOWN),
    ],
)
def test_a_rounding_mode_is_read_in_any_spelling(text, mode):
    assert dialect.parse_rounding(text, "q") is mode


@pytest.mark.parametrize("text", ["", "NEAREST", "ROUND "])
def test_an_unknown_rounding_mode_names_the_node_and_what_is_known(text):
    with pytest.raises(SourceError, match=f"node 'q7': .*'{text}'.*HALF_EVEN"):
        dialect.parse_rounding(text, "q7")


def test_only_dpu_has_no_qonnx_name():
    unknown = [mode for mode in Rounding if not dialect.is_known_to_qonnx(mode)]
    assert unknown == [Rounding.DPU]


@pytest.mark.parametrize("said", ALL)
def test_a_written_quantizer_is_read_back_bit_for_bit(said):
    graph, x = graph_and_input()
    node = dialect.quantizer_node(x, said, "q", graph)
    assert dialect.is_quantizer(node)
    assert dialect.read_quantizer(node) == said


@pytest.mark.parametrize(
    ("said", "op_type", "given"),
    [
        (INT, "Quant", {"signed": 0, "narrow": 1, "rounding_mode": "CEIL"}),
        (BIPOLAR, "BipolarQuant", {}),
        (
            FLOAT,
            "FloatQuant",
            {
                "has_inf": 1,
                "has_nan": 1,
                "has_subnormal": 1,
                "saturation": 0,
                "rounding_mode": "FLOOR",
            },
        ),
        (TRUNC_1, "Trunc", {"rounding_mode": "ROUND"}),
        (TRUNC_2, "Trunc", {"signed": 0, "narrow": 1, "rounding_mode": "HALF_UP"}),
    ],
)
def test_every_attribute_is_written_out(said, op_type, given):
    graph, x = graph_and_input()
    node = dialect.quantizer_node(x, said, "q", graph)
    assert (node.domain, node.op_type) == (DOMAIN, op_type)
    assert attributes(node) == given


def test_a_written_quantizer_is_named_typed_and_shaped():
    graph, x = graph_and_input()
    node = dialect.quantizer_node(x, INT, "q", graph)
    out = node.outputs[0]
    assert (node.name, out.name, out.dtype) == ("q", "q_out0", onnx_ir.DataType.FLOAT)
    assert list(out.shape) == [2, 3]
    assert [value.name for value in node.inputs] == [
        "x",
        "q_scale",
        "q_zero_point",
        "q_bit_width",
    ]


def test_a_dynamic_parameter_stays_a_value_of_the_graph():
    graph, x = graph_and_input()
    scale = onnx_ir.Value(name="computed")
    said = IntQuant(None, f32(0), f32(4))
    node = dialect.quantizer_node(x, said, "q", graph, {1: scale})
    assert node.inputs[1] is scale
    assert dialect.read_quantizer(node) == said


@pytest.mark.parametrize(
    ("said", "label"),
    [
        (IntQuant(f32(1), f32(0), None), "bit width of 'q'"),
        (Trunc(f32(1), f32(0), f32(8), None, None, version=1), "output bit width of 'q'"),
        (Trunc(f32(1), f32(0), f32(8), None, f32(4)), "output scale of 'q'"),
    ],
)
def test_a_parameter_that_nobody_knows_cannot_be_written(said, label):
    graph, x = graph_and_input()
    with pytest.raises(ValueError, match=label):
        dialect.quantizer_node(x, said, "q", graph)


def test_two_quantizers_of_one_name_have_parameters_of_their_own():
    graph, x = graph_and_input()
    dialect.quantizer_node(x, BIPOLAR, "q", graph)
    second = dialect.quantizer_node(x, BipolarQuant(f32(7)), "q", graph)
    assert second.inputs[1].name == "q_scale_1"
    assert dialect.read_quantizer(second) == BipolarQuant(f32(7))


@pytest.mark.parametrize("array", [f32(1.5), f32([[1, 2]]).T, np.zeros((2, 0), np.float32)])
def test_an_initializer_keeps_its_values_and_shape(array):
    graph, _ = graph_and_input()
    value = dialect.add_initializer(graph, "w", array)
    assert value.const_value.numpy().tobytes() == np.ascontiguousarray(array).tobytes()
    assert tuple(value.shape) == value.const_value.numpy().shape == array.shape
    assert value.is_initializer()


def test_parameters_come_in_the_order_of_the_inputs():
    for said in ALL:
        names = dialect.parameter_fields(said)
        assert [getattr(said, name) for name in names] == dialect.parameters(said)
        doubled = dialect.with_parameters(said, [2 * v for v in dialect.parameters(said)])
        assert dialect.attributes_of(doubled) == dialect.attributes_of(said)
        assert [float(a.sum()) for a in dialect.parameters(doubled)] == [
            2 * float(a.sum()) for a in dialect.parameters(said)
        ]


def test_too_few_parameters_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        dialect.with_parameters(INT, [f32(1)])


def test_a_parameter_that_is_a_graph_input_is_dynamic():
    found = model([quant()], inputs=[info("x", [2, 3]), info("s", [])])
    said = dialect.read_quantizer(found.graph[0])
    assert said == IntQuant(None, f32(0), f32(4))


def test_a_parameter_keeps_its_own_type():
    weights = {"s": f32(1), "z": i64(0), "b": i64(4)}
    said = dialect.read_quantizer(model([quant()], weights=weights).graph[0])
    assert said == IntQuant(f32(1), i64(0), i64(4))


def test_missing_attributes_have_their_documented_defaults():
    bare = quant(**BARE)
    assert dialect.read_quantizer(model([bare]).graph[0]) == IntQuant(f32(0.5), f32(0), f32(4))
    names = ("s", "s", "s", "s", "s")
    node = quant(op="FloatQuant", inputs=names, **BARE)
    said = dialect.read_quantizer(model([node]).graph[0])
    assert said == FloatQuant(*[f32(0.5)] * 5, saturation=True, rounding=Rounding.ROUND)
    node = quant(op="Trunc", inputs=names, **BARE)
    said = dialect.read_quantizer(model([node]).graph[0])
    assert said == Trunc(*[f32(0.5)] * 5, signed=True, narrow=False, rounding=Rounding.FLOOR)


@pytest.mark.parametrize("domain", ["", "onnx.brevitas", "qonnx.custom_op.channels_last"])
def test_only_the_canonical_domain_holds_quantizers(domain):
    node = onnx_ir.Node(domain, "Quant", [])
    assert not dialect.is_quantizer(node)
    with pytest.raises(ValueError, match="Quant is not a quantizer"):
        dialect.read_quantizer(node)


def test_the_version_of_a_trunc_follows_from_its_inputs():
    old = model([quant(op="Trunc", inputs=("s", "z", "b", "b"), signed=None, narrow=None)])
    new = model([quant(op="Trunc", inputs=("s", "z", "b", "s", "b"))])
    assert dialect.read_quantizer(old.graph[0]).version == 1
    assert dialect.read_quantizer(new.graph[0]).version == 2
    assert dialect.input_names(old.graph[0])[-2:] == ("input bit width", "output bit width")
    assert dialect.input_names(new.graph[0])[-2:] == ("output scale", "output bit width")
