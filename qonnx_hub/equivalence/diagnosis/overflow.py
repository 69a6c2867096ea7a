"""Values of hardware that left the range of their fixed-point type: wrapped, or saturated."""

from __future__ import annotations

import numpy as np

from qonnx_hub.equivalence.comparison.matching import Pair, answer_pair
from qonnx_hub.equivalence.diagnosis.quantizer_causes import Cause, Explanation
from qonnx_hub.equivalence.inputs.batches import SampleBatch
from qonnx_hub.equivalence.runners.hls4ml import Hls4mlRunner
from qonnx_hub.equivalence.runners.recorded import RecordedRunner
from qonnx_hub.equivalence.runners.sides import Runner
from qonnx_hub_adapters.hls4ml.fixed_point import FixedType
from qonnx_hub_ir.quantizers import Array

_NAMES = frozenset({"accum", "result"})
"""Types in which a layer computes what it passes on."""

_SUMS = 1e-5
"""Relative difference of values that are the same: float32 rounds sums, hardware does not."""


def find_overflow(a: Runner, b: Runner, pair: Pair, batch: SampleBatch) -> Explanation | None:
    """Return how values of hardware left their type; ``None`` where that explains nothing.

    Every value that differs must be explained: it is a whole number of turns of the type away,
    or it lies at the end of a type that saturates and belongs beyond it.

    Args:
        a: The reference side.
        b: A side whose types are known.
        pair: Two values that differ.
        batch: Inputs on which they do.
    """
    types = b.types.get(pair.b) if isinstance(b, (Hls4mlRunner, RecordedRunner)) else None
    if types is None or not types.factor:
        return None
    x, y = answer_pair(a, b, pair, batch)
    if y is None:
        return None
    wanted, held = ((v.astype(np.float64) - types.offset) / types.factor for v in (x, y))
    for name in sorted(_NAMES & types.types.keys()):
        kind = types.types[name]
        found = _words(wanted, held, name, kind)
        if found is not None:
            cause, words = found
            return Explanation(pair.source, cause, words)
    return None


def _words(
    wanted: Array, found: Array, name: str, kind: FixedType
) -> tuple[Cause, str] | None:
    noise = _SUMS * np.maximum(np.abs(wanted), 1.0) + 2.0 ** kind.lsb()
    apart = np.abs(wanted - found) > noise
    if not apart.any():
        return None
    low, high = kind.grid().ends()
    beyond = (wanted > high) | (wanted < low)
    turn = 2.0**kind.integer
    turns = np.rint((wanted - found) / turn)
    wraps = np.abs(wanted - found - turns * turn) <= noise
    ends = np.where(wanted > high, high, low)
    saturates = np.abs(found - ends) <= noise
    explained = wraps & (turns != 0) if kind.wraps else saturates
    if not np.all((explained & beyond)[apart]):
        return None
    first = np.unravel_index(int(np.argmax(apart)), apart.shape)
    what = f"{int(apart.sum())} of {apart.size} values"
    happened = "wrapped" if kind.wraps else "saturated"
    words = (
        f"{what} {happened}, as {wanted[first]:.9g}, which became {found[first]:.9g}: the "
        f"type of '{name}', {kind}, holds {low:.9g} to {high:.9g}"
    )
    return (Cause.WRAPPED if kind.wraps else Cause.RANGE), words
