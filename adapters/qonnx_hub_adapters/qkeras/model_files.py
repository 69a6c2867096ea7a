"""Files of Keras models: .h5, .keras, architecture .json beside weights, SavedModel folders.

Loading needs qkeras' classes under their names, and these repairs:

- the folded layers of qkeras-v3 refuse arguments that they wrote themselves;
- QActivation of qkeras 0.9.0 cannot read back a quantizer *object* from its own config;
- QDenseBatchnorm does not exist in qkeras 0.9.0;
- ``.keras`` files written by Keras 3 spell configs that Keras 2 does not read
  (:mod:`~qonnx_hub_adapters.qkeras.keras3_files`).
"""

from __future__ import annotations

import contextlib
import importlib
import json
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qonnx_hub_adapters.dependencies import require
from qonnx_hub_adapters.protocol import ImportOptions
from qonnx_hub_adapters.qkeras.framework import Framework, framework_for_files, keras_base
from qonnx_hub_adapters.qkeras.keras3_files import read_keras_3
from qonnx_hub_adapters.qkeras.layers import dense_batchnorm
from qonnx_hub_ir.errors import SourceError

Objects = dict[str, Any]
"""Classes by the names that files use."""

SUFFIXES = (".h5", ".hdf5", ".keras")
_WEIGHTS_HINT = "give its weights with --weights w.h5 (weights='w.h5' in Python)"
_SNIFFED = 1 << 16
_OTHER_NAMES = ("quantized_hswish", "quantized_linear")
"""Quantizers that qkeras' own table of objects leaves out."""


def is_keras_file(source: object) -> bool:
    """Return whether the source is the path of a Keras model. Reads the head of .json only."""
    if not isinstance(source, (str, Path)):
        return False
    path = Path(source)
    if path.suffix.lower() in SUFFIXES:
        return True
    if path.suffix.lower() == ".json":
        return _is_architecture(path)
    return (path / "saved_model.pb").is_file()


