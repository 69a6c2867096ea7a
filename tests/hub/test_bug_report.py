"""``qonnx-hub report``: one archive with what a maintainer asks for first."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import onnx
import pytest
from onnx import helper

from docs.pages import call
from tests.support import model_of, quant_node


@pytest.fixture
def pair(tmp_path, monkeypatch):
    weight = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    nodes = [quant_node("x", "xq"), helper.make_node("MatMul", ["xq", "w"], ["y"], "product")]
    for name, factor in (("a", 1), ("b", 2)):
        constants = {"s": 0.25, "z": 0.0, "b": 4.0, "w": weight * np.float32(factor)}
        onnx.save(model_of(nodes, {"x": (1, 3)}, ["y"], constants), tmp_path / f"{name}.onnx")
    monkeypatch.chdir(tmp_path)


def report(*words):
    return call(["qonnx-hub", "report", *words])[0]


def test_a_check_that_differs_is_packed_with_its_smallest_parts(pair):
    assert report("bug.zip", "check", "a.onnx", "b.onnx", "--seed", "3") == 0
    with zipfile.ZipFile("bug.zip") as archive:
        names = archive.namelist()
        assert {"files/0_a.onnx", "files/1_b.onnx", "output.txt", "versions.json"} <= set(
            names
        )
        assert any(name.startswith("smallest/") for name in names)
        told = archive.read("output.txt").decode()
        assert told.startswith("$ qonnx-hub check a.onnx b.onnx --seed 3\n")
        assert "DIFFERENT" in told
        assert told.endswith("exit 1\n")
        assert json.loads(archive.read("versions.json"))["numpy"] == np.__version__


def test_a_failing_command_is_packed_with_its_error(pair):
    assert report("bug.zip", "inspect", "missing.onnx") == 0
    with zipfile.ZipFile("bug.zip") as archive:
        assert "missing.onnx" in archive.read("output.txt").decode()
        assert not [name for name in archive.namelist() if name.startswith("files/")]


def test_the_smallest_parts_are_looked_for_on_the_inputs_of_the_check(pair):
    """On other inputs nothing may differ; the array stands in front of the models here."""
    np.savez("x.npz", x=np.array([[0.25, 0.0, 0.0]], dtype=np.float32))
    assert report("bug.zip", "check", "--inputs", "x.npz", "a.onnx", "b.onnx") == 0
    with zipfile.ZipFile("bug.zip") as archive:
        assert "files/0_x.npz" in archive.namelist()
        with archive.open("smallest/input.npz") as stream:
            (found,) = np.load(stream).values()
    np.testing.assert_array_equal(found, [[0.25, 0.0, 0.0]])
