"""The range of an operation's codes: that of their type, cut by a fused activation."""

from __future__ import annotations

from typing import Any

import numpy as np

from qonnx_hub_adapters.tflite.kernels.fixed_point import round_away
from qonnx_hub_adapters.tflite.net import (
    CODE_TYPES,
    RELU,
    RELU6,
    RELU_N1_TO_1,
    KernelCall,
    NetTensor,
)
from qonnx_hub_ir.quantizers import Array

_ENDS = {RELU: (0.0, None), RELU6: (0.0, 6.0), RELU_N1_TO_1: (-1.0, 1.0)}


def limits(tensor: NetTensor, activation: int = 0) -> tuple[int, int]:
    """Return the lowest and the highest code that an operation may give.

    Args:
        tensor: What it makes.
        activation: The number of the fused activation.

    Example:
        >>> limits(tensor_of_scale_a_tenth, RELU6)
        (0, 60)
    """
    low, high = CODE_TYPES[tensor.type]
    first, last = _ENDS.get(activation, (None, None))
    if first is not None:
        low = max(low, _code(tensor, first))
    if last is not None:
        high = min(high, _code(tensor, last))
    return low, high


def _code(tensor: NetTensor, value: float) -> int:
    # beyond every type of codes, where a scale is next to nothing
    with np.errstate(over="ignore"):
        level = np.clip(round_away(np.float32(value) / tensor.scale), -(2.0**40), 2.0**40)
    return tensor.zero + int(level)


def finish(call: KernelCall, codes: Any, activation: int | None = None) -> Array:
    """Return codes cut to their range, in the type of the output."""
    fused = call.options.get("fused_activation_function", 0)
    low, high = limits(call.output, fused if activation is None else activation)
    # minimum first: where an activation's range is empty, the kernels give its lowest code
    return np.asarray(np.maximum(np.minimum(codes, high), low).astype(call.output.dtype))
