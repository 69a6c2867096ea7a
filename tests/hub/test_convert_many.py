"""Many models in one call of convert."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

import qonnx_hub as qh
from qonnx_hub.cli import app
from qonnx_hub.cli.convert_many import convert_many
from qonnx_hub.conversion.options import ConvertOptions
from tests.support import model_of, quant_node

CONSTANTS = {"s": 0.25, "z": 0.0, "b": 4.0}


def write(path: Path, mode: str = "ROUND") -> Path:
    model = model_of(
        [quant_node("x", "y", rounding_mode=mode)], {"x": (1, 3)}, ["y"], CONSTANTS
    )
    path.write_bytes(model.SerializeToString())
    return path


def convert(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["convert", *map(str, arguments)])


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    """A model, what is none, and another model."""
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    models = [write(tmp_path / "first.onnx"), write(tmp_path / "last.onnx", "FLOOR")]
    return [models[0], tmp_path / "broken.onnx", models[1]]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_model_that_fails_does_not_stop_the_others(
    three: list[Path], tmp_path: Path, jobs: int
) -> None:
    out = tmp_path / "out"
    done = convert(*three, "-o", out, "--to", "qcdq", "--jobs", jobs)
    assert done.exit_code == 3
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(f"{three[0]} -> {out / 'first.onnx'}: qcdq, opset 19, 1 of 1")
    assert lines[0].count("PROVEN") == 1
    assert lines[1].startswith(f"{three[1]}: failed with code 3: ")
    assert str(out / "last.onnx") in lines[2]
    assert sorted(path.name for path in out.iterdir()) == ["first.onnx", "last.onnx"]
    onnx.checker.check_model(onnx.load(out / "last.onnx"))


def test_the_files_are_those_of_single_calls(three: list[Path], tmp_path: Path) -> None:
    models = [three[0], three[2]]
    done = convert(*models, "-o", tmp_path / "out", "--to", "qcdq", "--jobs", 2)
    assert done.exit_code == 0
    for path in models:
        qh.convert(path, tmp_path / f"single_{path.name}", "qcdq")
        single = (tmp_path / f"single_{path.name}").read_bytes()
        assert (tmp_path / "out" / path.name).read_bytes() == single


def test_json_is_a_list_in_the_order_given(three: list[Path], tmp_path: Path) -> None:
    done = convert(*three, "-o", tmp_path / "out", "--json", "-")
    assert done.exit_code == 3
    rows = json.loads(done.stdout)
    assert [row["source"] for row in rows] == [str(path) for path in three]
    assert [row["exit_code"] for row in rows] == [0, 3, 0]
    assert "not an ONNX file" in rows[1]["error"]
    assert rows[1]["report"] is None
    assert rows[0]["report"]["check"]["verdict"] in {"EQUAL", "PROVEN"}


def test_the_exit_code_is_the_worst(three: list[Path], tmp_path: Path) -> None:
    # Integers of 4 bits came with opset 21: not exact is 4, unreadable is 3.
    wanted = ("--to", "qcdq", "--encoding", "qdq", "--opset", 13, "--jobs", 1)
    done = convert(*three, "-o", tmp_path / "out", *wanted)
    assert done.exit_code == 4


def test_one_model_with_jobs_goes_into_a_folder(tmp_path: Path) -> None:
    done = convert(write(tmp_path / "m.onnx"), "-o", tmp_path / "out", "--jobs", 1)
    assert done.exit_code == 0
    assert (tmp_path / "out" / "m.onnx").is_file()


def test_one_model_without_jobs_becomes_the_file_named(tmp_path: Path) -> None:
    done = convert(write(tmp_path / "m.onnx"), "-o", tmp_path / "n.onnx")
    assert done.exit_code == 0
    assert (tmp_path / "n.onnx").is_file()


@pytest.mark.parametrize("names", [("a/m.onnx", "b/m.onnx"), ("a/m.onnx", "a/m.onnx")])
def test_two_models_of_one_name_are_refused_before_anything_is_done(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    for name in set(names):
        (tmp_path / name).parent.mkdir()
        write(tmp_path / name)
    done = convert(*(tmp_path / name for name in names), "-o", tmp_path / "out")
    assert "would both be written to" in str(done.exception)
    assert not (tmp_path / "out").exists()


def test_a_model_is_not_written_over_itself(tmp_path: Path) -> None:
    done = convert(write(tmp_path / "m.onnx"), "-o", tmp_path, "--jobs", 1)
    assert "would be written over itself" in str(done.exception)


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    models = [write(tmp_path / "a.onnx"), write(tmp_path / "b.onnx")]
    (tmp_path / "out").write_text("something")
    done = convert(*models, "-o", tmp_path / "out")
    assert "several models go into a folder" in str(done.exception)
    assert (tmp_path / "out").read_text() == "something"


def test_a_defect_in_one_model_does_not_stop_the_others(
    three: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qonnx_hub.conversion import convert as home

    convert_one = home.convert_source

    def fail_on_first(source: str, *args: Any, **kwargs: Any) -> Any:
        if source == str(three[0]):
            raise ZeroDivisionError("unforeseen")
        return convert_one(source, *args, **kwargs)

    monkeypatch.setattr(home, "convert_source", fail_on_first)
    paths = [str(three[0]), str(three[2])]
    outcomes = list(convert_many(paths, str(tmp_path / "out"), 1, ConvertOptions()))
    assert [outcome.exit_code for outcome in outcomes] == [70, 0]
    assert "ZeroDivisionError: unforeseen" in outcomes[0].error
    x = np.array([[0.125, 0.375, 9.0]], dtype=np.float32)
    y = qh.run(outcomes[1].path, {"x": x})["y"]
    # By hand: rounded down to quarters, at most 7 of them.
    np.testing.assert_array_equal(y, np.array([[0.0, 0.25, 1.75]], dtype=np.float32))
