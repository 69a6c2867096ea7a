"""Whole conversions: the file written, its answer, and what other tools make of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest

import qonnx_hub as qh
from benchmarks import nets
from qonnx_hub.equivalence.verdicts import Verdict
from qonnx_hub_ir import dialect
from tests.support import SHARED, corpus, needs_shared

ZOO = ("TFC_1W1A", "TFC_2W2A", "kwsmlp_w3a3", "qkeras_jettagging")


def _zoo(name: str) -> Path:
    return SHARED / "models" / "zoo" / f"{name}.onnx"


@needs_shared
@pytest.mark.parametrize("name", ZOO)
def test_a_zoo_model_becomes_qcdq_without_changing_a_bit(name: str, tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    report = qh.convert(_zoo(name), path, "qcdq")
    assert report.check is not None
    assert report.check.verdict in {Verdict.EQUAL, Verdict.PROVEN}
    assert all(record.exact for record in report.quantizers)
    written = onnx.load(path)
    onnx.checker.check_model(written, full_check=True)
    assert {node.domain for node in written.graph.node} == {""}


@needs_shared
@pytest.mark.parametrize("name", ZOO)
def test_onnxruntime_gives_the_recorded_answer_on_the_qcdq_file(
    name: str, tmp_path: Path
) -> None:
    ort = pytest.importorskip("onnxruntime")
    path = tmp_path / "out.onnx"
    qh.convert(_zoo(name), path, "qcdq")
    recorded = np.load(_zoo(name).with_suffix(".io.npz"))
    options = ort.SessionOptions()
    ort.InferenceSession(str(path))  # default options load it
    # Without the fusion of quantized operators, which changes numbers by design.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = ort.InferenceSession(str(path), options)
    feed = session.get_inputs()[0].name
    for x, y in zip(recorded["x"], recorded["y"], strict=True):
        (answer,) = session.run(None, {feed: x})
        np.testing.assert_allclose(answer, y, rtol=0, atol=1e-6 * np.abs(y).max())


@needs_shared
@pytest.mark.parametrize("folder", corpus("qonnx"), ids=lambda p: p.name)
def test_a_brevitas_export_becomes_qcdq_that_onnxruntime_runs(folder: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    report = qh.convert(folder / "model.onnx", None, "qcdq", check=False)
    assert report.model is not None
    message = onnx_ir.to_proto(report.model).SerializeToString()
    ort.InferenceSession(message)  # default options load it
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = ort.InferenceSession(message, options)
    recorded = np.load(folder / "io.npz")
    names = [value.name for value in session.get_inputs()]
    for batch, answer in enumerate(recorded["y0"]):
        given = {name: recorded[f"x{i}"][batch] for i, name in enumerate(names)}
        ours = session.run(None, given)[0]
        bound = 2e-6 * np.nanmax(np.abs(answer), initial=0.0)
        np.testing.assert_allclose(ours, answer, rtol=0, atol=bound, equal_nan=True)


@pytest.mark.parametrize(
    "build",
    [lambda: nets.tfc(2, 2), lambda: nets.tfc(1, 1), lambda: nets.cnv(2, 2), nets.resnet8],
    ids=["tfc_2w2a", "tfc_1w1a", "cnv_2w2a", "resnet8"],
)
@pytest.mark.parametrize("to", ["qonnx", "qcdq"])
def test_a_built_net_converts_without_changing_a_bit(build, to: str) -> None:  # type: ignore[no-untyped-def]
    report = qh.convert(build(), None, to, samples=4)
    assert report.check is not None
    assert report.check.verdict in {Verdict.EQUAL, Verdict.PROVEN}
    assert report.check.outputs[0].count == 40


def _saved(source: object, path: Path) -> bytes:
    qh.save(qh.load(source), path)
    return path.read_bytes()


@needs_shared
@pytest.mark.parametrize("name", ZOO)
def test_saving_twice_gives_identical_bytes(name: str, tmp_path: Path) -> None:
    first = _saved(_zoo(name), tmp_path / "a.onnx")
    assert _saved(_zoo(name), tmp_path / "b.onnx") == first
    assert _saved(tmp_path / "a.onnx", tmp_path / "c.onnx") == first


@needs_shared
@pytest.mark.parametrize("name", ZOO)
def test_a_saved_qonnx_file_is_cleaned_and_executed_by_qonnx(
    name: str, tmp_path: Path
) -> None:
    pytest.importorskip("qonnx")
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.util.cleanup import cleanup_model

    path = tmp_path / "saved.onnx"
    qh.save(qh.load(_zoo(name)), path)
    recorded = np.load(_zoo(name).with_suffix(".io.npz"))
    wrapped = cleanup_model(ModelWrapper(str(path)))
    feed, answer = wrapped.graph.input[0].name, wrapped.graph.output[0].name
    for x, y in zip(recorded["x"], recorded["y"], strict=True):
        # The same tool recorded the answers on the file as published.
        np.testing.assert_array_equal(execute_onnx(wrapped, {feed: x})[answer], y)


@needs_shared
@pytest.mark.parametrize("folder", corpus("qonnx"), ids=lambda p: p.name)
def test_a_brevitas_export_saved_as_qonnx_keeps_its_function(folder: Path) -> None:
    report = qh.convert(folder / "model.onnx", None, "qonnx", samples=4)
    assert report.check is not None
    assert report.check.verdict in {Verdict.EQUAL, Verdict.PROVEN}


def _quantizers(model: qh.ir.Model) -> dict[str, object]:
    """Return value name -> quantizer, parameters as scalars where they are one number."""
    found = {}
    for node in model.graph:
        if dialect.is_quantizer(node):
            quant = dialect.read_quantizer(node)
            plain = [
                None if p is None else p.reshape(-1).astype(np.float32)
                for p in dialect.parameters(quant)
            ]
            found[str(node.outputs[0].name)] = dialect.with_parameters(quant, plain)
    return found


@pytest.mark.parametrize(
    "build",
    [lambda: nets.tfc(2, 2), lambda: nets.tfc(1, 1), lambda: nets.cnv(2, 2), nets.resnet8],
    ids=["tfc_2w2a", "tfc_1w1a", "cnv_2w2a", "resnet8"],
)
def test_quantizers_come_back_through_qcdq_as_they_were(build) -> None:  # type: ignore[no-untyped-def]
    source = qh.load(build())
    written = qh.convert(source, None, "qcdq", check=False).model
    back = qh.load(onnx_ir.to_proto(written))
    before, after = _quantizers(source), _quantizers(back)
    assert len(before) > 7
    assert after == before


@needs_shared
@pytest.mark.parametrize("name", ZOO)
def test_zoo_quantizers_come_back_through_qcdq_as_they_were(name: str) -> None:
    source = qh.load(_zoo(name))
    written = qh.convert(source, None, "qcdq", check=False).model
    back = qh.load(onnx_ir.to_proto(written))
    assert _quantizers(back) == _quantizers(source)
    assert qh.check(source, back, samples=8).verdict is Verdict.PROVEN
