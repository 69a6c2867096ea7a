"""``.keras`` files of Keras 3, read where only qkeras 0.9.0 and Keras 2 are installed.

The configs are respelled, the weights taken out of the file by position. What has no
counterpart in Keras 2 is refused; what has no effect at inference (initializers, constraints,
regularizers) is left out.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from qonnx_hub_adapters.dependencies import require
from qonnx_hub_adapters.qkeras.framework import Framework
from qonnx_hub_ir.errors import SourceError

_TRAINING_ONLY = ("_initializer", "_constraint", "_regularizer")
_NEW_ARGUMENTS = frozenset(
    {
        *("elements_per_scale", "min_po2_exponent", "max_po2_exponent", "post_training_scale"),
        *("quantization_config", "optional", "lora_rank", "lora_alpha"),
    }
)
"""Arguments that Keras 2 and qkeras 0.9.0 do not know; harmless where they are not set."""


def read_keras_3(path: Path, objects: dict[str, Any], framework: Framework) -> Any:
    """Return the model of a ``.keras`` file of Keras 3 as one of Keras 2, weights included.

    Args:
        path: The file.
        objects: Classes by name.
        framework: Keras 2 and qkeras 0.9.0.

    Raises:
        SourceError: It holds what Keras 2 does not have: an argument that is set, a layer with
            sub-layers, a call with keyword tensors.
    """
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read("config.json"))
        weights = archive.read("model.weights.h5")
    text = json.dumps(_respelled(config, str(path)))
    model = framework.keras.models.model_from_json(text, custom_objects=objects)
    h5py = require("h5py", needed_by="adapter 'qkeras'", extra="qkeras")
    with h5py.File(io.BytesIO(weights), "r") as file:
        _set_weights(model, file, path)
    return model


def _respelled(node: Any, where: str) -> Any:
    """Return a config of Keras 3 as Keras 2 spells it."""
    if isinstance(node, list):
        return [_respelled(one, where) for one in node]
    if not isinstance(node, dict):
        return node
    kind = node.get("class_name")
    if kind == "DTypePolicy":
        return node["config"]["name"]
    if kind == "function":
        return node["config"]
    if kind is None or "config" not in node:
        return _arguments(node, where)
    respelled = {"class_name": kind, "config": _respelled(node["config"], where)}
    if kind == "InputLayer":
        shape = respelled["config"].pop("batch_shape", None)
        respelled["config"].setdefault("batch_input_shape", shape)
    if "name" in node:
        respelled["name"] = node["name"]
    if "inbound_nodes" in node:
        respelled["inbound_nodes"] = [_inbound(one, where) for one in node["inbound_nodes"]]
    return respelled


def _arguments(config: dict[str, Any], where: str) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, value in config.items():
        if name.endswith(_TRAINING_ONLY):
            continue
        if name in _NEW_ARGUMENTS:
            if value not in (None, False):
                raise SourceError(
                    f"'{where}': argument {name}={value!r} needs Keras 3; read the file where "
                    "'qonnx-hub[qkeras3]' is installed"
                )
            continue
        kept[name] = _respelled(value, where)
    for name in ("input_layers", "output_layers"):
        ends = kept.get(name)
        if isinstance(ends, list) and ends and isinstance(ends[0], str):
            kept[name] = [ends]
    return kept


def _inbound(call: dict[str, Any], where: str) -> list[list[Any]]:
    """Return one call of a layer: [[layer, call index, tensor index, arguments], ...]."""
    if list(_tensors(call.get("kwargs", {}))):
        raise SourceError(f"'{where}': a layer is called with keyword tensors")
    return [[*history, {}] for history in _tensors(call.get("args", []))]


def _tensors(node: Any) -> Iterator[list[Any]]:
    if isinstance(node, list):
        for one in node:
            yield from _tensors(one)
    elif isinstance(node, dict):
        if node.get("class_name") == "__keras_tensor__":
            yield list(node["config"]["keras_history"])
            return
        for one in node.values():
            yield from _tensors(one)


def _set_weights(model: Any, file: Any, path: Path) -> None:
    """Fill the layers from ``layers/<class name>[_<count>]/vars/<index>``."""
    counts: dict[str, int] = {}
    for layer in model.layers:
        # As Keras 3 spells a class in files of weights.
        split = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", type(layer).__name__)
        stem = re.sub(r"([a-z])([A-Z])", r"\1_\2", split).lower()
        count = counts.get(stem, 0)
        counts[stem] = count + 1
        group = file.get(f"layers/{stem}_{count}" if count else f"layers/{stem}")
        stored = {} if group is None else dict(group.get("vars", {}))
        if group is not None and any(name != "vars" and len(group[name]) for name in group):
            raise SourceError(
                f"'{path}': layer '{layer.name}' ({type(layer).__name__}) has layers inside; "
                "read the file where 'qonnx-hub[qkeras3]' is installed"
            )
        values = [np.asarray(stored[name]) for name in sorted(stored, key=int)]
        if len(values) != len(layer.weights):
            raise SourceError(
                f"'{path}': layer '{layer.name}' has {len(layer.weights)} weights, "
                f"the file holds {len(values)} for it"
            )
        layer.set_weights(values)
