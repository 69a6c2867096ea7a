"""Files that were spoiled on purpose: one line each, little memory, no other file read."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

import qonnx_hub as qh
from qonnx_hub_ir.errors import HubError, SourceError
from tests.adapters.keras_files.kit import bits, layer, sequential, write_h5

KERNEL, BIAS = np.ones((3, 2), dtype=np.float32), np.ones(2, dtype=np.float32)
PLACE = "model_weights/fc/fc/array_0:0"


def dense(**given):
    settings = {"units": 2, "activation": "linear", "kernel_quantizer": bits(3), **given}
    return sequential(layer("QDense", "fc", **settings), shape=[3])


def refusal(path: Path) -> str:
    with pytest.raises(SourceError) as caught:
        qh.load(str(path), from_="keras")
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert len(text) < 600
    return text


def outcome(path: Path) -> str:
    try:
        qh.load(str(path), from_="keras")
    except HubError as error:
        return str(error)
    return ""


def with_kernel(path: Path, put) -> Path:
    write_h5(path, dense(), {"fc": [KERNEL, BIAS]})
    with h5py.File(path, "a") as file:
        del file[PLACE]
        put(file)
    return path


def test_a_shape_beyond_what_the_file_holds_is_not_allocated(tmp_path):
    def put(file):
        file.create_dataset(PLACE, (1 << 18, 1 << 11), "f4", chunks=(1 << 14, 1 << 11))

    text = refusal(with_kernel(tmp_path / "n.h5", put))
    assert "says 2147483648 bytes, and the file holds 0" in text


def test_another_file_is_not_read(tmp_path):
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as file:
        file["x"] = KERNEL
    (tmp_path / "raw").write_bytes(bytes(24))

    def link(file):
        file[PLACE] = h5py.ExternalLink(str(other), "/x")

    def storage(file):
        file.create_dataset(PLACE, (3, 2), "f4", external=[(str(tmp_path / "raw"), 0, 24)])

    for name, put in (("a.h5", link), ("b.h5", storage)):
        assert "lies in another file" in refusal(with_kernel(tmp_path / name, put))


def test_links_in_circles_end(tmp_path):
    def soft(file):
        file[PLACE] = h5py.SoftLink(f"/{PLACE}")

    assert "is broken" in refusal(with_kernel(tmp_path / "a.h5", soft))
    path = write_h5(tmp_path / "b.h5", dense(), {"fc": [KERNEL, BIAS]})
    with h5py.File(path, "a") as file:
        file["model_weights/fc/loop"] = file["model_weights"]
    # What no weight lies behind is never walked.
    assert qh.load(str(path), from_="keras").graph.outputs


@pytest.mark.parametrize("names", [3, np.zeros((2, 2)), [b"\xff\xfe"], [b"fc", b"gone"]])
def test_lists_of_names_that_are_none_are_refused(tmp_path, names):
    path = write_h5(tmp_path / "n.h5", dense(), {"fc": [KERNEL, BIAS]})
    with h5py.File(path, "a") as file:
        file["model_weights"].attrs["layer_names"] = names
    refusal(path)


@pytest.mark.parametrize(
    "weights", [[BIAS, KERNEL], [KERNEL.astype("c8"), BIAS], [np.float32(1), BIAS]]
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, weights):
    refusal(write_h5(tmp_path / "n.h5", dense(), {"fc": weights}))


@pytest.mark.parametrize(
    "config",
    [
        dense(kernel_quantizer=bits(10**9)),
        dense(kernel_quantizer="quantized_bits(" + "(" * 5000 + ")" * 5000 + ")"),
        dense(kernel_quantizer={"class_name": "quantized_bits", "config": {"bits": "x"}}),
        sequential(layer("MaxPooling2D", "fc"), shape=[4, 4, 2]),
        sequential(layer("Reshape", "fc", target_shape=[0, -1]), shape=[4]),
        sequential(layer("Reshape", "fc", target_shape=[-1, -1]), shape=[4]),
        sequential(layer("EinsumDense", "fc", equation="zz"), shape=[4]),
        "[" * 100_000,
    ],
)
def test_settings_that_are_broken_are_refused(tmp_path, config):
    text = json.dumps(config) if isinstance(config, dict) else config
    holds = [KERNEL, BIAS] if "QDense" in text else [KERNEL] if "Einsum" in text else []
    refusal(write_h5(tmp_path / "n.h5", text, {"fc": holds}))


def test_units_that_the_weights_do_not_have_make_no_states(tmp_path):
    arrays = [np.ones(shape, dtype=np.float32) for shape in ((3, 8), (2, 8), (8,))]
    names = {"activation": "tanh", "recurrent_activation": "sigmoid"}
    config = sequential(layer("LSTM", "fc", units=10**9, **names), shape=[5, 3])
    assert "1000000000 units" in refusal(write_h5(tmp_path / "n.h5", config, {"fc": arrays}))


def archive(path: Path, **parts: bytes) -> Path:
    held = {"config.json": json.dumps(dense()), "metadata.json": '{"keras_version": "2.15.0"}'}
    held |= {"model.weights.h5": b"no", **parts}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in held.items():
            file.writestr(name, content)
    return path


def test_an_archive_that_unpacks_to_a_thousand_times_its_size_is_not_unpacked(tmp_path):
    path = archive(tmp_path / "n.keras", **{"model.weights.h5": bytes((1 << 26) + 1)})
    assert "to 67108865 bytes, which no weights do" in refusal(path)


def test_names_that_lead_out_of_an_archive_are_never_followed(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    refusal(archive(inside / "n.keras", **{"../../evil.h5": b"x"}))
    assert sorted(one.name for one in tmp_path.rglob("*")) == ["inside", "n.keras"]


@pytest.mark.parametrize("metadata", ["[", "[" * 100_000])
def test_metadata_that_is_no_json_is_refused(tmp_path, metadata):
    refusal(archive(tmp_path / "n.keras", **{"metadata.json": metadata.encode()}))


@pytest.mark.parametrize("seed", range(40))
def test_flipped_bytes_give_a_model_or_one_line(tmp_path, seed):
    path = write_h5(tmp_path / "n.h5", dense(), {"fc": [KERNEL, BIAS]})
    content, random = bytearray(path.read_bytes()), np.random.default_rng(seed)
    for place in random.integers(0, len(content), 20):
        content[place] = int(random.integers(256))
    path.write_bytes(content)
    assert len(outcome(path)) < 1500
