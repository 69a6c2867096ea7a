"""Graphs at an older opset; onnxruntime runs both spellings, on ONNX's own node tests."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from qonnx_hub_ir.errors import NotExactError, UsageError
from qonnx_hub_ir.passes import LowerOpset
from tests.ir.graphs import attributes, f32, i64, info, node_of, operators, proto
from tests.node_suite import node_cases

NEWEST = 24
"""What the oldest onnxruntime that the tests run with knows."""

# onnxruntime has another kernel below opset 19: the last bits differ, 3e-7 at values below 2.
LAST_BIT = ("AveragePool",)


def on_onnxruntime(found: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    ort = pytest.importorskip("onnxruntime")
    ort.set_default_logger_severity(4)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        found.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)


def at(found: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The model at another opset."""
    lowered = onnx_ir.from_proto(found)
    LowerOpset(opset)(lowered)
    return onnx_ir.to_proto(lowered)


def node_suite():
    """Node tests that onnxruntime runs, with all inputs but the first one constant."""
    for case in node_cases():
        imports = {one.domain: one.version for one in case.model.opset_import}
        if set(imports) != {""} or not case.inputs:
            continue
        found = onnx.ModelProto()
        found.CopyFrom(case.model)
        found.opset_import[0].version = min(imports[""], NEWEST)
        found.ir_version = min(found.ir_version, 10)
        if len(found.graph.input) != len(case.inputs):
            continue
        for formal, value in list(zip(found.graph.input, case.inputs, strict=True))[1:]:
            found.graph.initializer.append(numpy_helper.from_array(value, formal.name))
            found.graph.input.remove(formal)
        feeds = {found.graph.input[0].name: case.inputs[0]}
        try:
            answer = on_onnxruntime(found, feeds)
        except Exception:  # onnxruntime has no kernel for it: nothing can be compared
            continue
        yield case.name, found, feeds, answer


def test_every_operator_that_is_lowered_gives_onnxruntimes_answer():
    pytest.importorskip("onnxruntime")
    compared = refused = 0
    for name, found, feeds, wanted in node_suite():
        own = found.opset_import[0].version
        for opset in (10, 11, 13, 15, 17, 18, 21):
            if opset >= own:
                continue
            try:
                lowered = at(found, opset)
            except NotExactError:
                refused += 1
                continue
            onnx.checker.check_model(lowered)
            answer = on_onnxruntime(lowered, feeds)
            exact = found.graph.node[-1].op_type not in LAST_BIT
            for ours, theirs in zip(answer, wanted, strict=True):
                message = f"{name} at opset {opset}"
                if exact or theirs.dtype != np.float32:
                    np.testing.assert_array_equal(ours, theirs, message)
                else:
                    np.testing.assert_allclose(ours, theirs, 0, 3e-7, err_msg=message)
            compared += 1
    assert compared > 2000
    assert refused > 500


def lowered(found: onnx.ModelProto, opset: int = 13) -> onnx_ir.Model:
    model = onnx_ir.from_proto(found)
    assert LowerOpset(opset)(model).modified
    assert model.opset_imports[""] == opset
    return model


def one(op_type: str, inputs, weights, version: int = 21, **given) -> onnx.ModelProto:
    node = helper.make_node(op_type, inputs, ["y"], name="node", **given)
    shape = [2, 4, 6, 6]
    return proto([node], [info("x", shape)], [info("y", None)], weights, {"": version})


def test_axes_become_an_attribute_again():
    found = lowered(one("ReduceMean", ["x", "a"], {"a": i64([1, 2])}, keepdims=0))
    assert attributes(node_of(found, "ReduceMean")) == {"keepdims": 0, "axes": (1, 2)}
    assert len(node_of(found, "ReduceMean").inputs) == 1


def test_pads_of_some_axes_are_spread_over_all():
    weights = {"p": i64([1, 2, 3, 4]), "v": f32(0), "a": i64([2, -1])}
    found = lowered(one("Pad", ["x", "p", "v", "a"], weights))
    pads = node_of(found, "Pad").inputs[1].const_value.numpy()
    assert pads.tolist() == [0, 0, 1, 2, 0, 0, 3, 4]


