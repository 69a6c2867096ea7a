"""Finishing an ONNX model for a file: the part that all exporters to ONNX share."""

from __future__ import annotations

import contextlib
import functools

import onnx
import onnx.defs
import onnx_ir
from onnx import helper
from onnx_ir import Model

from qonnx_hub_ir import operators
from qonnx_hub_ir.errors import InvalidExportError, NotExactError, UsageError, words_of
from qonnx_hub_ir.facts import facts_of
from qonnx_hub_ir.graph.detach_weights import without_weights
from qonnx_hub_ir.graph.subgraphs import every_value
from qonnx_hub_ir.passes import DropUnused, LowerOpset, NameNodes, RaiseOpset, run_passes
from qonnx_hub_ir.passes.opset.lower_opset import LOWEST
from qonnx_hub_ir.passes.opset.source_versions import restore_sizes, source_versions
from qonnx_hub_ir.passes.shapes.infer_shapes import infer_from

PRODUCER = "qonnx_hub"

NEWEST_RUN = 27
"""Newest opset of which onnxruntime has all operators: newer sources are written at it where
it can say them."""

_FIRST_IR_WITH_IMPORTS = 3
_FIRST_IR_WITH_FREE_WEIGHTS = 4
"""Before, every initializer was an input as well."""


def opset_to_write(model: Model, asked: int | None) -> int:
    """Return the opset that a file gets unless a node in it needs a newer one.

    Args:
        model: An IR model; what it was read from may have had an older opset.
        asked: What the caller wants, if anything.

    Raises:
        UsageError: There is no such opset, or none that can be written.
    """
    newest = onnx.defs.onnx_opset_version()
    if asked is not None:
        if not LOWEST <= asked <= newest:
            raise UsageError(
                f"opset {asked} cannot be written: this version of ONNX knows opsets up to "
                f"{newest}, and the lowest that can be written is {LOWEST}"
            )
        return asked
    source = source_versions(model)
    opset = model.opset_imports[""] if source is None else source.opset
    return max(LOWEST, min(opset, NEWEST_RUN))


def finish(model: Model, opset: int | None = None, needed: int = LOWEST) -> Model:
    """Return the model, cleaned, with types, shapes and versions, and checked by ONNX.

    Args:
        model: Changed in place.
        opset: The standard opset that the caller asked for; without it, it is that of the file
            that the model was read from, or as much newer as a node needs.
        needed: The lowest that whoever wrote the nodes needs.

    Raises:
        NotExactError: The opset asked for cannot say the model; all nodes are listed.
        UsageError: There is no such opset.
        InvalidExportError: ONNX's checker refuses the model.
    """
    run_passes(model, [DropUnused(), NameNodes()])
    target = max(opset_to_write(model, opset), needed)
    if target > model.opset_imports[""]:
        RaiseOpset(target)(model)
    for value in every_value(model):
        if value.type is None:
            value.shape = None  # a shape without a type is not valid ONNX
    message = _inferred(model)
    if _lower(model, target, exactly=opset is not None):
        # Only the spelling changed: types are missing where more nodes were needed for it.
        known = all(v.type is not None and v.shape is not None for v in every_value(model))
        message = without_weights(model) if known else _inferred(model)
    _set_versions(model)
    restore_sizes(model)
    # What is checked has its weights taken out, and their names from the inputs.
    message.ir_version = max(model.ir_version, _FIRST_IR_WITH_FREE_WEIGHTS)
    del message.graph.output[:]  # their types may be known by now
    message.graph.output.extend(map(onnx_ir.serde.serialize_value, model.graph.outputs))
    _check(message)
    facts_of(model).has_inferred_shapes = True
    return model


def _inferred(model: Model) -> onnx.ModelProto:
    """Return the model as a message without its weights, and give its values their types."""
    message = without_weights(model)
    infer_from(message, model)
    return message


def _lower(model: Model, target: int, *, exactly: bool) -> bool:
    """Lower the model to an opset, or as near to it as its nodes allow."""
    if exactly:
        return LowerOpset(target)(model).modified
    for opset in range(target, model.opset_imports[""]):
        with contextlib.suppress(NotExactError):
            return LowerOpset(opset)(model).modified
    return False


def _set_versions(model: Model) -> None:
    """Set IR version and producer: those of the source, where there are any that fit."""
    opset, source = model.opset_imports[""], source_versions(model)
    lowest = helper.find_min_ir_version_for([helper.make_opsetid("", opset)])
    if source is None:
        model.ir_version = max(model.ir_version, lowest)
    elif opset == source.opset:
        model.ir_version = source.ir
    else:
        model.ir_version = lowest if opset < source.opset else max(source.ir, lowest)
    model.ir_version = max(model.ir_version, _FIRST_IR_WITH_IMPORTS)
    if model.ir_version < _FIRST_IR_WITH_FREE_WEIGHTS:
        weights = model.graph.initializers.values()
        model.graph.inputs.extend(one for one in weights if not one.is_graph_input())
    if source is None or not model.producer_name:
        model.producer_name, model.producer_version = PRODUCER, None


def check(model: Model) -> None:
    """Check the model with ONNX's own checker."""
    # It takes the model as one message; a weight is as valid as an input of its type.
    _check(without_weights(model))


def _check(message: onnx.ModelProto) -> None:
    untyped = [v.name for v in message.graph.input if v.type.WhichOneof("value") is None]
    if untyped:
        raise InvalidExportError(
            f"input '{untyped[0]}' of the model has no type, and ONNX files say one; give it "
            "a type in the source"
        )
    for info in message.graph.output:
        if info.type.WhichOneof("value") is None:
            # Behind an operator that nothing knows: the checker asks for one, runtimes do not.
            info.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    for info in (*message.graph.input, *message.graph.output):
        if info.type.HasField("tensor_type"):
            # The checker asks for a shape; runtimes take a tensor of which it is not known.
            info.type.tensor_type.shape.SetInParent()
    # Likewise: runtimes take a value that has metadata alone.
    typed = [info for info in message.graph.value_info if info.type.WhichOneof("value")]
    del message.graph.value_info[:]
    message.graph.value_info.extend(typed)
    _rename_opaque(message, message.graph)
    try:
        onnx.checker.check_model(message)
    except onnx.checker.ValidationError as error:
        raise InvalidExportError(
            f"the exported model is not valid ONNX: {words_of(error)}"
        ) from error


@functools.cache
def _checked() -> frozenset[str]:
    """Return the domains of which the checker knows the operators."""
    return frozenset(schema.domain for schema in onnx.defs.get_all_schemas())


def _rename_opaque(message: onnx.ModelProto, graph: onnx.GraphProto) -> None:
    """Give operators that nothing knows a domain that the checker does not know either.

    In a domain that it knows, it refuses what passes through here as the source has it.
    """
    for node in graph.node:
        if node.domain in _checked() and operators.is_opaque_name(node.domain, node.op_type):
            node.domain = f"opaque.{node.domain}"
            if all(one.domain != node.domain for one in message.opset_import):
                message.opset_import.append(helper.make_opsetid(node.domain, 1))
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                _rename_opaque(message, body)
