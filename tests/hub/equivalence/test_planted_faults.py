"""Faults made on purpose: the checker must name the layer and the cause of every one."""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest
from onnx import helper

import qonnx_hub as qh
from qonnx_hub.equivalence.diagnosis.quantizer_causes import Cause
from qonnx_hub.io.registry import find_exporter
from qonnx_hub_adapters.protocol import ExportOptions

LINEAR = {"mlp": "fc2", "cnn": "conv2", "residual": "conv2"}
"""Net -> its second weighted layer; ``act1`` comes before it in all of them."""


def scale_up_one_ulp(model, s):
    s.change_constant(model, "act1.scale", lambda x: np.nextafter(x, np.float32(9)))


def scale_through_half_precision(model, s):
    s.change_constant(model, "act1.scale", lambda x: x.astype(np.float16))


def weight_scale_up_one_ulp(model, s):
    name = f"{LINEAR[model.graph.name]}.wq.scale"

    def change(x):
        x.flat[0] = np.nextafter(x.flat[0], np.float32(9))
        return x

    s.change_constant(model, name, change)


def double_scale(model, s):
    s.change_constant(model, "act1.scale", lambda x: 2 * x)


def round_down(model, s):
    s.set_attribute(model, "act1", "rounding_mode", "FLOOR")


def leave_out_a_code(model, s):
    s.set_attribute(model, "act1", "narrow", 1)


def one_bit_less(model, s):
    s.change_constant(model, "act1.bits", lambda x: x - 1)


def take_out_activation_quantizer(model, s):
    s.bypass_node(model, "act1")


def pass_activations_on(model, s):
    s.replace_node(model, "act1", [s.make_node("Identity", ["act1.relu"], "act1")])


def only_clip(model, s):
    clip = s.make_node("Clip", ["act1.relu", "low", "high"], "act1")
    high = np.float32(15) * next(
        np.frombuffer(t.raw_data, dtype=np.float32)[0]
        for t in model.graph.initializer
        if t.name == "act1.scale"
    )
    s.replace_node(model, "act1", [clip], {"low": np.float32(0), "high": np.float32(high)})


def take_out_weight_quantizer(model, s):
    s.bypass_node(model, f"{LINEAR[model.graph.name]}.wq")


def multiply_by_reciprocal(model, s):
    scale = next(
        np.frombuffer(t.raw_data, dtype=np.float32)[0]
        for t in model.graph.initializer
        if t.name == "act1.scale"
    )
    nodes = [
        s.make_node("Mul", ["act1.relu", "r"], "t1"),
        s.make_node("Round", ["t1"], "t2"),
        s.make_node("Clip", ["t2", "low", "high"], "t3"),
        s.make_node("Mul", ["t3", "act1.scale"], "act1"),
    ]
    constants = {
        "r": np.float32(1) / scale,
        "low": np.float32(0),
        "high": np.float32(15),
    }
    s.replace_node(model, "act1", nodes, constants)


def change_one_weight(model, s):
    def change(w):
        w.flat[3] += 0.75 * np.abs(w).max()
        return w

    s.change_constant(model, f"{LINEAR[model.graph.name]}.w", change)


def shift_batchnorm(model, s):
    s.change_constant(model, "bn2.shift", lambda x: x + np.float32(0.25))


def reverse_weights(model, s):
    s.change_constant(model, f"{LINEAR[model.graph.name]}.w", lambda w: w[::-1].copy())


def pad_one_sided(model, s):
    s.set_attribute(model, "conv2", "pads", [0, 0, 2, 2])


def flatten_channels_last(model, s):
    nodes = [
        s.make_node("Transpose", ["act2"], "turned", perm=[0, 2, 3, 1]),
        s.make_node("Flatten", ["turned"], "flat", axis=1),
    ]
    s.replace_node(model, "flat", nodes)


def reorder_batchnorm(model, s):
    """Divide first, as the definition says; implementations fold gain and deviation."""
    c = {t.name: np.frombuffer(t.raw_data, dtype=np.float32) for t in model.graph.initializer}
    shape = (1, -1) if model.graph.name == "mlp" else (1, -1, 1, 1)
    deviation = np.sqrt(c["bn2.variance"] + np.float32(1e-5))
    nodes = [
        s.make_node("Sub", [LINEAR[model.graph.name], "m"], "centred"),
        s.make_node("Div", ["centred", "d"], "divided"),
        s.make_node("Mul", ["divided", "g"], "scaled"),
        s.make_node("Add", ["scaled", "h"], "bn2"),
    ]
    constants = {"m": c["bn2.mean"], "d": deviation, "g": c["bn2.gain"], "h": c["bn2.shift"]}
    s.replace_node(model, "bn2", nodes, {k: v.reshape(shape) for k, v in constants.items()})


