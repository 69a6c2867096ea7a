"""Kernels of the families matmul, conv, pool and channels_last.

Expected values are worked out by hand from the ONNX operator documents; convolutions are also
held against plain sums over their taps. Numbers are chosen so that every sum is exact.
"""

from __future__ import annotations

import itertools

import ml_dtypes
import numpy as np
import pytest

from qonnx_hub.executor.kernels import (
    _convolve,
    _depthwise,
    channels_last,
    conv,
    matmul,
    pool,
)
from qonnx_hub.executor.kernels.spec import KernelSpec, Unserved

FAMILIES = (channels_last, conv, matmul, pool)
TABLE = {key: factory for family in FAMILIES for key, factory in family.KERNELS.items()}
LAST = channels_last.DOMAIN
INF = np.inf


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


def build(
    op, inputs, *, known=(), outputs=1, reusable=(), version=21, domain="", **attributes
):
    spec = KernelSpec(
        op_type=op,
        domain=domain,
        version=version,
        name="node",
        attributes=attributes,
        constants=tuple(x if i in known else None for i, x in enumerate(inputs)),
        present=tuple(x is not None for x in inputs),
        num_outputs=outputs,
        reusable=frozenset(reusable),
    )
    return TABLE[domain, op](spec)


def run(op, *inputs, **options):
    return build(op, inputs, **options)(*inputs)


def same(actual, expected):
    expected = np.asarray(expected)
    assert isinstance(actual, np.ndarray)
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    np.testing.assert_array_equal(actual.astype(np.float64), expected.astype(np.float64))


# --- matrix products ----------------------------------------------------------------------


@pytest.mark.parametrize("known", [(), (1,), (1, 2)])
def test_gemm_scales_product_and_addend(known):
    a, b, c = f32([1, 2]), f32([3, 4]), f32(10)
    y = run("Gemm", a, b, c, known=known, transB=1, alpha=0.5, beta=2.0)
    same(y, f32([0.5 * (1 * 3 + 2 * 4) + 2 * 10]))


def test_gemm_transposes_its_left_factor():
    same(run("Gemm", f32([1, 2], [3, 4]), f32([1], [10]), transA=1), f32([31], [42]))


def test_gemm_refuses_to_scale_integers_by_a_fraction():
    one = np.ones((1, 1), dtype=np.int32)
    with pytest.raises(ValueError, match="not an integer"):
        run("Gemm", one, one, alpha=0.5)


def test_the_product_of_two_vectors_is_an_array_without_axes():
    same(run("MatMul", f32(1, 2), f32(3, 4)), scalar(11))


def test_a_product_of_halves_is_rounded_once():
    # Added one after the other in float16, both ones would be lost.
    a, b = np.array([2048, 1, 1], dtype=np.float16), np.ones(3, dtype=np.float16)
    same(run("MatMul", a, b), scalar(2050, np.float16))


def test_the_diagonal_that_einsum_takes_is_no_view_of_its_operand():
    x = f32([1, 2], [3, 4])
    y = run("Einsum", x, equation="ii->i")
    same(y, f32(1, 4))
    assert not np.shares_memory(x, y)


def test_matmul_integer_subtracts_zero_points_per_row_and_column():
    a, b = u8([1, 2], [3, 4]), i8([1, -1], [2, -2])
    y = run("MatMulInteger", a, b, u8(1, 3), i8(1, -2))
    # rows minus 1 and 3: [0, 1], [0, 1]; columns minus 1 and -2: [0, 1], [1, 0]
    same(y, np.array([[1, 0], [1, 0]], dtype=np.int32))


@pytest.mark.parametrize("known", [(), (1,)])
def test_matmul_integer_is_exact_beyond_the_bits_of_float32(known):
    a, b = np.full((1, 999), 255, dtype=np.uint8), np.full((999, 1), 255, dtype=np.uint8)
    y = run("MatMulInteger", a, b, known=known)
    same(y, np.array([[999 * 255 * 255]], dtype=np.int32))


