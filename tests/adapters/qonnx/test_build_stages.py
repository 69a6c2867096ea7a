"""What a build of FINN keeps after its steps is compared with the source, stage by stage.

Stages are written by hand here, with FINN's hardware layers; expected values of single layers
are calculated by hand, as FINN's own classes calculate them.
"""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

import qonnx_hub as qh
from qonnx_hub.cli import app
from qonnx_hub_adapters.finn.hardware import in_known_operators
from qonnx_hub_adapters.finn.stages import stage_files
from qonnx_hub_ir.errors import UsageError
from tests.support import DOMAIN, model_of, quant_node

FPGA = "finn.custom_op.fpgadataflow"
WEIGHTS = np.random.default_rng(1).integers(-3, 4, (6, 4)).astype(np.float32)


def source():
    """Return x -> int4 in steps of .3 -> whole weights -> uint3 in steps of 1.7."""
    nodes = [
        quant_node("x", "q", "s", "z", "b"),
        helper.make_node("MatMul", ["q", "w"], ["y"], "product"),
        helper.make_node("Relu", ["y"], ["r"], "relu"),
        quant_node("r", "p", "t", "z", "c", signed=0),
    ]
    constants = {"s": 0.3, "z": 0, "b": 4, "w": WEIGHTS, "t": 1.7, "c": 3}
    return model_of(nodes, {"x": (1, 6)}, ["p"], constants)


STAGES = ["step_qonnx_to_finn", "step_specialize_layers"]

FIRST = ((np.arange(-8, 7) + 0.5) * 0.3)[None]
SECOND = ((np.arange(0, 7) + 0.5) * 1.7)[None]


def stage(nodes, constants, shapes, output=("p", (1, 4))):
    """Return a model as FINN keeps it: with the shapes of all values."""
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]
    graph = helper.make_graph(
        nodes,
        "stage",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shapes["x"])],
        [helper.make_tensor_value_info(output[0], TensorProto.FLOAT, output[1])],
        [numpy_helper.from_array(np.asarray(a, dtype="f4"), n) for n, a in constants.items()],
        value_info=infos,
    )
    domains = ("", DOMAIN, FPGA)
    imports = [helper.make_opsetid(name, 1 if name else 13) for name in domains]
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


def thresholds_stage():
    """Return the source with thresholds in the place of quantizers."""
    counts = {"domain": DOMAIN, "out_dtype": "INT4", "data_layout": "NC"}
    nodes = [
        helper.make_node(
            *("MultiThreshold", ["x", "t1"], ["q0"], "first"), out_bias=-8.0, **counts
        ),
        helper.make_node("Mul", ["q0", "s"], ["q"], "scale"),
        helper.make_node("MatMul", ["q", "w"], ["y"], "product"),
        helper.make_node("MultiThreshold", ["y", "t2"], ["p0"], "second", **counts),
        helper.make_node("Mul", ["p0", "t"], ["p"], "last"),
    ]
    constants = {"t1": FIRST, "s": 0.3, "w": WEIGHTS, "t2": SECOND, "t": 1.7}
    shapes = {"x": (1, 6), "q0": (1, 6), "q": (1, 6), "y": (1, 4), "p0": (1, 4)}
    return stage(nodes, constants, shapes)


def hardware_stage(second=SECOND / 0.3):
    """Return it in hardware layers: the scale between them is in the thresholds."""
    common = {"domain": FPGA, "backend": "fpgadataflow", "PE": 1}
    nodes = [
        helper.make_node(
            *("Thresholding_rtl", ["x", "t1"], ["q0"], "Thresholding_rtl_0"),
            **{**common, "NumChannels": 6, "ActVal": -8, "outputDataType": "INT4"},
        ),
        helper.make_node("StreamingFIFO_rtl", ["q0"], ["f"], "StreamingFIFO_rtl_0", **common),
        helper.make_node(
            *("MVAU_hls", ["f", "w", "t2"], ["p0"], "MVAU_hls_0"),
            **{**common, "MW": 6, "MH": 4, "ActVal": 0, "noActivation": 0},
            inputDataType="INT4",
            weightDataType="INT4",
            outputDataType="UINT3",
        ),
        helper.make_node("Mul", ["p0", "t"], ["p"], "last"),
    ]
    constants = {"t1": FIRST, "w": WEIGHTS, "t2": second, "t": 1.7}
    shapes = {"x": (1, 6), "q0": (1, 6), "f": (1, 6), "p0": (1, 4)}
    return stage(nodes, constants, shapes)


