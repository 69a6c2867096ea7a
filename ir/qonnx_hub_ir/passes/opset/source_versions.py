"""The versions that a model's file was written in, for those who write it again."""

from __future__ import annotations

from dataclasses import dataclass

from onnx_ir import Model

_KEY = "qonnx_hub.source_versions"


@dataclass(frozen=True, slots=True)
class SourceVersions:
    """What an ONNX file said of itself before its graph was raised.

    Attributes:
        opset: Standard opset.
        ir: ONNX IR version.
        producer: Name of the tool that wrote it.
    """

    opset: int
    ir: int
    producer: str = ""


def remember_versions(model: Model) -> None:
    """Keep the versions of a model as they are now, unless older ones are known already.

    They stay with the graph through passes and copies, and are never written to a file.
    """
    opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx"))
    if opset is not None:
        producer = model.producer_name or ""
        model.graph.meta.setdefault(_KEY, SourceVersions(opset, model.ir_version, producer))


def source_versions(model: Model) -> SourceVersions | None:
    """Return the versions of the file that a model came from; ``None`` if there was none."""
    found = model.graph.meta.get(_KEY)
    return found if isinstance(found, SourceVersions) else None
