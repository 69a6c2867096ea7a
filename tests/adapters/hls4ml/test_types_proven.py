"""Types of a config against what values can be: proven to hold, or named with an input."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from onnx import helper
from typer.testing import CliRunner

import qonnx_hub as qh
from qonnx_hub.cli import app
from qonnx_hub_adapters.hls4ml.folder import read_config
from qonnx_hub_adapters.hls4ml.inputs import configured_types
from qonnx_hub_ir.errors import HubError, UsageError
from tests.adapters.hls4ml import nets
from tests.adapters.qonnx.finn_nets import RandomNet
from tests.support import model_of, quant_node


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("types") / "out"
    qh.convert(nets.brevitas_cnn(), path, to="hls4ml", check=False)
    return path


def narrowed(folder, tmp_path, name, before, after):
    """Return a copy of a config in which the first matching type of a layer is another."""
    text = (folder / "hls4ml_config.yml").read_text()
    at = text.index(f"    {name}:\n")
    path = tmp_path / "config.yml"
    path.write_text(text[:at] + re.sub(before, after, text[at:], count=1))
    return path


def test_what_is_written_is_proven_and_said(folder):
    told = json.loads((folder / "report.json").read_text())
    assert told["types"]["proven"]
    assert told["types"]["doubts"] == []
    assert told["types"]["looked_at"] > 20
    assert told["types"]["bits"] < told["types"]["default_bits"]
    assert any("proven for all inputs" in note for note in told["notes"])
    assert not [one for one in qh.lint(folder, "hls4ml").findings if one.op == "layer"]


def test_a_sum_that_is_too_narrow_is_named_with_an_input(folder, tmp_path):
    before = r'accum: "fixed<(\d+),(\d+)>"'
    path = narrowed(folder, tmp_path, "Conv_0", before, 'accum: "fixed<9,9>"')
    report = qh.lint(folder, "hls4ml", config=path)
    [found] = [one for one in report.findings if one.op == "layer"]
    assert found.severity.value == "wrong"
    assert found.node == "Conv_0"
    assert "accum is fixed<9,9>, which holds -256 to 255" in found.reason
    # The input does what the finding says.
    model = qh.load(folder / "model.onnx")
    values = qh.Session(model).run(report.shown, all_tensors=True)["Conv_0_out0"]
    number = float(re.match(r"(-?[\d.]+) becomes", found.effect)[1])
    assert number in values
    assert abs(number) > 255


def test_a_type_between_whose_steps_values_lie_is_named(folder, tmp_path):
    before = r'result: "fixed<(\d+),(\d+),RND>"'
    path = narrowed(folder, tmp_path, "BatchNormalization_1", before, 'result: "fixed<20,19>"')
    report = qh.lint(folder, "hls4ml", config=path)
    [found] = [one for one in report.findings if one.op == "layer"]
    assert "in steps of 0.5; it can lie between them" in found.reason
    assert " becomes " in found.effect


def test_weights_that_a_type_cuts_off_are_named(folder, tmp_path):
    before = r'weight: "fixed<\d+,\d+>"'
    path = narrowed(folder, tmp_path, "Conv_0", before, 'weight: "fixed<2,2>"')
    found = [
        one for one in qh.lint(folder, "hls4ml", config=path).findings if one.op == "layer"
    ]
    assert [(one.node, one.effect) for one in found] == [("Conv_0", "constants are cut off")]


@pytest.mark.parametrize(
    ("layer", "name", "after", "kind"),
    [
        # As hls4ml asks: the layer's default, the model's for this name, the model's.
        ("BatchNormalization_1", "result", 'default: "fixed<4,2>"', "result is fixed<4,2>"),
        ("BatchNormalization_1", "result", "", "result is fixed<32,16>"),
        ("Conv_0", "accum", 'default: "fixed<6,5>"', "accum is fixed<6,5>"),
        ("Conv_0", "accum", "", "accum is fixed<7,7>"),
    ],
)
def test_a_type_that_a_layer_does_not_name_is_looked_up(
    folder, tmp_path, layer, name, after, kind
):
    path = narrowed(folder, tmp_path, layer, f' {name}: ".*"\n', f" {after}\n")
    general = '      default: "fixed<32,16>"\n'
    text = path.read_text()
    assert text.count(general) == 1
    path.write_text(text.replace(general, f'{general}      accum: "fixed<7,7>"\n'))
    report = qh.lint(folder, "hls4ml", config=path)
    [found] = [one for one in report.findings if one.op == "layer"]
    assert (found.node, found.reason.split(",", 2)[:2]) == (layer, [*kind.split(",")])


def test_types_by_kind_of_layer_are_refused(folder, tmp_path):
    path = narrowed(folder, tmp_path, "Conv_0", ' accum: ".*"\n', "\n")
    kinds = "  LayerType:\n    Conv2D:\n      Precision: fixed<4,2>\n  LayerName:\n"
    path.write_text(path.read_text().replace("  LayerName:\n", kinds))
    with pytest.raises(UsageError, match="LayerType"):
        qh.lint(folder, "hls4ml", config=path)


def foreign(first=3.0):
    """Return a file of somebody's own: ten inputs of eight bits, weights of 3 but one."""
    weights = np.full((10, 2), 3.0, dtype=np.float32)
    weights[0] = first
    nodes = [
        quant_node("x", "q"),
        helper.make_node("MatMul", ["q", "w"], ["y"], "MatMul_0"),
    ]
    constants = {"s": 0.25, "z": 0, "b": 8, "w": weights}
    return model_of(nodes, {"x": (1, 10)}, ["y"], constants)


