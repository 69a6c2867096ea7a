"""What a marker becomes: one ``Quant`` node, or torch's rounding before one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx_ir import Node, Value

from qonnx_hub_adapters.pytorch.affine import (
    LARGEST_SNAPPED,
    Affine,
    LimitedQuant,
    integer_quant_of,
    is_same,
    quant_of,
)
from qonnx_hub_adapters.pytorch.programs import MarkedQuantizer
from qonnx_hub_adapters.torch_common.options import EXACT
from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import SourceError
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.quantizers import Array, IntQuant
from qonnx_hub_ir.semantics import quantize

QUANTIZED = "_quant"
"""Added to the name of a stored tensor, for the quantizer that it stands behind."""

STORED = "stored"
PROVEN = "proven"
SNAPPED = "rounded first"
SCALED = "on integers"
UNPROVEN = "not proven"


@dataclass(frozen=True, slots=True)
class WrittenQuantizer:
    """How one quantizer was written.

    Attributes:
        name: The quantizer.
        form: "stored" (its values are constant), "proven" (a ``Quant`` node that computes the
            same for every float32), "rounded first" (torch's Mul, Round and Mul before it),
            "on integers" (between torch's Mul by 1/scale and a Mul by scale), or "not proven"
            (a ``Quant`` node that was asked for).
    """

    name: str
    form: str


def expand(node: Node, key: str, found: MarkedQuantizer, mode: str) -> WrittenQuantizer:
    """Put nodes in the place of a marker, and say which form they have.

    Args:
        node: The marker.
        key: Name of the quantizer.
        found: What it does.
        mode: "exact" or "quant".

    Raises:
        SourceError: The marker lost its input.
    """
    x = node.inputs[0]
    if node.graph is None or x is None:
        raise SourceError(f"quantizer '{key}' has no input")
    node.name = key
    node.outputs[0].name = key if found.stored is None else f"{key}{QUANTIZED}"
    node.outputs[0].metadata_props[dialect.PROVENANCE] = key
    emit, affine = Emitter(node), found.affine
    said = quant_of(affine)
    if found.stored is not None:
        form, value = STORED, _stored(emit, found.stored, said.quant)
    elif is_same(affine, said):
        form, value = PROVEN, _quantized(emit, x, said)
    elif mode != EXACT:
        form, value = UNPROVEN, _quantized(emit, x, said)
    else:
        inverse, scale = (
            emit.constant("inverse", affine.inverse),
            emit.constant("scale", affine.scale),
        )
        value = emit.add("Mul", [x, inverse])
        if _survives_scaling(affine):
            # Torch's rounding first: the Quant node then finds its own grid there.
            form, whole = SNAPPED, emit.add("Round", [value])
            value = _quantized(emit, emit.add("Mul", [whole, scale]), said)
        else:
            # Codes of many digits: a quantizer of integers between the two products.
            form, whole = SCALED, _quantized(emit, value, integer_quant_of(affine))
            value = emit.add("Mul", [whole, scale])
    emit.replace_with(value)
    return WrittenQuantizer(key, form)


def _survives_scaling(affine: Affine) -> bool:
    largest = max(abs(affine.low), abs(affine.high)) + float(np.abs(affine.zero_point).max())
    return largest <= LARGEST_SNAPPED


def _stored(emit: Emitter, values: Array, quant: IntQuant) -> Value:
    """Return values that lie on the grid already, followed by the node that says so.

    Where the node would move them, which happens to codes of more digits than float32 holds,
    they stay alone.
    """
    key = str(emit.node.name)
    fresh = dialect.add_initializer(emit.graph, key, values.astype(np.float32))
    fresh.metadata_props[dialect.PROVENANCE] = key
    if not np.array_equal(quantize(values, quant), values):
        return emit.add("Identity", [fresh])
    return emit.quantizer(fresh, quant, name=f"{key}{QUANTIZED}")


def _quantized(emit: Emitter, x: Value, said: LimitedQuant) -> Value:
    """Return the value of one ``Quant`` node, limited where its bits say too much."""
    value = emit.quantizer(x, said.quant, name=str(emit.node.name))
    if said.limits is None:
        return value
    low, high = said.limits
    if low.size == 1:
        ends = [emit.constant("limit", end.reshape(())) for end in (low, high)]
        return emit.add("Clip", [value, *ends])
    above = emit.add("Max", [value, emit.constant("lowest", low)])
    return emit.add("Min", [above, emit.constant("highest", high)])
