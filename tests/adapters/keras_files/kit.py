"""Keras files made by hand, as Keras 2 writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import qonnx_hub as qh
from qonnx_hub_ir.errors import SourceError

X = np.array([[0.5, -1.0, 0.25], [0.0, 2.0, -0.75]], dtype=np.float32)


def layer(kind: str, name: str, **config: Any) -> dict[str, Any]:
    return {"class_name": kind, "config": {"name": name, **config}}


def bits(width: int, integer: int = 0, **given: Any) -> dict[str, Any]:
    config = {"bits": width, "integer": integer, "symmetric": 0, "keep_negative": True}
    return {"class_name": "quantized_bits", "config": {**config, "alpha": 1.0, **given}}


def sequential(*layers: dict[str, Any], shape: list[int | None]) -> dict[str, Any]:
    first = layer("InputLayer", "x", batch_input_shape=[None, *shape], dtype="float32")
    return {"class_name": "Sequential", "config": {"name": "net", "layers": [first, *layers]}}


def write_h5(
    path: Path, config: Any, weights: dict[str, list[np.ndarray]], version: str = "2.15.0"
) -> Path:
    """Write a model's file: configuration, and arrays in order by layer."""
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = config if isinstance(config, str) else json.dumps(config)
        file.attrs["keras_version"] = version
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [name.encode() for name in weights]
        for name, arrays in weights.items():
            inner = group.create_group(name)
            paths = [f"{name}/array_{n}:0" for n in range(len(arrays))]
            inner.attrs["weight_names"] = [one.encode() for one in paths]
            for one, values in zip(paths, arrays, strict=True):
                inner.create_dataset(one, data=values)
    return path


def refused(path, words, kind=SourceError, **given):
    with pytest.raises(kind, match=words) as caught:
        qh.load(str(path), from_="keras", **given)
    return str(caught.value)


def functional(layers, inputs, outputs):
    config = {
        "name": "net",
        "layers": layers,
        "input_layers": inputs,
        "output_layers": outputs,
    }
    return {"class_name": "Functional", "config": config}


def node(kind, name, calls, **config):
    return {**layer(kind, name, **config), "name": name, "inbound_nodes": calls}


def tensor(name, number=0):
    """A reference of Keras 3."""
    config = {"shape": [None, 3], "dtype": "float32", "keras_history": [name, number, 0]}
    return {"class_name": "__keras_tensor__", "config": config}


def call(*args):
    return {"args": list(args), "kwargs": {}}


def operation(path, kind, config, like):
    """Write a file whose output is an operation of Keras 3 on ``x``, an array's like."""
    given = {"batch_shape": [None, *like.shape[1:]], "dtype": str(like.dtype)}
    layers = [
        node("InputLayer", "x", [], **given),
        node(kind, "y", [call(tensor("x"))], **config),
    ]
    write_h5(path, functional(layers, [["x", 0, 0]], [["y", 0, 0]]), {}, "3.15.0")
    return str(path)