def test_unequal_parts_get_sizes_and_below_opset_13_as_an_attribute():
    node = helper.make_node("Split", ["x"], ["y", "z"], name="node", axis=1, num_outputs=2)
    outputs = [info("y", None), info("z", None)]
    found = proto([node], [info("x", [2, 5])], outputs, {}, {"": 18})
    sizes = node_of(lowered(found), "Split").inputs[1].const_value.numpy()
    assert sizes.tolist() == [3, 2]
    assert attributes(node_of(lowered(found, 11), "Split")) == {"axis": 1, "split": (3, 2)}


def test_a_hard_swish_becomes_two_operators():
    found = lowered(one("HardSwish", ["x"], {}))
    assert operators(found) == ["HardSigmoid", "Mul"]


def test_an_output_type_becomes_a_zero_point_of_that_type():
    given = one("QuantizeLinear", ["x", "s"], {"s": f32(0.5)}, output_dtype=TensorProto.INT8)
    given.graph.output[0].type.tensor_type.elem_type = TensorProto.INT8
    found = lowered(given)
    node = node_of(found, "QuantizeLinear")
    assert node.inputs[2].dtype == onnx_ir.DataType.INT8
    assert "output_dtype" not in node.attributes


@pytest.mark.parametrize(
    ("op_type", "inputs", "weights", "given", "words"),
    [
        ("Gelu", ["x"], {}, {}, "does not exist there"),
        ("Pad", ["x", "p"], {"p": i64([0] * 8)}, {"mode": "wrap"}, "mode 'wrap'"),
        ("AveragePool", ["x"], {}, {"kernel_shape": [2, 2], "dilations": [2, 2]}, "dilated"),
        ("Reshape", ["x", "h"], {"h": i64([0, 9])}, {"allowzero": 1}, "allowzero"),
        ("Cast", ["x"], {}, {"to": TensorProto.INT4}, "INT4"),
    ],
)
def test_what_an_opset_cannot_say_is_refused_by_node_and_reason(
    op_type, inputs, weights, given, words
):
    model = onnx_ir.from_proto(one(op_type, inputs, weights, **given))
    model.graph.outputs[0].type = onnx_ir.TensorType(
        onnx_ir.DataType.INT4 if "to" in given else onnx_ir.DataType.FLOAT
    )
    before = onnx_ir.to_proto(model).SerializeToString(deterministic=True)
    with pytest.raises(NotExactError, match=words) as caught:
        LowerOpset(13)(model)
    assert "node" in str(caught.value)
    assert onnx_ir.to_proto(model).SerializeToString(deterministic=True) == before


def test_axes_that_are_computed_cannot_be_an_attribute():
    nodes = [
        helper.make_node("Cast", ["n"], ["axes"], to=TensorProto.INT64),
        helper.make_node("ReduceMax", ["x", "axes"], ["y"], name="node"),
    ]
    inputs = [info("x", [2, 3]), info("n", [1], TensorProto.INT32)]
    found = onnx_ir.from_proto(proto(nodes, inputs, [info("y", None)], {}, {"": 18}))
    with pytest.raises(NotExactError, match="axes are computed at run time"):
        LowerOpset(13)(found)


def test_a_model_at_the_opset_is_left_alone():
    found = onnx_ir.from_proto(one("Relu", ["x"], {}, version=13))
    assert not LowerOpset(13)(found).modified


def test_opsets_that_no_reader_needs_are_not_written():
    found = onnx_ir.from_proto(one("Relu", ["x"], {}))
    with pytest.raises(UsageError, match="lowest that can be written is 9"):
        LowerOpset(8)(found)


@pytest.mark.parametrize(
    ("op_type", "axis", "wanted"),
    [("Unsqueeze", -1, 2), ("Squeeze", -1, 1), ("ReduceSum", -2, 0)],
)
def test_negative_axes_are_counted_from_the_front(op_type, axis, wanted):
    # Of a value of two axes; opset 10 knows no negative ones.
    found = proto(
        [helper.make_node(op_type, ["x", "a"], ["y"], name="node")],
        [info("x", [3, 1])],
        [info("y", None)],
        {"a": i64([axis])},
        {"": 18},
    )
    assert attributes(node_of(lowered(found, 10), op_type))["axes"] == (wanted,)


