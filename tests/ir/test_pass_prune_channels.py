"""PruneChannels: the pruned net is the net whose readers have zero weights there."""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest
from onnx import helper

import qonnx_hub as qh
from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.passes import PruneChannels
from qonnx_hub_ir.validity import verify
from tests.ir.graphs import constants, f32, i64, info, model, proto, quant
from tests.ir.pass_kit import loaded

rng = np.random.default_rng(0)
KEEP = np.array([True, False, True, True])
QUANT = {"s": f32(0.25), "z": f32(0), "b": f32(4)}


def whole(*shape: int) -> np.ndarray:
    """Whole numbers: every sum of their products is exact, whatever its order."""
    return rng.integers(-3, 4, size=shape).astype(np.float32)


def node(op, inputs, output, name="", **attributes):
    return helper.make_node(op, inputs, [output], name=name or output, **attributes)


def net(middle, last, weights, first=None):
    """x -> conv1 (4 channels, with bias) -> middle -> last -> y."""
    nodes = [first or node("Conv", ["x", "w1", "b1"], "c1", "conv1"), *middle, *last]
    shapes = [info("x", [1, 2, 4, 4])], [info("y", None)]
    return proto(nodes, *shapes, QUANT | {"w1": whole(4, 2, 1, 1), "b1": whole(4)} | weights)


def pruned(source, masks):
    before = loaded(source)
    after = before.clone()
    assert PruneChannels(masks)(after).modified
    assert verify(after) == []
    return before, after


def assert_zeroed_weights_agree(source, masks, weight, axis, keep=KEEP):
    """Compare with the net in which the reader's weights for removed channels are zero."""
    before, after = pruned(source, masks)
    zeroed = constants(before)[weight].copy()
    assert zeroed.shape[axis] == keep.size
    shape = [1] * zeroed.ndim
    shape[axis] = -1
    value = before.graph.initializers[weight]
    value.const_value = onnx_ir.tensor(zeroed * keep.reshape(shape), name=weight)
    x = {"x": whole(1, 2, 4, 4)}
    wanted, found = qh.run(before, x)["y"], qh.run(after, x)["y"]
    assert np.any(wanted)
    np.testing.assert_array_equal(found, wanted)
    return after


PLAIN = {"w2": whole(3, 4, 1, 1)}
CONV2 = [node("Conv", ["m", "w2"], "y", "conv2")]


@pytest.mark.parametrize(
    "middle",
    [
        [node("Relu", ["c1"], "m")],
        [quant("c1", "m", "q")],
        [node("BatchNormalization", ["c1", "g", "o", "mean", "var"], "m")],
        [node("PRelu", ["c1", "slope"], "m")],
        [node("Add", ["c1", "slope"], "m")],
        [node("Mul", ["scalar", "c1"], "m")],
        [node("MaxPool", ["c1"], "m", kernel_shape=[2, 2])],
        [node("Pad", ["c1", "pads"], "m")],
        [node("Clip", ["c1", "low"], "m")],
        [node("Resize", ["c1", "", "scales"], "m", mode="nearest")],
        [node("Resize", ["c1", "", "", "sizes"], "m", mode="nearest")],
    ],
)
def test_a_mask_goes_through_what_stands_between_two_layers(middle):
    weights = PLAIN | {
        "g": whole(4),
        "o": whole(4),
        "mean": whole(4),
        "var": f32([1, 4, 1, 4]),
        "slope": whole(4, 1, 1),
        "scalar": f32(2),
        "low": f32(-1),
        "pads": i64([0, 0, 1, 1, 0, 0, 1, 1]),
        "scales": f32([1, 1, 2, 2]),
        "sizes": i64([1, 4, 8, 8]),
    }
    source = net(middle, CONV2, weights)
    after = assert_zeroed_weights_agree(source, {"conv1": KEEP}, "w2", 1)
    shapes = {name: array.shape for name, array in constants(after).items()}
    assert (shapes["w1"], shapes["b1"], shapes["w2"]) == ((3, 2, 1, 1), (3,), (3, 3, 1, 1))
    assert not PruneChannels({"conv1": np.ones(3, dtype=np.bool_)})(after).modified


