"""Quantizers lose their zero points, for hardware that has none."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from onnx_ir import Model, Node
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect
from qonnx_hub_ir.effects import Effect
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.constants import full_rank
from qonnx_hub_ir.graph.queries import known
from qonnx_hub_ir.graph.rewriting import rewrite_nodes
from qonnx_hub_ir.quantizers import Array, IntQuant, integer_bounds, single_value
from qonnx_hub_ir.semantics import quantize


@dataclass(frozen=True)
class Symmetrize(InPlacePass):
    """Give quantizers with a zero point other than 0 one of 0, and as fine a scale as fits.

    Before -> after::

        Quant(x, s, z, b){unsigned}    values from -z * s to (2^b - 1 - z) * s
        Quant(x, s', 0, b){signed}     s' = max(z * s / 2^(b - 1), (2^b - 1 - z) * s /
                                            (2^(b - 1) - 1))

    The width stays, no value that the quantizer had is cut off, and where none is negative the
    new one is unsigned. A weight is quantized anew by its largest magnitude, per channel where
    its scale is. An unsigned quantizer whose zero point is the middle keeps every value.

    Does not fire on a zero point of 0 nor on parameters that are computed at run time.
    """

    effect = Effect.VALUES

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        return PassResult(model, modified=rewrite_nodes(model.graph, _symmetrize))


def _symmetrize(node: Node) -> bool:
    quant = known(node) if dialect.is_quantizer(node) else None
    x = node.inputs[0]
    if x is None or not isinstance(quant, IntQuant) or not np.any(quant.zero_point):
        return False
    bits = single_value(quant.bits)
    if bits is None:
        return False
    low, high = _ends(node, quant, bits)
    signed = bool(np.any(low < 0))
    lowest, highest = integer_bounds(bits, signed=signed, narrow=False)
    below = low / np.float32(lowest) if signed else np.zeros_like(high)
    scale = np.maximum(below, high / np.float32(highest)).astype(np.float32)
    scale = np.where(scale > 0, scale, np.float32(1)).astype(np.float32)
    plain = dataclasses.replace(
        quant,
        scale=scale,
        zero_point=np.zeros((), dtype=np.float32),
        signed=signed,
        narrow=False,
        zero_point_after_rounding=False,
    )
    emit = Emitter(node)
    emit.replace_with(emit.quantizer(x, plain, name=str(node.name)))
    return True


def _ends(node: Node, quant: IntQuant, bits: float) -> tuple[Array, Array]:
    """Return the lowest and the highest value to keep, in the shape of the scale."""
    scale, zero = (
        np.asarray(p, dtype=np.float32)
        for p in np.broadcast_arrays(np.asarray(quant.scale), np.asarray(quant.zero_point))
    )
    weight = dialect.constant_value(node.inputs[0])
    if weight is not None:
        values, axes = np.abs(quantize(weight, quant)), None
        if scale.size > 1:
            sizes = full_rank(scale, values.ndim).shape
            axes = tuple(axis for axis, size in enumerate(sizes) if size == 1)
        largest = np.max(values, axis=axes, initial=0).reshape(scale.shape)
        return -largest, largest
    low, high = integer_bounds(bits, signed=quant.signed, narrow=quant.narrow)
    return (np.float32(low) - zero) * scale, (np.float32(high) - zero) * scale
