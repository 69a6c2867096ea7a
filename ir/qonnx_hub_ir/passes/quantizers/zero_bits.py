"""Elements of no bits are zeros in front of a quantizer that has bits for all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx_ir import Model, Node
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.constants import constant_shape
from qonnx_hub_ir.graph.queries import every_quantizer, fits_into
from qonnx_hub_ir.quantizers import Array

_FEWEST = 2.0
"""Bits that an element gets which had none: one signed bit would have no zero."""


@dataclass(frozen=True)
class SpellZeroBits(InPlacePass):
    """Give elements of bit width 0, which pruning leaves, the value 0 in another way.

    Before -> after: ``Quant([0.7, 0.3], s, 0, [4, 0])`` -> ``Quant([0.7, 0], s, 0, [4, 4])``.
    What is computed goes through a Where instead.

    Does not fire on one bit width of 0 for all, which is a mistake, nor with zero points:
    then it is not known what the element is.
    """

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        modified = False
        for node in every_quantizer(model):
            modified |= node.op_type == "Quant" and _spell(node)
        return PassResult(model, modified=modified)


def _spell(node: Node) -> bool:
    x, zero, bits = node.inputs[0], *map(dialect.constant_value, node.inputs[2:4])
    if x is None or bits is None or bits.size == 1 or zero is None or np.any(zero):
        return False
    shape, pruned = constant_shape(x) or x.shape, bits == 0
    whole = None if shape is None else tuple(d if isinstance(d, int) else None for d in shape)
    if not np.any(pruned) or not fits_into(pruned.shape, whole):
        return False
    emit, known = Emitter(node), dialect.constant_value(x)
    if known is not None:
        values: Array = np.where(pruned, known.dtype.type(0), known)
        node.replace_input_with(0, emit.constant("values", values))
    else:
        dtype = np.float32 if x.dtype is None else x.dtype.numpy()
        nil = emit.constant("zero", np.zeros((), dtype=dtype))
        kept = emit.constant("kept", ~pruned)
        node.replace_input_with(0, emit.add("Where", [kept, x, nil], x))
    larger = bits[bits > 1]
    fewest = bits.dtype.type(larger.min() if larger.size else _FEWEST)
    node.replace_input_with(3, emit.constant("bits", np.where(pruned, fewest, bits)))
    return True
