"""What a marker becomes: one ``Quant`` node, or torch's rounding before one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx_ir import Graph, Node, Value

from qonnx_hub_adapters.pytorch.affine import (
    LARGEST_SNAPPED,
    Affine,
    Said,
    is_same,
    say,
    say_on_integers,
)
from qonnx_hub_adapters.pytorch.options import EXACT
from qonnx_hub_adapters.pytorch.programs import Found
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
class Form:
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


def expand(node: Node, key: str, found: Found, mode: str) -> Form:
    """Put nodes in the place of a marker, and say which form they have.

    Args:
        node: The marker.
        key: Name of the quantizer.
        found: What it does.
        mode: "exact" or "quant".

    Raises:
        SourceError: The marker lost its input.
    """
    owner, x = node.graph, node.inputs[0]
    if not isinstance(owner, Graph) or x is None:
        raise SourceError(f"quantizer '{key}' has no input")
    node.name = key
    node.outputs[0].name = key if found.stored is None else f"{key}{QUANTIZED}"
    node.outputs[0].metadata_props[dialect.PROVENANCE] = key
    said = say(found.affine)
    writer = _Writer(owner, node, key)
    if found.stored is not None:
        form, value = STORED, writer.stored(found.stored, said)
    elif is_same(found.affine, said):
        form, value = PROVEN, writer.quant(x, said)
    elif mode != EXACT:
        form, value = UNPROVEN, writer.quant(x, said)
    elif _snaps(found.affine):
        form, value = SNAPPED, writer.snapped(x, found.affine, said)
    else:
        form, value = SCALED, writer.on_integers(x, found.affine)
    writer.emit.replace_with(value)
    return Form(key, form)


def _snaps(affine: Affine) -> bool:
    largest = max(abs(affine.low), abs(affine.high)) + float(np.abs(affine.zero_point).max())
    return largest <= LARGEST_SNAPPED


class _Writer:
    """Writes the nodes of one quantizer in front of its marker."""

    def __init__(self, graph: Graph, node: Node, key: str) -> None:
        self.graph = graph
        self.node = node
        self.key = key
        self.emit = Emitter(node)

    def quant(self, x: Value, said: Said) -> Value:
        """Return the value of one ``Quant`` node, limited where its bits say too much."""
        return self._limited(self._node(x, said.quant, self.key), said.limits)

    def snapped(self, x: Value, affine: Affine, said: Said) -> Value:
        """Return torch's rounding, then the ``Quant`` node, which finds its own grid there."""
        inverse = self.emit.constant("inverse", affine.inverse)
        scale = self.emit.constant("scale", affine.scale)
        whole = self.emit.add("Round", [self.emit.add("Mul", [x, inverse])])
        return self.quant(self.emit.add("Mul", [whole, scale]), said)

    def on_integers(self, x: Value, affine: Affine) -> Value:
        """Return a quantizer of integers between the products: for codes of many digits."""
        unit = say_on_integers(affine)
        inverse = self.emit.constant("inverse", affine.inverse)
        scale = self.emit.constant("scale", affine.scale)
        whole = self.quant(self.emit.add("Mul", [x, inverse]), unit)
        return self.emit.add("Mul", [whole, scale])

    def stored(self, values: Array, said: Said) -> Value:
        """Return values that lie on the grid already, followed by the node that says so.

        Where the node would move them, which happens to codes of more digits than float32
        holds, they stay alone.
        """
        fresh = dialect.add_initializer(self.graph, self.key, values.astype(np.float32))
        fresh.metadata_props[dialect.PROVENANCE] = self.key
        if not np.array_equal(quantize(values, said.quant), values):
            return self.emit.add("Identity", [fresh])
        return self._node(fresh, said.quant, f"{self.key}{QUANTIZED}")

    def _node(self, x: Value, quant: IntQuant, name: str) -> Value:
        node = dialect.quantizer_node(x, quant, name, self.graph)
        out = node.outputs[0]
        out.type, out.shape = self.node.outputs[0].type, self.node.outputs[0].shape
        self.node.prepend(node)
        return out

    def _limited(self, value: Value, limits: tuple[Array, Array] | None) -> Value:
        if limits is None:
            return value
        low, high = limits
        if low.size == 1:
            ends = [low.reshape(()), high.reshape(())]
            return self.emit.add(
                "Clip",
                [value, *(self.emit.constant("limit", end) for end in ends)],
            )
        above = self.emit.add("Max", [value, self.emit.constant("lowest", low)])
        return self.emit.add("Min", [above, self.emit.constant("highest", high)])
