"""What became of layers, in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum


class Result(Enum):
    """How a layer is computed."""

    INTEGER = "integer-only"
    EPILOGUE = "integer product, float epilogue"
    FLOAT = "float"


@dataclass(frozen=True, slots=True)
class LayerRecord:
    """What became of one layer.

    Attributes:
        name: Its node.
        op: Its operator in the source.
        result: How it is computed.
        operator: The operators that compute it.
        reason: Why it is not integer-only, or what is lost.
        bits: Bits of its accumulator at worst; 0 for float layers.
        exact: Whether it gives the source's values, bit for bit.
        share: Predicted share of its values that are one step off, where it is not exact.
        saturates: Whether byte products may overflow 16 bits on processors that add them so.
    """

    name: str
    op: str
    result: Result
    operator: str = ""
    reason: str = ""
    bits: int = 0
    exact: bool = True
    share: float = 0.0
    saturates: bool = False


def bound_in_words(reason: str, share: float) -> str:
    """Return the contract of a layer that is not exact.

    Args:
        reason: What its own choice loses; empty where only the source's rounding differs.
        share: Predicted share of values that are one step off; 0 where no quantizer follows.
    """
    cause = reason or "the source sums rounded floats, this sums integers"
    if not share:
        return f"{cause}: apart by the rounding of float32 sums"
    share = max(share, 1e-12)
    unit = 10.0 ** math.floor(math.log10(share))
    # One digit, never below the share.
    share = math.ceil(share / unit) * unit
    return f"{cause}: one step apart in a share below {share:.0e} of its values"


def describe_layers(layers: Sequence[LayerRecord]) -> tuple[str, ...]:
    """Return the sentences of a report, the total first."""
    if not layers:
        return ("no layers: nothing multiplies",)
    count = {result: sum(x.result is result for x in layers) for result in Result}
    total = f"{count[Result.INTEGER]} of {len(layers)} layers integer-only"
    if count[Result.EPILOGUE]:
        total += f", {count[Result.EPILOGUE]} with an integer product and a float epilogue"
    if count[Result.FLOAT]:
        total += f", {count[Result.FLOAT]} in float"
    inexact = [x for x in layers if not x.exact]
    equal = "every layer gives the source's values, bit for bit"
    if inexact:
        equal = (
            f"{len(layers) - len(inexact)} of {len(layers)} layers give the source's values, "
            "bit for bit; the others within one step of the quantizer behind them"
        )
    lines = [total, equal]
    lines += [f"{x.op} '{x.name}': {_words(x)}" for x in layers if _words(x)]
    widest = max(layers, key=lambda x: x.bits)
    if widest.bits:
        lines.append(f"widest accumulator: {widest.bits} bits, in {widest.op} '{widest.name}'")
    risky = [x.name for x in layers if x.saturates]
    if risky:
        lines.append(
            "products of 8-bit activations and 8-bit weights can overflow the 16 bits in "
            "which x86 processors without VNNI add them, in "
            + ", ".join(f"'{name}'" for name in risky)
            + "; there, use weights of 7 bits or activations of 7 bits"
        )
    return tuple(lines)


def _words(layer: LayerRecord) -> str:
    if layer.result is Result.INTEGER:
        return "" if layer.exact else bound_in_words(layer.reason, layer.share)
    words = f"{layer.result.value}: {layer.reason}"
    return words if layer.exact else f"{words}; {bound_in_words('', layer.share)}"
