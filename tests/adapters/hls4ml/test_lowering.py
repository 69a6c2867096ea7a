"""What is written for hls4ml: accepted constructs only, and exact."""

from __future__ import annotations

import numpy as np
import pytest

import qonnx_hub as qh
from qonnx_hub.api import Verdict
from qonnx_hub.equivalence.reports.report import CheckResult
from qonnx_hub_adapters.hls4ml.exporter import Hls4mlExporter
from qonnx_hub_adapters.lint.hls4ml import TARGET
from qonnx_hub_adapters.lint.rules import find
from qonnx_hub_adapters.protocol import ExportOptions
from qonnx_hub_ir.errors import NotExactError
from tests.adapters.hls4ml import nets
from tests.adapters.hls4ml.constructs import EXACT, IMAGES, ROWS
from tests.adapters.hls4ml.nets import Net

CASES = {**ROWS, **IMAGES}


def written(source, **options):
    """Return the artifact of a source."""
    return Hls4mlExporter().export(qh.load(source), ExportOptions(extra=options))


def operators(artifact) -> list[str]:
    return [node.op_type for node in artifact.model.graph]


@pytest.mark.parametrize("name", CASES)
def test_every_construct_passes_the_conversion_s_own_check(name):
    build, limit = CASES[name]
    report = qh.convert(build(), to="hls4ml")
    if limit == EXACT:
        assert_exact(report.check)
    else:
        assert report.check


def assert_exact(check: CheckResult, *, proven: bool = True) -> None:
    """No output differs, and the verdict is one of equality.

    Half a step beside a grid of whole ones: the analysis does not see that sums are exact.
    """
    assert [output.differing for output in check.outputs] == [0]
    assert check.outputs[0].count
    equal = (Verdict.EQUAL, Verdict.PROVEN)
    assert check.verdict in equal if proven else check.verdict is Verdict.WITHIN


@pytest.mark.parametrize("name", ["qkeras_cnn", "brevitas_cnn", "residual_net"])
def test_whole_networks_pass_the_conversion_s_own_check(name):
    assert qh.convert(getattr(nets, name)(), to="hls4ml").check


def test_powers_of_two_are_not_reordered():
    assert not written(nets.qkeras_cnn()).reordered


def test_other_scales_are_said_to_be_reordered():
    artifact = written(nets.brevitas_cnn())
    assert artifact.reordered
    assert any("float32 rounds at another place" in note for note in artifact.notes)


def test_weights_of_any_scale_are_written_as_integers():
    build, _ = ROWS["weight_scale_per_channel"]
    artifact = written(build())
    stored = [
        node.inputs[0].const_value.numpy()
        for node in artifact.model.graph
        if node.op_type == "Quant" and node.inputs[0].const_value is not None
    ]
    assert [array.shape for array in stored] == [(6, 5)]
    assert np.array_equal(stored[0], np.rint(stored[0]))
    assert np.abs(stored[0]).max() == 7


def test_every_quantizer_is_told_of():
    source = nets.qkeras_cnn()
    artifact = written(source)
    names = [n.name for n in source.graph.node if n.op_type == "Quant"]
    assert sorted(record.node for record in artifact.quantizers) == sorted(names)


def test_every_weight_has_one_reader():
    build, _ = ROWS["weights_shared"]
    for value in written(build()).model.graph.initializers.values():
        assert len(value.uses()) == 1


def test_scales_of_activations_are_scalars():
    build, _ = ROWS["activation_scale_per_channel"]
    for node in written(build()).model.graph:
        if node.op_type == "Quant":
            assert node.inputs[1].const_value.numpy().shape == ()


def test_images_are_channels_last():
    artifact = written(nets.brevitas_cnn())
    assert list(artifact.model.graph.inputs[0].shape) == [1, 7, 7, 2]
    domains = {n.op_type: n.domain for n in artifact.model.graph}
    assert domains["Conv"] == "qonnx.custom_op.channels_last"


def test_an_image_that_is_only_flattened_is_fed_in_one_row():
    net = Net()
    y = net.add("Flatten", [net.quant("x", 8, 0.5)])
    y = net.add("MatMul", [y, net.weights((18, 2), 4, 0.5)])
    artifact = written(net.model((1, 2, 3, 3), y))
    assert list(artifact.model.graph.inputs[0].shape) == [1, 18]
    assert "Reshape" not in operators(artifact)


