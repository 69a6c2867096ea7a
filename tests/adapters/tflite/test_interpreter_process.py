"""ai-edge-litert in its own process: what it answers, and what becomes of files it ends on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import qonnx_hub as qh
from qonnx_hub_adapters.tflite.litert import LitertSession, run_on_litert
from qonnx_hub_adapters.tflite.net import TfliteNet
from qonnx_hub_adapters.tflite.net_builder import NetBuilder, one_grid
from qonnx_hub_adapters.tflite.net_writer import write_net
from qonnx_hub_ir.errors import ExecutionError, MissingDependencyError, UsageError

X = np.arange(-128, 128, dtype=np.int8).reshape(64, 4)


def requantizing(batch: int = 1) -> TfliteNet:
    """Return a net of which reference kernels and XNNPACK give other codes: two roundings."""
    net = NetBuilder()
    x = net.tensor("x", "INT8", (batch, 4), one_grid(0.1, 5))
    y = net.tensor("y", "INT8", (batch, 4), one_grid(0.17, -3))
    net.operate("QUANTIZE", (x,), (y,))
    return net.net([(x, "x")], [(y, "y")])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "net.tflite"
    path.write_bytes(write_net(requantizing()))
    return path


def test_the_reference_kernels_give_our_codes_sample_by_sample(file: Path):
    pytest.importorskip("ai_edge_litert")
    net = requantizing()
    made = run_on_litert(file.read_bytes(), net, {"x": X}, "ref")["y"]
    np.testing.assert_array_equal(made, qh.run(file, {"x": X})["y"])


def test_a_check_says_which_kernels_answered(file: Path):
    pytest.importorskip("ai_edge_litert")
    found = qh.check(file, file, {"x": X}, backend="tflite")
    assert found.verdict == "EQUAL"
    assert "the reference kernels of ai-edge-litert" in found.b
    other = qh.check(file, file, {"x": X}, backend="tflite:xnn")
    assert other.verdict == "DIFFERENT"
    assert "XNNPACK" in other.b


def test_the_tflite_side_runs_there_whichever_it_is(file: Path, tmp_path: Path):
    pytest.importorskip("ai_edge_litert")
    made = tmp_path / "net.onnx"
    qh.convert(file, made, to="qcdq", encoding="integer")
    found = qh.check(file, made, {"x": X}, backend="tflite:ref")
    assert found.verdict == "EQUAL"
    assert "ai-edge-litert" in found.a


def test_a_conversion_says_how_both_kernels_compare(file: Path, tmp_path: Path):
    pytest.importorskip("ai_edge_litert")
    report = qh.convert(file, tmp_path / "net.onnx", to="qcdq", encoding="integer")
    ref, xnn = report.tflite_kernels
    assert (ref.kernels, ref.differing) == ("the reference kernels", 0)
    assert xnn.kernels == "XNNPACK"
    assert xnn.differing > 0
    assert any("the reference kernels; " in note for note in report.notes)


@pytest.mark.parametrize(("batch", "samples"), [(3, 63), (64, 64), (65, 65)])
def test_whole_batches_of_a_file_are_compared(tmp_path: Path, batch: int, samples: int):
    pytest.importorskip("ai_edge_litert")
    path = tmp_path / "net.tflite"
    path.write_bytes(write_net(requantizing(batch)))
    report = qh.convert(path, tmp_path / "net.onnx", to="qcdq", encoding="integer")
    assert [one.values for one in report.tflite_kernels] == [4 * samples] * 2


def test_nan_on_both_sides_is_no_difference(tmp_path: Path):
    pytest.importorskip("ai_edge_litert")
    net, path = NetBuilder(), tmp_path / "net.tflite"
    x = net.tensor("x", "FLOAT32", (1, 4))
    zeros, y = net.constant(np.zeros((1, 4)), np.float32), net.tensor("y", "FLOAT32", (1, 4))
    net.operate("DIV", (zeros, zeros), (y,))
    z = net.tensor("z", "FLOAT32", (1, 4))
    net.operate("ADD", (x, y), (z,))
    path.write_bytes(write_net(net.net([(x, "x")], [(z, "z")])))
    report = qh.convert(path, tmp_path / "net.onnx", to="qcdq")
    assert [one.differing for one in report.tflite_kernels] == [0, 0]


def test_a_file_on_which_the_interpreter_ends_is_one_error():
    pytest.importorskip("ai_edge_litert")
    with (
        pytest.raises(ExecutionError, match="ai-edge-litert"),
        LitertSession(b"\0\0\0\0TFL3" + bytes(64), "ref"),
    ):
        pass


def test_an_answer_that_does_not_come_is_one_error(file: Path):
    pytest.importorskip("ai_edge_litert")
    with (
        pytest.raises(ExecutionError, match="in time"),
        LitertSession(file.read_bytes(), "ref", seconds=0.0),
    ):
        pass


def test_variables_start_anew_with_every_sample():
    pytest.importorskip("ai_edge_litert")
    path = Path("../shared/tflite/tflm_lstm_int8.tflite")
    if not path.exists():
        pytest.skip("the shared files are not here")
    x = np.load(path.with_suffix("").with_suffix(".io.npz"))["x0"][:1]
    (name,) = (v.name for v in qh.load(path).graph.inputs)
    content = path.read_bytes()
    from qonnx_hub_adapters.tflite.reader import read_net

    made = run_on_litert(
        content, read_net(content), {str(name): np.concatenate([*x, *x])}, "ref"
    )
    first, again = np.split(next(iter(made.values())), 2)
    np.testing.assert_array_equal(first, again)


def test_without_the_interpreter_the_backend_says_what_to_install(
    file: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("qonnx_hub_adapters.dependencies.is_installed", lambda name: False)
    with pytest.raises(MissingDependencyError, match=r"qonnx-hub\[litert\]"):
        qh.check(file, file, {"x": X}, backend="tflite")


def test_the_backend_runs_tflite_files_only(tmp_path: Path):
    with pytest.raises(UsageError, match="neither side is one"):
        qh.check({"y": X}, {"y": X}, {"x": X}, backend="tflite")


def test_a_loaded_file_is_written_again_as_it_was(file: Path, tmp_path: Path):
    report = qh.convert(qh.load(file), tmp_path / "again.tflite", to="tflite")
    assert report.verdict == "PROVEN"
    np.testing.assert_array_equal(
        qh.run(tmp_path / "again.tflite", {"x": X})["y"], qh.run(file, {"x": X})["y"]
    )


def test_a_near_form_is_not_called_another_order_of_sums(file: Path, tmp_path: Path):
    report = qh.convert(file, tmp_path / "net.onnx", to="qcdq", allow_lossy=True)
    assert report.own is not None
    assert "order" not in report.own.reason
