"""Quantized networks of well-known shapes with random weights, as QONNX models.

Each function builds the same bytes every time; nothing is trained, downloaded or measured.
The weights are random, but the statistics of the batch normalizations are those that such
weights bring about, so that activations use the whole range of their quantizers and neither
die out nor saturate. Inputs are called ``x`` and outputs ``logits``; the batch size is the
symbol ``N``, see :func:`fix_batch`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

DOMAIN = "qonnx.custom_op.general"
BATCH = "N"
_OPSET = 19
_IR_VERSION = 9

Array = npt.NDArray[np.float32]


def tfc(weight_bits: int = 2, act_bits: int = 2) -> onnx.ModelProto:
    """Return the fully connected MNIST network 784-64-64-64-10 of the Brevitas examples.

    One bit means a BipolarQuant, more bits a narrow Quant. Some batch normalizations have
    negative gains, which turn a threshold round.

    Args:
        weight_bits: Bits of all weights, at least 1.
        act_bits: Bits of all activations, the input's too, at least 1.
    """
    net = _Net(f"tfc_w{weight_bits}a{act_bits}", seed=1)
    x = net.add("Flatten", ["x"], "flat", axis=1)
    x = _to_unit_range(net, x)
    x = net.activation(x, "input_quant", act_bits)
    features = 784
    for layer in range(1, 4):
        x = net.linear(x, f"fc{layer}", features, 64, weight_bits)
        variance = features * _second_moment(weight_bits) * _second_moment(act_bits)
        x = net.batchnorm(x, f"bn{layer}", 64, variance, negative_share=0.25)
        x = net.activation(x, f"act{layer}", act_bits)
        features = 64
    x = net.linear(x, "fc4", features, 10, weight_bits)
    _tensor_norm(net, x, 64 * _second_moment(weight_bits) * _second_moment(act_bits))
    return net.model({"x": (1, 28, 28)}, {"logits": (10,)})


def cnv(weight_bits: int = 2, act_bits: int = 2) -> onnx.ModelProto:
    """Return the VGG-like CIFAR-10 network of the Brevitas examples.

    Six 3x3 convolutions without padding (64, 64, pool, 128, 128, pool, 256, 256) and three
    fully connected layers (512, 512, 10); the input is quantized to 8 bits with scale 2^-7.

    Args:
        weight_bits: Bits of all weights, at least 1.
        act_bits: Bits of all activations but the input's, at least 1.
    """
    net = _Net(f"cnv_w{weight_bits}a{act_bits}", seed=2)
    x = _to_unit_range(net, "x")
    x = net.quant(x, "input_quant", scale=2.0**-7, bits=8)
    channels, moment = 3, 1.0 / 3.0
    for layer, width in enumerate((64, 64, 128, 128, 256, 256), start=1):
        x = net.fixed_scale_conv(x, f"conv{layer}", channels, width, weight_bits)
        variance = channels * 9 * _second_moment(weight_bits) * moment
        x = net.batchnorm(x, f"bn{layer}", width, variance)
        x = net.activation(x, f"act{layer}", act_bits)
        if layer in (2, 4):
            x = net.add("MaxPool", [x], f"pool{layer}", kernel_shape=[2, 2], strides=[2, 2])
        channels, moment = width, _second_moment(act_bits)
    x = net.add("Flatten", [x], "flat", axis=1)
    features = 256
    for layer in (1, 2):
        x = net.linear(x, f"fc{layer}", features, 512, weight_bits)
        variance = features * _second_moment(weight_bits) * moment
        x = net.batchnorm(x, f"fc_bn{layer}", 512, variance)
        x = net.activation(x, f"fc_act{layer}", act_bits)
        features = 512
    x = net.linear(x, "fc3", features, 10, weight_bits)
    _tensor_norm(net, x, 512 * _second_moment(weight_bits) * moment)
    return net.model({"x": (3, 32, 32)}, {"logits": (10,)})


def mobilenet_v1(width: float = 1.0, resolution: int = 224) -> onnx.ModelProto:
    """Return a MobileNet-v1 with 4-bit weights and 4-bit activations.

    Weight scales are per output channel, activations unsigned with arbitrary scales; input and
    first layer have 8 bits. A depthwise convolution is a Conv with as many groups as channels.

    Args:
        width: Factor on the number of channels of every layer.
        resolution: Height and width of the input in pixels.
    """
    net = _Net(f"mobilenet_v1_w4a4_{width:g}_{resolution}", seed=3)
    x = net.quant("x", "input_quant", scale=2.0**-5, bits=8)
    channels = max(8, round(32 * width))
    x = net.conv(x, "stem", 3, channels, bits=8, stride=2)
    x = net.batchnorm(x, "stem_bn", channels, 2.0)
    x = net.relu_activation(x, "stem_act", 4)
    plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]
    plan += [(512, 1)] * 5 + [(1024, 2), (1024, 1)]
    for block, (full_width, stride) in enumerate(plan, start=1):
        wider = max(8, round(full_width * width))
        x = net.conv(x, f"dw{block}", channels, channels, stride=stride, groups=channels)
        x = net.relu_activation(
            net.batchnorm(x, f"dw_bn{block}", channels), f"dw_act{block}", 4
        )
        x = net.conv(x, f"pw{block}", channels, wider, kernel=1)
        x = net.relu_activation(net.batchnorm(x, f"pw_bn{block}", wider), f"pw_act{block}", 4)
        channels = wider
    x = net.add("GlobalAveragePool", [x], "pool")
    x = net.add("Flatten", [x], "flat", axis=1)
    x = net.quant(x, "pool_quant", scale=2.0**-6, bits=8, signed=False)
    net.gemm(x, "logits", channels, 1000, bits=4)
    return net.model({"x": (3, resolution, resolution)}, {"logits": (1000,)})


def resnet8() -> onnx.ModelProto:
    """Return a residual network of eight layers for CIFAR-10, 4-bit weights and activations.

    Three stacks of two 3x3 convolutions (16, 32, 64 channels) with a shortcut each; in the
    second and third stack the shortcut is a 1x1 convolution of stride 2.
    """
    net = _Net("resnet8_w4a4", seed=4)
    x = net.quant("x", "input_quant", scale=2.0**-7, bits=8)
    x = net.conv(x, "stem", 3, 16, bits=8)
    x = net.batchnorm(x, "stem_bn", 16, 2.0 / 3.0)
    x = net.relu_activation(x, "stem_act", 4)
    channels = 16
    for stack, width in enumerate((16, 32, 64), start=1):
        x = _residual_stack(net, x, f"s{stack}", channels, width)
        channels = width
    x = net.add("AveragePool", [x], "pool", kernel_shape=[8, 8])
    x = net.add("Flatten", [x], "flat", axis=1)
    x = net.quant(x, "pool_quant", scale=2.0**-6, bits=8, signed=False)
    net.gemm(x, "logits", channels, 10, bits=4)
    return net.model({"x": (3, 32, 32)}, {"logits": (10,)})


def unet(width: int = 16, resolution: int = 64) -> onnx.ModelProto:
    """Return a U-Net for segmentation, 4-bit weights and activations.

    Two 3x3 convolutions at each of three resolutions on the way down, one on the way up;
    pooling takes the largest of 2x2, the way up repeats pixels and concatenates the skips.

    Args:
        width: Channels at the full resolution; twice and four times as many below.
        resolution: Height and width of the input in pixels, a multiple of 4.
    """
    net = _Net(f"unet_w4a4_{width}_{resolution}", seed=5)
    x = net.quant("x", "input_quant", scale=2.0**-7, bits=8)
    skips, channels = [], 3
    for level in range(3):
        for number in (1, 2):
            x = _normed_conv(net, x, f"down{level}_{number}", channels, width << level)
            channels = width << level
        if level < 2:
            skips.append(x)
            pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
            x = net.add("MaxPool", [x], f"down{level}_pool", **pool)
    net.constant("up_scales", np.array([1, 1, 2, 2], dtype=np.float32))
    for level in (1, 0):
        repeat = {
            "mode": "nearest",
            "nearest_mode": "floor",
            "coordinate_transformation_mode": "asymmetric",
        }
        x = net.add("Resize", [x, "", "up_scales"], f"up{level}_resize", **repeat)
        x = net.add("Concat", [skips[level], x], f"up{level}_concat", axis=1)
        x = _normed_conv(net, x, f"up{level}", channels + (width << level), width << level)
        channels = width << level
    net.conv(x, "classes", channels, 4, kernel=1, bits=8)
    shape = (resolution, resolution)
    return net.model({"x": (3, *shape)}, {"classes": (4, *shape)})


def _normed_conv(net: _Net, x: str, name: str, channels: int, width: int) -> str:
    y = net.conv(x, f"{name}_conv", channels, width)
    return net.relu_activation(net.batchnorm(y, f"{name}_bn", width), f"{name}_act", 4)


def fix_batch(model: onnx.ModelProto, n: int) -> onnx.ModelProto:
    """Return a copy of the model whose batch size is ``n`` instead of a symbol."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    graph = fixed.graph
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param == BATCH:
                dimension.dim_value = n
    return fixed


