"""Kernels of the families normalization, activation, resize, recurrent and quantize.

Expected values are worked out by hand from the ONNX operator documents; recurrent layers are
held against loops over single units written here.
"""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import onnx
import pytest

from qonnx_hub.executor.kernels import activation, normalization, quantize, recurrent, resize
from qonnx_hub.executor.kernels.spec import KernelSpec, Unserved

FAMILIES = (activation, normalization, quantize, recurrent, resize)
TABLE = {key: factory for family in FAMILIES for key, factory in family.KERNELS.items()}
TYPE = onnx.TensorProto
INF, NAN = np.inf, np.nan


def f32(*values):
    return np.array(values, dtype=np.float32)


def u8(*values):
    return np.array(values, dtype=np.uint8)


def i8(*values):
    return np.array(values, dtype=np.int8)


def scalar(value, dtype=np.float32):
    return np.array(value, dtype=dtype)


def line(values):
    """Return one sample of one channel with one spatial axis."""
    return f32([values])


def integers(seed, *dims):
    """Return small whole numbers as float32, so that sums of products are exact."""
    rng = np.random.default_rng(seed)
    return rng.integers(-4, 5, size=dims).astype(np.float32)


def build(op, inputs, *, known=(), outputs=1, reusable=(), version=21, **attributes):
    spec = KernelSpec(
        op_type=op,
        version=version,
        name="node",
        attributes=attributes,
        constants=tuple(x if i in known else None for i, x in enumerate(inputs)),
        present=tuple(x is not None for x in inputs),
        num_outputs=outputs,
        reusable=frozenset(reusable),
    )
    return TABLE["", op](spec)


def run(op, *inputs, **options):
    return build(op, inputs, **options)(*inputs)


def same(actual, expected):
    expected = np.asarray(expected)
    assert isinstance(actual, np.ndarray)
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    np.testing.assert_array_equal(actual.astype(np.float64), expected.astype(np.float64))


# --- normalization ------------------------------------------------------------------------


@pytest.mark.parametrize("known", [(), (1, 2, 3, 4)])
@pytest.mark.parametrize("reusable", [(), (0,)])
def test_batch_normalization_shifts_and_scales_channels(known, reusable):
    x, parameters = f32([[1, 2], [3, 4]]), (f32(2, 3), f32(5, 7), f32(1, 2), f32(4, 1))
    options = {"known": known, "reusable": reusable, "epsilon": 0.0}
    same(run("BatchNormalization", x, *parameters, **options), f32([[5, 6], [10, 13]]))


def test_batch_normalization_in_training_mode_uses_and_updates_statistics():
    x = f32([1], [3])
    options = {"training_mode": 1, "epsilon": 0.0, "momentum": 0.75, "outputs": 3}
    y, mean, variance = run("BatchNormalization", x, f32(1), f32(0), f32(6), f32(5), **options)
    same(y, f32([-1], [1]))
    same(mean, f32(0.75 * 6 + 0.25 * 2))
    same(variance, f32(0.75 * 5 + 0.25 * 1))


def test_layer_normalization_returns_its_statistics():
    y, mean, inverse = run(
        "LayerNormalization", f32([1, 5]), f32(1, 3), f32(0, 1), epsilon=0.0, outputs=3
    )
    same(y, f32([-1, 4]))
    same(mean, f32([3]))
    same(inverse, f32([0.5]))


def test_rms_normalization_divides_by_the_root_of_the_mean_square():
    y = run("RMSNormalization", f32([2, -2]), f32(5, 10), epsilon=0.0, version=23)
    same(y, f32([5, -10]))


def test_instance_normalization_keeps_channels_apart():
    x = f32([[1, 5], [10, 30]])
    y = run("InstanceNormalization", x, f32(1, 2), f32(0, 7), epsilon=0.0)
    same(y, f32([[-1, 1], [5, 9]]))


