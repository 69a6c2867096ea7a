"""Layouts of tensors, written down where they are known."""

from __future__ import annotations

from dataclasses import dataclass

from onnx_ir import Model, Node, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.annotations import layout_of, set_layout
from qonnx_hub_ir.graph.constants import is_constant_tree
from qonnx_hub_ir.graph.permutations import perm_of
from qonnx_hub_ir.graph.queries import rank_of

_FIRST = {2: "NC", 3: "NCW", 4: "NCHW", 5: "NCDHW"}
_LAST = {2: "NC", 3: "NWC", 4: "NHWC", 5: "NDHWC"}


@dataclass(frozen=True)
class InferDataLayouts(InPlacePass):
    """Annotate the layouts of tensors that follow from operators and from annotations.

    Before -> after: ``Relu(Conv(x))`` -> ``x`` and its results are ``['N', 'C', 'H', 'W']``.
    Operators with windows say the layout of what they read and make; elementwise ones and
    Transposes hand it on, in both directions. What is annotated stays. Nothing is guessed from
    ranks alone, nor said behind a Reshape. Does not fire where nothing more is known.
    """

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        modified = False
        nodes = list(model.graph)
        for order in (nodes, nodes[::-1], nodes):
            for node in order:
                modified |= _state(node) or _hand_on(node)
        return PassResult(model, modified=modified)


def _set(value: Value | None, axes: list[str] | None) -> bool:
    if value is None or axes is None or is_constant_tree(value):
        return False
    if layout_of(value) is not None or rank_of(value) != len(axes):
        return False
    set_layout(value, axes)
    return True


def _state(node: Node) -> bool:
    """Write down the layout of what an operator with windows reads and makes."""
    last = node.domain == dialect.CHANNELS_LAST_DOMAIN
    windowed = operators.is_convolution(node, any_layout=True)
    if not windowed and operators.pool_of(node, any_layout=True) is None:
        return False
    layouts = _LAST if last else _FIRST
    axes = list(layouts.get(rank_of(node.inputs[0]) or 0, "")) or None
    read = _set(node.inputs[0], axes)
    return _set(node.outputs[0], axes) or read


def _hand_on(node: Node) -> bool:
    if not node.inputs or not node.outputs or node.inputs[0] is None:
        return False
    source, made = node.inputs[0], node.outputs[0]
    perm = perm_of(node)
    if perm is not None:
        before, after = layout_of(source), layout_of(made)
        ahead = (
            [before[axis] for axis in perm] if before and len(before) == len(perm) else None
        )
        back = [after[perm.index(axis)] for axis in range(len(perm))] if after else None
        return _set(made, ahead) or _set(source, back)
    if not (operators.is_elementwise(node) or node.op_type == "BatchNormalization"):
        return False
    same = [value for value in (*node.inputs, made) if value is not None]
    same = [v for v in same if rank_of(v) == rank_of(made) and not is_constant_tree(v)]
    known = [axes for value in same if (axes := layout_of(value)) is not None]
    if not known or any(axes != known[0] for axes in known):
        return False
    return any([_set(value, known[0]) for value in same])  # noqa: C419 - every one of them
