"""Single constructs that hls4ml refuses or gets wrong when it reads them as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx

from tests.adapters.hls4ml.nets import Net

Build = Callable[[], onnx.ModelProto]

EXACT = 0.0
ROUNDING = 1e-5
"""Of float32, on numbers up to some tens; hls4ml computes exactly."""


def _net(name: str) -> Net:
    return Net(sum(map(ord, name)))


def _dense(net: Net, x: str, inputs: int, outputs: int, **given: Any) -> str:
    return net.add("MatMul", [x, net.weights((inputs, outputs), 4, 2.0**-3, **given)])


def _row(body: Callable[[Net, str], str], bits: int = 6, scale: float = 2.0**-4) -> Build:
    def build() -> onnx.ModelProto:
        net = _net(body.__qualname__)
        return net.model((1, 6), body(net, net.quant("x", bits, scale)))

    return build


def zero_point_of_activations(net: Net, x: str) -> str:
    y = net.quant(_dense(net, x, 6, 5), 4, 0.25, zero=3.0, signed=0)
    return _dense(net, y, 5, 4)


def zero_point_of_activations_with_any_scale(net: Net, x: str) -> str:
    y = net.quant(_dense(net, x, 6, 5), 4, 0.2713, zero=5.0, signed=0)
    return _dense(net, y, 5, 4)


def zero_point_after_rounding(net: Net, x: str) -> str:
    # Sums are multiples of 1/8: half of the quotients by 1/4 are ties, and the odd zero
    # point would send each of them the other way, were it added first.
    order = {"signed": 0, "zero_point_after_rounding": 1}
    y = net.quant(_dense(net, x, 6, 5), 4, 0.25, zero=5.0, **order)
    return _dense(net, y, 5, 4)


def zero_point_after_rounding_with_any_scale(net: Net, x: str) -> str:
    order = {"signed": 1, "zero_point_after_rounding": 1}
    y = net.quant(_dense(net, x, 6, 5), 8, 0.02713, zero=-37.0, **order)
    return _dense(net, y, 5, 4)


def zero_point_of_weights(net: Net, x: str) -> str:
    return _dense(net, x, 6, 4, zero=2.0)


def negative_factor_before_a_sign(net: Net, x: str) -> str:
    y = net.bipolar(net.norm(_dense(net, x, 6, 8), 8, mixed_signs=True))
    return net.add("MatMul", [y, net.weights((8, 4), 2, 1.0, narrow=1)])


def negative_factor_before_a_sign_and_binary_weights(net: Net, x: str) -> str:
    y = net.bipolar(net.norm(_dense(net, x, 6, 8), 8, mixed_signs=True))
    weight = net.bipolar(net.constant(net.random.normal(size=(8, 4)).astype(np.float32)))
    return net.add("MatMul", [y, weight])


def weights_shared_by_two_layers(net: Net, x: str) -> str:
    weight = net.weights((6, 6), 4, 2.0**-3)
    y = net.quant(net.add("MatMul", [x, weight]), 5, 2.0**-3)
    return net.add("MatMul", [y, weight])


def one_signed_bit(net: Net, x: str) -> str:
    weight = net.quant(net.constant(net.random.normal(size=(6, 8)).astype(np.float32)), 1, 1.0)
    y = net.quant(net.add("MatMul", [x, weight]), 1, 0.5)
    return _dense(net, y, 8, 4)


def one_unsigned_bit(net: Net, x: str) -> str:
    return _dense(net, net.quant(_dense(net, x, 6, 8), 1, 0.5, signed=0), 8, 4)


def weight_scale_per_channel(net: Net, x: str) -> str:
    scales = net.random.uniform(0.02, 0.4, (1, 5)).astype(np.float32)
    return net.add("MatMul", [x, net.weights((6, 5), 4, scales, narrow=1)])


def weight_scale_per_channel_powers_of_two(net: Net, x: str) -> str:
    scales = np.float32(2.0) ** -np.arange(1, 6, dtype=np.float32).reshape(1, 5)
    return net.add("MatMul", [x, net.weights((6, 5), 4, scales)])


def weight_scale_per_row(net: Net, x: str) -> str:
    scales = np.float32(2.0) ** -np.arange(1, 7, dtype=np.float32).reshape(6, 1)
    return net.add("MatMul", [x, net.weights((6, 5), 4, scales)])


def activation_scale_per_channel(net: Net, x: str) -> str:
    scales = np.float32(2.0) ** -np.arange(5, dtype=np.float32).reshape(1, 5)
    return _dense(net, net.quant(_dense(net, x, 6, 5), 5, scales), 5, 4)


def activation_scale_of_rank_two(net: Net, x: str) -> str:
    scale = np.full((1, 1), 0.25, dtype=np.float32)
    return _dense(net, net.quant(_dense(net, x, 6, 5), 5, scale), 5, 4)


def quantized_bias_of_any_scale(net: Net, x: str) -> str:
    bias = net.quant(net.constant(net.random.normal(size=5).astype(np.float32)), 8, 0.0137)
    return net.add("Add", [_dense(net, x, 6, 5), bias])


def product_before_a_layer(net: Net, x: str) -> str:
    factors = net.constant(net.random.uniform(-1, 1, 6).astype(np.float32))
    y = net.add("Mul", [net.add("Mul", [x, net.constant(np.float32(0.37))]), factors])
    return _dense(net, y, 6, 4)


def rounding_down(net: Net, x: str) -> str:
    y = net.quant(_dense(net, x, 6, 5), 4, 0.25, rounding_mode="FLOOR")
    y = net.quant(_dense(net, y, 5, 5), 4, 0.5, rounding_mode="DOWN", signed=0)
    return _dense(net, y, 5, 4, rounding_mode="CEIL")


def ternary_looking_weights(net: Net, x: str) -> str:
    return net.add("MatMul", [x, net.weights((6, 8), 2, 1.0)])


def arithmetic_with_constants(net: Net, x: str) -> str:
    y = net.add("Sub", [net.constant(np.float32(1.5)), x])
    y = net.add("Div", [net.add("Neg", [y]), net.constant(np.float32(0.5))])
    return net.add("Add", [y, net.constant(np.arange(6, dtype=np.float32) / 8)])


def scaled_signs(net: Net, x: str) -> str:
    weight = net.bipolar(
        net.constant(net.random.normal(size=(6, 8)).astype(np.float32)), 0.375
    )
    y = net.bipolar(net.add("MatMul", [x, weight]), 0.5)
    return net.add("Add", [y, _dense(net, y, 8, 8)])


def sign_as_output(net: Net, x: str) -> str:
    return net.bipolar(_dense(net, x, 6, 5))


def leaky_relu(net: Net, x: str) -> str:
    y = net.add("LeakyRelu", [_dense(net, x, 6, 5)], alpha=0.125)
    return net.quant(y, 6, 2.0**-4)


def scales_on_two_branches(net: Net, x: str) -> str:
    y = net.quant(_dense(net, x, 6, 6), 5, 0.1173)
    return net.add("Sub", [net.add("Relu", [y]), _dense(net, y, 6, 6)])


def input_without_quantizer() -> onnx.ModelProto:
    net = _net("input")
    y = net.quant(_dense(net, "x", 6, 5), 8, 1.0)
    return net.model((1, 6), _dense(net, y, 5, 4))


ROWS: dict[str, tuple[Build, float]] = {
    "activation_scale_of_rank_two": (_row(activation_scale_of_rank_two), EXACT),
    "activation_scale_per_channel": (_row(activation_scale_per_channel), EXACT),
    "arithmetic_with_constants": (_row(arithmetic_with_constants), EXACT),
    "input_without_quantizer": (input_without_quantizer, EXACT),
    "leaky_relu": (_row(leaky_relu), EXACT),
    "negative_factor": (_row(negative_factor_before_a_sign), EXACT),
    "negative_factor_binary": (_row(negative_factor_before_a_sign_and_binary_weights), EXACT),
    "one_signed_bit": (_row(one_signed_bit), EXACT),
    "one_unsigned_bit": (_row(one_unsigned_bit), EXACT),
    "product_before_a_layer": (_row(product_before_a_layer), ROUNDING),
    "quantized_bias_of_any_scale": (_row(quantized_bias_of_any_scale), ROUNDING),
    "rounding_down": (_row(rounding_down), EXACT),
    "scaled_signs": (_row(scaled_signs), EXACT),
    "scales_on_two_branches": (_row(scales_on_two_branches), ROUNDING),
    "sign_as_output": (_row(sign_as_output), EXACT),
    "ternary_looking_weights": (_row(ternary_looking_weights), EXACT),
    "weight_scale_per_channel": (_row(weight_scale_per_channel), ROUNDING),
    "weight_scales_of_two": (_row(weight_scale_per_channel_powers_of_two), EXACT),
    "weight_scale_per_row": (_row(weight_scale_per_row), EXACT),
    "weights_shared": (_row(weights_shared_by_two_layers), EXACT),
    "zero_point": (_row(zero_point_of_activations), EXACT),
    "zero_point_any_scale": (_row(zero_point_of_activations_with_any_scale), ROUNDING),
    "zero_point_after_rounding": (_row(zero_point_after_rounding), EXACT),
    "zero_point_after_rounding_any_scale": (
        _row(zero_point_after_rounding_with_any_scale),
        ROUNDING,
    ),
    "zero_point_of_weights": (_row(zero_point_of_weights), EXACT),
}
"""Name -> model of one row of six numbers, and how far hls4ml may be from the executor."""


def _image(body: Callable[[Net, str], str], shape: tuple[int, ...] = (1, 2, 5, 5)) -> Build:
    def build() -> onnx.ModelProto:
        net = _net(body.__qualname__)
        return net.model(shape, body(net, net.quant("x", 5, 2.0**-3)))

    return build


def _conv(net: Net, x: str, outputs: int, inputs: int, size: int, **given: Any) -> str:
    weight = net.weights((outputs, inputs, size, size), 4, 2.0**-3)
    return net.add("Conv", [x, weight], kernel_shape=[size, size], **given)


def global_average_pool(net: Net, x: str) -> str:
    y = net.add("GlobalAveragePool", [_conv(net, x, 3, 2, 2)])
    return net.add("Flatten", [y])


def average_pool(net: Net, x: str) -> str:
    y = net.quant(_conv(net, x, 3, 2, 2), 5, 0.125)
    return net.add("AveragePool", [y], kernel_shape=[3, 3], strides=[1, 1])


def padded_max_pool_of_unsigned(net: Net, x: str) -> str:
    y = net.quant(net.add("Relu", [_conv(net, x, 3, 2, 2)]), 4, 0.25, signed=0)
    return net.add("MaxPool", [y], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])


def padded_max_pool_of_a_relu(net: Net, x: str) -> str:
    y = net.add("Relu", [_conv(net, x, 3, 2, 2)])
    return net.add("MaxPool", [y], kernel_shape=[2, 2], strides=[1, 1], pads=[1, 1, 0, 0])


def groups(net: Net, x: str) -> str:
    return _conv(net, _conv(net, x, 4, 2, 1), 6, 2, 2, group=2)


def depthwise(net: Net, x: str) -> str:
    return _conv(net, x, 2, 1, 3, group=2, pads=[1, 1, 1, 1], strides=[2, 2])


def quantized_bias_per_channel(net: Net, x: str) -> str:
    weight = net.weights((3, 2, 2, 2), 4, 2.0**-3)
    scale = np.array([0.25, 0.125, 0.5], dtype=np.float32)
    bias = net.quant(net.constant(net.random.normal(size=3).astype(np.float32)), 6, scale)
    return net.add("Conv", [x, weight, bias], kernel_shape=[2, 2])


def flattened_with_channels(net: Net, x: str) -> str:
    y = net.add(
        "Flatten", [net.norm(_conv(net, x, 3, 2, 3, auto_pad="SAME_UPPER", strides=[2, 2]), 3)]
    )
    return net.add("MatMul", [net.quant(y, 5, 0.25), net.weights((27, 4), 4, 2.0**-3)])


def flattened_as_output(net: Net, x: str) -> str:
    return net.add("Flatten", [_conv(net, x, 3, 2, 4)])


def joined_channels(net: Net, x: str) -> str:
    y = net.add("Concat", [_conv(net, x, 3, 2, 2), _conv(net, x, 2, 2, 2)], axis=1)
    return _conv(net, net.quant(y, 6, 0.125), 2, 5, 1)


def uneven_padding(net: Net, x: str) -> str:
    return _conv(net, x, 3, 2, 2, auto_pad="SAME_UPPER")


def padded_images(net: Net, x: str) -> str:
    pads = net.constant(np.array([0, 0, 1, 0, 0, 0, 0, 2], dtype=np.int64))
    return _conv(net, net.add("Pad", [x, pads]), 2, 2, 2)


def images_turned_inside(net: Net, x: str) -> str:
    y = net.add("Transpose", [x], perm=[0, 3, 1, 2])
    y = net.add("Relu", [_conv(net, y, 3, 2, 2)])
    y = net.add("Transpose", [y], perm=[0, 2, 3, 1])
    shape = net.constant(np.array([1, 48], dtype=np.int64))
    return _dense(net, net.quant(net.add("Reshape", [y, shape]), 5, 0.125), 48, 3)


def one_axis(net: Net, x: str) -> str:
    y = net.add("Conv", [x, net.weights((3, 2, 2), 4, 2.0**-3)], kernel_shape=[2])
    y = net.quant(net.add("Relu", [y]), 5, 0.125, signed=0)
    y = net.add("MaxPool", [y], kernel_shape=[2], strides=[2])
    y = net.add("AveragePool", [y], kernel_shape=[2], strides=[1])
    return net.add("Flatten", [y])


def mean_over_axes(net: Net, x: str) -> str:
    y = net.quant(_conv(net, x, 3, 2, 2), 5, 0.125)
    axes = net.constant(np.array([2, 3], dtype=np.int64))
    return _dense(
        net, net.quant(net.add("ReduceMean", [y, axes], keepdims=0), 6, 0.03125), 3, 2
    )


def resized(net: Net, x: str) -> str:
    y = net.add("Relu", [_conv(net, x, 3, 2, 3)])
    scales = net.constant(np.float32([1, 1, 2, 2]))
    form = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    y = net.add("Resize", [y, "", scales], mode="nearest", **form)
    return _conv(net, net.quant(y, 5, 2.0**-2), 2, 3, 1)


def product_along_the_last_of_three_axes(net: Net, x: str) -> str:
    scales = net.random.uniform(0.05, 0.3, (1, 4)).astype(np.float32)
    y = net.add("MatMul", [x, net.weights((6, 4), 4, scales)])
    y = net.quant(net.add("Relu", [y]), 5, 2.0**-3, signed=0)
    return net.add("MatMul", [y, net.weights((4, 3), 4, 0.25)])


IMAGES: dict[str, tuple[Build, float]] = {
    "average_pool": (_image(average_pool), ROUNDING),
    "depthwise": (_image(depthwise), EXACT),
    "flattened_as_output": (_image(flattened_as_output), EXACT),
    "flattened_with_channels": (_image(flattened_with_channels), EXACT),
    "global_average_pool": (_image(global_average_pool), ROUNDING),
    "groups": (_image(groups), EXACT),
    "images_turned_inside": (_image(images_turned_inside, (1, 5, 5, 2)), EXACT),
    "joined_channels": (_image(joined_channels), EXACT),
    "mean_over_axes": (_image(mean_over_axes), EXACT),
    "one_axis": (_image(one_axis, (1, 2, 11)), EXACT),
    "padded_images": (_image(padded_images), EXACT),
    "padded_max_pool_of_a_relu": (_image(padded_max_pool_of_a_relu), EXACT),
    "padded_max_pool_of_unsigned": (_image(padded_max_pool_of_unsigned), EXACT),
    "quantized_bias_per_channel": (_image(quantized_bias_per_channel), EXACT),
    "uneven_padding": (_image(uneven_padding), EXACT),
    "product_of_rank_three": (
        _image(product_along_the_last_of_three_axes, (1, 5, 6)),
        ROUNDING,
    ),
    "resized": (_image(resized), EXACT),
}
"""Name -> model of one small image, and how far hls4ml may be from the executor."""