@pytest.fixture
def build(tmp_path):
    """Write a source and two stages; the folder of the stages."""
    folder = tmp_path / "intermediate_models"
    folder.mkdir()
    onnx.save(source(), tmp_path / "source.onnx")
    # The later one first: their order is that of the steps, not that of writing.
    onnx.save(hardware_stage(), folder / "step_specialize_layers.onnx")
    onnx.save(thresholds_stage(), folder / "step_qonnx_to_finn.onnx")
    return folder


def test_every_stage_that_computes_the_source_is_equal(build):
    report = qh.check_stages(build.parent / "source.onnx", build)
    assert report
    assert [one.stage for one in report.stages] == STAGES
    assert {one.verdict for one in report.stages} <= {"EQUAL", "TIES"}


def test_the_first_stage_and_node_that_differ_are_named(build):
    wrong = hardware_stage(np.sort(SECOND / 0.3 + [[0, 0, 0, 3, 0, 0, 0]]))
    onnx.save(wrong, build / "step_specialize_layers.onnx")
    report = qh.check_stages(build.parent / "source.onnx", build, samples=128)
    assert not report
    assert report.first_difference.stage == "step_specialize_layers"
    assert report.first_difference.words.startswith("MVAU_hls 'MVAU_hls_0'")


STEPS = np.array([4.5, 0.5, 2.5, -0.5, -0.5, 2.5], dtype=np.float32)
TIES = (np.float32(0.3) * STEPS)[None]
"""Halves of a step of .3, at which float32 holds FINN's thresholds as well."""


def answer(codes):
    """Return the codes of the source's output for codes of its first quantizer."""
    return np.clip(np.rint(0.3 * codes @ WEIGHTS.astype(float) / 1.7), 0, 7)


def test_ties_are_counted_and_are_no_difference(build):
    # FINN rounds up what the source rounds to even.
    even, up = np.rint(STEPS), np.floor(STEPS + 1)
    apart = int(np.sum(answer(even) != answer(up)))
    assert apart
    away = np.random.default_rng(0).uniform(-2, 2, (8, 6)).astype(np.float32)
    x = np.concatenate([np.tile(TIES, (5, 1)), away])
    report = qh.check_stages(build.parent / "source.onnx", build, {"x": x})
    assert report
    counts = [(one.verdict, one.differing, one.ties, one.upward) for one in report.stages]
    assert counts == [("TIES", 5 * apart, 5 * apart, 5 * apart)] * 2


def test_ties_that_fall_as_no_rule_says_are_not_called_equal(build):
    # Every threshold between two codes, a hundredth of a step off: away from ties nothing
    # differs, at ties all fall down, which is neither to even nor up.
    down = hardware_stage()
    down.graph.initializer[0].CopyFrom(
        numpy_helper.from_array((FIRST + 0.003).astype("f4"), "t1")
    )
    onnx.save(down, build / "step_specialize_layers.onnx")
    report = qh.check_stages(build.parent / "source.onnx", build, {"x": np.tile(TIES, (8, 1))})
    assert not report
    assert report.stages[1].verdict == "UNDECIDED"
    assert "only 0 samples meet no tie" in report.stages[1].words


def test_a_layer_that_nobody_knows_is_not_called_equal(build):
    model = hardware_stage()
    model.graph.node[1].op_type = "Mystery"
    onnx.save(model, build / "step_specialize_layers.onnx")
    report = qh.check_stages(build.parent / "source.onnx", build)
    assert not report
    assert report.stages[1].verdict == "NOT RUN"
    assert "Mystery 'StreamingFIFO_rtl_0'" in report.stages[1].words


def test_places_of_the_largest_are_compared_with_the_values_there(build):
    model = hardware_stage()
    model.graph.node.append(
        helper.make_node("LabelSelect_hls", ["p"], ["k"], "Label_0", domain=FPGA, K=1)
    )
    model.graph.value_info.append(model.graph.output[0])
    model.graph.output[0].CopyFrom(
        helper.make_tensor_value_info("k", TensorProto.FLOAT, (1, 1))
    )
    onnx.save(model, build / "step_specialize_layers.onnx")
    x = {"x": np.random.default_rng(0).uniform(-2, 2, (64, 6)).astype(np.float32)}
    assert qh.check_stages(build.parent / "source.onnx", build, x)
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(-WEIGHTS, "w"))
    onnx.save(model, build / "step_specialize_layers.onnx")
    assert not qh.check_stages(build.parent / "source.onnx", build, x)


