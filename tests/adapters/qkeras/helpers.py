"""What the tests of this folder do with a model."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx_ir import Model

from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.protocol import ImportOptions
from qonnx_hub_adapters.qkeras.importer import QkerasImporter
from qonnx_hub_adapters.qkeras.quantizers import is_quantizer
from qonnx_hub_ir import dialect

Arrays = list[np.ndarray[Any, Any]]


def convert(model: Any, **options: Any) -> Model:
    return QkerasImporter().load(model, ImportOptions(**options))


def ask_keras(model: Any, feeds: Arrays) -> Arrays:
    """The framework's own answer at inference."""
    result = model(feeds[0] if len(feeds) == 1 else feeds, training=False)
    flat = result if isinstance(result, (list, tuple)) else [result]
    return [np.asarray(one) for one in flat]


def ask_executor(ir: Model, feeds: Arrays) -> Arrays:
    names = [str(value.name) for value in ir.graph.inputs]
    return list(Session(ir).run(dict(zip(names, feeds, strict=True))).values())


def quantizers(ir: Model) -> list[str]:
    return [node.op_type for node in ir.graph.all_nodes() if dialect.is_quantizer(node)]


def operators(ir: Model) -> list[str]:
    return [node.op_type for node in ir.graph]


def state(model: Any) -> dict[str, Any]:
    """Everything that a conversion may not change: weights, and attributes of every layer."""
    held: dict[str, Any] = {}
    for index, variable in enumerate(model.weights):
        held[f"weight {index}"] = variable.numpy().tobytes()
    for layer in model._flatten_layers(include_self=True, recursive=True):
        for name, value in vars(layer).items():
            if name.startswith("_") and name != "_iteration":
                continue  # what Keras notes about calls
            held[f"{layer.name}.{name}"] = id(value)
            if is_quantizer(value) and hasattr(value, "__dict__"):
                held[f"{layer.name}.{name}.*"] = {
                    key: _plain(one) for key, one in vars(value).items()
                }
    return held


def _plain(value: Any) -> Any:
    return value.numpy().tobytes() if hasattr(value, "numpy") else repr(value)


def differences(expected: Arrays, got: Arrays, tolerance: float) -> tuple[float, float]:
    """Share of the values off by more than the tolerance, and the largest difference."""
    wrong = compared = 0
    largest = 0.0
    assert len(expected) == len(got)
    for a, b in zip(expected, got, strict=True):
        assert a.shape == b.shape
        difference = np.abs(a.astype(np.float64) - b) / np.maximum(1.0, np.abs(a))
        wrong += int(np.sum(~(difference <= tolerance)))
        compared += difference.size
        largest = max(largest, float(np.max(difference, initial=0.0)))
    assert compared > 0
    return wrong / compared, largest
