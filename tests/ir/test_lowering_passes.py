"""Channels-last operators and unnamed rounding modes, said in standard operators."""

from __future__ import annotations

import math
import warnings

import numpy as np
import onnx
import onnx_ir
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from qonnx_hub_ir.dialect import PROVENANCE
from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.passes import InferShapes, LowerChannelsLast, NameNodes, SpellOutRounding
from qonnx_hub_ir.passes.quantizers.spell_rounding import can_be_spelled_out
from qonnx_hub_ir.validity import verify
from tests.ir.graphs import (
    BARE,
    CHANNELS_LAST,
    DOMAIN,
    attributes,
    evaluate,
    f32,
    i64,
    info,
    model,
    node_of,
    operators,
    parameters,
    proto,
    quant,
)

RANDOM = np.random.default_rng(5)
# Whole numbers: a convolution of them is exact in whatever order it is summed.
IMAGE = RANDOM.integers(-9, 10, (2, 6, 5, 4)).astype(np.float32)
SIGNAL = RANDOM.integers(-9, 10, (2, 7, 4)).astype(np.float32)
STATISTICS = {name: (RANDOM.random(4) + 0.5).astype(np.float32) for name in "gbmv"}


def weight(*shape: int) -> np.ndarray:
    return RANDOM.integers(-9, 10, shape).astype(np.float32)


