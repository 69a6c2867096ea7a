"""Models are written whole or not at all, in one file or with their weights beside it."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path

import onnx
import onnx_ir
from google.protobuf.message import DecodeError
from onnx_ir import Model

from qonnx_hub.io.atomic import replacing, write_folder
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
        UsageError: The path cannot be written, or its data file is one that the model still
            reads from.
    """
    target = Path(path)
    if not external and fits_one_message(model):
        with replacing(target) as temporary:
            message = onnx_ir.to_proto(model) if message is None else message
            temporary.write_bytes(message.SerializeToString(deterministic=True))
        return
    target = Path(os.path.realpath(target))
    old = _data_files(target)
    outside = [t for t in _tensors(model) if isinstance(t, onnx_ir.ExternalTensor)]
    read = {Path(tensor.path).resolve() for tensor in outside}
    for data in old:
        if data.resolve() in read:
            raise UsageError(
                f"'{data}' holds weights that the model still reads; name another file"
            )
    # What is too small to lie outside is read in first: the library would close the files that
    # others may still read from.
    copy = _with_weights_read_in(model, _SMALL)
    data = _free_data_file(target)
    try:
        # Until the graph takes its place, the old one and its weights are what there is.
        with replacing(target) as temporary:
            onnx_ir.save(
                copy,
                temporary,
                format="protobuf",
                external_data=data.name,
                size_threshold_bytes=_SMALL,
            )
    except BaseException:
        data.unlink(missing_ok=True)
        raise
    for one in old:
        one.unlink(missing_ok=True)


def _free_data_file(target: Path) -> Path:
    """Return the first of ``NAME.data``, ``NAME.1.data`` ... that is not there."""
    names = (f"{target.name}{f'.{k}' if k else ''}.data" for k in itertools.count())
    return next(p for p in map(target.with_name, names) if not os.path.lexists(p))


def _data_files(target: Path) -> list[Path]:
    """Return the files of weights that an earlier file of this place reads and nothing else.

    Those are the ones named after it.
    """
    try:
        old = onnx.load(target, load_external_data=False)
    except (OSError, DecodeError):
        return []
    entries = (entry for tensor in old.graph.initializer for entry in tensor.external_data)
    names = {entry.value for entry in entries if entry.key == "location"}
    own = re.compile(re.escape(target.name) + r"(\.\d+)?\.data")
    return [target.with_name(name) for name in sorted(names) if own.fullmatch(name)]


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
