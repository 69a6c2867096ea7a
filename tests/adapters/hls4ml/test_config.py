"""The config's types, calculated by hand, and its options."""

from __future__ import annotations

import numpy as np
import pytest

import qonnx_hub as qh
from qonnx_hub_adapters.hls4ml.exporter import Hls4mlExporter
from qonnx_hub_adapters.hls4ml.fixed_point import constant_type, lowest_bit, type_between
from qonnx_hub_adapters.hls4ml.inputs import configured_types
from qonnx_hub_adapters.hls4ml.yaml_text import to_yaml
from qonnx_hub_adapters.protocol import ExportOptions
from qonnx_hub_ir.errors import UsageError
from tests.adapters.hls4ml import nets
from tests.adapters.hls4ml.nets import Net

yaml = pytest.importorskip("yaml")


def config_of(source, **options):
    artifact = Hls4mlExporter().export(qh.load(source), ExportOptions(extra=options))
    return yaml.safe_load(artifact.files["hls4ml_config.yml"])


def precision(config, layer):
    return config["HLSConfig"]["LayerName"][layer]["Precision"]


def one_layer(weights, *, quantized=True, bias=None):
    """A row of three, int4 of step 1/4, and a layer with these weights, int4 of step 1/2."""
    net = Net()
    x = net.quant("x", 4, 0.25) if quantized else "x"
    y = net.add("MatMul", [x, net.quant(net.constant(np.float32(weights)), 4, 0.5)])
    if bias is not None:
        y = net.add("Add", [y, net.constant(np.float32(bias))])
    return net.model((1, 3), y)


def test_an_input_has_the_type_of_the_only_quantizer_that_reads_it():
    config = config_of(one_layer([[1], [1], [1]]))
    assert precision(config, "global_in")["result"] == "fixed<4,2,RND_CONV,SAT>"
    assert precision(config, "Quant_0")["result"] == "fixed<4,2,RND_CONV,SAT>"


def test_an_accumulator_is_as_wide_as_its_sums():
    # x from -8/4 to 7/4, weights 1.5, -1, 0.5: the highest sum is 3.5 + 2 = 5.5 in steps of
    # 1/8, and the lowest -4 - 1.75 = -5.75: 3 bits before the point, a sign, 3 behind.
    config = config_of(one_layer([[1.5], [-1], [0.5]]))
    found = precision(config, "MatMul_0")
    assert found["accum"] == found["result"] == "fixed<7,4>"
    assert found["weight"] == "fixed<4,3>"


def test_weights_that_are_all_even_need_a_bit_less():
    # Steps of 1/4 * 1: the highest sum is 7/4 * 3 = 5.25, the lowest -6.
    config = config_of(one_layer([[1], [1], [1]]))
    assert precision(config, "MatMul_0")["accum"] == "fixed<6,4>"


def test_a_bias_adds_its_own_bits():
    config = config_of(one_layer([[1], [1], [1]], bias=[1.0 / 32]))
    found = precision(config, "BatchNormalization_0")
    # 1/32 by itself: one bit, at 2^-5, so four bits in front of it are not there.
    assert found["bias"] == "ufixed<1,-4,RND>"
    assert found["scale"] == "ufixed<1,1,RND>"
    # From -6 + 1/32 to 5.25 + 1/32 in steps of 1/32: 4 bits with the sign, 5 behind.
    assert found["result"] == "fixed<9,4>"


def test_a_sum_of_relus_has_no_sign():
    net = Net()
    y = net.add("Relu", [net.quant("x", 4, 0.25)])
    config = config_of(net.model((1, 3), net.add("Add", [y, y])))
    # Twice 0 to 1.75: 3.5 in steps of 1/4, though the quantizer itself is signed.
    assert precision(config, "Relu_0")["result"] == "ufixed<3,1>"
    assert precision(config, "Add_0")["result"] == "ufixed<4,2>"


def test_scales_have_all_bits_of_float32():
    config = config_of(nets.residual_net())
    found = precision(config, "Div_0")["scale"]
    inverse = np.float32(1) / np.float32(0.0131)
    # 76.3...: 7 bits before the point.
    assert found.startswith("ufixed<")
    width, integer = (int(n) for n in found[7:].split(",")[:2])
    assert integer == 7
    assert width - integer == -lowest_bit(np.asarray(inverse))


@pytest.mark.parametrize(
    ("low", "high", "lsb", "text"),
    [
        (0, 0, 0, "ufixed<1,1>"),
        (0, 7, 0, "ufixed<3,3>"),
        (-8, 7, 0, "fixed<4,4>"),
        (-9, 7, 0, "fixed<5,5>"),
        (-1, 0, 0, "fixed<1,1>"),
        (0, 24, 3, "ufixed<2,5>"),
        (-0.25, 0.125, -3, "fixed<2,-1>"),
    ],
)
def test_the_narrowest_type_holds_both_ends(low, high, lsb, text):
    assert str(type_between(low, high, lsb)) == text


def test_constants_are_held_exactly():
    assert str(constant_type(np.array([0.5, -3.0]))) == "fixed<4,3,RND>"


