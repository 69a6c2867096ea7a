"""From Brevitas through the IR into every form, each compared with the module itself."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import qonnx_hub as qh
from tests.adapters.brevitas.activation_cases import ACTIVATIONS
from tests.adapters.brevitas.kit import make, samples_of
from tests.adapters.brevitas.layer_cases import LAYERS
from tests.adapters.brevitas.topology_cases import TOPOLOGIES
from tests.adapters.brevitas.weight_cases import WEIGHTS

ALL = {case.name: case for case in (*ACTIVATIONS, *WEIGHTS, *LAYERS, *TOPOLOGIES)}
NAMES = [
    "QuantIdentity 4 bits ROUND_TO_ZERO",
    "QuantIdentity zero point, 4 bits",
    "QuantIdentity ternary, threshold 0.2",
    "QuantReLU 1 bit",
    "weight 4 bits FLOOR",
    "weight on ties, DPU",
    "weight normalized, trained",
    "weight accumulator-aware",
    "weight zero points per channel",
    "weight MX int4",
    "bias 16 bits, power of two",
    "QuantConv2d depthwise",
    "QuantConvTranspose2d per channel",
    "TruncAvgPool2d 4 bits, signed",
    "residual add with a shared quantizer",
    "QuantLSTM weights only",
    "QuantMultiheadAttention unpacked",
    "TFC 1W1A",
    "CNV 2W2A",
    "MobileNetV1 4W4A, narrow",
    "ResNet-8 4W4A",
]
SAME = 1e-5
"""Of the largest magnitude: an order of summation; torch's own differs by as much."""


@pytest.mark.parametrize("form", ["qonnx", "qcdq", "qlinear"])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_computes_what_the_module_computes(name, form, tmp_path):
    case = ALL[name]
    module, args, path = make(case), tuple(samples_of(case)), tmp_path / "out.onnx"
    report = qh.convert(module, path, form, args=args, check=False)
    # Integers between scales that are no powers of two are said to be a step apart at most.
    assert form == "qlinear" or all(record.exact for record in report.quantizers)
    feeds = {
        str(v.name): x.numpy() for v, x in zip(report.model.graph.inputs, args, strict=True)
    }
    largest = max(float(np.abs(y).max()) for y in qh.run(str(path), feeds).values())
    result = qh.check(
        module,
        path,
        args=args,
        samples=12,
        boundary=False,
        level="output",
        atol=SAME * largest,
    )
    compared = sum(output.count for output in result.outputs)
    differing = sum(output.differing for output in result.outputs)
    assert compared > 0
    assert result or differing <= case.flips * compared, result.summary()


def test_a_conversion_says_how_it_compares_with_the_module_itself(tmp_path):
    case = ALL["MobileNetV1 4W4A, narrow"]
    report = qh.convert(make(case), tmp_path / "out.onnx", args=tuple(samples_of(case)))
    assert report
    assert report.own
    assert report.own.outputs[0].count > 0
    assert [record.node for record in report.quantizers][:3] == [
        "features.0.0.weight_quant",
        "features.0.2.act_quant",
        "features.1.0.weight_quant",
    ]


def test_a_live_module_is_a_side_of_many_and_what_differs_is_a_group_of_its_own(tmp_path):
    case = ALL["residual add with a shared quantizer"]
    module, args = make(case), tuple(samples_of(case))
    good, bad = tmp_path / "good.onnx", tmp_path / "bad.onnx"
    qh.convert(module, good, "qcdq", args=args, check=False)
    changed = onnx.load(good)
    for tensor in changed.graph.initializer:
        if len(tensor.dims) > 1:
            tensor.CopyFrom(
                numpy_helper.from_array(
                    numpy_helper.to_array(tensor)[::-1].copy(), tensor.name
                )
            )
    onnx.save(changed, bad)
    # Another order of sums is all that may part the module and its file.
    near = {"atol": 1e-5, "args": args, "samples": 12}
    report = qh.check_many(module, [good, f"{good}@ort", bad], **near)
    assert [bool(result) for result in report.results] == [True, True, False]
    assert report.groups[3] not in report.groups[:3]
    assert report.distances[0][1] <= 1e-5 < report.distances[0][3]
    report.to_html(tmp_path / "page.html")
    assert "2 of 3 agree" in (tmp_path / "page.html").read_text("utf-8")
    # The module may be the other side as well.
    turned = qh.check_many(good, [module, bad], **near)
    assert [bool(result) for result in turned.results] == [True, False]