@pytest.mark.parametrize(("version", "scale"), [(20, f32(1, 3)), (21, f32(1, 1, 3, 3))])
def test_group_normalization_scales_groups_before_opset_21_and_channels_since(version, scale):
    x, options = f32([[1], [5], [1], [5]]), {"num_groups": 2, "epsilon": 0.0}
    y = run("GroupNormalization", x, scale, 2 * scale, version=version, **options)
    same(y, f32([[1], [3], [3], [9]]))


def test_local_response_normalization_looks_at_neighbouring_channels():
    # size 2 reaches one channel ahead and none back: squares 1 + 4, then 4
    y = run("LRN", f32([[[1]], [[2]]]), size=2, alpha=2.0, beta=1.0, bias=5.0)
    same(y, f32([[[1 / 10]], [[np.float32(2) / np.float32(9)]]]))


def test_a_vector_of_zeros_stays_zero_when_normalized():
    same(run("LpNormalization", f32([0, 0], [3, 4])), f32([0, 0], [0.6, 0.8]))
    same(run("LpNormalization", f32([1, -3]), p=1), f32([0.25, -0.75]))
    same(run("MeanVarianceNormalization", f32([2, 2]), axes=(1,)), f32([0, 0]))


# --- activations --------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8])
def test_relu_keeps_the_type(dtype):
    x = np.array([-3, 0, 4], dtype=dtype)
    same(run("Relu", x), np.array([0, 0, 4], dtype=dtype))
    same(run("Relu", scalar(-1)), scalar(0))


def test_relu_overwrites_only_what_it_may():
    x = f32(-1, 2)
    assert run("Relu", x) is not x
    assert run("Relu", x, reusable=(0,)) is x
    frozen = f32(-1, 2)
    frozen.flags.writeable = False
    same(run("Relu", frozen, reusable=(0,)), f32(0, 2))


# op, attributes, x, y by the formula of the operator document in Python floats
FORMULAS = [
    ("Celu", {"alpha": 2.0}, -1.0, 2 * (math.exp(-0.5) - 1)),
    ("Elu", {"alpha": 3.0}, -1.0, 3 * (math.exp(-1) - 1)),
    ("Gelu", {}, 1.5, 0.75 * (1 + math.erf(1.5 / math.sqrt(2)))),
    (
        *("Gelu", {"approximate": "tanh"}, 1.5),
        0.75 * (1 + math.tanh(math.sqrt(2 / math.pi) * (1.5 + 0.044715 * 1.5**3))),
    ),
    ("HardSigmoid", {}, 1.0, 0.7),
    ("HardSwish", {}, 1.5, 1.5 * (1.5 / 6 + 0.5)),
    ("LeakyRelu", {}, -2.0, -0.02),
    ("Mish", {}, 1.0, math.tanh(math.log(1 + math.e))),
    ("Selu", {}, -1.0, 1.0507010221481323 * 1.6732631921768188 * (math.exp(-1) - 1)),
    ("Sigmoid", {}, -80.0, math.exp(-80)),
    ("Sigmoid", {}, 1000.0, 1.0),
    ("Sigmoid", {}, -1000.0, 0.0),
    ("Softplus", {}, 1000.0, 1000.0),
    ("Softplus", {}, -1.0, math.log(1 + math.exp(-1))),
    ("Softsign", {}, -3.0, -0.75),
    ("Swish", {"alpha": 2.0}, 0.5, 0.5 / (1 + math.exp(-1))),
    ("Tanh", {}, 0.5, math.tanh(0.5)),
    ("ThresholdedRelu", {"alpha": 2.0}, 2.0, 0.0),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("op", "attributes", "x", "y"), FORMULAS)
def test_an_activation_follows_its_formula(op, attributes, x, y, dtype):
    result = run(op, np.array([x], dtype=dtype), **attributes)
    assert result.dtype == dtype
    np.testing.assert_allclose(result, [y], rtol=1e-6, atol=0)


