"""What a marker becomes: one ``Quant`` node, or torch's rounding before one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from onnx_ir import Model, Node, Value

from qonnx_hub_adapters.pytorch.affine import (
    LARGEST_SNAPPED,
    LimitedQuant,
    integer_quant_of,
    is_same,
    quant_of,
)
from qonnx_hub_adapters.pytorch.programs import MarkedQuantizer
from qonnx_hub_adapters.torch_common.framework import EXACT
from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import SourceError
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.quantizers import Array, IntQuant
from qonnx_hub_ir.semantics import quantize

FORMS = "qonnx_hub.pytorch.forms"
"""Metadata key of a model: how each quantizer was written, as JSON."""

QUANTIZED = "_quant"
"""Added to the name of a stored tensor, for the quantizer that it stands behind."""

STORED = "stored"
PROVEN = "proven"
SNAPPED = "rounded first"
SCALED = "on integers"
UNPROVEN = "not proven"

_MOST_NAMES = 4
"""Quantizers that a note names."""


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
    """Replace a marker by nodes, and return their form.

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
    limited = quant_of(affine)
    if found.stored is not None:
        form, value = STORED, _stored(emit, found.stored, limited.quant)
    elif is_same(affine, limited):
        form, value = PROVEN, _quantized(emit, x, limited)
    elif mode != EXACT:
        form, value = UNPROVEN, _quantized(emit, x, limited)
    else:
        inverse, scale = (
            emit.constant("inverse", affine.inverse),
            emit.constant("scale", affine.scale),
        )
        value = emit.add("Mul", [x, inverse])
        largest = max(abs(affine.low), abs(affine.high)) + float(
            np.abs(affine.zero_point).max()
        )
        if largest <= LARGEST_SNAPPED:
            # Torch's rounding first: the Quant node then finds its own grid there.
            form, whole = SNAPPED, emit.add("Round", [value])
            value = _quantized(emit, emit.add("Mul", [whole, scale]), limited)
        else:
            # Codes of many digits: a quantizer of integers between the two products.
            form, whole = SCALED, _quantized(emit, value, integer_quant_of(affine))
            value = emit.add("Mul", [whole, scale])
    emit.replace_with(value)
    return WrittenQuantizer(key, form)


def _stored(emit: Emitter, values: Array, quant: IntQuant) -> Value:
    """Return values that lie on the grid already, then a ``Quant`` node that keeps them.

    Where the node would move them, which happens to codes of more digits than float32 holds,
    they stay alone.
    """
    key = str(emit.node.name)
    fresh = dialect.add_initializer(emit.graph, key, values.astype(np.float32))
    fresh.metadata_props[dialect.PROVENANCE] = key
    if not np.array_equal(quantize(values, quant), values):
        return emit.add("Identity", [fresh])
    return emit.quantizer(fresh, quant, name=f"{key}{QUANTIZED}")


def _quantized(emit: Emitter, x: Value, limited: LimitedQuant) -> Value:
    """Return the value of one ``Quant`` node, clipped where its bits hold too much."""
    value = emit.quantizer(x, limited.quant, name=str(emit.node.name))
    if limited.limits is None:
        return value
    low, high = limited.limits
    if low.size == 1:
        ends = [emit.constant("limit", end.reshape(())) for end in (low, high)]
        return emit.add("Clip", [value, *ends])
    above = emit.add("Max", [value, emit.constant("lowest", low)])
    return emit.add("Min", [above, emit.constant("highest", high)])


def attach_forms(model: Model, forms: Sequence[WrittenQuantizer]) -> None:
    """Write into the model's metadata which form each quantizer has."""
    model.metadata_props[FORMS] = json.dumps([asdict(form) for form in forms])
    longer = [form.name for form in forms if form.form in (SNAPPED, SCALED)]
    if longer:
        model.metadata_props[dialect.NOTE] = (
            f"{len(longer)} of {len(forms)} quantizers are not a Quant node alone, because "
            "torch multiplies by the rounded 1/scale where Quant divides: --option mode=quant "
            f"writes Quant nodes only, equal except at ties ({_first(longer)})"
        )
    unproven = [form.name for form in forms if form.form == UNPROVEN]
    if unproven:
        model.metadata_props[dialect.BOUNDED] = (
            "torch multiplies by the rounded 1/scale and adds the zero point after rounding, "
            "where Quant divides and adds before: values within float32 rounding of a tie can "
            f"be one step apart at {len(unproven)} of {len(forms)} quantizers: "
            f"{_first(unproven)}"
        )


def _first(names: Sequence[str]) -> str:
    """Return the first few names; all of them are in the table of quantizers."""
    left = len(names) - _MOST_NAMES
    more = f" and {left} more" if left > 0 else ""
    return f"{', '.join(names[:_MOST_NAMES])}{more}"


def read_forms(model: Model) -> tuple[WrittenQuantizer, ...]:
    """Return how the quantizers of an imported model were written, in order."""
    return tuple(
        WrittenQuantizer(**entry)
        for entry in json.loads(model.metadata_props.get(FORMS, "[]"))
    )
