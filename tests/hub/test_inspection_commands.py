"""The verbs cost, diff, inspect, view and zoo as a user meets them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from benchmarks import nets
from qonnx_hub.cli import main
from qonnx_hub_adapters import dependencies

Run = Callable[..., "Done"]


@dataclass(frozen=True)
class Done:
    code: int
    stdout: str
    stderr: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return what runs the command line in this process."""

    def run_it(*args: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["qonnx-hub", *map(str, args)])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run_it


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tfc.onnx"
    onnx.save(nets.tfc(), path)
    return path


@pytest.fixture
def other(tmp_path: Path) -> Path:
    path = tmp_path / "tfc_w1a2.onnx"
    onnx.save(nets.tfc(1, 2), path)
    return path


def without(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    installed = dependencies.is_installed
    monkeypatch.setattr(
        dependencies, "is_installed", lambda name: name != module and installed(name)
    )


def require_one_line(done: Done, code: int, *words: str) -> None:
    assert done.code == code
    assert done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr


# cost


def test_cost_shows_layers_totals_and_types(run: Run, model: Path):
    done = run("cost", model)
    assert done.code == 0
    lines = done.stdout.splitlines()
    assert lines[1].split()[:5] == ["fc1", "MatMul", "INT2", "INT2", "INT10"]
    (total,) = [line.split() for line in lines if line.startswith("total")]
    # MACs, BOPs, weights and their bits, results.
    assert total[1:6] == ["59,008", "236,032", "59,008", "118,016", "202"]
    assert "MACs by datatype: INT2 x INT2: 59,008" in lines


def test_cost_writes_the_report_as_data(run: Run, model: Path):
    done = run("cost", model, "--convention", "paper", "--json", "-")
    data = json.loads(done.stdout)
    assert (data["convention"], data["bops"], len(data["layers"])) == ("paper", 236032, 4)


def test_cost_of_several_models_is_a_table_of_totals(run: Run, model: Path, other: Path):
    done = run("cost", model, other, "--json", "-")
    data = json.loads(done.stdout)
    assert [one["weight_bits"] for one in data] == [118016, 59008]
    shown = run("cost", model, other).stdout.splitlines()
    assert len(shown) == 3
    totals = ["59,008", "118,016", "59,008", "59,008", "202", "1,808"]
    assert shown[2].split()[1:] == ["4", *totals]


def test_cost_takes_the_type_of_an_input(run: Run, tmp_path: Path):
    path = tmp_path / "net.onnx"
    proto = nets.resnet8()
    # Without its quantizer the input is of 32 bits, or of what is said.
    node = next(node for node in proto.graph.node if node.name == "input_quant")
    proto.graph.node.remove(node)
    next(node for node in proto.graph.node if node.name == "stem").input[0] = "x"
    onnx.save(proto, path)
    kinds = {}
    for given in ([], ["--input-dtype", "UINT4"], ["--input-dtype", "x=INT3"]):
        data = json.loads(run("cost", path, *given, "--json", "-").stdout)
        kinds[given[-1] if given else ""] = data["layers"][0]["input_type"]
    assert kinds == {"": "FLOAT32", "UINT4": "UINT4", "x=INT3": "INT3"}


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("kind", ["png", "svg"])
def test_cost_draws_the_same_picture_every_time(
    run: Run, model: Path, other: Path, tmp_path: Path, count: int, kind: str
):
    pytest.importorskip("matplotlib")
    start = {"png": b"\x89PNG", "svg": b"<?xml"}[kind]
    pictures = []
    for k in range(2):
        path = tmp_path / f"cost{k}.{kind}"
        assert run("cost", *[model, other][:count], "--plot", path).code == 0
        pictures.append(path.read_bytes())
    assert pictures[0].startswith(start)
    assert pictures[0] == pictures[1]


def test_a_picture_of_another_kind_is_refused(run: Run, model: Path, tmp_path: Path):
    done = run("cost", model, "--plot", tmp_path / "cost.jpeg")
    require_one_line(done, 2, "named .png, .svg or .pdf")


def test_a_picture_without_matplotlib_says_what_to_install(
    run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    without(monkeypatch, "matplotlib")
    done = run("cost", model, "--plot", tmp_path / "cost.png")
    require_one_line(done, 5, "pip install 'qonnx-hub[plot]'")
    assert not (tmp_path / "cost.png").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--convention", "mine"], ["'mine' is not one of 'true', 'qonnx', 'paper'"]),
        (["--input-dtype", "z=INT8"], ["'z' is no input"]),
        (["--input-dtype", "INTEGER"], ["'INTEGER' is no type"]),
    ],
)
def test_wrong_options_of_cost_end_in_one_line(run: Run, model: Path, options, words):
    require_one_line(run("cost", model, *options), 2, *words)


