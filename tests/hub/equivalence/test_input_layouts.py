"""Inputs of models whose sizes are open, whose batch is fixed, or whose first axes differ."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import qonnx_hub as qh
from qonnx_hub.equivalence.inputs.batches import GeneratedInputs, read_batches
from qonnx_hub.equivalence.inputs.generate import generate_inputs
from qonnx_hub.equivalence.inputs.reach import find_inputs
from qonnx_hub.equivalence.inputs.sizes import InputLayout, layout_of, open_axes, sizes_to_run
from qonnx_hub_ir.errors import UsageError

QONNX = "qonnx.custom_op.general"


def proto(nodes, inputs, output, types=TensorProto.FLOAT, **constants):
    graph = helper.make_graph(
        [
            helper.make_node(op, read, [out], f"{op}_{out}", domain=domain, **attributes)
            for op, read, out, domain, attributes in nodes
        ],
        "g",
        [helper.make_tensor_value_info(n, types, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(c), n) for n, c in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(QONNX, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def node(op, read, out, domain="", **attributes):
    return (op, read, out, domain, attributes)


def shapes_of(source, name="x"):
    return [batch.feeds[name].shape for batch in read_batches(source)]


def relu(shape):
    return qh.load(proto([node("Relu", ["x"], "y")], {"x": shape}, "y"))


def conv(shape, size=3):
    w = np.ones((1, 1, size, size), dtype=np.float32)
    return qh.load(proto([node("Conv", ["x", "w"], "y")], {"x": shape}, "y", w=w))


def test_an_open_axis_is_run_at_one_two_and_an_odd_size():
    sizes = sizes_to_run(relu(["N", "time", 4]))
    assert [s["time"] for s in sizes] == [3, 1, 2]


def test_axes_of_one_name_have_one_size():
    model = qh.load(
        proto([node("Add", ["x", "z"], "y")], {"x": ["N", "t"], "z": ["N", "t"]}, "y")
    )
    for batch in read_batches(GeneratedInputs(model)):
        assert batch.feeds["x"].shape == batch.feeds["z"].shape


def test_axes_without_a_name_vary_by_themselves():
    model = relu(["N", None, None])
    assert open_axes(model) == ("x[1]", "x[2]")
    shapes = {shape[1:] for shape in shapes_of(GeneratedInputs(model))}
    assert shapes == {(3, 3), (1, 3), (2, 3), (3, 1), (3, 2), (1, 1), (2, 2)}


def test_sizes_with_which_the_model_does_not_run_are_left_out():
    # A window of 5 fits into no smaller image.
    model = conv(["N", 1, "h", "w"], size=5)
    shapes = {shape[2:] for shape in shapes_of(GeneratedInputs(model))}
    assert shapes == {(5, 5)}
    assert find_inputs(model).coverage.sizes["h"] == (5,)


def test_no_size_that_runs_is_wrong_usage():
    # 3 rows of 4 columns, whatever the open axis.
    model = qh.load(
        proto(
            [node("Reshape", ["x", "s"], "y")],
            {"x": ["N", "t"]},
            "y",
            s=np.array([3, 4], np.int64),
        )
    )
    with pytest.raises(UsageError, match="runs with none of"):
        GeneratedInputs(model)


def test_the_sizes_that_were_run_are_named():
    sizes = find_inputs(relu(["N", "time"])).coverage.sizes
    assert sizes["time"] == (1, 2, 3)
    assert {1, 2, 3} <= set(GeneratedInputs(relu(["N", 4])).sizes["N"])


def test_fixed_sizes_are_not_named():
    assert find_inputs(relu([2, 4])).coverage.sizes == {}


def test_feeds_of_open_sizes_have_one_shape_that_runs():
    assert generate_inputs(conv(["N", 1, "h", "w"], size=5), 4)["x"].shape == (4, 1, 5, 5)


@pytest.mark.parametrize(
    ("shapes", "layout"),
    [
        ({"x": ["N", 3]}, InputLayout.SAMPLES),
        ({"x": [1, 3]}, InputLayout.SAMPLES),
        ({"x": [2, 3]}, InputLayout.UNITS),
        ({"x": [2, 3], "z": [2, 3]}, InputLayout.UNITS),
        ({"x": [2, 3], "z": [1, 3]}, InputLayout.RUNS),
        ({"x": ["N", 3], "z": [1, 3]}, InputLayout.RUNS),
        ({"x": ["N", 3], "z": []}, InputLayout.RUNS),
    ],
)
def test_what_first_axes_are(shapes, layout):
    read = list(shapes)
    nodes = [node("Relu", ["x"], "y")] if len(read) == 1 else [node("Add", read, "y")]
    assert layout_of(qh.load(proto(nodes, shapes, "y"))) is layout


def quantized(shapes, bits, read):
    constants = {"s": np.float32(0.5), "zp": np.float32(0), "b": np.float32(bits)}
    nodes = [
        *read,
        node("Quant", ["t", "s", "zp", "b"], "y", QONNX, signed=1, narrow=0),
    ]
    return proto(nodes, shapes, "y", far=np.float32(100), **constants)


@pytest.mark.parametrize(
    ("shapes", "read"),
    [
        ({"x": [3, 2]}, [node("Add", ["x", "far"], "t")]),
        ({"x": [5]}, [node("Add", ["x", "far"], "t")]),
        (
            {"x": [4, 2], "z": [1, 2]},
            [node("Add", ["x", "far"], "u"), node("Add", ["u", "z"], "t")],
        ),
        (
            {"x": ["N", 2], "z": []},
            [node("Add", ["x", "far"], "u"), node("Add", ["u", "z"], "t")],
        ),
    ],
    ids=["batch of 3", "no batch", "unequal", "scalar"],
)
def test_inner_thresholds_far_from_zero_are_reached_in_every_layout(shapes, read):
    a, b = quantized(shapes, 6, read), quantized(shapes, 7, read)
    coverage = find_inputs(qh.load(a)).coverage
    assert coverage.measured
    assert coverage.quantizers[0].ends == 2
    assert coverage.unchanged == ()
    # Codes of 6 and 7 bits differ where both are not saturated at the same end.
    assert not qh.check(a, b)
    assert qh.check(a, a)


def test_inputs_of_unequal_first_axes_are_run_in_the_shapes_of_the_file():
    model = qh.load(proto([node("Add", ["x", "z"], "y")], {"x": [4, 2], "z": [1, 2]}, "y"))
    source = GeneratedInputs(model, 8)
    assert source.count == 8
    assert {b.feeds["x"].shape for b in read_batches(source)} == {(4, 2)}
    assert {b.feeds["z"].shape for b in read_batches(source)} == {(1, 2)}
    assert not source.feeds(0)["x"].any()


def test_codes_take_their_whole_type():
    model = qh.load(
        proto(
            [node("DequantizeLinear", ["x", "s", "z"], "y")],
            {"x": ["N", 16]},
            "y",
            types=TensorProto.INT8,
            s=np.float32(1),
            z=np.int8(0),
        )
    )
    x = GeneratedInputs(model, 512).feeds(0)["x"]
    assert x.min() == -128
    assert x.max() == 127


def test_an_input_read_by_a_sign_has_ordinary_values_as_well():
    nodes = [
        node("BipolarQuant", ["x", "s"], "b", QONNX),
        node("LeakyRelu", ["x"], "l", alpha=0.5),
        node("Add", ["b", "l"], "y"),
    ]
    model = qh.load(proto(nodes, {"x": ["N", 8]}, "y", s=np.float32(1)))
    x = GeneratedInputs(model, 64).feeds(0)["x"]
    tiny = np.float32(np.finfo(np.float32).smallest_subnormal)
    assert {tiny, -tiny} <= set(x.reshape(-1).tolist())
    assert np.mean(np.abs(x) > 0.1) > 0.3
    assert np.signbit(x[x == 0]).any()
    assert not np.signbit(x[x == 0]).all()


def test_thresholds_that_others_left_out_are_crossed():
    # 8 bits and one value a sample: random values meet few of 255 thresholds.
    model = qh.load(quantized({"x": ["N", 1]}, 8, [node("Add", ["x", "far"], "t")]))
    row = find_inputs(model).coverage.quantizers[0]
    assert (row.total, row.reachable) == (255, 255)
    assert row.reached > 240
    assert find_inputs(model, effort="quick").coverage.quantizers[0].reached < 240


def added(shapes):
    return proto([node("Add", ["x", "z"], "y")], shapes, "y")


@pytest.mark.parametrize(
    ("shapes", "x", "z"),
    [
        ({"x": [4, 2], "z": [1, 2]}, (4, 2), (1, 2)),
        ({"x": ["N", 2], "z": ["M", 2]}, (4, 2), (1, 2)),
        ({"x": [None, 2], "z": [None, 2]}, (1, 2), (3, 2)),
        ({"x": ["N", 2], "z": []}, (4, 2), ()),
    ],
)
def test_inputs_given_are_used_as_they_are_whatever_their_first_axes(shapes, x, z):
    a = added(shapes)
    feeds = {"x": np.ones(x, np.float32), "z": np.full(z, 2, np.float32)}
    result = qh.check(a, a, feeds, proof_seconds=0)
    assert result.verdict == "EQUAL", result.reason
    other = proto([node("Sub", ["x", "z"], "y")], shapes, "y")
    assert qh.check(a, other, feeds, proof_seconds=0).verdict == "DIFFERENT"
    feeds["z"] *= 0
    assert qh.check(a, other, feeds, proof_seconds=0).verdict != "DIFFERENT"


def test_axes_of_one_name_need_one_size():
    a = added({"x": ["N", 2], "z": ["N", 2]})
    feeds = {"x": np.ones((4, 2), np.float32), "z": np.ones((1, 2), np.float32)}
    with pytest.raises(UsageError, match="different numbers of samples: 'x' 4, 'z' 1"):
        qh.check(a, a, feeds)
    feeds = {"x": np.ones((4, 2), np.float32), "z": np.ones((0, 2), np.float32)}
    with pytest.raises(UsageError, match="'z' is empty"):
        qh.check(a, a, feeds)


def test_the_coverage_of_given_inputs_is_said():
    a = quantized({"x": ["N", 1]}, 3, [node("Identity", ["x"], "t")])
    feeds = {"x": np.array([[-0.5], [0.0], [0.5]], np.float32)}
    result = qh.check(a, a, feeds, proof_seconds=0)
    words = "equal on the 3 inputs given; 2 of 7 thresholds that can be reached were crossed"
    assert result.reason == words
    (row,) = result.coverage
    assert (row.reached, row.reachable) == (2, 7)
    assert result.sizes == {"N": (3,)}
    assert qh.check(a, a, feeds).coverage == ()  # proven: nothing has to be reached


def test_a_proof_says_that_open_sizes_do_not_matter(tmp_path):
    a = quantized(
        {"x": ["N", "t"]}, 3, [node("Identity", ["x"], "t0"), node("Relu", ["x"], "t")]
    )
    report = qh.convert(a, tmp_path / "o.onnx", to="qonnx")
    assert report.conclusion() == "PROVEN: equal on every input, whatever the size of N, t"
    assert set(report.check.sizes) == {"N", "t"}
