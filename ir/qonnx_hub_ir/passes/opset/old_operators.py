"""Old operators that ONNX's version converter gets wrong without a word, or cannot read.

Each case was found by running the graph before and after the conversion:

1. ``Upsample`` and ``Resize`` below opset 11 read ``x[floor(i / scale)]``; the converter
   leaves out the attributes that say so, and the defaults since opset 11 mean something else.
2. ``Add``, ``Sub``, ``Mul``, ``Div`` and ``Pow`` below opset 7 may align their second input to
   an ``axis``; the converter aligns it to the first axis instead.
3. ``PRelu`` below opset 7 takes a slope per channel (axis 1), later versions align a slope to
   the last axis; the converter changes nothing.
4. ``Hardmax`` below opset 13 flattens its input to two axes, later versions work along one;
   the converter changes nothing. It is flattened by nodes of its own.
5. ``BatchNormalization`` since opset 7 has neither ``is_test`` nor ``consumed_inputs``, but
   files of that time write them; the converter keeps them.
6. ``Clip`` below opset 11 has limits in attributes, whatever type it clips; the converter
   makes float32 constants of them, which clip nothing but float32.
"""

from __future__ import annotations

import numpy as np
import onnx_ir
from onnx_ir import Graph, Model, Node

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.errors import SourceError
from qonnx_hub_ir.graph.queries import attribute, is_standard, rank_of
from qonnx_hub_ir.operators import Family
from qonnx_hub_ir.passes.shapes.infer_shapes import InferShapes


def prepare(model: Model, version: int) -> None:
    """Rewrite what the converter would misread.

    Args:
        model: The copy that will be converted; changed in place.
        version: Its standard opset.

    Raises:
        SourceError: An operator whose old meaning is unknown, or has no form in newer opsets.
        PassError: Types or shapes contradict each other.
    """
    standard = [node for node in model.graph.all_nodes() if node.domain == ""]
    hardmax = version < 13 and any(node.op_type == "Hardmax" for node in standard)
    clips = version < 11 and any(_has_other_limits(node) for node in standard)
    if (hardmax or clips) or (
        version < 7 and any(node.op_type == "PRelu" or _aligns(node) for node in standard)
    ):
        InferShapes()(model)  # what follows needs ranks
    for node in standard:
        if node.op_type == "BatchNormalization":
            node.attributes.pop("consumed_inputs", None)  # which buffers may be overwritten
            if version >= 7 and attribute(node, "is_test", 0):
                del node.attributes["is_test"]
        elif version < 7 and _aligns(node):
            _align(node, node.attributes.pop("axis").value)
        elif version < 7 and node.op_type == "PRelu":
            slope = node.inputs[1]
            if slope is not None and slope.shape is not None and list(slope.shape) != [1]:
                _align(node, 1)
        elif version < 13 and node.op_type == "Hardmax":
            axis, rank = attribute(node, "axis", 1), rank_of(node.inputs[0])
            if axis != -1 and (rank is None or axis != rank - 1):
                _flatten(node, axis, rank)
        elif version < 11 and node.op_type == "Resize":
            _check_shrinking(node)


def _flatten(node: Node, axis: int, rank: int | None) -> None:
    """Put a node that works on two axes between a Flatten and the shape it read."""
    x, y = node.inputs[0], node.outputs[0]
    if axis < 0:
        if rank is None:
            raise SourceError(
                f"{node.op_type} '{node.name}' flattens the axes from {axis} on, but its rank "
                "is not known; add shapes to the file"
            )
        axis += rank
    flat = Node("", "Flatten", [x], [onnx_ir.AttrInt64("axis", axis)])
    shape = Node("", "Shape", [x])
    node.prepend([flat, shape])
    node.replace_input_with(0, flat.outputs[0])
    node.attributes["axis"] = onnx_ir.AttrInt64("axis", 1)
    back = Node("", "Reshape", [y, shape.outputs[0]])
    for one, word in ((flat, "flat"), (shape, "shape"), (back, "back")):
        one.name = f"{node.name or y.name}_{word}"
        one.outputs[0].name = f"{y.name}_{word}"
    node.append(back)
    result = back.outputs[0]
    result.type, result.shape, result.name, y.shape = y.type, y.shape, y.name, None
    y.name = f"{y.name}_two_axes"
    y.replace_all_uses_with(result, replace_graph_outputs=True)
    back.replace_input_with(0, y)


