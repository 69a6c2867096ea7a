"""Nodes that return what they are given are taken out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from onnx_ir import Graph, Model, Node, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.queries import attribute, dims, fits_into
from qonnx_hub_ir.graph.rewriting import bypass
from qonnx_hub_ir.lowering import im2col

_TELLS_ZEROS_APART = frozenset({"Atan2", "BitCast", "Div", "Pow", "Reciprocal"})
"""Standard operators for which -0.0 and 0.0 are different inputs."""


@dataclass(frozen=True)
class RemoveIdentity(InPlacePass):
    """Remove nodes that return their input unchanged.

    Before -> after: ``y = Relu(Mul(Dropout(x), 1))`` -> ``y = Relu(x)``. Removed are:

    1. Identity; Dropout at inference whose mask nobody reads.
    2. Mul and Div by 1, Sub of 0, Add of 0, where broadcasting does not change the shape.
    3. Transpose, Reshape, Flatten, Expand, Pad and Cast that change nothing.
    4. Concat, Sum, Max, Min and Mean of a single input.

    Does not fire where a graph output would be an input, an initializer or another output. A
    0.0 is not added away (-0.0 + 0.0 is 0.0) in a graph that tells the two zeros apart: by a
    Div whose divisor is computed, Reciprocal, Pow, or an operator that is not known.
    """

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        modified = False
        finder = _Finder(model)
        for graph in (model.graph, *model.graph.subgraphs()):
            modified |= _clean(graph, finder)
        return PassResult(model, modified=modified)


def _clean(graph: Graph, finder: _Finder) -> bool:
    modified = False
    for node in list(graph):
        same = finder.same_as_output(node)
        if same is not None:
            modified |= bypass(node, same)
    return modified


class _Finder:
    """Finds the input that a node returns unchanged."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._zeros_differ: bool | None = None

    def same_as_output(self, node: Node) -> Value | None:
        if node.domain != "" or not node.inputs:
            return None
        rule = _RULES.get(node.op_type)
        found = None if rule is None else rule(node)
        if found is None or not _adds_plain_zero(node) or not self.zeros_differ:
            return found
        return None

    @property
    def zeros_differ(self) -> bool:
        """Whether anything in the model tells -0.0 from 0.0."""
        if self._zeros_differ is None:
            self._zeros_differ = any(map(_tells_apart, self._model.graph.all_nodes()))
        return self._zeros_differ


def _tells_apart(node: Node) -> bool:
    if node.domain != "":
        ours = dialect.is_quantizer(node) or dialect.is_thresholds(node)
        ours |= im2col.is_im2col(node)
        return not ours and node.domain != dialect.CHANNELS_LAST_DOMAIN
    if node.op_type == "Div":
        return dialect.constant_value(node.inputs[1]) is None
    return node.op_type in _TELLS_ZEROS_APART


def _adds_plain_zero(node: Node) -> bool:
    """Return whether the node turns -0.0 into 0.0, by adding 0.0 or subtracting -0.0."""
    if node.op_type not in {"Add", "Sub"}:
        return False
    for value in node.inputs[1:] if node.op_type == "Sub" else node.inputs:
        known = dialect.constant_value(value)
        if known is not None and known.dtype.kind not in "iub" and not np.any(known):
            plain = np.signbit(known) == (node.op_type == "Sub")
            return bool(np.any(plain))
    return False


def _first(node: Node) -> Value | None:
    return node.inputs[0]


def _dropout(node: Node) -> Value | None:
    if any(v.uses() or v.is_graph_output() for v in node.outputs[1:]):
        return None
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        training = dialect.constant_value(node.inputs[2])
        if training is None or bool(np.any(training)):
            return None
    return node.inputs[0]


def _neutral(number: int, *, either: bool) -> Callable[[Node], Value | None]:
    """Return a rule for two inputs, one of which must be ``number`` everywhere."""

    def rule(node: Node) -> Value | None:
        for index in (1, 0) if either else (1,):
            known = dialect.constant_value(node.inputs[index])
            other = node.inputs[1 - index]
            if known is None or other is None or not bool(np.all(known == number)):
                continue
            if fits_into(known.shape, dims(other)):
                return other
        return None

    return rule


def _same_shape(node: Node) -> Value | None:
    before, after = dims(node.inputs[0]), dims(node.outputs[0])
    if before is None or before != after or None in before:
        return None
    return node.inputs[0]


def _transpose(node: Node) -> Value | None:
    perm = attribute(node, "perm", None)
    if perm is None:
        rank = dims(node.inputs[0])
        return node.inputs[0] if rank is not None and len(rank) < 2 else None
    return node.inputs[0] if list(perm) == sorted(perm) else None


def _pad(node: Node) -> Value | None:
    pads = dialect.constant_value(node.inputs[1]) if len(node.inputs) > 1 else None
    return node.inputs[0] if pads is not None and not np.any(pads) else None


def _cast(node: Node) -> Value | None:
    source = node.inputs[0]
    same = source is not None and source.dtype == attribute(node, "to", None)
    return source if same else None


def _single(node: Node) -> Value | None:
    return node.inputs[0] if len(node.inputs) == 1 else None


_RULES: Mapping[str, Callable[[Node], Value | None]] = {
    "Identity": _first,
    "Dropout": _dropout,
    "Mul": _neutral(1, either=True),
    "Div": _neutral(1, either=False),
    "Add": _neutral(0, either=True),
    "Sub": _neutral(0, either=False),
    "Transpose": _transpose,
    "Reshape": _same_shape,
    "Flatten": _same_shape,
    "Expand": _same_shape,
    "Pad": _pad,
    "Cast": _cast,
    **dict.fromkeys(("Concat", "Max", "Mean", "Min", "Sum"), _single),
}
