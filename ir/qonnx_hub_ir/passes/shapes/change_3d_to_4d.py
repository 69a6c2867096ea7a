"""Signals as images of one column."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np
import onnx_ir
from onnx_ir import Model, Node, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import operators
from qonnx_hub_ir.annotations import forget_shape, layout_of, set_layout
from qonnx_hub_ir.effects import Effect
from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.constants import is_constant_tree
from qonnx_hub_ir.graph.queries import attribute, dims, rank_of
from qonnx_hub_ir.graph.rearrange import Rearranger
from qonnx_hub_ir.graph.subgraphs import read_values
from qonnx_hub_ir.passes.shapes.infer_shapes import InferShapes
from qonnx_hub_ir.quantizers import Array


@dataclass(frozen=True)
class Change3dTo4d(InPlacePass):
    """Give all values of three axes a fourth one of length 1.

    Before -> after::

        y = MaxPool{3}(Conv{3}(x[N, C, H], w[O, C, 3]))
        y = MaxPool{3, 1}(Conv{3, 1}(x[N, C, H, 1], w[O, C, 3, 1]))

    Inputs and outputs of the model as well; the same numbers come out. What has fewer axes
    and meets such a value gets an axis of length 1 in front of the operator: it stays aligned
    with what it was aligned with. A layout that is annotated becomes NCHW, or goes. Does not
    fire without an input of three axes.

    Raises:
        PassError: An operator on three axes of which it is not known what becomes of it, or
            shapes that are not known; the message names the node. The model is left as it
            was.
    """

    effect = Effect.SIGNATURE

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        if all(rank_of(value) != 3 for value in model.graph.inputs):
            return PassResult(model, modified=False)
        _change(model.clone())
        _change(model)
        return PassResult(model, modified=True)


def _change(model: Model) -> None:
    InferShapes()(model)
    rearranger = Rearranger(model.graph)
    wide = {value for value in model.graph.inputs if rank_of(value) == 3}
    for value in wide:
        _widen(value)
    for node in list(model.graph):
        if wide.isdisjoint(read_values(node)):
            continue
        rule = _rule(node)
        if rule is None:
            raise PassError(
                f"{node.op_type} '{node.name}': what it does to a fourth axis is not known"
            )
        rule(node, rearranger, wide)
        for value in node.outputs:
            if rank_of(value) is None:
                raise PassError(f"{node.op_type} '{node.name}': its shape is not known")
            if rank_of(value) == 3:
                _widen(value)
                wide.add(value)
    InferShapes()(model)


def _widen(value: Value) -> None:
    """Give a value a fourth axis, and a layout only where its name is known."""
    value.shape = onnx_ir.Shape([*(dims(value) or ()), 1])
    if (axes := layout_of(value)) is None:
        return
    forget_shape(value)
    if axes[:2] == ["N", "C"] and len(axes) == 3:
        set_layout(value, ["N", "C", "H", "W"])


_Rule = Callable[[Node, Rearranger, AbstractSet[Value]], None]


def _rule(node: Node) -> _Rule | None:
    known = _RULES.get((node.domain, node.op_type))
    if known is not None:
        return known
    if operators.is_convolution(node) or operators.is_max_pool(node):
        return _window
    if operators.is_average_pool(node):
        return _keep if operators.is_global_pool(node) else _window
    return _elementwise if operators.is_elementwise(node) else None


def _keep(node: Node, rearranger: Rearranger, wide: AbstractSet[Value]) -> None:
    """Change nothing: channels and parameters along them stay, all other axes are alike."""


def _elementwise(node: Node, rearranger: Rearranger, wide: AbstractSet[Value]) -> None:
    """Align what has fewer axes with the axes that it was aligned with."""
    for index, value in enumerate(node.inputs):
        rank = rank_of(value)
        if value is None or value in wide or rank == 0:
            continue
        if rank is None or rank > 3:
            raise PassError(f"{node.op_type} '{node.name}': '{value.name}' has {rank} axes")
        _grow(node, index, value, rank, rearranger)


def _grow(node: Node, index: int, value: Value, rank: int, rearranger: Rearranger) -> None:
    """Give a value that is not wide an axis of length 1 behind its last one."""
    if is_constant_tree(value):
        node.replace_input_with(index, rearranger(value, _grown, "fourth axis", node, rank))
        return
    emit = Emitter(node)
    grown = emit.add("Unsqueeze", [value, emit.integers(f"axis_{index}", [-1])])
    grown.type = value.type
    grown.shape = onnx_ir.Shape([*(dims(value) or ()), 1])
    node.replace_input_with(index, grown)


def _grown(array: Array) -> Array:
    return np.expand_dims(array, -1)


def _window(node: Node, rearranger: Rearranger, wide: AbstractSet[Value]) -> None:
    lists = {"kernel_shape": 1, "strides": 1, "dilations": 1, "output_shape": 1}
    for name, neutral in lists.items():
        if name in node.attributes:
            given = [*attribute(node, name, ()), neutral]
            node.attributes[name] = onnx_ir.AttrInt64s(name, given)
    if (pads := attribute(node, "pads", None)) is not None:
        node.attributes["pads"] = onnx_ir.AttrInt64s("pads", [pads[0], 0, pads[1], 0])
    padding = attribute(node, "output_padding", None)
    if padding is not None:
        node.attributes["output_padding"] = onnx_ir.AttrInt64s(
            "output_padding", [padding[0], 0]
        )
    if operators.is_convolution(node):
        weight = node.inputs[1]
        if weight is None or not is_constant_tree(weight):
            raise PassError(f"{node.op_type} '{node.name}': its weight is computed")
        node.replace_input_with(1, rearranger(weight, _grown, "fourth axis", node, 3))


def _transpose(node: Node, rearranger: Rearranger, wide: AbstractSet[Value]) -> None:
    perm = attribute(node, "perm", (2, 1, 0))
    node.attributes["perm"] = onnx_ir.AttrInt64s("perm", [*perm, 3])


def _concat(node: Node, rearranger: Rearranger, wide: AbstractSet[Value]) -> None:
    axis = int(attribute(node, "axis", 0))
    node.attributes["axis"] = onnx_ir.AttrInt64("axis", axis % 3)
    for index, value in enumerate(node.inputs):
        if value is not None and value not in wide:
            _grow(node, index, value, 3, rearranger)


def _flatten(node: Node, rearranger: Rearranger, wide: AbstractSet[Value]) -> None:
    axis = int(attribute(node, "axis", 1))
    node.attributes["axis"] = onnx_ir.AttrInt64("axis", axis + 3 if axis < 0 else axis)


def _linear(node: Node, rearranger: Rearranger, wide: AbstractSet[Value]) -> None:
    """Say the axis of the scales from the front."""
    scale = rank_of(node.inputs[1])
    if scale is None or scale > 1:
        raise PassError(f"{node.op_type} '{node.name}': its scales are blocks of a tensor")
    axis = int(attribute(node, "axis", 1))
    node.attributes["axis"] = onnx_ir.AttrInt64("axis", axis % 3)


_RULES: Mapping[tuple[str, str], _Rule] = {
    ("", "Transpose"): _transpose,
    ("", "Concat"): _concat,
    ("", "BatchNormalization"): _keep,
    ("", "Flatten"): _flatten,
    ("", "QuantizeLinear"): _linear,
    ("", "DequantizeLinear"): _linear,
}
