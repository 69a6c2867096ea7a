"""Zero points that are added after rounding in QONNX: exact by default, near on request."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import qonnx_hub as qh
from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import NotExactError
from tests.support import model_of, quant_node

CONSTANTS = {"s": 0.5, "z": 3.0, "b": 8.0}


def source() -> onnx.ModelProto:
    node = quant_node("x", "y", "s", "z", "b", signed=0, zero_point_after_rounding=1)
    return model_of([node], {"x": (1, 64)}, ["y"], CONSTANTS)


def quants(path: Path) -> list[onnx.NodeProto]:
    return [node for node in onnx.load(path).graph.node if node.op_type == "Quant"]


def test_the_default_form_is_two_quantizers_that_say_nothing_new(tmp_path: Path) -> None:
    report = qh.convert(source(), tmp_path / "out.onnx", to="qonnx")
    (record,) = report.quantizers
    assert (record.encoding, record.exact) == ("Quant + Quant", True)
    nodes = quants(tmp_path / "out.onnx")
    assert len(nodes) == 2
    known = {"signed", "narrow", "rounding_mode"}
    assert all({a.name for a in node.attribute} <= known for node in nodes)
    assert report.check is not None
    assert report.check.verdict == "PROVEN"


def test_the_near_form_is_one_marked_quantizer_with_the_share_that_was_measured(
    tmp_path: Path,
) -> None:
    report = qh.convert(source(), tmp_path / "out.onnx", to="qonnx", allow_lossy=True)
    (record,) = report.quantizers
    assert not record.exact
    assert "at each tie between codes" in record.reason
    (node,) = quants(tmp_path / "out.onnx")
    assert {a.name for a in node.attribute} == {"signed", "narrow", "rounding_mode"}
    assert [one.key for one in node.metadata_props] == [dialect.NEAR]
    assert report.check is not None
    assert report.check.verdict == "WITHIN"
    assert "values of near quantizers differ" in report.check.reason


def test_a_near_form_of_a_frozen_batch_is_compared_on_few_samples(tmp_path: Path) -> None:
    node = quant_node("x", "y", "s", "z", "b", signed=0, zero_point_after_rounding=1)
    file = model_of([node], {"x": (100_000, 48)}, ["y"], CONSTANTS)
    report = qh.convert(file, tmp_path / "out.onnx", to="qonnx", allow_lossy=True)
    assert report.check is not None
    assert report.check.verdict == "WITHIN"
    assert report.check.samples < 100_000
    shape = onnx.load(tmp_path / "out.onnx").graph.input[0].type.tensor_type.shape
    assert [dim.dim_value for dim in shape.dim] == [100_000, 48]


def test_what_is_opened_to_compare_a_frozen_batch_is_no_size_of_the_file() -> None:
    node = quant_node("x", "y", "s", "z", "b", signed=0, zero_point_after_rounding=1)
    many = model_of([node], {"x": (5000, 900)}, ["y"], CONSTANTS)
    report = qh.convert(many, to="qcdq")
    assert report.check is not None
    assert report.check.samples < 5000
    assert "size of" not in report.conclusion()


def test_few_large_samples_are_compared_as_the_file_has_them() -> None:
    node = quant_node("x", "y", "s", "z", "b", signed=0, zero_point_after_rounding=1)
    large = model_of([node], {"x": (1, 2100, 2100)}, ["y"], CONSTANTS)
    report = qh.convert(large, to="qcdq", samples=2)
    assert report.check is not None
    assert report.check.samples >= 2
    assert "size of" not in report.conclusion()


def test_the_exact_form_comes_back_as_the_quantizer_the_near_one_as_what_readers_compute(
    tmp_path: Path,
) -> None:
    x = (np.arange(-32, 32, dtype=np.float32) / 4).reshape(1, 64)
    # By hand: x / 0.5, rounded half to even, 3 added after it or before, kept to 0 to 255.
    wanted = {
        False: (np.clip(np.rint(x * 2) + 3, 0, 255) - 3) / 2,
        True: (np.rint(np.clip(x * 2 + 3, 0, 255)) - 3) / 2,
    }
    for near, answer in wanted.items():
        qh.convert(source(), tmp_path / "out.onnx", to="qonnx", allow_lossy=near)
        model = qh.load(tmp_path / "out.onnx")
        (found,) = [n for n in model.graph if dialect.is_quantizer(n)]
        quant = dialect.read_quantizer(found)
        assert quant.zero_point_after_rounding is not near  # type: ignore[union-attr]
        np.testing.assert_array_equal(qh.run(model, {"x": x})["y"], answer)


def test_a_conversion_of_the_near_form_goes_back_to_the_order_of_the_source_and_says_so(
    tmp_path: Path,
) -> None:
    qh.convert(source(), tmp_path / "near.onnx", to="qonnx", allow_lossy=True)
    report = qh.convert(tmp_path / "near.onnx", tmp_path / "back.onnx", to="qcdq")
    (note,) = [note for note in report.notes if "marked as near" in note]
    (marked,) = [node.name for node in onnx.load(tmp_path / "near.onnx").graph.node]
    assert f"marked as near: '{marked}'. Source order restored" in note
    assert report.check is not None
    assert report.check.a.endswith("near.onnx in the order of its source")
    as_it_stands = qh.check(tmp_path / "near.onnx", tmp_path / "back.onnx")
    assert as_it_stands.verdict == "DIFFERENT"
    back = onnx.load(tmp_path / "back.onnx")
    assert [node.op_type for node in back.graph.node] == ["QuantizeLinear", "DequantizeLinear"]
    found = qh.check(source(), tmp_path / "back.onnx", level="proof", samples=16)
    assert found.verdict == "PROVEN"


@pytest.mark.parametrize("zero", [3.0, 4.0])
def test_a_check_of_the_near_form_names_the_ties_and_proves_the_bound_of_a_step(
    tmp_path: Path, zero: float
) -> None:
    node = quant_node("x", "y", "s", "z", "b", signed=0, zero_point_after_rounding=1)
    constants = {"s": 0.0173, "z": zero, "b": 8.0}
    exact = model_of([node], {"x": (1, 64)}, ["y"], constants)
    qh.convert(exact, tmp_path / "near.onnx", to="qonnx", allow_lossy=True)
    found = qh.check(exact, tmp_path / "near.onnx", level="proof", samples=64)
    assert found.verdict == "DIFFERENT"
    assert "ties between two codes" in found.to_json()
    assert "outputs differ by at most 0.0173 (1 step)" in found.to_json()
    allowed = qh.check(exact, tmp_path / "near.onnx", level="proof", samples=64, lsb=1)
    assert allowed.verdict == "PROVEN_WITHIN"


def test_more_bits_than_two_quantizers_can_hold_are_refused() -> None:
    node = quant_node("x", "y", "s", "z", "b", signed=0, zero_point_after_rounding=1)
    model = model_of([node], {"x": (1, 64)}, ["y"], {**CONSTANTS, "b": 24.0})
    with pytest.raises(NotExactError, match="adds its zero point after rounding"):
        qh.convert(model, None, to="qonnx")
