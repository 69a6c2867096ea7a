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
        outputs: Name of each output -> its sizes; ``None`` where the file gave none.
    """

    opset: int
    ir: int
    outputs: Mapping[str, Shape | None] = field(default_factory=dict)


def remember_versions(model: Model) -> None:
    """Keep what the model says of itself now, unless older words are known already.

    They stay with the graph through passes and copies, and are never written to a file.
    """
    opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx"))
    if opset is not None:
        outputs = {
            str(value.name): None if value.shape is None else Shape(value.shape.dims)
            for value in model.graph.outputs
        }
        found = SourceVersions(opset, model.ir_version, outputs)
        model.graph.meta.setdefault(_KEY, found)


def source_versions(model: Model) -> SourceVersions | None:
    """Return what the file said that a model came from; ``None`` if there was none."""
    found = model.graph.meta.get(_KEY)
    return found if isinstance(found, SourceVersions) else None


def restore_sizes(model: Model) -> None:
    """Put the source's sizes of outputs back where inference only gave a name to them."""
    source = source_versions(model)
    if source is None:
        return
    for value in model.graph.outputs:
        old, new = source.outputs.get(str(value.name), value.shape), value.shape
        if old is not None and new is not None and len(old) == len(new):
            pairs = zip(old.dims, new.dims, strict=True)
            value.shape = Shape([a if _says_less(b, a) else b for a, b in pairs])


def _says_less(inferred: int | SymbolicDim, given: int | SymbolicDim) -> bool:
    if not isinstance(inferred, SymbolicDim):
        return False
    unnamed = isinstance(given, SymbolicDim) and given.value is None
    return unnamed or str(inferred.value or _MADE_UP).startswith(_MADE_UP)
