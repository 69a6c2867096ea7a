"""The table of operators against ONNX's schemas."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import defs

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.operators import Batch, Buffer
from tests.ir.operator_cases import (
    OPSET,
    make_node,
    name_of,
    schemas,
)


def test_every_operator_of_onnx_has_a_row():
    rows = {(row.domain, row.name) for row in operators.OPERATORS}
    assert {(schema.domain, schema.name) for schema in schemas()} <= rows


def test_no_row_of_a_domain_of_onnx_names_an_operator_that_onnx_does_not_know():
    known = {(schema.domain, schema.name) for schema in schemas()}
    domains = {domain for domain, _ in known}
    rows = {(row.domain, row.name) for row in operators.OPERATORS if row.domain in domains}
    assert rows <= known


@pytest.mark.parametrize("row", operators.where(), ids=name_of)
def test_a_row_has_as_many_inputs_as_the_schema(row):
    schema = defs.get_schema(row.name, OPSET, "")
    variadic = any(
        one.option == defs.OpSchema.FormalParameterOption.Variadic for one in schema.inputs
    )
    assert row.inputs.is_variadic == variadic
    assert len(row.inputs.roles) == len(schema.inputs)


@pytest.mark.parametrize("row", operators.where(lambda row: bool(row.axis)), ids=name_of)
def test_the_default_axis_is_that_of_every_schema(row):
    for version in range(1, OPSET + 1):
        try:
            schema = defs.get_schema(row.name, version, "")
        except defs.SchemaError:
            continue
        known = schema.attributes.get("axis")
        if schema.deprecated or known is None or not known.default_value.type:
            continue
        node = make_node(row.name, [np.zeros(3, np.float32)], version=version)
        assert operators.default_axis(node) == known.default_value.i, version


@pytest.mark.parametrize(
    "row", operators.where(lambda row: row.axes_input is not None), ids=name_of
)
def test_axes_are_an_input_from_the_opset_on_that_the_schemas_say(row):
    for version in range(1, OPSET + 1):
        try:
            schema = defs.get_schema(row.name, version, "")
        except defs.SchemaError:
            continue
        place = [i for i, one in enumerate(schema.inputs) if one.name == "axes"]
        node = make_node(row.name, [], version=version)
        assert operators.axes_input(node) == (place[0] if place else None), version


@pytest.mark.parametrize("row", operators.where(lambda row: row.subgraphs), ids=name_of)
def test_control_flow_has_attributes_of_graphs(row):
    schema = defs.get_schema(row.name, OPSET, "")
    kinds = {one.type for one in schema.attributes.values()}
    assert defs.OpSchema.AttrType.GRAPH in kinds


def test_nothing_but_control_flow_has_attributes_of_graphs():
    for schema in schemas():
        kinds = {one.type for one in schema.attributes.values()}
        has_graphs = bool(
            kinds & {defs.OpSchema.AttrType.GRAPH, defs.OpSchema.AttrType.GRAPHS}
        )
        assert operators.find(schema.domain, schema.name).subgraphs == has_graphs, schema.name


def test_operators_without_tensors_are_those_with_sequences_or_optionals_in_their_schema():
    found = {
        schema.name
        for schema in schemas()
        if schema.domain == ""
        and any(
            text.startswith(("seq(", "optional("))
            for one in schema.type_constraints
            for text in one.allowed_type_strs
        )
        and not any(
            text.startswith("tensor(float")
            for one in (*schema.outputs,)
            for text in one.types
            if all(t.startswith("tensor") for t in one.types)
        )
    }
    marked = operators.names(no_tensors=True)
    assert marked - {"SequenceLength", "OptionalHasElement"} <= found | marked
    assert {"SequenceConstruct", "SplitToSequence", "Optional"} <= marked


def test_a_foreign_operator_of_a_known_name_is_not_known():
    x = np.ones((1, 1, 3, 3), np.float32)
    ours = make_node("Conv", [x, x], fed=[0])
    foreign = make_node("Conv", [x, x], fed=[0], domain="some.where")
    aliased = make_node("Conv", [x, x], fed=[0], domain="ai.onnx")
    assert operators.is_product(ours)
    assert operators.is_product(aliased)
    assert not operators.is_product(foreign)
    assert operators.is_random(foreign)
    assert operators.tells_zeros_apart(foreign)
    assert operators.changed_since(foreign, 1)
    assert operators.buffer_of(foreign) is Buffer.UNKNOWN
    assert operators.batch_rule(foreign) is Batch.UNKNOWN
    assert operators.moves(foreign) is None


def test_a_convolution_on_channels_last_data_is_a_product_where_any_layout_is_asked_for():
    x = np.ones((1, 1, 3, 3), np.float32)
    node = make_node("Conv", [x, x], fed=[0], domain=dialect.CHANNELS_LAST_DOMAIN)
    assert not operators.is_product(node)
    assert operators.is_product(node, any_layout=True)
    assert operators.channel_axis(node) == -1
    assert operators.bias_input(node) == 2


@pytest.mark.parametrize(
    ("op_type", "weight", "bias"),
    [
        *(("Conv", "W", "B"), ("ConvTranspose", "W", "B"), ("Gemm", "B", "C")),
        *(("MatMul", "B", None), ("QLinearConv", "w", "B"), ("QLinearMatMul", "b", None)),
        *(("ConvInteger", "w", None), ("MatMulInteger", "B", None)),
    ],
)
def test_weight_and_bias_of_a_product_lie_where_its_schema_has_them(op_type, weight, bias):
    names = [one.name for one in defs.get_schema(op_type, OPSET, "").inputs]
    node = make_node(op_type, [])
    product = operators.of(node).product
    assert product is not None
    assert product.weight == names.index(weight)
    assert operators.bias_input(node) == (None if bias is None else names.index(bias))


@pytest.mark.parametrize(
    "op_type", ["QLinearConv", "QLinearMatMul", "MatMulInteger", "ConvInteger"]
)
def test_scales_and_zero_points_of_integer_products_lie_where_their_schema_has_them(op_type):
    names = [one.name for one in defs.get_schema(op_type, OPSET, "").inputs]
    product = operators.find("", op_type).product
    assert product is not None
    assert all(names[i].endswith("_scale") for i in product.scales)
    assert all(names[i].endswith("_zero_point") for i in product.zero_points)
    found = sum(name.endswith(("_scale", "_zero_point")) for name in names)
    assert found == len(product.scales) + len(product.zero_points)


def test_random_operators_are_those_whose_schema_has_a_seed():
    seeded = {
        schema.name
        for schema in schemas()
        if not schema.domain and "seed" in schema.attributes
    }
    assert seeded == operators.names(lambda row: row.random is not False)


def test_two_rows_of_one_operator_are_an_error():
    from qonnx_hub_ir.operators import table

    row = operators.find("", "Conv")
    with pytest.raises(ValueError, match="two rows"):
        table._by_key([row, row])


@pytest.mark.parametrize(
    ("op_type", "given", "attributes", "expected"),
    [
        ("Pad", [np.ones(2, np.float32), np.array([1, 1])], {}, 0.0),
        ("Pad", [np.ones(2, np.float32), np.array([1, 1]), np.float32(3)], {}, 3.0),
        (
            "Resize",
            [np.ones(2, np.float32)],
            {
                "coordinate_transformation_mode": "tf_crop_and_resize",
                "extrapolation_value": 2.5,
            },
            2.5,
        ),
        ("Trilu", [np.ones((2, 2), np.float32)], {}, 0.0),
    ],
)
def test_what_a_node_inserts_is_known(op_type, given, attributes, expected):
    node = make_node(op_type, given, fed=(0,), **attributes)
    assert float(operators.inserted_constant(node)) == expected


def test_a_constant_that_is_computed_is_not_known():
    given = [np.ones(2, np.float32), np.array([1, 1]), np.float32(3)]
    assert operators.inserted_constant(make_node("Pad", given, fed=(0, 2))) is None


def test_questions_about_pools_know_the_layout():
    x = np.ones((1, 2, 2, 1), np.float32)
    first = make_node("MaxPool", [x], fed=[0], kernel_shape=[1, 1])
    last = make_node(
        "MaxPool", [x], fed=[0], domain=dialect.CHANNELS_LAST_DOMAIN, kernel_shape=[1, 1]
    )
    norm = make_node("GlobalLpPool", [x], fed=[0])
    assert operators.is_max_pool(first)
    assert not operators.is_max_pool(last)
    assert operators.is_max_pool(last, any_layout=True)
    assert not operators.is_global_pool(norm)
    assert operators.is_global_pool(make_node("GlobalMaxPool", [x], fed=[0]))
    assert operators.has_channels_last_form(first)
    assert not operators.has_channels_last_form(last)
    assert not operators.has_channels_last_form(norm)


def test_a_max_pool_with_indices_does_not_keep_samples_apart():
    x = np.ones((2, 1, 2, 2), np.float32)
    node = make_node("MaxPool", [x], fed=[0], kernel_shape=[1, 1])
    assert operators.batch_rule(node) is Batch.FIRST_INPUT
    node.resize_outputs(2)
    assert operators.batch_rule(node) is Batch.UNKNOWN
    assert list(operators.value_outputs(node)) == [node.outputs[0]]


def test_inputs_are_data_parameters_or_settings():
    x = np.ones((1, 2, 2), np.float32)
    where = make_node("Where", [x > 0, x, x], fed=[0, 1, 2])
    concat = make_node("Concat", [x, x, x], fed=[0, 1, 2], axis=0)
    gather = make_node("Gather", [x, np.array([0])], fed=[0])
    assert operators.data_inputs(where) == (1, 2)
    assert operators.setting_inputs(where) == (0,)
    assert operators.data_inputs(concat) == (0, 1, 2)
    assert operators.input_role(concat, 2) == "data"
    assert operators.setting_inputs(gather) == (1,)
    assert operators.input_role(gather, 1) == "indices"
    assert operators.moves_first(gather)
    assert not operators.moves_first(where)
    assert not operators.moves_first(concat)


def test_roundings_extremes_and_grids():
    x = np.ones(3, np.float32)

    def holding(question):
        names = sorted(
            operators.names(lambda row: row.elementwise is True and row.name != "Cast")
        )
        return {name for name in names if question(make_node(name, [x, x, x], fed=[0, 1, 2]))}

    assert holding(operators.rounds) == {"Round", "Floor", "Ceil"}
    assert holding(operators.clamps) == {"Relu", "Clip", "Max", "Min"}
    assert holding(operators.keeps_grid) == {"Identity", "Relu", "Max", "Min", "Where"}
    assert holding(operators.keeps_step) == {
        *("Identity", "Relu", "Max", "Min", "Where", "Abs", "Neg")
    }
    assert holding(operators.is_affine) == {"Add", "Sub", "Mul", "Div"}
    assert holding(lambda node: operators.of(node).idempotent) == {
        *("Abs", "Ceil", "Floor", "Relu", "Round", "Sign")
    }


def test_quantizers_of_equal_steps_are_told_from_the_others():
    x = np.ones(3, np.float32)

    def uniform(name, domain=dialect.DOMAIN):
        return operators.is_uniform_quantizer(make_node(name, [x], fed=[0], domain=domain))

    assert uniform("Quant")
    assert uniform("BipolarQuant")
    assert not uniform("FloatQuant")
    assert not uniform("Trunc")
    assert not uniform("QuantizeLinear", "")
    assert not uniform("Quant", "")