def test_prelu_has_a_slope_per_channel():
    same(run("PRelu", f32([[-1], [-1]]), f32([2], [3])), f32([[-2], [-3]]))


def test_shrink_moves_what_lies_outside_toward_zero():
    x = f32(-2, -1, 0.5, 1, 2)
    same(run("Shrink", x, lambd=1.0, bias=0.5), f32(-1.5, 0, 0, 0, 1.5))


def test_softmax_does_not_overflow_and_hardmax_takes_the_first():
    x = f32([1000, 1000, -1000])
    same(run("Softmax", x), f32([0.5, 0.5, 0]))
    same(run("Hardmax", x), f32([1, 0, 0]))
    same(run("Hardmax", f32([1], [2]), axis=0), f32([0], [1]))
    np.testing.assert_allclose(
        run("LogSoftmax", f32([0, math.log(3)])), [[math.log(0.25), math.log(0.75)]], rtol=1e-6
    )


# --- resize -------------------------------------------------------------------------------


def resized(x, *, scales=None, sizes=None, roi=None, **attributes):
    scales = None if scales is None else f32(*scales)
    sizes = None if sizes is None else np.array(sizes, dtype=np.int64)
    return run("Resize", x, roi, scales, sizes, known=(1, 2, 3), **attributes)


def test_nearest_neighbours_double_an_image():
    x = f32([[1, 2], [3, 4]])
    y = f32([[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]])
    same(resized(x, scales=(1, 2, 2)), y)
    same(run("Resize", x, None, f32(1, 2, 2)), y)
    same(resized(x.astype(np.int8), sizes=(4, 4), axes=(1, -1)), y.astype(np.int8))


# length 4 to 2: coordinates 0.5 and 2.5 with half_pixel
@pytest.mark.parametrize(
    ("nearest", "expected"),
    [
        ("round_prefer_floor", [10, 30]),
        ("round_prefer_ceil", [20, 40]),
        ("floor", [10, 30]),
        ("ceil", [20, 40]),
    ],
)
def test_ties_between_neighbours_go_where_the_node_says(nearest, expected):
    same(
        resized(line([10, 20, 30, 40]), scales=(1, 1, 0.5), nearest_mode=nearest),
        line(expected),
    )


def test_a_tie_that_float32_misses_by_a_bit_is_a_tie():
    # 8 * 7 / 16 is 3.5; in float32, 16 / 7 is too large and the quotient 3.4999998
    x = np.arange(7, dtype=np.float32).reshape(1, 1, 7)
    options = {"coordinate_transformation_mode": "asymmetric", "sizes": (1, 1, 16)}
    assert resized(x, nearest_mode="round_prefer_ceil", **options)[0, 0, 8] == 4
    assert resized(x, nearest_mode="round_prefer_floor", **options)[0, 0, 8] == 3


@pytest.mark.parametrize(
    ("mode", "size", "expected"),
    [
        ("half_pixel", 4, [0, 2, 6, 8]),
        ("pytorch_half_pixel", 1, [0]),
        ("half_pixel", 1, [4]),
        ("asymmetric", 4, [0, 4, 8, 8]),
        ("align_corners", 3, [0, 4, 8]),
        ("align_corners", 1, [0]),
        ("half_pixel_symmetric", 4, [0, 2, 6, 8]),
    ],
)
def test_linear_interpolation_reads_at_the_coordinates_of_its_mode(mode, size, expected):
    options = {"mode": "linear", "coordinate_transformation_mode": mode}
    same(resized(line([0, 8]), sizes=(1, 1, size), **options), line(expected))


def test_cubic_interpolation_weighs_four_neighbours():
    # halfway, a = -0.75: weights -3/32, 19/32, 19/32, -3/32; the border goes on outside
    x, options = line([32, 64]), {"mode": "cubic", "sizes": (1, 1, 1)}
    same(resized(x, **options), line([48]))
    same(resized(line([32, 64, 0, 0]), **options), line([64 * 19 / 32 - 32 * 3 / 32]))


