"""Quantizers of values that lie on their grid already are taken out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx_ir import Model, Node, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect
from qonnx_hub_ir.analysis.value_sets import MOST_VALUES, ValueSets
from qonnx_hub_ir.graph.rewriting import bypass, rewrite_nodes
from qonnx_hub_ir.quantizers import Array, IntQuant, Quantizer, is_bipolar
from qonnx_hub_ir.semantics import quantize


@dataclass(frozen=True)
class RemoveRedundantQuant(InPlacePass):
    """Remove quantizers that return every value that they can be given.

    Before -> after::

        y = Quant{8 bits}(MaxPool(Quant{4 bits}(x, s, z, b)), s, z, c)
        y = MaxPool(Quant{4 bits}(x, s, z, b))

    The values that can arrive are those of the quantizers behind it, seen through operators
    that choose, move, clip or join values (MaxPool, Reshape, Relu, Clip, Concat, Pad ...). All
    of them are listed and quantized: only a quantizer that changes none of them goes. That
    two quantizers have the same parameters is not enough: with FLOOR, a quotient that rounds
    to just below a whole number is a step too low the second time.

    Does not fire on constants, whose quantizer says what is stored, on run-time parameters,
    on more than some million values, and where a NaN would come out as something else.
    """

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        sets = ValueSets()

        def remove(node: Node) -> bool:
            value = _redundant(node, sets)
            return value is not None and bypass(node, value)

        return PassResult(model, modified=rewrite_nodes(model.graph, remove))


def _redundant(node: Node, sets: ValueSets) -> Value | None:
    """Return the input of a quantizer that returns every value it can be given."""
    if not dialect.is_quantizer(node) or node.op_type == "Trunc":
        return None
    x = node.inputs[0]
    if x is None or dialect.constant_value(x) is not None:
        return None
    quant = dialect.read_quantizer(node)
    known = [array for array in dialect.parameters(quant) if array is not None]
    if len(known) < len(dialect.parameters(quant)):
        return None
    found = sets.of(x)
    makes_nan_a_code = is_bipolar(quant) or (
        isinstance(quant, IntQuant) and quant.zero_point_after_rounding
    )
    if found is None or (found.keeps_nan and makes_nan_a_code):
        return None
    return x if _returns_all(quant, found.values, [array.shape for array in known]) else None


def _returns_all(quant: Quantizer, values: Array, shapes: list[tuple[int, ...]]) -> bool:
    """Return whether a quantizer returns all values, in every channel that they can be in."""
    aligned = np.broadcast_shapes(values.shape[1:], *(s for s in shapes if np.prod(s) != 1))
    if int(np.prod(aligned, dtype=np.int64)) * len(values) > MOST_VALUES:
        return False
    rank = len(aligned)
    own = values.shape[1:]
    lifted = values.reshape(len(values), *(1,) * (rank - len(own)), *own)
    every = np.broadcast_to(lifted, (len(values), *aligned))
    return bool(np.array_equal(quantize(every, quant), every))
