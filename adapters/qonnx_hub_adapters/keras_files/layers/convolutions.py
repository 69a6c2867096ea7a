"""Convolutions of every kind; ONNX has channels first, Keras mostly last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx_ir import Value

from qonnx_hub_adapters.keras_files.graph import Layer
from qonnx_hub_adapters.keras_files.kinds import Config, Kind, Use
from qonnx_hub_adapters.keras_files.layers.activations import activate
from qonnx_hub_adapters.keras_files.layers.core import with_bias
from qonnx_hub_adapters.keras_files.scope import Scope
from qonnx_hub_adapters.keras_files.variables import Variables
from qonnx_hub_ir.quantizers import Array


def numbers(value: Any, count: int) -> list[int]:
    """Return one whole number per axis, of one number or a list."""
    return [int(value)] * count if isinstance(value, (int, float)) else [int(v) for v in value]


@dataclass(frozen=True, slots=True)
class SlidingWindow:
    """How a window slides.

    Attributes:
        kernel: Its sizes.
        strides: Steps.
        dilations: Distances of its elements.
        padding: "valid", "same" or "causal".
        first: Whether channels come first.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    padding: str
    first: bool


def window_of(config: Config, kernel: Sequence[int]) -> SlidingWindow:
    """Return the window of a convolution's configuration."""
    count = len(kernel)
    return SlidingWindow(
        tuple(kernel),
        tuple(numbers(config.get("strides", 1), count)),
        tuple(numbers(config.get("dilation_rate", 1), count)),
        str(config.get("padding", "valid")),
        config.get("data_format") == "channels_first",
    )


def channels_first(s: Scope, x: Value, window: SlidingWindow) -> Value:
    """Return a value with its channels behind the samples."""
    rank = len(window.kernel) + 2
    if s.rank(x) != rank:
        raise s.fail(f"its input has {s.rank(x)} axes, its class takes {rank}")
    return x if window.first else s.transpose(x, [0, rank - 1, *range(1, rank - 1)])


def restored(s: Scope, y: Value, window: SlidingWindow) -> Value:
    """Return a value with its channels where the layer has them."""
    rank = len(window.kernel) + 2
    return y if window.first else s.transpose(y, [0, *range(2, rank), 1])


