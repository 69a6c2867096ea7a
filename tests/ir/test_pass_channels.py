"""Whole graphs from channels first to channels last and back."""

from __future__ import annotations

import warnings

import numpy as np
import onnx_ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from qonnx_hub_ir.dialect import PROVENANCE
from qonnx_hub_ir.passes import (
    InferShapes,
    LowerChannelsLast,
    NameNodes,
    ToChannelsFirst,
    ToChannelsLast,
)
from qonnx_hub_ir.validity import verify
from tests.ir.graphs import (
    CHANNELS_LAST,
    attributes,
    constants,
    evaluate,
    f32,
    i64,
    info,
    model,
    node_of,
    operators,
    parameters,
    quant,
)

RANDOM = np.random.default_rng(23)


def whole(*shape):
    """Small whole numbers: sums of them are exact in any order."""
    return RANDOM.integers(-5, 6, shape).astype(np.float32)


IMAGE = whole(2, 3, 6, 5)
KERNEL = whole(4, 3, 3, 3)
FLAT = 4 * 4 * 3
"""Features of the flattened output of a convolution of IMAGE by KERNEL."""


def node(op_type, inputs, output, **options):
    return helper.make_node(op_type, inputs, [output], output, **options)


CONV = node("Conv", ["x", "k"], "c")


def graph(nodes, weights=None, x=IMAGE, outputs=("y",)):
    shapes = [info("x", x.shape)], [info(name, None) for name in outputs]
    found = model(nodes, *shapes, {"k": KERNEL, **(weights or {})})
    NameNodes()(found)
    InferShapes()(found)
    return found


def last(array):
    """Turn an image to channels last; anything flat is left."""
    return np.ascontiguousarray(np.moveaxis(array, 1, -1)) if array.ndim > 2 else array


def outputs_of(found, x):
    """The outputs, with channels-last operators lowered to standard ones."""
    copy = found.clone()
    LowerChannelsLast()(copy)
    return evaluate(copy, x=x)


def shapes_of(found):
    return [(v.name, str(v.shape)) for n in found.graph for v in n.outputs]


def assert_consistent(found):
    """Rules hold, and the shapes that were written are those that inference finds."""
    assert verify(found) == []
    copy = found.clone()
    InferShapes()(copy)
    assert shapes_of(copy) == shapes_of(found)


