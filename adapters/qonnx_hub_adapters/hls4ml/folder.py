"""A folder that was written for hls4ml, read again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Model

from qonnx_hub_adapters.hls4ml.file_names import CONFIG, MODEL, REPORT, SCRIPT, TENSORS
from qonnx_hub_adapters.hls4ml.project import script as own_script
from qonnx_hub_adapters.hls4ml.tensor_map import StoredTensor, from_text
from qonnx_hub_adapters.hls4ml.yaml_text import from_yaml
from qonnx_hub_ir.errors import SourceError, UsageError
from qonnx_hub_ir.quantizers import Array


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of the source, and how it is stored.

    Attributes:
        source: Its name in the source.
        source_shape: Its shape there, with batch 1.
        name: Its name in the folder's model.
        shape: Its shape there.
        axes: For each axis of the source, the axis on which it is stored; ``None`` where its
            elements are stored in one row.
        result: Of an output, its place among hls4ml's results.
    """

    source: str
    source_shape: tuple[int, ...]
    name: str
    shape: tuple[int, ...]
    axes: tuple[int, ...] | None
    result: int = 0

    def stored(self, values: Array) -> Array:
        """Return the source's values, float32, as the folder's model takes them.

        Raises:
            UsageError: They have another shape than the source's.
        """
        if values.shape[1:] != self.source_shape[1:]:
            raise UsageError(
                f"a sample of '{self.source}' has the shape {list(values.shape[1:])}; wanted: "
                f"{list(self.source_shape[1:])}"
            )
        if self.axes is not None:
            values = np.transpose(values, np.argsort(self.axes))
        rows = values.reshape(len(values), *self.shape[1:])
        return np.ascontiguousarray(rows, dtype=np.float32)

    def restored(self, stored: Array) -> Array:
        """Return stored values, one row per sample, as the source has them."""
        values = stored.reshape(len(stored), *self.shape[1:]).astype(np.float32)
        if self.axes is not None:
            return np.transpose(values, self.axes)
        return values.reshape(len(values), *self.source_shape[1:])


@dataclass(frozen=True, slots=True)
class Hls4mlFolder:
    """What a folder for hls4ml holds.

    Attributes:
        path: The folder.
        model: The model that hls4ml reads.
        inputs: The source's inputs, in order.
        outputs: Its outputs, in order.
        tensors: Which tensor of the model holds which value of the source.
        config: The whole config.
    """

    path: Path
    model: Model
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    tensors: tuple[StoredTensor, ...]
    config: Mapping[str, Any]

    def layers(self) -> Mapping[str, Mapping[str, Any]]:
        """Return the config's entries of single layers, by name."""
        found: Mapping[str, Mapping[str, Any]] = self.config["HLSConfig"].get("LayerName", {})
        return found


def read_folder(path: str | Path) -> Hls4mlFolder:
    """Return what a folder holds.

    Raises:
        SourceError: A file of it is missing, cannot be read, or is not what was written.
    """
    folder = Path(path)
    try:
        told = json.loads((folder / REPORT).read_text(encoding="utf-8"))
        inputs, outputs = (tuple(map(_port, told[kind])) for kind in ("inputs", "outputs"))
        tensors = from_text((folder / TENSORS).read_text(encoding="utf-8"))
        config = read_config(folder / CONFIG)
    except (OSError, ValueError, KeyError, TypeError) as error:
        words = " ".join(str(error).split())
        raise SourceError(
            f"'{folder}' is no whole folder for hls4ml ({words}); write it again with "
            "--to hls4ml"
        ) from error
    model = read_model(folder / MODEL)
    return Hls4mlFolder(folder, model, inputs, outputs, tensors, config)


def read_model(path: Path) -> Model:
    """Return the model of a folder, exactly as it lies there.

    Raises:
        SourceError: It cannot be read.
    """
    try:
        return onnx_ir.load(path)
    except Exception as error:  # the parser raises its own exception types
        raise SourceError(f"'{path}' cannot be read: {error}") from error


def read_config(path: Path) -> dict[str, Any]:
    """Return the config of a project of hls4ml.

    Raises:
        SourceError: It cannot be read, or is no such config.
    """
    try:
        config = from_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(f"'{path}' cannot be read: {error}") from error
    if not isinstance(config.get("HLSConfig"), Mapping):
        raise SourceError(f"'{path}' is no config of hls4ml: it has no HLSConfig")
    return config


def _port(entry: Mapping[str, Any]) -> Port:
    axes = entry["axes"]
    return Port(
        str(entry["source"]),
        tuple(map(int, entry["source_shape"])),
        str(entry["name"]),
        tuple(map(int, entry["shape"])),
        None if axes is None else tuple(map(int, axes)),
        int(entry.get("result", 0)),
    )


def has_own_script(folder: Path) -> bool:
    """Return whether a folder's script is the one that this version writes."""
    try:
        return (folder / SCRIPT).read_bytes() == own_script()
    except OSError:
        return False
