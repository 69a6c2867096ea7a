"""Numpy kernels that compare, combine truth values and select."""

from __future__ import annotations

import numpy as np

from qonnx_hub.executor.kernels.elementwise import binary, stateless, unary
from qonnx_hub.executor.kernels.spec import Array, KernelTable


def _where(condition: Array, x: Array, y: Array) -> Array:
    if x.dtype != y.dtype:
        raise TypeError(f"Where selects between {x.dtype} and {y.dtype}, which differ")
    return np.where(condition, x, y)


_COMPARISONS = {
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
}

_CONNECTIVES = {"And": np.logical_and, "Or": np.logical_or, "Xor": np.logical_xor}

KERNELS: KernelTable = {
    **{("", op): binary(ufunc, in_place=False) for op, ufunc in _COMPARISONS.items()},
    **{("", op): binary(ufunc) for op, ufunc in _CONNECTIVES.items()},
    ("", "Not"): unary(np.logical_not),
    ("", "Where"): stateless(_where),
}
