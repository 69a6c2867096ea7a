"""Scales become powers of two, for hardware that shifts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from onnx_ir import Model, Node
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect
from qonnx_hub_ir.effects import Effect
from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.queries import known
from qonnx_hub_ir.graph.rewriting import rewrite_nodes
from qonnx_hub_ir.quantizers import Array, BipolarQuant, IntQuant, is_power_of_two

_TO = ("above", "nearest")


@dataclass(frozen=True)
class PowerOfTwoScales(InPlacePass):
    """Give quantizers the next power of two as scale.

    Before -> after: ``Quant(x, 0.03, z, b)`` -> ``Quant(x, 0.03125, z, b)``. Weights are
    quantized anew, by the new scale of their quantizer; scales per channel become powers of
    two channel by channel.

    Does not fire on scales that are powers of two, on FloatQuant and Trunc, nor on scales that
    are computed at run time.

    Attributes:
        to: "above" takes the next larger one, which cuts off no value; "nearest" the one
            nearest by factor, which is finer for some and cuts off the largest values.

    Raises:
        PassError: Another word.
    """

    to: str = "above"
    effect = Effect.VALUES

    def requires(self, model: Model) -> None:
        """Refuse unknown words."""
        if self.to not in _TO:
            raise PassError(f"to is '{self.to}'; it must be {' or '.join(_TO)}")

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        return PassResult(model, modified=rewrite_nodes(model.graph, self._replace))

    def _replace(self, node: Node) -> bool:
        quant = known(node) if dialect.is_quantizer(node) else None
        x = node.inputs[0]
        if x is None or not isinstance(quant, (IntQuant, BipolarQuant)):
            return False
        scale = np.asarray(quant.scale, dtype=np.float32)
        if is_power_of_two(scale) or not np.all(np.isfinite(scale) & (scale > 0)):
            return False
        emit = Emitter(node)
        fresh = dataclasses.replace(quant, scale=self._power(scale))
        emit.replace_with(emit.quantizer(x, fresh, name=str(node.name)))
        return True

    def _power(self, scale: Array) -> Array:
        mantissa, exponent = np.frexp(scale)  # 0.5 <= mantissa < 1
        if self.to == "above":
            exponent = exponent - (mantissa == 0.5)
        else:
            exponent = exponent - (mantissa < np.sqrt(0.5))
        return np.asarray(np.ldexp(np.float32(1), exponent), dtype=np.float32)
