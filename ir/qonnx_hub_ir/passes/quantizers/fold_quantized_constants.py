"""Quantized constants are stored as what their quantizers make of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx_ir import Model, Node
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect
from qonnx_hub_ir.analysis.integer_sums import FLOAT32_WHOLE
from qonnx_hub_ir.annotations import DATATYPE, annotate
from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.rewriting import replace_node, rewrite_nodes
from qonnx_hub_ir.passes.quantizers.integer_type import integer_type
from qonnx_hub_ir.quantizers import (
    Array,
    BipolarQuant,
    IntQuant,
    Quantizer,
    integer_bounds,
    is_bipolar,
    single_value,
)
from qonnx_hub_ir.semantics import quantize, quantize_to_integers

FORMS = ("integers", "floats")


@dataclass(frozen=True)
class FoldQuantizedConstants(InPlacePass):
    """Compute the quantizers of constants: integers and their scale, or floats on the grid.

    Before -> after (``integers``, zero point 0)::

        w = Quant(weight, s, 0, b)
        w = Mul(codes, s)

    Before -> after (``floats``)::

        w = Quant(weight, s, z, b)
        w = the quantized weight, an initializer

    The integers are stored as float32, as ONNX multiplies them; a zero point is subtracted
    before the scale, and neither node is written where it would do nothing. They carry their
    integer type as a quantization annotation ``finn_datatype``, which the qonnx package reads.

    Does not fire on run-time parameters and float types other than float32; with ``integers``
    neither on FloatQuant and Trunc, on NaN, nor on codes beyond 2^24, which float32 cannot
    hold.

    Attributes:
        form: "integers" or "floats".

    Raises:
        PassError: No such form.
    """

    form: str = "integers"

    def requires(self, model: Model) -> None:
        """Refuse a form that does not exist."""
        if self.form not in FORMS:
            raise PassError(f"unknown form '{self.form}'; there are: {', '.join(FORMS)}")

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        return PassResult(model, modified=rewrite_nodes(model.graph, self._fold))

    def _fold(self, node: Node) -> bool:
        found = _read(node)
        if found is None:
            return False
        if self.form == "integers":
            return _write_integers(Emitter(node), *found)
        # An initializer keeps its own name.
        value = Emitter(node).constant("quantized", quantize(*found))
        replace_node(node, value, keep_name=False, keep_type=False)
        return True


def _read(node: Node) -> tuple[Array, Quantizer] | None:
    """Return constant and quantizer, where a node quantizes a float32 constant."""
    if not dialect.is_quantizer(node):
        return None
    values = dialect.constant_value(node.inputs[0])
    if values is None or values.dtype != np.float32:
        return None
    quant = dialect.read_quantizer(node)
    known = all(parameter is not None for parameter in dialect.parameters(quant))
    return (values, quant) if known else None


def _write_integers(emit: Emitter, values: Array, quant: Quantizer) -> bool:
    if not isinstance(quant, (IntQuant, BipolarQuant)) or np.isnan(values).any():
        return False
    kind = _type_of(quant)
    if kind is None:
        return False
    codes = quantize_to_integers(values, quant)
    value = emit.constant("integers", codes.astype(np.float32))
    annotate(value, {DATATYPE: kind})
    zero = None if isinstance(quant, BipolarQuant) else quant.zero_point
    value = emit.scaled(value, quant.scale, zero)
    computed = value.producer() is not None
    replace_node(emit.node, value, keep_name=computed, keep_type=computed)
    return True


def _type_of(quant: IntQuant | BipolarQuant) -> str | None:
    """Return the integer type of the codes; ``None`` where float32 cannot hold them."""
    if isinstance(quant, BipolarQuant) or is_bipolar(quant):
        return "BIPOLAR"
    widest = float(np.max(np.asarray(quant.bits)))
    low, high = integer_bounds(widest, signed=quant.signed, narrow=quant.narrow)
    if max(-low, high) > FLOAT32_WHOLE:
        return None
    if quant.narrow and quant.signed and single_value(quant.bits) == 2:
        return "TERNARY"
    return integer_type(int(widest), signed=quant.signed)