def test_constants_far_apart_are_rounded_at_64_bits():
    found = constant_type(np.array([1.0, 2.0**-80]))
    assert found.width <= 64


def test_an_input_without_a_quantizer_has_32_bits():
    config = config_of(one_layer([[1], [1], [1]], quantized=False))
    assert precision(config, "global_in")["result"] == "fixed<32,16,RND,SAT>"


def test_a_range_of_the_input_narrows_its_type():
    source = one_layer([[1], [1], [1]], quantized=False)
    config = config_of(source, **{"input_range.x": "-3,3"})
    # 2 bits and a sign before the point, 28 significant bits behind the sign.
    assert precision(config, "global_in")["result"] == "fixed<29,3,RND,SAT>"


def test_a_type_of_the_input_is_taken_as_it_is():
    source = one_layer([[1], [1], [1]], quantized=False)
    config = config_of(source, **{"input_precision.x": "ufixed<8,0>"})
    assert precision(config, "global_in")["result"] == "ufixed<8,0>"
    # Three times 0 to 255/256, in steps of 1/256.
    assert precision(config, "MatMul_0")["accum"] == "ufixed<10,2>"


def test_options_reach_the_project():
    options = {
        "backend": "quartus",
        "io_type": "io_stream",
        "reuse_factor": "4",
        "strategy": "Resource",
        "clock_period": 3.5,
        "project": "jets",
    }
    config = config_of(one_layer([[1], [1], [1]]), **options)
    assert config["Backend"] == "Quartus"
    assert config["Part"] == "Arria10"
    assert config["IOType"] == "io_stream"
    assert config["ClockPeriod"] == 3.5
    assert config["ProjectName"] == "jets"
    assert config["HLSConfig"]["Model"]["ReuseFactor"] == 4
    assert config["HLSConfig"]["LayerName"]["MatMul_0"]["ReuseFactor"] == 4
    assert config["HLSConfig"]["LayerName"]["MatMul_0"]["Strategy"] == "Resource"


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("speed", "9", "has no option 'speed'"),
        ("backend", "Verilog", "unknown 'Verilog'"),
        ("reuse_factor", "0", "whole number"),
        ("clock_period", "-1", "not above zero"),
        ("project", "my project", "C\\+\\+"),
        ("input_range.y", "0,1", "there is no input 'y'"),
        ("input_range.x", "1", "lowest and highest"),
        ("input_range.x", "2,1", "no range"),
        ("input_precision.x", "float", "no type"),
        ("softmax", "maybe", "unknown 'maybe'"),
    ],
)
def test_a_wrong_option_is_refused_by_name(name, value, words):
    with pytest.raises(UsageError, match=words):
        config_of(one_layer([[1], [1], [1]]), **{name: value})


@pytest.mark.parametrize(
    ("choice", "entry"),
    [("skip", {"Skip": True}), ("keep", {})],
)
def test_a_trailing_softmax_is_what_the_option_says(choice, entry):
    net = Net()
    source = net.model((1, 3), net.add("Softmax", [net.quant("x", 4, 0.25)], axis=-1))
    config = config_of(source, softmax=choice)
    assert config["HLSConfig"]["LayerName"]["Softmax_0"] == entry


def test_a_tuned_softmax_has_finer_tables():
    net = Net()
    source = net.model((1, 3), net.add("Softmax", [net.quant("x", 4, 0.25)], axis=-1))
    entry = config_of(source, softmax="tuned")["HLSConfig"]["LayerName"]["Softmax_0"]
    assert entry["exp_table_t"] == "ufixed<24,1,RND,SAT>"
    # Three exponentials, the largest 1: their sum is 3 at most.
    assert entry["inv_inp_t"] == "ufixed<22,2,RND,SAT>"
    assert entry["TableSize"] == 4096


def test_yaml_reads_back_what_was_said():
    data = {
        "text": "fixed<8,3,RND,SAT>",
        "plain": "Vitis",
        "number": 5,
        "fraction": 0.1,
        "yes": "yes",
        "list": [1, 2],
        "nothing": {},
        "inner": {"deep": {"flag": True, "path": "a: b # c", "empty": ""}},
    }
    assert yaml.safe_load(to_yaml(data)) == data


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        # ac_fixed<W, I, S, Q, O> and ac_int<W, S> of Siemens' library.
        ("ac_fixed<8,3,false,AC_RND,AC_SAT>", (8, 3, False, "RND", "SAT")),
        ("ac_fixed<8,3,true,AC_TRN,AC_WRAP>", (8, 3, True, "TRN", "WRAP")),
        ("ac_int<8,false>", (8, 8, False, "", "")),
        ("ac_int<8,true>", (8, 8, True, "", "")),
        ("ap_ufixed<8,3,AP_RND,AP_SAT>", (8, 3, False, "RND", "SAT")),
        ("ap_uint<4>", (4, 4, False, "", "")),
    ],
)
def test_types_of_both_libraries_are_read(text, wanted):
    found = configured_types({"Precision": text})["result"]
    read = (found.width, found.integer, found.signed, found.rounding, found.saturation)
    assert read == wanted