def _residual_stack(net: _Net, x: str, name: str, channels: int, width: int) -> str:
    stride = 1 if channels == width else 2
    # Both summands share one scale, as an integer adder needs it.
    scale = float(net.random.uniform(0.2, 0.3))
    y = net.conv(x, f"{name}_conv1", channels, width, stride=stride)
    y = net.batchnorm(y, f"{name}_bn1", width)
    y = net.relu_activation(y, f"{name}_act1", 4)
    y = net.conv(y, f"{name}_conv2", width, width)
    y = net.batchnorm(y, f"{name}_bn2", width)
    y = net.quant(y, f"{name}_branch", scale=scale, bits=4)
    if stride == 2:
        x = net.conv(x, f"{name}_short", channels, width, kernel=1, stride=2)
        x = net.batchnorm(x, f"{name}_short_bn", width)
    x = net.quant(x, f"{name}_shortcut", scale=scale, bits=4)
    x = net.add("Add", [y, x], f"{name}_sum")
    return net.relu_activation(x, f"{name}_act2", 4)


def _to_unit_range(net: _Net, x: str) -> str:
    """Map pixels in [0, 1] to [-1, 1], as the Brevitas networks do."""
    x = net.add("Mul", [x, net.constant("pixel_gain", 2.0)], "pixels_doubled")
    return net.add("Sub", [x, net.constant("pixel_shift", 1.0)], "pixels_centered")


