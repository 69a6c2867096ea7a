"""What is done to data before a model takes it: scale, mean, deviation, layout."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qonnx_hub_ir.errors import UsageError

LAYOUTS = ("nchw", "nhwc")

_FORM = (
    "write it like scale=1/255,mean=[0.485,0.456,0.406],std=[0.229,0.224,0.225],layout=nhwc"
)


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What is done to data, in float32: (x * scale - mean) / std, then the axes.

    Attributes:
        scale: Numerator and denominator: 1/255 divides by 255, as image libraries do.
        mean: One number, or one per channel; none for 0.
        std: Likewise; none for 1.
        layout: Axes of the data, "nchw" or "nhwc": turned where the model takes the other;
            "" takes them as they are.
    """

    scale: tuple[float, float] = (1.0, 1.0)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    layout: str = ""

    def __call__(self, data: NDArray[Any], shape: tuple[Any, ...] | None) -> NDArray[Any]:
        """Return data as a model takes it.

        Args:
            data: Samples, the first axis over them, of any type of numbers.
            shape: Shape of the model's input; sizes that are no integers are open.

        Raises:
            UsageError: Data that no layout makes fit, or other numbers of channels.
        """
        x = data.astype(np.float32)
        numerator, denominator = self.scale
        if numerator != 1.0:
            x = x * np.float32(numerator)
        if denominator != 1.0:
            x = x / np.float32(denominator)
        if self.mean:
            x = x - self._per_channel(self.mean, x)
        if self.std:
            x = x / self._per_channel(self.std, x)
        if self.layout and x.ndim == 4:
            first = self.layout == "nchw"
            turned = np.moveaxis(x, 1, -1) if first else np.moveaxis(x, -1, 1)
            fits = _fits(shape, x.shape), _fits(shape, turned.shape)
            if not any(fits):
                raise UsageError(
                    f"--preprocess: images of {list(x.shape[1:])} fit an input of {shape} in "
                    "no order of their axes"
                )
            # Where both orders fit, channels come first, as in ONNX.
            if not fits[0] or (all(fits) and not first):
                x = turned
        return np.ascontiguousarray(x)

    def _per_channel(self, values: tuple[float, ...], x: NDArray[Any]) -> NDArray[Any]:
        own = np.asarray(values, dtype=np.float32)
        if own.size == 1:
            return own
        if x.ndim > 2 and not self.layout:
            raise UsageError("--preprocess: one number per channel needs layout=nchw or nhwc")
        axis = 1 if self.layout == "nchw" else x.ndim - 1
        if x.shape[axis] != own.size:
            raise UsageError(
                f"--preprocess: {own.size} numbers are given for {x.shape[axis]} channels"
            )
        return own.reshape([own.size if k == axis else 1 for k in range(x.ndim)])


def _fits(shape: tuple[Any, ...] | None, given: tuple[int, ...]) -> bool:
    if shape is None:
        return True
    sizes = zip(shape[1:], given[1:], strict=False)
    return len(shape) == len(given) and all(w == g for w, g in sizes if isinstance(w, int))


def parse_preprocessing(text: str) -> Preprocessing:
    """Return what a text such as "scale=1/255,mean=0.5,std=0.5,layout=nhwc" says.

    Raises:
        UsageError: An unknown name, a number that is none, a deviation or divisor of zero.

    Example:
        >>> parse_preprocessing("scale=1/255").scale
        (1.0, 255.0)
    """
    from qonnx_hub.transformation.pass_options import split

    found: dict[str, Any] = {}
    for part in split(text):
        name, _, value = part.partition("=")
        if name not in {"scale", "mean", "std", "layout"}:
            raise UsageError(f"--preprocess has no '{name}': {_FORM}")
        if name == "layout":
            if value not in LAYOUTS:
                raise UsageError(f"--preprocess: layout is nchw or nhwc, not '{value}'")
            found[name] = value
            continue
        try:
            if name == "scale":
                over, _, under = value.partition("/")
                found[name] = (float(over), float(under or 1))
            else:
                found[name] = tuple(float(v) for v in value.strip("[]").split(","))
        except ValueError:
            raise UsageError(f"--preprocess: '{value}' is no number: {_FORM}") from None
    numbers = (x for name, values in found.items() if name != "layout" for x in values)
    if not all(map(math.isfinite, numbers)):
        raise UsageError(f"--preprocess: a number is infinite, or none: {_FORM}")
    if 0 in found.get("std", ()) or found.get("scale", (1, 1))[1] == 0:
        raise UsageError("--preprocess: nothing is divided by zero")
    return Preprocessing(**found)