def _is_architecture(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8") as file:
            head = file.read(_SNIFFED)
    except (OSError, UnicodeDecodeError):
        return False
    return '"class_name"' in head and ('"config"' in head or '"layers"' in head)


@dataclass(frozen=True, slots=True)
class OpenedFile:
    """A file of Keras, and the live model that it holds.

    Attributes:
        path: The file or folder.
        model: The model.
        framework: What it was read with.
    """

    path: str
    model: Any
    framework: Framework


def open_file(source: str, options: ImportOptions) -> OpenedFile:
    """Return a file with the live model that it holds.

    Args:
        source: Path of the file or folder.
        options: Weights file, the user's own classes.

    Raises:
        MissingDependencyError: A framework is not installed.
        SourceError: The file cannot be read; layer, class and reason are named. Or it holds
            code, and the options do not allow it.
    """
    path = Path(source)
    if not path.exists():
        raise SourceError(f"'{path}' does not exist")
    _require_content(path)
    if not options.allow_code:
        _refuse_code(path)
    framework = framework_for_files()
    objects = _objects(framework, options)
    with _repaired(framework):
        model = _load(path, options, objects, framework)
    if not keras_base(model):
        raise SourceError(
            f"'{path}' holds a traced function, not a Keras model: its quantizers are gone; "
            "load it with its classes as custom_objects, or convert the model that wrote it"
        )
    if not list(model._flatten_layers(include_self=False, recursive=True)):
        raise SourceError(f"'{path}' holds a model without layers")
    return OpenedFile(source, model, framework)


def _require_content(path: Path) -> None:
    if path.is_dir():
        return
    with path.open("rb") as file:
        head = file.read(8)
    if not head:
        raise SourceError(f"'{path}' is empty")
    suffix = path.suffix.lower()
    if suffix == ".keras" and not zipfile.is_zipfile(path):
        raise SourceError(f"'{path}' is no .keras file, or it is cut off")
    if suffix in {".h5", ".hdf5"} and head != b"\x89HDF\r\n\x1a\n":
        raise SourceError(f"'{path}' is no HDF5 file, or it is cut off")


def _refuse_code(path: Path) -> None:
    """Refuse a file that holds code: loading it would run what somebody else wrote.

    Raises:
        SourceError: Layer and class are named.
    """
    hint = "it is run with --allow-code only (allow_code=True in Python); trust it first"
    if path.is_dir():
        raise SourceError(f"'{path}' is a SavedModel folder, which holds code; {hint}")
    for layer, kind in _code_in(_config(path), ""):
        raise SourceError(f"'{path}': layer '{layer}' of class {kind} holds code; {hint}")


def _code_in(node: Any, layer: str) -> Iterator[tuple[str, str]]:
    """Give (layer, class) of what a configuration holds as code."""
    if isinstance(node, list):
        for one in node:
            yield from _code_in(one, layer)
    if not isinstance(node, dict):
        return
    kind, config = str(node.get("class_name", "")), node.get("config")
    if isinstance(config, dict) and isinstance(config.get("name"), str):
        layer = config["name"]
    if kind in ("Lambda", "__lambda__") or node.get("function_type") == "lambda":
        yield layer, kind or "Lambda"
        return
    for value in node.values():
        yield from _code_in(value, layer)


def _load(path: Path, options: ImportOptions, objects: Objects, fw: Framework) -> Any:
    suffix = path.suffix.lower()
    if path.is_dir() and fw.generation == 3:
        raise SourceError(
            f"'{path}' is a SavedModel folder: Keras 3 does not read those; "
            "save the model as .keras"
        )
    try:
        if suffix == ".json":
            return _from_architecture(path, options.weights, objects, fw)
        if suffix == ".keras" and fw.generation == 2 and _written_by_keras_3(path):
            model = read_keras_3(path, objects, fw)
        else:
            trusted = {"safe_mode": False} if options.allow_code else {}
            model = fw.keras.models.load_model(
                str(path), custom_objects=objects, compile=False, **trusted
            )
    except SourceError:
        raise
    except Exception as error:  # Keras raises several kinds for what it cannot read
        raise SourceError(_explained(path, error, objects, fw)) from error
    if options.weights is not None:
        _load_weights(model, options.weights)
    return model


def _explained(path: Path, error: Exception, objects: Objects, fw: Framework) -> str:
    unknown = _unknown_classes(path, objects, fw)
    if unknown:
        names = ", ".join(f"'{layer}' of class {kind}" for layer, kind in unknown)
        return (
            f"'{path}' has layers of classes that are not known: {names}; "
            "give them with custom_objects={'Name': Class}"
        )
    text = " ".join(str(error).split())[:500]
    hint = ""
    if "No model config" in text or "model_config" in text or "No model found" in text:
        hint = "; it holds weights only: convert the architecture .json and " + _WEIGHTS_HINT
    return f"'{path}' cannot be loaded: {type(error).__name__}: {text}{hint}"


def _unknown_classes(path: Path, objects: Objects, fw: Framework) -> list[tuple[str, str]]:
    """Return (layer, class) of every layer of a file whose class is not known."""
    known = {*objects, "Functional", "Model", "Sequential"}
    found: list[tuple[str, str]] = []

    def visit(node: Any) -> None:
        if isinstance(node, list):
            for one in node:
                visit(one)
        if not isinstance(node, dict):
            return
        inner = node.get("config")
        for layer in inner.get("layers", []) if isinstance(inner, dict) else []:
            kind = str(layer.get("class_name", ""))
            if kind not in known and not hasattr(fw.keras.layers, kind):
                found.append((str(layer.get("config", {}).get("name", "")), kind))
        for value in node.values():
            visit(value)

    visit(_config(path))
    return list(dict.fromkeys(found))


def _config(path: Path) -> Any:
    """Return the architecture that a file holds, ``None`` where it holds none."""
    try:
        if path.is_dir():
            return None
        if path.suffix.lower() == ".json":
            return json.loads(path.read_text(encoding="utf-8"))
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return json.loads(archive.read("config.json"))
        h5py = require("h5py", needed_by="adapter 'qkeras'", extra="qkeras")
        with h5py.File(path, "r") as file:
            return json.loads(file.attrs.get("model_config", "null"))
    except (OSError, KeyError, ValueError, TypeError):
        return None


def _from_architecture(
    path: Path, weights: str | None, objects: Objects, fw: Framework
) -> Any:
    if weights is None:
        raise SourceError(f"'{path}' holds an architecture only: {_WEIGHTS_HINT}")
    text = path.read_text(encoding="utf-8")
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise SourceError(f"'{path}' is not JSON: {error}") from error
    if fw.generation == 3 and "registered_name" not in text:
        # An architecture of Keras 2, which Keras 3 reads from .h5 files only.
        legacy = importlib.import_module("keras.src.legacy.saving.saving_utils")
        model = legacy.model_from_config(config, custom_objects=objects)
    else:
        model = fw.keras.models.model_from_json(text, custom_objects=objects)
    _load_weights(model, weights)
    return model


def _load_weights(model: Any, weights: str) -> None:
    path = Path(weights)
    if not path.exists():
        raise SourceError(f"weights file '{path}' does not exist")
    try:
        model.load_weights(str(path))
    except Exception as error:  # Keras and h5py raise several kinds
        text = " ".join(str(error).split())[:300]
        raise SourceError(
            f"weights file '{path}' does not fit model '{model.name}': {text}"
        ) from error


def _objects(framework: Framework, options: ImportOptions) -> Objects:
    """Return every class by the name that files use; the user's own take precedence."""
    objects: Objects = {}
    # By its path: in qkeras-v3 the attribute ``utils`` of the package is Keras' own module.
    utils = importlib.import_module("qkeras.utils")
    utils._add_supported_quantized_objects(objects)
    for name in _OTHER_NAMES:
        if hasattr(framework.qkeras, name):
            objects[name] = getattr(framework.qkeras, name)
    own = getattr(framework.qkeras, "QDenseBatchnorm", None)
    objects["QDenseBatchnorm"] = dense_batchnorm(framework) if own is None else own
    registered = {f"qkeras>{name}": value for name, value in objects.items()}
    if framework.generation == 3:
        # An operation of Keras 3, too; the constraint is written with its package.
        objects.pop("Clip", None)
    return {**objects, **registered, **options.custom_objects}


@contextlib.contextmanager
def _repaired(framework: Framework) -> Iterator[None]:
    """Let layers read back what they themselves wrote, while a file is loaded."""
    qkeras = framework.qkeras
    repairs = [(qkeras.QActivation, _with_quantizer(qkeras))]
    if framework.generation == 3:
        held = [getattr(qkeras, name, None) for name in _FOLDED]
        repairs = [(kind, _without_renorm) for kind in held if kind is not None]
    with contextlib.ExitStack() as stack:
        for kind, repair in repairs:
            stack.enter_context(_reading(kind, repair))
        yield


_FOLDED = ("QConv2DBatchnorm", "QDenseBatchnorm", "QDepthwiseConv2DBatchnorm")
_RENORM = ("renorm", "renorm_clipping", "renorm_momentum", "synchronized")
"""Arguments that the normalization of newer Keras 3 writes into the layer's own config."""


@contextlib.contextmanager
def _reading(kind: Any, repair: Callable[[dict[str, Any]], dict[str, Any]]) -> Iterator[None]:
    """Repair each config before a class reads it."""
    own = vars(kind).get("from_config")
    inherited = kind.from_config

    def from_config(cls: Any, config: dict[str, Any]) -> Any:
        return inherited.__func__(cls, repair(config))

    kind.from_config = classmethod(from_config)
    try:
        yield
    finally:
        if own is None:
            del kind.from_config
        else:
            kind.from_config = own


def _with_quantizer(qkeras: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def repair(config: dict[str, Any]) -> dict[str, Any]:
        activation = config["activation"]
        if not isinstance(activation, dict):
            return config
        known = {key: activation[key] for key in ("class_name", "config") if key in activation}
        return {**config, "activation": qkeras.get_quantizer(known)}

    return repair


def _without_renorm(config: dict[str, Any]) -> dict[str, Any]:
    if config.get("renorm"):
        raise SourceError(
            f"layer '{config.get('name')}': batch renormalization cannot be folded"
        )
    return {name: value for name, value in config.items() if name not in _RENORM}


def _written_by_keras_3(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        try:
            version = str(json.loads(archive.read("metadata.json"))["keras_version"])
        except (KeyError, json.JSONDecodeError) as error:
            raise SourceError(f"'{path}' has no metadata: it is no .keras file") from error
    return not version.startswith("2.")
