"""Rounding modes without a QONNX name are lowered to standard operators."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir
from onnx_ir import Model, Node, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.builder import Emitter, copy_node
from qonnx_hub_ir.lowering.quantizer_operators import write_rounded
from qonnx_hub_ir.quantizers import IntQuant, Parameter, Rounding, is_bipolar

_MOST_BITS = 20
"""Up to here a whole number survives being scaled and scaled back in float32, rounded."""


@dataclass(frozen=True)
class SpellOutRounding(InPlacePass):
    """Round by standard operators in front of a Quant whose mode QONNX does not name.

    Before -> after::

        y = Quant{DPU}(x, s, z, b)
        t = x / s + z;  r = Where(t < 0 and t - Floor(t) == 0.5, Ceil(t), Round(t))
        y = Quant{ROUND}((r - z) * s, s, z, b)

    The last Quant only clamps: a value on the grid is rounded to itself. A zero point that is
    added after rounding stays in it, and Add and Sub are not written. One signed bit has two
    levels and does not round: there only the name of the mode changes. Does not fire on other
    quantizers or modes, nor where this would not be exact: float types other than float32, bit
    widths above 20 or computed at run time.
    """

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        nodes = [node for node in model.graph.all_nodes() if can_be_spelled_out(node)]
        for node in nodes:
            _spell_out(node)
        return PassResult(model, modified=bool(nodes))


def can_be_spelled_out(node: Node) -> bool:
    """Return whether the pass fires on this node."""
    if not dialect.is_quantizer(node):
        return False
    quant = dialect.read_quantizer(node)
    if not isinstance(quant, IntQuant) or quant.rounding is not Rounding.DPU:
        return False
    if quant.bits is None or not bool(np.all(quant.bits <= _MOST_BITS)):
        return False
    dtype = node.inputs[0].dtype if node.inputs[0] is not None else None
    return dtype in (None, onnx_ir.DataType.FLOAT)


def _spell_out(node: Node) -> None:
    x, scale, zero, bits = node.inputs
    if x is None or scale is None or zero is None:
        raise ValueError(f"'{node.name}' is not a complete quantizer")
    quant = dialect.read_quantizer(node)
    mode = onnx_ir.AttrString("rounding_mode", str(Rounding.ROUND))
    if not isinstance(quant, IntQuant) or is_bipolar(quant):
        node.attributes["rounding_mode"] = mode
        return
    emit = Emitter(node)
    scale = _as_float32(emit, "scale", scale, quant.scale)
    zero = _as_float32(emit, "zero_point", zero, quant.zero_point)
    t = emit.add("Div", [x, scale])
    if quant.zero_point_after_rounding:
        rounded = write_rounded(emit, quant, t)
    else:
        t = emit.add("Add", [t, zero])
        rounded = emit.add("Sub", [write_rounded(emit, quant, t), zero])
    on_grid = emit.add("Mul", [rounded, scale])
    clamp = copy_node(node, [on_grid, scale, zero, bits], name=str(node.name))
    clamp.attributes["rounding_mode"] = mode
    emit.replace_with(emit.insert(clamp))


def _as_float32(emit: Emitter, label: str, value: Value, known: Parameter) -> Value:
    """Return a parameter as standard operators take it beside a float32 input."""
    if known is None or known.dtype == np.float32:
        return value
    return emit.constant(label, known.astype(np.float32))
