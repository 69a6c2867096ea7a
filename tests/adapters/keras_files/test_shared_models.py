"""A layer that two models of a file hold: Keras writes its arrays once."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import qonnx_hub as qh
from qonnx_hub_ir.errors import SourceError
from tests.adapters.keras_files.kit import layer, write_h5

X = np.array([[0.5, -1.0], [0.0, 2.0]], dtype=np.float32)
SHARED, FIRST, SECOND = (
    np.array(rows, dtype=np.float32)
    for rows in ([[1, 2], [0, -1]], [[0.5, 0], [1, 1]], [[-1, 0.25], [2, 0]])
)


def chain(name: str, *layers: dict[str, Any]) -> dict[str, Any]:
    start = layer("InputLayer", f"{name}_in", batch_input_shape=[None, 2], dtype="float32")
    return {"class_name": "Sequential", "config": {"name": name, "layers": [start, *layers]}}


def dense(name: str) -> dict[str, Any]:
    return layer("Dense", name, units=2, use_bias=False, activation="linear")


def net(*marks: dict[str, int]) -> dict[str, Any]:
    """A chain of two chains, each with the layer "common"."""
    return chain(
        "net",
        chain("left", {**dense("common"), **marks[0]}, dense("first")),
        chain("right", {**dense("common"), **marks[1]}, dense("second")),
    )


def write_keras(path: Path, config: Any, groups: dict[str, np.ndarray]) -> Path:
    """Write an archive with an array for each path of a group."""
    held = io.BytesIO()
    with h5py.File(held, "w") as file:
        for place, values in groups.items():
            file.create_dataset(f"{place}/vars/0", data=values)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("metadata.json", '{"keras_version": "2.15.0"}')
        archive.writestr("model.weights.h5", held.getvalue())
    return path


LEFT, RIGHT = "layers/sequential/layers", "layers/sequential_1/layers"
STORED = {f"{LEFT}/dense": SHARED, f"{LEFT}/dense_1": FIRST, f"{RIGHT}/dense_1": SECOND}
MARK: dict[str, int] = {"shared_object_id": 7}


def test_a_layer_that_is_marked_as_met_again_is_the_one_before(tmp_path):
    path = write_keras(tmp_path / "net.keras", net({}, MARK), STORED)
    (found,) = qh.run(qh.load(str(path)), {"net_in": X}).values()
    np.testing.assert_array_equal(found, X @ SHARED @ FIRST @ SHARED @ SECOND)


def test_a_layer_that_is_stored_elsewhere_may_have_no_number(tmp_path):
    stored = {f"{LEFT}/dense": SHARED, f"{LEFT}/dense_1": FIRST, f"{RIGHT}/dense": SECOND}
    path = write_keras(tmp_path / "net.keras", net({}, MARK), stored)
    (found,) = qh.run(qh.load(str(path)), {"net_in": X}).values()
    np.testing.assert_array_equal(found, X @ SHARED @ FIRST @ SHARED @ SECOND)


def test_one_group_of_two_marked_layers_is_refused(tmp_path):
    """The group is of "other", whose namesake in "left" is another layer."""
    other = {**dense("other"), "shared_object_id": 8}
    config = chain(
        "net",
        chain("left", dense("common"), dense("other")),
        {**dense("common"), **MARK},
        other,
        chain("right", other),
    )
    stored = {f"{LEFT}/dense": SHARED, f"{LEFT}/dense_1": FIRST, "layers/dense": SECOND}
    path = write_keras(tmp_path / "net.keras", config, stored)
    with pytest.raises(SourceError, match="'model' has 1 groups of 'dense', and nothing says"):
        qh.load(str(path))


def test_a_layer_without_arrays_that_nothing_marks_is_refused(tmp_path):
    path = write_keras(tmp_path / "net.keras", net({}, {}), STORED)
    words = f"layer 'common' has no arrays at '{RIGHT}/dense', and nothing says.*save the"
    with pytest.raises(SourceError, match=words):
        qh.load(str(path))


def test_a_layer_that_may_be_either_of_two_is_refused(tmp_path):
    config = chain(
        "net",
        *(
            chain(f"c{n}", {**dense("common"), **mark})
            for n, mark in enumerate(({}, {}, MARK))
        ),
    )
    stored = {
        f"layers/{group}/layers/dense": SHARED for group in ("sequential", "sequential_1")
    }
    path = write_keras(tmp_path / "net.keras", config, stored)
    with pytest.raises(SourceError, match="2 layers before with the same settings"):
        qh.load(str(path))


@pytest.mark.parametrize("own", [False, True])
def test_a_list_of_arrays_says_by_its_length_whether_a_layer_is_shared(tmp_path, own):
    config = chain("top", net({}, {}))
    held = [SHARED, FIRST, 2 * SHARED, SECOND] if own else [SHARED, FIRST, SECOND]
    path = write_h5(tmp_path / "net.h5", config, {"net": held})
    (found,) = qh.run(qh.load(str(path)), {"top_in": X}).values()
    wanted = X @ SHARED @ FIRST @ SHARED @ SECOND * (2 if own else 1)
    np.testing.assert_array_equal(found, wanted)
