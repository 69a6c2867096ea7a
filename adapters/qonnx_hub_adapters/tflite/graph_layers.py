"""Float layers and the quantizers behind them as TFLite's operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx_ir import Node

from qonnx_hub_adapters.tflite.graph_reader import (
    CodeTarget,
    ConstantCodes,
    GraphReader,
    Unsaid,
    Waiting,
    attributes_of,
)
from qonnx_hub_adapters.tflite.graph_windows import window
from qonnx_hub_adapters.tflite.kernels.fixed_point import round_away
from qonnx_hub_adapters.tflite.kernels.windows import padding
from qonnx_hub_adapters.tflite.net import (
    SAME,
    STANDARD,
    VALID,
    CodeGrid,
    NetTensor,
)
from qonnx_hub_adapters.tflite.net_builder import Held, one_grid
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.queries import input_of
from qonnx_hub_ir.quantizers import Array

Layer = Callable[[GraphReader, Waiting, CodeTarget], Held]

_ACTIVATED = (
    "CONV_2D",
    "DEPTHWISE_CONV_2D",
    "FULLY_CONNECTED",
    "TRANSPOSE_CONV",
    "ADD",
    "SUB",
    "MUL",
    "AVERAGE_POOL_2D",
)


@dataclass(frozen=True, slots=True, eq=False)
class _Weights:
    """Weights as a tensor, and the type in which the layer computes."""

    tensor: int
    scale: Array
    is_unsigned: bool = False


def made(
    reader: GraphReader,
    waiting: Waiting,
    target: CodeTarget,
    name: str,
    inputs: Sequence[int],
    shape: Sequence[int],
    **options: Any,
) -> int:
    """Return what an operation with a fused activation makes, on the target's grid."""
    net, type_, grid = reader.net, target.type, target.grid
    is_unsigned = net.tensors[inputs[0 if name != "TRANSPOSE_CONV" else 2]].type == "UINT8"
    if is_unsigned:
        type_, grid = "UINT8", CodeGrid(grid.scale, grid.zero + 128)
    out = net.tensor(str(waiting.node.outputs[0].name), type_, shape, grid)
    if name in _ACTIVATED:
        options["fused_activation_function"] = waiting.activation
    elif waiting.activation and not name.startswith("RELU"):
        raise Unsaid("has an activation behind it", "put a quantizer between")
    net.operate(name, inputs, (out,), **options)
    if is_unsigned:
        out = net.requantized(out, target.type, target.grid)
    return net.clamped(out, target.low, target.high)


def require_type(reader: GraphReader, tensor: int, target: CodeTarget) -> NetTensor:
    """Return a tensor whose codes have the type that a layer makes.

    Raises:
        Unsaid: They have not.
    """
    record = reader.net.tensors[tensor]
    if record.grid is None:
        raise Unsaid("reads floats", "quantize what the layer reads")
    if record.type != target.type:
        raise Unsaid(
            f"reads {record.type} and makes {target.type}", "use one width on both sides"
        )
    return record


def _weights(
    reader: GraphReader,
    found: ConstantCodes | None,
    order: Callable[[Array], Array],
    axis: int,
    name: str,
) -> _Weights:
    if found is None:
        raise Unsaid("has weights that are no quantized constants", "quantize the weights")
    codes, scale = order(found.codes), found.scale
    low, high = int(codes.min(initial=0)), int(codes.max(initial=0))
    spread = order(np.broadcast_to(found.grid, found.codes.shape))
    by_channel = [-1 if i == axis else 1 for i in range(codes.ndim)]
    fits = scale.size == 1 or codes.shape[axis] == scale.size
    if not fits or np.any(spread != scale.reshape(by_channel)):
        raise Unsaid("has weights whose scales are not one per output channel")
    if low < -128 or high > 127:
        if scale.size > 1 or high - low > 255:
            raise Unsaid(
                "has weights that no zero point centres", "take signed, symmetric weights"
            )
        grid = one_grid(scale, -low)
        data = (codes - low).astype(np.uint8)
        return _Weights(reader.net.tensor(name, "UINT8", codes.shape, grid, data), scale, True)
    grid = CodeGrid(scale, np.zeros(scale.size, dtype=np.int64), axis if scale.size > 1 else 0)
    type_ = "INT4" if found.bits <= 4 and low >= -8 and high <= 7 else "INT8"
    tensor = reader.net.tensor(name, type_, codes.shape, grid, codes.astype(np.int8))
    return _Weights(tensor, scale)


