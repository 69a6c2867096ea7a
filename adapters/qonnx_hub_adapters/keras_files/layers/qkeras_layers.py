"""Layers of QKeras: 0.9.0 on Keras 2, qkeras-v3 on Keras 3.

Source: the ``call`` of each class in ``qkeras.qlayers``, ``qkeras.qconvolutional``,
``qkeras.qnormalization``, ``qkeras.qpooling`` and the folded layers beside them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from onnx_ir import Value

from qonnx_hub_adapters.keras_files.graph import Layer
from qonnx_hub_adapters.keras_files.kinds import Kind, Use
from qonnx_hub_adapters.keras_files.layers.activations import activate
from qonnx_hub_adapters.keras_files.layers.convolutions import (
    convolved,
    depthwise_layout,
    groups_of,
    kernel_layout,
    pointwise_window,
    transposed,
    window_of,
)
from qonnx_hub_adapters.keras_files.layers.core import spatial_axes, with_bias
from qonnx_hub_adapters.keras_files.layers.normalization import (
    affine,
    batchnorm_variables,
    one_axis,
)
from qonnx_hub_adapters.keras_files.layers.pooling import pool_window, pooled
from qonnx_hub_adapters.keras_files.quantizer_configs import read_quantizer
from qonnx_hub_adapters.keras_files.scales import quantized_weight
from qonnx_hub_adapters.keras_files.scope import Scope
from qonnx_hub_adapters.keras_files.variables import Variables, variables
from qonnx_hub_adapters.qkeras.quantizers import Description, UnreadableQuantizerError
from qonnx_hub_ir.quantizers import Array


def quantizer_of(
    s: Scope, use: Use, name: str, *, of_kernel: bool = False
) -> Description | None:
    """Return a quantizer that the layer's configuration names.

    Raises:
        SourceError: It is not known.
    """
    try:
        return read_quantizer(use.config.get(name), of_kernel=of_kernel)
    except UnreadableQuantizerError as error:
        raise s.fail(f"its {name}: {error}") from error


def _kernel(
    s: Scope, use: Use, role: str, name: str, layout: Any, values: Any = None
) -> Value:
    kernel = use.weights[role] if values is None else values
    quantizer = quantizer_of(s, use, name, of_kernel=True)
    mask = use.config.get("mask")
    if mask is not None:
        return _masked(s, role, kernel, quantizer, np.asarray(mask, dtype=np.float32), layout)
    return s.weight(role, kernel, quantizer, layout=layout)


def _masked(
    s: Scope, role: str, kernel: Array, q: Description | None, mask: Array, layout: Any
) -> Value:
    """Return a kernel whose elements are switched off behind its quantizer."""
    value = s.weight(role, kernel, q, layout=layout)
    full = np.broadcast_to(mask, kernel.shape)
    if np.all(full == 1):
        return value
    return s.op("Mul", value, s.stored(f"{role}_mask", layout(full), None))


def _bias(s: Scope, use: Use) -> Value | None:
    bias = use.weights.get("bias")
    if bias is None:
        return None
    return s.weight("bias", bias, quantizer_of(s, use, "bias_quantizer"))


def _finish(s: Scope, use: Use, y: Value) -> Value:
    return activate(s, y, use.config.get("activation"), in_q_layer=True)


def _dense(s: Scope, use: Use) -> Value:
    y = s.op("MatMul", use.x, _kernel(s, use, "kernel", "kernel_quantizer", _as_it_is))
    bias = _bias(s, use)
    return _finish(s, use, y if bias is None else s.op("Add", y, bias))


def _as_it_is(kernel: Array) -> Array:
    return kernel


def _conv(s: Scope, use: Use) -> Value:
    kernel = use.weights["kernel"]
    window = window_of(use.config, kernel.shape[:-2])
    weight = _kernel(s, use, "kernel", "kernel_quantizer", kernel_layout)
    groups = groups_of(s, use.x, kernel, window)
    return _finish(s, use, convolved(s, use.x, weight, _bias(s, use), window, groups))


def _depthwise(s: Scope, use: Use) -> Value:
    kernel = use.weights["depthwise_kernel"]
    window = window_of(use.config, kernel.shape[:-2])
    weight = _kernel(s, use, "depthwise_kernel", "depthwise_quantizer", depthwise_layout)
    y = convolved(s, use.x, weight, _bias(s, use), window, kernel.shape[-2])
    return _finish(s, use, y)


def _separable(s: Scope, use: Use) -> Value:
    deep, point = use.weights["depthwise_kernel"], use.weights["pointwise_kernel"]
    window = window_of(use.config, deep.shape[:-2])

    def expanded(layout: Any) -> Any:
        # Kernels of one spatial axis are quantized with two.
        return lambda kernel: layout(
            kernel[0] if kernel.ndim == 4 and deep.ndim == 3 else kernel
        )

    flat = deep.ndim == 3
    first = _kernel(
        s,
        use,
        "depthwise_kernel",
        "depthwise_quantizer",
        expanded(depthwise_layout),
        deep[np.newaxis] if flat else deep,
    )
    second = _kernel(
        s,
        use,
        "pointwise_kernel",
        "pointwise_quantizer",
        expanded(kernel_layout),
        point[np.newaxis] if flat else point,
    )
    y = convolved(s, use.x, first, None, window, deep.shape[-2])
    y = convolved(s, y, second, _bias(s, use), pointwise_window(window))
    return _finish(s, use, y)


def _conv_transpose(s: Scope, use: Use) -> Value:
    kernel = use.weights["kernel"]
    weight = _kernel(s, use, "kernel", "kernel_quantizer", kernel_layout)
    return _finish(s, use, transposed(s, use, weight, _bias(s, use), kernel.shape[:-2]))


def _applied(
    s: Scope, use: Use, name: str, values: Array, *, of_kernel: bool = False
) -> Array:
    """Return values that a quantizer of the configuration has passed."""
    quantizer = quantizer_of(s, use, name, of_kernel=of_kernel)
    if quantizer is None:
        return values
    try:
        return quantized_weight(quantizer, values, s.net.generation)[0]
    except UnreadableQuantizerError as error:
        raise s.fail(f"its {name}: {error}") from error


def _batchnorm(s: Scope, use: Use) -> Value:
    """Write ``x * inv + (beta - mean * inv)`` of quantized parameters."""
    w = use.weights
    rank = s.rank(use.x)
    axis = one_axis(s, use.config.get("axis", -1), rank)
    epsilon = np.float32(use.config.get("epsilon", 1e-3))
    mean = _applied(s, use, "mean_quantizer", w["moving_mean"])
    variance = _applied(s, use, "variance_quantizer", w["moving_variance"], of_kernel=True)
    root = np.sqrt((variance + epsilon).astype(np.float32))
    inverse = (np.float32(1) / root).astype(np.float32)
    gamma, beta = w.get("gamma"), w.get("beta")
    if gamma is not None:
        gamma = _applied(s, use, "gamma_quantizer", gamma, of_kernel=True)
        inverse = (inverse * gamma).astype(np.float32)
    inverse = _applied(s, use, "inverse_quantizer", inverse)
    shift = (-mean * inverse).astype(np.float32)
    if beta is not None:
        beta = _applied(s, use, "beta_quantizer", beta)
        shift = (beta - mean * inverse).astype(np.float32)
    return affine(s, use.x, inverse, shift, axis)


def _folded(s: Scope, use: Use, role: str, name: str) -> tuple[Array, Array]:
    """Return kernel and bias with the normalization multiplied in."""
    w, inner = use.weights, use.weights.parts["batchnorm"]
    epsilon = np.float32(use.config.get("epsilon", 1e-3))
    root = np.sqrt((inner["moving_variance"] + epsilon).astype(np.float32))
    inverse = (np.float32(1) / root).astype(np.float32)
    gamma, beta = inner.get("gamma"), inner.get("beta")
    if gamma is not None:
        inverse = (inverse * gamma).astype(np.float32)
    kernel, bias = w[role], w.get("bias")
    bias = np.zeros_like(inner["moving_mean"]) if bias is None else bias
    shift = (inverse * (bias - inner["moving_mean"])).astype(np.float32)
    if beta is not None:
        shift = (shift + beta).astype(np.float32)
    factor = inverse.reshape(kernel.shape[-2:]) if role == "depthwise_kernel" else inverse
    return (factor * kernel).astype(np.float32), shift


def _folded_bias(s: Scope, use: Use, bias: Array) -> Value:
    return s.weight("folded_bias", bias, quantizer_of(s, use, "bias_quantizer"))


def _dense_batchnorm(s: Scope, use: Use) -> Value:
    kernel, bias = _folded(s, use, "kernel", "kernel_quantizer")
    weight = _kernel(s, use, "kernel", "kernel_quantizer", _as_it_is, kernel)
    y = s.op("Add", s.op("MatMul", use.x, weight), _folded_bias(s, use, bias))
    return _finish(s, use, y)


def _conv_batchnorm(s: Scope, use: Use) -> Value:
    kernel, bias = _folded(s, use, "kernel", "kernel_quantizer")
    window = window_of({**use.config, "data_format": "channels_last"}, kernel.shape[:-2])
    weight = _kernel(s, use, "kernel", "kernel_quantizer", kernel_layout, kernel)
    groups = groups_of(s, use.x, kernel, window)
    y = convolved(s, use.x, weight, _folded_bias(s, use, bias), window, groups)
    return _finish(s, use, y)


def _depthwise_batchnorm(s: Scope, use: Use) -> Value:
    kernel, bias = _folded(s, use, "depthwise_kernel", "depthwise_quantizer")
    window = window_of(use.config, kernel.shape[:-2])
    weight = _kernel(
        s, use, "depthwise_kernel", "depthwise_quantizer", depthwise_layout, kernel
    )
    y = convolved(s, use.x, weight, _folded_bias(s, use, bias), window, kernel.shape[-2])
    return _finish(s, use, y)


def _inverse_area(s: Scope, use: Use, area: int) -> float:
    value = np.array(1.0 / area, dtype=np.float32)
    return float(_applied(s, use, "average_quantizer", value))


def _average_pooling(s: Scope, use: Use) -> Value:
    window = pool_window(use, 2)
    area = math.prod(window.kernel)
    factor = _inverse_area(s, use, area)
    if use.config.get("average_quantizer") is None:
        return _finish(s, use, pooled(s, use, "AveragePool", 2))
    if s.net.generation == 2:
        y = s.op("Mul", pooled(s, use, "AveragePool", 2), float(area))
    else:
        more = s.op("Mul", use.x, float(area))
        y = pooled(s, Use(use.layer, use.weights, (more,), {}), "AveragePool", 2)
    return _finish(s, use, s.op("Mul", y, factor))


def _global_average_pooling(s: Scope, use: Use) -> Value:
    axes = spatial_axes(use, s.rank(use.x))
    area = math.prod(s.known(use.x, axis) for axis in axes)
    keep, at = int(bool(use.config.get("keepdims", False))), s.integers(axes, "axes")
    if use.config.get("average_quantizer") is None:
        return _finish(s, use, s.op("ReduceMean", use.x, at, keepdims=keep))
    factor = _inverse_area(s, use, area)
    if s.net.generation == 2:
        y = s.op("Mul", s.op("ReduceMean", use.x, at, keepdims=keep), float(area))
    else:
        y = s.op("ReduceSum", use.x, at, keepdims=keep)
    return _finish(s, use, s.op("Mul", y, factor))


def _scale_shift(s: Scope, use: Use) -> Value:
    weight = s.weight(
        "weight", use.weights["weight"], quantizer_of(s, use, "weight_quantizer")
    )
    y = s.op("Mul", use.x, weight)
    bias = use.weights.get("bias")
    if bias is not None:
        y = s.op("Add", y, s.weight("bias", bias, quantizer_of(s, use, "bias_quantizer")))
    return _finish(s, use, y)


def _held_by(*names: str) -> Any:
    return lambda layer: with_bias(layer, *names)


def _held_by_folded(name: str) -> Any:
    def holds(layer: Layer) -> Variables:
        names = with_bias(layer, name).own
        counted = ("iteration", False)
        return Variables((*names, counted), (("batchnorm", batchnorm_variables(layer)),))

    return holds


KINDS: Mapping[str, Kind] = {
    "qkeras>QDense": Kind(_dense, _held_by("kernel")),
    "qkeras>QConv1D": Kind(_conv, _held_by("kernel")),
    "qkeras>QConv2D": Kind(_conv, _held_by("kernel")),
    "qkeras>QConv2DTranspose": Kind(_conv_transpose, _held_by("kernel")),
    "qkeras>QDepthwiseConv2D": Kind(_depthwise, _held_by("depthwise_kernel")),
    **{
        f"qkeras>QSeparableConv{n}D": Kind(
            _separable, _held_by("depthwise_kernel", "pointwise_kernel")
        )
        for n in (1, 2)
    },
    "qkeras>QBatchNormalization": Kind(_batchnorm, batchnorm_variables),
    "qkeras>QDenseBatchnorm": Kind(_dense_batchnorm, _held_by_folded("kernel")),
    "qkeras>QConv2DBatchnorm": Kind(_conv_batchnorm, _held_by_folded("kernel")),
    "qkeras>QDepthwiseConv2DBatchnorm": Kind(
        _depthwise_batchnorm, _held_by_folded("depthwise_kernel")
    ),
    "qkeras>QAveragePooling2D": Kind(_average_pooling),
    "qkeras>QGlobalAveragePooling2D": Kind(_global_average_pooling),
    "qkeras>QScaleShift": Kind(
        _scale_shift,
        lambda layer: variables(
            *["weight", *(["bias"] if layer.config.get("use_bias", True) else [])]
        ),
    ),
}
