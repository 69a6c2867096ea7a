"""Which files a model may read its weights from, and what happens to the caller's model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import qonnx_hub as qh
from qonnx_hub_adapters.external_data import allowed_folders
from qonnx_hub_ir.errors import SourceError, UsageError

WEIGHT = np.arange(12, dtype=np.float32).reshape(4, 3)
X = np.ones((1, 4), dtype=np.float32)
EXPECTED = [[18.0, 22.0, 26.0]]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links are made")


def stored(location: str) -> onnx.TensorProto:
    tensor = TensorProto(
        name="w", dims=WEIGHT.shape, data_type=TensorProto.FLOAT, data_location=1
    )
    tensor.external_data.add(key="location", value=location)
    tensor.external_data.add(key="length", value=str(WEIGHT.nbytes))
    return tensor


def product(weight: onnx.TensorProto, *, constant: bool = False) -> onnx.ModelProto:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")]
    if constant:
        nodes.insert(0, helper.make_node("Constant", [], ["w"], name="weight", value=weight))
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [] if constant else [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a model of weights in 'w.bin', which is not there yet."""
    place = tmp_path / "model"
    place.mkdir()
    (place / "m.onnx").write_bytes(product(stored("w.bin")).SerializeToString())
    (tmp_path / "blob").write_bytes(WEIGHT.tobytes())
    return place


def answer(path: Path) -> list[list[float]]:
    return qh.run(path, {"x": X})["y"].tolist()


def test_a_link_to_a_file_of_the_same_folder_is_read(folder):
    (folder / "weights").write_bytes(WEIGHT.tobytes())
    (folder / "w.bin").symlink_to("weights")
    assert answer(folder / "m.onnx") == EXPECTED


def test_a_file_of_the_folder_with_several_names_is_read(folder):
    os.link(folder.parent / "blob", folder / "w.bin")
    assert answer(folder / "m.onnx") == EXPECTED


@pytest.mark.parametrize("constant", [False, True])
def test_links_of_model_and_weights_into_one_store_are_read(tmp_path, constant):
    store, seen = tmp_path / "blobs", tmp_path / "snapshots" / "1"
    store.mkdir()
    seen.mkdir(parents=True)
    proto = product(stored("w.bin"), constant=constant)
    (store / "0a").write_bytes(proto.SerializeToString())
    (store / "0b").write_bytes(WEIGHT.tobytes())
    (seen / "m.onnx").symlink_to("../../blobs/0a")
    (seen / "w.bin").symlink_to("../../blobs/0b")
    assert answer(seen / "m.onnx") == EXPECTED


def test_a_model_with_linked_weights_is_written_with_weights_of_its_own(folder, tmp_path):
    os.link(folder.parent / "blob", folder / "w.bin")
    qh.convert(folder / "m.onnx", tmp_path / "out.onnx", to="qonnx")
    (folder / "w.bin").unlink()
    assert answer(tmp_path / "out.onnx") == EXPECTED


@pytest.mark.parametrize("constant", [False, True])
def test_a_link_out_of_the_folder_is_refused_by_path_and_option(folder, constant):
    proto = product(stored("w.bin"), constant=constant)
    (folder / "m.onnx").write_bytes(proto.SerializeToString())
    (folder / "w.bin").symlink_to("../blob")
    with pytest.raises(SourceError) as caught:
        qh.load(folder / "m.onnx")
    told = str(caught.value)
    assert "w.bin" in told
    assert f"--allow-external '{folder.parent}'" in told
    assert "\n" not in told


@pytest.mark.parametrize("location", ["../blob", "{parent}/blob"])
def test_a_path_out_of_the_folder_is_read_only_where_that_is_allowed(folder, location):
    location = location.format(parent=folder.parent)
    (folder / "m.onnx").write_bytes(product(stored(location)).SerializeToString())
    with pytest.raises(SourceError, match="outside of the model's folder"):
        qh.load(folder / "m.onnx")
    with allowed_folders(folder.parent):
        assert answer(folder / "m.onnx") == EXPECTED
    with pytest.raises(SourceError, match="outside of the model's folder"):
        qh.load(folder / "m.onnx")


def test_what_is_no_regular_file_is_not_opened(folder):
    os.mkfifo(folder / "w.bin")
    with pytest.raises(SourceError, match="no regular file"):
        qh.load(folder / "m.onnx")


def test_a_folder_that_is_none_cannot_be_allowed(tmp_path):
    with pytest.raises(UsageError, match="is no folder"), allowed_folders(tmp_path / "none"):
        pass


def test_the_command_line_takes_the_folder_at_any_verb(folder):
    (folder / "w.bin").symlink_to("../blob")
    command = [sys.executable, "-m", "qonnx_hub", "inspect", str(folder / "m.onnx")]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode == 3
    assert len(refused.stderr.strip().splitlines()) == 1
    for words in (
        ["--allow-external", str(folder.parent)],
        [f"--allow-external={folder.parent}"],
    ):
        done = subprocess.run([*command, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_passes_leave_the_message_that_was_read_as_it_is():
    proto = product(numpy_helper.from_array(WEIGHT, "w"))
    before = proto.SerializeToString()
    model = qh.load(proto)
    qh.passes.run(model, [qh.passes.make("give_names")])
    assert [value.name for value in model.graph.initializers.values()] != ["w"]
    assert proto.SerializeToString() == before
