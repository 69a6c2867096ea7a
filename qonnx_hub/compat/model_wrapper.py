"""``ModelWrapper`` as the qonnx package has it, around a ModelProto."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from typing import Any

import onnx
import onnx_ir
from onnx_ir import Model
from onnx_ir.passes import InPlacePass

from qonnx_hub.compat.graph_methods import GraphMethods
from qonnx_hub.compat.pass_runs import run_pass
from qonnx_hub.io.python_sources import resolve
from qonnx_hub_adapters.dependencies import is_installed
from qonnx_hub_adapters.onnx_writer import finish
from qonnx_hub_ir.errors import SourceError


@functools.cache
def wrapper_class() -> Any:
    """Return the class ModelWrapper: of the qonnx package's class where it is installed."""
    base: Any = GraphMethods
    if is_installed("qonnx"):
        base = importlib.import_module("qonnx.core.modelwrapper").ModelWrapper

    class ModelWrapper(base):  # type: ignore[misc]
        """A ModelProto with the qonnx package's questions and changes.

        It is made of a path, bytes, ModelProto, another wrapper or an IR model. A ModelProto
        is held as it is, and changed in place.
        """

        def __init__(self, onnx_model_proto: Any, *args: Any, **options: Any) -> None:
            """Take a model in any form; the options are those of the qonnx package."""
            super().__init__(_message(onnx_model_proto), *args, **options)

        def transform(self, transformation: Any, *args: Any, **options: Any) -> Any:
            """Return a wrapper of the transformed model.

            Args:
                transformation: A Transformation as users of the qonnx package write them, a
                    pass of :mod:`qonnx_hub.passes`, or text that names one or a pipeline.
                *args: ``make_deepcopy`` and what else the qonnx package's method takes.
                **options: The same by name.
            """
            if not isinstance(transformation, (str, InPlacePass)):
                found = super().transform(transformation, *args, **options)
                # Some make a wrapper of the class that they know.
                return found if isinstance(found, ModelWrapper) else ModelWrapper(found.model)
            proto = run_pass(self.model, transformation)
            if (*args, options.get("make_deepcopy", True))[0]:
                return type(self)(proto)
            self.model.CopyFrom(proto)
            return self

    ModelWrapper.__qualname__, ModelWrapper.__module__ = "ModelWrapper", "qonnx_hub.compat"
    return ModelWrapper


def _message(source: Any) -> onnx.ModelProto:
    """Return a model in any form as a message; a message as it is.

    Raises:
        SourceError: No file, or an object that holds no model.
    """
    if isinstance(source, onnx.ModelProto):
        return source
    if isinstance(source, (str, Path)):
        if not Path(source).is_file():
            raise SourceError(f"ModelWrapper: '{source}' is no file")
        return onnx.load(str(source))
    if isinstance(source, Model):
        return onnx_ir.to_proto(finish(source.clone()))
    found = resolve(source)
    if not isinstance(found, onnx.ModelProto):
        raise SourceError(f"ModelWrapper: a {type(source).__name__} holds no ONNX model")
    return found
