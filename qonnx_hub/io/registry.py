"""Which adapters there are: our own, and those that other distributions register."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from onnx_ir import Model

from qonnx_hub.io.python_sources import resolve
from qonnx_hub_adapters.adapter_options import refuse_unknown_options
from qonnx_hub_adapters.hls4ml.file_names import MODEL, is_folder
from qonnx_hub_adapters.protocol import Exporter, Importer, ImportOptions, Prepares
from qonnx_hub_ir.choices import not_among
from qonnx_hub_ir.errors import (
    AdapterConflictError,
    UnknownAdapterError,
    UnknownNameError,
    UsageError,
)

IMPORTERS: Mapping[str, str] = {
    "tflite": "qonnx_hub_adapters.tflite.importer:TfliteImporter",
    "hawq": "qonnx_hub_adapters.hawq.importer:HawqImporter",
    "brevitas": "qonnx_hub_adapters.brevitas.importer:BrevitasImporter",
    "pytorch": "qonnx_hub_adapters.pytorch.importer:PyTorchImporter",
    "qlinear": "qonnx_hub_adapters.qlinear.importer:QlinearImporter",
    "qcdq": "qonnx_hub_adapters.qcdq.importer:QcdqImporter",
    "qonnx": "qonnx_hub_adapters.qonnx.importer:QonnxImporter",
    "keras": "qonnx_hub_adapters.keras_files.importer:KerasFileImporter",
    "qkeras": "qonnx_hub_adapters.qkeras.importer:QkerasImporter",
}
"""Name -> class. The order is the order in which sources are offered."""

EXPORTERS: Mapping[str, str] = {
    "qonnx": "qonnx_hub_adapters.qonnx.exporter:QonnxExporter",
    "qcdq": "qonnx_hub_adapters.qcdq.exporter:QcdqExporter",
    "qlinear": "qonnx_hub_adapters.qlinear.exporter:QlinearExporter",
    "hls4ml": "qonnx_hub_adapters.hls4ml.exporter:Hls4mlExporter",
    "tflite": "qonnx_hub_adapters.tflite.exporter:TfliteExporter",
}

LINT_TARGETS: Mapping[str, str] = {
    "hls4ml": "qonnx_hub_adapters.lint.hls4ml:TARGET",
    "finn": "qonnx_hub_adapters.lint.finn:TARGET",
    "qonnx": "qonnx_hub_adapters.lint.qonnx:TARGET",
    "ort": "qonnx_hub_adapters.lint.onnxruntime:TARGET",
    "tflite": "qonnx_hub_adapters.lint.tflite:TARGET",
}
"""Name -> table of rules, a ``LintTarget``."""

HINTS: Mapping[str, str] = {
    "finn": "FINN reads QONNX: --to qonnx --profile finn.",
    "onnx": "for standard operators: --to qcdq.",
    "qdq": "Q/DQ pairs without Clip: --to qcdq --encoding qdq.",
    "qoperator": "operators on integers: --to qlinear.",
    "vivado": "the project for it: --to hls4ml.",
    "vitis": "the project for it: --to hls4ml.",
}
"""Name that people try for a form to write -> what to ask for instead."""

IMPORTER_GROUP = "qonnx_hub.importers"
EXPORTER_GROUP = "qonnx_hub.exporters"
LINT_GROUP = "qonnx_hub.lint"


@dataclass(frozen=True, slots=True)
class Registry:
    """The adapters of one kind, by name; classes are imported when asked for.

    Attributes:
        kind: "importer", "exporter" or "lint target", for messages.
        locations: Name -> "module:class".
    """

    kind: str
    locations: Mapping[str, str]

    def names(self) -> list[str]:
        """Return the names in the order in which sources are offered."""
        return list(self.locations)

    def get(self, name: str) -> Any:
        """Return a new adapter of that name.

        Raises:
            UnknownNameError: There is none.
        """
        return self.load(name)()

    def load(self, name: str) -> Any:
        """Return what is registered under that name.

        Raises:
            UnknownNameError: There is none.
        """
        location = self.locations.get(name)
        if location is None:
            words = f"no {self.kind} is called '{name}'"
            hints = HINTS if self.kind == "exporter" else None
            raise UnknownNameError(not_among(words, name, self.locations, hints))
        module, _, attribute = location.partition(":")
        return getattr(importlib.import_module(module), attribute)


def importers() -> Registry:
    """Return all importers.

    Raises:
        AdapterConflictError: Another distribution claims a name that is taken.
    """
    return Registry("importer", merged("importers", IMPORTERS, IMPORTER_GROUP))


def exporters() -> Registry:
    """Return all exporters.

    Raises:
        AdapterConflictError: Another distribution claims a name that is taken.
    """
    return Registry("exporter", merged("exporters", EXPORTERS, EXPORTER_GROUP))


def lint_targets() -> Registry:
    """Return all tools that models can be held against.

    Raises:
        AdapterConflictError: Another distribution claims a name that is taken.
    """
    return Registry("lint target", merged("lint targets", LINT_TARGETS, LINT_GROUP))


def merged(kinds: str, own: Mapping[str, str], group: str) -> dict[str, str]:
    """Return name -> "module:attribute" of our own, then of what a group's entry points name.

    Raises:
        AdapterConflictError: Two have one name.
    """
    found = dict(own)
    for point in sorted(entry_points(group=group), key=lambda p: (p.name, p.value)):
        if found.setdefault(point.name, point.value) != point.value:
            raise AdapterConflictError(
                f"two {kinds} are called '{point.name}': {found[point.name]} and "
                f"{point.value}; uninstall one of the distributions"
            )
    return found


def find_importer(source: object, name: str | None = None) -> Importer:
    """Return the importer of that name, or the first that accepts the source.

    Raises:
        UnknownAdapterError: No such name, or nobody accepts the source.
    """
    registry = importers()
    if name is not None:
        importer: Importer = registry.get(name)
        return importer
    for candidate in registry.names():
        importer = registry.get(candidate)
        if importer.accepts(source):
            return importer
    what = f"'{source}'" if isinstance(source, str) else f"a {type(source).__name__}"
    raise UnknownAdapterError(
        f"no importer reads {what}; name the format (known: {', '.join(registry.names())})"
    )


def open_source(source: Any, name: str | None, options: ImportOptions) -> tuple[Importer, Any]:
    """Return who reads a source, and the source with all that it needs.

    Of a folder for hls4ml, that is the model in it.

    Raises:
        UnknownAdapterError: As :func:`find_importer`.
        UsageError: Options that this importer does not have.
        SourceError: Something beside the source is missing, or does not fit.
    """
    source = resolve(str(source) if isinstance(source, Path) else source)
    if is_folder(source):
        source = str(Path(source) / MODEL)
    importer = find_importer(source, name)
    info = importer.info
    refuse_unknown_options(info.name, options, info.option_names)
    if options.weights is not None and not info.weights:
        raise UsageError(
            f"adapter '{info.name}' takes no weights of their own: what it reads holds them; "
            f"leave out '{options.weights}'"
        )
    if isinstance(importer, Prepares):
        source = importer.prepare(source, options)
    return importer, source


def read_model(source: Any, name: str | None = None) -> Model:
    """Return a source as IR; an IR model is returned as it is.

    Raises:
        UnknownAdapterError: As :func:`find_importer`.
        SourceError: It cannot be read.
    """
    if isinstance(source, Model):
        return source
    importer, source = open_source(source, name, ImportOptions())
    return importer.load(source, ImportOptions())


def find_exporter(name: str) -> Exporter:
    """Return the exporter of that name.

    Raises:
        UnknownAdapterError: There is none.
    """
    exporter: Exporter = exporters().get(name)
    return exporter
