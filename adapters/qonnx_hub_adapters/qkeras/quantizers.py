"""QKeras quantizers as data: read from the live object, never from its text or its config.

``str(q)`` and ``q.get_config()`` lose arguments (a negative slope becomes ``use_sigmoid``, the
scale axis and ``is_quantized_clip`` disappear): only the object's attributes are read.
What the data means is in :mod:`~qonnx_hub_adapters.qkeras.expansion` (activations) and
:mod:`~qonnx_hub_adapters.qkeras.weights` (weights).

Source: the ``__call__`` of each class in ``qkeras.quantizers``, 0.9.0 and qkeras-v3 1.2.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np

from qonnx_hub_ir.quantizers import Array

Alpha: TypeAlias = Array | str
"""Factor after rounding, float32; or "auto" / "auto_po2", computed from the data."""


@dataclass(frozen=True, slots=True, eq=False)
class FixedPoint:
    """quantized_bits, and quantized_hswish with ``swish``.

    Attributes:
        bits: Bit width, sign included.
        integer: Integer bits without sign; an array where they differ by channel.
        symmetric: Whether the lowest code is left out.
        keep_negative: Whether there is a sign.
        alpha: Factor after rounding.
        noise: Share of the quantization that is applied, 1 for all of it.
        swish: (shift, upper bound) of a hard swish in front, or ``None``.
    """

    bits: int
    integer: Array
    symmetric: bool
    keep_negative: bool
    alpha: Alpha
    noise: float = 1.0
    swish: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class LinearQuantizer:
    """quantized_linear: the input is divided by the whole step, clipped, then rounded.

    Attributes:
        bits: Bit width, sign included.
        step: The whole step, alpha included; computed from the data where ``auto``.
        symmetric: Whether the lowest code is left out.
        keep_negative: Whether there is a sign.
        auto: Whether the step depends on the data.
        noise: As in :class:`FixedPoint`.
        to_power: Whether a step that depends on the data is a power of two.
    """

    bits: int
    step: Array
    symmetric: bool
    keep_negative: bool
    auto: bool
    noise: float = 1.0
    to_power: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Binary:
    """binary and, at inference, stochastic_binary.

    Attributes:
        use_01: Levels 0 and 1 in place of -1 and 1.
        alpha: Factor of the levels.
    """

    use_01: bool
    alpha: Alpha


@dataclass(frozen=True, slots=True, eq=False)
class Ternary:
    """ternary and, at inference, stochastic_ternary.

    Attributes:
        threshold: Lowest magnitude that becomes 1, inclusive.
        alpha: Factor of the levels.
    """

    threshold: float
    alpha: Alpha


@dataclass(frozen=True, slots=True, eq=False)
class Relu:
    """quantized_relu.

    Attributes:
        bits: Bit width; one of them is a sign where there is a slope.
        integer: Integer bits; an array where they differ by channel.
        slope: Slope below zero, zero or a power of two.
        curve: Sigmoid in front ("hard", "smooth", "real"), or ``None``.
        upper: Bound on the quantized value, or ``None``.
        unquantized_upper: Bound on the value that noise is mixed with, or ``None``.
        noise: As in :class:`FixedPoint`.
    """

    bits: int
    integer: Array
    slope: float
    curve: str | None
    upper: float | None
    unquantized_upper: Array | None
    noise: float = 1.0


@dataclass(frozen=True, slots=True)
class MuLaw:
    """quantized_ulaw.

    Attributes:
        bits: Bit width.
        integer: Integer bits.
        symmetric: Whether the lowest level is left out.
        u: Strength of the compression.
        curve: Sigmoid in front.
    """

    bits: int
    integer: int
    symmetric: bool
    u: float
    curve: str


@dataclass(frozen=True, slots=True)
class Tanh:
    """quantized_tanh.

    Attributes:
        bits: Bit width.
        symmetric: Whether the lowest level is left out.
        curve: "tanh", or the sigmoid whose ``2 * s - 1`` stands for it.
    """

    bits: int
    symmetric: bool
    curve: str


@dataclass(frozen=True, slots=True)
class Sigmoid:
    """quantized_sigmoid.

    Attributes:
        bits: Bit width.
        symmetric: Whether level 0 is left out.
        curve: Sigmoid in front.
    """

    bits: int
    symmetric: bool
    curve: str


@dataclass(frozen=True, slots=True)
class PowerOfTwo:
    """quantized_po2 and quantized_relu_po2.

    Attributes:
        lowest: Smallest exponent.
        highest: Largest exponent.
        max_value: Bound on the magnitude before its logarithm is rounded, or ``None``.
        quadratic: Whether only even exponents are used.
        floor: Whether the exponent is rounded down, otherwise half to even.
        relu: Whether negative values are clamped or scaled down.
        slope: Factor of negative values with ``relu``.
        noise: As in :class:`FixedPoint`.
    """

    lowest: int
    highest: int
    max_value: float | None
    quadratic: bool
    floor: bool
    relu: bool = False
    slope: float = 0.0
    noise: float = 1.0


@dataclass(frozen=True, slots=True)
class BinarySigmoid:
    """The functions binary_sigmoid and binary_tanh.

    Attributes:
        two_sided: Levels -1 and 1 in place of 0 and 1.
    """

    two_sided: bool


Description: TypeAlias = (
    FixedPoint
    | LinearQuantizer
    | Binary
    | Ternary
    | Relu
    | MuLaw
    | Tanh
    | Sigmoid
    | PowerOfTwo
    | BinarySigmoid
)


class UnreadableQuantizerError(Exception):
    """A quantizer that cannot be converted; the text says why."""


def is_quantizer(value: object) -> bool:
    """Return whether an attribute of a layer is a quantizer of QKeras, or derived from one."""
    if isinstance(value, type) or not callable(value):
        return False
    if getattr(value, "__name__", "") in _FUNCTIONS and _is_from_qkeras(value):
        return True
    return any(
        kind.__name__ == "BaseQuantizer" and kind.__module__.startswith("qkeras")
        for kind in type(value).__mro__
    )


def describe(quantizer: Any, sigmoid: str) -> Description:
    """Return what a live quantizer computes at inference.

    Args:
        quantizer: The object.
        sigmoid: QKeras' process-wide sigmoid: "hard", "smooth" or "real".

    Raises:
        UnreadableQuantizerError: A class that is not known, or one that has no fixed function.
    """
    name = getattr(quantizer, "__name__", "")
    if name in _FUNCTIONS and _is_from_qkeras(quantizer):
        return _FUNCTIONS[name]
    kind = type(quantizer)
    if not kind.__module__.startswith("qkeras"):
        bases = ", ".join(base.__name__ for base in kind.__mro__[1:-1]) or "object"
        raise UnreadableQuantizerError(
            f"class '{kind.__module__}.{kind.__name__}' (derived from {bases}) is not a "
            "quantizer of QKeras itself: what it computes is not known"
        )
    return _known(kind.__name__)(quantizer, sigmoid)


def read(name: str, attributes: Mapping[str, Any], sigmoid: str) -> Description:
    """Return what a quantizer with these attributes computes at inference.

    Args:
        name: Its class.
        attributes: The attributes that the live object would have.
        sigmoid: As in :func:`describe`.

    Raises:
        UnreadableQuantizerError: As in :func:`describe`.
    """
    reader = _known(name)
    # Readers ask for the class' name, as that of a live object.
    return reader(type(name, (SimpleNamespace,), {})(**attributes), sigmoid)


def _known(name: str) -> Callable[[Any, str], Description]:
    """Return the reader of a class."""
    if name == "bernoulli":
        raise UnreadableQuantizerError(
            "'bernoulli' draws random values at inference as well; "
            "use stochastic_binary or binary"
        )
    reader = _READERS.get(name)
    if reader is None:
        raise UnreadableQuantizerError(
            f"class '{name}' is not known; known are {', '.join(sorted(_READERS))}"
        )
    return reader


def words(quantizer: Any) -> str:
    """Return how messages call a quantizer."""
    return str(getattr(quantizer, "__name__", "") or type(quantizer).__name__)


def depends_on_data(description: Description) -> bool:
    """Return whether the scale is computed from the tensor that is quantized."""
    if isinstance(description, LinearQuantizer):
        return description.auto
    return isinstance(getattr(description, "alpha", None), str)


def _is_from_qkeras(value: object) -> bool:
    return str(getattr(value, "__module__", "")).startswith("qkeras")


def number(value: Any) -> Array:
    """Return a Python number, array, tensor or variable as float32."""
    array = np.asarray(value.numpy() if hasattr(value, "numpy") else value, dtype=np.float32)
    # QAdaptiveActivation keeps one integer in a vector of length 1.
    return array.reshape(()) if array.size == 1 else array


def _noise(q: Any) -> float:
    return float(number(getattr(q, "qnoise_factor", 1.0)))


def _alpha(q: Any) -> Alpha:
    if isinstance(q.alpha, str):
        return q.alpha
    return number(1.0 if q.alpha is None else q.alpha)


def _of_fixed_range(q: Any) -> dict[str, Any]:
    return {
        "bits": int(number(q.bits)),
        "symmetric": bool(q.symmetric),
        "keep_negative": bool(q.keep_negative),
        "noise": _noise(q),
    }


def _fixed_point(q: Any, _: str) -> FixedPoint:
    swish = None
    if type(q).__name__ == "quantized_hswish":
        swish = (float(q.relu_shift), float(q.relu_upper_bound))
    return FixedPoint(
        integer=number(q.integer), alpha=_alpha(q), swish=swish, **_of_fixed_range(q)
    )


def _linear(q: Any, _: str) -> LinearQuantizer:
    auto = isinstance(q.alpha, str)
    step = np.array(1.0, dtype=np.float32) if auto else number(q.quantization_scale)
    to_power = auto and q.alpha == "auto_po2"
    return LinearQuantizer(step=step, auto=auto, to_power=to_power, **_of_fixed_range(q))


def _binary(q: Any, _: str) -> Binary:
    return Binary(use_01=bool(getattr(q, "use_01", False)), alpha=_alpha(q))


def _ternary(q: Any, _: str) -> Ternary:
    threshold = q.default_threshold if q.threshold is None else q.threshold
    return Ternary(threshold=float(threshold), alpha=_alpha(q))


def _relu(q: Any, sigmoid: str) -> Relu:
    slope = float(q.negative_slope)
    integer = number(q.integer)
    bound = None if q.relu_upper_bound is None else float(q.relu_upper_bound)
    clip = bool(q.is_quantized_clip)
    codes = 2.0 ** (int(q.bits) - (slope != 0))
    highest = (np.exp2(integer) * (1 - 1 / codes)).astype(np.float32)
    unquantized = None if bound is None else np.array(bound, dtype=np.float32)
    return Relu(
        bits=int(q.bits),
        integer=integer,
        slope=slope,
        curve=sigmoid if q.use_sigmoid else None,
        # A bound of zero counts as none, as in QKeras.
        upper=(bound or None) if not clip else None,
        unquantized_upper=highest if clip else unquantized,
        noise=_noise(q),
    )


def _po2(q: Any, _: str) -> PowerOfTwo:
    relu = type(q).__name__ == "quantized_relu_po2"
    return PowerOfTwo(
        lowest=int(q._min_exp),
        highest=int(q._max_exp),
        max_value=None if q.max_value is None else float(q.max_value),
        quadratic=bool(q.quadratic_approximation),
        floor=str(getattr(q, "log2_rounding", "rnd")) == "floor",
        relu=relu,
        slope=float(q.negative_slope) if relu else 0.0,
        noise=_noise(q),
    )


_READERS: Mapping[str, Callable[[Any, str], Description]] = {
    "binary": _binary,
    "quantized_bits": _fixed_point,
    "quantized_hswish": _fixed_point,
    "quantized_linear": _linear,
    "quantized_po2": _po2,
    "quantized_relu": _relu,
    "quantized_relu_po2": _po2,
    "quantized_sigmoid": lambda q, sigmoid: Sigmoid(
        int(q.bits), bool(q.symmetric), "real" if q.use_real_sigmoid else sigmoid
    ),
    "quantized_tanh": lambda q, sigmoid: Tanh(
        int(q.bits), bool(q.symmetric), "tanh" if q.use_real_tanh else sigmoid
    ),
    "quantized_ulaw": lambda q, sigmoid: MuLaw(
        int(q.bits), int(q.integer), bool(q.symmetric), float(q.u), sigmoid
    ),
    "stochastic_binary": _binary,
    "stochastic_ternary": _ternary,
    "ternary": _ternary,
}

_FUNCTIONS: Mapping[str, Description] = {
    "binary_sigmoid": BinarySigmoid(two_sided=False),
    "binary_tanh": BinarySigmoid(two_sided=True),
}
