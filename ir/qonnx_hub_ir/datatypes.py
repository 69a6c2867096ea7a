"""Datatypes by the names that the qonnx package gives them: what values a tensor holds.

The names are canonical in upper case: INT4, UINT8, BINARY, BIPOLAR, TERNARY, FIXED<w,i>,
SCALEDINT<n>, FLOAT16, FLOAT32, FLOAT64, FLOAT<e,m> and FLOAT<e,m,b>.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from qonnx_hub_ir.errors import UsageError

WIDEST = 53
"""Integers have at most so many bits where their range is computed in float64."""


@dataclass(frozen=True, slots=True)
class TensorDatatype:
    """What the values of a tensor may be.

    Attributes:
        name: The canonical name.
        bits: Bits of one value.
        signed: Whether it can be below zero.
        low: Lowest value; ``None`` where the name says none.
        high: Highest value, likewise.
        step: Distance of neighbouring values; ``None`` where there is no one such number.
        exponent: Bits of the exponent of a FLOAT<e,m,b>, else 0.
        mantissa: Bits of its mantissa, else 0.
        bias: Bias of its exponent, else 0.
    """

    name: str
    bits: int
    signed: bool
    low: float | None = None
    high: float | None = None
    step: float | None = None
    exponent: int = 0
    mantissa: int = 0
    bias: int = 0

    @property
    def is_integer(self) -> bool:
        """Return whether all values are integers."""
        return self.step is not None and self.step >= 1


_FLOATS = {"FLOAT16": 16, "FLOAT32": 32, "FLOAT64": 64}
_FEW = {
    "BIPOLAR": TensorDatatype("BIPOLAR", 1, True, -1, 1, 2),
    "TERNARY": TensorDatatype("TERNARY", 2, True, -1, 1, 1),
    "BINARY": TensorDatatype("BINARY", 1, False, 0, 1, 1),
    # One unsigned bit has a name of its own.
    "UINT1": TensorDatatype("BINARY", 1, False, 0, 1, 1),
}
_NAME = re.compile(r"(?P<kind>U?INT)(?P<bits>[1-9][0-9]*)")
_PARAMETERS = re.compile(r"(?P<kind>FIXED|SCALEDINT|FLOAT)<(?P<numbers>[0-9, ]+)>")
_COUNTS = {"FIXED": (2,), "SCALEDINT": (1,), "FLOAT": (2, 3)}


def parse_datatype(text: str, where: str) -> TensorDatatype:
    """Return the datatype of that name, in any case.

    Args:
        text: Such as "INT8", "FIXED<16,14>", "SCALEDINT<4>", "FLOAT<4,3>".
        where: What is said to have it, for the message.

    Raises:
        UsageError: No such type.

    Example:
        >>> parse_datatype("fixed<8,4>", "input 'x'").high
        7.9375
    """
    upper = text.upper().replace(" ", "")
    if upper in _FLOATS:
        return TensorDatatype(upper, _FLOATS[upper], signed=True)
    if upper in _FEW:
        return _FEW[upper]
    plain, numbered = _NAME.fullmatch(upper), _PARAMETERS.fullmatch(upper)
    if plain is not None:
        bits = int(plain["bits"])
        signed = plain["kind"] == "INT"
        name, high = f"{'INT' if signed else 'UINT'}{bits}", 2 ** (bits - signed) - 1
        return TensorDatatype(name, bits, signed, -(2 ** (bits - 1)) if signed else 0, high, 1)
    if numbered is not None:
        numbers = [int(part) for part in numbered["numbers"].split(",") if part]
        if len(numbers) in _COUNTS[numbered["kind"]]:
            return _with_parameters(numbered["kind"], numbers, text, where)
    raise UsageError(
        f"{where}: '{text}' is no type; there are INT1 to INT{WIDEST}, UINT1 to UINT{WIDEST}, "
        "BIPOLAR, BINARY, TERNARY, FIXED<w,i>, SCALEDINT<n>, FLOAT<e,m,b>, FLOAT16 and FLOAT32"
    )


def _with_parameters(kind: str, numbers: list[int], text: str, where: str) -> TensorDatatype:
    first = numbers[0]
    if kind == "SCALEDINT":
        return TensorDatatype(f"SCALEDINT<{first}>", first, signed=True)
    if kind == "FIXED":
        if numbers[1] >= first:
            raise UsageError(f"{where}: '{text}' has no bits behind the point: w > i")
        step = 2.0 ** (numbers[1] - first)
        low, high = -(2 ** (first - 1)) * step, (2 ** (first - 1) - 1) * step
        return TensorDatatype(f"FIXED<{first},{numbers[1]}>", first, True, low, high, step)
    mantissa = numbers[1]
    # Without a bias, or with 0: the one in the middle, as IEEE formats have it.
    bias = (numbers[2] if len(numbers) == 3 else 0) or 2 ** (first - 1) - 1
    largest = (2 - 2.0**-mantissa) * 2.0 ** (2**first - 1 - bias)
    return TensorDatatype(
        name=f"FLOAT<{first},{mantissa},{bias}>",
        bits=1 + first + mantissa,
        signed=True,
        low=-largest,
        high=largest,
        exponent=first,
        mantissa=mantissa,
        bias=bias,
    )
