"""Weights in other files: which files a model may name, and how links to them are read.

A file is read where it lies, all links followed, in the folder of the model's file, in the
folder of what that file itself is a link to, or in a folder that the user allows. Caches and
stores that keep each file once are laid out like that. Anything else could be any file of the
user's, named by whoever wrote the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import onnx
import onnx_ir
from google.protobuf.message import DecodeError
from onnx import GraphProto, TensorProto
from onnx_ir import ExternalTensor, Model

from qonnx_hub_ir.errors import SourceError, UsageError, words_of
from qonnx_hub_ir.graph.subgraphs import every_graph
from qonnx_hub_ir.limits import require_memory

_allowed: ContextVar[tuple[Path, ...]] = ContextVar("_allowed", default=())


@contextmanager
def allowed_folders(*folders: str | Path) -> Iterator[None]:
    """Let models read weights below further folders, while this is entered.

    Args:
        *folders: Folders, of which all is trusted.

    Raises:
        UsageError: One is no folder.

    Example:
        >>> with allowed_folders("/data/blobs"):
        ...     model = qh.load("model.onnx")
    """
    for folder in folders:
        if not Path(folder).is_dir():
            raise UsageError(f"'{folder}' is no folder from which weights could be read")
    token = _allowed.set((*_allowed.get(), *(Path(f).resolve() for f in folders)))
    try:
        yield
    finally:
        _allowed.reset(token)


def settle_external_data(model: Model, name: str, file: Path | None) -> None:
    """Let every tensor of another file read it, and nothing else.

    Args:
        model: What was read, changed in place.
        name: How messages call the source.
        file: The model's file; ``None`` where it came without one: its paths are its owner's.

    Raises:
        SourceError: A file is missing, cut off, no regular file, or lies where it may not; all
            of them together are larger than may be.
    """
    taken = 0
    for graph in every_graph(model):
        for value in graph.initializers.values():
            if isinstance(value.const_value, ExternalTensor):
                taken += value.const_value.nbytes
                require_memory(taken, f"{name}, with its data files,")
                value.const_value = _settled(value.const_value, name, str(value.name), file)
        for node in graph:
            for key, attribute in list(node.attributes.items()):
                if attribute.is_ref() or not isinstance(attribute.value, ExternalTensor):
                    continue
                place = str(node.name or node.outputs[0].name)
                tensor = _settled(attribute.value, name, place, file)
                node.attributes[key] = onnx_ir.AttrTensor(key, tensor)


def _settled(tensor: ExternalTensor, name: str, place: str, file: Path | None) -> Any:
    """Return a tensor whose file may be read, looked at without reading a byte of it."""
    path = Path(tensor.path)
    if not path.exists():
        raise SourceError(f"{name}: data file '{path}' of '{place}' is missing")
    if file is not None:
        tensor = _within(tensor, name, place, file)
    if path.stat().st_size < (tensor.offset or 0) + (tensor.length or 0):
        raise SourceError(f"{name}: data file '{path}' is cut off before '{place}'")
    try:
        tensor.numpy()  # a map of the file: no byte is read
        tensor.release()
    except (ValueError, OSError) as error:
        raise SourceError(
            f"{name}: data file '{path}' of '{place}': {words_of(error)}"
        ) from error
    return tensor


def _within(tensor: ExternalTensor, name: str, place: str, file: Path) -> ExternalTensor:
    real = _real_path(Path(tensor.path), name, place, file)
    location = Path(tensor.location)
    is_plain = not location.is_absolute() and real == file.parent.resolve() / location
    if is_plain and real.stat().st_nlink == 1:
        return tensor
    # Without a base folder the library follows the path as it is: it was looked at above.
    found = ExternalTensor(
        str(real),
        tensor.offset,
        tensor.length,
        tensor.dtype,
        shape=tensor.shape,
        name=tensor.name,
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
    )
    found.base_dir = ""
    return found


def _real_path(path: Path, name: str, place: str, file: Path) -> Path:
    """Return where a data file of a model's file lies, links followed, if it may be read."""
    real = path.resolve()
    if not real.is_file():
        raise SourceError(
            f"{name}: data file '{path}' of '{place}' is no regular file, and is not read"
        )
    folders = (file.parent.resolve(), file.resolve().parent, *_allowed.get())
    if not any(real.is_relative_to(folder) for folder in folders):
        raise SourceError(
            f"{name}: data file '{path}' of '{place}' is '{real}', outside of the model's "
            f"folder, and is not read; trust it with --allow-external '{real.parent}' "
            "(external_data.allowed_folders in Python)"
        )
    return real


def whole_message(path: str | Path) -> onnx.ModelProto:
    """Return a file as one message, weights of other files that it may name read in.

    Raises:
        SourceError: A data file may not be read.
        OSError: A file cannot be read.
    """
    file = Path(path)
    proto = onnx.load(file, load_external_data=False)
    for tensor in _outside(proto.graph):
        entries = {entry.key: entry.value for entry in tensor.external_data}
        data = file.parent / entries["location"]
        with _real_path(data, f"'{path}'", tensor.name, file).open("rb") as stream:
            stream.seek(int(entries.get("offset", 0)))
            tensor.raw_data = stream.read(int(entries.get("length", -1)))
        tensor.data_location = TensorProto.DEFAULT
        tensor.ClearField("external_data")
    return proto


def data_files(path: str | Path) -> list[Path]:
    """Return the files of weights that an ONNX file names, wherever they are.

    What is no ONNX file names none.
    """
    file = Path(path)
    try:
        if not file.is_file():
            return []
        proto = onnx.load(file, format="protobuf", load_external_data=False)
    except (OSError, ValueError, DecodeError):
        return []
    entries = (entry for tensor in _outside(proto.graph) for entry in tensor.external_data)
    names = {entry.value for entry in entries if entry.key == "location"}
    return [file.parent / name for name in sorted(names)]


def _outside(graph: GraphProto) -> Iterator[TensorProto]:
    tensors = list(graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            tensors += [attribute.t, *attribute.tensors]
            for inner in (attribute.g, *attribute.graphs):
                yield from _outside(inner)
    yield from (t for t in tensors if t.data_location == TensorProto.EXTERNAL)