def _data(reader: GraphReader, tensor: int, weights: _Weights, target: CodeTarget) -> int:
    """Return what a dense layer reads, unsigned where its weights are."""
    record = require_type(reader, tensor, target)
    if not weights.is_unsigned:
        return tensor
    if record.type != "INT8" or record.grid is None:
        raise Unsaid(
            "has weights that no zero point centres", "take signed, symmetric weights"
        )
    grid = CodeGrid(record.grid.scale, record.grid.zero + 128)
    return reader.net.requantized(tensor, "UINT8", grid)


def _bias(
    reader: GraphReader,
    waiting: Waiting,
    index: int,
    data: int,
    weights: _Weights,
    channels: int,
) -> int:
    """Return the bias as integers; zeros for none, which CONV_2D does not do without."""
    value = input_of(waiting.node, index)
    numbers = None if value is None else reader.floats(value)
    if value is not None and numbers is None:
        raise Unsaid("has a bias that is computed")
    if numbers is not None and numbers.size > 1 and numbers.shape[-1] != numbers.size:
        raise Unsaid("adds a constant that is not one per output channel")
    total = (
        np.zeros(channels)
        if numbers is None
        else np.broadcast_to(numbers.reshape(-1), (channels,))
    )
    if waiting.bias is not None:
        total = total + np.broadcast_to(waiting.bias.reshape(-1), (channels,))
    record = reader.net.tensors[data]
    scale = (np.float32(record.scale) * weights.scale).astype(np.float32)
    codes = round_away(total / scale.astype(np.float64)).astype(np.int64)
    is_wide = record.type == "INT16"
    if not is_wide and np.abs(codes).max(initial=0) >= 2**31:
        raise Unsaid("has a bias that 32 bits do not hold")
    grid = CodeGrid(scale, np.zeros(scale.size, dtype=np.int64))
    type_, dtype = ("INT64", np.int64) if is_wide else ("INT32", np.int32)
    name = f"{waiting.node.outputs[0].name}/bias"
    return reader.net.tensor(name, type_, (channels,), grid, codes.astype(dtype))


def _last_shape(reader: GraphReader, node: Node) -> list[int]:
    shape = reader.shape(node.outputs[0])
    return [shape[i] for i in (0, 2, 3, 1)]


def _conv(reader: GraphReader, waiting: Waiting, target: CodeTarget) -> Held:
    node, name = waiting.node, f"{waiting.node.outputs[0].name}/weights"
    found = reader.constant_codes(node.inputs[1])
    if found is not None and found.codes.ndim != 4:
        raise Unsaid("does not have two dimensions", "write it with height 1")
    group = int(attributes_of(node).get("group", 1))
    tensor = reader.last(node.inputs[0])
    channels = reader.net.tensors[tensor].shape[3]
    is_depthwise = group > 1 and group == channels
    order = (
        (lambda w: w.transpose(1, 2, 3, 0))
        if is_depthwise
        else (lambda w: w.transpose(0, 2, 3, 1))
    )
    weights = _weights(reader, found, order, 3 if is_depthwise else 0, name)
    size = reader.net.tensors[weights.tensor].shape[1:3]
    place = window(reader, node, _data(reader, tensor, weights, target), size)
    shape = _last_shape(reader, node)
    bias = _bias(reader, waiting, 2, place.tensor, weights, shape[3])
    options = {
        "padding": place.padding,
        "stride_h": place.stride[0],
        "stride_w": place.stride[1],
        "dilation_h_factor": place.dilation[0],
        "dilation_w_factor": place.dilation[1],
    }
    if is_depthwise:
        options["depth_multiplier"] = shape[3] // channels
    kind = "DEPTHWISE_CONV_2D" if is_depthwise else "CONV_2D"
    inputs = (place.tensor, weights.tensor, bias)
    return Held(made(reader, waiting, target, kind, inputs, shape, **options), True)