def test_what_was_cut_out_for_hardware_is_put_back(build):
    whole = hardware_stage()
    names = [node.name for node in whole.graph.node]
    assert names[-1] == "last"
    inside = onnx.ModelProto.FromString(whole.SerializeToString())
    del inside.graph.node[3]
    inside.graph.output[0].name = "p0"
    outer = stage(
        [
            helper.make_node(
                *("StreamingDataflowPartition", ["x"], ["p0"], "hole"), domain=FPGA
            ),
            helper.make_node("Mul", ["p0", "t"], ["p"], "last"),
        ],
        {"t": 1.7},
        {"x": (1, 6), "p0": (1, 4)},
    )
    onnx.save(inside, build / "step_specialize_layers.onnx")
    onnx.save(outer, build / "dataflow_parent.onnx")
    report = qh.check_stages(build.parent / "source.onnx", build)
    assert report
    assert len(report.stages) == 2


def test_the_verb_writes_what_finn_verifies_with(build, tmp_path):
    golden = tmp_path / "golden"
    words = ["check", tmp_path / "source.onnx", build, "--save-golden", golden]
    words += ["--json", tmp_path / "r.json"]
    ran = CliRunner().invoke(app, [str(word) for word in words])
    assert ran.exit_code == 0, ran.output
    assert "every stage computes what the source does" in ran.output
    x, y = (np.load(golden / f"{name}.npy") for name in ("input", "expected_output"))
    wanted = qh.run(tmp_path / "source.onnx", {"x": x})["p"]
    np.testing.assert_array_equal(y, wanted)
    told = json.loads((tmp_path / "r.json").read_text())
    assert told["stages"][0]["stage"] == "step_qonnx_to_finn"


def test_a_folder_of_other_models_is_no_build(tmp_path):
    onnx.save(source(), tmp_path / "mine.onnx")
    assert stage_files(tmp_path) == ()
    with pytest.raises(UsageError, match="holds no models that a build of FINN kept"):
        qh.check_stages(tmp_path / "mine.onnx", tmp_path)


def run_layer(op, inputs, shape, constants=None, **attributes):
    """Return what one hardware layer computes of x."""
    x = np.asarray(inputs, dtype=np.float32)
    node = helper.make_node(op, ["x", *(constants or {})], ["p"], "one", domain=FPGA)
    node.attribute.extend(helper.make_attribute(*one) for one in attributes.items())
    model = stage([node], constants or {}, {"x": x.shape}, ("p", shape))
    known, left = in_known_operators(model)
    assert left == ()
    return next(iter(qh.run(known, {"x": x}).values()))


def test_products_of_signs_count_equal_bits():
    x, w = [[1, -1, 1, 1]], [[1, 1], [-1, 1], [1, 1], [-1, 1]]
    kinds = {
        "inputDataType": "BIPOLAR",
        "weightDataType": "BIPOLAR",
        "outputDataType": "UINT3",
    }
    found = run_layer("MVAU", x, (1, 2), {"w": w}, MW=4, MH=2, noActivation=1, **kinds)
    # Three of four signs are alike in either column.
    assert found.tolist() == [[3, 3]]


def test_a_sign_layer_gives_signs():
    found = run_layer(
        *("Thresholding", [[-1, 0, 2]], (1, 3), {"t": [[0]]}),
        ActVal=0,
        outputDataType="BIPOLAR",
    )
    assert found.tolist() == [[-1, 1, 1]]


def test_windows_channel_by_channel():
    # Two channels, windows of two values: what an Im2Col gives is by value, then by channel.
    x = np.array([1, 2, 3, 4], dtype=np.float32).reshape(1, 1, 1, 4)
    w = np.array([[10, 1], [100, 5]]).reshape(2, 1, 1, 2)
    found = run_layer(
        *("VVAU", x, (1, 1, 1, 2), {"w": w}),
        Kernel=[1, 2],
        Channels=2,
        PE=2,
        noActivation=1,
        inputDataType="INT4",
        weightDataType="INT8",
        outputDataType="INT32",
    )
    assert found.reshape(-1).tolist() == [1 * 10 + 3 * 1, 2 * 100 + 4 * 5]