def test_bodies_are_lowered_as_well():
    branch = helper.make_graph(
        [helper.make_node("ReduceMean", ["x", "a"], ["r"], name="inner")],
        "body",
        [],
        [info("r", None)],
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    inputs = [info("x", [2, 3]), info("c", [], TensorProto.BOOL)]
    found = proto([node], inputs, [info("y", None)], {"a": i64([1])}, {"": 18})
    inner = [n for n in lowered(found).graph.all_nodes() if n.op_type == "ReduceMean"]
    assert [n.attributes["axes"].value for n in inner] == [(1,), (1,)]


def sized(op_type, x, weights, output, version, domain="", **given):
    """Return a node that reads ``x`` of a type and constants, and makes another type."""
    node = helper.make_node(
        op_type, ["x", *weights], ["y"], name="node", domain=domain, **given
    )
    graph = helper.make_graph(
        [node],
        "graph",
        [info("x", [2, 4, 6, 6], x)],
        [info("y", None, output)],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in weights.items()],
    )
    imports = {"": version, domain: version}
    opsets = [helper.make_opsetid(*one) for one in imports.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


HALF, SINGLE, DOUBLE = TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE
ONES = np.ones(4, dtype=np.float32)
STATISTICS = {"s": ONES, "b": ONES, "m": ONES, "v": ONES}
POOL = {"kernel_shape": [2, 2], "dilations": [2, 2]}


@pytest.mark.parametrize(
    ("found", "opset", "words"),
    [
        # Attributes are float32, and 0.1 is not.
        (sized("Clip", DOUBLE, {"low": 0.1}, DOUBLE, 13), 10, "no float32 numbers"),
        (sized("Pad", DOUBLE, {"p": [1] * 8, "v": 0.1}, DOUBLE, 13), 10, "no float32 number"),
        # One type for all, where there are two today.
        (sized("Pow", SINGLE, {"e": 2.0}, SINGLE, 13), 11, "no DOUBLE beside FLOAT"),
        (
            sized("BatchNormalization", HALF, STATISTICS, HALF, 15),
            13,
            "no FLOAT beside FLOAT16",
        ),
        # Divided in float16 without the attribute.
        (
            sized("QuantizeLinear", HALF, {"s": np.float16(1)}, 2, 23, precision=SINGLE),
            21,
            "its precision is another type",
        ),
        (
            sized(
                "DequantizeLinear", 2, {"s": np.float16(1)}, SINGLE, 23, output_dtype=SINGLE
            ),
            21,
            "its output_dtype is another type",
        ),
        (
            sized(
                "AveragePool", SINGLE, {}, SINGLE, 19, "qonnx.custom_op.channels_last", **POOL
            ),
            13,
            "dilated",
        ),
    ],
    ids=lambda given: given if isinstance(given, str) else None,
)
def test_what_would_mean_another_thing_is_refused(found, opset, words):
    with pytest.raises(NotExactError, match=words):
        LowerOpset(opset)(onnx_ir.from_proto(found))


def test_a_precision_that_is_the_scales_is_dropped():
    scale = {"s": np.float32(0.5)}
    found = lowered(sized("QuantizeLinear", SINGLE, scale, 2, 23, precision=SINGLE), 21)
    assert attributes(node_of(found, "QuantizeLinear")) == {}


def test_pads_are_an_attribute_of_opset_10():
    found = lowered(one("Pad", ["x", "p", "v"], {"p": i64([1] * 8), "v": f32(2)}), 10)
    assert attributes(node_of(found, "Pad")) == {"pads": (1,) * 8, "value": 2.0}


def test_a_constant_that_a_body_still_reads_is_kept():
    body = helper.make_graph(
        [helper.make_node("Reshape", ["x", "a"], ["r"], name="inner")],
        "body",
        [],
        [info("r", None)],
    )
    nodes = [
        helper.make_node("ReduceMean", ["x", "a"], ["mean"], name="outer"),
        helper.make_node("If", ["c"], ["z"], then_branch=body, else_branch=body),
    ]
    inputs = [info("x", [1, 1]), info("c", [], TensorProto.BOOL)]
    outputs = [info("mean", [1, 1]), info("z", [1])]
    found = lowered(proto(nodes, inputs, outputs, {"a": i64([1])}, {"": 18}))
    assert list(found.graph.initializers) == ["a"]
    onnx.checker.check_model(onnx_ir.to_proto(found))
