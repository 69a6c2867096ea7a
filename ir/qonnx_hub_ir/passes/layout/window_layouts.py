"""Operators that read a layout: windows and normalizations, channels first and last."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir
from onnx_ir import Model, Node

from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.constants import drop_unread, read_initializers
from qonnx_hub_ir.graph.permutations import Perm, perm_of, to_first, to_last
from qonnx_hub_ir.graph.queries import rank_of
from qonnx_hub_ir.graph.subgraphs import captured_reads
from qonnx_hub_ir.passes.layers.window_pads import explicit_pads
from qonnx_hub_ir.passes.layout.fold_weight_layout import FoldWeightLayout
from qonnx_hub_ir.passes.layout.operator_layouts import RULES, passing_inputs
from qonnx_hub_ir.passes.layout.relayout import (
    Relayout,
    find_demands,
    logical_sizes,
    turn_inputs,
    used_domains,
)

_GLOBAL_POOLS = {"GlobalAveragePool": "ReduceMean", "GlobalMaxPool": "ReduceMax"}
_OTHER_READERS = frozenset(
    {"ConvTranspose", "DepthToSpace", "InstanceNormalization", "LRN", "SpaceToDepth"}
)
"""Standard operators that read channels first and have no channels-last form."""


def spatial_rank(node: Node) -> int | None:
    """Return the rank of what a window operator reads, batch and channels included."""
    weight = node.inputs[1] if node.op_type in {"Conv", "ConvTranspose"} else None
    known = rank_of(weight) if weight is not None else None
    if known is not None:
        return known
    kernel = node.attributes.get("kernel_shape")
    if kernel is not None:
        return len(kernel.value) + 2
    return rank_of(node.inputs[0]) or rank_of(node.outputs[0])


def has_one_output(node: Node) -> bool:
    """Return whether nothing but the first output of a node is named."""
    return not any(value.name for value in node.outputs[1:])


def becomes_last(node: Node) -> bool:
    """Return whether a standard operator has a channels-last form."""
    if node.domain != "" or not has_one_output(node):
        return False
    if node.op_type not in {*dialect.CHANNELS_LAST_OPERATORS, *_GLOBAL_POOLS}:
        return False
    training = node.attributes.get("training_mode")
    if training is not None and training.value:
        return False
    rank = spatial_rank(node)
    return rank is not None and rank > 2


def becomes_first(node: Node) -> bool:
    """Return whether a node is a channels-last operator with a standard twin."""
    return node.domain == dialect.CHANNELS_LAST_DOMAIN and spatial_rank(node) is not None


def wished_last(node: Node) -> Perm | None:
    """Return the layout in which a node reads its input once all is channels last."""
    if becomes_last(node):
        rank = spatial_rank(node)
        return None if rank is None else to_last(rank)
    return _as_it_is(node)


def wished_first(node: Node) -> Perm | None:
    """Return the layout in which a node reads its input once all is channels first."""
    if becomes_first(node):
        rank = spatial_rank(node)
        return None if rank is None or rank < 3 else to_first(rank)
    return _as_it_is(node)


def _as_it_is(node: Node) -> Perm | None:
    reads = node.domain == dialect.CHANNELS_LAST_DOMAIN or (
        node.domain == ""
        and node.op_type in {*dialect.CHANNELS_LAST_OPERATORS, *_GLOBAL_POOLS, *_OTHER_READERS}
    )
    rank = spatial_rank(node) if reads else None
    return None if rank is None or rank < 3 else tuple(range(rank))


def _turn_last(engine: Relayout, node: Node) -> bool:
    if not becomes_last(node):
        return False
    perm = wished_last(node)
    if perm is None:
        return False
    if node.op_type in _GLOBAL_POOLS:
        return _turn_global_pool(engine, node, perm)
    _spell_out_window(engine, node, len(perm))
    _turn_operands(engine, node, perm)
    node.domain = dialect.CHANNELS_LAST_DOMAIN
    return True


def _turn_first(engine: Relayout, node: Node) -> bool:
    if not becomes_first(node):
        return False
    perm = wished_first(node)
    node.domain = ""
    engine.modified = True
    if perm is None:
        return False
    _turn_operands(engine, node, perm)
    return True


def _turn_operands(engine: Relayout, node: Node, perm: Perm) -> None:
    for index in range(2 if node.op_type == "Conv" else 1):
        value = node.inputs[index]
        if value is not None:
            node.replace_input_with(index, engine.get(value, perm, node))
    engine.put(node.outputs[0], perm)
    engine.modified = True


def _turn_global_pool(engine: Relayout, node: Node, perm: Perm) -> bool:
    """The channels-last domain has no global pools: a reduction takes their place."""
    source = node.inputs[0]
    if source is None:
        return False
    axes = np.arange(1, len(perm) - 1, dtype=np.int64)
    label = engine.free_name(f"{node.name}_axes")
    constant = dialect.add_initializer(engine.graph, label, axes)
    node.op_type = _GLOBAL_POOLS[node.op_type]
    node.resize_inputs(2)
    node.replace_input_with(0, engine.get(source, perm, node))
    node.replace_input_with(1, constant)
    node.attributes["keepdims"] = onnx_ir.AttrInt64("keepdims", 1)
    engine.put(node.outputs[0], perm)
    return True


def _spell_out_window(engine: Relayout, node: Node, rank: int) -> None:
    """Write the attributes of windows that readers of channels-last files insist on."""
    if node.op_type == "BatchNormalization":
        return
    spatial = rank - 2
    given = node.attributes
    if "kernel_shape" not in given:
        weight = node.inputs[1]
        shape = [] if weight is None else logical_sizes(engine, weight)
        sizes = [size for size in shape[2:] if isinstance(size, int)]
        if len(sizes) == spatial:
            given["kernel_shape"] = onnx_ir.AttrInt64s("kernel_shape", sizes)
    _default(node, "strides", [1] * spatial)
    if node.op_type == "Conv":
        _default(node, "dilations", [1] * spatial)
        if "group" not in given:
            given["group"] = onnx_ir.AttrInt64("group", 1)
    auto = given.get("auto_pad")
    if auto is None or auto.value == "NOTSET":
        _default(node, "pads", [0] * (2 * spatial))
    else:
        _spell_out_pads(engine, node, spatial, str(auto.value))


def _default(node: Node, name: str, numbers: list[int]) -> None:
    if name not in node.attributes:
        node.attributes[name] = onnx_ir.AttrInt64s(name, numbers)


def _spell_out_pads(engine: Relayout, node: Node, spatial: int, mode: str) -> None:
    """Replace ``auto_pad`` by the pads that it stands for; left where sizes are unknown."""
    source, kernel = node.inputs[0], node.attributes.get("kernel_shape")
    sizes = [] if source is None else logical_sizes(engine, source)
    known = [size for size in sizes[2:] if isinstance(size, int)]
    if mode != "VALID" and (kernel is None or len(known) != spatial):
        return
    taps = [1] * spatial if kernel is None else [int(size) for size in kernel.value]
    pads = explicit_pads(node, known or [1] * spatial, taps)
    del node.attributes["auto_pad"]
    node.attributes["pads"] = onnx_ir.AttrInt64s("pads", pads)


@dataclass(frozen=True, slots=True)
class Turned:
    """What a change of layout did.

    Attributes:
        modified: Whether anything changed.
        inputs: Names of the graph inputs that have another layout now.
        outputs: Likewise of the outputs.
    """

    modified: bool
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


def turn_last(model: Model, *, inputs: bool, outputs: bool) -> Turned:
    """Make every operator that has a channels-last form one.

    Args:
        model: The model, changed in place.
        inputs: Whether graph inputs are turned too.
        outputs: Whether graph outputs are.
    """
    names = {*dialect.CHANNELS_LAST_OPERATORS, *_GLOBAL_POOLS}
    rules = {**RULES, **{("", name): _turn_last for name in names}}
    engine = Relayout(model, to_last, wished_last, rules, passing_inputs)
    return _turn(engine, inputs, outputs)


def turn_first(model: Model, *, inputs: bool, outputs: bool) -> Turned:
    """Make every channels-last operator a standard one; see :func:`turn_last`."""
    domain, names = dialect.CHANNELS_LAST_DOMAIN, dialect.CHANNELS_LAST_OPERATORS
    rules = {**RULES, **{(domain, name): _turn_first for name in names}}
    engine = Relayout(model, to_first, wished_first, rules, passing_inputs)
    return _turn(engine, inputs, outputs)


def _turn(engine: Relayout, inputs: bool, outputs: bool) -> Turned:
    model = engine.model
    read = read_initializers(model.graph)
    FoldWeightLayout()(model)
    find_demands(engine)
    if inputs:
        turn_inputs(engine)
    engine.walk(captured_reads(model.graph))
    engine.finish(outputs)
    engine.sweep()
    drop_unread(model.graph, read)
    used_domains(model)
    return Turned(engine.modified, tuple(engine.turned_inputs), tuple(engine.turned_outputs))


def ends_last(model: Model, *, inputs: bool, outputs: bool) -> bool:
    """Return whether inputs or outputs are channels last around channels-first operators."""
    if not any(_as_it_is(node) is not None for node in model.graph):
        return False
    engine = Relayout(model, to_first, wished_first, RULES, passing_inputs)
    find_demands(engine)
    asked = [(value, engine.demand(value)) for value in model.graph.inputs]
    if inputs and any(perm == to_first(len(perm)) for _, perm in asked if perm is not None):
        return True
    makers = [value.producer() for value in model.graph.outputs] if outputs else []
    moves = [None if node is None else perm_of(node) for node in makers]
    return any(
        perm is not None and len(perm) > 2 and perm == to_last(len(perm)) for perm in moves
    )
