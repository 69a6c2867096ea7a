"""Types in a config of hls4ml that a network leaves, each with an input that shows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx_ir import Model

from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.dependencies import first_line
from qonnx_hub_adapters.hls4ml.fixed_point import FixedType
from qonnx_hub_adapters.hls4ml.inputs import configured_types
from qonnx_hub_adapters.hls4ml.type_proof import TypeDoubt, default_type, doubts_of
from qonnx_hub_adapters.keras_files.hgq import ROUND
from qonnx_hub_adapters.lint.finding import LintFinding, Severity
from qonnx_hub_ir.errors import HubError
from qonnx_hub_ir.graph.queries import dims
from qonnx_hub_ir.quantizers import Array

_SAMPLES = 64

_REMEDY = "give it a wider type; --to hls4ml writes types that are proven to hold every number"


def find_overflows(
    model: Model, config: Mapping[str, Any], seed: int = 0
) -> tuple[list[LintFinding], dict[str, Array]]:
    """Return what is wrong with the types of a config, and inputs that show it.

    Args:
        model: The model that the config belongs to.
        config: What hls4ml calls HLSConfig.
        seed: Seed of the inputs that are tried.

    Returns:
        Findings: computed wrongly where an input shows it, unknown where none was found.
        The inputs that show them, by name, one sample for each finding that has one.
    """
    doubts = doubts_of(model, config)
    if not doubts:
        return [], {}
    shown = _Shown(model, config, seed)
    findings = [_finding(doubt, shown) for doubt in doubts]
    return findings, shown.kept()


def _finding(doubt: TypeDoubt, shown: _Shown) -> LintFinding:
    severity, words = Severity.UNKNOWN, shown.not_run or "no input that shows it was found"
    if not doubt.value:
        severity, words = Severity.NOTE, "constants are rounded"
        if doubt.overflows:
            severity, words = Severity.WRONG, "constants are cut off"
    elif (seen := shown.beyond(doubt)) is not None:
        severity, words = Severity.WRONG, seen
    return LintFinding(severity, doubt.layer, "layer", doubt.words(), words, _REMEDY)


class _Shown:
    """Inputs at the ends of their types, and what every value is on them."""

    def __init__(self, model: Model, config: Mapping[str, Any], seed: int) -> None:
        entries, default = config.get("LayerName") or {}, default_type(config)
        random = np.random.default_rng(seed)
        self._feeds = {}
        for value in model.graph.inputs:
            own = configured_types(entries.get(str(value.name))).get("result", default)
            sizes = [n if isinstance(n, int) else 1 for n in (dims(value) or [])[1:]]
            self._feeds[str(value.name)] = _ends(own, sizes, random)
        self._kept: list[int] = []
        try:
            self._values = dict(Session(model).run(self._feeds, all_tensors=True))
            self.not_run = ""
        except HubError as error:
            # A model of one batch size, or with sizes left open: nothing is shown; it is said.
            self._values = {}
            self.not_run = f"no input was tried: {first_line(error)}"

    def beyond(self, doubt: TypeDoubt) -> str | None:
        """Say which sample brings a value beyond its type; ``None`` where none does."""
        values = self._values.get(doubt.value)
        if values is None or values.ndim == 0 or len(values) != 4 * _SAMPLES:
            return None
        rows = values.reshape(len(values), -1).astype(np.float64)
        low, high = doubt.kind.grid().ends()
        apart = np.maximum(rows - high, low - rows)
        if not doubt.overflows:
            steps = rows * 2.0 ** -doubt.kind.lsb()
            apart = np.abs(steps - np.rint(steps)) - 1e-3
        place = np.unravel_index(int(np.argmax(apart)), apart.shape)
        if apart[place] <= 0:
            return None
        number = float(rows[place])
        self._kept.append(int(place[0]))
        sample = len(self._kept) - 1
        held = _held(number, doubt.kind)
        what = "does not fit" if held is None else f"becomes {held:.9g}"
        return f"{number:.9g} {what} (sample {sample})"

    def kept(self) -> dict[str, Array]:
        """Return the samples that were named, in order."""
        return {name: array[self._kept] for name, array in self._feeds.items()}


def _ends(kind: FixedType, sizes: list[int], random: np.random.Generator) -> Array:
    """Return inputs of a type: at its ends, at one of them by chance, and in between."""
    low, high = kind.grid().ends()
    low, high = max(low, -(2.0**20)), min(high, 2.0**20)
    shape = (_SAMPLES, *sizes)
    each = (_SAMPLES, *[1] * len(sizes))
    sides = np.where(np.arange(_SAMPLES).reshape(each) % 2, low, high)
    parts = (
        np.where(random.random(shape) < random.random(each), low, high),
        random.uniform(low, high, shape),
        random.uniform(low, high, shape) * 2.0 ** -random.integers(0, 12, shape),
        np.broadcast_to(sides * random.random(each), shape),
    )
    step, whole = 2.0 ** kind.lsb(), np.concatenate(parts)
    return np.asarray(np.clip(np.rint(whole / step) * step, low, high), dtype=np.float32)


def _held(number: float, kind: FixedType) -> float | None:
    """Return what hardware makes of a number; ``None`` where a mode is not known."""
    step, (low, high) = 2.0 ** kind.lsb(), kind.grid().ends()
    rounds = ROUND.get(kind.rounding or "TRN")
    if rounds is None:
        return None
    held = float(rounds(np.float64(number / step))) * step
    if kind.wraps:
        return (held - low) % 2.0**kind.integer + low
    nearest = min(max(held, low), high)
    beyond = {"SAT": nearest, "SAT_SYM": nearest, "SAT_ZERO": 0.0}.get(kind.saturation)
    return held if held == nearest else beyond
