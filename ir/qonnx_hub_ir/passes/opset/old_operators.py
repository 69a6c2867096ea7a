"""Old operators that ONNX's version converter gets wrong without a word, or cannot read.

Each case was found by running the graph before and after the conversion:

1. ``Upsample`` and ``Resize`` below opset 11 read ``x[floor(i / scale)]``; the converter
   leaves out the attributes that say so, and the defaults since opset 11 mean something else.
2. ``Add``, ``Sub``, ``Mul``, ``Div`` and ``Pow`` below opset 7 may align their second input to
   an ``axis``; the converter aligns it to the first axis instead.
3. ``PRelu`` below opset 7 takes a slope per channel (axis 1), later versions align a slope to
   the last axis; the converter changes nothing.
4. ``Hardmax`` below opset 13 flattens its input to two axes, later versions work along one;
   the converter changes nothing.
5. ``BatchNormalization`` since opset 7 has neither ``is_test`` nor ``consumed_inputs``, but
   files of that time write them; the converter keeps them.
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
    if hardmax or (
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
                raise SourceError(
                    f"Hardmax '{node.name}' flattens the axes from {axis} on, which no opset "
                    "above 12 does; write it with a newer opset"
                )
        elif version < 11 and node.op_type == "Resize":
            _check_shrinking(node)


def settle(graph: Graph, original: Graph, version: int) -> None:
    """Write out what the converter left to defaults that mean something else.

    Args:
        graph: The converted graph; changed in place.
        original: The graph that was converted.
        version: The standard opset of the original.
    """
    if version >= 11:
        return
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
