"""Finishing an ONNX model for a file: the part that all exporters to ONNX share."""

from __future__ import annotations

import onnx
import onnx_ir
from onnx_ir import Model

from qonnx_hub_ir.errors import InvalidExportError, NotExactError
from qonnx_hub_ir.facts import facts_of
from qonnx_hub_ir.graph.detach_weights import without_weights
from qonnx_hub_ir.passes import DropUnused, NameNodes, RaiseOpset, run_passes
from qonnx_hub_ir.passes.shapes.infer_shapes import infer_from

PRODUCER = "qonnx_hub"

_IR_VERSION_OF_OPSET = {19: 9, 20: 9, 21: 10, 22: 10, 23: 11, 24: 12, 25: 13}
"""Lowest ONNX IR version that goes with a standard opset."""


def finish(model: Model) -> Model:
    """Return the model, cleaned, with types, shapes and versions, and checked by ONNX.

    Raises:
        InvalidExportError: ONNX's checker refuses the model.
    """
    run_passes(model, [DropUnused(), NameNodes()])
    opset = model.opset_imports[""]
    newest = max(_IR_VERSION_OF_OPSET.values())
    model.ir_version = max(model.ir_version, _IR_VERSION_OF_OPSET.get(opset, newest))
    model.producer_name = PRODUCER
    model.producer_version = None
    message = without_weights(model)
    infer_from(message, model)
    del message.graph.output[:]  # their types may be known by now
    message.graph.output.extend(map(onnx_ir.serde.serialize_value, model.graph.outputs))
    _check(message)
    facts_of(model).has_inferred_shapes = True
    return model


def check(model: Model) -> None:
    """Check the model with ONNX's own checker."""
    # It takes the model as one message; a weight is as valid as an input of its type.
    _check(without_weights(model))


def _check(message: onnx.ModelProto) -> None:
    for info in (*message.graph.input, *message.graph.output):
        if info.type.HasField("tensor_type"):
            # The checker asks for a shape; runtimes take a tensor of which it is not known.
            info.type.tensor_type.shape.SetInParent()
    try:
        onnx.checker.check_model(message)
    except onnx.checker.ValidationError as error:
        raise InvalidExportError(f"the exported model is not valid ONNX: {error}") from error


def require_opset(asked: int | None, needed: int, reason: str) -> int:
    """Return the opset to write.

    Args:
        asked: What the caller wants; ``None`` leaves the choice to the exporter.
        needed: The lowest opset that says the model exactly.
        reason: What needs it, for the message.

    Raises:
        NotExactError: The caller wants a lower one.
    """
    if asked is None:
        return needed
    if asked < needed:
        raise NotExactError(
            f"opset {asked} cannot say this model: {reason} needs opset {needed}"
        )
    return asked


def raise_to(model: Model, opset: int | None) -> None:
    """Raise the model to the standard opset asked for, if any.

    Raises:
        NotExactError: The opset is below the model's own; nothing lowers a graph.
    """
    own = model.opset_imports[""]
    target = require_opset(opset, own, "the graph as it was read")
    if target != own:
        RaiseOpset(target)(model)
