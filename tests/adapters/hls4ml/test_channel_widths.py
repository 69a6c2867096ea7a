"""Widths per channel, bounds and whole numbers, in quantizers of one type each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import qonnx_hub as qh
from qonnx_hub.api import Verdict
from qonnx_hub_adapters.hls4ml.exporter import Hls4mlExporter
from qonnx_hub_adapters.protocol import ExportOptions
from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import NotExactError
from tests.adapters.hls4ml.nets import Net

BITS = np.float32([[2, 3, 5, 4]])
SCALES = np.float32([[0.5, 1, 0.25, 2]])


def answers(model, x):
    """Return the source's answer, and that of what is written for hls4ml."""
    artifact = Hls4mlExporter().export(qh.load(model), ExportOptions(extra={}))
    (wanted,) = qh.run(model, {"x": x}).values()
    (found,) = qh.run(artifact.compared or artifact.model, {"x": x}).values()
    return wanted, found, artifact.model


def grid(channels: int = 4) -> np.ndarray:
    values = np.arange(-900, 900, dtype=np.float32) / 16
    return np.repeat(values[:, None], channels, axis=1)


@pytest.mark.parametrize("rounding", ["ROUND", "FLOOR"])
@pytest.mark.parametrize(("signed", "narrow"), [(1, 0), (1, 1), (0, 0)])
def test_widths_per_channel_are_kept(rounding, signed, narrow):
    net = Net()
    given = {"signed": signed, "narrow": narrow, "rounding_mode": rounding}
    y = net.quant("x", BITS, SCALES, **given)
    wanted, found, written = answers(net.model(("n", 4), y), grid())
    np.testing.assert_array_equal(found, wanted)
    assert len(np.unique(wanted[:, 2])) == 2**5 - narrow
    widths = [dialect.read_quantizer(n).bits for n in written.graph if "Quant" in n.op_type]
    assert all(width.size == 1 for width in widths)


def test_widths_within_a_channel_are_refused_by_name():
    net = Net()
    widths = np.float32(np.arange(12).reshape(1, 1, 3, 4) + 2)
    y = net.quant("x", widths, 0.5)
    with pytest.raises(NotExactError, match="bit widths that differ within a channel"):
        answers(net.model((1, 2, 3, 4), y), np.zeros((1, 2, 3, 4), dtype=np.float32))


@pytest.mark.parametrize(
    ("widest", "given", "words"),
    [
        (5, {"signed": 0, "narrow": 1}, "unsigned and narrow"),
        (25, {"signed": 0}, "of 25 bits: float32 has 24"),
        (26, {"signed": 1}, "of 26 bits: float32 has 24"),
    ],
)
def test_widths_whose_codes_cannot_be_kept_are_refused(widest, given, words):
    net = Net()
    y = net.quant("x", np.float32([[2, 3, widest, 4]]), SCALES, **given)
    with pytest.raises(NotExactError, match=words):
        answers(net.model(("n", 4), y), grid())


@pytest.mark.parametrize("op_type", ["Floor", "Ceil", "Round"])
def test_whole_numbers_are_made_by_a_quantizer_of_step_one(op_type):
    net = Net()
    y = net.add(op_type, [net.quant("x", 10, 2.0**-4)])
    wanted, found, _ = answers(net.model(("n", 4), y), grid())
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("op_type", ["Max", "Min"])
def test_bounds_per_channel_behind_a_quantizer_are_kept(op_type):
    net = Net()
    bound = net.constant(np.float32([[-1, 0, 0.5, 2]]))
    y = net.add(op_type, [net.quant("x", 8, 2.0**-4), bound])
    wanted, found, _ = answers(net.model(("n", 4), y), grid())
    np.testing.assert_array_equal(found, wanted)


def test_bounds_on_what_is_not_quantized_are_refused():
    net = Net()
    y = net.add("Max", ["x", net.constant(np.float32([[-1, 0, 0.5, 2]]))])
    with pytest.raises(NotExactError, match="a bound on what is not quantized"):
        answers(net.model((1, 4), y), grid()[:1])


@pytest.mark.parametrize("name", ["channels", "wraps"])
def test_a_file_of_hgq2_is_written_and_no_answer_differs(name, tmp_path):
    source = Path(__file__).parent / "hgq2" / f"{name}.keras"
    report = qh.convert(str(source), tmp_path / "out", to="hls4ml")
    assert report.check.verdict is not Verdict.DIFFERENT
    assert [output.differing for output in report.check.outputs] == [0]