def turn(found, x=IMAGE, stray=0, back=0):
    """Turn a graph both ways; outputs stay, and Transposes are as few as said."""
    wanted = outputs_of(found, x)
    names = [node.name for node in found.graph]
    assert ToChannelsLast()(found).modified
    assert_consistent(found)
    assert operators(found).count("Transpose") == stray
    for ours, theirs in zip(outputs_of(found, last(x)), wanted, strict=True):
        np.testing.assert_array_equal(
            ours, last(theirs) if ours.shape != theirs.shape else theirs
        )
    assert not ToChannelsLast()(found).modified
    turned = found.clone()
    assert ToChannelsFirst()(found).modified
    assert_consistent(found)
    assert CHANNELS_LAST not in found.opset_imports
    assert operators(found).count("Transpose") == back
    for ours, theirs in zip(outputs_of(found, x), wanted, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not ToChannelsFirst()(found).modified
    if not back:
        assert [node.name for node in found.graph if node.name in names] == names
    return turned


FOLLOWS = {
    "relu": ([node("Relu", ["c"], "y")], {}),
    "gain": ([node("Mul", ["c", "g"], "y")], {"g": f32([[[1]], [[2]], [[3]], [[4]]])}),
    "row": ([node("Mul", ["c", "g"], "y")], {"g": f32([1, 2, 3])}),
    "image": ([node("Add", ["g", "c"], "y")], {"g": whole(1, 4, 4, 3)}),
    "prelu": ([node("PRelu", ["c", "g"], "y")], {"g": whole(4, 1, 1)}),
    "clip": ([node("Clip", ["c", "low", "high"], "y")], {"low": f32(-3), "high": f32(9)}),
    "quant": ([quant("c", "y")], parameters(f32([0.5, 1, 2, 4]).reshape(4, 1, 1))),
    "concat": ([node("Concat", ["c", "c"], "y", axis=1)], {}),
    "split": (
        [
            helper.make_node("Split", ["c"], ["a", "b"], "split", axis=1, num_outputs=2),
            node("Sub", ["a", "b"], "y"),
        ],
        {},
    ),
    "softmax": ([node("Hardmax", ["c"], "y", axis=1)], {}),
    "pad": (
        [node("Pad", ["c", "p", "v"], "y")],
        {"p": i64([0, 1, 2, 0, 1, 0, 0, 3]), "v": f32(7)},
    ),
    "pad_axes": (
        [node("Pad", ["c", "p", "", "a"], "y")],
        {"p": i64([1, 2, 3, 0]), "a": i64([1, -1])},
    ),
    "slice": (
        [node("Slice", ["c", "b", "e", "a"], "y")],
        {"b": i64([1, 0]), "e": i64([3, 2]), "a": i64([1, 3])},
    ),
    "slice_all": (
        [node("Slice", ["c", "b", "e"], "y")],
        {"b": i64([0, 1, 1]), "e": i64([2, 3, 4])},
    ),
    "slice_of_int32": (
        [node("Slice", ["c", "b", "e"], "y")],
        {name: np.array(v, dtype=np.int32) for name, v in (("b", [0, 1]), ("e", [2, 3]))},
    ),
    "shrink": ([node("Shrink", ["c"], "y", lambd=2.0, bias=1.0)], {}),
    "gather": ([node("Gather", ["c", "i"], "y", axis=1)], {"i": i64([2, 0])}),
    "tile": ([node("Tile", ["c", "r"], "y")], {"r": i64([1, 2, 1, 3])}),
    "scales": (
        [node("Resize", ["c", "", "r"], "y", mode="nearest")],
        {"r": f32([1, 1, 2, 3])},
    ),
    "sizes": (
        [node("Resize", ["c", "", "", "r"], "y", mode="nearest")],
        {"r": i64([2, 4, 8, 6])},
    ),
    "sizes_axes": (
        [node("Resize", ["c", "", "", "r"], "y", mode="nearest", axes=[2, 3])],
        {"r": i64([8, 6])},
    ),
    "sum": ([node("ReduceSum", ["c", "a"], "y")], {"a": i64([1])}),
    "maximum": ([node("ReduceMax", ["c", "a"], "y", keepdims=0)], {"a": i64([2, 3])}),
    "everything": ([node("ReduceSum", ["c"], "y")], {}),
    "argmax": (
        [node("ArgMax", ["c"], "i", axis=1), node("Cast", ["i"], "y", to=TensorProto.FLOAT)],
        {},
    ),
    "squeeze": (
        [node("ReduceMax", ["c", "a"], "s"), node("Squeeze", ["s", "a"], "y")],
        {"a": i64([2, 3])},
    ),
    "max_pool": ([node("MaxPool", ["c"], "y", kernel_shape=[2, 2], pads=[1, 0, 0, 1])], {}),
    "global_max": ([node("GlobalMaxPool", ["c"], "y")], {}),
    "batchnorm": (
        [node("BatchNormalization", ["c", "g", "h", "m", "v"], "y", epsilon=0.0)],
        {"g": whole(4), "h": whole(4), "m": whole(4), "v": f32([1, 4, 16, 0.25])},
    ),
    "residual": (
        [
            node("Conv", ["x", "k"], "d"),
            quant("d", "q"),
            node("Add", ["c", "q"], "t"),
            node("Relu", ["t"], "y"),
        ],
        parameters(),
    ),
    "fork": (
        [
            node("Conv", ["c", "j"], "d", pads=[1, 1, 1, 1]),
            node("Concat", ["c", "d", "c"], "y", axis=-3),
        ],
        {"j": whole(2, 4, 3, 3)},
    ),
}


@pytest.mark.parametrize("case", FOLLOWS)
def test_an_operator_goes_along_without_a_transpose(case):
    nodes, weights = FOLLOWS[case]
    turn(graph([CONV, *nodes], weights))


FLATTENED = {
    "flatten": ([node("Flatten", ["c"], "f")], {}),
    "reshape": ([node("Reshape", ["c", "r"], "f")], {"r": i64([0, -1])}),
    "reshape_batch": ([node("Reshape", ["c", "r"], "f")], {"r": i64([2, FLAT])}),
    "quantized": ([node("Flatten", ["c"], "e"), quant("e", "f")], parameters()),
    "per_feature": (
        [node("Flatten", ["c"], "e"), node("Mul", ["e", "g"], "f")],
        {"g": whole(FLAT)},
    ),
}
BEHIND = {
    "matmul": ([node("MatMul", ["f", "w"], "y")], {"w": whole(FLAT, 5)}),
    "gemm": ([node("Gemm", ["f", "w"], "y", transB=1)], {"w": whole(5, FLAT)}),
    "two": (
        [
            node("MatMul", ["f", "w"], "m1"),
            node("Gemm", ["f", "v"], "m2"),
            node("Add", ["m1", "m2"], "y"),
        ],
        {"w": whole(FLAT, 5), "v": whole(FLAT, 5)},
    ),
    "quantized": (
        [quant("u", "w", "qw", inputs=("ws", "wz", "wb")), node("MatMul", ["f", "w"], "y")],
        {
            "u": whole(FLAT, 5),
            "ws": f32(0.5) * np.ones((FLAT, 1), np.float32),
            "wz": f32(0),
            "wb": f32(4),
        },
    ),
}


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("case", FLATTENED)
def test_weights_behind_a_flatten_take_the_new_order_in(case, behind):
    first, weights = FLATTENED[case]
    then, more = BEHIND[behind]
    turn(graph([CONV, *first, *then], weights | more))


def test_the_rows_of_the_weight_are_in_the_new_order():
    found = graph(
        [CONV, node("Flatten", ["c"], "f"), node("MatMul", ["f", "w"], "y")],
        {"w": np.arange(FLAT, dtype=np.float32).reshape(FLAT, 1)},
    )
    ToChannelsLast()(found)
    # Feature c * 12 + h * 3 + w comes at place (h * 3 + w) * 4 + c.
    assert constants(found)["w"].reshape(12, 4)[:, 1].tolist() == [12.0 + i for i in range(12)]


def test_a_shared_weight_behind_a_flatten_is_copied():
    nodes = [
        CONV,
        node("Flatten", ["c"], "f"),
        node("MatMul", ["f", "w"], "y"),
        node("Relu", ["w"], "u"),
    ]
    found = graph(nodes, {"w": whole(FLAT, 5)}, outputs=("y", "u"))
    turn(found)


def test_a_flat_value_that_somebody_else_reads_keeps_its_order():
    outputs = graph([CONV, node("Flatten", ["c"], "y")])
    turn(outputs, stray=1)
    softmax = [
        node("Flatten", ["c"], "f"),
        node("Softmax", ["f"], "s"),
        node("MatMul", ["s", "w"], "y"),
    ]
    found = graph([CONV, *softmax], {"w": whole(FLAT, 5)})
    assert ToChannelsLast()(found).modified
    assert operators(found).count("Transpose") == 1


def test_a_flatten_of_single_pixels_or_channels_needs_nothing():
    pooled = [node("GlobalMaxPool", ["c"], "p"), node("Flatten", ["p"], "y")]
    turn(graph([CONV, *pooled]))
    turn(
        graph(
            [node("Conv", ["x", "k"], "c"), node("Flatten", ["c"], "y")],
            {"k": whole(1, 3, 3, 3)},
        )
    )


def test_a_flat_input_becomes_an_image_of_one_channel_in_either_layout():
    flat = whole(2, 30)
    nodes = [node("Reshape", ["x", "r"], "i"), quant("i", "q"), node("Conv", ["q", "k"], "y")]
    weights = {"r": i64([2, 1, 6, 5]), "k": whole(4, 1, 3, 3), **parameters()}
    turn(graph(nodes, weights, flat), flat)


def test_a_new_axis_goes_where_the_reader_wants_it():
    signal = whole(2, 30)
    nodes = [node("Unsqueeze", ["x", "a"], "u"), node("Conv", ["u", "k"], "y")]
    turn(graph(nodes, {"a": i64([1]), "k": whole(4, 1, 3)}, signal), signal)


@pytest.mark.parametrize("shape", [(2, 3, 9), (2, 3, 5, 4, 6)], ids=["signal", "volume"])
def test_signals_and_volumes_turn_as_well(shape):
    x = whole(*shape)
    kernel = whole(4, *([3] * (len(shape) - 1)))
    nodes = [CONV, node("Mul", ["c", "g"], "y")]
    gain = whole(4, *([1] * (len(shape) - 2)))
    turn(graph(nodes, {"k": kernel, "g": gain}, x), x)


def test_what_has_no_channels_last_form_stands_between_transposes():
    nodes = [CONV, node("ConvTranspose", ["c", "j"], "d"), node("Conv", ["d", "l"], "y")]
    turn(graph(nodes, {"j": whole(4, 2, 2, 2), "l": whole(3, 2, 2, 2)}), stray=2)


def test_a_pool_that_gives_indices_stays():
    pool = helper.make_node("MaxPool", ["x"], ["c", "i"], "pool", kernel_shape=[2, 2])
    shapes = [info("x", IMAGE.shape)], [info("c", None), info("i", None, TensorProto.INT64)]
    found = model([pool], *shapes, {})
    assert not ToChannelsLast()(found).modified


def test_the_ends_stay_where_that_is_asked_for():
    found = graph([CONV, node("Relu", ["c"], "y")])
    (wanted,) = outputs_of(found, IMAGE)
    ToChannelsLast(inputs=False, outputs=False)(found)
    assert_consistent(found)
    assert operators(found) == ["Transpose", "Conv", "Relu", "Transpose"]
    assert found.graph.outputs[0].name == "y"
    np.testing.assert_array_equal(outputs_of(found, IMAGE)[0], wanted)
    assert not ToChannelsLast(inputs=False, outputs=False)(found).modified
    ToChannelsFirst(inputs=False, outputs=False)(found)
    assert operators(found) == ["Conv", "Relu"]
    assert found.graph.outputs[0].name == "y"


def test_without_the_operators_only_the_ends_turn():
    nodes = [CONV, node("Flatten", ["c"], "f"), node("MatMul", ["f", "w"], "z")]
    found = graph(
        [*nodes, node("Relu", ["c"], "y")], {"w": whole(FLAT, 5)}, outputs=("z", "y")
    )
    wanted = outputs_of(found, IMAGE)
    step = ToChannelsLast(operators=False)
    assert step(found).modified
    assert_consistent(found)
    assert dict(found.opset_imports).keys() <= {"", "qonnx.custom_op.general"}
    assert operators(found).count("Transpose") == 2
    z, y = outputs_of(found, last(IMAGE))
    np.testing.assert_array_equal(z, wanted[0])
    np.testing.assert_array_equal(y, last(wanted[1]))
    assert not step(found).modified
    assert ToChannelsFirst()(found).modified
    assert operators(found).count("Transpose") == 0
    for ours, theirs in zip(outputs_of(found, IMAGE), wanted, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_an_input_that_is_channels_last_already_is_not_turned():
    nodes = [node("Transpose", ["x"], "t", perm=[0, 3, 1, 2]), node("Conv", ["t", "k"], "c")]
    found = graph([*nodes, node("Transpose", ["c"], "y", perm=[0, 2, 3, 1])], x=last(IMAGE))
    (wanted,) = outputs_of(found, last(IMAGE))
    assert ToChannelsLast()(found).modified
    assert operators(found) == ["Conv"]
    assert list(found.graph.inputs[0].shape) == [2, 6, 5, 3]
    assert found.graph.outputs[0].name == "y"
    np.testing.assert_array_equal(outputs_of(found, last(IMAGE))[0], wanted)


def test_the_window_is_spelled_out():
    found = graph([node("Conv", ["x", "k"], "y", auto_pad="SAME_UPPER", strides=[2, 1])])
    (wanted,) = outputs_of(found, IMAGE)
    ToChannelsLast()(found)
    # 6 pixels in steps of 2 by 3 taps: 1 pixel is missing, at the end; 5 in steps of 1: 2.
    assert attributes(node_of(found, "Conv")) == {
        "kernel_shape": (3, 3),
        "strides": (2, 1),
        "pads": (0, 1, 1, 1),
        "dilations": (1, 1),
        "group": 1,
    }
    np.testing.assert_array_equal(outputs_of(found, last(IMAGE))[0], last(wanted))


def test_a_weight_that_is_computed_is_transposed_at_run_time():
    nodes = [node("Neg", ["k"], "w"), node("Conv", ["x", "w"], "y")]
    found = model(
        nodes, [info("x", IMAGE.shape), info("k", KERNEL.shape)], [info("y", None)], {}
    )
    InferShapes()(found)
    (wanted,) = evaluate(found, x=IMAGE, k=KERNEL)
    ToChannelsLast()(found)
    assert_consistent(found)
    assert operators(found) == ["Neg", "Transpose", "Conv"]
    LowerChannelsLast()(found)
    np.testing.assert_array_equal(evaluate(found, x=last(IMAGE), k=KERNEL)[0], last(wanted))


INTEGERS = RANDOM.integers(-5, 6, (4, 3, 3, 3)).astype(np.int8)
STORED = {
    "dequantized": (
        [helper.make_node("DequantizeLinear", ["i", "s"], ["w"], "dq")],
        {"i": INTEGERS, "s": f32(0.5)},
    ),
    "dequantized_per_channel": (
        [helper.make_node("DequantizeLinear", ["i", "s"], ["w"], "dq", axis=0)],
        {"i": INTEGERS, "s": f32([0.5, 1, 2, 4])},
    ),
    "dequantized_per_input": (
        [helper.make_node("DequantizeLinear", ["i", "s"], ["w"], "dq", axis=-3)],
        {"i": INTEGERS, "s": f32([0.5, 1, 2])},
    ),
    "product": (
        [node("Mul", ["i", "s"], "w")],
        {"i": INTEGERS.astype(np.float32), "s": f32([0.5, 1, 2, 4]).reshape(4, 1, 1, 1)},
    ),
}


@pytest.mark.parametrize("case", STORED)
def test_a_weight_stored_as_integers_is_turned_where_it_is(case):
    nodes, weights = STORED[case]
    turn(graph([*nodes, node("Conv", ["x", "w"], "y")], weights))


def test_values_read_inside_a_subgraph_are_turned_back_for_it():
    branch = helper.make_graph([node("Flatten", ["c"], "o")], "branch", [], [info("o", None)])
    choice = helper.make_node("If", ["b"], ["y"], "if", then_branch=branch, else_branch=branch)
    found = graph([CONV, choice], {"b": np.array(True, dtype=np.bool_)})
    wanted = outputs_of(found, IMAGE)
    ToChannelsLast()(found)
    np.testing.assert_array_equal(outputs_of(found, last(IMAGE))[0], wanted[0])


def test_names_and_source_layers_stay():
    found = graph([CONV, node("Relu", ["c"], "y")])
    found.graph[0].outputs[0].metadata_props[PROVENANCE] = "layer"
    turned = turn(found)
    assert [value.name for node in turned.graph for value in node.outputs] == ["c", "y"]
    assert turned.graph[0].outputs[0].metadata_props[PROVENANCE] == "layer"


def test_a_graph_without_images_stays():
    found = model([quant()])
    assert not ToChannelsLast()(found).modified
    assert not ToChannelsFirst()(found).modified


def test_a_turned_graph_is_left_alone_by_qonnx_and_gives_the_same():
    pytest.importorskip("qonnx")
    nodes = [
        node("Conv", ["x", "k"], "c", kernel_shape=[3, 3]),
        quant("c", "q"),
        node("MaxPool", ["q"], "p", kernel_shape=[2, 2], strides=[1, 1]),
        node("Flatten", ["p"], "f"),
        node("MatMul", ["f", "w"], "y"),
    ]
    x = IMAGE[:1]
    found = graph(nodes, {**parameters(), "w": whole(24, 5)}, x)
    (wanted,) = outputs_of(found, x)
    ToChannelsLast()(found)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from qonnx.core.modelwrapper import ModelWrapper
        from qonnx.core.onnx_exec import execute_onnx
        from qonnx.util.cleanup import cleanup_model

        cleaned = cleanup_model(ModelWrapper(onnx_ir.to_proto(found)))
        answer = execute_onnx(cleaned, {"global_in": last(x)})["global_out"]
    assert [node.op_type for node in cleaned.graph.node] == operators(found)
    np.testing.assert_array_equal(answer, wanted)


class _Drawn:
    """A graph drawn step by step; each value has four axes of which the first is the batch."""

    def __init__(self, data):
        self.data = data
        self.nodes = []
        self.weights = dict(parameters(1.0))
        self.known = [("x", (2, 3, 4, 5))]
        self.count = 0

    def constant(self, array):
        name = f"k{len(self.weights)}"
        self.weights[name] = array
        return name

    def add(self, op_type, inputs, **options):
        self.count += 1
        self.nodes.append(node(op_type, inputs, f"v{self.count}", **options))
        return f"v{self.count}"

    def bounded(self, name):
        """Eight levels: whatever follows is a sum of whole numbers below 2^24."""
        self.count += 1
        self.nodes.append(quant(name, f"v{self.count}", f"v{self.count}"))
        return f"v{self.count}"

    def step(self, kind):
        name, shape = self.known[-1]
        draw, axes = self.data.draw, st.sampled_from((1, 2, 3))
        if kind == "conv" and shape[1] == 3:
            kernel = self.constant(whole(3, 3, 3, 3))
            name = self.add("Conv", [self.bounded(name), kernel], pads=[1] * 4)
        elif kind == "pool":
            name = self.add("MaxPool", [name], kernel_shape=[2, 2], pads=[1, 0, 0, 1])
        elif kind == "gain":
            axis = draw(axes)
            sizes = [n if i == axis else 1 for i, n in enumerate(shape)]
            name = self.add("Mul", [self.bounded(name), self.constant(whole(*sizes))])
        elif kind == "transpose":
            perm = (0, *draw(st.permutations([1, 2, 3])))
            name = self.add("Transpose", [name], perm=perm)
            shape = tuple(shape[axis] for axis in perm)
        elif kind == "add":
            other = draw(st.sampled_from([n for n, s in self.known if s == shape]))
            name = self.add("Add", [self.bounded(other), self.bounded(name)])
        elif kind == "concat":
            axis = draw(axes)
            twice = self.add("Concat", [name, name], axis=axis - 4)
            cut = [self.constant(i64([number])) for number in (1, 1 + shape[axis], axis)]
            name = self.add("Slice", [twice, *cut])
        elif kind == "reshape":
            flat = self.constant(i64([0, shape[1], -1]))
            back = self.constant(i64([2, *shape[1:]]))
            name = self.add("Reshape", [self.add("Reshape", [name, flat]), back])
        elif kind == "product":
            flat = self.add("Flatten", [self.bounded(name)])
            made = self.add("MatMul", [flat, self.constant(whole(60, 60))])
            name = self.add("Reshape", [made, self.constant(i64([-1, *shape[1:]]))])
        elif kind == "sum":
            axis = draw(axes)
            total = self.add("ReduceSum", [name, self.constant(i64([axis]))])
            name = self.add("Sub", [self.bounded(name), self.bounded(total)])
        else:
            name = self.add("Relu", [name])
        self.known.append((name, shape))


KINDS = (
    "add",
    "concat",
    "conv",
    "gain",
    "pool",
    "product",
    "relu",
    "reshape",
    "sum",
    "transpose",
)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_is_drawn_keeps_its_values(data):
    drawn = _Drawn(data)
    for kind in data.draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=9)):
        drawn.step(kind)
    ends = dict.fromkeys((drawn.known[-1][0], data.draw(st.sampled_from(drawn.known[1:]))[0]))
    x = np.random.default_rng(0).integers(-5, 6, (2, 3, 4, 5)).astype(np.float32)
    found = graph(drawn.nodes, drawn.weights, x, tuple(ends))
    wanted = outputs_of(found, x)
    for step in (ToChannelsLast(), ToChannelsFirst(), ToChannelsLast(operators=False)):
        step(found)
        assert_consistent(found)
        answers = outputs_of(found, like(x, tuple(found.graph.inputs[0].shape)))
        for ours, theirs in zip(answers, wanted, strict=True):
            np.testing.assert_array_equal(ours, like(theirs, ours.shape))
        assert not step(found).modified


def like(array, shape):
    """Turn an image of three different sizes to a shape, by one of the two turns or none."""
    turns = (array, last(array), np.ascontiguousarray(np.moveaxis(array, -1, 1)))
    return next(one for one in turns if one.shape == shape)
