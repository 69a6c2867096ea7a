"""What the rules for single operators share: the terms so far, and the new graph."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from onnx_ir import Node, Value

from qonnx_hub_adapters.hls4ml.builder import Builder
from qonnx_hub_adapters.hls4ml.pending_affine import Term
from qonnx_hub_adapters.hls4ml.refusals import refuse
from qonnx_hub_adapters.hls4ml.weights import constant_of
from qonnx_hub_adapters.protocol import QuantizerRecord
from qonnx_hub_ir.describe import describe_quantizer
from qonnx_hub_ir.graph import permutations
from qonnx_hub_ir.graph.constants import full_rank
from qonnx_hub_ir.graph.queries import input_of
from qonnx_hub_ir.quantizers import Array, Quantizer


@dataclass(slots=True)
class Context:
    """The state of a walk over the source.

    Attributes:
        builder: The new graph.
        terms: What each value of the source is in the new graph.
        records: What became of each quantizer, by its name.
        allow_lossy: Whether operators that hls4ml computes by tables may be written.
        ac_types: Whether the back end is one of those written with ``ac_types``, in which
            signs, single bits and depthwise convolutions come out wrong.
        notes: Sentences for the user.
        unknown: Values behind a refusal of which not even the shape is known.
    """

    builder: Builder
    allow_lossy: bool = False
    ac_types: bool = False
    terms: dict[Value, Term] = field(default_factory=dict)
    records: dict[str, QuantizerRecord] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    unknown: set[Value] = field(default_factory=set)

    def data(self, node: Node, index: int = 0) -> Term:
        """Return the term of a node's input.

        Raises:
            RefusedError: The input is a constant.
        """
        value = input_of(node, index)
        if value is None or value not in self.terms:
            raise refuse(node, f"hls4ml takes input {index} only as computed data")
        return self.terms[value]

    def constant(self, node: Node, index: int) -> Array | None:
        """Return the values of a node's constant input, else ``None``."""
        return constant_of(input_of(node, index))

    def bias(self, node: Node) -> Array | None:
        """Return a layer's bias in one row, float32; ``None`` if it has none.

        Raises:
            RefusedError: It is computed.
        """
        bias = self.constant(node, 2)
        if bias is None and input_of(node, 2) is not None:
            raise refuse(node, "its bias is computed")
        return None if bias is None else bias.astype(np.float32).reshape(-1)

    def record(self, name: str, quant: Quantizer, encoding: str) -> None:
        """Note what became of a quantizer of the source."""
        words = describe_quantizer(quant)
        self.records[name] = QuantizerRecord(name, words, encoding)

    def settle(self, term: Term, *, for_quantizer: bool = False) -> Term:
        """Return the term with nothing left to be done."""
        return self.builder.settle(term, for_quantizer=for_quantizer)

    def laid_out(self, term: Term, axes: tuple[int, ...], node: Node) -> Term:
        """Return the term stored with its axes in these places, and rows in order.

        Raises:
            RefusedError: Its rows are stored in another order.
        """
        if term.order is not None:
            raise refuse(
                node, "reads flattened channels-last rows in the order of channels-first"
            )
        if term.axes == axes:
            return term
        term = self.settle(term)
        perm = permutations.compose(term.axes, permutations.inverse(axes))
        made = Term(term.value, term.shape, axes)
        return self.builder.put(made, "Transpose", [term.value], {"perm": perm})


def channel_values(term: Term, values: Array, node: Node) -> Array:
    """Return a constant operand as one value per stored channel, or one for all.

    Raises:
        RefusedError: It differs along another axis than the one that is stored last.
    """
    if not np.all(np.isfinite(values)):
        raise refuse(node, "a constant that is not finite: no fixed-point type holds it")
    if values.size == 1:
        return values.reshape(())
    rank = len(term.shape)
    if values.ndim > rank:
        raise refuse(node, "a constant of more axes than its partner")
    if term.flat:
        return np.broadcast_to(values, term.shape).reshape(-1)
    channel = term.axes.index(rank - 1)
    full = np.moveaxis(full_rank(values, rank), channel, 0)
    rows = full.reshape(len(full), -1)
    if np.any(rows != rows[:, :1]):
        raise refuse(
            node,
            "a constant that differs along another axis than the channels",
            "hls4ml's batch normalization holds one value per channel",
        )
    flat = rows[:, 0]
    if flat.size == 1:
        return flat.reshape(())
    if flat.size != term.shape[channel]:
        raise refuse(node, "a constant that makes its partner larger")
    return flat if term.order is None else flat[term.order]