@pytest.mark.parametrize(
    "between", [(), ("StreamingFIFO_rtl",), ("DuplicateStreams_hls",) * 2]
)
def test_windows_lie_by_value_whatever_only_hands_them_on(between):
    # Fewer lanes than channels: FINN's class takes windows themselves channel by channel.
    x = np.array([1, 2, 3, 4], dtype=np.float32).reshape(1, 1, 2, 2)
    sizes = {"ConvKernelDim": [1, 2], "IFMDim": [1, 2], "IFMChannels": 2}
    names = ["w0", *(f"w{k + 1}" for k in range(len(between)))]
    nodes = [
        helper.make_node("ConvolutionInputGenerator_rtl", ["x"], ["w0"], "windows", **sizes)
    ]
    for op, read, made in zip(between, names, names[1:], strict=False):
        nodes.append(helper.make_node(op, [read], [made], made))
    kinds = {f"{name}DataType": "INT8" for name in ("input", "weight", "output")}
    attributes = {"Kernel": [1, 2], "Channels": 2, "PE": 1, "noActivation": 1, **kinds}
    nodes.append(helper.make_node("VVAU_hls", [names[-1], "w"], ["p"], "one", **attributes))
    for node in nodes:
        node.domain = FPGA
    weights = np.array([[10, 1], [100, 5]]).reshape(2, 1, 1, 2)
    shapes = {"x": x.shape, **dict.fromkeys(names, (1, 1, 1, 4))}
    known, left = in_known_operators(stage(nodes, {"w": weights}, shapes, ("p", (1, 1, 1, 2))))
    assert left == ()
    (found,) = qh.run(known, {"x": x}).values()
    assert found.reshape(-1).tolist() == [1 * 10 + 3 * 1, 2 * 100 + 4 * 5]


@pytest.mark.parametrize(
    ("op", "attributes", "wanted"),
    [
        ("Pool", {"Function": "MaxPool", "KernelSize": [1, 2], "Channels": 2}, [3, 4]),
        ("Pool", {"Function": "AccPool", "KernelSize": [1, 2], "Channels": 2}, [4, 6]),
        ("GlobalAccPool", {}, [1, 2, 3, 4]),
        ("LabelSelect", {"K": 2}, [3, 2]),
        ("DuplicateStreams", {}, [1, 2, 3, 4]),
        ("Shuffle", {"transpose_in_shape": [1, 2, 2], "perm": [0, 2, 1]}, [1, 3, 2, 4]),
        ("OuterShuffle_hls", {"transpose_in_shape": [2, 2], "perm": [1, 0]}, [1, 3, 2, 4]),
        ("InnerShuffle_rtl", {"transpose_in_shape": [1, 2, 2]}, [1, 3, 2, 4]),
        ("Reshape_hls", {}, [1, 2, 3, 4]),
    ],
)
def test_layers_without_weights(op, attributes, wanted):
    x = np.array([1, 2, 3, 4], dtype=np.float32).reshape(1, 1, 1, 4)
    found = run_layer(op, x, (1, 1, 1, len(wanted)), **attributes)
    assert found.reshape(-1).tolist() == wanted


def test_an_image_made_larger_repeats_its_pixels():
    x = np.array([1, 2], dtype=np.float32).reshape(1, 1, 2, 1)
    sizes = {"HI": 1, "WI": 2, "HO": 2, "WO": 4, "NumChannels": 1}
    found = run_layer("UpsampleNearestNeighbour_hls", x, (1, 2, 4, 1), **sizes)
    assert found[0, :, :, 0].tolist() == [[1, 1, 2, 2], [1, 1, 2, 2]]


@pytest.mark.parametrize(
    ("kind", "narrow", "wanted"),
    [
        ("INT4", 0, [-8, -1, 0, 1, 7]),
        ("INT4", 1, [-7, -1, 0, 1, 7]),
        ("UINT4", 1, [0, 0, 0, 1, 14]),
    ],
)
def test_requantizing_rounds_ties_up_and_clips(kind, narrow, wanted):
    # x / 2 + 1/2: -19.5, -1.5, -.5, .5, 20.
    x = np.array([[-40, -4, -2, 0, 39]], dtype=np.float32)
    found = run_layer(
        *("Requant_hls", x, (1, 5), {"s": [0.5], "b": [0.5]}),
        outputDataType=kind,
        narrow=narrow,
    )
    assert found.tolist() == [wanted]


def test_a_type_that_nobody_knows_is_not_guessed():
    node = helper.make_node("Requant", ["x", "s", "b"], ["p"], "one", domain=FPGA)
    node.attribute.append(helper.make_attribute("outputDataType", "WORD"))
    constants = {"s": [0.5], "b": [0.5]}
    _, left = in_known_operators(stage([node], constants, {"x": (1, 4)}))
    assert left == ("Requant 'one'",)