def test_cubic_interpolation_can_exclude_what_lies_outside():
    # at 0.5 one neighbour lies outside: the others weigh 19 / 35, 19 / 35 and -3 / 35
    options = {"mode": "cubic", "coordinate_transformation_mode": "asymmetric"}
    y = resized(line([35, 70, 35, 0]), scales=(1, 1, 2), exclude_outside=1, **options)
    np.testing.assert_allclose(y[0, 0, 1], 19 + 38 - 3, rtol=1e-6)


def test_a_crop_extrapolates_outside_of_the_input():
    y = resized(
        *(line([0, 8]),),
        sizes=(1, 1, 3),
        roi=f32(0, 0, 0.5, 1, 1, 1.5),
        mode="linear",
        coordinate_transformation_mode="tf_crop_and_resize",
        extrapolation_value=-7.0,
    )
    same(y, line([4, 8, -7]))


@pytest.mark.parametrize(
    ("policy", "shape"), [("not_larger", (1, 4, 2)), ("not_smaller", (1, 14, 7))]
)
def test_a_policy_keeps_the_aspect_ratio(policy, shape):
    x = integers(0, 1, 4, 2)
    y = resized(x, sizes=(4, 7), axes=(1, 2), keep_aspect_ratio_policy=policy)
    assert y.shape == shape


def test_a_resize_to_the_same_size_is_a_copy():
    x = line([1, 2])
    y = resized(x, sizes=(1, 1, 2))
    same(y, x)
    assert not np.shares_memory(x, y)


@pytest.mark.parametrize(
    "attributes",
    [
        {"antialias": 1, "mode": "linear"},
        {"coordinate_transformation_mode": "align_corners"},
        {"exclude_outside": 1, "mode": "linear"},
        {"nearest_mode": "simple"},
    ],
)
def test_a_resize_refuses_what_it_cannot_say_for_certain(attributes):
    with pytest.raises(Unserved):
        build("Resize", (line([1, 2, 3]), None, f32(1, 1, 0.5)), known=(2,), **attributes)


def test_integers_are_not_interpolated():
    with pytest.raises(TypeError, match="no rounding"):
        resized(np.zeros((1, 1, 2), dtype=np.int8), sizes=(1, 1, 3), mode="linear")


# --- recurrent layers ---------------------------------------------------------------------


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def small(seed, *dims):
    rng = np.random.default_rng(seed)
    return rng.uniform(-1, 1, size=dims).astype(np.float32)


def dot(weights, values):
    return sum(float(w) * float(v) for w, v in zip(weights, values, strict=True))


def lstm_unit(k, x, h, c, w, r, b, p):
    """Return output and memory of unit ``k`` after one step; gates are ordered i, o, f, c."""
    size = len(h)
    total = {
        gate: dot(w[n * size + k], x)
        + dot(r[n * size + k], h)
        + float(b[n * size + k])
        + float(b[(4 + n) * size + k])
        for n, gate in enumerate("iofc")
    }
    i = sigmoid(total["i"] + float(p[k]) * c[k])
    f = sigmoid(total["f"] + float(p[2 * size + k]) * c[k])
    memory = f * c[k] + i * math.tanh(total["c"])
    o = sigmoid(total["o"] + float(p[size + k]) * memory)
    return o * math.tanh(memory), memory


def lstm_by_loops(x, w, r, b, lengths, h0, c0, p, backward):
    """Return Y (T, B, H), Y_h and Y_c (B, H) of one direction."""
    steps, samples, size = *x.shape[:2], r.shape[1]
    y = np.zeros((steps, samples, size))
    last = np.zeros((2, samples, size))
    for n in range(samples):
        h, c = [float(v) for v in h0[n]], [float(v) for v in c0[n]]
        order = range(lengths[n])
        for t in reversed(order) if backward else order:
            units = [lstm_unit(k, x[t, n], h, c, w, r, b, p) for k in range(size)]
            h, c = [u[0] for u in units], [u[1] for u in units]
            y[t, n] = h
        last[:, n] = h, c
    return y, last[0], last[1]