def _transposed_conv(reader: GraphReader, waiting: Waiting, target: CodeTarget) -> Held:
    node, given = waiting.node, attributes_of(waiting.node)
    if int(given.get("group", 1)) != 1 or set(given.get("dilations", (1,))) != {1}:
        raise Unsaid("has groups or dilations")
    found = reader.constant_codes(node.inputs[1])
    name = f"{node.outputs[0].name}/weights"
    weights = _weights(reader, found, lambda w: w.transpose(1, 2, 3, 0), 0, name)
    tensor = _data(reader, reader.last(node.inputs[0]), weights, target)
    shape, stride = _last_shape(reader, node), tuple(given.get("strides", (1, 1)))
    size = reader.net.tensors[weights.tensor].shape[1:3]
    if given.get("auto_pad", "NOTSET") != "NOTSET":
        raise Unsaid("pads by name", "give pads as numbers")
    before = tuple(given.get("pads", (0, 0, 0, 0)))[:2]
    given_shape = reader.net.tensors[tensor].shape
    kinds = []
    for kind in (VALID, SAME):
        plans = [padding(kind, shape[i + 1], size[i], stride[i]) for i in (0, 1)]
        has_pads = before == tuple(plan[1] for plan in plans)
        if has_pads and given_shape[1:3] == tuple(plan[0] for plan in plans):
            kinds.append(kind)
    if not kinds:
        raise Unsaid(f"has pads {before} in front, which no padding of TFLite gives")
    bias = _bias(reader, waiting, 2, tensor, weights, shape[3])
    inputs = (
        reader.net.constant(shape),
        weights.tensor,
        tensor,
        bias,
    )
    options = {"padding": kinds[0], "stride_h": stride[0], "stride_w": stride[1]}
    return Held(
        made(reader, waiting, target, "TRANSPOSE_CONV", inputs, shape, **options), True
    )


def _dense(reader: GraphReader, waiting: Waiting, target: CodeTarget) -> Held:
    node, given = waiting.node, attributes_of(waiting.node)
    is_gemm = node.op_type == "Gemm"
    if is_gemm and (
        given.get("alpha", 1.0) != 1.0
        or given.get("beta", 1.0) != 1.0
        or given.get("transA", 0)
    ):
        raise Unsaid("has factors or a turned first side")
    found = reader.constant_codes(node.inputs[1])
    if found is None:
        return _product(reader, waiting, target)
    if found.codes.ndim != 2:
        raise Unsaid("has weights that are no matrix")
    turns = is_gemm and bool(given.get("transB", 0))
    name = f"{node.outputs[0].name}/weights"
    weights = _weights(reader, found, (lambda w: w) if turns else (lambda w: w.T), 0, name)
    tensor = _data(reader, reader.plain(node.inputs[0]), weights, target)
    shape = reader.shape(node.outputs[0])
    bias = _bias(reader, waiting, 2 if is_gemm else 9, tensor, weights, shape[-1])
    inputs = (tensor, weights.tensor, bias)
    keeps = len(shape) != 2
    out = made(reader, waiting, target, "FULLY_CONNECTED", inputs, shape, keep_num_dims=keeps)
    return Held(out)


def _product(reader: GraphReader, waiting: Waiting, target: CodeTarget) -> Held:
    node = waiting.node
    if waiting.activation or waiting.bias is not None or node.op_type != "MatMul":
        raise Unsaid("is a product of two computed sides with more behind it")
    sides = [reader.plain(value) for value in node.inputs]
    for side in sides:
        require_type(reader, side, target)
    shape = reader.shape(node.outputs[0])
    return Held(made(reader, waiting, target, "BATCH_MATMUL", sides, shape))


_NAMES = {standard: name for name, standard in STANDARD.items()}


def _sides(reader: GraphReader, node: Node) -> tuple[list[int], bool]:
    """Return both sides in one layout, and whether channels are first in the graph."""
    found = [reader.find(value) for value in node.inputs]
    ranks = {len(reader.net.tensors[one.tensor].shape) for one in found}
    if any(one.is_first for one in found) and ranks == {4}:
        return [reader.last(value) for value in node.inputs], True
    return [reader.plain(value) for value in node.inputs], False


def _pair(reader: GraphReader, waiting: Waiting, target: CodeTarget) -> Held:
    node = waiting.node
    if len(node.inputs) != 2:
        raise Unsaid(f"has {len(node.inputs)} sides, and two are said")
    sides, is_first = _sides(reader, node)
    if operators.selects_by_order(node):
        sides = [reader.net.requantized(side, target.type, target.grid) for side in sides]
    for side in sides:
        require_type(reader, side, target)
    shape = _last_shape(reader, node) if is_first else reader.shape(node.outputs[0])
    return Held(made(reader, waiting, target, _NAMES[node.op_type], sides, shape), is_first)