def test_the_cost_of_a_missing_file_ends_in_one_line(run: Run, tmp_path: Path):
    require_one_line(run("cost", tmp_path / "missing.onnx"), 3, "missing.onnx")


# diff


def test_diff_of_a_model_with_itself_ends_in_zero(run: Run, model: Path):
    done = run("diff", model, model)
    assert (done.code, done.stdout) == (0, "no difference; 24 nodes matched\n")


def test_diff_lists_what_differs_and_ends_in_one(run: Run, model: Path, other: Path):
    done = run("diff", model, other)
    assert done.code == 1
    assert "Quant 'fc1.weight_quant'" in done.stdout or "operator: Quant" in done.stdout
    assert "fc1.weight: " in done.stdout
    assert "weights differ, by " in done.stdout
    data = json.loads(run("diff", model, other, "--json", "-").stdout)
    assert data["different"] is True
    assert {change["kind"] for change in data["changes"]} == {"quantizer"}


def test_diff_with_a_missing_file_ends_in_one_line(run: Run, model: Path, tmp_path: Path):
    require_one_line(run("diff", model, tmp_path / "missing.onnx"), 3, "missing.onnx")


# inspect


def test_inspect_shows_ranges_and_accumulators(run: Run, model: Path):
    plain = run("inspect", model).stdout
    done = run("inspect", model, "--ranges")
    assert done.code == 0
    assert done.stdout.startswith(plain)
    rows = [line.split() for line in done.stdout[len(plain) :].splitlines()]
    # 784 products of -1, 0 and 1: the weights' zeros leave 418 of them at most.
    assert ["fc1", "INT10", "-418..418", "-418..418"] in [row[:4] for row in rows]
    assert ["MatMul", "'fc1'", "INT2", "INT2", "-418..418", "10", "10", "yes"] in rows


def test_inspect_takes_ranges_and_types_of_inputs(run: Run, model: Path):
    for options in (["--range", "x:0,0.25"], ["--range", "x:0,0.25", "--input-dtype", "INT8"]):
        done = run("inspect", model, *options, "--json", "-")
        data = json.loads(done.stdout)
        by_name = {one["name"]: one for one in data["ranges"]}
        # 2 x - 1 is -1 to -0.5, and half rounds to even.
        assert (by_name["input_quant"]["low"], by_name["input_quant"]["high"]) == (-1.0, 0.0)


def test_inspect_writes_everything_as_data(run: Run, model: Path):
    data = json.loads(run("inspect", model, "--json", "-").stdout)
    assert len(data["accumulators"]) == len(data["weights"]) == 4
    assert {"tensors", "ranges", "inputs", "outputs"} <= set(data)
    assert data["weights"][0]["shape"] == [64, 784]


def test_inspect_shows_and_exports_integers(run: Run, model: Path, tmp_path: Path):
    target = tmp_path / "ints.npz"
    done = run("inspect", model, "--weights", "--export-ints", target)
    assert done.code == 0
    assert f"{target}: integers of 4 weights" in done.stdout
    with np.load(target) as arrays:
        assert len(arrays.files) == 16
    assert run("inspect", model, "--export-ints", tmp_path / "ints.h").code == 0
    assert (tmp_path / "ints.h").read_text().count("static const int8_t") == 4


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--ranges", "--range", "x:0"], ["--range takes NAME=LO,HI, not 'x:0'"]),
        (["--ranges", "--range", "0,1"], ["--range takes NAME=LO,HI, not '0,1'"]),
        (["--ranges", "--range", "z:0,1"], ["'z' is no input"]),
        (["--export-ints", "ints.txt"], ["named .npz or .h"]),
    ],
)
def test_wrong_options_of_inspect_end_in_one_line(run: Run, model: Path, options, words):
    require_one_line(run("inspect", model, *options), 2, *words)