# Operator, input, weights, attributes. A Conv's weight has its channels last as well.
CASES = {
    "conv": ("Conv", IMAGE, {"w": weight(3, 3, 2, 4)}, {"strides": [2, 1]}),
    "conv_bias": (
        "Conv",
        IMAGE,
        {"w": weight(3, 2, 2, 4), "bias": weight(3)},
        {"pads": [1, 0, 0, 1], "kernel_shape": [2, 2]},
    ),
    "conv_groups": ("Conv", IMAGE, {"w": weight(4, 2, 2, 2)}, {"group": 2}),
    "conv_signal": ("Conv", SIGNAL, {"w": weight(3, 3, 4)}, {"dilations": [2]}),
    "max_pool": ("MaxPool", IMAGE, {}, {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "average_pool": (
        "AveragePool",
        IMAGE,
        {},
        {"kernel_shape": [3, 2], "pads": [1, 0, 1, 0], "count_include_pad": 1},
    ),
    "max_pool_signal": ("MaxPool", SIGNAL, {}, {"kernel_shape": [2]}),
    "batch_norm": ("BatchNormalization", IMAGE, STATISTICS, {"epsilon": 0.25}),
    "batch_norm_flat": ("BatchNormalization", SIGNAL[0], STATISTICS, {}),
}
IMPORTS = {"": 19, CHANNELS_LAST: 19}


def channels_last(case: str) -> onnx.ModelProto:
    op, x, weights, changes = CASES[case]
    node = helper.make_node(
        op, ["x", *weights], ["y"], name="n", domain=CHANNELS_LAST, **changes
    )
    shapes = [info("x", x.shape)], [info("y", [None] * x.ndim)]
    return proto([node], *shapes, weights, IMPORTS)


def expected(case: str) -> np.ndarray:
    """The standard operator on arrays that were transposed by numpy."""
    op, x, weights, changes = CASES[case]
    if "w" in weights:
        weights = weights | {"w": np.moveaxis(weights["w"], -1, 1)}
    first = np.moveaxis(x, -1, 1)
    node = helper.make_node(op, ["x", *weights], ["y"], **changes)
    shapes = [info("x", first.shape)], [info("y", None)]
    return np.moveaxis(evaluate(proto([node], *shapes, weights), x=first)[0], 1, -1)


@pytest.mark.parametrize("case", CASES)
def test_a_lowered_operator_computes_the_same(case):
    found = onnx_ir.from_proto(channels_last(case))
    assert LowerChannelsLast()(found).modified
    assert verify(found) == []
    assert dict(found.opset_imports) == {"": 19}
    (y,) = evaluate(found, x=CASES[case][1])
    assert np.array_equal(y, expected(case))
    assert not LowerChannelsLast()(found).modified


@pytest.mark.parametrize("case", ["conv", "conv_signal", "max_pool", "batch_norm"])
def test_a_lowered_operator_computes_what_qonnx_computes(case):
    pytest.importorskip("qonnx")
    ort = pytest.importorskip("onnxruntime")
    with warnings.catch_warnings():
        # What the oracle warns about at its own import is not ours to mend.
        warnings.simplefilter("ignore")
        from qonnx.custom_op.channels_last.base_wrapped_op import ChannelsLastWrappedOp
    found = onnx_ir.from_proto(channels_last(case))
    LowerChannelsLast()(found)
    session = ort.InferenceSession(
        onnx_ir.to_proto(found).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    op, x, weights, changes = CASES[case]
    (y,) = session.run(["y"], {"x": x})
    node = helper.make_node(op, ["x", *weights], ["y"], domain=CHANNELS_LAST, **changes)
    context = {"x": x, "y": np.zeros_like(y), **weights}
    ChannelsLastWrappedOp.execute_node(_Wrapped(node), context, None)
    assert np.array_equal(y, context["y"])


class _Wrapped:
    """What qonnx's own implementation reads of itself."""

    onnx_opset_version = 19

    def __init__(self, node: onnx.NodeProto) -> None:
        self.onnx_node = node


def test_lowering_is_transpose_operator_transpose():
    found = onnx_ir.from_proto(channels_last("conv"))
    LowerChannelsLast()(found)
    assert operators(found) == ["Transpose", "Transpose", "Conv", "Transpose"]
    perms = [attributes(node)["perm"] for node in found.graph if node.op_type == "Transpose"]
    assert [list(perm) for perm in perms] == [[0, 3, 1, 2], [0, 3, 1, 2], [0, 2, 3, 1]]
    assert node_of(found, "Conv").name == "n"
    assert not NameNodes()(found).modified


def test_a_lowered_output_keeps_its_name_shape_and_metadata():
    found = onnx_ir.from_proto(channels_last("max_pool"))
    found.graph[0].outputs[0].metadata_props[PROVENANCE] = "pool"
    InferShapes()(found)
    LowerChannelsLast()(found)
    (output,) = found.graph.outputs
    assert (output.name, list(output.shape)) == ("y", [2, 3, 2, 4])
    assert output.metadata_props[PROVENANCE] == "pool"


def test_a_lowered_net_keeps_its_quantizers():
    node = helper.make_node("MaxPool", ["t"], ["u"], domain=CHANNELS_LAST, kernel_shape=[2, 2])
    nodes = [quant("x", "t", "q1"), node, quant("u", "y", "q2")]
    shapes = [info("x", IMAGE.shape)], [info("y", None)]
    found = model(nodes, *shapes, imports=IMPORTS | {DOMAIN: 2})
    LowerChannelsLast()(found)
    assert operators(found) == ["Quant", "Transpose", "MaxPool", "Transpose", "Quant"]
    pooled = np.lib.stride_tricks.sliding_window_view(IMAGE, (2, 2), (1, 2)).max((-1, -2))
    steps = np.round(np.clip(pooled / 0.5, -8, 7)) * f32(0.5)
    assert np.array_equal(evaluate(found, x=IMAGE)[0], steps)


def test_an_operator_in_a_branch_is_lowered():
    graphs = {
        name: helper.make_graph(
            [
                helper.make_node(
                    "MaxPool", ["x"], [f"{name}_y"], domain=CHANNELS_LAST, kernel_shape=[2, 2]
                )
            ],
            name,
            [],
            [info(f"{name}_y", [2, 5, 4, 4])],
        )
        for name in ("then_branch", "else_branch")
    }
    inputs = [info("x", IMAGE.shape), info("c", [], TensorProto.BOOL)]
    nodes = [helper.make_node("If", ["c"], ["y"], **graphs)]
    found = model(nodes, inputs, [info("y", [2, 5, 4, 4])], {}, IMPORTS)
    assert LowerChannelsLast()(found).modified
    assert verify(found) == []
    assert evaluate(found, x=IMAGE, c=np.array(True))[0].shape == (2, 5, 4, 4)


def test_a_model_without_channels_last_operators_is_left_alone():
    assert not LowerChannelsLast()(model([quant()])).modified


def test_an_unknown_rank_is_refused():
    weights = dict(STATISTICS)
    node = helper.make_node(
        "BatchNormalization", ["x", *weights], ["y"], name="n7", domain=CHANNELS_LAST
    )
    found = model([node], [info("x", None)], [info("y", None)], weights, IMPORTS)
    with pytest.raises(
        PassError, match="BatchNormalization 'n7': the rank of its input is not"
    ):
        LowerChannelsLast()(found)


def test_a_second_output_is_refused():
    node = helper.make_node(
        "MaxPool", ["x"], ["y", "i"], name="n7", domain=CHANNELS_LAST, kernel_shape=[2, 2]
    )
    outputs = [info("y", None), info("i", None, TensorProto.INT64)]
    found = model([node], [info("x", IMAGE.shape)], outputs, {}, IMPORTS)
    with pytest.raises(PassError, match="MaxPool 'n7' has more than one output"):
        LowerChannelsLast()(found)


def dpu_model(weights=None, shape=("N",), **changes) -> onnx_ir.Model:
    node = quant(rounding_mode="DPU", **changes)
    return model([node], [info("x", shape)], [info("y", shape)], weights)


def spelled_out(found: onnx_ir.Model) -> onnx_ir.Model:
    """The model after the pass, which must have fired, and must not fire again."""
    assert SpellOutRounding()(found).modified
    assert not SpellOutRounding()(found).modified
    assert verify(found) == []
    InferShapes()(found)
    return found


def dpu(number: float) -> int:
    """Brevitas' DPU rounding as measured: negative ties up, other ties to even."""
    return math.floor(number + 0.5) if number < 0 else round(number)


def test_dpu_rounding_is_spelled_out():
    found = spelled_out(dpu_model())
    assert attributes(node_of(found, "Quant")) == {
        "signed": 1,
        "narrow": 0,
        "rounding_mode": "ROUND",
    }
    # Steps of 0.5: ties lie at odd quarters.
    x = f32([-1.25, -0.75, -0.25, 0.25, 0.75, 1.25, -9, 9, 0, -0.3, np.inf, -np.inf, np.nan])
    (y,) = evaluate(found, x=x)
    assert y[:-1].tolist() == [-1, -0.5, 0, 0, 1, 1, -4, 3.5, 0, -0.5, 3.5, -4]
    assert np.isnan(y[-1])


@given(
    st.floats(2**-8, 2**8, width=32),
    st.sampled_from([0.0, 1.0, -5.0, 0.5, 100.0]),
    st.sampled_from([2, 4, 8, 16, 20]),
    st.integers(0, 99),
)
def test_spelled_out_rounding_computes_what_dpu_means(scale, zero, bits, seed):
    random = np.random.default_rng(seed)
    high = 2 ** (bits - 1)
    steps = np.concatenate([random.integers(-2 * high, 2 * high, 20), [-high, high - 1]])
    x = ((steps / 2 - zero) * scale).astype(np.float32)
    x = np.concatenate([x, np.nextafter(x, f32(np.inf)), np.nextafter(x, f32(-np.inf))])
    t = x / f32(scale) + f32(zero)
    codes = [min(max(dpu(float(number)), -high), high - 1) for number in t]
    expected = (f32(codes) - f32(zero)) * f32(scale)
    found = spelled_out(dpu_model(parameters(scale, zero, bits)))
    assert np.array_equal(evaluate(found, x=x)[0], expected)


def test_each_channel_is_rounded_on_its_own_grid():
    weights = parameters([[0.5], [2.0]])
    found = spelled_out(dpu_model(weights, (2, "N")))
    x = f32([[-0.25, 0.25, 0.75], [-1, 1, 3]])
    assert evaluate(found, x=x)[0].tolist() == [[0, 0, 1], [0, 0, 4]]


def test_parameters_stored_as_integers_are_taken_as_floats():
    weights = {"s": f32(0.5), "z": i64(1), "b": i64(4)}
    found = spelled_out(dpu_model(weights))
    assert evaluate(found, x=f32([-1.25, 0.25]))[0].tolist() == [-1, 0.5]


def test_one_signed_bit_is_not_rounded():
    # -0.25 steps would round to zero, and zero goes to the upper level.
    found = dpu_model(parameters(bits=1.0))
    assert SpellOutRounding()(found).modified
    assert operators(found) == ["Quant"]
    assert attributes(found.graph[0])["rounding_mode"] == "ROUND"
    assert not SpellOutRounding()(found).modified


def test_the_output_keeps_its_name_and_metadata():
    found = dpu_model()
    found.graph[0].outputs[0].metadata_props[PROVENANCE] = "layer"
    spelled_out(found)
    (output,) = found.graph.outputs
    assert (output.name, output.metadata_props[PROVENANCE]) == ("y", "layer")
    assert not NameNodes()(found).modified


def test_a_quantizer_in_a_branch_is_spelled_out():
    graphs = {
        name: helper.make_graph(
            [quant("x", f"{name}_y", name, rounding_mode="DPU")],
            name,
            [],
            [info(f"{name}_y", [2, 3])],
        )
        for name in ("then_branch", "else_branch")
    }
    inputs = [info("x", [2, 3]), info("c", [], TensorProto.BOOL)]
    found = spelled_out(model([helper.make_node("If", ["c"], ["y"], **graphs)], inputs))
    x = np.full((2, 3), -0.25, dtype=np.float32)
    assert evaluate(found, x=x, c=np.array(True))[0].tolist() == np.zeros((2, 3)).tolist()


BIPOLAR = quant(op="BipolarQuant", inputs=("s",), **BARE)
TRUNC = quant(op="Trunc", inputs=("s", "z", "b", "s", "b"), rounding_mode="DPU")
HALF = [info("x", ["N"], TensorProto.FLOAT16)], [info("y", ["N"], TensorProto.FLOAT16)]
DYNAMIC = [info("x", ["N"]), info("b", [])], [info("y", ["N"])]
PLAIN = [info("x", ["N"])], [info("y", ["N"])]


@pytest.mark.parametrize(
    ("node", "shapes", "weights"),
    [
        *[
            (quant(rounding_mode=mode), PLAIN, None)
            for mode in ("ROUND", "CEIL", "FLOOR", "UP", "DOWN", "HALF_UP", "HALF_DOWN")
        ],
        (BIPOLAR, PLAIN, None),
        (TRUNC, PLAIN, None),
        (helper.make_node("Relu", ["x"], ["y"]), PLAIN, None),
        # Not exact in these: no float32, a width that may be 1, or more than float32 carries.
        (quant(rounding_mode="DPU"), HALF, None),
        (quant(rounding_mode="DPU"), DYNAMIC, None),
        (quant(rounding_mode="DPU"), PLAIN, parameters(bits=21.0)),
    ],
)
def test_other_quantizers_are_left_alone(node, shapes, weights):
    found = model([node], *shapes, weights)
    assert not can_be_spelled_out(found.graph[0])
    assert not SpellOutRounding()(found).modified
    assert operators(found) == [node.op_type]
