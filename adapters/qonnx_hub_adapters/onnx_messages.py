"""What must hold of an ONNX message before anything is made of it."""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator

import onnx
import onnx.defs
import onnx_ir
from google.protobuf.message import Message
from onnx import AttributeProto, TensorProto

from qonnx_hub_ir.errors import Issue
from qonnx_hub_ir.places import label_of_message
from qonnx_hub_ir.validity import type_rule

_FIELDS = {
    "float_data": ("FLOAT", "COMPLEX64"),
    "double_data": ("DOUBLE", "COMPLEX128"),
    "int64_data": ("INT64",),
    "uint64_data": ("UINT32", "UINT64"),
    "string_data": ("STRING",),
}
"""Typed field -> types of elements that it holds; all others lie in ``int32_data``."""

_FIELD_OF = {kind: field for field, kinds in _FIELDS.items() for kind in kinds}
_HELD = {
    AttributeProto.TENSOR: "t",
    AttributeProto.GRAPH: "g",
    AttributeProto.SPARSE_TENSOR: "sparse_tensor",
    AttributeProto.TYPE_PROTO: "tp",
}
_LAST_OPSET = onnx.defs.onnx_opset_version()
_SHOWN = 40
"""Bytes shown of what is no text."""

_LARGEST_SIZE = 1 << 48
"""Elements of a tensor above which a size is a slip, and no memory holds it."""

_LARGEST_AXIS = (1 << 31) - 1
"""ONNX's inference of shapes cuts an axis to 32 bits, and ends the process over the rest."""


def message_issues(message: onnx.ModelProto) -> Iterator[Issue]:
    """Give what is malformed in a message: payloads, types, sizes, attributes, names.

    Every issue names the node or value. What operators ask of their inputs and attributes is
    looked at later, by the rules of the IR.
    """
    if message.ir_version > onnx.IR_VERSION:
        rule = (
            f"IR version {message.ir_version} is newer than {onnx.IR_VERSION}, the last known"
        )
        yield Issue("the file", rule)
    for where, imported in _imports(message):
        domain = imported.domain or "ai.onnx"
        rule = f"imports '{domain}' in version {imported.version}"
        if imported.version < 1:
            yield Issue(where, rule)
        elif domain == "ai.onnx" and imported.version > _LAST_OPSET:
            yield Issue(where, f"{rule}, newer than {_LAST_OPSET}, the last known")
    no_text = list(_text_issues(message))
    if no_text:
        yield from no_text
        return  # nothing more can be asked of such names
    yield from _graph_issues(message.graph)
    for function in message.functions:
        yield from _node_issues(function.node, in_function=True)
        yield from _scope_issues(function.node, set(function.input), function.name)
    yield from _call_issues(message)
    versions = {imported.domain: imported.version for imported in message.opset_import}
    for node in _every_node(message.graph.node):
        # Looked at before the version converter is, which ends the process over it.
        schema = _schema(node.domain, node.op_type, versions.get(node.domain, 0))
        if schema is not None:
            yield from _left_out(node, schema)
        for attribute in node.attribute:
            if schema is None or attribute.type not in AttributeProto.AttributeType.values():
                continue
            rule = type_rule(schema, attribute.name, onnx_ir.AttributeType(attribute.type))
            if rule:
                yield Issue(label_of_message(node), rule)


def _imports(message: onnx.ModelProto) -> Iterator[tuple[str, onnx.OperatorSetIdProto]]:
    yield from (("the file", imported) for imported in message.opset_import)
    for function in message.functions:
        where = f"function '{function.name}'"
        yield from ((where, imported) for imported in function.opset_import)


def _text_issues(message: Message, where: str = "the file") -> Iterator[Issue]:
    """Give what should be text and is none, at its node or value: protobuf hands out bytes."""
    where = _place_of(message) or where
    for field, held in message.ListFields():
        if field.type not in (field.TYPE_MESSAGE, field.TYPE_STRING):
            continue
        for one in (held,) if isinstance(held, (str, bytes, Message)) else held:
            if isinstance(one, bytes):
                yield Issue(where, f"the {field.name} {one[:_SHOWN]!r} is no text")
            elif field.type == field.TYPE_MESSAGE:
                yield from _text_issues(one, where)


def _place_of(message: Message) -> str:
    if isinstance(message, onnx.NodeProto):
        return label_of_message(message)
    if isinstance(message, (TensorProto, onnx.ValueInfoProto)):
        return f"value '{message.name}'"
    return f"function '{message.name}'" if isinstance(message, onnx.FunctionProto) else ""