def split_sum(model, s):
    """Add the products of the first half of the inputs to those of the second half."""
    halves = [("a", 0, 8), ("b", 8, 16)]
    nodes, constants = [], {"axis0": np.array([0]), "axis1": np.array([1])}
    for key, start, stop in halves:
        constants |= {f"from_{key}": np.array([start]), f"to_{key}": np.array([stop])}
        cut = [f"from_{key}", f"to_{key}"]
        nodes += [
            s.make_node("Slice", ["act1", *cut, "axis1"], f"x_{key}"),
            s.make_node("Slice", ["fc2.wt", *cut, "axis0"], f"w_{key}"),
            s.make_node("MatMul", [f"x_{key}", f"w_{key}"], f"part_{key}"),
        ]
    nodes.append(s.make_node("Add", ["part_a", "part_b"], "fc2"))
    s.replace_node(model, "fc2", nodes, constants)


LINEAR_LAYER = object()
WEIGHT_QUANTIZER = object()

FAULTS = [
    (scale_up_one_ulp, "act1", Cause.SCALE_ROUNDED),
    (scale_through_half_precision, "act1", Cause.SCALE_HALF),
    (weight_scale_up_one_ulp, WEIGHT_QUANTIZER, Cause.SCALE_ROUNDED),
    (double_scale, "act1", Cause.SCALE),
    (round_down, "act1", Cause.ROUNDING),
    (leave_out_a_code, "act1", Cause.RANGE),
    (one_bit_less, "act1", Cause.RANGE),
    (take_out_activation_quantizer, "act1", Cause.MISSING),
    (pass_activations_on, "act1", Cause.MISSING),
    (only_clip, "act1", Cause.MISSING),
    (take_out_weight_quantizer, WEIGHT_QUANTIZER, Cause.MISSING),
    (change_one_weight, WEIGHT_QUANTIZER, Cause.WEIGHTS),
    (shift_batchnorm, "bn2", Cause.WEIGHTS),
    (reverse_weights, WEIGHT_QUANTIZER, Cause.PERMUTED),
    (reorder_batchnorm, "bn2", Cause.NOISE),
]


def layer_name(layer, net):
    linear = LINEAR[net.graph.name]
    if layer is LINEAR_LAYER:
        return linear
    return f"{linear}.wq" if layer is WEIGHT_QUANTIZER else layer


def check_fault(net, fault, surgery, **options):
    other = surgery.copied(net)
    fault(other, surgery)
    return qh.check(net, other, **{"samples": 32, **options})


@pytest.mark.parametrize(
    ("fault", "layer", "cause"), FAULTS, ids=lambda x: getattr(x, "__name__", "")
)
def test_the_layer_and_the_cause_of_a_fault_are_named(net, fault, layer, cause, surgery):
    result = check_fault(net, fault, surgery)
    assert result.findings, result.table()
    first = result.findings[0]
    assert (first.layer, first.cause) == (layer_name(layer, net), cause), result.table()


@pytest.mark.parametrize("name", ["cnn", "residual"])
def test_another_padding_is_named(nets, name, surgery):
    result = check_fault(nets[name](), pad_one_sided, surgery)
    assert (result.findings[0].layer, result.cause) == ("conv2", Cause.LAYOUT), result.table()


def test_a_channels_last_flatten_is_named(nets, surgery):
    result = check_fault(nets["cnn"](), flatten_channels_last, surgery)
    assert (result.findings[0].layer, result.cause) == ("flat", Cause.LAYOUT), result.table()


def test_sums_in_another_order_are_noise_and_not_a_fault(nets, surgery):
    result = check_fault(nets["mlp"](), split_sum, surgery)
    assert (result.findings[0].layer, result.cause) == ("fc2", Cause.NOISE), result.table()


def test_a_reciprocal_flips_ties(net, surgery):
    # A product with 1 / scale is off by one unit in the last place: few inputs show it.
    result = check_fault(net, multiply_by_reciprocal, surgery)
    first = (*result.findings, *result.latent)[0]
    assert (first.layer, first.cause) == ("act1", Cause.TIE), result.table()