def _tensor_norm(net: _Net, x: str, variance: float) -> str:
    """Normalize the last layer by one gain and one shift for all classes."""
    x = net.add("Mul", [x, net.constant("norm_gain", variance**-0.5)], "scores")
    return net.add("Add", [x, net.constant("norm_shift", -1.25)], "logits")


def _second_moment(bits: int) -> float:
    """Return about E[q^2] of what :meth:`_Net.activation` or a fixed-scale weight holds."""
    return 1.0 if bits == 1 else 0.55


@dataclass(slots=True)
class _Net:
    """A graph that grows node by node; every value is called what its node is called."""

    name: str
    seed: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    random: np.random.Generator = field(init=False)

    def __post_init__(self) -> None:
        self.random = np.random.default_rng(self.seed)

    def constant(self, name: str, value: float | Array) -> str:
        array = np.asarray(value, dtype=np.float32)
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def add(
        self,
        op_type: str,
        inputs: list[str],
        name: str,
        domain: str | None = None,
        **attributes: int | list[int] | str,
    ) -> str:
        node = helper.make_node(op_type, inputs, [name], name=name, domain=domain)
        node.attribute.extend(
            helper.make_attribute(key, value) for key, value in attributes.items()
        )
        self.nodes.append(node)
        return name

    def quant(
        self,
        x: str,
        name: str,
        *,
        scale: float | Array,
        bits: int,
        signed: bool = True,
        narrow: bool = False,
    ) -> str:
        parameters = [
            self.constant(f"{name}.scale", scale),
            self.constant(f"{name}.zero_point", 0.0),
            self.constant(f"{name}.bits", float(bits)),
        ]
        return self.add(
            "Quant",
            [x, *parameters],
            name,
            domain=DOMAIN,
            signed=int(signed),
            narrow=int(narrow),
            rounding_mode="ROUND",
        )

    def activation(self, x: str, name: str, bits: int) -> str:
        """Quantize to the grid of :func:`tfc` and :func:`cnv`: scale 1 at one and two bits."""
        if bits == 1:
            scale = self.constant(f"{name}.scale", 1.0)
            return self.add("BipolarQuant", [x, scale], name, domain=DOMAIN)
        return self.quant(x, name, scale=2.0 ** (2 - bits), bits=bits, narrow=True)

    def relu_activation(self, x: str, name: str, bits: int) -> str:
        x = self.add("Relu", [x], f"{name}_relu")
        # Three standard deviations fill the unsigned range.
        scale = float(self.random.uniform(2.5, 3.5)) / (2**bits - 1)
        return self.quant(x, name, scale=scale, bits=bits, signed=False)

    def linear(self, x: str, name: str, features: int, width: int, bits: int) -> str:
        """Add a MatMul by a quantized weight of shape (width, features), transposed."""
        weight = self.fixed_scale_weight(f"{name}.weight", (width, features), bits)
        weight = self.add("Transpose", [weight], f"{name}.weight_t", perm=[1, 0])
        return self.add("MatMul", [x, weight], name)

    def fixed_scale_conv(self, x: str, name: str, channels: int, width: int, bits: int) -> str:
        weight = self.fixed_scale_weight(f"{name}.weight", (width, channels, 3, 3), bits)
        return self.add("Conv", [x, weight], name, kernel_shape=[3, 3])

    def fixed_scale_weight(self, name: str, shape: tuple[int, ...], bits: int) -> str:
        # With a fixed scale of about 1, training leaves weights of that size; He's would all
        # round to zero.
        weight = self.constant(name, self._normal(shape, 0.75))
        return self.activation(weight, f"{name}_quant", bits)

    def conv(
        self,
        x: str,
        name: str,
        channels: int,
        width: int,
        *,
        bits: int = 4,
        kernel: int = 3,
        stride: int = 1,
        groups: int = 1,
    ) -> str:
        weight = self.scaled_weight(
            f"{name}.weight", (width, channels // groups, kernel, kernel), bits
        )
        return self.add(
            "Conv",
            [x, weight],
            name,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[kernel // 2] * 4,
            group=groups,
        )

    def gemm(self, x: str, name: str, features: int, width: int, bits: int) -> str:
        weight = self.scaled_weight(f"{name}.weight", (width, features), bits)
        bias = self.constant(f"{name}.bias", self._normal((width,), 0.1))
        return self.add("Gemm", [x, weight, bias], name, transB=1)

    def scaled_weight(self, name: str, shape: tuple[int, ...], bits: int) -> str:
        """Add a weight of He's variance, 2 / fan-in, with one scale per output channel."""
        weight = self._normal(shape, (2.0 / float(np.prod(shape[1:]))) ** 0.5)
        peaks = np.max(np.abs(weight), axis=tuple(range(1, len(shape))), keepdims=True)
        scale = (peaks / np.float32(2 ** (bits - 1) - 1)).astype(np.float32)
        stored = self.constant(name, weight)
        return self.quant(stored, f"{name}_quant", scale=scale, bits=bits, narrow=True)

    def batchnorm(
        self,
        x: str,
        name: str,
        channels: int,
        variance: float = 1.0,
        negative_share: float = 0.0,
    ) -> str:
        """Add a BatchNormalization that brings values of about this variance to about 1."""
        gain = self.random.uniform(0.6, 1.4, channels)
        gain = np.where(self.random.random(channels) < negative_share, -gain, gain)
        parameters = {
            "gain": gain,
            "shift": self.random.normal(0.0, 0.3, channels),
            "mean": self.random.normal(0.0, 0.2 * variance**0.5, channels),
            "variance": variance * self.random.uniform(0.6, 1.4, channels),
        }
        names = [
            self.constant(f"{name}.{key}", value.astype(np.float32))
            for key, value in parameters.items()
        ]
        return self.add("BatchNormalization", [x, *names], name)

    def model(
        self, inputs: dict[str, tuple[int, ...]], outputs: dict[str, tuple[int, ...]]
    ) -> onnx.ModelProto:
        """Return the finished model; shapes are given without the batch."""
        graph = helper.make_graph(
            self.nodes,
            self.name,
            [_float_tensor(name, shape) for name, shape in inputs.items()],
            [_float_tensor(name, shape) for name, shape in outputs.items()],
            self.initializers,
        )
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(DOMAIN, 1)]
        return helper.make_model(
            graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="qonnx_hub"
        )

    def _normal(self, shape: tuple[int, ...], deviation: float) -> Array:
        values = self.random.standard_normal(shape, dtype=np.float32)
        return np.multiply(values, deviation, dtype=np.float32)


def _float_tensor(name: str, shape: tuple[int, ...]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [BATCH, *shape])
