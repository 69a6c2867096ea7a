"""Options of the QCDQ exporter, and the encoding that it chooses for one quantizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from onnx_ir import Value

from qonnx_hub_adapters.protocol import Bound
from qonnx_hub_ir.choices import EncodingName, StoredWeights, require_choice
from qonnx_hub_ir.graph.builder import Emitter

LOWEST_OPSET = 10
"""The first opset with QuantizeLinear."""

OPSET_OF_BLOCKS = 21
"""The first opset whose QuantizeLinear and DequantizeLinear take blocks."""

OPSET_OF_FLOAT8 = 19
"""The first opset whose QuantizeLinear and DequantizeLinear take float8 types."""

ENCODINGS: tuple[str, ...] = get_args(EncodingName)
WEIGHTS: tuple[str, ...] = get_args(StoredWeights)


@dataclass(frozen=True, slots=True)
class QcdqOptions:
    """How quantizers are written.

    Attributes:
        encoding: "auto", or only forms with integer Clip ("qcdq"), without it ("qdq"), or of
            float operators ("float"); "integer" writes what was read from TFLite in integer
            operators, code for code.
        stored_weights: Narrowest integer type of stored weights; "float" stores no integers.

    Raises:
        UsageError: An encoding or a storage of weights that does not exist.
    """

    encoding: str = "auto"
    stored_weights: str = "int8"

    def __post_init__(self) -> None:
        """Refuse unknown values."""
        require_choice("encoding", self.encoding, ENCODINGS)
        require_choice("storage of weights", self.stored_weights, WEIGHTS)


@dataclass(frozen=True, slots=True)
class EncodingRequest(QcdqOptions):
    """What the caller asks for.

    Attributes:
        opset: Standard opset that the file will have at least.
        limit: Standard opset that it may not exceed; ``None`` for any.
        allow_lossy: Take the plain form for zero points as well.
    """

    opset: int = LOWEST_OPSET
    limit: int | None = None
    allow_lossy: bool = False


@dataclass(frozen=True, slots=True)
class Encoding:
    """One encoding of one quantizer.

    Attributes:
        name: How reports call it.
        write: Emits its nodes and returns the value that replaces the quantizer's output.
        opset: Lowest standard opset that has what it uses.
        exact: Whether it computes the same float32 values.
        reason: Why this one, where that is not obvious.
        bound: What one that is not exact promises.
        weight_bytes: Bytes before and after, where it stores a weight.
    """

    name: str
    write: Callable[[Emitter], Value]
    opset: int = LOWEST_OPSET
    exact: bool = True
    reason: str = ""
    weight_bytes: tuple[int, int] | None = None
    bound: Bound | None = None
