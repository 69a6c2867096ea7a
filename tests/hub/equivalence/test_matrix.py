"""One source against many: verdicts, groups, distances, and where sides leave."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from onnx import helper

import qonnx_hub as qh
from docs.pages import call
from qonnx_hub.equivalence.matrix import named_backend
from tests.support import model_of, quant_node


def net(step: float, shift: float = 0.0) -> onnx.ModelProto:
    nodes = [
        quant_node("x", "q", scale="s"),
        helper.make_node("Add", ["q", "w"], ["a"], "shift"),
        helper.make_node("Relu", ["a"], ["y"], "act"),
    ]
    constants = {"s": step, "z": 0.0, "b": 4.0, "w": np.full(3, shift, np.float32)}
    return model_of(nodes, {"x": ("N", 3)}, ["y"], constants)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, model in (("a", net(0.25)), ("b", net(0.5)), ("c", net(0.25, 1.0))):
        onnx.save(model, tmp_path / f"{name}.onnx")
    qh.convert(tmp_path / "a.onnx", tmp_path / "a_qcdq.onnx", to="qcdq")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_groups_hold_the_sides_that_gave_equal_values(folder: Path) -> None:
    others = ["a_qcdq.onnx", "b.onnx", "c.onnx", net(0.5)]
    report = qh.check_many("a.onnx", others, samples=32)
    assert [str(r.verdict) for r in report.results] == ["PROVEN", *["DIFFERENT"] * 3]
    assert report.groups == (1, 1, 2, 3, 2)
    assert not report
    rows = report.rows()
    assert [row["first_layer"] for row in rows[1:3]] == ["q", "a"]
    # By hand: the shift adds 1 wherever it is above zero.
    assert report.distances[0][3] == 1.0
    assert report.distances[2][4] == 0.0
    assert all(report.distances[k][k] == 0 for k in range(5))
    assert "equal on" in report.table(200)


def test_recorded_values_are_a_side_and_given_inputs_are_used(folder: Path) -> None:
    x = np.array([[0.1, 0.2, 0.3], [1.0, 2.0, -3.0]], np.float32)
    recorded = {"y": qh.run("a.onnx", x)["y"]}
    report = qh.check_many("a.onnx", [recorded, "a_qcdq.onnx"], x, level="output")
    assert report
    assert (report.groups, report.samples) == ((1, 1, 1), 2)


def test_a_backend_stands_behind_the_name(folder: Path) -> None:
    assert named_backend("a.onnx@ort") == ("a.onnx", "ort")
    assert named_backend("a@b.onnx") == ("a@b.onnx", "")
    assert named_backend("m.tflite@tflite:xnn") == ("m.tflite", "tflite:xnn")
    onnx.save(net(0.25), folder / "odd@ort")
    assert named_backend("odd@ort") == ("odd@ort", "")


def test_files_on_onnxruntime_join_the_matrix(folder: Path) -> None:
    pytest.importorskip("onnxruntime")
    report = qh.check_many("a.onnx", ["a_qcdq.onnx@ort", "a_qcdq.onnx@ort-optimized"])
    assert report.groups == (1, 1, 1)
    assert report.sides[1] == "a_qcdq.onnx@ort"


def test_the_command_line_ends_in_1_unless_all_agree(folder: Path) -> None:
    from tests.e2e.test_help import run

    assert run("check", "a.onnx", "a_qcdq.onnx", "a.onnx")[0] == 0
    code, text = run("check", "a.onnx", "a_qcdq.onnx", "b.onnx", "--json", "m.json")
    assert code == 1
    assert "a.onnx: 1 of 2 sides agree with it" in " ".join(text.split())
    assert json.loads((folder / "m.json").read_text())["groups"] == [1, 1, 2]
    code, text = run("check", "a.onnx", "b.onnx", "c.onnx", "--backend", "ort")
    assert (code, "FILE@ort" in text) == (2, True)


def test_a_side_that_does_not_run_is_a_row_and_the_others_stand(folder: Path) -> None:
    (folder / "text.onnx").write_text("no model")
    report = qh.check_many("a.onnx", ["text.onnx", "a_qcdq.onnx"])
    assert not report
    assert (report.sides, report.groups) == (("a.onnx", "a_qcdq.onnx"), (1, 1))
    last = report.rows()[-1]
    assert (last["side"], last["verdict"], last["group"]) == ("text.onnx", "refused", None)
    assert "text.onnx" in last["cause"]
    assert "1 of 2 sides agree" in report.summary()
    command = "qonnx-hub check a.onnx text.onnx a_qcdq.onnx --junit x.xml"
    code, shown = call(command.split())
    assert code == 1
    assert "refused" in shown
    root = ElementTree.parse("x.xml").getroot()
    assert [suite.get("errors") for suite in root] == [None, "1"]


def test_where_no_side_runs_the_first_reason_is_told(folder: Path) -> None:
    with pytest.raises(qh.HubError, match=r"none\.onnx"):
        qh.check_many("a.onnx", ["none.onnx", "gone.onnx"])


def test_of_sides_that_are_called_alike_each_refusal_is_told(folder: Path) -> None:
    report = qh.check_many("a.onnx", ["none.onnx", "none.onnx", "a_qcdq.onnx"])
    assert list(report.refused) == ["none.onnx", "none.onnx (3)"]
    assert "1 of 3 sides agree" in report.summary()