FIXED_GRIDS: Mapping[tuple[str, str], CodeGrid] = {
    ("LOGISTIC", "INT8"): one_grid(1 / 256, -128),
    ("SOFTMAX", "INT8"): one_grid(1 / 256, -128),
    ("TANH", "INT8"): one_grid(1 / 128, 0),
    ("LOGISTIC", "INT16"): one_grid(1 / 32768),
    ("SOFTMAX", "INT16"): one_grid(1 / 32768),
    ("TANH", "INT16"): one_grid(1 / 32768),
}
"""The only grids that these operators make."""


def _curve(reader: GraphReader, waiting: Waiting, target: CodeTarget) -> Held:
    node, name = waiting.node, _NAMES[waiting.node.op_type]
    if waiting.activation or waiting.bias is not None:
        raise Unsaid("has an activation behind it", "put a quantizer between")
    given, found = attributes_of(node), reader.find(node.inputs[0])
    options: dict[str, Any] = {}
    if name == "SOFTMAX":
        rank = len(reader.shape(node.outputs[0]))
        if given.get("axis", -1) % rank != rank - 1:
            raise Unsaid("sums along another axis than the last", "transpose its input")
        found, options = Held(reader.plain(node.inputs[0])), {"beta": 1.0}
    elif name == "LEAKY_RELU":
        options = {"alpha": float(given.get("alpha", 0.01))}
    record = require_type(reader, found.tensor, target)
    fixed = FIXED_GRIDS.get((name, target.type), target.grid)
    out = reader.net.tensor(str(node.outputs[0].name), target.type, record.shape, fixed)
    reader.net.operate(name, (found.tensor,), (out,), **options)
    out = reader.net.requantized(out, target.type, target.grid)
    return Held(reader.net.clamped(out, target.low, target.high), found.is_first)


def _prelu(reader: GraphReader, waiting: Waiting, target: CodeTarget) -> Held:
    sides, is_first = _sides(reader, waiting.node)
    for side in sides:
        require_type(reader, side, target)
    slope = reader.net.tensors[sides[1]]
    shape = reader.net.tensors[sides[0]].shape
    if len(slope.shape) == len(shape) and slope.shape[0] == 1 and slope.data is not None:
        # the kernel takes the slopes of one sample
        sides[1] = reader.net.tensor(
            slope.name, slope.type, slope.shape[1:], slope.grid, slope.data
        )
    return Held(made(reader, waiting, target, "PRELU", sides, shape), is_first)


def _average(reader: GraphReader, waiting: Waiting, target: CodeTarget) -> Held:
    node, given = waiting.node, attributes_of(waiting.node)
    tensor = reader.last(node.inputs[0])
    record = require_type(reader, tensor, target)
    if node.op_type == "GlobalAveragePool":
        return _mean_of(reader, waiting, target, tensor, (1, 2), keeps=True, is_first=True)
    size = tuple(given["kernel_shape"])
    if set(given.get("dilations", (1,))) != {1}:
        raise Unsaid("has dilations")
    same = str(given.get("auto_pad", "")).startswith("SAME")
    if given.get("count_include_pad", 0) and (same or any(given.get("pads", ()))):
        raise Unsaid("counts what lies outside", "pad the input instead")
    place = window(reader, node, tensor, size)
    if place.tensor != tensor:
        raise Unsaid("has pads that no padding of TFLite gives")
    out = reader.net.like(tensor, str(node.outputs[0].name), _last_shape(reader, node))
    options = {
        "padding": place.padding,
        "stride_h": place.stride[0],
        "stride_w": place.stride[1],
        "filter_height": size[0],
        "filter_width": size[1],
        "fused_activation_function": waiting.activation,
    }
    reader.net.operate("AVERAGE_POOL_2D", (tensor,), (out,), **options)
    _ = record
    out = reader.net.requantized(out, target.type, target.grid)
    return Held(reader.net.clamped(out, target.low, target.high), True)


def _mean(reader: GraphReader, waiting: Waiting, target: CodeTarget) -> Held:
    node, given = waiting.node, attributes_of(waiting.node)
    listed = dialect.constant_value(input_of(node, 1))
    shape = reader.shape(node.inputs[0])
    axes = given.get("axes", None if listed is None else listed.reshape(-1))
    if axes is None:
        raise Unsaid("reduces along axes that are computed, or all of them")
    kept = tuple(sorted(int(a) % len(shape) for a in axes))
    keeps = bool(given.get("keepdims", 1))
    found = reader.find(node.inputs[0])
    if found.is_first and (keeps or kept == (2, 3)):
        kept = tuple(sorted((0, 3, 1, 2)[axis] for axis in kept))
        return _mean_of(
            reader, waiting, target, found.tensor, kept, keeps=keeps, is_first=keeps
        )
    tensor = reader.plain(node.inputs[0])
    return _mean_of(reader, waiting, target, tensor, kept, keeps=keeps, is_first=False)


