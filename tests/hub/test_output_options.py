"""Whatever is written: where that cannot be, one line, exit code 2, the old file there."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import stat
import sys

import numpy as np
import onnx
import pytest
from onnx import helper
from typer.testing import CliRunner

import qonnx_hub as qh
from qonnx_hub import cli
from qonnx_hub.io.atomic import replacing
from qonnx_hub.io.model_files import write_model
from qonnx_hub_ir.errors import UsageError
from tests.support import model_of, quant_node

OPTIONS = {
    "convert -o": "convert m.onnx -o OUT.onnx --no-check",
    "convert --json": "convert m.onnx -o o.onnx --no-check --json OUT.json",
    "convert --to hls4ml": "convert m.onnx -o OUT --to hls4ml --no-check",
    "transform -o": "transform m.onnx -o OUT.onnx -p cleanup --no-check",
    "split FIRST": "split m.onnx OUT.onnx o.onnx --at q",
    "split SECOND": "split m.onnx o.onnx OUT.onnx --at q",
    "extract -o": "extract m.onnx -o OUT.onnx --to q",
    "merge -o": "merge m.onnx n.onnx -o OUT.onnx",
    "run -o": "run m.onnx -o OUT.npz",
    "run --save-inputs": "run m.onnx -o o.npz --save-inputs OUT.npz",
    "inspect --json": "inspect m.onnx --json OUT.json",
    "inspect --export-ints .h": "inspect m.onnx --export-ints OUT.h",
    "inspect --export-ints .npz": "inspect m.onnx --export-ints OUT.npz",
    "check --json": "check m.onnx m.onnx --json OUT.json",
    "check --report": "check m.onnx m.onnx --report OUT.html",
    "check --save-failing": "check m.onnx other.onnx --save-failing OUT.npz",
    "check --save-golden": "check m.onnx m.onnx --save-golden OUT",
    "lint --json": "lint m.onnx --target qonnx --json OUT.json",
    "cost --json": "cost m.onnx --json OUT.json",
    "diff --json": "diff m.onnx m.onnx --json OUT.json",
    "routes --json": "routes m.onnx --json OUT.json",
    "bench --json": "bench m.onnx --seconds 0.01 --json OUT.json",
    "certify -o": "certify m.onnx m.onnx -o OUT.json",
}


def net(value=1.0):
    nodes = [
        quant_node("x", "q", "s", "z", "b"),
        quant_node("w", "v", "s", "z", "b"),
        helper.make_node("MatMul", ["q", "v"], ["y"], "m"),
    ]
    weights = np.full((4, 4), value, dtype=np.float32)
    held = {"s": 0.25, "z": 0.0, "b": 4.0, "w": weights}
    return model_of(nodes, {"x": (1, 4)}, ["y"], held)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx.save(net(), "m.onnx")
    onnx.save(net(), "n.onnx")
    onnx.save(net(value=0.5), "other.onnx")
    return tmp_path


def run_in_child(words):
    """Run a command in a child process; return its exit code and what it told."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(writer, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.stdout, sys.stderr = open(1, "w"), open(2, "w")  # noqa: SIM115
        sys.argv = ["qonnx-hub", *words]
        code = 1
        try:
            cli.main()
        except SystemExit as end:
            code = end.code
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(writer)
    with open(reader, encoding="utf-8") as stream:
        told = stream.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), told


@contextlib.contextmanager
def full_disk():
    """Let no file grow beyond some bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("option", OPTIONS)
def test_on_a_full_disk_the_old_file_stays(option, folder):
    words = OPTIONS[option].split(" ")
    [place] = [k for k, word in enumerate(words) if word.startswith("OUT")]
    if "." in words[place]:
        (folder / words[place]).write_text("old")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with full_disk():
        result = CliRunner().invoke(cli.app, words)
    assert isinstance(result.exception, UsageError), result.output
    told = str(result.exception)
    assert re.fullmatch(r"'(OUT|o)[.a-z]*' cannot be written: File too large", told), told
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {name: after.get(name) for name in before} == before
    assert [name for name in after if name.startswith(".")] == []


@pytest.mark.parametrize(
    ("out", "reason"),
    [
        ("nowhere/y.npz", "No such file or directory"),
        ("n" * 300 + ".npz", "File name too long"),
        (".", "is a folder; name a file to write"),
        ("m.onnx/y.npz", "Not a directory"),
        ("loop", "is a link in a circle"),
        ("protected.npz", "is write-protected"),
    ],
)
def test_a_place_that_cannot_be_written_is_named_with_the_reason(out, reason, folder):
    (folder / "loop").symlink_to("loop")
    (folder / "protected.npz").write_text("old")
    (folder / "protected.npz").chmod(0o444)
    code, told = run_in_child(["run", "m.onnx", "-o", out])
    assert (code, len(told.splitlines())) == (2, 1), told
    assert f"'{out}'" in told
    assert reason in told
    assert (folder / "protected.npz").read_text() == "old"


def test_a_name_that_is_no_text_is_written(folder):
    code, told = run_in_child(["run", "m.onnx", "-o", os.fsdecode(b"\xff\xfe.npz")])
    assert (code, told) == (0, "")
    assert b"\xff\xfe.npz" in os.listdir(os.fsencode(folder))


@pytest.mark.parametrize(
    "words",
    [
        "convert m.onnx -o w.data --no-check",
        "inspect m.onnx --json w.data",
        "certify m.onnx n.onnx -o n.onnx",
    ],
)
def test_weights_beside_a_model_and_all_that_is_read_are_not_written_over(words, folder):
    onnx.save(net(), "m.onnx", save_as_external_data=True, location="w.data", size_threshold=0)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    code, told = run_in_child(words.split(" "))
    assert code == 2
    assert "is read by this command, which would write over it" in told
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    "words",
    [
        "convert m.onnx -o o.onnx --json ./o.onnx",
        "check m.onnx n.onnx --json o --report o",
        "split m.onnx o.onnx o.onnx --at q",
    ],
)
def test_two_outputs_are_not_one_file(words, folder):
    code, told = run_in_child(words.split(" "))
    assert code == 2
    assert "would be written twice" in told
    assert not (folder / "o.onnx").exists()


def test_a_private_file_is_private_while_it_is_written(folder):
    target = folder / "y.npz"
    target.touch(0o600)
    with replacing(target) as temporary:
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600


def test_weights_beside_a_model_have_its_mode(folder):
    node = helper.make_node("Add", ["x", "w"], ["y"])
    model = model_of([node], {"x": (1, 99)}, ["y"], {"w": np.ones(99, dtype=np.float32)})
    for _ in range(2):
        write_model(qh.load(model), folder / "o.onnx", external=True)
        (folder / "o.onnx").chmod(0o640)
    [data] = folder.glob("o.onnx*.data")
    assert stat.S_IMODE(data.stat().st_mode) == 0o640


def test_without_a_weight_of_some_size_nothing_lies_beside_a_model(folder):
    write_model(qh.load(net()), folder / "o.onnx", external=True)
    assert list(folder.glob("o.onnx*")) == [folder / "o.onnx"]
