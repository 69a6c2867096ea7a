"""Every closed choice, once: its values as a type, and how anything else is refused."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from typing import Literal, TypeAlias

from qonnx_hub_ir.errors import UsageError

Level: TypeAlias = Literal["output", "layer", "proof"]
"""How deep a check goes."""

Effort: TypeAlias = Literal["quick", "normal", "thorough"]
"""How much is searched for inputs that reach inner thresholds."""

Backend: TypeAlias = Literal["numpy", "ort"]
"""Where a model runs."""

Metric: TypeAlias = Literal["accuracy", "auc", "r2"]
"""What predictions are measured by."""

ImageLayout: TypeAlias = Literal["keep", "nchw", "nhwc"]
"""Of image inputs and outputs."""

Dialect: TypeAlias = Literal["onnx", "ort", "source"]
"""Whose operators on integers are written."""

EncodingName: TypeAlias = Literal["auto", "qcdq", "qdq", "float", "integer"]
"""How a quantizer is written in standard operators."""

StoredWeights: TypeAlias = Literal["int8", "int4", "int2", "float"]
"""Narrowest integers in which weights are stored."""

Convention: TypeAlias = Literal["true", "qonnx", "paper"]
"""How costs are counted."""

OrtOptimizations: TypeAlias = Literal["off", "all", "both"]
"""Optimizations of onnxruntime under a check."""

_NEAR = 0.6
"""Similarity of two names, from 0 to 1, from which on one may be meant by the other."""


def not_among(
    words: str, given: str, known: Iterable[str], hints: Mapping[str, str] | None = None
) -> str:
    """Return the sentence that refuses a name: what is wrong, what is meant, what there is.

    Args:
        words: What is wrong, with the name.
        given: The name.
        known: Names that there are.
        hints: Name that people try -> what to write instead.

    Example:
        >>> not_among("unknown level 'prof'", "prof", ("output", "layer", "proof"))
        "unknown level 'prof'; did you mean 'proof'? there are: output, layer, proof"
    """
    names = list(known)
    meant = (hints or {}).get(given.lower())
    if meant is None:
        lowered = {_bare(name): name for name in names}
        near = difflib.get_close_matches(_bare(given), lowered, n=1, cutoff=_NEAR)
        meant = f"did you mean '{lowered[near[0]]}'?" if near else ""
    there = f"there are: {', '.join(names) or 'none'}"
    return f"{words}; {meant} {there}" if meant else f"{words}; {there}"


def require_choice(
    what: str, given: str, choices: Collection[str], hints: Mapping[str, str] | None = None
) -> None:
    """Refuse a value that is none of the choices.

    Raises:
        UsageError: The value, what may be meant, and the choices.
    """
    if given not in choices:
        raise UsageError(not_among(f"unknown {what} '{given}'", given, choices, hints))


def _bare(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")
