"""The containers of Keras: .h5, .keras, architecture .json beside a weights file.

What is in a file is read as data: configuration (JSON) and arrays. Nothing in it is executed.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qonnx_hub_adapters.dependencies import one_line
from qonnx_hub_adapters.keras_files.variables import LegacyStore, Store, TreeStore
from qonnx_hub_ir.errors import SourceError
from qonnx_hub_ir.limits import require_memory

HDF5 = b"\x89HDF\r\n\x1a\n"
_LARGEST_CONFIG = 1 << 28
_LARGEST_WEIGHTS = 1 << 33
"""Bytes after decompression: far above any model, far below what fills a machine."""

_SMALL, _MOST_PACKED = 1 << 26, 100
"""Bytes that may be unpacked from anything, and how often more than packed the others have."""

_WEIGHTS_HINT = "give its weights with --weights w.h5 (weights='w.h5' in Python)"


@dataclass(frozen=True, slots=True)
class KerasFile:
    """What a file says.

    Attributes:
        config: The model's configuration, as its JSON has it.
        generation: Of the Keras that wrote it: 2 or 3.
        version: That Keras' version; empty where the file does not tell.
        weights: Its arrays.
    """

    config: Mapping[str, Any]
    generation: int
    version: str
    weights: Store


def open_container(source: str, weights: str | None, held: ExitStack) -> KerasFile:
    """Return what a file holds; arrays are read when they are asked for.

    Args:
        source: Path of the model's file.
        weights: Path of the file with its weights, where they are apart.
        held: Closes what is opened here: a file that stays open cannot be saved again.

    Raises:
        SourceError: The file does not exist, is cut off, or holds no model.
    """
    path = Path(source)
    if not path.is_file():
        raise SourceError(f"'{path}' does not exist, or is no file")
    with path.open("rb") as file:
        head = file.read(8)
    if not head:
        raise SourceError(f"'{path}' is empty")
    if path.suffix.lower() == ".json":
        return _architecture(path, weights, held)
    if head.startswith(b"PK"):
        return _archive(path, weights, held)
    if head == HDF5:
        return _hdf5(path, weights, held)
    raise SourceError(f"'{path}' is no Keras file: neither HDF5 nor a zip archive, or cut off")


def _config_of(text: str | bytes, path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SourceError(
            f"'{path}': its configuration is not JSON: {one_line(error)}"
        ) from error
    if not isinstance(found, dict) or "class_name" not in found:
        raise SourceError(f"'{path}' holds no model: its configuration names no class")
    return found


def _architecture(path: Path, weights: str | None, held: ExitStack) -> KerasFile:
    if weights is None:
        raise SourceError(f"'{path}' holds an architecture only: {_WEIGHTS_HINT}")
    if path.stat().st_size > _LARGEST_CONFIG:
        raise SourceError(f"'{path}' is too large for a configuration")
    config = _config_of(path.read_bytes(), path)
    version = str(config.get("keras_version", ""))
    generation = 3 if "registered_name" in config or version.startswith("3") else 2
    return KerasFile(config, generation, version, open_weights(weights, held))


def _archive(path: Path, weights: str | None, held: ExitStack) -> KerasFile:
    try:
        with zipfile.ZipFile(path) as archive:
            config = _config_of(_member(archive, "config.json", _LARGEST_CONFIG, path), path)
            metadata = json.loads(_member(archive, "metadata.json", _LARGEST_CONFIG, path))
            if weights is not None:
                store = open_weights(weights, held)
            else:
                data = _member(archive, "model.weights.h5", _LARGEST_WEIGHTS, path)
                store = _store(io.BytesIO(data), f"{path}: model.weights.h5", held)
    except (zipfile.BadZipFile, zlib.error, ValueError, OSError, RuntimeError) as error:
        raise SourceError(
            f"'{path}' is no .keras file, or it is cut off: {one_line(error)}"
        ) from error
    version = str(metadata.get("keras_version", "")) if isinstance(metadata, dict) else ""
    return KerasFile(config, 2 if version.startswith("2") else 3, version, store)


def _member(archive: zipfile.ZipFile, name: str, most: int, path: Path) -> bytes:
    try:
        info = archive.getinfo(name)
    except KeyError as error:
        raise SourceError(f"'{path}' has no {name}: it is no .keras file") from error
    if info.file_size > most:
        raise SourceError(f"'{path}': {name} takes {info.file_size} bytes unpacked")
    require_memory(info.file_size, f"'{path}': {name}")
    if info.file_size > max(_SMALL, _MOST_PACKED * info.compress_size):
        raise SourceError(
            f"'{path}': {name} unpacks from {info.compress_size} to {info.file_size} bytes, "
            "which no weights do"
        )
    with archive.open(info) as file:
        return file.read(most)


def _hdf5(path: Path, weights: str | None, held: ExitStack) -> KerasFile:
    file = _opened(path, str(path), held)
    text = _joined(file.attrs, "model_config")
    if text is None:
        raise SourceError(
            f"'{path}' holds weights only: convert the architecture .json and {_WEIGHTS_HINT}"
        )
    config = _config_of(text, path)
    version = _text(file.attrs.get("keras_version", ""))
    if weights is not None:
        store = open_weights(weights, held)
    elif "model_weights" in file:
        store = LegacyStore(file["model_weights"], str(path))
    else:
        raise SourceError(f"'{path}' has no group 'model_weights'")
    return KerasFile(config, 3 if version.startswith("3") else 2, version, store)


def open_weights(weights: str, held: ExitStack) -> Store:
    """Return the arrays of a weights file, in either layout.

    Raises:
        SourceError: It does not exist, or is no weights file.
    """
    path = Path(weights)
    if not path.is_file():
        raise SourceError(f"weights file '{path}' does not exist")
    with path.open("rb") as file:
        head = file.read(8)
    if head.startswith(b"PK"):
        return open_container(weights, None, held).weights
    return _store(path, str(path), held)


def _store(source: Any, label: str, held: ExitStack) -> Store:
    file = _opened(source, label, held)
    # By what is in it and not by its suffix, as Keras does.
    if "layer_names" in file.attrs or "layer_names0" in file.attrs:
        return LegacyStore(file, label)
    if "model_weights" in file:
        return LegacyStore(file["model_weights"], label)
    if "layers" in file or "_layer_checkpoint_dependencies" in file or "vars" in file:
        return TreeStore(file, label)
    raise SourceError(f"'{label}' holds no weights of Keras")


def _opened(source: Any, label: str, held: ExitStack) -> Any:
    import h5py  # takes 0.1 s, which nobody else should wait for

    try:
        return held.enter_context(h5py.File(source, "r"))
    except OSError as error:
        raise SourceError(f"'{label}' is no HDF5 file, or it is cut off") from error


def _joined(attributes: Any, name: str) -> str | None:
    """Return a text that HDF5 may hold in several attributes: name, or name0, name1 ..."""
    if name in attributes:
        return _text(attributes[name])
    parts: list[str] = []
    while f"{name}{len(parts)}" in attributes:
        parts.append(_text(attributes[f"{name}{len(parts)}"]))
    return "".join(parts) or None


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
