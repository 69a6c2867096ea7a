"""What is written takes the place of what was there, or nothing changes."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from typer.testing import CliRunner

import qonnx_hub as qh
from qonnx_hub.analysis.weight_export import IntegerWeight, write_integers
from qonnx_hub.cli import app
from qonnx_hub.io.arrays import read_arrays, write_arrays
from qonnx_hub.io.model_files import write_model
from qonnx_hub_ir.errors import UsageError
from tests.support import model_of, quant_node


def net(value=1.0, scale=0.25, output="y"):
    nodes = [
        quant_node("x", "q", "s", "z", "b"),
        helper.make_node("MatMul", ["q", "w"], [output], "m"),
    ]
    held = {"s": scale, "z": 0.0, "b": 4.0, "w": np.full((400, 3), value, dtype=np.float32)}
    return model_of(nodes, {"x": (2, 400)}, [output], held)


def saved(path, **given):
    onnx.save(net(**given), path)
    return path


def numbers(path):
    held = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    [scale] = [one for name, one in held.items() if one.size == 1 and 0 < float(one) < 1]
    [weight] = [one for one in held.values() if one.size == 1200]
    return float(scale), float(weight.flat[0])


@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_what_is_no_file_is_not_written(kind, tmp_path):
    target = Path("/dev/null")
    if kind == "fifo":
        target = tmp_path / "pipe"
        os.mkfifo(target)
    with pytest.raises(UsageError, match="is a device or a pipe"):
        qh.convert(net(), target, to="qcdq")
    assert not stat.S_ISREG(target.stat().st_mode)


def test_of_a_link_the_target_is_replaced(tmp_path):
    saved(tmp_path / "old.onnx")
    (tmp_path / "link.onnx").symlink_to("old.onnx")
    qh.convert(net(2.0), tmp_path / "link.onnx", to="qonnx")
    assert (tmp_path / "link.onnx").is_symlink()
    assert numbers(tmp_path / "old.onnx") == (0.25, 2.0)


def test_the_mode_of_a_file_stays(tmp_path):
    target = saved(tmp_path / "private.onnx")
    target.chmod(0o600)
    qh.convert(net(2.0), target, to="qonnx")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_new_file_has_the_mode_that_the_process_asks_for(tmp_path):
    before = os.umask(0o027)
    try:
        write_arrays(tmp_path / "a.npz", {"x": np.zeros(1, dtype=np.float32)})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.npz").stat().st_mode) == 0o640


@pytest.mark.parametrize(
    "words",
    [
        ("convert", "a.onnx", "-o", "a.onnx", "--to", "qcdq"),
        ("inspect", "a.onnx", "--json", "a.onnx"),
        ("check", "b.onnx", "a.onnx", "--report", "a.onnx"),
        ("transform", "a.onnx", "-o", "link.onnx", "-p", "cleanup"),
        ("run", "a.onnx", "--inputs", "x.npz", "-o", "x.npz"),
    ],
    ids=lambda words: words[0],
)
def test_a_file_that_is_read_is_not_written_over(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    saved(Path("a.onnx"))
    saved(Path("b.onnx"))
    Path("link.onnx").symlink_to("a.onnx")
    write_arrays("x.npz", {"x": np.zeros((2, 400), dtype=np.float32)})
    before = {path.name: path.read_bytes() for path in Path().iterdir()}
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, UsageError)
    assert "is read by this command" in str(result.exception)
    assert {path.name: path.read_bytes() for path in Path().iterdir()} == before


def test_it_is_written_over_where_that_is_asked_for(tmp_path):
    path = str(saved(tmp_path / "a.onnx"))
    words = ["convert", path, "-o", path, "--to", "qcdq", "--force"]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert "QuantizeLinear" in {node.op_type for node in onnx.load(path).graph.node}


def beside(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix == ".data")


def test_weights_beside_a_file_get_a_name_that_is_free(tmp_path):
    target = tmp_path / "out.onnx"
    for value, name in (
        (1.0, "out.onnx.data"),
        (2.0, "out.onnx.1.data"),
        (3.0, "out.onnx.data"),
    ):
        write_model(qh.load(net(value)), target, external=True)
        assert numbers(target) == (0.25, value)
        assert beside(tmp_path) == [name]


def test_weights_of_others_stay(tmp_path):
    (tmp_path / "out.onnx.data").write_bytes(b"theirs")
    write_model(qh.load(net()), tmp_path / "out.onnx", external=True)
    assert beside(tmp_path) == ["out.onnx.1.data", "out.onnx.data"]
    assert (tmp_path / "out.onnx.data").read_bytes() == b"theirs"


@pytest.mark.parametrize("name", ["file", "allow_pickle", "a/b:0", "naïve"])
def test_arrays_keep_every_name(name, tmp_path):
    x = np.arange(3, dtype=np.float32)
    write_arrays(tmp_path / "y.npz", {name: x})
    assert zipfile.ZipFile(tmp_path / "y.npz").namelist() == [f"{name}.npy"]
    with np.load(tmp_path / "y.npz") as archive:
        np.testing.assert_array_equal(archive[name], x)


def test_one_array_may_lie_in_a_file_of_its_own(tmp_path):
    x = np.arange(3, dtype=np.float32)
    np.save(tmp_path / "x.npy", x)
    np.testing.assert_array_equal(read_arrays(tmp_path / "x.npy")["x"], x)


NAMES = [
    "a*\\\n/ int evil(void){return 42;} /*",
    "a*\\\r\n/ int evil(void){return 42;} /*",
    "a??/\n*/ int evil(void){return 42;} /*",
    *("int", "class", "int8_t", "a", "a_scale", "a_BITS", "1st", "", "Gewicht ü"),
]


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no C compiler")
@pytest.mark.parametrize("language", ["c", "c++"])
def test_headers_compile_whatever_weights_are_called(language, tmp_path):
    one = np.ones(2, dtype=np.float32)
    codes = np.ones(2, dtype=np.int8)
    weights = [IntegerWeight(name, codes, one, one, 4, True) for name in NAMES]
    write_integers(weights, tmp_path / "w.h")
    program = '#include "w.h"\nint main(void) { return 0; }\n'
    compiler = ["gcc", "-x", language, "-trigraphs", "-w"]
    for kind in (["-c", "-o", "t.o"], ["-E", "-P"]):
        done = subprocess.run(
            [*compiler, *kind, "-"],
            input=program,
            text=True,
            capture_output=True,
            check=False,
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
    # Without comments, as the compiler reads it.
    assert "evil(" not in done.stdout.replace(" ", "")


@pytest.mark.parametrize("refusal", [OSError, NotImplementedError])
def test_what_others_keep_in_a_folder_stays_where_there_are_no_links(
    refusal, tmp_path, monkeypatch
):
    from qonnx_hub.io.atomic import write_folder

    def refused(*_, **__):
        raise refusal

    write_folder(tmp_path / "out", {"a": b"1"})
    (tmp_path / "out" / "thesis.txt").write_text("theirs")
    monkeypatch.setattr("os.link", refused)  # Windows knows no links that are not followed
    write_folder(tmp_path / "out", {"a": b"2"})
    assert (tmp_path / "out" / "thesis.txt").read_text() == "theirs"
    assert (tmp_path / "out" / "a").read_bytes() == b"2"
