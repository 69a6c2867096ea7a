"""Types and shapes of every value, through quantizers that ONNX does not know."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx.defs
import onnx.numpy_helper
import onnx.shape_inference
import onnx_ir
from onnx_ir import Graph, Model, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.errors import MOST_PLACES, PassError, words_of
from qonnx_hub_ir.graph import process_faults
from qonnx_hub_ir.graph.detach_weights import without_weights
from qonnx_hub_ir.graph.subgraphs import named_bodies, nodes_within
from qonnx_hub_ir.lowering import im2col, qonnx_general
from qonnx_hub_ir.passes.layout.lower_channels_last import LowerChannelsLast
from qonnx_hub_ir.passes.shapes.foreign_shapes import give_foreign_shapes
from qonnx_hub_ir.passes.shapes.onnxruntime_shapes import stand_in
from qonnx_hub_ir.places import failing_part, inference_words
from qonnx_hub_ir.validity import label

_INT64 = onnx.TensorProto.INT64
_LONG = 1 << 20
"""Elements of one axis that are not looked at one by one."""

_SAME_NAMES = "already exists"
"""With values, the binding takes equal names in two branches for one, and refuses it."""

_NO_SIZE = 1 << 48
"""From here on a number means "to the end", or is a slip."""


@dataclass(frozen=True)
class InferShapes(InPlacePass):
    """Fill in type and shape of every value that ONNX's inference can tell.

    A quantizer has the type and shape of its first input; a channels-last operator those of
    its standard twin between two Transposes; onnxruntime's own operators those of the float
    operators that they stand for; operators of other distributions those of their own rules,
    else what the file says. What a value already says is kept where the
    inference knows nothing more. Weights are not copied.

    Before -> after: ``Quant`` output without value_info -> float32, shape of its input.

    Raises:
        PassError: Types or shapes contradict each other; the message is ONNX's own.
    """

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        modified = infer_from(without_weights(model), model)
        while give_foreign_shapes(model):
            modified = True
            infer_from(without_weights(model), model)
        return PassResult(model, modified=modified)


def infer_from(message: onnx.ModelProto, model: Model) -> bool:
    """Infer the shapes of a model of which the message is there already.

    Args:
        message: What ``without_weights`` makes of the model.
        model: The model, changed in place.

    Raises:
        PassError: As :class:`InferShapes`.
    """
    for node in model.graph.all_nodes():
        if rule := process_faults.fatal_rule(node):
            raise PassError(f"{label(node)}: {rule}")
    skeleton = _skeleton(message, model)
    try:
        inferred = _inferred(skeleton)
    except Exception as error:  # the binding raises whatever C++ raises
        raise PassError(f"shapes do not fit together: {_told(error, skeleton)}") from error
    return _take_over(model.graph, inferred.graph)


def _inferred(skeleton: onnx.ModelProto) -> onnx.ModelProto:
    infer = functools.partial(
        onnx.shape_inference.infer_shapes, check_type=True, strict_mode=True
    )
    # With values, the binding lists every element of what has one axis: 2^40 of them as well.
    constants = [*skeleton.graph.initializer]
    constants += [
        a.t for node in skeleton.graph.node for a in node.attribute if a.HasField("t")
    ]
    numbers = (
        onnx.numpy_helper.to_array(t) for t in constants if t.data_type == _INT64 and t.dims
    )
    long = any(np.any((x > _LONG) & (x < _NO_SIZE)) for x in numbers)
    if long or _has_long_list(skeleton.graph):
        plain = infer(skeleton)
        if _has_long_list(plain.graph):
            return plain
    try:
        return infer(skeleton, data_prop=True)
    except Exception as error:  # the binding raises whatever C++ raises
        if _SAME_NAMES not in str(error):
            raise
    return infer(skeleton)


def _has_long_list(graph: onnx.GraphProto) -> bool:
    values = (*graph.input, *graph.value_info, *graph.output)
    shapes = (value.type.tensor_type.shape.dim for value in values)
    return any(len(sizes) == 1 and sizes[0].dim_value > _LONG for sizes in shapes)


def _told(error: Exception, skeleton: onnx.ModelProto) -> str:
    """Return what is wrong at which nodes."""
    known = dict(inference_words(error))
    if not known and (place := failing_part(skeleton, _inferred)):
        known[place] = words_of(error)
    lines = [f"{place}: {words}" for place, words in known.items()]
    more = len(lines) - MOST_PLACES
    tail = [f"and {more} more nodes"] if more > 0 else []
    return "; ".join([*lines[:MOST_PLACES], *tail]) or words_of(error)


def _skeleton(message: onnx.ModelProto, model: Model) -> onnx.ModelProto:
    """Return a copy with nothing but standard operators and small constants."""
    foreign = (node for node in nodes_within(model.graph) if node.domain != "")
    if not all(_has_shape_of_input(node.domain, node.op_type) for node in foreign):
        model = model.clone()
        LowerChannelsLast()(model)
        for node in list(nodes_within(model.graph)):
            stand_in(node)
            im2col.stand_in(node)
            qonnx_general.stand_in(node)
        message = without_weights(model)
    skeleton = onnx.ModelProto()
    skeleton.CopyFrom(message)
    versions = {imported.domain: imported.version for imported in skeleton.opset_import}
    _simplify(skeleton.graph, versions)
    for function in skeleton.functions:
        for node in function.node:
            _add_defaults(node, versions)
    return skeleton


def _has_shape_of_input(domain: str, op_type: str) -> bool:
    return domain == dialect.DOMAIN and (
        op_type in dialect.QUANTIZERS or op_type == dialect.THRESHOLDS
    )


def _simplify(graph: onnx.GraphProto, versions: Mapping[str, int]) -> None:
    """Make quantizers identities, and forget the shapes of all values that nodes make."""
    known = (n for n in graph.node if not operators.is_opaque_name(n.domain, n.op_type))
    made = {name for node in known for name in node.output}
    for info in (*graph.value_info, *graph.output):
        # What the file claims may be stale; the inference starts from the inputs, and from
        # what nothing else tells.
        if info.name in made and info.type.HasField("tensor_type"):
            info.type.tensor_type.ClearField("shape")
    for node in graph.node:
        if _has_shape_of_input(node.domain, node.op_type):
            del node.input[1:], node.attribute[:]
            node.domain, node.op_type = "", "Identity"
        process_faults.stand_in(node)
        _add_defaults(node, versions)
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs):
                _simplify(body, versions)


def _add_defaults(node: onnx.NodeProto, versions: Mapping[str, int]) -> None:
    """Write attributes out: inference in function operators stumbles over missing ones."""
    defaults = _defaults(node.domain, node.op_type, versions.get(node.domain, 0))
    if defaults:
        given = {attribute.name for attribute in node.attribute}
        node.attribute.extend(one for one in defaults if one.name not in given)


@functools.cache
def _defaults(domain: str, op_type: str, version: int) -> tuple[onnx.AttributeProto, ...]:
    if not version or not onnx.defs.has(op_type, domain):
        return ()
    try:
        schema = onnx.defs.get_schema(op_type, version, domain)
    except onnx.defs.SchemaError:
        return ()
    return tuple(
        attribute.default_value
        for attribute in schema.attributes.values()
        if not attribute.required and attribute.default_value.type
    )


def _take_over(graph: Graph, inferred: onnx.GraphProto) -> bool:
    """Give the values of a graph, and of the bodies in it, what was inferred."""
    known = {info.name: info for info in inferred.value_info}
    known.update({info.name: info for info in inferred.output})
    modified = False
    for node in graph:
        for value in node.outputs:
            info = known.get(str(value.name))
            if info is None or not info.type.HasField("tensor_type"):
                continue
            if _says_the_same(value, info.type.tensor_type):
                continue
            before = (value.type, value.shape)
            source = onnx_ir.serde.deserialize_value_info_proto(info, None)
            value.type = source.type or value.type
            value.shape = _sharper(value.shape, source.shape)
            modified |= before != (value.type, value.shape)
        for name, body in named_bodies(node):
            outputs = [value.name or "" for value in node.outputs]
            twins = (twin for twin in inferred.node if list(twin.output) == outputs)
            bodies = (one for twin in twins for one in twin.attribute if one.name == name)
            twin = next((one.g for one in bodies if one.HasField("g")), None)
            modified |= twin is not None and _take_over(body, twin)
    return modified


def _says_the_same(value: Value, inferred: onnx.TypeProto.Tensor) -> bool:
    """Return whether a value has the inferred type and sizes, all of them numbers."""
    if value.shape is None or value.dtype != inferred.elem_type:
        return False
    sizes = [
        size.dim_value if size.HasField("dim_value") else None for size in inferred.shape.dim
    ]
    return inferred.HasField("shape") and list(value.shape) == sizes


def _sharper(old: onnx_ir.Shape | None, new: onnx_ir.Shape | None) -> onnx_ir.Shape | None:
    """Return the inferred shape, with dimensions that only the file knew."""
    if new is None or old is None or len(old) != len(new):
        return new if new is not None else old
    dims = [
        theirs if isinstance(theirs, int) or not isinstance(ours, int) else ours
        for ours, theirs in zip(old, new, strict=True)
    ]
    return onnx_ir.Shape(dims)