@pytest.mark.parametrize("entry", ["Model", "LayerName"])
def test_a_config_of_others_is_held_against_any_model(tmp_path, entry):
    path = tmp_path / "theirs.yml"
    layers = "  LayerName:\n    MatMul_0:\n      Precision:\n        result: fixed<10,8>\n"
    path.write_text(
        "HLSConfig:\n  Model:\n    Precision: fixed<16,6>\n    ReuseFactor: 1\n"
        + layers * (entry == "LayerName")
    )
    report = qh.lint(foreign(), "hls4ml", config=path)
    [found] = [one for one in report.findings if one.op == "layer"]
    # By hand: eight bits in steps of a quarter end at -32 and 31.75; ten of them, times 3.
    assert "it can be -960 to 952.5" in found.reason
    answers = qh.run(foreign(), {"x": report.shown["x"]})["y"]
    assert np.abs(answers).max() > 128


def test_a_type_of_others_between_whose_steps_sums_lie_is_named(tmp_path):
    path = tmp_path / "theirs.yml"
    text = "HLSConfig:\n  Model:\n    Precision: fixed<16,6>\n  LayerName:\n    MatMul_0:\n"
    path.write_text(f"{text}      Precision: fixed<13,11>\n")
    # Steps of a quarter, times 3: a quarter is all that it takes. Times 3 + 3/64, it is not.
    assert not [
        o for o in qh.lint(foreign(), "hls4ml", config=path).findings if o.op == "layer"
    ]
    report = qh.lint(foreign(3.046875), "hls4ml", config=path)
    [found] = [one for one in report.findings if one.op == "layer"]
    assert "in steps of 0.25; it can lie between them" in found.reason
    answers = qh.run(foreign(3.046875), {"x": report.shown["x"]})["y"] * 4
    assert np.any(answers != np.rint(answers))


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        # -961.5 is -961 or -962, of which eight bits leave 63 or 62.
        ("TRN", "becomes 62 "),
        ("TRN_ZERO", "becomes 63 "),
        ("RND", "becomes 63 "),
        ("RND_CONV", "becomes 62 "),
        ("RND_INF", "becomes 62 "),
        ("RND_MIN_INF", "becomes 62 "),
        ("RND_ZERO", "becomes 63 "),
        ("TRN,SAT", "becomes -128 "),
        ("TRN,SAT_SYM", "becomes -127 "),
        ("TRN,SAT_ZERO", "becomes 0 "),
        ("TRN,WRAP_SM", "does not fit "),
    ],
)
def test_what_becomes_of_a_number_is_told_by_the_modes(tmp_path, mode, words):
    path = tmp_path / "theirs.yml"
    path.write_text(
        "HLSConfig:\n  Model:\n    Precision: fixed<16,6>\n  LayerName:\n    MatMul_0:\n"
        f"      Precision:\n        result: fixed<8,8,{mode}>\n"
    )
    # Ten times -32: the sum is -32 * (30 + 3/64).
    [found] = qh.lint(foreign(3.046875), "hls4ml", config=path).findings
    assert found.effect.startswith(f"-961.5 {words}")


