"""The command line as a user meets it: reports, exit codes, one clear line for mistakes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from benchmarks import nets
from qonnx_hub.cli import main
from qonnx_hub.cli.options import named_values, sample_inputs
from tests.support import model_of, quant_node

CONSTANTS = {"s": 0.25, "z": 0.0, "b": 4.0}


@dataclass(frozen=True)
class Done:
    stdout: str
    stderr: str


def _run(*args: object, code: int = 0) -> Done:
    """Run the command line in this process; a defect would leave main as an exception."""
    out, err = io.StringIO(), io.StringIO()
    argv = sys.argv
    sys.argv = ["qonnx-hub", *map(str, args)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as stop:
        given = stop.code or 0
    else:
        given = 0
    finally:
        sys.argv = argv
    assert given == code, f"{out.getvalue()}\n{err.getvalue()}"
    return Done(out.getvalue(), err.getvalue())


def test_the_module_runs_as_a_process_of_its_own(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, "-m", "qonnx_hub", "inspect", str(tmp_path / "missing.onnx")],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 3
    assert done.stdout == ""
    assert "missing.onnx' does not exist" in done.stderr
    assert "Traceback" not in done.stderr


def _write(path: Path, model: onnx.ModelProto) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="module")
def tfc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write(tmp_path_factory.mktemp("nets") / "tfc.onnx", nets.tfc(2, 2))


def test_convert_writes_a_checked_file_and_reports_every_quantizer(
    tfc: Path, tmp_path: Path
) -> None:
    done = _run("convert", tfc, "-o", tmp_path / "out.onnx", "--to", "qcdq", "--json", "-")
    report = json.loads(done.stdout)
    assert report["check"]["verdict"] in {"EQUAL", "PROVEN"}
    assert len(report["quantizers"]) == 8
    assert {record["exact"] for record in report["quantizers"]} == {True}
    onnx.checker.check_model(onnx.load(tmp_path / "out.onnx"))


def test_check_tells_equal_from_different_by_its_exit_code(tfc: Path, tmp_path: Path) -> None:
    _run("convert", tfc, "-o", tmp_path / "same.onnx", "--to", "qcdq", "--no-check")
    assert "EQUAL" in _run("check", tfc, tmp_path / "same.onnx").stdout
    other = nets.tfc(2, 2)
    for tensor in other.graph.initializer:
        if tensor.name == next(n.input[1] for n in other.graph.node if n.op_type == "Quant"):
            scale = onnx.numpy_helper.to_array(tensor) * np.float32(1.5)
            tensor.CopyFrom(onnx.numpy_helper.from_array(scale, tensor.name))
    path = _write(tmp_path / "other.onnx", other)
    done = _run("check", tfc, path, "--json", "-", code=1)
    assert json.loads(done.stdout)["verdict"] == "DIFFERENT"


def test_run_writes_the_outputs_under_their_names(tmp_path: Path) -> None:
    model = model_of([quant_node("x", "y")], {"x": ("N", 3)}, ["y"], CONSTANTS)
    path = _write(tmp_path / "m.onnx", model)
    x = np.array([[0.125, 0.375, 9.0], [-0.125, -9.0, 0.3]], dtype=np.float32)
    np.savez(tmp_path / "in.npz", x=x)
    _run("run", path, "--inputs", tmp_path / "in.npz", "-o", tmp_path / "out.npz")
    y = np.load(tmp_path / "out.npz")["y"]
    # By hand: halves go to even codes; 4 signed bits hold -8 to 7 steps of a quarter.
    np.testing.assert_array_equal(
        y, np.array([[0.0, 0.5, 1.75], [0.0, -2.0, 0.25]], dtype=np.float32)
    )


def test_inspect_counts_what_the_net_is_made_of(tfc: Path) -> None:
    report = json.loads(_run("inspect", tfc, "--json", "-").stdout)
    weights = [t for t in report["tensors"] if t["kind"] == "weight"]
    # 784*64 + 64*64 + 64*64 + 64*10 weights of two bits.
    assert report["weight_bits"] == 59008 * 2
    assert [(t["distinct"], t["lowest"], t["highest"]) for t in weights] == [(3, -1, 1)] * 4


def test_formats_lists_readers_and_writers() -> None:
    rows = {row["name"]: row for row in json.loads(_run("formats", "--json", "-").stdout)}
    assert rows["qonnx"]["reads"]
    assert rows["qonnx"]["writes"]
    assert rows["qcdq"]["writes"]


def test_help_and_version_need_no_arguments() -> None:
    assert "convert" in _run("--help").stdout
    assert _run("--version").stdout.startswith("qonnx-hub ")


def _broken(kind: str, tmp_path: Path) -> Path:
    path = tmp_path / f"{kind}.onnx"
    good = model_of([quant_node("x", "y")], {"x": (1, 3)}, ["y"], CONSTANTS)
    data = good.SerializeToString()
    contents = {"empty": b"", "text": b"hello, world\n" * 9, "cut": data[: len(data) // 2]}
    if kind in contents:
        path.write_bytes(contents[kind])
    return path


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "cut"])
@pytest.mark.parametrize("verb", ["convert", "inspect"])
def test_an_unreadable_file_is_one_line_and_exit_code_3(
    kind: str, verb: str, tmp_path: Path
) -> None:
    path = _broken(kind, tmp_path)
    out = tmp_path / "out.onnx"
    options = ["-o", out] if verb == "convert" else []
    done = _run(verb, path, *options, code=3)
    assert path.name in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not out.exists()


FAULTS = {
    "negative scale": ({"s": -0.25}, "scale must be above zero"),
    "zero scale": ({"s": 0.0}, "scale must be above zero"),
    "bit width 0": ({"b": 0.0}, "bit width must be a whole number"),
    "bit width 1.5": ({"b": 1.5}, "bit width must be a whole number"),
    "vector": ({"s": np.full(4, 0.25, dtype=np.float32)}, "does not broadcast"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_quantizer_that_means_nothing_is_refused_by_name(fault: str, tmp_path: Path) -> None:
    change, words = FAULTS[fault]
    model = model_of([quant_node("x", "y")], {"x": (1, 3)}, ["y"], {**CONSTANTS, **change})
    done = _run(
        "convert", _write(tmp_path / "m.onnx", model), "-o", tmp_path / "o.onnx", code=3
    )
    assert words in done.stderr
    assert "'y'" in done.stderr
    assert not (tmp_path / "o.onnx").exists()


GRAPHS = {
    "unknown domain": (
        [helper.make_node("Quant", ["x"], ["y"], "bad", domain="my.own")],
        "my.own",
    ),
    "dangling input": (
        [helper.make_node("Add", ["x", "nobody"], ["y"], "bad")],
        "'nobody'",
    ),
    "cycle": (
        [
            helper.make_node("Add", ["x", "b1"], ["a1"], "one"),
            helper.make_node("Relu", ["a1"], ["b1"], "two"),
            helper.make_node("Relu", ["a1"], ["y"], "three"),
        ],
        "cycle",
    ),
    "unknown attribute": (
        [helper.make_node("Relu", ["x"], ["y"], "bad", slope=2)],
        "unknown attribute 'slope'",
    ),
}


@pytest.mark.parametrize("fault", GRAPHS)
def test_a_graph_that_cannot_be_read_is_refused_by_name(fault: str, tmp_path: Path) -> None:
    nodes, words = GRAPHS[fault]
    path = _write(tmp_path / "m.onnx", model_of(nodes, {"x": (1, 3)}, ["y"]))
    done = _run("convert", path, "-o", tmp_path / "o.onnx", code=3)
    assert words in done.stderr
    assert not (tmp_path / "o.onnx").exists()


def test_wrong_usage_is_exit_code_2(tfc: Path, tmp_path: Path) -> None:
    _run("convert", tfc, code=2)
    _run("convrt", code=2)
    done = _run("convert", tfc, "-o", tmp_path / "no" / "folder.onnx", code=2)
    assert "cannot be written" in done.stderr
    np.savez(tmp_path / "in.npz", wrong=np.zeros((1, 7), dtype=np.float32))
    done = _run("run", tfc, "--inputs", tmp_path / "in.npz", "-o", tmp_path / "o.npz", code=2)
    assert "[1, 7]" in done.stderr
    assert not (tmp_path / "o.npz").exists()


def test_an_unknown_format_names_the_known_ones(tfc: Path, tmp_path: Path) -> None:
    done = _run("convert", tfc, "-o", tmp_path / "o.onnx", "--to", "mnn", code=2)
    assert "qcdq" in done.stderr


def test_an_opset_that_cannot_say_it_is_exit_code_4(tfc: Path, tmp_path: Path) -> None:
    wanted = ("--to", "qcdq", "--encoding", "qdq", "--opset", "13")
    done = _run("convert", tfc, "-o", tmp_path / "o.onnx", *wanted, code=4)
    assert "opset 13" in done.stderr
    assert not (tmp_path / "o.onnx").exists()


@pytest.mark.parametrize("to", ["qonnx", "qcdq", "qlinear"])
def test_an_opset_that_does_not_exist_is_one_line_and_exit_code_2(
    tfc: Path, tmp_path: Path, to: str
) -> None:
    options = ("--to", to, "--opset", "99")
    done = _run("convert", tfc, "-o", tmp_path / "o.onnx", *options, code=2)
    (line,) = done.stderr.strip().splitlines()
    assert "opset 99" in line
    assert str(onnx.defs.onnx_opset_version()) in line


def test_sample_shapes_and_adapter_options_are_read_or_refused(
    tfc: Path, tmp_path: Path
) -> None:
    assert named_values(["mode=quant", "fold_scales=true", 'act_bits={"a": 4}']) == {
        "mode": "quant",
        "fold_scales": True,
        "act_bits": {"a": 4},
    }
    (sample,) = sample_inputs(["2,3"], 0)
    assert (sample.shape, sample.dtype.name) == ((2, 3), "float32")
    output = ("-o", tmp_path / "o.onnx")
    assert "no shape" in _run("convert", tfc, *output, "--input-shape", "1,x", code=2).stderr
    assert "no option" in _run("convert", tfc, *output, "--option", "mode", code=2).stderr