def test_matmul_integer_wraps_like_an_int32_accumulator():
    a, b = np.full((1, 70000), 255, dtype=np.uint8), np.full((70000, 1), 255, dtype=np.uint8)
    y = run("MatMulInteger", a, b)
    same(y, np.array([[70000 * 255 * 255 - 2**32]], dtype=np.int32))


@pytest.mark.parametrize("known", [(), (1, 2, 3, 4, 5, 6, 7)])
def test_qlinear_matmul_rounds_ties_to_even_before_it_adds_the_zero_point(known):
    a, one = u8([1], [3], [5], [255]), u8([1])
    scales = scalar(0.5), scalar(1.0)
    y = run(
        *("QLinearMatMul", a, scales[0], u8(0), one, scales[1], u8(0), scales[1], u8(101)),
        known=known,
    )
    # 0.5 -> 0, 1.5 -> 2, 2.5 -> 2, 127.5 -> 128
    same(y, u8([101], [103], [103], [229]))


def test_qlinear_matmul_saturates_and_scales_each_row():
    a, b = i8([100], [-100]), i8([100])
    unit, zero = scalar(1.0), i8(0)
    y = run("QLinearMatMul", a, f32(1.0, 0.01), zero, b, unit, zero, unit, zero)
    same(y, i8([127], [-100]))


# --- convolution --------------------------------------------------------------------------


def plain_conv(x, w, strides, dilations, pads, group):
    """Return the convolution as a sum over taps, in float64."""
    rank, (m, cg) = x.ndim - 2, w.shape[:2]
    wide = list(zip(pads[:rank], pads[rank:], strict=True))
    xp = np.pad(x.astype(np.float64), [(0, 0), (0, 0), *wide])
    out = [
        (xp.shape[2 + i] - (w.shape[2 + i] - 1) * dilations[i] - 1) // strides[i] + 1
        for i in range(rank)
    ]
    y = np.zeros((len(x), m, *out))
    for channel, tap in itertools.product(range(m), np.ndindex(w.shape[2:])):
        first = channel // (m // group) * cg
        for k in range(cg):
            where = tuple(
                slice(
                    tap[i] * dilations[i],
                    tap[i] * dilations[i] + (out[i] - 1) * strides[i] + 1,
                    strides[i],
                )
                for i in range(rank)
            )
            y[:, channel] += w[(channel, k, *tap)] * xp[:, first + k][(slice(None), *where)]
    return y.astype(np.float32)