def _has_other_limits(node: Node) -> bool:
    """Return whether a Clip has limits of its own, and may clip another type than float32."""
    x = node.inputs[0] if node.op_type == "Clip" and node.inputs else None
    return x is not None and bool(node.attributes) and x.dtype != onnx_ir.DataType.FLOAT


def _settle_limits(graph: Graph, original: Graph) -> None:
    """Give limits of Clip the type of what is clipped."""
    clips = {
        node.outputs[0].name: node
        for node in original.all_nodes()
        if is_standard(node, "Clip") and _has_other_limits(node)
    }
    for node in list(graph.all_nodes()):
        old = clips.get(node.outputs[0].name) if is_standard(node, "Clip") else None
        kind = None if old is None or old.inputs[0] is None else old.inputs[0].dtype
        if kind is None:
            continue
        for index, limit in enumerate(node.inputs[1:], 1):
            if limit is None or limit.dtype == kind:
                continue
            cast = Node("", "Cast", [limit], [onnx_ir.AttrInt64("to", kind.value)])
            cast.name = f"{node.outputs[0].name}_limit{index}"
            cast.outputs[0].name, cast.outputs[0].type = cast.name, onnx_ir.TensorType(kind)
            node.prepend(cast)
            node.replace_input_with(index, cast.outputs[0])


def settle(graph: Graph, original: Graph, version: int) -> None:
    """Write out what the converter left to defaults that mean something else.

    Args:
        graph: The converted graph; changed in place.
        original: The graph that was converted.
        version: The standard opset of the original.
    """
    if version >= 11:
        return
    _settle_limits(graph, original)
    before, after = (
        [node for node in one.all_nodes() if is_standard(node, "Resize", "Upsample")]
        for one in (original, graph)
    )
    for old, new in zip(before, after, strict=True):
        new.name, new.outputs[0].name = old.name, old.outputs[0].name
        new.replace_input_with(1, None)  # a region of interest, which this mode does not read
        new.attributes["coordinate_transformation_mode"] = onnx_ir.AttrString(
            "coordinate_transformation_mode", "asymmetric"
        )
        new.attributes["nearest_mode"] = onnx_ir.AttrString("nearest_mode", "floor")


def _aligns(node: Node) -> bool:
    """Return whether the second operand of arithmetic is aligned to an axis."""
    return operators.of(node).family is Family.ARITHMETIC and "axis" in node.attributes


def _align(node: Node, axis: int) -> None:
    """Append axes to the second input until its first one meets ``axis`` of the other."""
    second, (rank, own_rank) = node.inputs[1], (rank_of(value) for value in node.inputs[:2])
    if second is None or rank is None or own_rank is None:
        raise SourceError(
            f"{node.op_type} '{node.name}' aligns its inputs at axis {axis}, but their ranks "
            "are not known; add shapes to the file"
        )
    missing = rank - (axis + rank if axis < 0 else axis) - own_rank
    if missing <= 0:
        return
    axes = onnx_ir.AttrInt64s("axes", range(own_rank, own_rank + missing))
    aligned = Node("", "Unsqueeze", [second], [axes], name=f"{node.name}_align")
    result = aligned.outputs[0]
    result.name, result.type = f"{node.name}_aligned", second.type
    if second.shape is not None:
        result.shape = onnx_ir.Shape([*second.shape, *[1] * missing])
    node.prepend(aligned)
    node.replace_input_with(1, result)


def _check_shrinking(node: Node) -> None:
    scales = dialect.constant_value(node.inputs[1])
    if scales is None or attribute(node, "mode", "nearest") != "nearest":
        return
    shrinking = np.asarray(scales, dtype=np.float64)
    step = 1.0 / shrinking[shrinking < 1]
    if np.any(step != np.rint(step)):
        raise SourceError(
            f"Resize '{node.name}' shrinks by a factor that is no whole number; which element "
            "it takes is not defined below opset 11; write it with a newer opset"
        )