# view


def test_view_without_netron_says_what_to_install(
    run: Run, model: Path, monkeypatch: pytest.MonkeyPatch
):
    without(monkeypatch, "netron")
    require_one_line(run("view", model), 5, "pip install 'qonnx-hub[view]'")


class Netron(SimpleNamespace):
    """What view needs of netron."""

    def __init__(self) -> None:
        super().__init__(calls=[])

    def start(self, *args: Any, **options: Any) -> tuple[str, int]:
        self.calls.append((args, options))
        return "localhost", 8123

    def wait(self) -> None:
        self.calls.append("wait")


def test_view_starts_netron_and_waits(run: Run, model: Path, monkeypatch: pytest.MonkeyPatch):
    netron = Netron()
    monkeypatch.setattr(dependencies, "require", lambda *a, **k: netron)
    done = run("view", model, "--port", "8123", "--no-browse")
    assert done.code == 0
    assert netron.calls == [((str(model), ("localhost", 8123)), {"browse": False}), "wait"]
    assert "http://localhost:8123" in done.stdout


def test_view_of_a_missing_file_ends_in_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(dependencies, "require", lambda *a, **k: Netron())
    require_one_line(run("view", tmp_path / "missing.onnx"), 3, "is no file")


# zoo


def test_zoo_lists_models_and_tells_all_about_one(run: Run):
    listed = run("zoo", "list").stdout
    assert "kwsmlp_w3a3" in listed
    assert "87.89 % top-1" in listed
    told = run("zoo", "list", "KWSMLP_w3a3").stdout
    assert "input: 1x1x10x49" in told
    data = json.loads(run("zoo", "list", "--json", "-").stdout)
    assert {"name", "url", "sha256", "accuracy", "preprocessing"} <= set(data[0])


def test_zoo_without_an_action_shows_its_actions(run: Run):
    done = run("zoo")
    assert done.code == 2
    assert all(f" {verb} " in done.stdout for verb in ("list", "get", "check"))


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["get", "nothing", "--mirror", "."], 2, ["the zoo has no 'nothing'"]),
        (["get", "TFC_1W1A", "--mirror", "."], 3, ["has no TFC_1W1A.onnx"]),
        (["get", "TFC_1W1A", "--mirror", "no folder"], 2, ["'no folder' is no folder"]),
        (["get", "CNV_1W1A", "--mirror", "."], 2, ["--allow-unverified"]),
        (["check", "--mirror", "."], 2, ["--mirror"]),
    ],
)
def test_mistakes_with_the_zoo_end_in_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args, code, words
):
    monkeypatch.chdir(tmp_path)
    require_one_line(run("zoo", *args), code, *words)


def test_zoo_get_copies_a_file_and_says_that_it_was_not_verified(
    run: Run, model: Path, tmp_path: Path
):
    model.rename(tmp_path / "CNV_1W1A.onnx")
    target = tmp_path / "copy.onnx"
    options = ("--mirror", tmp_path, "--allow-unverified", "-o", target)
    done = run("zoo", "get", "CNV_1W1A", *options)
    assert (done.code, done.stdout) == (0, f"{target}\n")
    assert "not verified" in done.stderr
    assert target.read_bytes() == (tmp_path / "CNV_1W1A.onnx").read_bytes()


def test_zoo_check_ends_in_one_for_a_file_that_is_not_the_published_one(
    run: Run, model: Path, tmp_path: Path
):
    model.rename(tmp_path / "TFC_2W2A.onnx")
    done = run("zoo", "check", "--mirror", tmp_path)
    assert done.code == 1
    assert "NOT the published file" in done.stdout
    data = json.loads(run("zoo", "check", "--mirror", tmp_path, "--json", "-").stdout)
    assert (data[0]["name"], data[0]["published"]) == ("TFC_2W2A", False)
