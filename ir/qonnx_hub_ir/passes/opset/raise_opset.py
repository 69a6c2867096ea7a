"""Old graphs are raised to the opset that the IR is written in."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import onnx
import onnx.version_converter
import onnx_ir
from onnx import helper
from onnx_ir import Graph, Model, Node
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect
from qonnx_hub_ir.annotations import carry
from qonnx_hub_ir.errors import SourceError, words_of
from qonnx_hub_ir.graph.detach_weights import attach_weights, without_weights
from qonnx_hub_ir.graph.process_faults import fatal_rule, hide, show
from qonnx_hub_ir.graph.subgraphs import every_value
from qonnx_hub_ir.passes.opset import old_operators
from qonnx_hub_ir.places import failing_part
from qonnx_hub_ir.validity import label, type_rule

OPSET = 19
"""Lowest standard opset of an IR model: the first in which DequantizeLinear is defined by
reference, and below those in which onnxruntime mishandles signed int8."""


@dataclass(frozen=True)
class RaiseOpset(InPlacePass):
    """Convert a model below an opset (19 by default) to it; newer ones keep theirs.

    Attributes:
        opset: The standard opset to reach.

    Before -> after: ``Unsqueeze(x){axes}`` of opset 9 -> ``Unsqueeze(x, axes)`` of opset 19,
    and so on for every standard operator. The work is done by ONNX's own version converter,
    which needs canonical domains and imports: run :class:`NormalizeDialect` before. Metadata
    stays with its values and nodes, and nodes keep their names. The IR version becomes one
    that goes with the opset.

    Raises:
        SourceError: The converter does not know a way, or one that changes the meaning.
    """

    opset: int = OPSET

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        version = model.opset_imports.get("", self.opset)
        if version >= self.opset:
            modified = "" not in model.opset_imports
            model.opset_imports[""] = version
            return PassResult(model, modified=modified)
        if any(node.domain == "" for node in model.graph.all_nodes()):
            model.graph = _convert(model, version, self.opset)
        model.opset_imports[""] = self.opset
        if dialect.CHANNELS_LAST_DOMAIN in model.opset_imports:
            model.opset_imports[dialect.CHANNELS_LAST_DOMAIN] = self.opset
        needed = helper.find_min_ir_version_for([helper.make_opsetid("", self.opset)])
        model.ir_version = max(model.ir_version, needed)
        return PassResult(model, modified=True)


def _convert(model: Model, version: int, target: int) -> Graph:
    copy = model.clone()
    old_operators.prepare(copy, version)
    for node in copy.graph.all_nodes():
        if rule := fatal_rule(node) or _foreign_type(node, version):
            raise SourceError(f"{label(node)}: {rule}")
    given = without_weights(copy)
    hide(given)
    try:
        message = onnx.version_converter.convert_version(given, target)
    except Exception as error:  # the binding raises bare RuntimeError and its own ConvertError
        convert = functools.partial(
            onnx.version_converter.convert_version, target_version=target
        )
        place = failing_part(given, convert) or "the graph"
        raise SourceError(
            f"{place} cannot be raised from opset {version} to {target}: {words_of(error)}"
        ) from error
    show(message)
    raised = onnx_ir.from_proto(message)
    old_operators.settle(raised.graph, copy.graph, version)
    attach_weights(raised.graph, copy)
    _restore(raised, model)
    # Initializers keep their order: a file saved twice stays equal.
    places = {name: place for place, name in enumerate(model.graph.initializers)}
    values = list(raised.graph.initializers.values())
    values.sort(key=lambda value: places.get(value.name or "", len(places)))
    raised.graph.initializers.clear()
    for value in values:
        raised.graph.register_initializer(value)
    return raised.graph


def _foreign_type(node: Node, version: int) -> str:
    """Return which attribute is of another type than its document says; "" for none."""
    if node.domain or not onnx.defs.has(node.op_type, version, ""):
        return ""
    schema = onnx.defs.get_schema(node.op_type, version, "")
    rules = (type_rule(schema, a.name, a.type) for a in node.attributes.values())
    return next((rule for rule in rules if rule), "")


def _restore(raised: Model, original: Model) -> None:
    """Put back what the converter drops: by name, and names by what a node makes."""
    nodes = {
        output.name: node
        for node in original.graph.all_nodes()
        for output in node.outputs
        if output.name
    }
    taken = {node.name for node in nodes.values()}
    for node in raised.graph.all_nodes():
        old = next((nodes[o.name] for o in node.outputs if o.name in nodes), None)
        if old is not None:
            node.name, node.doc_string = old.name, old.doc_string
            _copy_metadata(node, old)
        elif node.name in taken:
            node.name = None  # a step in front of the node that has the name
    values = {value.name: value for value in every_value(original, functions=False)}
    for value in every_value(raised, functions=False):
        if value.name in values:
            value.doc_string = values[value.name].doc_string
            value.metadata_props.update(values[value.name].metadata_props)
            carry(values[value.name], value)
    raised.graph.doc_string = original.graph.doc_string
    _copy_metadata(raised.graph, original.graph)


def _copy_metadata(new: Node | Graph, old: Node | Graph) -> None:
    new.metadata_props.update(old.metadata_props)
    new.meta.update(old.meta)
