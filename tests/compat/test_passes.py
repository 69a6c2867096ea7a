"""Passes that the qonnx package has: what they make, and that it computes the same."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner

import qonnx_hub as qh
from qonnx_hub_ir.errors import PassError
from tests.compat.models import DOMAIN, constant, info, model, note, notes, quant

RNG = np.random.default_rng(0)


def done(proto, step: str):
    return qh.transform(proto, [step], check=False).model


def operators(found) -> list[str]:
    return [node.op_type for node in found.graph]


def first(found, x):
    name = found.graph.inputs[0].name
    return next(iter(qh.run(found, {name: x}).values()))


def same(proto, step: str, x, *, exact: bool = True, left: str | None = None):
    """Assert that a pass keeps values, and that there is nothing to do afterwards."""
    before, after = qh.load(proto), done(proto, step)
    a, b = first(before, x), first(after, x.reshape(list(after.graph.inputs[0].shape)))
    if exact:
        assert np.array_equal(a.reshape(-1), b.reshape(-1))
    else:
        np.testing.assert_allclose(a.reshape(-1), b.reshape(-1), rtol=1e-5, atol=1e-5)
    again = qh.transform(after, [left or step], check=False)
    assert not again.modified
    return after


def one(op: str, other, *, first_input: bool = True, shape=(2, 3)):
    inputs = ["x", "c"] if first_input else ["c", "x"]
    nodes = [helper.make_node(op, inputs, ["y"], name="n")]
    return model(nodes, [info("x", list(shape))], [info("y", None)], [constant("c", other)])


X = RNG.normal(size=(2, 3)).astype(np.float32)


def test_a_constant_is_added_instead_of_subtracted():
    after = same(one("Sub", [0.1, -2, 3]), "sub_to_add", X)
    assert operators(after) == ["Add"]


def test_what_is_subtracted_from_a_constant_stays():
    assert operators(done(one("Sub", [1, 2, 3], first_input=False), "sub_to_add")) == ["Sub"]


def test_a_division_becomes_a_product():
    after = same(one("Div", [2, 3, 0.7]), "div_to_mul", X, exact=False)
    assert operators(after) == ["Mul"]


def test_a_division_by_a_power_of_two_becomes_an_exact_product():
    after = same(one("Div", [2, -0.25, 1024]), "div_to_mul:exact=true", X)
    assert operators(after) == ["Mul"]


@pytest.mark.parametrize("divisor", [[2, 3, 4], [0, 1, 1], [1e-45, 1, 1]])
def test_a_division_that_would_round_or_overflow_stays(divisor):
    assert operators(done(one("Div", divisor), "div_to_mul:exact=true")) == ["Div"]


def test_a_division_by_zero_is_never_a_product():
    assert operators(done(one("Div", [0, 1, 1]), "div_to_mul")) == ["Div"]


@pytest.mark.parametrize("op", ["Add", "Mul"])
def test_constants_go_last(op):
    after = same(one(op, [1, 2, 3], first_input=False), "sort_commutative", X)
    assert next(iter(after.graph)).inputs[0].name == "x"


def test_constants_of_a_difference_stay_where_they_are():
    after = done(one("Sub", [1, 2, 3], first_input=False), "sort_commutative")
    assert next(iter(after.graph)).inputs[1].name == "x"


def shared_scale():
    nodes = [quant("x", "a"), helper.make_node("Mul", ["a", "s"], ["y"], name="m")]
    held = [constant("s", 0.5), constant("z", 0), constant("b", 3)]
    return model(nodes, [info("x", [2, 3])], [info("y", None)], held)


def test_each_reader_gets_constants_of_its_own():
    after = same(shared_scale(), "unique_parameters", X)
    quantizer, product = after.graph
    assert quantizer.inputs[1] is not product.inputs[1]


WEIGHT = RNG.normal(size=(3, 2))


def doubles(weight=WEIGHT):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="m")]
    ends = [info("x", [2, 3], TensorProto.DOUBLE)], [info("y", [2, 2], TensorProto.DOUBLE)]
    return model(nodes, *ends, [constant("w", weight, np.float64)])


def test_doubles_become_singles():
    after = done(doubles(), "double_to_single:signature=true")
    assert {v.dtype for node in after.graph for v in (*node.inputs, *node.outputs)} == {
        onnx_ir.DataType.FLOAT
    }
    np.testing.assert_allclose(first(after, X), X @ WEIGHT.astype(np.float32), rtol=1e-6)


def test_inputs_and_outputs_stay_doubles_where_nobody_asks():
    after = done(doubles(), "double_to_single")
    assert operators(after) == ["Cast", "MatMul", "Cast"]
    ends = (*after.graph.inputs, *after.graph.outputs)
    assert [(v.name, v.dtype) for v in ends] == [
        ("x", onnx_ir.DataType.DOUBLE),
        ("y", onnx_ir.DataType.DOUBLE),
    ]
    found = first(after, X.astype(np.float64))
    assert np.array_equal(found, (X @ WEIGHT.astype(np.float32)).astype(np.float64))
    assert not qh.transform(after, ["double_to_single"], check=False).modified


def test_a_double_that_no_single_holds_is_refused_or_clipped():
    huge = WEIGHT.copy()
    huge[0, 0] = -1e200
    with pytest.raises(PassError, match=r"'w' holds -1e\+200"):
        done(doubles(huge), "double_to_single")
    after = done(doubles(huge), "double_to_single:clip=true")
    held = after.graph.initializers["w"].const_value.numpy()
    assert held[0, 0] == np.finfo(np.float32).min
    assert np.array_equal(held[1:], WEIGHT[1:].astype(np.float32))


def test_what_rounding_doubles_promises_is_what_was_asked_for():
    effects = [
        qh.passes.make(step).effect.value
        for step in ("double_to_single", "double_to_single:signature=true")
    ]
    assert effects == ["rounding", "values"]


def test_inner_values_become_outputs():
    after = done(shared_scale(), "expose:patterns=[a]")
    assert [value.name for value in after.graph.outputs] == ["y", "a"]
    with pytest.raises(PassError, match="nobody"):
        done(shared_scale(), "expose:names=nobody")


def test_the_places_of_the_largest_outputs_are_returned():
    after = done(shared_scale(), "insert_topk:k=2")
    assert not qh.transform(after, ["insert_topk:k=2"], check=False).modified
    y = first(qh.load(shared_scale()), X)
    found = first(after, X)
    assert found.dtype == np.int64
    assert np.array_equal(np.take_along_axis(y, found, 1), -np.sort(-y, axis=1)[:, :2])


def test_more_places_than_there_are_are_refused():
    with pytest.raises(PassError, match="3 places, not 5"):
        done(shared_scale(), "insert_topk:k=5")


@pytest.mark.parametrize("where", ["producer", "consumer"])
def test_an_identity_stands_at_a_tensor(where):
    after = done(shared_scale(), f"insert_identity:tensor=a,where={where}")
    assert operators(after) == ["Quant", "Identity", "Mul"]
    assert np.array_equal(first(after, X), first(qh.load(shared_scale()), X))
    made = list(after.graph)[1].outputs[0].name if where == "producer" else "a"
    assert made == "a"


def test_an_identity_at_an_output_leaves_its_name():
    after = done(shared_scale(), "insert_identity:tensor=y,where=producer")
    assert after.graph.outputs[0].name == "y"


def conv(width: int = 1):
    k = [3] * width
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="Conv_0", kernel_shape=k),
        helper.make_node("Relu", ["c"], ["y"], name="Relu_0"),
        helper.make_node("Neg", ["c"], ["n"], name="Neg_0"),
    ]
    held = [constant("w", RNG.integers(-3, 4, size=(2, 3, *k)))]
    ends = [info("y", None), info("n", None)]
    return model(nodes, [info("x", [1, 3, *[8] * width])], ends, held)


def test_chosen_inputs_are_quantized():
    step = "{'op_type': {'Conv': [(('input', 0), (0.25, 0, 4, 0, 1, 'ROUND'))]}}"
    after = done(conv(), f'quantize_graph:map="{step}"')
    assert operators(after) == ["Quant", "Conv", "Relu", "Neg"]
    x = RNG.normal(size=(1, 3, 8)).astype(np.float32)
    rounded = np.clip(np.rint(x / 0.25), -8, 7) * np.float32(0.25)
    want = first(qh.load(conv_like(after)), rounded.astype(np.float32))
    assert np.array_equal(first(after, x), want)


def conv_like(after):
    proto = conv()
    weight = after.graph.initializers["w"].const_value.numpy()
    proto.graph.initializer[0].CopyFrom(constant("w", weight))
    return proto


def test_a_quantizer_behind_an_output_serves_all_readers():
    step = "{'name': {'Conv_0': [(('output', 0), (0.5, 0, 4, 0, 1, 'ROUND'))]}}"
    after = done(conv(), f'quantize_graph:map="{step}"')
    quantizer = next(node for node in after.graph if node.op_type == "Quant")
    assert {use.node.op_type for use in quantizer.outputs[0].uses()} == {"Relu", "Neg"}


def test_a_map_that_names_nothing_is_refused():
    with pytest.raises(PassError, match="no node is or is called Nobody"):
        done(conv(), "quantize_graph:map=\"{'name': {'Nobody': []}}\"")


def bipolar(*, forks: bool = False):
    attributes = {"out_dtype": "BIPOLAR", "out_scale": 2.0, "out_bias": -1.0}
    nodes = [
        helper.make_node(
            "MultiThreshold", ["x", "t"], ["p"], name="T", domain=DOMAIN, **attributes
        ),
        helper.make_node("MatMul", ["p", "w"], ["y"], name="M"),
    ]
    ends = [info("y", None)]
    if forks:
        nodes.append(helper.make_node("Relu", ["p"], ["r"], name="R"))
        ends.append(info("r", None))
    w = np.where(RNG.normal(size=(8, 3)) >= 0, 1, -1)
    held = [constant("t", [[0.0]]), constant("w", w)]
    proto = model(nodes, [info("x", [2, 8])], ends, held)
    note(proto, "p", finn_datatype="BIPOLAR")
    note(proto, "w", finn_datatype="BIPOLAR")
    return proto


def test_bipolar_products_become_counts():
    x = RNG.normal(size=(2, 8)).astype(np.float32)
    after = same(bipolar(), "bipolar_to_xnor", x)
    assert operators(after) == ["MultiThreshold", "XnorPopcountMatMul", "Mul", "Add"]
    held = notes(onnx_ir.to_proto(after))
    assert held["p"]["finn_datatype"] == "BINARY"


def test_thresholds_with_another_reader_stay():
    assert "MatMul" in operators(done(bipolar(forks=True), "bipolar_to_xnor"))


def subpixel(mode: str, k: int, b: int, pads, scale):
    attributes = {"kernel_shape": [k, k], "pads": pads, "strides": [1, 1]}
    nodes = [
        quant("w", "wq"),
        helper.make_node("Conv", ["x", "wq"], ["c"], name="C", **attributes),
        helper.make_node("DepthToSpace", ["c"], ["y"], name="D", blocksize=b, mode=mode),
    ]
    w = RNG.normal(size=(2 * b * b, 3, k, k))
    held = [constant("w", w), constant("s", scale), constant("z", 0), constant("b", 4)]
    return model(nodes, [info("x", [1, 3, 5, 6])], [info("y", None)], held)


CASES = list(itertools.product(("DCR", "CRD"), (1, 3), (2, 3), ((0, 0, 0, 0), (1, 0, 0, 1))))


@pytest.mark.parametrize(("mode", "k", "b", "pads"), [c for c in CASES if max(c[3]) < c[1]])
def test_channels_that_become_pixels_are_a_transposed_convolution(mode, k, b, pads):
    x = RNG.normal(size=(1, 3, 5, 6)).astype(np.float32)
    per_channel = (RNG.integers(1, 9, size=(2 * b * b, 1, 1, 1)) / 8).astype(np.float32)
    for scale in (0.25, per_channel):
        proto = subpixel(mode, k, b, list(pads), scale)
        after = same(proto, "subpixel_to_deconv", x, exact=False)
        assert operators(after) == ["Quant", "ConvTranspose"]


def resized(k: int, b: int, pads, scale, nearest):
    window = {"kernel_shape": [k, k], "pads": pads, "strides": [1, 1]}
    nodes = [
        helper.make_node(
            "Resize", ["x", "", "sc"], ["u"], name="R", mode="nearest", **nearest
        ),
        quant("w", "wq"),
        helper.make_node("Conv", ["u", "wq"], ["y"], name="C", **window),
    ]
    held = [
        *(constant("w", RNG.normal(size=(4, 2, k, k))), constant("s", scale)),
        *(constant("z", 0), constant("b", 4), constant("sc", [1, 1, b, b])),
    ]
    return model(nodes, [info("x", [1, 2, 4, 5])], [info("y", None)], held)


NEAREST = (
    {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    {"coordinate_transformation_mode": "half_pixel", "nearest_mode": "round_prefer_floor"},
    {"coordinate_transformation_mode": "half_pixel", "nearest_mode": "round_prefer_ceil"},
)


@pytest.mark.parametrize("nearest", NEAREST)
@pytest.mark.parametrize(
    ("k", "b", "pads"), [(3, 2, [1] * 4), (3, 3, [0, 1, 2, 0]), (1, 2, [0] * 4)]
)
def test_a_repeated_image_convolved_is_a_transposed_convolution(k, b, pads, nearest):
    x = RNG.normal(size=(1, 2, 4, 5)).astype(np.float32)
    per_channel = np.array([0.25, 0.5, 0.125, 1], dtype=np.float32).reshape(4, 1, 1, 1)
    for scale in (0.25, per_channel):
        proto = resized(k, b, pads, scale, nearest)
        after = same(proto, "resize_conv_to_deconv", x, exact=False)
        assert operators(after) == ["Quant", "ConvTranspose"]


@pytest.mark.parametrize("mode", ["align_corners", "asymmetric"])
def test_a_resize_that_takes_other_pixels_stays(mode):
    nearest = {"coordinate_transformation_mode": mode, "nearest_mode": "ceil"}
    proto = resized(3, 2, [1] * 4, 0.25, nearest)
    assert "Resize" in operators(done(proto, "resize_conv_to_deconv"))


@pytest.mark.parametrize("scale", [2.3, 2.5, 1.5, 0.5])
def test_an_image_that_is_resized_by_a_fraction_stays(scale):
    proto = resized(3, 1, [1] * 4, 0.25, NEAREST[0])
    held = next(one for one in proto.graph.initializer if one.name == "sc")
    held.CopyFrom(constant("sc", [1, 1, scale, scale]))
    x = RNG.normal(size=(1, 2, 4, 5)).astype(np.float32)
    after = same(proto, "resize_conv_to_deconv", x)
    assert operators(after) == ["Resize", "Quant", "Conv"]


@pytest.mark.parametrize("sizes", [[9, 11], [8, 15], [4, 10]])
def test_an_image_that_is_resized_to_other_sizes_stays(sizes):
    proto = resized(3, 1, [1] * 4, 0.25, NEAREST[0])
    del proto.graph.node[0].input[2:]
    proto.graph.node[0].input.extend(["", "to"])
    proto.graph.initializer.append(constant("to", [1, 2, *sizes], np.int64))
    x = RNG.normal(size=(1, 2, 4, 5)).astype(np.float32)
    after = same(proto, "resize_conv_to_deconv", x)
    assert operators(after) == ["Resize", "Quant", "Conv"]


def test_pools_of_integers_turn_channels_last():
    attributes = {"stride": 2, "kernel": 2, "ibits": 4, "obits": 4, "signed": 0}
    node = helper.make_node(
        "QuantAvgPool2d", ["x"], ["y"], name="P", domain=DOMAIN, **attributes
    )
    proto = model([node], [info("x", [1, 3, 4, 4])], [info("y", None)], [])
    x = RNG.integers(0, 16, size=(1, 3, 4, 4)).astype(np.float32)
    after = same(proto, "quant_avgpool_nhwc", x)
    assert operators(after) == ["Transpose", "QuantAvgPool2d", "Transpose"]


def signal():
    nodes = [
        quant("x", "q"),
        helper.make_node(
            "Conv", ["q", "k"], ["c"], name="C", kernel_shape=[3], pads=[1, 0], strides=[2]
        ),
        helper.make_node("Add", ["c", "t"], ["a"], name="A"),
        helper.make_node("Mul", ["a", "row"], ["m"], name="B"),
        helper.make_node("Concat", ["m", "a"], ["d"], name="D", axis=-2),
        helper.make_node("Transpose", ["d"], ["e"], name="E", perm=[0, 2, 1]),
        helper.make_node("MaxPool", ["e"], ["y"], name="P", kernel_shape=[2], strides=[2]),
    ]
    held = [
        *(constant("k", RNG.integers(-3, 4, size=(4, 3, 3))), constant("s", 0.25)),
        *(constant("t", RNG.integers(-3, 4, size=(1, 4, 1))), constant("z", 0)),
        *(constant("row", [1, 2, 3, 4]), constant("b", 4)),
    ]
    return model(nodes, [info("x", [1, 3, 8])], [info("y", None)], held)


def test_a_signal_becomes_an_image_of_one_column():
    x = RNG.normal(size=(1, 3, 8)).astype(np.float32)
    after = same(signal(), "change_3d_to_4d", x)
    assert list(after.graph.inputs[0].shape) == [1, 3, 8, 1]
    assert len(after.graph.outputs[0].shape) == 4


def test_what_a_fourth_axis_means_to_an_operator_must_be_known():
    nodes = [helper.make_node("Softmax", ["x"], ["y"], name="S")]
    proto = model(nodes, [info("x", [1, 3, 8])], [info("y", None)], [])
    with pytest.raises(PassError, match="Softmax 'S'"):
        done(proto, "change_3d_to_4d")


def fed(found, feeds):
    return next(iter(qh.run(found, feeds).values()))


@pytest.mark.parametrize("shape", [[3, 8], [8], [1, 3, 1], [], [3, 1]])
def test_an_input_of_fewer_axes_stays_aligned(shape):
    nodes = [helper.make_node("Add", ["x", "b"], ["y"], name="A")]
    proto = model(nodes, [info("x", [1, 3, 8]), info("b", shape)], [info("y", None)], [])
    after = done(proto, "change_3d_to_4d")
    x = RNG.normal(size=(1, 3, 8)).astype(np.float32)
    b = RNG.normal(size=shape).astype(np.float32)
    wide = {value.name: list(value.shape) for value in after.graph.inputs}
    got = fed(after, {"x": x.reshape(wide["x"]), "b": b.reshape(wide["b"])})
    assert np.array_equal(got, (x + b)[..., np.newaxis])


def test_a_transpose_that_names_no_order_turns_the_old_axes():
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="R"),
        helper.make_node("Transpose", ["r"], ["y"], name="T"),
    ]
    proto = model(nodes, [info("x", [1, 3, 8])], [info("y", None)], [])
    same(proto, "change_3d_to_4d", RNG.normal(size=(1, 3, 8)).astype(np.float32))


def test_codes_keep_the_axis_of_their_scales():
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="Q", axis=-2),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], name="D", axis=-2),
    ]
    held = [constant("s", [0.5, 0.25, 1]), constant("z", [0, 1, 2], np.int8)]
    proto = model(nodes, [info("x", [1, 3, 8])], [info("y", None)], held)
    same(proto, "change_3d_to_4d", RNG.normal(size=(1, 3, 8)).astype(np.float32))


def test_signals_without_written_shapes_become_images():
    bare = qh.load(signal())
    for node in bare.graph:
        for value in node.outputs:
            value.shape = None
    x = RNG.normal(size=(1, 3, 8)).astype(np.float32)
    want = first(qh.load(signal()), x)
    qh.passes.run(bare, ["change_3d_to_4d"])
    assert first(bare, x[..., np.newaxis]).shape == (*want.shape, 1)


@pytest.mark.parametrize(("before", "after"), [("NCW", "NCHW"), ("NWC", None)])
def test_a_layout_grows_where_the_new_one_has_a_name(before, after):
    proto = signal()
    note(proto, "c", finn_datatype="INT9", tensor_layout=str(list(before)))
    held = notes(onnx_ir.to_proto(done(proto, "change_3d_to_4d")))["c"]
    assert held.pop("finn_datatype") == "INT9"
    assert held == ({} if after is None else {"tensor_layout": str(list(after))})


def test_a_branch_that_reads_a_signal_is_refused():
    body = helper.make_graph(
        [helper.make_node("Add", ["x", "c"], ["a"], name="A")], "b", [], [info("a", None)]
    )
    node = helper.make_node("If", ["t"], ["y"], name="I", then_branch=body, else_branch=body)
    ends = [info("x", [1, 3, 8]), info("t", [], TensorProto.BOOL)]
    proto = model([node], ends, [info("y", None)], [constant("c", np.ones((3, 8)))])
    with pytest.raises(PassError, match="If 'I'"):
        done(proto, "change_3d_to_4d")


def chain(static: bool):
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="r"),
        helper.make_node("Shape", ["x"], ["sh"], name="a"),
        helper.make_node("Gather", ["sh", "i"], ["n"], name="b", axis=0),
        helper.make_node("Unsqueeze", ["n", "ax"], ["n1"], name="c"),
        helper.make_node("Concat", ["n1", "rest"], ["t"], name="d", axis=0),
        helper.make_node("Reshape", ["r", "t"], ["y"], name="e"),
    ]
    held = [
        *(constant("i", 0, np.int64), constant("ax", [0], np.int64)),
        constant("rest", [-1], np.int64),
    ]
    return model(nodes, [info("x", [2, 3, 4])], [info("y", None)], held)


def test_a_shape_taken_from_known_sizes_is_folded_and_the_batch_stays_open():
    after = done(chain(False), "fold_shapes")
    assert operators(after) == ["Relu", "Reshape"]
    x = RNG.normal(size=(5, 3, 4)).astype(np.float32)
    wider = qh.transform(after, ["change_batch:batch=5"], check=False).model
    assert np.array_equal(first(wider, x), np.maximum(x, 0).reshape(5, 12))


def test_an_input_gets_another_shape():
    after = done(conv(2), "set_input_shape:shape=1,shape=3,shape=9,shape=7")
    assert list(after.graph.outputs[0].shape) == [1, 2, 7, 5]
    with pytest.raises(PassError, match="cannot have the sizes"):
        done(conv(2), "set_input_shape:shape=1,shape=4,shape=9,shape=7")


def test_nodes_are_ordered_by_depth():
    nodes = [quant("x", "q"), helper.make_node("MatMul", ["q", "wq"], ["y"], name="m")]
    nodes.insert(1, quant("w", "wq"))
    nodes.insert(1, helper.make_node("Relu", ["q"], ["r"], name="r"))
    held = [constant("w", RNG.normal(size=(3, 2)))]
    held += [constant("s", 0.5), constant("z", 0), constant("b", 3)]
    ends = [info("y", None), info("r", None)]
    after = done(model(nodes, [info("x", [2, 3])], ends, held), "sort_by_depth")
    assert operators(after) == ["Quant", "Quant", "Relu", "MatMul"]


def test_models_are_merged_and_extracted_on_the_command_line(tmp_path):
    from qonnx_hub.cli import app

    run = CliRunner().invoke
    for name, proto in (("a", one("Add", [1, 2, 3])), ("b", one("Mul", [4, 5, 6]))):
        proto.graph.input[0].name = f"{name}_in"
        proto.graph.node[0].input[0] = f"{name}_in"
        proto.graph.output[0].name = f"{name}_out"
        proto.graph.node[0].output[0] = f"{name}_out"
        onnx.save(proto, tmp_path / f"{name}.onnx")
    both, part = tmp_path / "both.onnx", tmp_path / "part.onnx"
    a, b = str(tmp_path / "a.onnx"), str(tmp_path / "b.onnx")
    assert run(app, ["merge", a, b, "-o", str(both)]).exit_code == 0
    assert np.array_equal(
        qh.run(str(both), {"a_in": X})["b_out"],
        (X + np.float32([1, 2, 3])) * np.float32([4, 5, 6]),
    )
    given = ["extract", str(both), "-o", str(part), "--input", "a_out"]
    assert run(app, given).exit_code == 0
    assert operators(qh.load(str(part))) == ["Mul"]
