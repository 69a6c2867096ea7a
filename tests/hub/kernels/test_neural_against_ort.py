"""Kernels of neural layers against onnxruntime, on seeded random configurations.

onnxruntime runs one node without optimizations and on one thread. Integer results, maxima,
copies, batch normalization and average pools must agree in every bit. Sums of products may
differ by their order: the tolerances are multiples of the float32 rounding of the sums here.
Configurations that onnxruntime itself refuses, or is known to read differently from the
operator documents, are not drawn; each is named where it is left out.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from qonnx_hub.executor.kernels import conv, matmul, normalization, pool, quantize
from qonnx_hub.executor.kernels import recurrent as recurrent_family
from qonnx_hub.executor.kernels import resize as resize_family
from qonnx_hub.executor.kernels.spec import KernelSpec

ort = pytest.importorskip("onnxruntime")

if tuple(int(part) for part in ort.__version__.split(".")[:2]) < (1, 32):
    # Version 1.23, for one, wraps large quotients, counts what hangs over a pool, and lacks
    # kernels for some integer types.
    pytest.skip("exact agreement was measured with onnxruntime 1.32", allow_module_level=True)

FAMILIES = (conv, matmul, normalization, pool, quantize, recurrent_family, resize_family)
TABLE = {key: factory for family in FAMILIES for key, factory in family.KERNELS.items()}
SEEDS = range(30)
OPSET = 21


def f32(rng, *dims):
    return rng.standard_normal(dims).astype(np.float32)


def any_integers(rng, dtype, *dims):
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max + 1, size=dims).astype(dtype)


def positive(rng, *dims, low=0.01, high=0.1):
    return np.asarray(rng.uniform(low, high, size=dims), dtype=np.float32)


def by_onnxruntime(op, inputs, outputs, attributes, opset):
    names = [f"i{n}" if x is not None else "" for n, x in enumerate(inputs)]
    feeds = {name: x for name, x in zip(names, inputs, strict=True) if name}
    node = helper.make_node(op, names, [f"o{n}" for n in range(outputs)], **attributes)
    graph = helper.make_graph(
        [node],
        "one node",
        [
            helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
            for k, x in feeds.items()
        ],
        [onnx.ValueInfoProto(name=name) for name in node.output],
    )
    imports = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=10)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, feeds)


def by_kernel(op, inputs, outputs, attributes, opset, fold):
    spec = KernelSpec(
        op_type=op,
        version=opset,
        attributes={k: tuple(v) if isinstance(v, list) else v for k, v in attributes.items()},
        constants=tuple(x if n and fold else None for n, x in enumerate(inputs)),
        present=tuple(x is not None for x in inputs),
        num_outputs=outputs,
    )
    with np.errstate(all="ignore"):
        results = TABLE["", op](spec)(*inputs)
    return [results] if outputs == 1 else list(results)


def agree(op, inputs, attributes, *, outputs=1, opset=OPSET, rtol=0.0, atol=0.0):
    wanted = by_onnxruntime(op, inputs, outputs, attributes, opset)
    for fold in (False, True):
        results = by_kernel(op, inputs, outputs, attributes, opset, fold)
        assert len(results) == len(wanted) > 0
        for result, expected in zip(results, wanted, strict=True):
            assert expected.size
            assert (result.dtype, result.shape) == (expected.dtype, expected.shape)
            np.testing.assert_allclose(result, expected, rtol=rtol, atol=atol)


def draw_windows(rng, rank):
    """Return attributes that fit inputs of ten or more elements per axis."""
    kernel = [int(k) for k in rng.integers(1, 5, size=rank)]
    attributes = {"kernel_shape": kernel}
    if rng.random() < 0.7:
        attributes["strides"] = [int(s) for s in rng.integers(1, 4, size=rank)]
    automatic = rng.choice(["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])
    if rng.random() < 0.3:
        attributes["auto_pad"] = str(automatic)
    elif rng.random() < 0.7:
        attributes["pads"] = [int(rng.integers(0, k)) for k in kernel * 2]
    same = "SAME" in attributes.get("auto_pad", "")
    if same and "strides" in attributes:
        # onnxruntime computes a negative padding where the stride is longer than the kernel
        attributes["strides"] = [
            min(pair) for pair in zip(attributes["strides"], kernel, strict=True)
        ]
    # onnxruntime refuses dilations beside SAME, or pads as if there were none
    if not same and rng.random() < 0.5:
        attributes["dilations"] = [int(d) for d in rng.integers(1, 4, size=rank)]
    return attributes


def draw_convolution(rng):
    """Return (attributes, input shape, weight shape)."""
    rank, group = int(rng.choice([1, 2, 2, 3])), int(rng.choice([1, 1, 2, 3]))
    attributes = {**draw_windows(rng, rank), "group": group}
    each = 1 if rng.random() < 0.3 else int(rng.integers(1, 4))
    size = [40, 45] if rank == 2 and rng.random() < 0.3 else rng.integers(10, 14, size=rank)
    samples = int(rng.integers(1, 4))
    x = (samples, group * each, *(int(n) for n in size))
    w = (group * int(rng.integers(1, 4)), each, *attributes["kernel_shape"])
    return attributes, x, w


@pytest.mark.parametrize("seed", SEEDS)
def test_conv(seed):
    rng = np.random.default_rng(seed)
    attributes, x, w = draw_convolution(rng)
    bias = f32(rng, w[0]) if rng.random() < 0.5 else None
    inputs = [f32(rng, *x), f32(rng, *w), *([] if bias is None else [bias])]
    agree("Conv", inputs, attributes, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_conv_transpose(seed):
    rng = np.random.default_rng(seed)
    attributes, x, w = draw_convolution(rng)
    rank = len(x) - 2
    kernel, strides = attributes["kernel_shape"], attributes.get("strides", [1] * rank)
    dilations = attributes.get("dilations", [1] * rank)
    reach = [(kernel[i] - 1) * dilations[i] + 1 for i in range(rank)]
    if rng.random() < 0.4:
        # onnxruntime refuses what the stride does not cover, even where a dilation does
        attributes["output_padding"] = [int(rng.integers(0, stride)) for stride in strides]
    if rng.random() < 0.3 and all(reach[i] > strides[i] for i in range(rank)):
        attributes.pop("pads", None)
        full = [(x[2 + i] - 1) * strides[i] + reach[i] for i in range(rank)]
        attributes["output_shape"] = [int(n - rng.integers(0, 2)) for n in full]
    group = attributes["group"]
    weight = f32(rng, x[1], w[0] // group, *kernel)
    agree("ConvTranspose", [f32(rng, *x), weight], attributes, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_qlinear_conv(seed):
    rng = np.random.default_rng(seed)
    attributes, x, w = draw_convolution(rng)
    codes = np.int8 if rng.random() < 0.5 else np.uint8
    weights = np.int8 if codes is np.int8 or rng.random() < 0.5 else np.uint8
    channels = (w[0],) if rng.random() < 0.5 else ()
    inputs = [
        *(any_integers(rng, codes, *x), positive(rng), any_integers(rng, codes)),
        *(any_integers(rng, weights, *w), positive(rng, *channels)),
        np.full(channels, rng.integers(0, 100), dtype=weights),
        *(positive(rng, low=0.1, high=2.0), any_integers(rng, codes)),
    ]
    if rng.random() < 0.5:
        inputs.append(rng.integers(-9999, 9999, size=w[0]).astype(np.int32))
    agree("QLinearConv", inputs, attributes)


@pytest.mark.parametrize("seed", SEEDS)
def test_conv_integer(seed):
    rng = np.random.default_rng(seed)
    attributes, x, w = draw_convolution(rng)
    codes, weights = rng.choice([np.int8, np.uint8]), rng.choice([np.int8, np.uint8])
    inputs = [any_integers(rng, codes, *x), any_integers(rng, weights, *w)]
    inputs += [any_integers(rng, codes), any_integers(rng, weights)]
    agree("ConvInteger", inputs, attributes)


@pytest.mark.parametrize("seed", SEEDS)
def test_qlinear_matmul(seed):
    rng = np.random.default_rng(seed)
    lead, (m, k, n) = [(), (2,)][seed % 2], (int(d) for d in rng.integers(1, 40, size=3))
    left = np.int8 if seed % 3 == 0 else np.uint8
    right = np.int8 if left is np.int8 or rng.random() < 0.5 else np.uint8
    columns = (n,) if rng.random() < 0.5 else ()
    inputs = [
        *(any_integers(rng, left, *lead, m, k), positive(rng), any_integers(rng, left)),
        *(any_integers(rng, right, k, n), positive(rng, *columns)),
        np.full(columns, rng.integers(0, 100), dtype=right),
        *(positive(rng, low=0.1, high=2.0), any_integers(rng, left)),
    ]
    agree("QLinearMatMul", inputs, {})


@pytest.mark.parametrize("seed", SEEDS)
def test_matmul_integer(seed):
    rng = np.random.default_rng(seed)
    m, k, n = (int(d) for d in rng.integers(1, 40, size=3))
    left, right = rng.choice([np.int8, np.uint8]), rng.choice([np.int8, np.uint8])
    columns = (n,) if rng.random() < 0.5 else ()
    inputs = [any_integers(rng, left, m, k), any_integers(rng, right, k, n)]
    inputs += [any_integers(rng, left), any_integers(rng, right, *columns)]
    agree("MatMulInteger", inputs, {})


def draw_pool(rng):
    """Return (attributes, input shape)."""
    rank = int(rng.choice([1, 2, 2, 3]))
    attributes = draw_windows(rng, rank)
    # Beside VALID, shape inference and operator document disagree about ceil_mode.
    if attributes.get("auto_pad") != "VALID" and rng.random() < 0.5:
        attributes["ceil_mode"] = 1
    size = (int(n) for n in rng.integers(10, 14, size=rank))
    return attributes, (2, 3, *size)


@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.uint8])
@pytest.mark.parametrize("seed", SEEDS)
def test_max_pool(seed, dtype):
    rng = np.random.default_rng(seed)
    attributes, shape = draw_pool(rng)
    x = any_integers(rng, np.int8, *shape).astype(dtype)
    agree("MaxPool", [x], attributes)
    agree("MaxPool", [x], {**attributes, "storage_order": seed % 2}, outputs=2)


@pytest.mark.parametrize("include", [0, 1])
@pytest.mark.parametrize("seed", SEEDS)
def test_average_pool(seed, include):
    rng = np.random.default_rng(seed)
    attributes, shape = draw_pool(rng)
    agree("AveragePool", [f32(rng, *shape)], {**attributes, "count_include_pad": include})


@pytest.mark.parametrize("seed", SEEDS)
def test_lp_pool(seed):
    rng = np.random.default_rng(seed)
    attributes, shape = draw_pool(rng)
    agree("LpPool", [f32(rng, *shape)], {**attributes, "p": 1 + seed % 3}, rtol=1e-5)


@pytest.mark.parametrize("size", [(1,), (5,), (7, 7), (4, 8), (13, 3), (20, 20), (3, 3, 3)])
def test_global_average_pool(size):
    agree("GlobalAveragePool", [f32(np.random.default_rng(0), 2, 5, *size)], {})


@pytest.mark.parametrize("shape", [(3, 16), (2, 8, 5), (1, 7, 9, 4), (2, 3, 4, 5, 6)])
def test_batch_normalization(shape):
    rng = np.random.default_rng(sum(shape))
    parameters = [f32(rng, shape[1]) for _ in range(3)]
    variance = positive(rng, shape[1], low=0.0, high=3.0)
    inputs = [f32(rng, *shape), *parameters, variance]
    agree("BatchNormalization", inputs, {"epsilon": 1e-3})


MODES = (
    "align_corners",
    "asymmetric",
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("coordinates", MODES)
@pytest.mark.parametrize("seed", range(10))
def test_resize(seed, coordinates, mode):
    rng = np.random.default_rng(seed)
    x = f32(rng, 1, 2, *(int(n) for n in rng.integers(2, 9, size=2)))
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates}
    if mode == "nearest":
        roundings = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
        attributes["nearest_mode"] = roundings[seed % 4]
    if mode == "cubic":
        attributes["exclude_outside"] = seed % 2
    scales = sizes = None
    if coordinates == "align_corners" or seed % 2:
        sizes = np.array([1, 2, *rng.integers(1, 18, size=2)], dtype=np.int64)
    else:
        scales = np.array(
            [1, 1, *rng.choice([0.5, 0.6, 0.75, 1.5, 2, 3], 2)], dtype=np.float32
        )
        if all(int(np.float32(s) * n) == n for s, n in zip(scales, x.shape, strict=True)):
            # onnxruntime copies where shapes are equal, whatever the scale.
            scales[2] = 2
    inputs = [x, None, scales] if sizes is None else [x, None, None, sizes]
    exact = mode == "nearest"
    agree("Resize", inputs, attributes, rtol=0 if exact else 1e-4, atol=0 if exact else 1e-5)


FUNCTIONS = {
    **dict.fromkeys(("Tanh", "Sigmoid", "Softsign"), ()),
    **dict.fromkeys(("HardSigmoid", "ScaledTanh"), ("alpha", "beta")),
    **dict.fromkeys(("LeakyRelu", "Elu"), ("alpha",)),
}
"""Activations that stay bounded or nearly so, with the parameters that they take."""


def draw_recurrent(rng, gates, functions):
    """Return (attributes, [X, W, R, B, sequence_lens, initial_h])."""
    steps, samples, size, hidden = (int(n) for n in rng.integers(1, 6, size=4))
    direction = str(rng.choice(["forward", "reverse", "bidirectional"]))
    count = 2 if direction == "bidirectional" else 1
    attributes = {"direction": direction, "hidden_size": hidden}
    if rng.random() < 0.3:
        attributes["clip"] = 0.5
    if rng.random() < 0.4:
        names = [str(n) for n in rng.choice(list(FUNCTIONS), functions * count)]
        attributes["activations"] = names
        for parameter in ("alpha", "beta"):
            values = [0.25 for name in names if parameter in FUNCTIONS[name]]
            if values:
                attributes[f"activation_{parameter}"] = values
    weights = f32(rng, count, gates * hidden, size), f32(rng, count, gates * hidden, hidden)
    optional = [
        f32(rng, count, 2 * gates * hidden),
        rng.integers(1, steps + 1, size=samples).astype(np.int32),
        f32(rng, count, samples, hidden),
    ]
    optional = [value if rng.random() < 0.6 else None for value in optional]
    return attributes, [f32(rng, steps, samples, size), *weights, *optional]


@pytest.mark.parametrize("seed", SEEDS)
def test_lstm(seed):
    rng = np.random.default_rng(seed)
    attributes, inputs = draw_recurrent(rng, 4, 3)
    count, hidden = len(inputs[1]), attributes["hidden_size"]
    memory, peepholes = (
        f32(rng, count, inputs[0].shape[1], hidden),
        f32(rng, count, 3 * hidden),
    )
    inputs += [value if rng.random() < 0.6 else None for value in (memory, peepholes)]
    if rng.random() < 0.3:
        attributes["input_forget"] = 1
    agree("LSTM", inputs, attributes, outputs=3, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_gru(seed):
    rng = np.random.default_rng(seed)
    attributes, inputs = draw_recurrent(rng, 3, 2)
    attributes["linear_before_reset"] = seed % 2
    agree("GRU", inputs, attributes, outputs=2, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_rnn(seed):
    attributes, inputs = draw_recurrent(np.random.default_rng(seed), 1, 1)
    agree("RNN", inputs, attributes, outputs=2, rtol=1e-4, atol=1e-5)


def draw_scales(rng, shape):
    """Return (attributes, scales) per tensor, per axis or per block."""
    axis, block = int(rng.integers(len(shape))), int(rng.integers(1, 4))
    kind = rng.choice(["tensor", "axis", "block"])
    if kind == "tensor":
        attributes, dims = {}, ()
    elif kind == "axis":
        attributes, dims = {"axis": axis}, (shape[axis],)
    else:
        attributes = {"axis": axis, "block_size": block}
        dims = tuple(-(-n // block) if i == axis else n for i, n in enumerate(shape))
    scales = positive(rng, *dims)
    if rng.random() < 0.5:
        scales = np.asarray(np.exp2(np.rint(np.log2(scales))), dtype=np.float32)
    return attributes, scales


QUANTIZED = [np.int8, np.uint8, np.int16, np.uint16]


@pytest.mark.parametrize("opset", [21, 23])
@pytest.mark.parametrize("float_type", [np.float32, np.float16])
@pytest.mark.parametrize("dtype", QUANTIZED)
@pytest.mark.parametrize("seed", range(8))
def test_quantize_linear(seed, dtype, float_type, opset):
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(2, 8, size=rng.integers(1, 4)))
    attributes, scales = draw_scales(rng, shape)
    x = f32(rng, *shape) * np.float32(rng.choice([1, 10, 1e3]))
    if seed % 2:
        # halves of whole steps: ties
        x = np.rint(x * 2) / 2 * scales.flat[0]
    x.flat[:4] = np.array([np.inf, -np.inf, np.nan, 1e20])[: min(4, x.size)]
    with np.errstate(over="ignore"):
        x = x.astype(float_type)
    zero_points = any_integers(rng, dtype, *scales.shape)
    inputs = [x, scales.astype(float_type), zero_points]
    agree("QuantizeLinear", inputs, attributes, opset=opset)


@pytest.mark.parametrize("float_type", [np.float32, np.float16])
@pytest.mark.parametrize("dtype", [*QUANTIZED, np.int32])
@pytest.mark.parametrize("seed", range(8))
def test_dequantize_linear(seed, dtype, float_type):
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(2, 8, size=rng.integers(1, 4)))
    attributes, scales = draw_scales(rng, shape)
    zero_points = any_integers(rng, dtype, *scales.shape)
    if dtype is np.int32:
        # onnxruntime subtracts in int32, which wraps
        zero_points //= 2**8
    x = any_integers(rng, dtype, *shape) if dtype is not np.int32 else None
    if x is None:
        x = rng.integers(-(2**30), 2**30, size=shape).astype(np.int32)
    agree("DequantizeLinear", [x, scales.astype(float_type), zero_points], attributes)


@pytest.mark.parametrize("seed", range(10))
def test_dynamic_quantize_linear(seed):
    rng = np.random.default_rng(seed)
    x = f32(rng, 5, 7) + np.float32(rng.choice([-3, 0, 3]))
    agree("DynamicQuantizeLinear", [x], {}, outputs=3)
