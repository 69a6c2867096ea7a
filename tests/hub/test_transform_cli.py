"""``qonnx-hub transform``: what it prints, writes and refuses."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

import qonnx_hub as qh
from qonnx_hub import passes
from qonnx_hub.cli import main
from tests.support import model_of, quant_node

CONSTANTS = {"s": 0.5, "z": 0.0, "b": 4.0, "one": 1.0, "w": np.ones((3, 2), np.float32)}


def run(*args: object, code: int = 0) -> tuple[str, str]:
    """Standard output and standard error of the command line."""
    out, err = io.StringIO(), io.StringIO()
    argv = sys.argv
    sys.argv = ["qonnx-hub", "transform", *map(str, args)]
    given: object = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as stop:
        given = stop.code or 0
    finally:
        sys.argv = argv
    assert given == code, f"{out.getvalue()}\n{err.getvalue()}"
    assert "Traceback" not in err.getvalue()
    return out.getvalue(), err.getvalue()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    nodes = [
        helper.make_node("Mul", ["x", "one"], ["t"], "times"),
        quant_node("t", "q"),
        helper.make_node("MatMul", ["q", "w"], ["y"], "fc"),
    ]
    path = tmp_path / "in.onnx"
    path.write_bytes(model_of(nodes, {"x": (2, 3)}, ["y"], CONSTANTS).SerializeToString())
    return path


def test_passes_run_in_order_and_the_result_is_written(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.onnx"
    out, _ = run(source, "-o", target, "--pass", "remove_identity", "-p", "extract_scale")
    lines = out.splitlines()
    assert lines[0] == "remove_identity: -1 Mul"
    assert lines[1] == "extract_scale: +1 Div, +1 Mul, +3 constants"
    assert lines[2].startswith("executor: PROVEN: 0 of ")
    assert lines[3] == f"{source} -> {target}: qonnx"
    assert qh.check(source, target).verdict == "PROVEN"


def test_without_an_output_nothing_is_written(source: Path, tmp_path: Path) -> None:
    out, _ = run(source, "--pass", "cleanup", "--pass", "extract_bias")
    lines = out.splitlines()
    assert lines[0] == "remove_identity: -1 Mul"
    # Of a pipeline, only passes that changed something; else, those that were asked for.
    assert lines[1:3] == ["drop_unused: -1 constants", "extract_bias: nothing to do"]
    assert [path.name for path in tmp_path.iterdir()] == ["in.onnx"]


def test_options_are_given_behind_the_name(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.onnx"
    out, _ = run(source, "-o", target, "-p", "rename_tensors:names=x=image,names=y=classes")
    assert "rename_tensors:names=x=image, y=classes" in out
    found = qh.load(target)
    assert [v.name for v in (*found.graph.inputs, *found.graph.outputs)] == [
        "image",
        "classes",
    ]


def test_masks_come_from_a_file(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["t"], "fc1"),
        helper.make_node("MatMul", ["t", "v"], ["y"], "fc2"),
    ]
    weights = {"w": np.ones((3, 4), np.float32), "v": np.ones((4, 2), np.float32)}
    path, target = tmp_path / "in.onnx", tmp_path / "out.onnx"
    path.write_bytes(model_of(nodes, {"x": (2, 3)}, ["y"], weights).SerializeToString())
    np.savez(tmp_path / "masks.npz", fc1=np.array([True, True, False, True]))
    out, _ = run(path, "-o", target, "-p", f"prune_channels:masks=@{tmp_path / 'masks.npz'}")
    assert "the values may differ: prune_channels" in out
    assert qh.load(target).graph.initializers["w"].shape == (3, 3)


def test_the_list_shows_every_pass_with_its_picture() -> None:
    out, _ = run("--list")
    for name in passes.names():
        assert f"{name}: {passes.describe(name).summary}" in out
    assert "pipeline cleanup:" in out
    assert "y = Quant(x, s, z, b)" in out
    assert "option batch: whole number or text" in out


def test_the_list_is_data_as_well() -> None:
    out, _ = run("--list", "--json", "-")
    data = json.loads(out)
    assert {entry["name"] for entry in data["passes"]} == set(passes.names())
    assert data["pipelines"]["cleanup"]["stages"][0]["reason"]


def test_the_report_is_data(source: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    run(source, "-p", "remove_identity", "--json", report)
    data = json.loads(report.read_text())
    assert data["steps"][0]["removed"] == ["times"]
    assert data["check"]["verdict"] == "PROVEN"
    out, _ = run(source, "-p", "remove_identity", "--no-check", "--json", "-")
    assert json.loads(out)["check"] is None


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["-p", "fly"], 2, "no pass is called 'fly'; there are: "),
        (["-p", "change_batch:size=4"], 2, "pass 'change_batch' has no option 'size'"),
        (["-p", "change_batch"], 2, "pass 'change_batch' needs batch"),
        (["-p", "rename_tensors:names=nobody=n"], 3, "there is no tensor 'nobody'"),
        (["-p", "prune_channels:masks=@none.npz"], 2, "there is no file 'none.npz'"),
        ([], 2, "--pass is needed; --list shows the passes"),
        (["-p", "cleanup", "--to", "nothing"], 2, "no exporter is called 'nothing'"),
    ],
)
def test_a_mistake_ends_in_one_line_and_nothing_is_written(
    source: Path, tmp_path: Path, arguments: list[str], code: int, reason: str
) -> None:
    _, err = run(source, "-o", tmp_path / "out.onnx", *arguments, code=code)
    assert reason in " ".join(err.replace("│", " ").split())
    assert [path.name for path in tmp_path.iterdir()] == ["in.onnx"]


def test_a_missing_file_is_unreadable(tmp_path: Path) -> None:
    _, err = run(tmp_path / "none.onnx", "-p", "cleanup", code=3)
    assert "does not exist" in err


def test_a_model_is_needed() -> None:
    _, err = run("-p", "cleanup", code=2)
    assert "MODEL is needed" in err
