"""Names of integer types, as the qonnx package writes them."""

from __future__ import annotations


def integer_type(bits: int, *, signed: bool) -> str:
    """Return the name of the type of codes with that many bits."""
    return "BINARY" if bits == 1 else f"{'' if signed else 'U'}INT{bits}"
