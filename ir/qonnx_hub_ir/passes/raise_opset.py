"""Old graphs are raised to the opset that the IR is written in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
import onnx.version_converter
import onnx_ir
from onnx_ir import Model
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import SourceError

OPSET = 19
"""Lowest standard opset of an IR model: the first in which DequantizeLinear is defined by
reference, and below those in which onnxruntime mishandles signed int8."""

_LARGE = 1024
"""Initializers above this many bytes are set aside while the converter runs: it copies the
model through one buffer, and no conversion looks into tensors of that size."""


@dataclass(frozen=True)
class RaiseOpset(InPlacePass):
    """Convert a model below an opset (19 by default) to it; newer ones keep theirs.

    Attributes:
        opset: The standard opset to reach.

    Before -> after: ``Unsqueeze(x){axes}`` of opset 9 -> ``Unsqueeze(x, axes)`` of opset 19,
    and so on for every standard operator. The work is done by ONNX's own version converter,
    which needs canonical domains and imports: run :class:`NormalizeDialect` before.

    Raises:
        SourceError: The converter does not know a way.
    """

    opset: int = OPSET

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        version = model.opset_imports.get("", self.opset)
        if version >= self.opset or not _uses_standard_operators(model):
            model.opset_imports[""] = max(version, self.opset)
            return PassResult(model, modified=version < self.opset)
        converted = _convert(model, version, self.opset)
        model.graph = converted.graph
        model.ir_version = max(model.ir_version, converted.ir_version)
        if dialect.CHANNELS_LAST_DOMAIN in model.opset_imports:
            model.opset_imports[dialect.CHANNELS_LAST_DOMAIN] = self.opset
        return PassResult(model, modified=True)


def _uses_standard_operators(model: Model) -> bool:
    return any(node.domain == "" for node in model.graph.all_nodes())


def _convert(model: Model, version: int, target: int) -> Model:
    large = {
        name: value.const_value
        for name, value in model.graph.initializers.items()
        if value.const_value is not None and value.const_value.nbytes > _LARGE
    }
    proto = onnx_ir.to_proto(_without(model, large))
    try:
        raised = onnx.version_converter.convert_version(proto, target)
    except Exception as error:  # the binding raises bare RuntimeError and its own ConvertError
        reason = str(error).strip().splitlines()[-1]
        raise SourceError(
            f"the graph cannot be raised from opset {version} to {target}: {reason}"
        ) from error
    converted = onnx_ir.from_proto(raised)
    graph = converted.graph
    kept = [value for value in graph.inputs if value.name not in large]
    put_back = [value for value in graph.inputs if value.name in large]
    graph.inputs.clear()
    graph.inputs.extend(kept)
    for value in put_back:
        value.const_value = large[str(value.name)]
        graph.register_initializer(value)
    return converted


def _without(model: Model, large: Mapping[str, onnx_ir.TensorProtocol]) -> Model:
    """Return a copy in which the named initializers are plain graph inputs."""
    copy = model.clone()
    for name, tensor in large.items():
        value = copy.graph.initializers.pop(name)
        value.const_value = None
        value.type = onnx_ir.TensorType(tensor.dtype)
        value.shape = dialect.known_shape(tensor)
        copy.graph.inputs.append(value)
    return copy