# name: (x, w, strides, dilations, pads, group)
CONVS = {
    "one tap": ((2, 3, 5, 4), (4, 3, 1, 1), (1, 1), (1, 1), (0, 0, 0, 0), 1),
    "one tap, strided": ((2, 3, 5, 4), (4, 3, 1, 1), (2, 3), (1, 1), (0, 0, 0, 0), 1),
    "one tap, groups": ((2, 4, 5, 4), (6, 2, 1, 1), (1, 1), (1, 1), (0, 0, 0, 0), 2),
    "one tap, padded": ((1, 2, 3, 3), (2, 2, 1, 1), (1, 1), (1, 1), (1, 0, 0, 2), 1),
    "kernel as large as the input": ((3, 2, 3, 4), (5, 2, 3, 4), (1, 1), (1, 1), (0,) * 4, 1),
    "columns": ((2, 3, 7, 6), (4, 3, 3, 2), (2, 1), (1, 2), (1, 2, 0, 1), 1),
    "columns, groups": ((2, 4, 7, 6), (6, 2, 2, 3), (1, 2), (2, 1), (1, 1, 1, 1), 2),
    "columns, many samples": ((9, 2, 5, 5), (3, 2, 3, 3), (1, 1), (1, 1), (1, 1, 1, 1), 1),
    "columns, one axis": ((2, 3, 11), (4, 3, 4), (2,), (2,), (3, 1), 1),
    "columns, three axes": (
        (1, 2, 4, 5, 3),
        (3, 2, 2, 3, 2),
        (1, 2, 1),
        (1, 1, 2),
        (1,) * 6,
        1,
    ),
    "columns, large": ((1, 3, 80, 70), (2, 3, 3, 3), (2, 2), (1, 1), (1, 1, 1, 1), 1),
    "stacked": ((1, 3, 33, 34), (2, 3, 3, 3), (1, 1), (1, 1), (1, 1, 1, 1), 1),
    "stacked, dilated": ((2, 2, 40, 36), (2, 2, 3, 2), (1, 1), (2, 3), (2, 0, 1, 1), 1),
    "stacked, strided behind": ((1, 2, 40, 80), (2, 2, 2, 3), (1, 2), (1, 1), (1, 0, 1, 1), 1),
    "stacked, one axis": ((1, 2, 1100), (1, 2, 3), (1,), (4,), (4, 4), 1),
    "depthwise": ((2, 5, 8, 7), (5, 1, 3, 3), (1, 1), (1, 1), (1, 1, 1, 1), 5),
    "depthwise, strided": ((2, 5, 9, 7), (5, 1, 3, 3), (2, 2), (1, 1), (0, 1, 1, 0), 5),
    "depthwise, dilated": ((1, 3, 9, 9), (3, 1, 2, 3), (3, 2), (2, 3), (2, 3, 1, 2), 3),
    "depthwise, two filters each": ((1, 3, 6, 5), (6, 1, 3, 2), (1, 2), (1, 1), (1,) * 4, 3),
    "depthwise, one axis": ((2, 4, 12), (4, 1, 5), (2,), (1,), (2, 2), 4),
    "depthwise, one tap wide": ((1, 3, 6, 5), (3, 1, 3, 1), (1, 1), (1, 1), (1, 0, 1, 0), 3),
    "depthwise, three axes": (
        (1, 2, 4, 5, 6),
        (2, 1, 2, 3, 2),
        (1, 2, 2),
        (1,) * 3,
        (1,) * 6,
        2,
    ),
    "depthwise, stride over kernel": ((1, 2, 9, 9), (2, 1, 2, 2), (3, 3), (1, 1), (1,) * 4, 2),
}


@pytest.mark.parametrize("known", [(), (1,)], ids=["open", "constant"])
@pytest.mark.parametrize("small_blocks", [False, True], ids=["whole", "blocks"])
@pytest.mark.parametrize("case", CONVS.values(), ids=list(CONVS))
def test_every_way_to_convolve_gives_the_sum_over_taps(case, small_blocks, known, monkeypatch):
    x_shape, w_shape, strides, dilations, pads, group = case
    if small_blocks:
        monkeypatch.setattr(_convolve, "COLUMN_BYTES", 1000)
        monkeypatch.setattr(_convolve, "STACK_BYTES", 1000)
        monkeypatch.setattr(_depthwise, "BLOCK_BYTES", 1000)
        monkeypatch.setattr(_depthwise, "SINGLE_THREAD", 50)
    x, w = integers(1, *x_shape), integers(2, *w_shape)
    options = {"strides": strides, "dilations": dilations, "pads": pads, "group": group}
    before = x.copy()
    y = run("Conv", x, w, known=known, **options)
    same(y, plain_conv(x, w, strides, dilations, pads, group))
    np.testing.assert_array_equal(x, before)
    assert not np.shares_memory(x, y)


def test_a_convolution_reads_forward_and_adds_its_bias():
    y = run("Conv", line([1, 2, 3, 4]), f32([[1, 0, -1]]), f32(100))
    same(y, line([1 - 3 + 100, 2 - 4 + 100]))


def test_same_upper_pads_an_even_kernel_behind_and_same_lower_in_front():
    x, w = line([1, 2, 3]), f32([[1, 10]])
    same(run("Conv", x, w, auto_pad="SAME_UPPER"), line([1 + 20, 2 + 30, 3]))
    same(run("Conv", x, w, auto_pad="SAME_LOWER"), line([10, 1 + 20, 2 + 30]))
    same(run("Conv", x, w, auto_pad="VALID"), line([1 + 20, 2 + 30]))