def test_flattening_moves_the_weights_instead_of_the_image():
    build, _ = IMAGES["flattened_with_channels"]
    assert "Transpose" not in operators(written(build()))


def test_nothing_that_hls4ml_moves_or_merges_is_written():
    seen = {op for build, _ in CASES.values() for op in operators(written(build()))}
    assert seen.isdisjoint({"Gemm", "AveragePool", "GlobalAveragePool", "Mul", "Neg"})


def test_a_sign_never_follows_a_batch_normalization():
    signs = 0
    for build, _ in ROWS.values():
        for node in written(build()).model.graph:
            if node.op_type != "BipolarQuant" or node.inputs[0].const_value is not None:
                continue
            before = node.inputs[0].producer()
            signs += 1
            assert before is None or before.op_type != "BatchNormalization"
    assert signs > 3


def _dilated(net):
    weight = net.weights((2, 2, 2, 2), 4, 0.5)
    return net.add("Conv", ["x", weight], kernel_shape=[2, 2], dilations=[2, 2])


@pytest.mark.parametrize("name", ["sign_as_output", "one_signed_bit", "scaled_signs"])
def test_back_ends_without_a_sign_function_get_none(name):
    build, _ = ROWS[name]
    assert "BipolarQuant" not in operators(written(build(), backend="Quartus"))
    report = qh.convert(build(), to="hls4ml", target_options={"backend": "Quartus"})
    assert_exact(report.check, proven=name != "scaled_signs")


def test_back_ends_that_get_single_bits_wrong_are_refused_them():
    build, _ = ROWS["one_unsigned_bit"]
    with pytest.raises(NotExactError, match="backend=Vitis takes it"):
        written(build(), backend="oneAPI")


def test_back_ends_without_depthwise_convolutions_get_full_ones():
    build, _ = IMAGES["depthwise"]
    artifact = written(build(), backend="Quartus")
    groups = [n.attributes["group"].value for n in artifact.model.graph if n.op_type == "Conv"]
    assert groups == [1]


