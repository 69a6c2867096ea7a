"""Standard operators whose channels lie along the last axis: a domain of QONNX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from qonnx_hub_ir import dialect
from qonnx_hub_ir.operators.row import Operator

_NAMES = frozenset({"AveragePool", "BatchNormalization", "Conv", "MaxPool"})


def channels_last(standard: Sequence[Operator]) -> tuple[Operator, ...]:
    """Return the rows of the domain: those of the standard, with the channels at the end."""
    return tuple(
        replace(row, domain=dialect.CHANNELS_LAST_DOMAIN, channel_axis=-1)
        for row in standard
        if row.name in _NAMES
    )