def test_the_command_writes_the_inputs(tmp_path, folder):
    path = narrowed(folder, tmp_path, "Conv_0", r'accum: "fixed<\d+,\d+>"', 'accum: "int<9>"')
    words = ["lint", folder, "--target", "hls4ml", "--config", path]
    words += ["--save-failing", tmp_path / "x.npz"]
    ran = CliRunner().invoke(app, [str(word) for word in words])
    assert ran.exit_code == 1
    with np.load(tmp_path / "x.npz") as archive:
        assert [len(array) for array in archive.values()] == [1]


def test_a_config_is_no_matter_for_other_tools(folder):
    with pytest.raises(UsageError, match="target 'hls4ml'"):
        qh.lint(folder, "finn", config=folder / "hls4ml_config.yml")


def test_no_value_of_random_nets_leaves_a_proven_type(tmp_path):
    seen = 0
    for seed in range(25):
        folder = tmp_path / str(seed)
        try:
            qh.convert(RandomNet(seed).build(), folder, to="hls4ml", check=False)
        except HubError:
            continue
        assert json.loads((folder / "report.json").read_text())["types"]["proven"]
        config = read_config(folder / "hls4ml_config.yml")["HLSConfig"]["LayerName"]
        model = qh.load(folder / "model.onnx")
        [value] = model.graph.inputs
        low, high = configured_types(config[value.name])["result"].grid().ends()
        rng = np.random.default_rng(seed)
        shape = (40, *value.shape[1:])
        x = np.where(rng.random(shape) < rng.random((40, *[1] * (len(shape) - 1))), low, high)
        values = qh.Session(model).run({value.name: x.astype(np.float32)}, all_tensors=True)
        for node in model.graph:
            for name, kind in configured_types(config.get(node.name)).items():
                array = values.get(node.outputs[0].name)
                if name not in {"result", "accum"} or array is None:
                    continue
                ends = kind.grid().ends()
                slack = 1e-5 * max(map(abs, ends))
                assert ends[0] - slack <= array.min() <= array.max() <= ends[1] + slack
                seen += 1
    assert seen > 100


def test_a_quantizer_of_a_coarser_step_finds_the_bit_that_it_rounds_by(tmp_path):
    # Values below a half, in steps of 4: without further bits, ap_types fails to read one.
    nodes = [
        quant_node("x", "q", "s", "z", "b"),
        helper.make_node("Mul", ["q", "f"], ["y"], "scale"),
        helper.make_node("Relu", ["y"], ["r"], "relu"),
        quant_node("r", "p", "t", "z", "b", signed=0),
    ]
    constants = {"s": 0.25, "z": 0, "b": 3, "f": 0.3, "t": 4.0}
    net = model_of(nodes, {"x": (1, 4)}, ["p"], constants)
    qh.convert(net, tmp_path / "out", to="hls4ml", check=False)
    config = read_config(tmp_path / "out" / "hls4ml_config.yml")["HLSConfig"]["LayerName"]
    model = qh.load(tmp_path / "out" / "model.onnx")
    [last] = [n for n in model.graph if n.op_type == "Quant"][-1:]
    before = last.inputs[0].producer().name
    result, target = (configured_types(config[name])["result"] for name in (before, last.name))
    assert result.integer >= target.lsb()
