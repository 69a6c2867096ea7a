"""What a model's file said of itself, for those who write it again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from onnx_ir import Model, Shape, SymbolicDim

_KEY = "qonnx_hub.source_versions"

_MADE_UP = "unk__"
"""How names of sizes begin that ONNX's inference gives where it knows none."""


@dataclass(frozen=True, slots=True)
class SourceVersions:
    """What an ONNX file said of itself before its graph was raised.

    Attributes:
        opset: Standard opset.
        ir: ONNX IR version.
        sizes: Name of each input and output -> its sizes; ``None`` where the file gave none.
    """

    opset: int
    ir: int
    sizes: Mapping[str, Shape | None] = field(default_factory=dict)


def remember_versions(model: Model) -> None:
    """Keep what the model says of itself now, unless older words are known already.

    They stay with the graph through passes and copies, and are never written to a file.
    """
    opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx"))
    if opset is not None:
        sizes = {
            str(value.name): None if value.shape is None else Shape(value.shape.dims)
            for value in (*model.graph.inputs, *model.graph.outputs)
        }
        found = SourceVersions(opset, model.ir_version, sizes)
        model.graph.meta.setdefault(_KEY, found)


def source_versions(model: Model) -> SourceVersions | None:
    """Return what the file said that a model came from; ``None`` if there was none."""
    found = model.graph.meta.get(_KEY)
    return found if isinstance(found, SourceVersions) else None


def restore_sizes(model: Model) -> None:
    """Put the source's sizes of inputs and outputs back where nothing more is known now.

    That is where inference only gave a name to a size, and where the file gave an open size
    by a number that is none. A shape that the file did not give is one that inference knows.
    """
    source = source_versions(model)
    if source is None:
        return
    for value in (*model.graph.inputs, *model.graph.outputs):
        old, new = source.sizes.get(str(value.name), value.shape), value.shape
        if new is None:
            continue
        if old is None and any(map(_is_made_up, new.dims)):
            value.shape = None
        elif old is not None and len(old) == len(new):
            pairs = zip(old.dims, new.dims, strict=True)
            value.shape = Shape([_size(given, now) for given, now in pairs])


def _size(given: int | SymbolicDim, now: int | SymbolicDim) -> int | SymbolicDim | None:
    """Return what to write of a size that the file gave and the one known now."""
    if not isinstance(now, SymbolicDim):
        return now
    if isinstance(given, SymbolicDim):
        keeps = given.value is None or now.value is None or _is_made_up(now)
        return given if keeps else now
    if now.value is not None and not _is_made_up(now):
        return now
    return given if given < 0 else None  # runtimes take 0 at its word


def _is_made_up(size: int | SymbolicDim) -> bool:
    return isinstance(size, SymbolicDim) and str(size.value).startswith(_MADE_UP)
