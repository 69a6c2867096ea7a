"""Keras files made by hand, as Keras 2 writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np


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
