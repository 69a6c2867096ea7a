"""Operators that read a layout: windows and normalizations, channels first and last."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import onnx_ir
from onnx_ir import Model, Node

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.constants import drop_unread, read_initializers
from qonnx_hub_ir.graph.permutations import Perm, identity, perm_of, to_first, to_last
from qonnx_hub_ir.graph.queries import attribute, spatial_rank
from qonnx_hub_ir.graph.unused import import_used
from qonnx_hub_ir.passes.layers.window_pads import explicit_pads
from qonnx_hub_ir.passes.layout.fold_weight_layout import FoldWeightLayout
from qonnx_hub_ir.passes.layout.operator_layouts import RULES, passing_inputs
from qonnx_hub_ir.passes.layout.relayout import (
    Relayout,
    Requirement,
    Rule,
    logical_sizes,
)

_LAST = dialect.CHANNELS_LAST_DOMAIN
_GLOBAL_POOLS = {"GlobalAveragePool": "ReduceMean", "GlobalMaxPool": "ReduceMax"}
_BECOME_LAST = {*operators.names(domain=_LAST), *_GLOBAL_POOLS}


def becomes_last(node: Node) -> bool:
    """Return whether a standard operator has a channels-last form."""
    if node.domain != "" or any(value.name for value in node.outputs[1:]):
        return False
    if node.op_type not in _BECOME_LAST:
        return False
    rank = spatial_rank(node)
    return not attribute(node, "training_mode", 0) and rank is not None and rank > 2


def becomes_first(node: Node) -> bool:
    """Return whether a node is a channels-last operator with a standard twin."""
    return node.domain == _LAST and spatial_rank(node) is not None


def _requirement(
    becomes: Callable[[Node], bool], target: Callable[[int], Perm]
) -> Requirement:
    """Return what nodes require of their input: a layout, or what they read as it is.

    Args:
        becomes: Whether a node will compute in the target layout.
        target: The permutation to it, by rank.
    """

    def required(node: Node) -> Perm | None:
        changes = becomes(node)
        if not changes and (
            node.domain == dialect.DOMAIN or operators.channel_axis(node) is None
        ):
            return None
        rank = spatial_rank(node)
        return None if rank is None or rank < 3 else (target if changes else identity)(rank)

    return required


_REQUIRED_LAST = _requirement(becomes_last, to_last)
_REQUIRED_FIRST = _requirement(becomes_first, to_first)
_REQUIRED_NOW = _requirement(lambda node: False, identity)


def _make_channels_last(engine: Relayout, node: Node) -> bool:
    perm = _REQUIRED_LAST(node) if becomes_last(node) else None
    if perm is None:
        return False
    if node.op_type in _GLOBAL_POOLS:
        # The channels-last domain has no global pools: a reduction takes their place.
        node.op_type = _GLOBAL_POOLS[node.op_type]
        engine.set_constant(node, 1, np.arange(1, len(perm) - 1, dtype=np.int64))
        node.attributes["keepdims"] = onnx_ir.AttrInt64("keepdims", 1)
    else:
        spell_out_window(node, len(perm), partial(_spatial_sizes, engine, node))
        node.domain = _LAST
    _transpose_operands(engine, node, perm)
    return True


def _make_channels_first(engine: Relayout, node: Node) -> bool:
    if not becomes_first(node):
        return False
    perm = _REQUIRED_FIRST(node)
    node.domain = ""
    engine.modified = True
    if perm is None:
        return False
    _transpose_operands(engine, node, perm)
    return True


def _transpose_operands(engine: Relayout, node: Node, perm: Perm) -> None:
    for index in range(2 if node.op_type == "Conv" else 1):
        value = node.inputs[index]
        if value is not None:
            node.replace_input_with(index, engine.get(value, perm, node))
    engine.put(node.outputs[0], perm)
    engine.modified = True


def spell_out_window(node: Node, rank: int, sizes_of: Callable[[int], list[int]]) -> None:
    """Write the attributes of a window that some readers take no default for.

    Args:
        node: A convolution or a pool; nothing happens at a BatchNormalization.
        rank: Rank of its input.
        sizes_of: Gives the known lengths of an input's spatial axes, by the input's position.
    """
    if node.op_type == "BatchNormalization":
        return
    spatial, given = rank - 2, node.attributes
    if "kernel_shape" not in given:
        sizes = sizes_of(1)
        if len(sizes) == spatial:
            _default(node, "kernel_shape", sizes)
    _default(node, "strides", [1] * spatial)
    if node.op_type == "Conv":
        _default(node, "dilations", [1] * spatial)
        given.setdefault("group", onnx_ir.AttrInt64("group", 1))
    mode = str(attribute(node, "auto_pad", "NOTSET"))
    if mode == "NOTSET":
        _default(node, "pads", [0] * (2 * spatial))
        return
    sizes, kernel = sizes_of(0), attribute(node, "kernel_shape", None)
    # The pads that auto_pad stands for are left where sizes are unknown.
    if mode == "VALID" or (kernel is not None and len(sizes) == spatial):
        pads = explicit_pads(node, sizes or [1] * spatial, list(kernel or [1] * spatial))
        del given["auto_pad"]
        given["pads"] = onnx_ir.AttrInt64s("pads", pads)


def _spatial_sizes(engine: Relayout, node: Node, index: int) -> list[int]:
    """Return the known lengths behind the first two axes of an input, as it was."""
    value = node.inputs[index]
    sizes = () if value is None else logical_sizes(engine, value)
    return [size for size in sizes[2:] if isinstance(size, int)]


def _default(node: Node, name: str, numbers: list[int]) -> None:
    node.attributes.setdefault(name, onnx_ir.AttrInt64s(name, numbers))


def convert_to_last(model: Model, *, inputs: bool, outputs: bool) -> Relayout:
    """Make every operator that has a channels-last form one; return the walk that did it.

    Args:
        model: The model, changed in place.
        inputs: Whether graph inputs change their layout too.
        outputs: Whether graph outputs do.
    """
    keys = [("", name) for name in _BECOME_LAST]
    rules = {**RULES, **dict.fromkeys(keys, _make_channels_last)}
    return _convert(model, to_last, _REQUIRED_LAST, rules, inputs, outputs)


def convert_to_first(model: Model, *, inputs: bool, outputs: bool) -> Relayout:
    """Make every channels-last operator a standard one; see :func:`convert_to_last`."""
    rules = {**RULES, **operators.assign(_make_channels_first, domain=_LAST)}
    return _convert(model, to_first, _REQUIRED_FIRST, rules, inputs, outputs)


def _convert(
    model: Model,
    target: Callable[[int], Perm],
    required: Requirement,
    rules: Mapping[tuple[str, str], Rule],
    inputs: bool,
    outputs: bool,
) -> Relayout:
    read = read_initializers(model.graph)
    FoldWeightLayout()(model)
    engine = Relayout(model, target, required, rules, passing_inputs)
    if inputs:
        engine.transpose_inputs()
    engine.walk()
    engine.finish(keep_target=outputs)
    engine.sweep(lambda node: perm_of(node) is not None)
    drop_unread(model.graph, read)
    import_used(model)
    return engine


def ends_last(model: Model, *, inputs: bool, outputs: bool) -> bool:
    """Return whether inputs or outputs are channels last around channels-first operators."""
    if not any(_REQUIRED_NOW(node) is not None for node in model.graph):
        return False
    engine = Relayout(model, to_first, _REQUIRED_FIRST, RULES, passing_inputs)
    asked = [(value, engine.demand(value)) for value in model.graph.inputs]
    if inputs and any(perm == to_first(len(perm)) for _, perm in asked if perm is not None):
        return True
    makers = [value.producer() for value in model.graph.outputs] if outputs else []
    moves = [None if node is None else perm_of(node) for node in makers]
    return any(
        perm is not None and len(perm) > 2 and perm == to_last(len(perm)) for perm in moves
    )