def _every_node(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                yield from _every_node(body.node)


def _call_issues(message: onnx.ModelProto) -> Iterator[Issue]:
    """Give the calls of local functions that give or take more than the function does."""
    sizes = {(f.domain, f.name): (len(f.input), len(f.output)) for f in message.functions}
    nodes = (*message.graph.node, *(n for f in message.functions for n in f.node))
    for node in _every_node(nodes) if sizes else ():
        most = sizes.get((node.domain, node.op_type))
        if most is None:
            continue
        counted = (("inputs", node.input), ("outputs", node.output))
        for (what, names), limit in zip(counted, most, strict=True):
            if len(names) > limit:
                rule = f"calls a function of {limit} {what} with {len(names)}"
                yield Issue(label_of_message(node), rule)


def _scope_issues(
    nodes: Iterable[onnx.NodeProto], known: set[str], function: str
) -> Iterator[Issue]:
    """Give what is read in a function and defined nowhere in it: it sees no other graph."""
    nodes = list(nodes)
    known = known | {name for node in nodes for name in node.output}
    for node in nodes:
        for name in node.input:
            if name and name not in known:
                rule = f"input '{name}' is defined nowhere in the function '{function}'"
                yield Issue(label_of_message(node), rule)
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                own = {v.name for v in (*body.input, *body.initializer)}
                own |= {t.values.name for t in body.sparse_initializer}
                yield from _scope_issues(body.node, known | own, function)


@functools.cache
def _schema(domain: str, op_type: str, version: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(op_type, version, domain)
    except onnx.defs.SchemaError:
        return None


def _graph_issues(
    graph: onnx.GraphProto, *, in_function: bool = False, inner: bool = False
) -> Iterator[Issue]:
    for tensor in graph.initializer:
        yield from _tensor_issues(tensor, f"initializer '{tensor.name}'")
        if not tensor.name:
            yield Issue("an initializer", "has no name")
    for what, values in (("input", graph.input), ("output", graph.output)):
        for k, value in enumerate(values):
            if not value.name:
                yield Issue(f"graph {what} {k}", "has no name")
            yield from _value_issues(value, f"graph {what} '{value.name}'")
    for value in () if inner else graph.input:
        kind = value.type.WhichOneof("value")
        if kind is None or (kind == "tensor_type" and not value.type.tensor_type.elem_type):
            yield Issue(f"graph input '{value.name}'", "has no type")
    for value in graph.value_info:
        yield from _value_issues(value, f"value '{value.name}'")
    inputs = Counter(value.name for value in graph.input)
    for name in [name for name, count in inputs.items() if count > 1]:
        yield Issue(f"graph input '{name}'", "is given twice")
    known = {*inputs, *(tensor.name for tensor in graph.initializer)}
    for node in graph.node:
        for name in filter(None, node.output):
            if name in known:
                yield Issue(label_of_message(node), f"output '{name}' is defined twice")
            known.add(name)
    yield from _node_issues(graph.node, in_function=in_function)


def _value_issues(value: onnx.ValueInfoProto, where: str) -> Iterator[Issue]:
    kind = value.type.tensor_type.elem_type
    if kind and kind not in TensorProto.DataType.values():
        yield Issue(where, f"has elements of the unknown type {kind}")
    for size in value.type.tensor_type.shape.dim:
        if size.dim_value > _LARGEST_SIZE:
            yield Issue(where, f"has an axis of {size.dim_value} elements")


def _node_issues(nodes: Iterable[onnx.NodeProto], *, in_function: bool) -> Iterator[Issue]:
    for place, node in enumerate(nodes):
        where = label_of_message(node)
        if not node.op_type:
            yield Issue(f"node {place} {where.strip()}", "has no operator")
        if node.op_type == "Einsum" and not node.domain:
            yield from _equation_issues(node, where)
        for attribute in node.attribute:
            yield from _attribute_issues(attribute, where, in_function=in_function)


def _left_out(node: onnx.NodeProto, schema: onnx.defs.OpSchema) -> Iterator[Issue]:
    """Give inputs that are left out and cannot be: onnxruntime ends the process over some."""
    for index, name in enumerate(node.input):
        if name or not schema.inputs:
            continue
        formal = schema.inputs[min(index, len(schema.inputs) - 1)]
        if formal.option != onnx.defs.OpSchema.FormalParameterOption.Optional:
            words = f"required input {index} ('{formal.name}') is left out"
            yield Issue(label_of_message(node), words)


def _equation_issues(node: onnx.NodeProto, where: str) -> Iterator[Issue]:
    """Give an equation that is none: ONNX's inference of shapes never ends on some of them."""
    for attribute in node.attribute:
        text = attribute.s.decode("utf-8", "backslashreplace")
        known = attribute.name != "equation" or attribute.ref_attr_name
        if not known and not _EQUATION.fullmatch(text.replace(" ", "")):
            shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]} ..."
            yield Issue(
                where, f"attribute 'equation' is '{shown}', which is no sum of products"
            )