REFUSED = {
    "product of two activations": (
        lambda net: net.add("MatMul", ["x", net.add("Transpose", ["x"], perm=[0, 1])]),
        (1, 1),
        "garbage",
    ),
    "rows of rows": (
        lambda net: net.add("MatMul", ["x", net.weights((4, 2), 4, 0.5)]),
        (1, 3, 5, 4),
        "rank 4: hls4ml multiplies all its elements",
    ),
    "constant left operand": (
        lambda net: net.add("MatMul", [net.weights((2, 1), 4, 0.5), "x"]),
        (1, 4),
        "IndexError",
    ),
    "rounding up": (
        lambda net: net.quant("x", 4, 0.5, rounding_mode="CEIL"),
        (1, 4),
        "NotImplementedError",
    ),
    "unsigned and narrow": (
        lambda net: net.quant("x", 4, 0.5, signed=0, narrow=1),
        (1, 4),
        "NotImplementedError",
    ),
    "scale computed at run time": (
        lambda net: net.add(
            "Quant",
            ["x", net.add("ReduceMax", ["x"]), net.constant(0.0), net.constant(4.0)],
            "qonnx.custom_op.general",
            signed=1,
            narrow=0,
            rounding_mode="ROUND",
        ),
        (1, 4),
        "only supports constant scale",
    ),
    "table": (lambda net: net.add("Tanh", ["x"]), (1, 4), "table of 1024 entries"),
    "unknown operator": (
        lambda net: net.add("Erf", ["x"]),
        (1, 4),
        "Unsupported operation type: Erf",
    ),
    "dilation": (_dilated, (1, 2, 5, 5), "dilated"),
    "one constant per pixel": (
        lambda net: net.add(
            "Mul", ["x", net.constant(np.arange(9, dtype=np.float32).reshape(3, 3) + 1)]
        ),
        (1, 2, 3, 3),
        "another axis than the channels",
    ),
    "uncounted padding": (
        lambda net: net.add("AveragePool", ["x"], kernel_shape=[2, 2], pads=[1, 1, 0, 0]),
        (1, 2, 4, 4),
        "windows at the border are smaller",
    ),
    "data divided by data": (
        lambda net: net.add("Div", ["x", net.add("Relu", ["x"])]),
        (1, 4),
        "no such layer",
    ),
    "inner softmax": (
        lambda net: net.add("Relu", [net.add("Softmax", ["x"], axis=-1)]),
        (1, 4),
        "table",
    ),
    "infinite factor": (
        lambda net: net.add("Mul", ["x", net.constant(np.float32(np.inf))]),
        (1, 4),
        "no fixed-point type holds it",
    ),
    "resize": (
        lambda net: net.add(
            "Resize",
            ["x", "", net.constant(np.float32([1, 1, 2, 2]))],
            mode="nearest",
        ),
        (1, 2, 3, 4),
        "hls4ml takes height for width",
    ),
    "an input's quantizer": (
        lambda net: net.quant("x", 4, 0.5),
        (1, 4),
        "the same as an input",
    ),
    "an input in another shape": (
        lambda net: net.add("Flatten", ["x"]),
        (1, 2, 3, 4),
        "the same as an input",
    ),
    "resize by a fraction": (
        lambda net: net.add(
            "Resize",
            ["x", "", net.constant(np.float32([1, 1, 1.5, 1.5]))],
            mode="nearest",
        ),
        (1, 2, 4, 4),
        "one whole factor",
    ),
    # Eight elements of four, as twice as many would be: others are repeated.
    "resize by a fraction of named axes": (
        lambda net: net.add(
            "Resize",
            ["x", "", net.constant(np.float32([2.1, 2.1]))],
            mode="nearest",
            axes=[2, 3],
        ),
        (1, 2, 4, 4),
        "one whole factor",
    ),
    "interpolation": (
        lambda net: net.add(
            "Resize",
            ["x", "", net.constant(np.float32([1, 1, 2, 2]))],
            mode="linear",
        ),
        (1, 2, 3, 3),
        "interpolates",
    ),
    "three joined": (
        lambda net: net.add("Concat", ["x", "x", "x"], axis=1),
        (1, 4),
        "two tensors at a time",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_mended_is_refused_with_what_hls4ml_would_do(name):
    body, shape, reason = REFUSED[name]
    net = Net()
    source = net.model(shape, body(net))
    with pytest.raises(NotExactError) as error:
        written(source)
    assert reason in str(error.value)
    assert all(gap.node for gap in error.value.gaps)


def test_all_reasons_are_told_at_once():
    net = Net()
    y = net.quant(net.add("Erf", ["x"]), 4, 0.5, rounding_mode="CEIL")
    gaps = Hls4mlExporter().gaps(qh.load(net.model((1, 4), net.add("Tanh", [y]))))
    assert [gap.op for gap in gaps] == ["Erf", "Quant", "Tanh"]


def test_a_table_is_written_where_near_forms_are_allowed():
    net = Net()
    source = net.model((1, 4), net.add("Tanh", [net.quant("x", 8, 2.0**-6)]))
    report = qh.convert(source, to="hls4ml", allow_lossy=True)
    assert any("from a table" in note for note in report.notes)


def test_streams_refuse_what_hls4ml_repacks():
    build, _ = IMAGES["flattened_as_output"]
    with pytest.raises(NotExactError, match="KeyError"):
        written(build(), io_type="io_stream")
    build, _ = IMAGES["images_turned_inside"]
    with pytest.raises(NotExactError, match="loses data"):
        written(build(), io_type="io_stream")
    build, _ = IMAGES["padded_max_pool_of_unsigned"]
    with pytest.raises(NotExactError, match="windows side by side"):
        written(build(), io_type="io_stream")


def test_the_source_is_not_changed():
    model = qh.load(nets.brevitas_cnn())
    before = [(n.op_type, n.name, [v.name for v in n.inputs]) for n in model.graph]
    Hls4mlExporter().export(model, ExportOptions())
    assert before == [(n.op_type, n.name, [v.name for v in n.inputs]) for n in model.graph]


@pytest.mark.parametrize("name", CASES)
def test_nothing_that_hls4ml_gets_wrong_is_left(name):
    build, _ = CASES[name]
    found = find(TARGET.rules, written(build()).model)
    left = [finding for finding in found if finding.is_error]
    assert left == []