@pytest.mark.parametrize("known", [(), (1, 2, 3, 7)])
@pytest.mark.parametrize("layout", [0, 1])
def test_an_lstm_is_a_loop_over_its_units(layout, known):
    x, lengths = small(0, 4, 3, 2), np.array([4, 1, 3], dtype=np.int32)
    w, r, b, p = small(1, 2, 20, 2), small(2, 2, 20, 5), small(3, 2, 40), small(4, 2, 15)
    h0, c0 = small(5, 2, 3, 5), small(6, 2, 3, 5)
    expected = [
        lstm_by_loops(x, w[d], r[d], b[d], lengths, h0[d], c0[d], p[d], backward=d == 1)
        for d in range(2)
    ]
    y = np.stack([e[0] for e in expected], axis=1)
    states = [np.stack([e[s] for e in expected]) for s in (1, 2)]
    if layout:
        x, h0, c0 = (a.swapaxes(0, 1) for a in (x, h0, c0))
        y, states = y.transpose(2, 0, 1, 3), [s.swapaxes(0, 1) for s in states]
    results = run(
        *("LSTM", x, w, r, b, lengths, h0, c0, p),
        known=known,
        outputs=3,
        direction="bidirectional",
        hidden_size=5,
        layout=layout,
    )
    for result, wanted in zip(results, (y, *states), strict=True):
        assert result.dtype == np.float32
        np.testing.assert_allclose(result, wanted, rtol=1e-5, atol=1e-6)


def test_coupled_gates_forget_what_they_do_not_let_in():
    # no weights: i = 0.5, so that f = 0.5 and c = 0.5 * 2; o = 0.5
    zero = np.zeros((1, 4, 1), dtype=np.float32)
    options = {"input_forget": 1, "outputs": 3}
    bias = np.zeros((1, 8), dtype=np.float32)
    bias[0, 2] = 100.0  # would hold the forget gate open
    c0 = f32([[2]])
    _, h, c = run("LSTM", zero[:, :1], zero, zero, bias, None, None, c0, **options)
    same(c, f32([[1]]))
    np.testing.assert_allclose(h, [[[0.5 * math.tanh(1)]]], rtol=1e-6)


@pytest.mark.parametrize("reset_last", [0, 1])
def test_a_gru_resets_before_or_after_its_recurrence(reset_last):
    w, r = f32([[0.1], [0.2], [0.3]]), f32([[0.4], [0.5], [0.6]])
    b = f32([0.01, 0.02, 0.03, 0.04, 0.05, 0.06])
    x, h = 2.0, 0.7
    z, t = sigmoid(0.2 + 0.28 + 0.05), sigmoid(0.4 + 0.35 + 0.07)
    inner = t * (0.6 * h + 0.06) if reset_last else 0.6 * t * h + 0.06
    expected = (1 - z) * math.tanh(0.6 + inner + 0.03) + z * h
    y = run(
        *("GRU", f32([[x]]), w, r, b, None, f32([[h]])),
        linear_before_reset=reset_last,
    )
    assert y.shape == (1, 1, 1, 1)
    np.testing.assert_allclose(y, [[[[expected]]]], rtol=1e-6)


def test_an_rnn_clips_what_goes_into_its_activation():
    x, one, zero = f32([[5], [-0.25]]).reshape(2, 1, 1), f32([[1]]), f32([[0]])
    options = {"activations": ("Affine",), "activation_alpha": (2.0,), "outputs": 2}
    y, h = run("RNN", x, one, zero, clip=1.0, activation_beta=(0.5,), **options)
    same(y, f32([[[2.5]]], [[[0.0]]]))
    same(h, f32([[0.0]]))