_TERM = r"[A-Za-z]*(\.\.\.)?[A-Za-z]*"
_EQUATION = re.compile(rf"{_TERM}(,{_TERM})*(->{_TERM})?")


def _attribute_issues(
    attribute: AttributeProto, where: str, *, in_function: bool
) -> Iterator[Issue]:
    name = attribute.name
    if not name:
        yield Issue(where, "has an attribute without a name")
    if attribute.ref_attr_name:
        if not in_function:
            rule = f"attribute '{name}' refers to one of a function, and stands in none"
            yield Issue(where, rule)
        return
    if attribute.type == AttributeProto.UNDEFINED:
        yield Issue(where, f"attribute '{name}' has no type")
    elif attribute.type not in AttributeProto.AttributeType.values():
        yield Issue(where, f"attribute '{name}' is of the unknown type {attribute.type}")
    elif attribute.type in _SPARSE:
        yield Issue(where, f"attribute '{name}' is a sparse tensor, which only Constant takes")
    field = _HELD.get(attribute.type)
    if field is not None and not attribute.HasField(field):
        yield Issue(where, f"attribute '{name}' holds nothing of its type")
    elif name == "axis" and abs(attribute.i) > _LARGEST_AXIS:
        yield Issue(where, f"attribute 'axis' is {attribute.i}; no tensor has so many")
    for tensor in (attribute.t, *attribute.tensors) if attribute.type in _TENSORS else ():
        if tensor is not attribute.t or attribute.HasField("t"):
            yield from _tensor_issues(tensor, f"{where}: tensor of attribute '{name}'")
    for graph in (attribute.g, *attribute.graphs):
        yield from _graph_issues(graph, in_function=in_function, inner=True)


_SPARSE = (AttributeProto.SPARSE_TENSOR, AttributeProto.SPARSE_TENSORS)
_TENSORS = (AttributeProto.TENSOR, AttributeProto.TENSORS)


def _tensor_issues(tensor: TensorProto, where: str) -> Iterator[Issue]:
    if tensor.data_type not in TensorProto.DataType.values() or not tensor.data_type:
        yield Issue(where, f"has elements of the unknown type {tensor.data_type}")
        return
    if any(size < 0 for size in tensor.dims):
        yield Issue(where, f"has a negative size: {list(tensor.dims)}")
        return
    count = math.prod(tensor.dims)
    if count > _LARGEST_SIZE:
        yield Issue(where, f"has a shape that no memory holds: {list(tensor.dims)}")
        return
    kind = onnx_ir.DataType(tensor.data_type)
    if tensor.data_location == TensorProto.EXTERNAL:
        yield from _external_issues(tensor, where, kind, count)
    elif kind == onnx_ir.DataType.STRING:
        if len(tensor.string_data) != count:
            yield Issue(where, _payload(count, kind, f"{len(tensor.string_data)} strings"))
    elif tensor.HasField("raw_data"):
        given, needed = len(tensor.raw_data), math.ceil(count * kind.bitwidth / 8)
        if given != needed:
            yield Issue(where, _payload(count, kind, f"{given} bytes instead of {needed}"))
    else:
        given = len(getattr(tensor, _FIELD_OF.get(kind.name, "int32_data")))
        needed = count * 2 if kind.name.startswith("COMPLEX") else count
        if kind.bitwidth < 8:
            needed = math.ceil(count * kind.bitwidth / 8)
        if given != needed:
            yield Issue(where, _payload(count, kind, f"{given} numbers instead of {needed}"))


def _payload(count: int, kind: onnx_ir.DataType, given: str) -> str:
    return f"has a shape of {count} {kind.name} elements, and holds {given}"


def _external_issues(
    tensor: TensorProto, where: str, kind: onnx_ir.DataType, count: int
) -> Iterator[Issue]:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if not entries.get("location"):
        yield Issue(where, "lies in another file that is not named")
    for key in ("offset", "length"):
        if key in entries and not entries[key].isdecimal():
            yield Issue(where, f"lies in another file at no {key}: '{entries[key]}'")
            return
    needed = math.ceil(count * kind.bitwidth / 8) if kind != onnx_ir.DataType.STRING else 0
    length = int(entries.get("length", needed))
    if length != needed:
        yield Issue(where, _payload(count, kind, f"{length} bytes instead of {needed}"))
