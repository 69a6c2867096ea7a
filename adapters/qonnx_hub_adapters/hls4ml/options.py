"""What a caller can ask of the hls4ml form, by ``--target-option name=value``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qonnx_hub_ir.errors import UsageError

BACKENDS = ("Vitis", "Vivado", "VivadoAccelerator", "Quartus", "oneAPI", "Catapult")
IO_TYPES = ("io_parallel", "io_stream")
STRATEGIES = ("Latency", "Resource", "Unrolled", "Distributed_Arithmetic")
SOFTMAX = ("skip", "tuned", "keep")

_PARTS: Mapping[str, str] = {
    "Vitis": "xcvu13p-flga2577-2-e",
    "Vivado": "xcvu13p-flga2577-2-e",
    "VivadoAccelerator": "xcvu13p-flga2577-2-e",
    "Quartus": "Arria10",
    "oneAPI": "Agilex7",
}
"""hls4ml's own defaults."""

_FIXED = re.compile(r"^(ap_|ac_)?u?fixed<[^<>]+>$|^(ap_|ac_)?u?int<\d+>$")


@dataclass(frozen=True, slots=True)
class Hls4mlOptions:
    """What to write for hls4ml.

    Attributes:
        backend: hls4ml's back end.
        io_type: "io_parallel" or "io_stream".
        reuse_factor: How often a multiplier is used per inference.
        strategy: hls4ml's strategy; its own default for an empty text.
        part: The device; the back end's default for an empty text.
        clock_period: In nanoseconds.
        project: Name of the project.
        softmax: What becomes of a trailing Softmax: "skip" leaves it to the host, "tuned"
            writes tables of 24 bits, "keep" leaves hls4ml's defaults.
        trace: Whether every layer can be traced (``hls_model.trace``).
        ranges: Input name -> lowest and highest value fed.
        precisions: Input name -> hls4ml type of the input.
    """

    backend: str = "Vitis"
    io_type: str = "io_parallel"
    reuse_factor: int = 1
    strategy: str = ""
    part: str = ""
    clock_period: float = 5
    project: str = "myproject"
    softmax: str = "skip"
    trace: bool = False
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    precisions: Mapping[str, str] = field(default_factory=dict)

    def has_ac_types(self) -> bool:
        """Return whether the back end is written with ``ac_types``."""
        return self.backend in {"Quartus", "oneAPI", "Catapult"}

    def device(self) -> str:
        """Return the part to write, empty where hls4ml has no default."""
        return self.part or _PARTS.get(self.backend, "")


_CHOICES = {
    "backend": BACKENDS,
    "io_type": IO_TYPES,
    "strategy": STRATEGIES,
    "softmax": SOFTMAX,
}

NAMES = (
    *("backend", "clock_period", "io_type", "part", "project", "reuse_factor"),
    *("softmax", "strategy", "trace", "input_range.NAME", "input_precision.NAME"),
)


def read_options(extra: Mapping[str, Any], inputs: tuple[str, ...]) -> Hls4mlOptions:
    """Return the options that a caller gave by name.

    Args:
        extra: Name -> value; numbers may be texts.
        inputs: Names of the source's inputs.

    Raises:
        UsageError: A name or a value that does not exist.
    """
    chosen: dict[str, Any] = {}
    ranges: dict[str, tuple[float, float]] = {}
    precisions: dict[str, str] = {}
    for name, value in extra.items():
        kind, dot, of = name.partition(".")
        if dot and kind in {"input_range", "input_precision"}:
            if of not in inputs:
                raise UsageError(
                    f"option '{name}': there is no input '{of}'; there are: "
                    f"{', '.join(inputs)}"
                )
            if kind == "input_range":
                ranges[of] = _range(name, value)
            else:
                precisions[of] = _precision(name, value)
        elif name in _CHOICES:
            chosen[name] = _choice(name, value)
        elif name == "trace":
            chosen[name] = _truth(name, value)
        elif name == "reuse_factor":
            chosen[name] = _whole(name, value)
        elif name == "clock_period":
            chosen[name] = _positive(name, value)
        elif name in {"part", "project"}:
            chosen[name] = str(value)
        else:
            raise UsageError(
                f"the form 'hls4ml' has no option '{name}'; there are: {', '.join(NAMES)}"
            )
    project = str(chosen.get("project", "myproject"))
    if not re.fullmatch(r"[A-Za-z_]\w*", project):
        raise UsageError(f"option 'project': '{project}' cannot name a C++ function")
    return Hls4mlOptions(**chosen, ranges=ranges, precisions=precisions)


def _choice(name: str, value: Any) -> str:
    known = {choice.lower(): choice for choice in _CHOICES[name]}
    found = known.get(str(value).lower())
    if found is None:
        raise UsageError(
            f"option '{name}': unknown '{value}'; there are: {', '.join(_CHOICES[name])}"
        )
    return found


def _whole(name: str, value: Any) -> int:
    text = str(value)
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"option '{name}': '{value}' is no whole number from 1 on")
    return int(text)


def _truth(name: str, value: Any) -> bool:
    known = {"true": True, "false": False}
    found = known.get(str(value).lower())
    if found is None:
        raise UsageError(f"option '{name}': '{value}' is neither true nor false")
    return found


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"option '{name}': '{value}' is no number")
    return number


def _positive(name: str, value: Any) -> float:
    number = _number(name, value)
    if number <= 0:
        raise UsageError(f"option '{name}': '{value}' is not above zero")
    return int(number) if number == int(number) else number


def _range(name: str, value: Any) -> tuple[float, float]:
    ends = value if isinstance(value, (list, tuple)) else str(value).split(",")
    if len(ends) != 2:
        raise UsageError(f"option '{name}': write the lowest and highest value, like -1,1")
    low, high = _number(name, ends[0]), _number(name, ends[1])
    if low > high or low == high == 0:
        raise UsageError(f"option '{name}': {low:g} to {high:g} is no range")
    return low, high


def _precision(name: str, value: Any) -> str:
    text = str(value).replace(" ", "")
    if not _FIXED.match(text):
        raise UsageError(f"option '{name}': '{value}' is no type; write it like fixed<16,6>")
    return text
