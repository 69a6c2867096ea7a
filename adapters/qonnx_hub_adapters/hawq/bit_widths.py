"""Bit widths of HAWQ's layers: given by the user, or recovered from saved scales.

HAWQ's formulas stand here in numpy, for checkpoints that are read without a module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qonnx_hub_adapters.dependencies import require
from qonnx_hub_ir.errors import SourceError, UsageError
from qonnx_hub_ir.quantizers import Array, integer_bounds, signed_bits

BitConfig = Mapping[str, Mapping[str, Any]]
SYMMETRIC, ASYMMETRIC = "symmetric", "asymmetric"
_SMALLEST_RANGE = np.float32(1e-8)
_NAMES = frozenset({"activation_bit", "weight_bit", "bias_bit", "quant_mode"})


def scale_of(low: Array, high: Array, bits: int, mode: str) -> Array:
    """Return the step for a range.

    Args:
        low: Lowest value, float32; one per channel or one in all.
        high: Highest value.
        bits: Bit width.
        mode: "symmetric" or "asymmetric".
    """
    is_symmetric = mode == SYMMETRIC
    reach = np.maximum(np.abs(low), np.abs(high)) if is_symmetric else high - low
    steps = np.float32(2 ** (bits - is_symmetric) - 1)
    return np.asarray(np.maximum(reach, _SMALLEST_RANGE) / steps, dtype=np.float32)


def symmetric_integers(x: Array, scale: Array, bits: int) -> Array:
    """Return float32 integers: multiplied by the reciprocal, rounded half to even, clamped."""
    low, high = integer_bounds(bits, signed=True, narrow=False)
    rounded = np.rint(np.asarray(np.float32(1.0) / scale * x, dtype=np.float32))
    return np.asarray(np.clip(rounded, np.float32(low), np.float32(high)), dtype=np.float32)


def weight_range(weight: Array, *, per_channel: bool) -> tuple[Array, Array]:
    """Return (lowest, highest) of weights (out, ...): (out,), or (1,) for all channels."""
    rows = weight.reshape(weight.shape[0] if per_channel else 1, -1)
    return rows.min(axis=1), rows.max(axis=1)


def act_candidates(low: Array, high: Array, scale: Array) -> list[tuple[int, str]]:
    """Return the bit widths and modes that give a QuantAct's range this scale."""
    return [
        (bits, mode)
        for mode, first in ((SYMMETRIC, 2), (ASYMMETRIC, 1))
        for bits in range(first, 33)
        if _close(scale_of(low, high, bits, mode), scale)
    ]


def weight_candidates(weight: Array, scale: Array, *, per_channel: bool) -> list[int]:
    """Return the bit widths that give weights (out, ...) these scales, without percentile."""
    low, high = weight_range(weight, per_channel=per_channel)
    return [
        bits for bits in range(2, 33) if _close(scale_of(low, high, bits, SYMMETRIC), scale)
    ]


def in_words(candidates: Sequence[Any]) -> str:
    """Return candidates as messages call them."""
    words = [
        f"{one[1]} {one[0]} bit" if isinstance(one, tuple) else str(one) for one in candidates
    ]
    return " or ".join(words) or "no bit width"


def smallest_bits(codes: Array) -> int:
    """Return the smallest signed bit width, from 2 on, that holds the integers."""
    return max(2, signed_bits(int(codes.min(initial=0)), int(codes.max(initial=0))))


def _close(a: Array, b: Array) -> bool:
    # A square root or a division may be rounded otherwise on another machine; the next bit
    # width is at least a factor of 1 + 2**-31 away, in practice a factor of two.
    return bool(np.all(np.abs(a - b.reshape(-1)) <= np.float32(1e-5) * np.abs(b.reshape(-1))))


def read_bits(given: Mapping[str, Any] | str | None, acts: frozenset[str]) -> BitConfig:
    """Return settings of layers by name: layer -> attribute -> value.

    Args:
        given: A HAWQ bit_config (layer -> bits, or (bits, "hook")), settings by layer, or the
            path of a yaml file that has them, alone or in a section ``model``.
        acts: Names of the layers that are QuantActs.

    Raises:
        UsageError: An entry that is no bit width.
        SourceError: A file that cannot be read.
    """
    if given is None:
        return {}
    entries = _read_yaml(given) if isinstance(given, (str, Path)) else given
    return {str(name): _entry(str(name), value, acts) for name, value in entries.items()}


def _entry(name: str, value: Any, acts: frozenset[str]) -> dict[str, Any]:
    if isinstance(value, Mapping):
        unknown = sorted(set(value) - _NAMES)
        if unknown:
            raise UsageError(
                f"bits of layer '{name}': unknown {', '.join(unknown)}; "
                f"known are {', '.join(sorted(_NAMES))}"
            )
        return dict(value)
    bits = value[0] if isinstance(value, (tuple, list)) and value else value
    if not isinstance(bits, int) or isinstance(bits, bool):
        raise UsageError(f"bits of layer '{name}': {value!r} is no bit width")
    if name not in acts:
        return {"weight_bit": bits}
    # HAWQ's training script makes activations of four bits asymmetric, and only those.
    return {"activation_bit": bits, **({"quant_mode": ASYMMETRIC} if bits == 4 else {})}


def _read_yaml(path: str | Path) -> Mapping[str, Any]:
    yaml = require("yaml", needed_by="a bit configuration in yaml", extra="hawq")
    try:
        with Path(path).open(encoding="utf-8") as stream:
            found = yaml.safe_load(stream)
    except OSError as error:
        raise SourceError(f"'{path}' cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise SourceError(f"'{path}' is no yaml file: {error}") from error
    section = found.get("model", found) if isinstance(found, Mapping) else None
    if not isinstance(section, Mapping):
        where = f"'{path}': its section 'model'" if isinstance(found, Mapping) else f"'{path}'"
        raise SourceError(f"{where} holds no settings by layer")
    return section
