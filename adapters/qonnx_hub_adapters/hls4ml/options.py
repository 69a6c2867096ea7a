"""What a caller can ask of the hls4ml form, by ``--target-option name=value``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from qonnx_hub_ir.errors import UsageError

Reader: TypeAlias = Callable[[Any], Any]
"""Reads the value of an option, or says in a ValueError what is wrong with it."""

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


def read_options(extra: Mapping[str, Any], inputs: tuple[str, ...]) -> Hls4mlOptions:
    """Return the options that a caller gave by name.

    Args:
        extra: Name -> value; numbers may be texts.
        inputs: Names of the source's inputs.

    Raises:
        UsageError: A name or a value that does not exist.
    """
    chosen: dict[str, Any] = {}
    for name, value in extra.items():
        kind, dot, of = name.partition(".")
        per_input = dot and kind in _PER_INPUT
        if not per_input and name not in _READERS:
            names = ", ".join((*_READERS, *(f"{kind}.NAME" for kind in _PER_INPUT)))
            raise UsageError(f"the form 'hls4ml' has no option '{name}'; there are: {names}")
        if per_input and of not in inputs:
            known = ", ".join(inputs)
            raise UsageError(f"option '{name}': there is no input '{of}'; there are: {known}")
        try:
            if per_input:
                field_name, read = _PER_INPUT[kind]
                chosen.setdefault(field_name, {})[of] = read(value)
            else:
                chosen[name] = _READERS[name](value)
        except ValueError as error:
            raise UsageError(f"option '{name}': {error}") from error
    return Hls4mlOptions(**chosen)


def _one_of(choices: Sequence[str]) -> Reader:
    known = {choice.lower(): choice for choice in choices}

    def read(value: Any) -> str:
        if str(value).lower() not in known:
            raise ValueError(f"unknown '{value}'; there are: {', '.join(choices)}")
        return known[str(value).lower()]

    return read


def _text(pattern: str, problem: str, convert: Reader = str) -> Reader:
    """Return what reads a text of a pattern; any other is named with its problem."""

    def read(value: Any) -> Any:
        if not re.fullmatch(pattern, str(value)):
            raise ValueError(f"'{value}' {problem}")
        return convert(str(value))

    return read


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"'{value}' is no number")
    return number


def _positive(value: Any) -> float:
    number = _number(value)
    if number <= 0:
        raise ValueError(f"'{value}' is not above zero")
    return int(number) if number == int(number) else number


def _range(value: Any) -> tuple[float, float]:
    ends = value if isinstance(value, (list, tuple)) else str(value).split(",")
    if len(ends) != 2:
        raise ValueError("write the lowest and highest value, like -1,1")
    low, high = map(_number, ends)
    if low > high or low == high == 0:
        raise ValueError(f"{low:g} to {high:g} is no range")
    return low, high


_READERS: Mapping[str, Reader] = {
    "backend": _one_of(BACKENDS),
    "clock_period": _positive,
    "io_type": _one_of(IO_TYPES),
    "part": str,
    "project": _text(r"[A-Za-z_]\w*", "cannot name a C++ function"),
    "reuse_factor": _text(r"0*[1-9]\d*", "is no whole number from 1 on", int),
    "softmax": _one_of(SOFTMAX),
    "strategy": _one_of(STRATEGIES),
    "trace": _text(
        "(?i)true|false", "is neither true nor false", lambda text: text.lower() == "true"
    ),
}
"""Option -> what reads it; each is a field of :class:`Hls4mlOptions`."""

_PER_INPUT: Mapping[str, tuple[str, Reader]] = {
    "input_range": ("ranges", _range),
    "input_precision": (
        "precisions",
        _text(
            r" *(ap_|ac_)?u?(fixed *<[^<>]+>|int *< *\d+ *>) *",
            "is no type; write it like fixed<16,6>",
            lambda text: text.replace(" ", ""),
        ),
    ),
}
"""Option of one input, as in ``input_range.x`` -> field and reader."""
