"""A division by a constant as a product."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx_ir import Model, Node
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect
from qonnx_hub_ir.effects import Effect
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.queries import is_standard
from qonnx_hub_ir.graph.rewriting import rewrite_nodes
from qonnx_hub_ir.quantizers import Array, is_power_of_two


@dataclass(frozen=True)
class DivToMul(InPlacePass):
    """Replace the division by a constant of floats by the product with its reciprocal.

    Before -> after: ``Div(x, 4)`` -> ``Mul(x, 0.25)``. The reciprocal of a power of two is
    exact; others round, and so do their products. Does not fire on integers, on zeros, on
    numbers whose reciprocal is too large or too small for the type, nor where the divisor is
    computed.

    Attributes:
        exact: Replace only divisions by powers of two.
    """

    exact: bool = False

    @property
    def effect(self) -> Effect:
        """What it promises about the outputs."""
        return Effect.EXACT if self.exact else Effect.ROUNDING

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        return PassResult(model, modified=rewrite_nodes(model.graph, self._rewrite))

    def _rewrite(self, node: Node) -> bool:
        known = dialect.constant_value(node.inputs[1]) if is_standard(node, "Div") else None
        if known is None or known.dtype.kind != "f" or not np.all(np.isfinite(known)):
            return False
        reciprocal = _reciprocal(known)
        if reciprocal is None or (self.exact and not is_power_of_two(np.abs(known))):
            return False
        emit = Emitter(node)
        factor = emit.constant("reciprocal", reciprocal)
        emit.replace_with(emit.add("Mul", [node.inputs[0], factor], node.outputs[0]))
        return True


def _reciprocal(known: Array) -> Array | None:
    if not np.all(known):
        return None
    with np.errstate(all="ignore"):
        found = np.asarray(1.0 / known, dtype=known.dtype)
    normal = np.abs(found) >= np.finfo(known.dtype).tiny
    return found if bool(np.all(np.isfinite(found) & normal)) else None
