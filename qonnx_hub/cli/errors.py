"""Which error ends in which exit code."""

from __future__ import annotations

from collections.abc import Mapping

from qonnx_hub_ir.errors import (
    ConversionError,
    HubError,
    MissingDependencyError,
    NotExactError,
    UsageError,
)

DIFFERENT = 1
USAGE = 2
UNREADABLE = 3
NOT_EXACT = 4
NOT_INSTALLED = 5


EXIT_CODES: Mapping[type[HubError], int] = {
    MissingDependencyError: NOT_INSTALLED,
    NotExactError: NOT_EXACT,
    UsageError: USAGE,
    ConversionError: DIFFERENT,
}
"""Error -> exit code; that of every other error of ours is ``UNREADABLE``."""


def exit_code(error: BaseException) -> int | None:
    """Return the documented exit code of an error, ``None`` for one that is not ours."""
    if not isinstance(error, HubError):
        return None
    codes = (code for kind, code in EXIT_CODES.items() if isinstance(error, kind))
    return next(codes, UNREADABLE)