def sum_of_three(surgery, *, from_the_left):
    net = surgery.Builder("three", 0)
    inner = "xy" if from_the_left else "yz"
    rest = ["xy", "z"] if from_the_left else ["x", "yz"]
    net.add("Add", list(inner), inner)
    net.quant(net.add("Add", rest, "s"), "q", 1.0, 4)
    net.add("Neg", ["q"], "y_out")
    graph = helper.make_graph(
        net.nodes,
        "three",
        [helper.make_tensor_value_info(n, 1, ["N", 1]) for n in ("x", "y", "z")],
        [helper.make_tensor_value_info("y_out", 1, ["N", 1])],
        net.initializers,
    )
    opsets = [helper.make_opsetid("", 19), helper.make_opsetid("qonnx.custom_op.general", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def test_noise_that_crosses_a_tie_is_followed_to_the_quantizer(surgery):
    # Three floats whose sum is the tie 0.5 from the left, and one ulp more from the right.
    x, y, z = np.random.default_rng(0).uniform(0, 0.5, (3, 1 << 16)).astype(np.float32)
    z = (np.float32(0.5) - (x + y)).astype(np.float32)
    found = ((x + y) + z == 0.5) & (x + (y + z) > 0.5)
    assert found.any()
    feeds = {"x": x[found][:4, None], "y": y[found][:4, None], "z": z[found][:4, None]}
    left = sum_of_three(surgery, from_the_left=True)
    result = qh.check(left, sum_of_three(surgery, from_the_left=False), feeds)
    causes = [(f.layer, f.cause) for f in result.findings]
    assert causes == [("s", Cause.NOISE), ("q", Cause.TIE)], result.table()


def asymmetric(surgery, *, linear):
    """An 8-bit quantizer with zero point 3; as QuantizeLinear it rounds before adding it."""
    net = surgery.Builder("asymmetric", 4)
    y = net.quant("x", "q", 0.5, 8, signed=0, zero=3.0)
    net.dense(y, "y", 12, 5)
    model = net.model((12,), 5)
    if linear:
        nodes = [
            surgery.make_node("QuantizeLinear", ["x", "q.scale", "z"], "codes"),
            surgery.make_node("DequantizeLinear", ["codes", "q.scale", "z"], "q"),
        ]
        surgery.replace_node(model, "q", nodes, {"z": np.uint8(3)})
    return model


def test_another_order_of_the_zero_point_is_named(surgery):
    result = qh.check(asymmetric(surgery, linear=False), asymmetric(surgery, linear=True))
    assert (result.findings[0].layer, result.cause) == ("q", Cause.ZERO_ORDER), result.table()


def test_another_zero_point_is_named(surgery):
    model = asymmetric(surgery, linear=False)
    other = surgery.copied(model)
    surgery.change_constant(other, "q.zero", lambda z: z + 1)
    result = qh.check(model, other)
    assert (result.findings[0].layer, result.cause) == ("q", Cause.ZERO_POINT), result.table()


def as_qcdq(net):
    model = qh.load(net)
    return onnx_ir.to_proto(find_exporter("qcdq").export(model, ExportOptions()).model)


def tensor_of(model, name):
    return next(t for t in model.graph.initializer if t.name == name)


def scale_of_activation(model, s):
    s.change_constant(model, "act1_scale", lambda x: np.nextafter(x, np.float32(9)))


def limit_of_activation(model, s):
    found = tensor_of(model, "act1_high")
    found.raw_data = np.array(7, dtype=np.uint8).tobytes()


def scale_of_weights(model, s):
    name = next(t.name for t in model.graph.initializer if t.name.endswith(".wq_scale"))
    s.change_constant(model, name, lambda x: np.nextafter(x, np.float32(9)))


def stored_weight(model, s):
    found = tensor_of(model, f"{LINEAR[model.graph.name]}.wq_integers")
    codes = np.frombuffer(found.raw_data, dtype=np.int8).copy()
    codes[5] = -codes[5] if codes[5] else 3
    found.raw_data = codes.tobytes()


@pytest.mark.parametrize(
    ("fault", "layer", "cause"),
    [
        (scale_of_activation, "act1", Cause.SCALE_ROUNDED),
        (limit_of_activation, "act1", Cause.RANGE),
        (stored_weight, WEIGHT_QUANTIZER, Cause.WEIGHTS),
        (scale_of_weights, None, Cause.SCALE_ROUNDED),
    ],
    ids=lambda x: getattr(x, "__name__", ""),
)
def test_a_fault_in_a_qcdq_file_is_named(net, fault, layer, cause, surgery):
    other = as_qcdq(net)
    fault(other, surgery)
    result = qh.check(net, other)
    first = (*result.findings, *result.latent)[0]
    names = {"fc1.wq", "conv1.wq"} if layer is None else {layer_name(layer, net)}
    assert (first.layer in names, first.cause) == (True, cause), result.table()


def test_weights_that_were_rounded_otherwise_before_they_were_stored_are_named(net, surgery):
    other = surgery.copied(net)
    surgery.set_attribute(other, f"{LINEAR[net.graph.name]}.wq", "rounding_mode", "FLOOR")
    result = qh.check(net, as_qcdq(other), samples=16)
    first = result.findings[0]
    expected = (f"{LINEAR[net.graph.name]}.wq", Cause.ROUNDING)
    assert (first.layer, first.cause) == expected, result.table()


def test_two_faults_are_both_found(net, surgery):
    other = surgery.copied(net)
    leave_out_a_code(other, surgery)
    shift_batchnorm(other, surgery)
    result = qh.check(net, other)
    causes = [(f.layer, f.cause) for f in result.findings[:2]]
    assert causes == [("act1", Cause.RANGE), ("bn2", Cause.WEIGHTS)], result.table()