@pytest.mark.parametrize(
    "attributes",
    [
        {"activations": ("Tanh", "Tanh")},
        {"activations": ("Sine",)},
        {"activations": ("Affine",)},
        {"activation_alpha": (1.0,)},
        {"direction": "sideways"},
        {"layout": 2},
    ],
)
def test_a_recurrent_layer_refuses_what_it_does_not_know(attributes):
    with pytest.raises(Unserved):
        build("RNN", (f32([[1]]),) * 3, **attributes)


# --- quantize -----------------------------------------------------------------------------


@pytest.mark.parametrize("known", [(), (1, 2)])
def test_quantizing_rounds_ties_to_even_and_then_adds_the_zero_point(known):
    x = f32(0.5, 1.5, 2.5, -0.5, -1.5)
    y = run("QuantizeLinear", x, scalar(1), scalar(3, np.uint8), known=known)
    same(y, np.array([3, 5, 5, 3, 1], dtype=np.uint8))


LIMITS = {
    np.int8: (-128, 127),
    np.uint8: (0, 255),
    np.int16: (-32768, 32767),
    np.uint16: (0, 65535),
    ml_dtypes.int4: (-8, 7),
    ml_dtypes.uint4: (0, 15),
    ml_dtypes.int2: (-2, 1),
    ml_dtypes.uint2: (0, 3),
}


@pytest.mark.parametrize("dtype", LIMITS)
def test_quantizing_saturates_and_takes_nan_for_the_low_limit(dtype):
    low, high = LIMITS[dtype]
    x = f32(1e20, -1e20, 3e9, -3e9, INF, -INF, NAN, 1)
    y = run("QuantizeLinear", x, scalar(1), scalar(0).astype(dtype))
    same(y, np.array([high, low, high, low, high, low, low, 1]).astype(dtype))


def test_a_quotient_is_divided_and_not_multiplied_by_the_inverse():
    # the quotient of these two floats is 4.50000028; times 1 / 0.01 in float32 it is 4.5
    same(run("QuantizeLinear", f32(0.045), scalar(0.01)), np.array([5], dtype=np.uint8))


def test_the_type_of_a_quantizer_comes_from_zero_point_or_attribute_or_is_uint8():
    x, scale = f32(-1, 300), scalar(1)
    same(run("QuantizeLinear", x, scale), np.array([0, 255], dtype=np.uint8))
    y = run("QuantizeLinear", x, scale, output_dtype=TYPE.INT4)
    same(y, np.array([-1, 7]).astype(ml_dtypes.int4))
    with pytest.raises(Unserved):
        build("QuantizeLinear", (x, scale), output_dtype=TYPE.INT32)
    inputs = (x, scale, scalar(0, np.int8))
    with pytest.raises(Unserved):
        build("QuantizeLinear", inputs, known=(2,), output_dtype=TYPE.UINT8)


@pytest.mark.parametrize(("axis", "codes"), [(0, [[2, 4], [1, 2]]), (-1, [[2, 1], [4, 2]])])
def test_scales_lie_along_an_axis(axis, codes):
    x, scale, zero = np.array([[2, 4], [4, 8]], np.float32), f32(1, 4), np.zeros(2, np.int8)
    codes = np.array(codes, dtype=np.int8)
    same(run("QuantizeLinear", x, scale, zero, axis=axis), codes)
    same(run("DequantizeLinear", codes, scale, axis=axis, known=(1,)), x)


def test_blocks_share_scale_and_zero_point():
    scale = np.array([[1, 10], [2, 100]], dtype=np.float32)
    zero = np.array([[0, 1], [2, 3]], dtype=np.int8)
    codes = np.array([[1, 2, 3], [4, 5, 6]], dtype=np.int8)
    # blocks of two along the last axis; the last one has one element
    x = np.array([[1, 2, 20], [4, 6, 300]], dtype=np.float32)
    for known in ((), (1, 2)):
        options = {"axis": 1, "block_size": 2, "known": known}
        same(run("DequantizeLinear", codes, scale, zero, **options), x)
        same(run("QuantizeLinear", x, scale, zero, **options), codes)


