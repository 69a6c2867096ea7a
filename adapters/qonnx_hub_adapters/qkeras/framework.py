"""The installed Keras and qkeras, and the repairs that they need."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from types import ModuleType
from typing import Any

from qonnx_hub_adapters.dependencies import is_installed, quiet
from qonnx_hub_ir.errors import MissingDependencyError, SourceError

NEEDED = ("tensorflow", "qkeras", "tf2onnx")
_EXTRAS = (
    "pip install 'qonnx-hub[qkeras]' (Keras 2) or pip install 'qonnx-hub[qkeras3]' (Keras 3)"
)


@dataclass(frozen=True, slots=True)
class Framework:
    """The frameworks that a model or a file is read with.

    Attributes:
        tf: TensorFlow.
        keras: The Keras that the model belongs to.
        qkeras: The qkeras that goes with it.
        generation: 2 or 3.
    """

    tf: ModuleType
    keras: ModuleType
    qkeras: ModuleType
    generation: int


def require_installed() -> None:
    """Raise unless TensorFlow, tf2onnx and a qkeras can be found.

    Raises:
        MissingDependencyError: With all that is missing and the command that installs it.
    """
    missing = [name for name in NEEDED if not is_installed(name)]
    if not missing:
        return
    names = " and ".join([", ".join(missing[:-1]), missing[-1]] if missing[1:] else missing)
    are, them = ("are", "them") if missing[1:] else ("is", "it")
    raise MissingDependencyError(
        f"adapter 'qkeras' needs {names}, which {are} not installed. "
        f"Install {them} with: {_EXTRAS}"
    )


def installed_generation() -> int:
    """Return the Keras generation that the installed qkeras is written for.

    Three distributions own the import name ``qkeras``; only their metadata tells them apart.

    Raises:
        SourceError: It is HGQ2's compatibility layer, or both packages at once.
    """
    names = {
        name.lower().replace("_", "-")
        for name in metadata.packages_distributions().get("qkeras", [])
    }
    if {"qkeras", "qkeras-v3"} <= names:
        raise SourceError(
            "'qkeras' and 'qkeras-v3' are both installed and overwrite each other; "
            "uninstall both, then install one"
        )
    if "qkeras-v3" in names:
        return 3
    if "qkeras" in names or not names:
        return 2
    raise SourceError(
        f"the installed 'qkeras' module belongs to {', '.join(sorted(names))}, "
        f"which is neither qkeras nor qkeras-v3. {_EXTRAS}"
    )


def keras_base(model: object) -> str:
    """Return the Keras package that a live model belongs to ("tf_keras", "keras"), or ""."""
    for kind in type(model).__mro__:
        root = kind.__module__.partition(".")[0]
        if root in {"keras", "tf_keras"} and kind.__name__ == "Model":
            return root
    return ""


def framework_of(model: object) -> Framework:
    """Return the frameworks of a live model.

    Raises:
        MissingDependencyError: One of them is not installed.
        SourceError: The model's Keras does not run on TensorFlow, or is not the one of qkeras.
    """
    root = keras_base(model)
    keras = importlib.import_module(root)
    generation = 2 if keras.__version__.startswith("2.") else 3
    if generation == 3 and keras.backend.backend() != "tensorflow":
        raise SourceError(
            f"Keras runs on the {keras.backend.backend()} backend; the conversion traces "
            "TensorFlow: set KERAS_BACKEND=tensorflow before importing keras"
        )
    return _assembled(keras, generation)


def framework_for_files() -> Framework:
    """Return the frameworks that files are read with: those of the installed qkeras.

    Raises:
        MissingDependencyError: One of them is not installed.
        SourceError: TensorFlow was imported with the wrong Keras before.
    """
    require_installed()
    generation = installed_generation()
    # TensorFlow's start-up notices would stand between the lines of a report.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if generation == 3:
        os.environ.setdefault("KERAS_BACKEND", "tensorflow")
        return _assembled(importlib.import_module("keras"), 3)
    if "tensorflow" not in sys.modules:
        os.environ["TF_USE_LEGACY_KERAS"] = "1"
    tf = importlib.import_module("tensorflow")
    if not tf.keras.Model.__module__.startswith("tf_keras"):
        raise SourceError(
            "the installed qkeras is written for Keras 2, but TensorFlow was imported with "
            "Keras 3: set TF_USE_LEGACY_KERAS=1 before importing tensorflow"
        )
    return _assembled(importlib.import_module("tf_keras"), 2)


def _assembled(keras: ModuleType, generation: int) -> Framework:
    require_installed()
    if installed_generation() != generation:
        other = "qkeras-v3 (Keras 3)" if generation == 2 else "qkeras (Keras 2)"
        hint = "; or set TF_USE_LEGACY_KERAS=1 before importing tensorflow"
        raise SourceError(
            f"the model is one of Keras {generation}, the installed package is {other}; "
            f"{_EXTRAS}{hint if generation == 3 else ''}"
        )
    tf = importlib.import_module("tensorflow")
    if generation == 2:
        _mend_tensorflow()
    with quiet():  # qkeras warns at its own import; the user cannot act on that
        qkeras = importlib.import_module("qkeras")
        importlib.import_module("qkeras.utils")
    return Framework(tf, keras, qkeras, generation)


def _mend_tensorflow() -> None:
    """Put back three names that TensorFlow 2.16 dropped and qkeras 0.9.0 still calls.

    Without them QConv2DTranspose, QSimpleRNN and QGRU fail in their own ``call``.
    """
    nest = importlib.import_module("tensorflow.python.util.nest")
    array_ops = importlib.import_module("tensorflow.python.ops.array_ops")
    tf = importlib.import_module("tensorflow")
    for module, name, value in (
        (nest, "is_sequence", getattr(nest, "is_nested", None)),
        (array_ops, "stack", tf.stack),
        (array_ops, "unstack", tf.unstack),
    ):
        if not hasattr(module, name) and value is not None:
            setattr(module, name, value)


def internal_sigmoid(qkeras: ModuleType) -> str:
    """Return QKeras' process-wide sigmoid: "hard", "smooth" or "real".

    It is set by ``set_internal_sigmoid``, is in no file, and changes six quantizers.
    """
    module: Any = importlib.import_module(f"{qkeras.__name__}.quantizers")
    current = module._sigmoid
    if current is module.hard_sigmoid:
        return "hard"
    return "smooth" if current is module.smooth_sigmoid else "real"


def as_given(model: Any, tensors: Sequence[Any], tf: Any) -> Any:
    """Return tensors as a model takes them: one, a list, or the dict that it was built on."""
    shape = getattr(model, "_inputs_struct", None)  # Keras 2 takes lists for dicts
    if isinstance(shape, Mapping) and len(tf.nest.flatten(shape)) == len(tensors):
        return tf.nest.pack_sequence_as(shape, list(tensors))
    return tensors[0] if len(tensors) == 1 else list(tensors)
