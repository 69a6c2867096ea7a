"""What comparing two graphs brings to light: proofs, differences, what has no counterpart."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from onnx_ir import Node, Value

from qonnx_hub.equivalence.proof.certificate import Counterexample, QuantizerProof
from qonnx_hub.equivalence.proof.scalar_equality import ScalarComparison
from qonnx_hub.equivalence.proof.step_functions import differs
from qonnx_hub_ir import dialect
from qonnx_hub_ir.quantizers import Array


@dataclass(slots=True)
class Findings:
    """What a walk over both models has brought to light so far.

    Attributes:
        proofs: Quantizers compared, by their outputs in both models.
        unmatched: What has no counterpart or could not be decided.
        counterexample: The first difference.
        reworded: Operators of two opset versions that were taken for the same.
        respelled: Operators that were taken for others: "Gemm as MatMul".
        supposed: Values of the second model that are only supposed to have a counterpart.
        taken: Nodes of the first model that have one.
        late: What was not compared, for want of time.
        margins: Whether an enclosure rests on the accuracy of a logarithm.
    """

    proofs: dict[tuple[Value, Value], QuantizerProof] = field(default_factory=dict)
    unmatched: list[str] = field(default_factory=list)
    counterexample: Counterexample | None = None
    reworded: set[str] = field(default_factory=set)
    respelled: set[str] = field(default_factory=set)
    supposed: set[Value] = field(default_factory=set)
    taken: set[Node] = field(default_factory=set)
    late: list[str] = field(default_factory=list)
    margins: bool = False

    def record(
        self, one: Value, other: Value, channels: int, outcome: ScalarComparison
    ) -> None:
        """Note how two quantizers compare, by their outputs."""
        proof = QuantizerProof(
            node_name(one),
            node_name(other),
            channels,
            equal=outcome.equal,
            thresholds=outcome.thresholds,
            counterexample=outcome.difference,
            nan_equal=outcome.nan_equal,
        )
        self.proofs.setdefault((one, other), proof)

    def refute(self, value: Value, given: float | None, made: float, other: float) -> None:
        """Note a difference, if it is the first.

        Args:
            value: Where the first model differs.
            given: What the function there is fed with; ``None`` for a constant.
            made: What the first model has there.
            other: What the second model has there.
        """
        if self.counterexample is None:
            layer = value.metadata_props.get(dialect.PROVENANCE) or node_name(value)
            self.counterexample = Counterexample(layer, None, given, made, other)

    def refute_constants(self, one: Value, first: Array, other: Value, second: Array) -> None:
        """Note two constants of one form that differ, and where they do first."""
        index = np.unravel_index(int(np.argmax(differs(first, second))), first.shape)
        self.unmatched.append(
            f"constant '{other.name}' is {second[index]} at {[int(i) for i in index]}, "
            f"'{one.name}' is {first[index]}"
        )
        if first.dtype.kind in "fiub":
            self.refute(one, None, float(first[index]), float(second[index]))


def node_name(value: Value) -> str:
    """Return the name of the node that makes a value, else its own."""
    node = value.producer()
    return str(value.name) if node is None else node.name or str(value.name)