def test_same_padding_counts_strides_and_dilations():
    # two outputs; taps 2 apart reach 3 elements: 2 + 3 - 4 = 1 element of padding, behind
    y = run(
        *("Conv", line([1, 2, 3, 4]), f32([[1, 10]])),
        auto_pad="SAME_UPPER",
        strides=(2,),
        dilations=(2,),
    )
    same(y, line([1 + 30, 3 + 0]))


def test_groups_keep_channels_apart():
    x, w = f32([[1, 2], [3, 4]]), f32([[1, 1]], [[10, 10]])
    same(run("Conv", x, w, group=2), f32([[3], [70]]))


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_a_convolution_returns_the_float_type_it_is_given(dtype):
    x, w = line([1, 2, 3]).astype(dtype), f32([[1, 2]]).astype(dtype)
    same(run("Conv", x, w, f32(1).astype(dtype), known=(1, 2)), line([6, 9]).astype(dtype))


def test_a_convolution_in_float64_keeps_what_float32_would_lose():
    x, w = np.array([[[1.0, 2.0**-40]]]), np.ones((1, 1, 2))
    same(run("Conv", x, w), np.array([[[1.0 + 2.0**-40]]]))


@pytest.mark.parametrize("kernel", [1, 2, 3])
def test_no_samples_give_no_results(kernel):
    x, w = np.zeros((0, 2, 3, 3), dtype=np.float32), integers(0, 4, 2, kernel, kernel)
    assert run("Conv", x, w).shape == (0, 4, 4 - kernel, 4 - kernel)


def test_a_kernel_larger_than_its_input_is_an_error():
    with pytest.raises(ValueError, match="does not fit"):
        run("Conv", line([1, 2]), f32([[1, 2, 3]]))


def test_channels_that_do_not_fit_the_weight_are_an_error():
    with pytest.raises(ValueError, match="do not fit"):
        run("Conv", integers(0, 1, 3, 4), integers(0, 2, 2, 2))


@pytest.mark.parametrize(
    "attributes",
    [
        {"auto_pad": "SAME"},
        {"auto_pad": "VALID", "pads": (1, 1)},
        {"pads": (-1, 0)},
        {"strides": (0,)},
        {"group": 0},
        {"kernel_shape": (3,)},
        {"padding_mode": "reflect"},
    ],
)
def test_a_convolution_refuses_what_it_does_not_know(attributes):
    with pytest.raises(Unserved):
        build("Conv", (line([1, 2, 3]), f32([[1, 2]])), known=(1,), **attributes)


# full result of stride 2: [1, 10, 100 + 2, 20, 200]
@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, [1, 10, 102, 20, 200]),
        ({"output_padding": (1,)}, [1, 10, 102, 20, 200, 0]),
        ({"pads": (1, 1)}, [10, 102, 20]),
        ({"output_shape": (4,)}, [10, 102, 20, 200]),
        ({"output_shape": (4,), "auto_pad": "SAME_UPPER"}, [1, 10, 102, 20]),
        ({"output_shape": (6,)}, [1, 10, 102, 20, 200, 0]),
        ({"auto_pad": "SAME_LOWER"}, [10, 102, 20, 200]),
        ({"dilations": (2,)}, [1, 0, 12, 0, 120, 0, 200]),
    ],
)
def test_a_transposed_convolution_spreads_its_input(attributes, expected):
    x, w = line([1, 2]), f32([[1, 10, 100]])
    same(run("ConvTranspose", x, w, strides=(2,), **attributes), line(expected))


def test_a_transposed_convolution_adds_bias_and_keeps_groups_apart():
    x, w = f32([[1, 2], [3, 4]]), f32([[1, 10]], [[1, 100]])
    y = run("ConvTranspose", x, w, f32(0, 1000), group=2, known=(1,))
    same(y, f32([[1, 12, 20], [1003, 1304, 1400]]))


def test_a_transposed_convolution_refuses_same_padding_where_a_stride_leaves_gaps():
    with pytest.raises(ValueError, match="ONNX does not say"):
        run("ConvTranspose", line([1, 2]), f32([[1]]), strides=(2,), auto_pad="SAME_UPPER")