def test_scales_that_do_not_fit_the_data_are_an_error():
    x = np.zeros((2, 3), dtype=np.int8)
    for scale, attributes in (
        (f32(1, 2), {}),
        (f32(1, 2, 3), {"axis": 2}),
        (np.ones((2, 3), dtype=np.float32), {}),
        (np.ones((2, 3), dtype=np.float32), {"block_size": 2}),
    ):
        with pytest.raises(ValueError, match=r"scales|axis"):
            run("DequantizeLinear", x, scale, **attributes)


@pytest.mark.parametrize("dtype", LIMITS)
def test_dequantizing_subtracts_without_wrapping(dtype):
    low, high = LIMITS[dtype]
    x, zero = np.array([low, high]).astype(dtype), scalar(high).astype(dtype)
    same(run("DequantizeLinear", x, scalar(0.5), zero), f32((low - high) / 2, 0))


def test_dequantizing_int32_rounds_the_difference_once():
    x, zero = np.array([2**31 - 1], dtype=np.int32), scalar(-(2**31), np.int32)
    same(run("DequantizeLinear", x, scalar(1), zero), f32(2**32))


def test_quantizers_take_the_float_type_of_the_scale():
    codes = np.array([3], dtype=np.int8)
    half = run("DequantizeLinear", codes, scalar(0.5, np.float16))
    same(half, np.array([1.5], dtype=np.float16))
    y = run("DequantizeLinear", codes, scalar(0.5), output_dtype=TYPE.FLOAT16, version=23)
    same(y, half)


@pytest.mark.parametrize(("version", "code"), [(21, 3), (23, 2)])
def test_halves_are_divided_in_float32_before_opset_23(version, code):
    # 0.15002441 / 0.05999756 is 2.5005; the nearest half is the tie 2.5
    x, scale = np.array([0.15], dtype=np.float16), scalar(0.06, np.float16)
    y = run("QuantizeLinear", x, scale, scalar(0, np.int8), version=version)
    same(y, np.array([code], dtype=np.int8))


@pytest.mark.parametrize(
    ("dtype", "saturate", "expected"),
    [
        (ml_dtypes.float8_e4m3fn, 1, [448, -448, 1.125]),
        (ml_dtypes.float8_e4m3fn, 0, [NAN, NAN, 1.125]),
        (ml_dtypes.float8_e5m2, 1, [57344, -57344, 1.0]),
        (ml_dtypes.float8_e5m2, 0, [INF, -INF, 1.0]),
        (ml_dtypes.float4_e2m1fn, 0, [6, -6, 1.0]),
    ],
)
def test_small_floats_saturate_if_asked_to(dtype, saturate, expected):
    x, zero = f32(1e6, -1e6, 1.12), scalar(0).astype(dtype)
    y = run("QuantizeLinear", x, scalar(1), zero, saturate=saturate)
    same(y, np.array(expected).astype(dtype))


def test_a_dynamic_quantizer_covers_zero_and_all_of_the_data():
    y, scale, zero = run("DynamicQuantizeLinear", f32(-1, 0, 2), outputs=3)
    same(scale, np.asarray(np.float32(3) / np.float32(255)))
    same(zero, scalar(85, np.uint8))
    same(y, np.array([0, 85, 255], dtype=np.uint8))


def test_a_dynamic_quantizer_of_zeros_has_scale_one():
    y, scale, zero = run("DynamicQuantizeLinear", f32(0, 0), outputs=3)
    same(scale, scalar(1))
    same(zero, scalar(0, np.uint8))
    same(y, np.zeros(2, dtype=np.uint8))
