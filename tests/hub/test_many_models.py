"""Many models in one call of convert, check and cost."""

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
from qonnx_hub.cli.many import Where, convert_many
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
    assert lines[3:] == ["3 models: 2 done, 1 with code 3"]
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
    outcomes = list(convert_many(paths, str(tmp_path / "out"), ConvertOptions()))
    assert [outcome.exit_code for outcome in outcomes] == [70, 0]
    assert "ZeroDivisionError: unforeseen" in outcomes[0].error
    x = np.array([[0.125, 0.375, 9.0]], dtype=np.float32)
    y = qh.run(outcomes[1].path, {"x": x})["y"]
    # By hand: rounded down to quarters, at most 7 of them.
    np.testing.assert_array_equal(y, np.array([[0.0, 0.25, 1.75]], dtype=np.float32))


@pytest.fixture
def tree(tmp_path: Path, three: list[Path]) -> Path:
    """A folder with two models, one of them deeper, what is no model, and a broken one."""
    folder = tmp_path / "tree"
    (folder / "deep" / "deeper").mkdir(parents=True)
    (folder / "notes.txt").write_text("no model")
    (folder / "broken.onnx").write_bytes(three[1].read_bytes())
    write(folder / "a.onnx")
    write(folder / "deep" / "deeper" / "b.onnx", "FLOOR")
    return folder


def test_models_of_a_folder_keep_their_places(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = convert(tree, "-o", out, "--to", "qcdq")
    assert done.exit_code == 3
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert found == {"a.onnx", "deep/deeper/b.onnx"}
    assert done.stdout.splitlines()[-1] == "3 models: 2 done, 1 with code 3"
    assert (out / "a.onnx").read_bytes() != (tree / "a.onnx").read_bytes()


def test_what_was_converted_before_is_left_as_it_is(tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.onnx").write_bytes(b"from before")
    done = convert(tree, "-o", out, "--to", "qcdq", "--skip-existing")
    assert (out / "a.onnx").read_bytes() == b"from before"
    assert (out / "deep" / "deeper" / "b.onnx").stat().st_size > 100
    assert "a.onnx: left as it is" in done.stdout


def test_one_model_that_was_converted_before_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "out.onnx").write_bytes(b"from before")
    done = convert(write(tmp_path / "m.onnx"), "-o", tmp_path / "out.onnx", "--skip-existing")
    assert done.exit_code == 0
    assert (tmp_path / "out.onnx").read_bytes() == b"from before"


def test_a_folder_without_models_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = convert(tmp_path / "empty", "-o", tmp_path / "out")
    assert "no model lies below" in str(done.exception)


def test_a_killed_process_takes_its_own_model_along_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "killer.py").write_text(
        "import os, signal\n\ndef model():\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    models = [write(tmp_path / f"{n}.onnx") for n in range(2)]
    out = tmp_path / "out"
    sources = [str(models[0]), "killer:model", str(models[1])]
    outcomes = list(convert_many(sources, str(out), ConvertOptions(), Where(jobs=2)))
    assert [outcome.exit_code for outcome in outcomes] == [0, 3, 0]
    assert "a process was killed" in outcomes[1].error
    assert sorted(path.name for path in out.iterdir()) == ["0.onnx", "1.onnx"]


def test_the_models_of_two_folders_are_checked_pair_by_pair(
    tree: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    convert(tree, "-o", other, "--to", "qcdq")
    # Rounded down in the place of to the nearest: by hand, 0.375 becomes 0.25 and not 0.5.
    write(tree / "a.onnx", "FLOOR")
    done = CliRunner().invoke(app, ["check", str(tree), str(other), "--json", "-"])
    assert done.exit_code == 1
    rows = {Path(row["source"]).name: row for row in json.loads(done.stdout)}
    assert rows["a.onnx"]["report"]["verdict"] == "DIFFERENT"
    assert rows["b.onnx"]["exit_code"] == 0
    assert rows["b.onnx"]["report"]["verdict"] in {"EQUAL", "PROVEN"}
    assert rows["broken.onnx"]["error"] == "the other folder has no model of this name"


def test_jobs_of_a_single_pair_are_refused(tmp_path: Path) -> None:
    path = str(write(tmp_path / "m.onnx"))
    done = CliRunner().invoke(app, ["check", path, path, "--jobs", "2"])
    assert "--workers" in str(done.exception)


def test_a_model_without_costs_stops_no_other(three: list[Path]) -> None:
    done = CliRunner().invoke(app, ["cost", *map(str, three)])
    assert done.exit_code == 3
    assert str(three[0]) in done.stdout
    assert str(three[2]) in done.stdout
    assert f"{three[1]}: failed with code 3: " in done.stdout
