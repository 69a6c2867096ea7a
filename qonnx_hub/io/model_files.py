"""Models are written whole or not at all, in one file or with their weights beside it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx_ir
from onnx_ir import Model

from qonnx_hub.io.atomic import free_file, remove, replacing, replacing_all, write_folder
from qonnx_hub_adapters.external_data import data_files
from qonnx_hub_adapters.protocol import Artifact
from qonnx_hub_ir.errors import UsageError

_ONE_FILE_BYTES = (1 << 31) - (1 << 20)
"""A protobuf message ends at 2 GiB."""


_SMALL = 256
"""Bytes up to which a tensor stays in the file when the weights lie beside it."""


def write_model(
    model: Model,
    path: str | Path,
    *,
    external: bool = False,
    message: onnx.ModelProto | None = None,
) -> None:
    """Write a model; the same model gives the same bytes.

    Args:
        model: The model.
        path: The file. Weights that go beside it are in ``path + ".data"``, or with a number
            before the suffix while that name is taken.
        external: Put the weights beside the file although they would fit in it.
        message: The model as one message, where it was made before.

    Raises:
        UsageError: The path cannot be written, or is a file that the model still reads from,
            as may be its data file.
    """
    messages = {} if message is None else {path: message}
    write_models({path: model}, external=external, messages=messages)


def write_models(
    models: Mapping[str | Path, Model],
    *,
    external: bool = False,
    messages: Mapping[str | Path, onnx.ModelProto] | None = None,
) -> None:
    """Write models that belong together: all of them are there, or none; see `write_model`.

    Until the graphs take their places, the old ones and their weights are what there is.

    Args:
        models: Path -> model.
        external: Put the weights beside the files although they would fit in them.
        messages: Path -> the model as one message, where it was made before.

    Raises:
        UsageError: As in :func:`write_model`.
    """
    targets = [Path(os.path.realpath(path)) for path in models]
    old = [data for target in targets for data in _data_files(target)]
    tensors = [tensor for model in models.values() for tensor in _tensors(model)]
    outside = [tensor for tensor in tensors if isinstance(tensor, onnx_ir.ExternalTensor)]
    read = {Path(tensor.path).resolve() for tensor in outside}
    for path in (*targets, *(data for data, _ in old)):
        if path.resolve() in read:
            raise UsageError(
                f"'{path}' holds weights that the model still reads; name another file"
            )
    made: list[Path] = []
    try:
        with replacing_all(list(models)) as temporaries:
            parts = zip(models.items(), temporaries, targets, strict=True)
            for (name, model), temporary, target in parts:
                if external or not fits_one_message(model):
                    made.append(free_file(target))
                    _write_beside(model, temporary, made[-1])
                    continue
                message = (messages or {}).get(name) or in_one_message(model)
                temporary.write_bytes(message.SerializeToString(deterministic=True))
    except BaseException:
        remove(made)
        raise
    for data, known in old:
        # Another process may have written since, under the same name.
        with contextlib.suppress(OSError):
            if _identity(data) == known:
                data.unlink()


def _write_beside(model: Model, file: Path, data: Path) -> None:
    """Write a model's graph and its weights into two files."""
    # What is too small to lie outside is read in first: the library would close the files that
    # others may still read from.
    copy = _with_weights_read_in(model, _SMALL)
    onnx_ir.save(
        copy,
        file,
        format="protobuf",
        external_data=data.name,
        size_threshold_bytes=_SMALL,
    )
    if not data.stat().st_size:  # no tensor was large enough
        data.unlink()
        return
    # What names the weights must not outlast them where the power fails.
    with data.open("rb") as stream:
        os.fsync(stream.fileno())


def _identity(path: Path) -> tuple[int, int]:
    """Return what tells a file from a later one at its place."""
    found = path.stat()
    return found.st_ino, found.st_mtime_ns


def _data_files(target: Path) -> list[tuple[Path, tuple[int, int]]]:
    """Return the files of weights that an earlier file of this place reads and nothing else.

    Those are the ones named after it. Each comes with its identity.
    """
    own = re.compile(re.escape(target.name) + r"(\.\d+)?\.data")
    found = [p for p in data_files(target) if p.parent == target.parent]
    found = [p for p in found if own.fullmatch(p.name)]
    return [(data, _identity(data)) for data in found if data.is_file()]


def fits_one_message(model: Model) -> bool:
    """Return whether a message can hold the model with its weights."""
    return weight_bytes(model) <= _ONE_FILE_BYTES


def weight_bytes(model: Model) -> int:
    """Return how many bytes the model's initializers take together."""
    return sum(tensor.nbytes for tensor in _tensors(model))


def _tensors(model: Model) -> list[onnx_ir.TensorProtocol]:
    values = model.graph.initializers.values()
    return [value.const_value for value in values if value.const_value is not None]


def write_artifact(
    artifact: Artifact,
    path: str | Path,
    folder: str = "",
    *,
    external: bool = False,
    message: onnx.ModelProto | None = None,
) -> None:
    """Write what an exporter made: a file, or a folder, whole or not at all.

    Args:
        artifact: The model, and the files beside it in a folder.
        path: The file or folder.
        folder: Name of the model in the folder; empty for forms that are one file.
        external: Put the weights of a single file beside it although they would fit in it.
        message: The model as one message, where it was made before.

    Raises:
        UsageError: The path cannot be written; a folder that others filled.
    """
    if artifact.content:
        with replacing(Path(path)) as temporary:
            temporary.write_bytes(artifact.content)
        return
    if not folder:
        write_model(artifact.model, path, external=external, message=message)
        return
    message = in_one_message(artifact.model) if message is None else message
    written = message.SerializeToString(deterministic=True)
    write_folder(path, {folder: written, **artifact.files})


def has_external_data(model: Model) -> bool:
    """Return whether the model keeps weights in files beside it."""
    return any(isinstance(tensor, onnx_ir.ExternalTensor) for tensor in _tensors(model))


def in_one_message(model: Model) -> onnx.ModelProto:
    """Return the model as one message, with weights that lie in other files read in."""
    inside = _with_weights_read_in(model) if has_external_data(model) else model
    return onnx_ir.to_proto(inside)


def _with_weights_read_in(model: Model, largest: float = float("inf")) -> Model:
    """Return a copy with the weights of other files, up to ``largest`` bytes, in memory."""
    copy = model.clone()
    for value in copy.graph.initializers.values():
        tensor = value.const_value
        if isinstance(tensor, onnx_ir.ExternalTensor) and tensor.nbytes <= largest:
            array = tensor.numpy().copy()
            value.const_value = onnx_ir.tensor(array, dtype=tensor.dtype, name=value.name)
    return copy
