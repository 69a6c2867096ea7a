"""What a source may take: nodes and bytes, in Python and anywhere on a command line."""

from __future__ import annotations

import io
import itertools
import zipfile

import numpy as np
import onnx
import pytest
from onnx import helper

import qonnx_hub as qh
from docs.pages import call
from qonnx_hub.cli.anywhere import taken_out
from qonnx_hub.io.arrays import read_arrays
from qonnx_hub_ir.errors import SourceError, UsageError
from qonnx_hub_ir.limits import reading_limits
from tests.support import model_of


@pytest.fixture
def three_nodes(tmp_path):
    names = ["x", "a", "b", "y"]
    nodes = [helper.make_node("Relu", [i], [o]) for i, o in itertools.pairwise(names)]
    path = tmp_path / "m.onnx"
    onnx.save(model_of(nodes, {"x": (1, 4)}, ["y"], {}), path)
    return path


def test_a_model_of_more_nodes_than_may_be_is_refused_and_one_of_as_many_is_read(three_nodes):
    with reading_limits(max_nodes=3):
        assert len(qh.load(three_nodes).graph) == 3
    with (
        reading_limits(max_nodes=2),
        pytest.raises(SourceError, match=r"3 nodes, more than 2.*--max-nodes"),
    ):
        qh.load(three_nodes)
    assert len(qh.load(three_nodes).graph) == 3  # the bound ends with its block


def test_a_larger_file_than_may_be_is_refused(three_nodes):
    size = three_nodes.stat().st_size
    with reading_limits(max_memory=size):
        qh.load(three_nodes)
    with (
        reading_limits(max_memory=size - 1),
        pytest.raises(SourceError, match=rf"takes {size} bytes.*--max-memory"),
    ):
        qh.load(three_nodes)


@pytest.mark.parametrize("place", ["before", "behind"])
def test_the_options_stand_before_the_verb_or_behind_it(three_nodes, place):
    words, option = ["inspect", three_nodes], ["--max-nodes", "2"]
    order = [*option, *words] if place == "before" else [*words, *option]
    code, said = call(["qonnx-hub", *map(str, order)])
    assert code == 3
    assert said.count("\n") == 1
    assert "3 nodes, more than 2" in said


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5G", ""])
def test_a_bound_that_is_no_number_is_wrong_usage(three_nodes, text):
    code, said = call(["qonnx-hub", "inspect", str(three_nodes), f"--max-memory={text}"])
    assert code == 2
    assert f"'{text}' is no number above 0" in said


def test_units_are_powers_of_two(three_nodes):
    assert call(["qonnx-hub", "inspect", str(three_nodes), "--max-memory", "1K"])[0] == 0
    assert taken_out(["a", "--max-memory", "1K", "b"])[0] == ["a", "b"]


def archive_of(path, shape, held):
    """An .npz whose array's header tells of a shape, over other bytes."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", header.getvalue() + held)


def test_an_archive_that_unpacks_to_more_than_may_be_is_refused(tmp_path):
    path = tmp_path / "bomb.npz"
    archive_of(path, (1 << 20,), bytes(4 << 20))
    assert path.stat().st_size < 10_000
    with (
        reading_limits(max_memory=1 << 20),
        pytest.raises(UsageError, match="unpacked, takes 4194"),
    ):
        read_arrays(path)


def test_an_array_that_tells_of_another_size_than_it_has_is_refused(tmp_path):
    archive_of(tmp_path / "lies.npz", (1 << 40,), b"1234")
    with pytest.raises(UsageError, match=r"lies\.npz"):
        read_arrays(tmp_path / "lies.npz")