def pads_of(s: Scope, x: Value, window: SlidingWindow) -> dict[str, Any]:
    """Return the attributes that pad an input with channels first as Keras does."""
    if window.padding == "valid":
        return {}
    reach = [(k - 1) * d + 1 for k, d in zip(window.kernel, window.dilations, strict=True)]
    if window.padding == "causal":
        return {"pads": [reach[0] - 1, 0]}
    begins, ends = [], []
    for size, stride, extent in zip(s.shape(x)[2:], window.strides, reach, strict=True):
        if size is None and stride != 1:
            return {"auto_pad": "SAME_UPPER"}
        length = stride if size is None else size
        total = max((-(-length // stride) - 1) * stride + extent - length, 0)
        begins.append(total // 2)
        ends.append(total - total // 2)
    return {"pads": [*begins, *ends]}


def convolved(
    s: Scope,
    x: Value,
    weight: Value,
    bias: Value | None,
    window: SlidingWindow,
    groups: int = 1,
) -> Value:
    """Return a convolution of a value in the layer's layout with a weight in ONNX's."""
    turned = channels_first(s, x, window)
    y = s.op(
        "Conv",
        turned,
        weight,
        *(() if bias is None else (bias,)),
        kernel_shape=list(window.kernel),
        strides=list(window.strides),
        dilations=list(window.dilations),
        group=groups,
        **pads_of(s, turned, window),
    )
    return restored(s, y, window)


def kernel_layout(kernel: Array) -> Array:
    """Return a kernel (..., in, out) as ONNX has it: (out, in, ...)."""
    rank = kernel.ndim
    return np.transpose(kernel, [rank - 1, rank - 2, *range(rank - 2)])


def depthwise_layout(kernel: Array) -> Array:
    """Return a kernel (..., in, multiplier) as (in * multiplier, 1, ...)."""
    rank = kernel.ndim
    turned = np.transpose(kernel, [rank - 2, rank - 1, *range(rank - 2)])
    return turned.reshape(-1, 1, *kernel.shape[:-2])


def groups_of(s: Scope, x: Value, kernel: Array, window: SlidingWindow) -> int:
    """Return the number of groups: channels of the input over those of the kernel."""
    channels = s.known(x, 1 if window.first else -1)
    if channels % kernel.shape[-2]:
        raise s.fail(f"its kernel reads {kernel.shape[-2]} channels of {channels}")
    return int(channels // kernel.shape[-2])


def conv(s: Scope, use: Use) -> Value:
    """Write a convolution."""
    kernel = use.weights["kernel"]
    window = window_of(use.config, kernel.shape[:-2])
    weight = s.weight("kernel", kernel, layout=kernel_layout)
    groups = groups_of(s, use.x, kernel, window)
    y = convolved(s, use.x, weight, bias_of(s, use), window, groups)
    return activate(s, y, use.config.get("activation"))


def bias_of(s: Scope, use: Use) -> Value | None:
    """Return the stored bias of a layer, if it has one."""
    bias = use.weights.get("bias")
    return None if bias is None else s.weight("bias", bias)


def depthwise(s: Scope, use: Use) -> Value:
    """Write a depthwise convolution."""
    kernel = use.weights["depthwise_kernel"]
    window = window_of(use.config, kernel.shape[:-2])
    weight = s.weight("depthwise_kernel", kernel, layout=depthwise_layout)
    y = convolved(s, use.x, weight, bias_of(s, use), window, kernel.shape[-2])
    return activate(s, y, use.config.get("activation"))


def pointwise_window(window: SlidingWindow) -> SlidingWindow:
    """Return the window of the second convolution of a separable one."""
    ones = (1,) * len(window.kernel)
    return SlidingWindow(ones, ones, ones, "valid", window.first)


def separable(s: Scope, use: Use) -> Value:
    """Write a depthwise convolution and one by one element behind it."""
    deep, point = use.weights["depthwise_kernel"], use.weights["pointwise_kernel"]
    window = window_of(use.config, deep.shape[:-2])
    weight = s.weight("depthwise_kernel", deep, layout=depthwise_layout)
    y = convolved(s, use.x, weight, None, window, deep.shape[-2])
    second = s.weight("pointwise_kernel", point, layout=kernel_layout)
    y = convolved(s, y, second, bias_of(s, use), pointwise_window(window))
    return activate(s, y, use.config.get("activation"))


def transposed_pads(
    s: Scope, x: Value, window: SlidingWindow, extra: Sequence[int] | None
) -> Any:
    """Return pads and output padding of a transposed convolution, by Keras' output sizes.

    Source: ``deconv_output_length`` and the gradient of a convolution padded as Keras pads.
    """
    begins, ends, outs = [], [], []
    for axis, size in enumerate(s.shape(x)[2:]):
        k, stride = window.kernel[axis], window.strides[axis]
        k = (k - 1) * window.dilations[axis] + 1
        n = stride + k if size is None else size
        full = (n - 1) * stride + k
        same = window.padding == "same"
        if extra is None:
            length = n * stride if same else n * stride + max(k - stride, 0)
        else:
            length = full + extra[axis] - (2 * (k // 2) if same else 0)
        lo = 0
        if same:
            lo = max((-(-length // stride) - 1) * stride + k - length, 0) // 2
        hi = full - lo - length
        begins.append(lo)
        ends.append(max(hi, 0))
        outs.append(max(-hi, 0))
    return {"pads": [*begins, *ends], "output_padding": outs}


def conv_transpose(s: Scope, use: Use) -> Value:
    """Write a transposed convolution."""
    kernel = use.weights["kernel"]
    weight = s.weight("kernel", kernel, layout=kernel_layout)
    y = transposed(s, use, weight, bias_of(s, use), kernel.shape[:-2])
    return activate(s, y, use.config.get("activation"))


def transposed(
    s: Scope, use: Use, weight: Value, bias: Value | None, kernel: Sequence[int]
) -> Value:
    """Return a transposed convolution with a weight in ONNX's order of axes."""
    window = window_of(use.config, kernel)
    extra = use.config.get("output_padding")
    given = None if extra is None else numbers(extra, len(kernel))
    x = channels_first(s, use.x, window)
    y = s.op(
        "ConvTranspose",
        x,
        weight,
        *(() if bias is None else (bias,)),
        kernel_shape=list(window.kernel),
        strides=list(window.strides),
        dilations=list(window.dilations),
        **transposed_pads(s, x, window, given),
    )
    return restored(s, y, window)


def _holds(*names: str) -> Any:
    def holds(layer: Layer) -> Variables:
        return with_bias(layer, *names)

    return holds


KINDS: Mapping[str, Kind] = {
    **{f"keras>Conv{n}D": Kind(conv, _holds("kernel")) for n in (1, 2, 3)},
    **{f"keras>Conv{n}DTranspose": Kind(conv_transpose, _holds("kernel")) for n in (1, 2, 3)},
    **{
        f"keras>DepthwiseConv{n}D": Kind(depthwise, _holds("depthwise_kernel")) for n in (1, 2)
    },
    **{
        f"keras>SeparableConv{n}D": Kind(
            separable, _holds("depthwise_kernel", "pointwise_kernel")
        )
        for n in (1, 2)
    },
}
