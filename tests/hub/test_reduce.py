"""The smallest part of two models that still differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import qonnx_hub as qh
from benchmarks import nets
from tests.support import model_of, quant_node


def net(change: str = "", factor: float = 1.0) -> onnx.ModelProto:
    """Four layers with quantizers; one scale may be another."""
    rng = np.random.default_rng(5)
    nodes, constants, last = [], {"z": 0.0, "b": 4.0}, "x"
    for k in range(4):
        constants |= {f"w{k}": rng.normal(size=(6, 6)).astype(np.float32), f"s{k}": 0.25}
        if f"s{k}" == change:
            constants[f"s{k}"] = 0.25 * factor
        nodes.append(helper.make_node("MatMul", [last, f"w{k}"], [f"m{k}"], f"product{k}"))
        nodes.append(helper.make_node("Relu", [f"m{k}"], [f"r{k}"], f"relu{k}"))
        nodes.append(quant_node(f"r{k}", f"q{k}", scale=f"s{k}"))
        last = f"q{k}"
    return model_of(nodes, {"x": ("N", 6)}, [last], constants)


def test_what_is_left_is_the_node_at_fault_and_its_neighbours_are_gone() -> None:
    report = qh.reduce(net(), net("s2", 1.5))
    # By hand: one quantizer has another scale; before it both sides agree on 'r2'.
    assert [node.op_type for node in report.a.message.graph.node] == ["Quant"]
    assert [node.op_type for node in report.b.message.graph.node] == ["Quant"]
    assert (report.a.nodes, report.a.of) == (1, 12)
    assert [v.name for v in report.a.message.graph.input] == ["r2"]
    x = next(iter(report.failing.feeds.values()))
    assert x.shape == (1, 6)
    # One value alone shows it, since quantizers take each element by itself.
    assert np.count_nonzero(x) == 1


def test_the_files_show_the_difference_again(tmp_path: Path) -> None:
    onnx.save(net(), tmp_path / "one.onnx")
    onnx.save(net("s1", 0.5), tmp_path / "two.onnx")
    folder = tmp_path / "bug"
    report = qh.reduce(tmp_path / "one.onnx", tmp_path / "two.onnx", folder=folder)
    assert sorted(report.files) == [
        str(folder / name) for name in ("README.txt", "a.onnx", "b.onnx", "input.npz")
    ]
    again = qh.check(folder / "a.onnx", folder / "b.onnx", folder / "input.npz")
    assert str(again.verdict) == "DIFFERENT"
    a = qh.run(folder / "a.onnx", folder / "input.npz")["q1"]
    b = qh.run(folder / "b.onnx", folder / "input.npz")["q1"]
    x = next(iter(np.load(folder / "input.npz").values()))
    # By hand: multiples of a quarter and of an eighth, in four signed bits.
    np.testing.assert_array_equal(a, np.clip(np.rint(x * 4), -8, 7) / 4)
    np.testing.assert_array_equal(b, np.clip(np.rint(x * 8), -8, 7) / 8)
    text = (folder / "README.txt").read_text()
    assert "qonnx-hub check a.onnx b.onnx --inputs input.npz" in text


def test_models_that_agree_have_nothing_to_reduce() -> None:
    with pytest.raises(qh.UsageError, match="nothing to reduce"):
        qh.reduce(net(), net())


def test_a_file_keeps_its_own_operators(tmp_path: Path) -> None:
    for name, model in (("a", net()), ("b", net("s3", 1.25))):
        qh.convert(model, tmp_path / f"{name}.onnx", to="qcdq", check=False)
    report = qh.reduce(tmp_path / "a.onnx", tmp_path / "b.onnx")
    found = {node.op_type for node in report.b.message.graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= found
    assert report.b.nodes < 5 < report.b.of


def test_on_onnxruntime_the_file_itself_is_cut(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    qh.convert(net("s2", 2.0), tmp_path / "b.onnx", to="qcdq", check=False)
    report = qh.reduce(net(), tmp_path / "b.onnx", backend="ort")
    assert report.backend == "ort"
    assert str(report.result.verdict) == "DIFFERENT"
    # The sum before it rounds in another order there: it is part of what is left.
    assert report.b.nodes <= 5


def test_a_planted_fault_in_a_large_net_leaves_few_nodes() -> None:
    model, other = nets.tfc(2, 2), nets.tfc(2, 2)
    weights = [t for t in other.graph.initializer if len(t.dims) == 2]
    array = onnx.numpy_helper.to_array(weights[1]).copy()
    array[0] = -array[0]
    weights[1].CopyFrom(onnx.numpy_helper.from_array(array, weights[1].name))
    report: Any = qh.reduce(model, other)
    assert report.a.nodes <= 3
    assert report.a.of > 20
    assert len(report.rows()) == 2
