"""What a proof of equivalence says, as data and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from qonnx_hub.equivalence.proof.bounds import ModelBounds
from qonnx_hub.equivalence.proof.deadline import DEFAULT_SECONDS
from qonnx_hub.equivalence.proof.step_functions import Mismatch
from qonnx_hub.reporting.plain_data import plain
from qonnx_hub_ir.quantizers import Array


@dataclass(frozen=True, slots=True)
class QuantizerProof:
    """Two quantizers, compared on every value of their input type.

    Attributes:
        name_a: Name of the first one's last node.
        name_b: Name of the second one's last node.
        channels: Elements that have parameters of their own.
        equal: Whether they are equal on all inputs but NaN.
        thresholds: Thresholds found and compared, of all channels together; 0 where both say
            the same and none had to be found.
        counterexample: An input on which they part, where they are not equal.
        nan_equal: Whether they make the same of NaN.
    """

    name_a: str
    name_b: str
    channels: int
    equal: bool
    thresholds: int
    counterexample: Mismatch | None = None
    nan_equal: bool = True


@dataclass(frozen=True, slots=True)
class Counterexample:
    """Where two models part.

    Attributes:
        layer: Source layer of the quantizer or weight that differs.
        feeds: An input of the whole model whose outputs differ; ``None`` where none was found:
            the difference may be out of reach, or be lost on the way to an output.
        input_value: What the quantizer is fed with; ``None`` for a constant that differs.
        value_a: What the first model has there.
        value_b: What the second model has there.
    """

    layer: str
    feeds: Mapping[str, Array] | None
    input_value: float | None
    value_a: float
    value_b: float


class ProofOutcome(str, Enum):
    """How a proof ended.

    Attributes:
        PROVEN: Every output is equal, for the inputs that the certificate names.
        WITHIN: Both are one function in exact arithmetic, and no output is further apart than
            the certificate's bounds, which are narrower than the outputs' ranges.
        REFUTED: A piece of one model and its counterpart differ on a value that is named;
            whether an input of the models can bring that value about is not said.
        UNMATCHED: Some piece has no counterpart, or could not be decided.
        OUT_OF_TIME: Some piece was not compared within the time given; none is refuted.
    """

    PROVEN = "proven"
    WITHIN = "proven within"
    REFUTED = "refuted"
    UNMATCHED = "unmatched"
    OUT_OF_TIME = "out of time"

    def __str__(self) -> str:
        """Return the words."""
        return self.value


@dataclass(frozen=True, slots=True)
class Certificate:
    """What was proven about two models, and what it rests on.

    Attributes:
        proven: Whether every output of both is equal, whatever they are fed with.
        matched: Values of the second model that have an equal one in the first.
        quantizers: The pairs of quantizers that were compared.
        assumptions: What the proof takes for granted.
        unmatched: What has no counterpart, or could not be decided, and why.
        counterexample: The first piece that is refuted, and where it parts.
        late: Values that were not compared, for want of time.
        seconds: The time that was given.
        bounds: How far apart the outputs can be, where the models are near throughout but not
            proven equal.
        inputs: For which inputs the outputs are proven equal; empty if not proven.
        counterparts: Value of the second model -> values of the first that equal it; empty if
            not proven.
    """

    proven: bool
    matched: int
    quantizers: tuple[QuantizerProof, ...]
    assumptions: tuple[str, ...]
    unmatched: tuple[str, ...]
    counterexample: Counterexample | None = None
    late: tuple[str, ...] = ()
    seconds: float = DEFAULT_SECONDS
    inputs: str = ""
    bounds: ModelBounds | None = None
    counterparts: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @property
    def outcome(self) -> ProofOutcome:
        """How the proof ended."""
        if self.proven:
            return ProofOutcome.PROVEN
        if self.bounds is not None and self.bounds.holds and self.bounds.same_function:
            return ProofOutcome.WITHIN
        if self.counterexample is not None:
            return ProofOutcome.REFUTED
        return ProofOutcome.OUT_OF_TIME if self.late else ProofOutcome.UNMATCHED

    def __bool__(self) -> bool:
        """Return whether equality was proven."""
        return self.proven

    def to_dict(self) -> dict[str, Any]:
        """Return the certificate as plain data, fit for JSON."""
        data = {"outcome": self.outcome.value, **asdict(self)}
        del data["counterparts"]  # What verifies a certificate finds them by itself.
        for proof in data["quantizers"]:
            proof.update(a=proof.pop("name_a"), b=proof.pop("name_b"))
        if self.counterexample is not None and self.counterexample.feeds is not None:
            data["counterexample"]["feeds"] = {
                name: {
                    "dtype": array.dtype.name,
                    "shape": array.shape,
                    "values": array.reshape(-1),
                }
                for name, array in self.counterexample.feeds.items()
            }
        plain_data: dict[str, Any] = plain(data)
        return plain_data