def test_the_padding_of_an_integer_convolution_is_the_zero_point():
    y = run(
        *("ConvInteger", u8([[5, 7]]), i8([[1, 1, 1]], [[2, 2, 2]]), u8(5), i8(0, 1)),
        pads=(1, 1),
    )
    same(y, np.array([[[2, 2], [2, 2]]], dtype=np.int32))


@pytest.mark.parametrize("known", [(), tuple(range(1, 9))])
def test_qlinear_conv_scales_each_channel_and_rounds_ties_to_even(known):
    x, w = u8([[3, 5]]), i8([[1]], [[1]])
    inputs = (x, scalar(0.5), u8(0), w, f32(1.0, 3.0), i8(0, 0), scalar(1.0), u8(1))
    bias = np.array([0, 2], dtype=np.int32)
    # 1.5 and 2.5 are ties; 5 * 1.5 = 7.5 and 7 * 1.5 = 10.5 as well
    y = run("QLinearConv", *inputs, bias, known=known)
    same(y, u8([[2 + 1, 2 + 1], [8 + 1, 10 + 1]]))


def test_an_integer_convolution_is_exact_beyond_the_bits_of_float32():
    x, w = np.full((1, 999, 1), 255, np.uint8), np.full((1, 999, 1), 255, np.uint8)
    same(run("ConvInteger", x, w), np.array([[[999 * 255 * 255]]], dtype=np.int32))


def test_integer_products_refuse_other_types():
    x = np.zeros((1, 1, 2), dtype=np.int16)
    with pytest.raises(TypeError, match="int16"):
        run("ConvInteger", x, x)
    with pytest.raises(Unserved):
        build("QLinearConv", (x,) * 8, known=(3,))


# --- channels last ------------------------------------------------------------------------


@pytest.mark.parametrize("known", [(), (1, 2)])
def test_a_channels_last_convolution_is_the_sum_over_taps_at_each_pixel(known):
    x, w, b = integers(3, 2, 5, 6, 4), integers(4, 6, 3, 2, 2), integers(5, 6)
    expected = np.zeros((2, 3, 5, 6), dtype=np.float32)
    xp = np.pad(x, [(0, 0), (1, 1), (0, 0), (0, 0)])
    for n, i, j, m in np.ndindex(expected.shape):
        first = m // 3 * 2
        patch = xp[n, 2 * i : 2 * i + 3, j : j + 2, first : first + 2]
        expected[n, i, j, m] = (patch * w[m]).sum() + b[m]
    options = {"group": 2, "strides": (2, 1), "pads": (1, 0, 1, 0), "kernel_shape": (3, 2)}
    same(run("Conv", x, w, b, domain=LAST, known=known, version=1, **options), expected)


def test_channels_last_pools_and_normalization_work_on_the_last_axis():
    x = f32([[[1, 10], [2, 20]], [[3, 30], [4, 40]]])
    same(run("MaxPool", x, domain=LAST, kernel_shape=(2, 2)), f32([[[4, 40]]]))
    same(run("AveragePool", x, domain=LAST, kernel_shape=(2, 2)), f32([[[2.5, 25]]]))
    norm = f32(1, 2), f32(0, 1), f32(0, 10), f32(1, 4)
    y = run("BatchNormalization", x, *norm, domain=LAST, epsilon=0.0, known=(1, 2, 3, 4))
    same(y, f32([[[1, 1], [2, 11]], [[3, 21], [4, 31]]]))


# --- pools --------------------------------------------------------------------------------


def test_ceil_mode_lets_the_last_window_hang_over():
    options = {"kernel_shape": (2,), "strides": (2,)}
    same(run("MaxPool", line([2, 1, 3, 4, 5]), **options), line([2, 4]))
    same(run("MaxPool", line([2, 1, 3, 4, 5]), ceil_mode=1, **options), line([2, 4, 5]))


def test_ceil_mode_makes_no_window_that_starts_behind_the_input():
    options = {"kernel_shape": (2,), "strides": (3,), "ceil_mode": 1}
    same(run("MaxPool", line([1, 2, 3]), **options), line([2]))
    same(run("MaxPool", line([1, 2, 3, 4]), **options), line([2, 4]))