def test_scales_per_channel_are_removed_with_their_channels():
    scales = f32([0.5, 0.25, 1, 2]).reshape(1, 4, 1, 1)
    middle = [quant("c1", "m", "q", inputs=("s4", "z", "b"))]
    source = net(middle, CONV2, PLAIN | {"s4": scales})
    after = assert_zeroed_weights_agree(source, {"conv1": KEEP}, "w2", 1)
    assert constants(after)["s4"].reshape(-1).tolist() == [0.5, 1, 2]


def test_quantized_weights_lose_channels_and_scales():
    first = [quant("w1", "w1q", "q1", inputs=("s4", "z", "b"))]
    second = quant("w2", "w2q", "q2")
    nodes = [*first, node("Conv", ["x", "w1q"], "m", "conv1"), second]
    nodes.append(node("Conv", ["m", "w2q"], "y", "conv2"))
    weights = QUANT | PLAIN | {"w1": whole(4, 2, 1, 1)}
    weights |= {"s4": f32([0.5, 0.25, 1, 2]).reshape(4, 1, 1, 1)}
    source = proto(nodes, [info("x", [1, 2, 4, 4])], [info("y", None)], weights)
    after = assert_zeroed_weights_agree(source, {"conv1": KEEP}, "w2", 1)
    assert constants(after)["s4"].shape == (3, 1, 1, 1)
    # The weight's name means the layer that reads it.
    by_weight = assert_zeroed_weights_agree(source, {"w1": KEEP}, "w2", 1)
    assert np.array_equal(constants(by_weight)["w1"], constants(after)["w1"])


def test_a_depthwise_layer_loses_the_channels_of_its_input():
    middle = [node("Conv", ["c1", "dw", "db"], "m", "depth", group=4)]
    weights = {"dw": whole(8, 1, 3, 3), "db": whole(8), "w2": whole(3, 8, 1, 1)}
    source = net(middle, CONV2, weights)
    twice = np.repeat(KEEP, 2)
    after = assert_zeroed_weights_agree(source, {"conv1": KEEP}, "w2", 1, twice)
    depth = next(n for n in after.graph if n.name == "depth")
    assert depth.attributes["group"].value == 3


@pytest.mark.parametrize(
    "flat",
    [
        [node("Flatten", ["c1"], "m")],
        [node("Reshape", ["c1", "shape"], "m")],
        [node("Reshape", ["c1", "given"], "m")],
    ],
)
def test_a_flattened_image_loses_all_pixels_of_a_channel(flat):
    last = [node("MatMul", ["m", "w2"], "y", "fc")]
    weights = {"w2": whole(64, 3), "shape": i64([0, -1]), "given": i64([1, 64])}
    keep = np.repeat(KEEP, 16)
    assert_zeroed_weights_agree(net(flat, last, weights), {"conv1": KEEP}, "w2", 0, keep)


def open_batch(shape):
    """conv1 of an open number of samples, reshaped, and a product."""
    nodes = [
        node("Conv", ["x", "w1"], "c1", "conv1"),
        node("Reshape", ["c1", "shape"], "m"),
        node("MatMul", ["m", "w2"], "y", "fc"),
    ]
    weights = {"w1": whole(4, 2, 1, 1), "w2": whole(64, 3), "shape": i64(shape)}
    return proto(nodes, [info("x", ["N", 2, 4, 4])], [info("y", None)], weights)


def test_an_image_of_an_open_batch_is_flattened_all_the_same():
    keep = np.repeat(KEEP, 16)
    assert_zeroed_weights_agree(open_batch([-1, 64]), {"conv1": KEEP}, "w2", 0, keep)


def test_channels_that_are_joined_with_an_open_batch_are_refused():
    with pytest.raises(PassError, match=r"Reshape 'm'.*they cannot be followed"):
        PruneChannels({"conv1": KEEP})(loaded(open_batch([-1])))


