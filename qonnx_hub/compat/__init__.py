"""The calls, classes and tools of the qonnx package, on this project's own parts.

    from qonnx_hub.compat import DataType, ModelWrapper, execute_onnx, from_keras

Where the qonnx package is installed, ``ModelWrapper`` is a subclass of its class and
``DataType`` is its own; elsewhere both are classes of this package with the same methods.
The tools are modules: ``python -m qonnx_hub.compat.cleanup model.onnx``, or
``qonnx-hub compat cleanup model.onnx``.
"""

from __future__ import annotations

from typing import Any

from qonnx_hub.compat.execution import execute_onnx
from qonnx_hub.compat.keras import from_keras

__all__ = ["DataType", "ModelWrapper", "execute_onnx", "from_keras"]


def __getattr__(name: str) -> Any:
    """Return a class that depends on whether the qonnx package is installed."""
    if name == "ModelWrapper":
        from qonnx_hub.compat.model_wrapper import wrapper_class

        return wrapper_class()
    if name == "DataType":
        from qonnx_hub.compat.data_types import datatype_class

        return datatype_class()
    raise AttributeError(f"module 'qonnx_hub.compat' has no attribute '{name}'")
