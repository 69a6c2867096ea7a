"""Layers and what stands around them: integer-only, and equal to fake quantization.

All scales here are powers of two, so that float32 itself sums exactly and every answer must be
the same in every bit; the reference is the executor on the graph with its quantizers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir
import pytest

from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.onnx_reader import read_model
from tests.adapters.qlinear.kit import Net, assert_exact, export, net, ops, run_everywhere
from tests.support import DOMAIN, model_of

RNG = np.random.default_rng


def conv_net(
    weight: tuple[int, ...],
    op_type: str = "Conv",
    out_bits: int = 4,
    bias: bool = False,
    **attrs: Any,
) -> Net:
    n = net()
    n.quant("x", "xq", 0.25, 4)
    n.weight("w", RNG(1).normal(0, 1, weight), 0.25, 4, narrow=1)
    operands = ["xq", "w"]
    if bias:
        outputs = (
            weight[1] * attrs.get("group", 1) if op_type == "ConvTranspose" else weight[0]
        )
        n.constant("b", (np.arange(outputs) * 0.0625 - 0.125).astype(np.float32))
        operands.append("b")
    n.add(op_type, operands, "acc", **attrs)
    n.quant("acc", "y", 0.5, out_bits, signed=1)
    return n


@pytest.mark.parametrize(
    ("x", "weight", "attrs"),
    [
        ((2, 3, 9), (5, 3, 3), {}),
        ((2, 3, 9), (5, 3, 3), {"pads": [1, 2], "strides": [2]}),
        ((1, 3, 7, 8), (5, 3, 3, 2), {}),
        ((1, 3, 7, 8), (5, 3, 3, 2), {"pads": [1, 0, 2, 1], "strides": [2, 1]}),
        ((1, 4, 7, 8), (6, 2, 3, 3), {"group": 2, "pads": [1, 1, 1, 1]}),
        ((1, 4, 7, 8), (4, 1, 3, 3), {"group": 4}),
        ((1, 4, 7, 8), (8, 1, 3, 3), {"group": 4, "strides": [2, 2]}),
        ((1, 3, 9, 9), (5, 3, 3, 3), {"dilations": [2, 2], "pads": [2, 2, 2, 2]}),
        ((1, 3, 7, 8), (5, 3, 3, 3), {"auto_pad": "SAME_UPPER"}),
    ],
)
@pytest.mark.parametrize("bias", [False, True])
def test_convolutions_of_every_kind_are_integer_only(
    x: tuple[int, ...], weight: tuple[int, ...], attrs: dict[str, Any], bias: bool
) -> None:
    model = conv_net(weight, bias=bias, **attrs).model(x, "y")
    artifact = export(model)
    assert artifact.notes[0] == "1 of 1 layers integer-only"
    assert ops(artifact) == [
        "QuantizeLinear",
        "Clip",
        "QLinearConv",
        "Clip",
        "DequantizeLinear",
    ]
    assert_exact(model, artifact)


@pytest.mark.parametrize(
    ("x", "weight", "attrs"),
    [
        ((1, 3, 5, 6), (3, 4, 3, 3), {}),
        ((1, 3, 5, 6), (3, 4, 3, 3), {"pads": [1, 1, 1, 1]}),
        ((1, 3, 5, 6), (3, 4, 2, 2), {"strides": [2, 2]}),
        ((1, 3, 5, 6), (3, 4, 3, 2), {"strides": [2, 3], "pads": [1, 0, 0, 1]}),
        ((2, 3, 5, 6), (3, 4, 3, 3), {"strides": [2, 2], "output_padding": [1, 1]}),
        ((1, 4, 5, 6), (4, 3, 3, 3), {"group": 2, "strides": [2, 2]}),
        ((1, 3, 7), (3, 4, 3), {"strides": [3]}),
        ((1, 3, 5, 6), (3, 4, 2, 2), {"dilations": [2, 2]}),
        ((1, 3, 5, 6), (3, 4, 2, 2), {"strides": [4, 4]}),
        ((1, 3, 5, 6), (3, 4, 3, 3), {"pads": [3, 3, 3, 3]}),
    ],
)
def test_transposed_convolutions_are_convolutions_with_turned_kernels(
    x: tuple[int, ...], weight: tuple[int, ...], attrs: dict[str, Any]
) -> None:
    model = conv_net(weight, "ConvTranspose", bias=True, **attrs).model(x, "y")
    artifact = export(model)
    assert artifact.notes[0] == "1 of 1 layers integer-only"
    assert_exact(model, artifact)


@pytest.mark.parametrize("shape", [("N", 12), (2, 5, 12), (2, 3, 5, 12)])
def test_a_matrix_product_keeps_its_own_operator(shape: tuple[Any, ...]) -> None:
    n = net()
    n.quant("x", "xq", 0.25, 4)
    n.weight("w", RNG(1).normal(0, 1, (12, 7)), 0.25, 4)
    n.add("MatMul", ["xq", "w"], "acc")
    n.quant("acc", "y", 0.5, 6)
    model = n.model(shape, "y")
    artifact = export(model)
    assert "QLinearMatMul" in ops(artifact)
    assert_exact(model, artifact)


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm_adds_an_int32_bias(transposed: int) -> None:
    n = net()
    n.quant("x", "xq", 0.25, 4)
    shape = (7, 12) if transposed else (12, 7)
    n.weight("w", RNG(1).normal(0, 1, shape), 0.25, 4)
    n.weight("b", RNG(2).normal(0, 1, 7), 0.0625, 8)
    n.add("Gemm", ["xq", "w", "b"], "acc", transB=transposed)
    n.quant("acc", "y", 0.5, 6)
    model = n.model(("N", 12), "y")
    artifact = export(model)
    stored = [i for i in artifact.model.graph.initializers.values() if "bias" in str(i.name)]
    expected = np.rint(n.constants["b_float"] / np.float32(0.0625)).astype(np.int32)
    np.testing.assert_array_equal(stored[0].const_value.numpy(), expected)
    assert_exact(model, artifact)


def test_scales_per_channel_become_weight_scales() -> None:
    n = net()
    n.quant("x", "xq", 0.25, 8)
    scale = np.array([0.5, 0.25, 0.0625, 2.0], dtype=np.float32)
    n.weight("w", RNG(1).normal(0, 2, (4, 3, 3, 3)), scale.reshape(4, 1, 1, 1), 4)
    n.add("Conv", ["xq", "w"], "acc")
    n.quant("acc", "y", 1.0, 5)
    model = n.model((1, 3, 6, 6), "y")
    artifact = export(model)
    stored = [v for k, v in artifact.model.graph.initializers.items() if "weight_scale" in k]
    np.testing.assert_array_equal(stored[0].const_value.numpy(), scale)
    assert_exact(model, artifact)


@pytest.mark.parametrize("out", [{"bits": 8, "signed": 0}, {"bits": 4, "signed": 0}])
def test_relu_is_the_lower_bound_of_the_clip(out: dict[str, int]) -> None:
    n = net()
    n.quant("x", "xq", 0.25, 4)
    n.weight("w", RNG(1).normal(0, 1, (12, 7)), 0.25, 4)
    n.add("MatMul", ["xq", "w"], "acc")
    n.add("Relu", ["acc"], "relu")
    n.quant("relu", "y", 0.25, out["bits"], signed=out["signed"])
    model = n.model(("N", 12), "y")
    artifact = export(model)
    assert "Relu" not in ops(artifact)
    assert_exact(model, artifact)


def test_relu_before_a_signed_quantizer_is_a_clip_at_zero() -> None:
    n = net()
    n.quant("x", "xq", 0.25, 4)
    n.weight("w", RNG(1).normal(0, 1, (12, 7)), 0.25, 4)
    n.add("MatMul", ["xq", "w"], "acc")
    n.add("Relu", ["acc"], "relu")
    n.quant("relu", "y", 0.25, 4)
    model = n.model(("N", 12), "y")
    artifact = export(model)
    lows = [v for k, v in artifact.model.graph.initializers.items() if k.endswith("y_low")]
    assert [int(v.const_value.numpy()) for v in lows] == [0]
    assert_exact(model, artifact)


def test_batch_normalization_folds_where_every_code_stays() -> None:
    n = net()
    n.quant("x", "xq", 1.0, 2, narrow=1)
    n.weight("w", RNG(1).normal(0, 0.8, (40, 9)), 1.0, 2, narrow=1)
    n.add("MatMul", ["xq", "w"], "acc")
    gain = RNG(3).uniform(0.05, 0.3, 9).astype(np.float32)
    gain[::3] *= -1
    n.constants |= {"g": gain, "s": RNG(4).normal(0, 0.3, 9).astype(np.float32)}
    n.constants |= {"m": RNG(5).normal(0, 1, 9).astype(np.float32)}
    n.constants |= {"v": RNG(6).uniform(0.5, 2, 9).astype(np.float32)}
    n.add("BatchNormalization", ["acc", "g", "s", "m", "v"], "bn")
    n.quant("bn", "y", 1.0, 2, narrow=1)
    model = n.model(("N", 40), "y")
    artifact = export(model)
    assert "BatchNormalization" not in ops(artifact)
    assert_exact(model, artifact)


def test_a_normalization_that_no_bias_can_say_stays_in_float() -> None:
    n = net()
    n.quant("x", "xq", 2.0**-7, 8)
    n.weight("w", RNG(1).normal(0, 0.5, (64, 9)), 2.0**-7, 8)
    n.add("MatMul", ["xq", "w"], "acc")
    n.add("Mul", ["acc", n.constant("g", RNG(2).uniform(0.3, 0.9, 9).astype(np.float32))], "t")
    n.add("Add", ["t", n.constant("o", RNG(3).normal(0, 1, 9).astype(np.float32))], "u")
    n.quant("u", "y", 2.0**-6, 8)
    model = n.model(("N", 64), "y")
    artifact = export(model)
    assert ops(artifact)[1:6] == ["MatMulInteger", "Cast", "Mul", "Mul", "Add"]
    assert "float epilogue" in artifact.notes[0]
    assert_exact(model, artifact)


def test_the_same_normalization_folds_when_losses_are_allowed_and_says_how_much() -> None:
    n = net()
    n.quant("x", "xq", 2.0**-7, 8)
    n.weight("w", RNG(1).normal(0, 0.5, (64, 9)), 2.0**-7, 8)
    n.add("MatMul", ["xq", "w"], "acc")
    n.add("Mul", ["acc", n.constant("g", RNG(2).uniform(0.3, 0.9, 9).astype(np.float32))], "t")
    n.add("Add", ["t", n.constant("o", RNG(3).normal(0, 1, 9).astype(np.float32))], "u")
    n.quant("u", "y", 2.0**-6, 8)
    model = n.model(("N", 64), "y")
    artifact = export(model, allow_lossy=True)
    assert artifact.notes[0] == "1 of 1 layers integer-only"
    [record] = [r for r in artifact.quantizers if r.node == "y"]
    assert not record.exact
    assert "int32" in record.reason
    predicted = float(record.reason.split("share below ")[1].split()[0])
    x = {"x": RNG(9).uniform(-1, 1, (20000, 64)).astype(np.float32)}
    ours = run_everywhere(artifact, x)["y"]
    steps = np.abs(ours - Session(model).run(x)["y"]) / np.float32(2.0**-6)
    assert steps.max() <= 1
    assert 0 < np.mean(steps) <= predicted


@pytest.mark.parametrize("pool", ["AveragePool", "GlobalAveragePool"])
def test_averages_are_sums_and_a_multiplier(pool: str) -> None:
    n = net()
    n.quant("x", "xq", 0.25, 4, signed=0)
    attrs: dict[str, Any] = (
        {"kernel_shape": [2, 2], "strides": [2, 2]} if pool == "AveragePool" else {}
    )
    n.add(pool, ["xq"], "avg", **attrs)
    n.quant("avg", "y", 0.125, 6)
    model = n.model((1, 5, 4, 6), "y")
    artifact = export(model)
    assert "QLinearConv" in ops(artifact)
    assert pool not in ops(artifact)
    assert_exact(model, artifact)


@pytest.mark.parametrize(
    ("op_type", "attrs", "constants"),
    [
        ("MaxPool", {"kernel_shape": [2, 2], "pads": [1, 1, 1, 1]}, {}),
        ("Transpose", {"perm": [0, 2, 1, 3]}, {}),
        ("Flatten", {"axis": 1}, {}),
        ("Reshape", {}, {"c": np.array([1, 6, -1, 2], dtype=np.int64)}),
        ("Pad", {}, {"c": np.array([0, 0, 1, 2, 0, 0, 1, 0], dtype=np.int64)}),
        ("Resize", {"mode": "nearest"}, {"": None, "c": np.array([1, 1, 2, 2], np.float32)}),
        ("Relu", {}, {}),
        (
            "Slice",
            {},
            {k: np.array([v], np.int64) for k, v in zip("cde", (1, 5, 3), strict=True)},
        ),
    ],
)
@pytest.mark.parametrize("signed", [0, 1])
def test_moves_act_on_integers(
    op_type: str, attrs: dict[str, Any], constants: dict[str, Any], signed: int
) -> None:
    n = net()
    # Eight unsigned bits make the file's type uint8, so both zero points are met.
    n.quant("x", "xq", 0.25, 8 if not signed else 5, signed=signed)
    n.constants |= {k: v for k, v in constants.items() if v is not None}
    n.add(op_type, ["xq", *constants], "m", **attrs)
    model = n.model((1, 3, 4, 6), "m")
    artifact = export(model)
    kinds = ops(artifact)
    expected = "Clip" if op_type == "Relu" else op_type
    if op_type == "Relu" and not signed:
        assert "Relu" not in kinds
    else:
        assert kinds.index(expected) < kinds.index("DequantizeLinear")
    assert_exact(model, artifact)


def test_concat_of_one_grid_stays_integer_and_of_two_grids_does_not() -> None:
    for second, expected in ((0.25, True), (0.5, False)):
        n = net()
        n.quant("x", "a", 0.25, 4)
        n.add("Neg", ["x"], "minus")
        n.quant("minus", "b", second, 4)
        n.add("Concat", ["a", "b"], "y", axis=1)
        model = n.model((2, 3), "y")
        artifact = export(model)
        kinds = ops(artifact)
        assert (kinds.index("Concat") < kinds.index("DequantizeLinear")) is expected
        assert_exact(model, artifact)


@pytest.mark.parametrize("op_type", ["Add", "Sub", "Mul", "Max", "Min"])
def test_a_residual_operator_is_a_table_of_both_codes(op_type: str) -> None:
    n = net()
    n.quant("x", "a", 0.3, 4)
    n.add("Abs", ["x"], "size")
    n.quant("size", "b", 0.7, 3, signed=0)
    n.add(op_type, ["a", "b"], "sum")
    n.add("Relu", ["sum"], "relu")
    n.quant("relu", "y", 0.11, 5)
    model = n.model((2, 30), "y")
    artifact = export(model)
    assert op_type not in ops(artifact) or op_type in {"Add", "Sub", "Mul"}
    assert "Gather" in ops(artifact)
    assert_exact(model, artifact)


@pytest.mark.parametrize("rounding", ["ROUND", "FLOOR", "CEIL", "HALF_UP", "DOWN"])
def test_a_quantizer_of_integers_is_a_table(rounding: str) -> None:
    n = net()
    n.quant("x", "a", 0.3, 8)
    n.quant("a", "y", 0.7, 3, rounding_mode=rounding)
    model = n.model((2, 200), "y")
    artifact = export(model)
    assert "Gather" in ops(artifact)
    assert_exact(model, artifact, spread=10.0)


@pytest.mark.parametrize("rounding", ["FLOOR", "CEIL", "UP", "HALF_UP", "HALF_DOWN"])
@pytest.mark.parametrize("zero", [0.0, 3.0])
def test_any_rounding_and_zero_point_stays_exact(rounding: str, zero: float) -> None:
    n = net()
    n.quant("x", "xq", 0.25, 5, zero, rounding_mode=rounding)
    n.weight("w", RNG(1).normal(0, 1, (12, 7)), 0.25, 4)
    n.add("MatMul", ["xq", "w"], "acc")
    n.quant("acc", "y", 0.5, 5, zero, rounding_mode=rounding)
    model = n.model(("N", 12), "y")
    artifact = export(model)
    assert "0 in float" not in artifact.notes[0]
    assert_exact(model, artifact)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("narrow", [0, 1])
def test_every_width_is_clipped_below_eight_bits(bits: int, signed: int, narrow: int) -> None:
    n = net()
    n.quant("x", "xq", 0.125, bits, signed=signed, narrow=narrow)
    n.weight("w", RNG(1).normal(0, 1, (12, 7)), 0.25, bits, narrow=1)
    n.add("MatMul", ["xq", "w"], "acc")
    n.quant("acc", "y", 0.125, bits, signed=signed, narrow=narrow)
    model = n.model(("N", 12), "y")
    artifact = export(model)
    assert ops(artifact).count("Clip") == (0 if (bits, narrow) == (8, 0) else 2)
    assert_exact(model, artifact, spread=3.0)


def test_two_levels_stay_integer_between_layers() -> None:
    n = net()
    n.add("Identity", ["x"], "x0")
    n.add("BipolarQuant", ["x0", "one"], "xq", domain=DOMAIN)
    n.constant("one", 0.5)
    n.weight("w", RNG(1).normal(0, 1, (13, 7)), 1.0, 2, narrow=1)
    n.add("MatMul", ["xq", "w"], "acc")
    n.add("BipolarQuant", ["acc", "one"], "y", domain=DOMAIN)
    model = n.model(("N", 13), "y")
    artifact = export(model)
    assert artifact.notes[0] == "1 of 1 layers integer-only"
    assert_exact(model, artifact)


@pytest.mark.parametrize("opset", [19, 21, 23])
def test_newer_opsets_load_with_default_options(opset: int) -> None:
    n = net()
    n.quant("x", "xq", 0.25, 4)
    n.add("MaxPool", ["xq"], "pool", kernel_shape=[2, 2])
    n.weight("w", RNG(1).normal(0, 1, (4, 3, 2, 2)), 0.25, 4)
    n.add("Conv", ["pool", "w"], "acc")
    n.quant("acc", "y", 0.5, 4)
    n.add("Transpose", ["y"], "t", perm=[0, 2, 3, 1])
    model = n.model((1, 3, 6, 6), "t")
    artifact = export(model, opset=opset)
    assert artifact.model.opset_imports[""] == opset
    assert_exact(model, artifact)


def test_a_value_of_two_readers_keeps_its_float_form_for_one_of_them() -> None:
    n = net()
    n.quant("x", "xq", 0.25, 4)
    n.weight("w", RNG(1).normal(0, 1, (12, 12)), 0.25, 4)
    n.add("MatMul", ["xq", "w"], "acc")
    n.quant("acc", "q", 0.5, 4)
    n.add("Sigmoid", ["acc"], "gate")
    n.add("Mul", ["q", "gate"], "y")
    model = n.model(("N", 12), "y")
    artifact = export(model)
    assert "needed elsewhere" in " ".join(artifact.notes)
    assert ops(artifact).count("MatMulInteger") == 1
    assert_exact(model, artifact)


UNEVEN = np.where(np.arange(12) % 2 == 0, 0.25, 0.5).astype(np.float32)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"x_bits": 12}, "not quantized to 8 bits"),
        ({"w_bits": 12}, "more than 8 bits"),
        ({"x_scale": UNEVEN.reshape(1, 12)}, "not quantized to 8 bits"),
        ({"w_scale": UNEVEN.reshape(12, 1)}, "summed over"),
    ],
)
def test_what_cannot_be_integer_stays_float_and_says_why(
    change: dict[str, Any], reason: str
) -> None:
    how: dict[str, Any] = {"x_bits": 4, "w_bits": 4, "x_scale": 0.25, "w_scale": 0.25} | change
    n = net()
    n.quant("x", "xq", how["x_scale"], how["x_bits"])
    n.weight("w", RNG(1).normal(0, 1, (12, 7)) * 600, how["w_scale"], how["w_bits"])
    n.add("MatMul", ["xq", "w"], "acc")
    n.quant("acc", "y", 0.5, 4)
    model = n.model(("N", 12), "y")
    artifact = export(model)
    assert artifact.notes[0] == "0 of 1 layers integer-only, 1 in float"
    assert reason in " ".join(artifact.notes)
    assert "MatMul" in ops(artifact)


def test_weights_that_span_more_than_8_bits_stay_float() -> None:
    n = net()
    n.quant("x", "xq", 0.25, 8)
    # Each column has a zero point of its own: levels from -200 to 55, and from -55 to 200.
    levels = np.array([[-200.0, -55.0], [55.0, 200.0]])
    zero = np.array([[200.0, 55.0]], dtype=np.float32)
    n.weight("w", levels * 0.5, 0.5, 8, zero=zero, signed=0)
    n.add("MatMul", ["xq", "w"], "y")
    artifact = export(n.model(("N", 2), "y"))
    assert "more than 8 bits" in " ".join(artifact.notes)
    assert "MatMul" in ops(artifact)


@pytest.mark.parametrize(
    ("op_type", "attrs", "operands"),
    [
        ("Transpose", {"perm": [0, 2, 3, 1]}, {}),
        ("Reshape", {}, {"c": np.array([0, 4, -1], dtype=np.int64)}),
        ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]}, {}),
    ],
)
def test_moves_between_a_sum_and_its_quantizer_follow_the_codes(
    op_type: str, attrs: dict[str, Any], operands: dict[str, Any]
) -> None:
    n = conv_net((4, 3, 2, 2), bias=True)
    n.nodes.pop()
    n.constants |= operands
    n.add("Relu", ["acc"], "relu")
    n.add(op_type, ["relu", *operands], "moved", **attrs)
    n.quant("moved", "y", 0.5, 4, signed=0)
    model = n.model((1, 3, 5, 5), "y")
    artifact = export(model)
    kinds = ops(artifact)
    assert artifact.notes[0] == "1 of 1 layers integer-only"
    assert kinds.index("QLinearConv") < kinds.index(op_type) < kinds.index("DequantizeLinear")
    assert_exact(model, artifact)


def test_a_channel_that_is_turned_round_behind_a_maxpool_stays_in_float() -> None:
    n = conv_net((4, 3, 2, 2))
    n.nodes.pop()
    n.add("MaxPool", ["acc"], "pool", kernel_shape=[2, 2])
    gain = np.array([1, -1, 2, 0.5], dtype=np.float32).reshape(1, 4, 1, 1)
    n.add("Mul", ["pool", n.constant("g", gain)], "gained")
    n.quant("gained", "y", 0.5, 4)
    model = n.model((1, 3, 5, 5), "y")
    artifact = export(model)
    assert "change their sign behind a MaxPool" in " ".join(artifact.notes)
    assert_exact(model, artifact)


def test_a_leaky_relu_between_two_quantizers_is_a_table() -> None:
    n = net()
    n.quant("x", "xq", 0.25, 6)
    n.add("LeakyRelu", ["xq"], "leaky", alpha=0.3)
    n.quant("leaky", "y", 0.125, 5)
    model = n.model((2, 40), "y")
    artifact = export(model)
    assert ops(artifact)[-3:] == ["Cast", "Gather", "DequantizeLinear"]
    assert_exact(model, artifact)


def test_channels_last_layers_are_integer_only() -> None:
    n = net()
    n.quant("x", "xq", 0.25, 4)
    n.weight("w", RNG(1).normal(0, 1, (5, 3, 3, 2)), 0.25, 4)
    last = "qonnx.custom_op.channels_last"
    n.add("Conv", ["xq", "w"], "acc", domain=last, kernel_shape=[3, 3])
    n.quant("acc", "y", 0.5, 4)
    domains = ("qonnx.custom_op.general", "qonnx.custom_op.channels_last")
    proto = model_of(n.nodes, {"x": (1, 6, 7, 2)}, ["y"], n.constants, domains=domains)
    model = read_model(proto)
    artifact = export(model)
    assert artifact.notes[0] == "1 of 1 layers integer-only"
    assert "QLinearConv" in ops(artifact)
    assert_exact(model, artifact)


def test_the_model_given_is_not_changed() -> None:
    model = conv_net((4, 3, 2, 2), bias=True).model((1, 3, 5, 5), "y")
    before = onnx_ir.to_proto(model).SerializeToString(deterministic=True)
    first = onnx_ir.to_proto(export(model).model).SerializeToString(deterministic=True)
    again = onnx_ir.to_proto(export(model).model).SerializeToString(deterministic=True)
    assert onnx_ir.to_proto(model).SerializeToString(deterministic=True) == before
    assert first == again


@pytest.mark.parametrize("conv", [False, True])
def test_a_bias_off_the_grid_of_its_sums_is_not_rounded_silently(conv: bool) -> None:
    n = net()
    n.quant("x", "xq", 2.0**-7, 8)
    shape = (3, 2, 3, 3) if conv else (64, 3)
    n.weight("w", RNG(1).normal(0, 0.5, shape), 2.0**-7, 8, narrow=1)
    bias = n.constant("b", np.array([0.100003, -0.7, 0.33333], dtype=np.float32))
    if conv:
        n.add("Conv", ["xq", "w", bias], "acc")
    else:
        n.add("Gemm", ["xq", "w", bias], "acc")
    n.quant("acc", "y", 2.0**-7, 8)
    model = n.model((4, 2, 6, 6) if conv else ("N", 64), "y")
    artifact = export(model)
    assert artifact.notes[0].startswith(
        "0 of 1 layers integer-only, 1 with an integer product"
    )
    assert ("ConvInteger" if conv else "MatMulInteger") in ops(artifact)
    assert_exact(model, artifact)
    rounded = export(model, allow_lossy=True)
    assert rounded.notes[0] == "1 of 1 layers integer-only"
    assert any("its bias is rounded to int32" in r.reason for r in rounded.quantizers)


def test_a_bias_whose_rounding_moves_too_much_stays_even_if_losses_are_allowed() -> None:
    n = net()
    n.quant("x", "xq", 1.0, 3)
    n.weight("w", np.full((3, 2), 100.0), 1.0, 8)
    n.add("MatMul", ["xq", "w"], "acc")
    # Sums step by 2.7: a bias of whole sums is nowhere near these offsets.
    n.add("Mul", ["acc", n.constant("g", 0.027)], "t")
    n.add("Add", ["t", n.constant("o", np.array([0.4, 0.003], dtype=np.float32))], "u")
    n.quant("u", "y", 1.0, 8, rounding_mode="FLOOR")
    model = n.model(("N", 3), "y")
    artifact = export(model, allow_lossy=True)
    assert "rounding its bias to int32 moves a share of" in " ".join(artifact.notes)
    assert_exact(model, artifact)


def test_a_quantizer_that_stays_behind_odd_sums_carries_its_bound() -> None:
    n = net()
    n.quant("x", "xq", 0.013, 8)
    n.weight("w", RNG(1).normal(0, 1, (64, 6)), 0.011, 8)
    n.add("MatMul", ["xq", "w"], "acc")
    n.add("Sigmoid", ["acc"], "curve")
    n.quant("curve", "y", 2.0**-12, 12, signed=0)
    [record] = [r for r in export(n.model(("N", 64), "y")).quantizers if r.node == "y"]
    assert not record.exact
    assert record.bound is not None
    assert record.bound.share is None


def test_a_resize_that_fills_in_values_is_not_done_on_integers() -> None:
    n = net()
    # What lies outside is 0.0, which is the code 3.
    n.quant("x", "xq", 0.25, 4, 3.0, signed=0)
    n.constants |= {
        "roi": np.array([0, 0, -0.5, 0, 1, 1, 0.5, 1], dtype=np.float32),
        "scales": np.array([1, 1, 2, 1], dtype=np.float32),
    }
    how = {"mode": "nearest", "coordinate_transformation_mode": "tf_crop_and_resize"}
    n.add("Resize", ["xq", "roi", "scales"], "m", **how)
    n.quant("m", "y", 0.25, 4, 3.0, signed=0)
    model = n.model((1, 3, 4, 6), "y")
    artifact = export(model)
    kinds = ops(artifact)
    assert kinds.index("DequantizeLinear") < kinds.index("Resize")
    assert_exact(model, artifact)
