"""At every step of the writer the process may die, or the system refuse: old or new, whole."""

from __future__ import annotations

import errno
import os
import signal
import sys

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import qonnx_hub as qh
from qonnx_hub.equivalence.inputs.batches import GivenInputs, read_batches
from qonnx_hub.equivalence.runners.recorded import Golden, golden_folder
from qonnx_hub.io.arrays import read_arrays, write_arrays
from qonnx_hub.io.atomic import write_folder, write_text
from qonnx_hub.io.model_files import write_model, write_models
from qonnx_hub_ir.errors import UsageError
from tests.support import model_of

STEPS = {"open", "os.rename", "os.remove", "os.link", "os.mkdir", "os.rmdir", "os.chmod"}
"""What Python tells of before the system does it; a folder that changes places is renamed."""


def net(value):
    w = np.full((100, 3), value, dtype=np.float32)
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"], "m")
    return model_of([node], {"x": (2, 100)}, ["y"], {"w": w})


NETS = {value: qh.load(net(value)) for value in (1, 2)}


def weight(path):
    """Return the one value that all weights have: a mixture has several."""
    [held] = onnx.load(path).graph.initializer
    return np.unique(numpy_helper.to_array(held)).tolist()


def files_of(folder):
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def in_folder(folder, value):
    names = ("a", "b") if value == 1 else ("b", "c")
    write_folder(folder / "out", {name: bytes(str(value), "ascii") for name in names})


def golden(folder, value):
    x = np.full((3, 2), value, dtype=np.float32)
    source = GivenInputs({"x": x}, 2)
    with golden_folder(folder / "out", "side", None) as writer:
        for batch in read_batches(source):
            writer.add(batch, {"y": batch.feeds["x"]}, {})
        writer.finish(source)


def read_golden(folder):
    found = Golden(folder / "out")
    return [np.unique(found.feeds(k)["x"]).tolist() for k in range(found.count)]


def either(path, read):
    return read(path) if path.exists() else None


KINDS = {
    "text": (
        lambda folder, value: write_text(folder / "out.json", str(value)),
        lambda folder: (folder / "out.json").read_text(),
    ),
    "arrays": (
        lambda folder, value: write_arrays(folder / "o.npz", {"x": np.full(9, value, float)}),
        lambda folder: read_arrays(folder / "o.npz")["x"].tolist(),
    ),
    "model": (
        lambda folder, value: write_model(NETS[value], folder / "out.onnx"),
        lambda folder: weight(folder / "out.onnx"),
    ),
    "model with data": (
        lambda folder, value: write_model(NETS[value], folder / "out.onnx", external=True),
        lambda folder: weight(folder / "out.onnx"),
    ),
    "data into the model": (
        lambda folder, value: write_model(
            NETS[value], folder / "out.onnx", external=value == 1
        ),
        lambda folder: weight(folder / "out.onnx"),
    ),
    "folder": (in_folder, lambda folder: files_of(folder / "out")),
    "golden": (golden, read_golden),
    "two parts": (
        lambda folder, value: write_models(
            {folder / "a.onnx": NETS[value], folder / "b.onnx": NETS[value]}
        ),
        lambda folder: tuple(either(folder / n, weight) for n in ("a.onnx", "b.onnx")),
    ),
}


def add_what_others_keep(folder):
    """Put a file, a folder and a link beside what was written into a folder."""
    if (folder / "out").is_dir():
        (folder / "out" / "thesis.txt").write_text("theirs")
        (folder / "out" / "build").mkdir()
        (folder / "out" / "build" / "log").write_text("theirs")
        (folder / "out" / "link").symlink_to("thesis.txt")


def write_with_fault(write, folder, step, fault):
    """Write in a child in which one step fails; return how it ended."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    left = [step]

    def watch(event, arguments):
        if event not in STEPS or os.fsencode(folder) not in os.fsencode(str(arguments[0])):
            return
        left[0] -= 1
        if left[0] == -1:
            fault()

    sys.addaudithook(watch)
    code = 70
    try:
        write(folder, 2)
        code = 0
    except UsageError:
        code = 2
    finally:
        # Code 1: all steps were taken, the fault was none of them.
        os._exit(1 if code == 0 and left[0] >= 0 else code)


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def refuse():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def hidden(folder):
    return [path for path in folder.rglob(".qonnx_hub.*") if path.suffix == ".tmp"]


@pytest.mark.skipif(sys.platform != "linux", reason="folders change places in two steps")
@pytest.mark.parametrize("fault", [kill, refuse], ids=["kill", "refuse"])
@pytest.mark.parametrize("kind", KINDS)
def test_at_every_step_there_is_the_old_state_or_the_new_one(kind, fault, tmp_path):
    write, read = KINDS[kind]
    seen = []
    for step in range(60):
        folder = tmp_path / str(step)
        folder.mkdir()
        write(folder, 1)
        add_what_others_keep(folder)
        old = read(folder)
        status = write_with_fault(write, folder, step, fault)
        found = read(folder)
        seen.append(found)
        if os.WIFEXITED(status):
            code = os.WEXITSTATUS(status)
            assert code in (0, 1, 2)
            # What is told is what happened.
            assert (found == old) == (code == 2)
        if status == 1 << 8:
            break
        # Whatever is left over, the next one writes as usual.
        write(folder, 2)
    assert status == 1 << 8
    new = found
    assert hidden(folder) == []
    if kind == "two parts":
        # Files of two names cannot change at once: one alone may be there, never a mixture.
        assert {held for part in seen for held in map(str, filter(None, part))} == {
            "[1.0]",
            "[2.0]",
        }
        assert all(len({str(one) for one in part if one}) <= 1 for part in seen)
    else:
        assert all(found in (old, new) for found in seen)
        assert old in seen
    assert new in seen[:-1]
    assert len(seen) > 3