def _mean_of(
    reader: GraphReader,
    waiting: Waiting,
    target: CodeTarget,
    tensor: int,
    axes: tuple[int, ...],
    *,
    keeps: bool,
    is_first: bool,
) -> Held:
    if waiting.activation:
        raise Unsaid("has an activation behind it", "put a quantizer between")
    record = require_type(reader, tensor, target)
    kept = [1 if i in axes else n for i, n in enumerate(record.shape)]
    shape = kept if keeps else [n for i, n in enumerate(record.shape) if i not in axes]
    given = reader.net.constant(list(axes))
    name = "SUM" if waiting.node.op_type == "ReduceSum" else "MEAN"
    if name == "SUM" and target.type != "UINT8":
        raise Unsaid("is a sum, which the reference kernels compute wrongly", "write a mean")
    out = made(reader, waiting, target, name, (tensor, given), shape, keep_dims=keeps)
    return Held(out, is_first)


def _relu(reader: GraphReader, waiting: Waiting, target: CodeTarget) -> Held:
    """Write an activation of codes: it stands alone."""
    found = reader.find(waiting.node.inputs[0])
    record = require_type(reader, found.tensor, target)
    name = {1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6"}[waiting.activation]
    out = made(reader, waiting, target, name, (found.tensor,), record.shape)
    return Held(out, found.is_first)


def _concat(reader: GraphReader, waiting: Waiting, target: CodeTarget) -> Held:
    node = waiting.node
    found = [reader.find(value) for value in node.inputs]
    shape = reader.shape(node.outputs[0])
    axis = int(attributes_of(node)["axis"]) % len(shape)
    is_first = len(shape) == 4 and any(one.is_first for one in found)
    if is_first:
        axis, shape = (0, 3, 1, 2)[axis], tuple(_last_shape(reader, node))
    parts = [reader.last(v) if is_first else reader.plain(v) for v in node.inputs]
    parts = [reader.net.requantized(part, target.type, target.grid) for part in parts]
    out = made(reader, waiting, target, "CONCATENATION", parts, shape, axis=axis)
    return Held(out, is_first)


def _resize(reader: GraphReader, waiting: Waiting, target: CodeTarget) -> Held:
    node, given = waiting.node, attributes_of(waiting.node)
    if waiting.activation or given.get("mode", "nearest") != "linear":
        raise Unsaid("resizes by another mode than linear, or has an activation behind it")
    modes = {"align_corners": (1, 0), "half_pixel": (0, 1), "asymmetric": (0, 0)}
    mode = given.get("coordinate_transformation_mode", "half_pixel")
    if mode not in modes:
        raise Unsaid(f"places pixels by {mode}")
    tensor, shape = reader.last(node.inputs[0]), _last_shape(reader, node)
    record = require_type(reader, tensor, target)
    if (shape[0], shape[3]) != (record.shape[0], record.shape[3]):
        raise Unsaid("resizes other axes than height and width")
    out = reader.net.like(tensor, str(node.outputs[0].name), shape)
    size = reader.net.constant(shape[1:3])
    options = dict(zip(("align_corners", "half_pixel_centers"), modes[mode], strict=True))
    reader.net.operate("RESIZE_BILINEAR", (tensor, size), (out,), **options)
    out = reader.net.requantized(out, target.type, target.grid)
    return Held(reader.net.clamped(out, target.low, target.high), True)


LAYERS: Mapping[str, Layer] = {
    "Conv": _conv,
    "ConvTranspose": _transposed_conv,
    "Gemm": _dense,
    "MatMul": _dense,
    "Add": _pair,
    "Sub": _pair,
    "Mul": _pair,
    "Max": _pair,
    "Min": _pair,
    "Sigmoid": _curve,
    "Tanh": _curve,
    "HardSwish": _curve,
    "Softmax": _curve,
    "LeakyRelu": _curve,
    "PRelu": _prelu,
    "AveragePool": _average,
    "GlobalAveragePool": _average,
    "ReduceMean": _mean,
    "Relu": _relu,
    "Clip": _relu,
    "Concat": _concat,
    "Resize": _resize,
}
"""Operator -> how it is written, where a quantizer stands behind it."""