def test_axes_that_are_added_and_removed_shift_the_channels():
    middle = [
        node("Unsqueeze", ["c1", "first"], "u"),
        node("Squeeze", ["u", "first"], "m"),
    ]
    source = net(middle, CONV2, PLAIN | {"first": i64([0])})
    assert_zeroed_weights_agree(source, {"conv1": KEEP}, "w2", 1)


def test_channels_that_are_moved_last_are_followed():
    middle = [node("Transpose", ["c1"], "t", perm=[0, 2, 3, 1]), node("Relu", ["t"], "m")]
    last = [node("MatMul", ["m", "w2"], "y", "fc")]
    source = net(middle, last, {"w2": whole(4, 3)})
    assert_zeroed_weights_agree(source, {"conv1": KEEP}, "w2", 0)


def test_averages_over_places_and_gemm_follow():
    middle = [
        node("GlobalAveragePool", ["c1"], "p"),
        node("Squeeze", ["p", "axes"], "m"),
    ]
    last = [node("Gemm", ["m", "w2", "b2"], "y", "fc", transB=1)]
    weights = {"w2": whole(3, 4), "b2": whole(3), "axes": i64([2, 3])}
    assert_zeroed_weights_agree(net(middle, last, weights), {"conv1": KEEP}, "w2", 1)


def test_joined_channels_keep_those_of_the_other_part():
    middle = [
        node("Conv", ["x", "w3"], "c3", "conv3"),
        node("Concat", ["c3", "c1"], "m", axis=1),
    ]
    weights = {"w3": whole(2, 2, 1, 1), "w2": whole(3, 6, 1, 1)}
    keep = np.concatenate([[True, True], KEEP])
    assert_zeroed_weights_agree(net(middle, CONV2, weights), {"conv1": KEEP}, "w2", 1, keep)


def test_split_channels_are_removed_from_their_part():
    split = helper.make_node("Split", ["c1"], ["m", "n"], name="split", axis=1, num_outputs=2)
    last = [node("Conv", ["m", "w2"], "y2", "conv2"), node("Conv", ["n", "w3"], "y3", "conv3")]
    last.append(node("Add", ["y2", "y3"], "y"))
    weights = {"w2": whole(3, 2, 1, 1), "w3": whole(3, 2, 1, 1)}
    keep = np.array([True, False])
    assert_zeroed_weights_agree(net([split], last, weights), {"conv1": KEEP}, "w2", 1, keep)


RESIDUAL = [
    node("Conv", ["c1", "w3"], "c3", "conv3"),
    node("Add", ["c1", "c3"], "m", "sum"),
]
RESIDUAL_WEIGHTS = PLAIN | {"w3": whole(4, 4, 1, 1)}


def test_both_branches_of_a_sum_take_one_mask():
    source = net(RESIDUAL, CONV2, RESIDUAL_WEIGHTS)
    before, after = pruned(source, {"conv1": KEEP, "conv3": KEEP})
    assert constants(after)["w3"].shape == (3, 3, 1, 1)
    # By hand: conv1 and conv3 as matrices of the channels that are left.
    x = whole(1, 2, 4, 4)
    old = constants(before)
    w1, b1, w3 = old["w1"][KEEP, :, 0, 0], old["b1"][KEEP], old["w3"][KEEP][:, KEEP, 0, 0]
    c1 = np.einsum("oi,nihw->nohw", w1, x) + b1.reshape(1, 3, 1, 1)
    total = c1 + np.einsum("oi,nihw->nohw", w3, c1)
    wanted = np.einsum("oi,nihw->nohw", old["w2"][:, KEEP, 0, 0], total)
    np.testing.assert_array_equal(qh.run(after, {"x": x})["y"], wanted)


