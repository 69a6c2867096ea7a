"""Reports of channels that hold one value only, as the qonnx package words them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qonnx_hub.io.atomic import replacing
from qonnx_hub_ir.quantizers import Array

Stuck = dict[str, list[tuple[int, float]]]
"""Tensor -> pairs of a channel and the one value that it holds."""


def stuck_channels(ends: Mapping[str, tuple[Array, Array]]) -> Stuck:
    """Return the channels whose lowest value is the highest, of tensors that have some.

    Args:
        ends: Tensor -> lowest and highest values, one per channel or one.
    """
    found: Stuck = {}
    for name, (low, high) in ends.items():
        low, high = np.atleast_1d(low), np.atleast_1d(high)
        places = np.nonzero(low == high)[0]
        if places.size:
            found[name] = [(int(place), float(low[place])) for place in places]
    return found


def zero_channels(stuck: Mapping[str, Sequence[tuple[int, float]]]) -> dict[str, set[int]]:
    """Return the channels that are always zero, of tensors that have some."""
    zero = {name: {c for c, value in pairs if value == 0} for name, pairs in stuck.items()}
    return {name: channels for name, channels in zero.items() if channels}


def write_report(found: Any, path: str | None) -> None:
    """Write a report as JSON, whole or not at all, where a path is given."""
    if not path:
        return
    text = json.dumps(found, indent=2, default=lambda one: sorted(one))
    with replacing(Path(path)) as temporary:
        temporary.write_text(text, encoding="utf-8")
