"""Nodes that return what they are given are taken out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from onnx_ir import Model, Node, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.permutations import keeps_all_axes
from qonnx_hub_ir.graph.queries import attribute, dims, fits_into, input_of, is_read
from qonnx_hub_ir.graph.rewriting import bypass
from qonnx_hub_ir.graph.subgraphs import every_node


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
        zeros_differ: bool | None = None
        for node in every_node(model, functions=False):
            rule = _RULES.get(node.op_type) if node.domain == "" and node.inputs else None
            same = None if rule is None else rule(node)
            if same is None:
                continue
            if _adds_plain_zero(node):
                if zeros_differ is None:
                    zeros_differ = any(
                        operators.tells_zeros_apart(other)
                        for other in model.graph.all_nodes()
                        # The nodes inside of its graphs are asked themselves.
                        if not operators.has_subgraphs(other)
                    )
                if zeros_differ:
                    continue
            modified |= bypass(node, same)
        return PassResult(model, modified=modified)


def _adds_plain_zero(node: Node) -> bool:
    """Return whether the node turns -0.0 into 0.0, by adding 0.0 or subtracting -0.0."""
    if not operators.adds(node):
        return False
    for value in node.inputs[1:] if node.op_type == "Sub" else node.inputs:
        known = dialect.constant_value(value)
        if known is not None and known.dtype.kind not in "iub" and not np.any(known):
            plain = np.signbit(known) == (node.op_type == "Sub")
            return bool(np.any(plain))
    return False


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


def _unchanged_if(test: Callable[[Node], bool]) -> Callable[[Node], Value | None]:
    """Return the rule of operators that return their first input where a test holds."""
    return lambda node: node.inputs[0] if test(node) else None


def _drops_nothing(node: Node) -> bool:
    return operators.is_identity(node) and not any(map(is_read, node.outputs[1:]))


def _keeps_shape(node: Node) -> bool:
    before = dims(node.inputs[0])
    return before is not None and None not in before and before == dims(node.outputs[0])


_RULES: Mapping[str, Callable[[Node], Value | None]] = {
    # Concat, Sum, Max, Min, Mean
    **{
        row.name: _unchanged_if(lambda node: len(node.inputs) == 1)
        for row in operators.where(lambda row: row.inputs.is_variadic)
        if row.elementwise or row.moves is not None
    },
    "Identity": _unchanged_if(_drops_nothing),
    "Dropout": _unchanged_if(_drops_nothing),
    **{
        row.name: _neutral(row.arithmetic.neutral, either=row.commutative is True)
        for row in operators.where(lambda row: row.arithmetic)
        if row.arithmetic is not None
    },
    "Transpose": _unchanged_if(keeps_all_axes),
    "Reshape": _unchanged_if(_keeps_shape),
    "Flatten": _unchanged_if(_keeps_shape),
    "Expand": _unchanged_if(_keeps_shape),
    "Pad": _unchanged_if(
        lambda node: (
            (pads := dialect.constant_value(input_of(node, 1))) is not None
            and not np.any(pads)
        )
    ),
    "Cast": _unchanged_if(
        lambda node: (
            (x := node.inputs[0]) is not None and x.dtype == attribute(node, "to", None)
        )
    ),
}