def test_a_dilated_pool_skips_elements():
    y = run("MaxPool", line([1, 9, 3, 0, 2]), kernel_shape=(3,), dilations=(2,))
    same(y, line([3]))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.float32, np.float16])
def test_padding_never_wins_a_maximum(dtype):
    low = -5 if dtype != np.uint8 else 0
    x = np.array([[[low, low - (dtype != np.uint8)]]], dtype=dtype)
    y = run("MaxPool", x, kernel_shape=(3,), pads=(1, 1))
    same(y, np.full((1, 1, 2), low, dtype=dtype))


def test_a_pool_of_one_tap_is_a_copy():
    x = line([1, 2])
    assert not np.shares_memory(run("MaxPool", x, kernel_shape=(1,)), x)


def test_max_pool_says_where_its_first_maximum_is():
    x = f32([[1, 5, 5], [5, 2, 2]])[np.newaxis].repeat(2, axis=1)
    options = {"kernel_shape": (2, 2), "outputs": 2}
    y, index = run("MaxPool", x, **options)
    same(y, np.full((1, 2, 1, 2), 5, dtype=np.float32))
    same(index, np.array([[[[1, 1]], [[7, 7]]]], dtype=np.int64))
    _, index = run("MaxPool", x, storage_order=1, **options)
    # counted column by column, (0, 1) is behind (0, 0) and (1, 0)
    same(index, np.array([[[[2, 2]], [[8, 8]]]], dtype=np.int64))


def test_the_index_of_a_maximum_is_never_padding():
    x = line([-INF, -INF])
    _, index = run("MaxPool", x, kernel_shape=(2,), pads=(1, 0), outputs=2)
    same(index, np.array([[[0, 0]]], dtype=np.int64))


@pytest.mark.parametrize(("include", "expected"), [(0, [4, 6, 8]), (1, [2, 6, 4])])
def test_an_average_counts_padding_only_if_asked_to(include, expected):
    options = {"kernel_shape": (2,), "pads": (1, 1), "count_include_pad": include}
    same(run("AveragePool", line([4, 8]), **options), line(expected))


@pytest.mark.parametrize("include", [0, 1])
def test_an_average_never_counts_what_hangs_over(include):
    options = {"kernel_shape": (2,), "strides": (2,), "ceil_mode": 1}
    y = run("AveragePool", line([1, 2, 3]), count_include_pad=include, **options)
    same(y, line([1.5, 3]))


def test_pools_refuse_what_is_not_certain():
    x = line([1, 2, 3])
    for attributes in (
        {},
        {"kernel_shape": (2,), "auto_pad": "VALID", "ceil_mode": 1, "strides": (2,)},
        {"kernel_shape": (2,), "storage_order": 2},
    ):
        with pytest.raises(Unserved):
            build("MaxPool", (x,), **attributes)


def test_lp_pools_take_the_root_of_sums_of_powers():
    x = line([3, -4, 0])
    same(run("LpPool", x, kernel_shape=(2,)), line([5, 4]))
    same(run("LpPool", x, kernel_shape=(2,), p=1), line([7, 4]))
    same(run("GlobalLpPool", x), line([5]))


def test_global_pools_fold_all_of_a_channel():
    x = integers(0, 2, 3, 2, 2)
    rows = x.reshape(2, 3, 4)
    same(run("GlobalMaxPool", x), rows.max(axis=2).reshape(2, 3, 1, 1))
    same(run("GlobalAveragePool", x), (rows.sum(axis=2) / 4).reshape(2, 3, 1, 1))
    same(run("GlobalAveragePool", line([1, 2, 6])), line([3]))


def test_a_global_average_adds_in_four_lanes():
    # lane 0 loses the one added to it; lanes 0 and 2 make a pair, lanes 1 and 3 keep two
    x = line([2**24, 0, 0, 0, 1, 1, 0, 1])
    same(run("GlobalAveragePool", x), line([(2**24 + 2) / 8]))