def test_thresholds_per_channel_lose_their_rows():
    count = helper.make_node(
        "MultiThreshold",
        ["c1", "t"],
        ["m"],
        "mt",
        domain="qonnx.custom_op.general",
        out_dtype="INT2",
        out_bias=-2.0,
        data_layout="NCHW",
    )
    table = np.sort(whole(4, 3), axis=1)
    source = net([count], CONV2, PLAIN | {"t": table})
    after = assert_zeroed_weights_agree(source, {"conv1": KEEP}, "w2", 1)
    assert constants(after)["t"].tolist() == table[KEEP].tolist()


def test_a_transposed_convolution_loses_channels_on_both_sides():
    last = [
        node("ConvTranspose", ["m", "w2"], "t", "up"),
        node("Conv", ["t", "w4"], "y", "c4"),
    ]
    weights = {"w2": whole(4, 3, 2, 2), "w4": whole(2, 3, 1, 1)}
    source = net([node("Relu", ["c1"], "m")], last, weights)
    assert_zeroed_weights_agree(source, {"conv1": KEEP}, "w2", 0)
    keep = np.array([False, True, True])
    assert_zeroed_weights_agree(source, {"up": keep}, "w4", 1, keep)


@pytest.mark.parametrize(
    ("middle", "last", "weights", "reason"),
    [
        (RESIDUAL, CONV2, RESIDUAL_WEIGHTS, "Add 'sum'.*operand 'c3' keeps all channels"),
        ([node("Softmax", ["c1"], "m", axis=1)], CONV2, PLAIN, "Softmax 'm'.*all channels"),
        (
            [node("Conv", ["c1", "w3"], "m", "grouped", group=2)],
            CONV2,
            PLAIN | {"w3": whole(4, 2, 1, 1)},
            "Conv 'grouped'.*2 groups of channels belong together",
        ),
        ([], [node("Relu", ["c1"], "y")], {}, "Relu 'y'.*output 'y' of the model would lose"),
        ([node("CumSum", ["c1", "one"], "m")], CONV2, PLAIN | {"one": np.array(1)}, "no rule"),
        (
            [node("Reshape", ["c1", "shape"], "m")],
            [node("Relu", ["m"], "y")],
            {"shape": i64([2, 32])},
            r"they cannot be followed from \[1, 4, 4, 4\] to \[2, 32\]",
        ),
        (
            [node("ReduceMean", ["c1", "axes"], "m")],
            [node("Relu", ["m"], "y")],
            {"axes": i64([1])},
            "combines the values of all channels",
        ),
    ],
)
def test_what_a_mask_cannot_be_carried_through_is_named(middle, last, weights, reason):
    found = loaded(net(middle, last, weights))
    before = onnx_ir.to_proto(found).SerializeToString(deterministic=True)
    with pytest.raises(PassError, match=reason):
        PruneChannels({"conv1": KEEP})(found)
    assert onnx_ir.to_proto(found).SerializeToString(deterministic=True) == before


@pytest.mark.parametrize(
    ("masks", "reason"),
    [
        ({"nobody": KEEP}, "'nobody' is no layer .*conv1, conv2 are"),
        ({"m": KEEP}, "'m' is no layer"),
        ({"conv1": KEEP[:3]}, "the mask of 'conv1' has 3 entries, the layer 4 channels"),
        ({"conv1": ~np.ones(4, dtype=np.bool_)}, "the mask of 'conv1' keeps no channel"),
        ({"conv1": f32([0.5, 1, 1, 1])}, "must be one truth value per channel"),
        ({"conv1": KEEP, "w1": KEEP}, "two masks are given for 'conv1'"),
    ],
)
def test_a_mask_that_fits_no_layer_is_refused(masks, reason):
    source = net([node("Relu", ["c1"], "m")], CONV2, PLAIN)
    with pytest.raises(PassError, match=reason):
        PruneChannels(masks)(loaded(source))


def test_masks_that_keep_everything_change_nothing():
    found = loaded(net([node("Relu", ["c1"], "m")], CONV2, PLAIN))
    assert not PruneChannels({"conv1": np.ones(4, dtype=np.int64)})(found).modified
    assert not PruneChannels({})(model([node("Relu", ["x"], "y")])).modified
