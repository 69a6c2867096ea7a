"""Every operator in standard integer operators: the codes of the reference kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from onnx import TensorProto

from qonnx_hub_adapters.tflite import moves
from qonnx_hub_adapters.tflite.float_rules import standard_axes, window_of
from qonnx_hub_adapters.tflite.graph_writer import (
    FIRST,
    LAST,
    PROTO_TYPES,
    StandardGraph,
    start,
)
from qonnx_hub_adapters.tflite.integer_form import IntegerForm, codes_of_type
from qonnx_hub_adapters.tflite.integer_softmax import write_softmax
from qonnx_hub_adapters.tflite.kernels.dense import real_factors
from qonnx_hub_adapters.tflite.kernels.fixed_point import Factor, factor, rescale
from qonnx_hub_adapters.tflite.kernels.pointwise import codes_of, product_factor, sum_factors
from qonnx_hub_adapters.tflite.kernels.pools import axes_of, mean_factor
from qonnx_hub_adapters.tflite.kernels.windows import windows
from qonnx_hub_adapters.tflite.moves import constant_of
from qonnx_hub_adapters.tflite.net import (
    CODE_TYPES,
    STANDARD,
    KernelCall,
    NetTensor,
    Operation,
    TfliteNet,
)
from qonnx_hub_adapters.tflite.operators import OPERATORS
from qonnx_hub_ir.errors import Gap, NotExactError
from qonnx_hub_ir.quantizers import Array

OPSET = 13
"""The opset of the standard operators."""

_BYTES = ("INT8", "UINT8")
_MOST_SUM = 2**31

Rule = Callable[[IntegerForm, Operation, KernelCall], None]


def gaps_of(net: TfliteNet) -> list[Gap]:
    """Return every operation that has no integer form."""
    return [
        Gap(call.output.name, call.name, reason, "write --encoding qdq, which is near")
        for operation in net.operations
        if (reason := _problem(call := net.call(operation)))
    ]


def integer_form(net: TfliteNet) -> onnx.ModelProto:
    """Return a net in standard integer operators.

    Raises:
        NotExactError: Operations have no integer form; all of them are listed.
    """
    if gaps := gaps_of(net):
        raise NotExactError("standard integer operators cannot say these operations:", gaps)
    form = IntegerForm(start(net, OPSET))
    for operation in net.operations:
        _RULES[operation.name](form, operation, net.call(operation))
    return form.graph.finish(form.output, {})


def _problem(call: KernelCall) -> str:
    if call.name not in _RULES:
        return "has no form in standard integer operators"
    made = call.output
    if call.name == "DEQUANTIZE":
        given = call.tensor(0)
        is_bytes = given.grid is not None and given.type in _BYTES and given.data is None
        return "" if is_bytes else f"makes floats of {given.type}"
    if made.type not in _BYTES:
        return f"makes {made.type}, and integer products take 8 bits"
    for tensor in call.inputs[:1] if call.name != "SPLIT" else call.inputs[1:]:
        if tensor is not None and tensor.type not in (*_BYTES, "FLOAT32", "INT32"):
            return f"reads {tensor.type}"
    weights = call.inputs[1] if len(call.inputs) > 1 else None
    dense = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    if call.name in dense and (weights is None or weights.data is None):
        return "has weights that are computed"
    if call.name in dense and call.has(2) and call.tensor(2).data is None:
        return "has a bias that is computed"
    if call.name == "QUANTIZE" and call.tensor(0).type == "INT32":
        return "reads INT32"
    return ""


def _weights(form: IntegerForm, record: NetTensor, data: Array) -> tuple[str, str]:
    """Return weights and their zero point."""
    zero = record.zero if record.grid is not None else 0
    values = form.graph.constant(data, record.name)
    return values, form.graph.constant(np.array(zero, dtype=data.dtype))


def _zero(form: IntegerForm, record: NetTensor) -> str:
    return form.graph.constant(np.array(record.zero, dtype=record.dtype))


def _conv(form: IntegerForm, operation: Operation, call: KernelCall) -> None:
    data = constant_of(call, 1)
    is_depthwise = call.name == "DEPTHWISE_CONV_2D"
    kernel = data.transpose(3, 0, 1, 2) if is_depthwise else data.transpose(0, 3, 1, 2)
    channels = call.tensor(0).shape[3]
    group = channels if is_depthwise else channels // data.shape[3]
    weights, weight_zero = _weights(form, call.tensor(1), kernel)
    x = form.graph.codes(operation.inputs[0], FIRST)
    attributes = window_of(call, (data.shape[1], data.shape[2])) | {"group": group}
    zero = _zero(form, call.tensor(0))
    sums = form.graph.emit("ConvInteger", x, weights, zero, weight_zero, **attributes)
    value = _biased(form, call, sums, (1, -1, 1, 1))
    by = factor(real_factors(call))
    spread = Factor(_spread(by.multiplier), _spread(by.exponent))
    form.finish(operation, call, form.rescale(value, spread), FIRST)


def _spread(numbers: Array) -> Array:
    return numbers.reshape(1, -1, 1, 1) if numbers.size > 1 else numbers.reshape(())


def _biased(form: IntegerForm, call: KernelCall, sums: str, shape: tuple[int, ...]) -> str:
    """Return sums with the bias, as int64; where 32 bits may not hold them, they wrap."""
    value, added = form.cast(sums, TensorProto.INT64), 0
    count = constant_of(call, 1).size // call.output.shape[-1]
    if call.has(2):
        bias = constant_of(call, 2)
        value, added = form.plus(value, bias.reshape(shape)), int(np.abs(bias).max(initial=0))
    if 255 * 255 * count + added < 2**31:
        return value
    return form.wrapped(value)


def _fully_connected(form: IntegerForm, operation: Operation, call: KernelCall) -> None:
    data = constant_of(call, 1)
    x = form.graph.codes(operation.inputs[0])
    wanted = form.whole([-1, data.shape[1]])
    x = form.graph.emit("Reshape", x, wanted)
    weights, weight_zero = _weights(form, call.tensor(1), np.ascontiguousarray(data.T))
    zero = _zero(form, call.tensor(0))
    sums = form.graph.emit("MatMulInteger", x, weights, zero, weight_zero)
    value = _biased(form, call, sums, (1, -1))
    # int64 sums times real factors, rounded once, halves away from zero.
    product = form.graph.emit(
        "Mul",
        form.cast(value, TensorProto.DOUBLE),
        form.graph.constant(real_products(call), "factor"),
    )
    levels = form.cast(round_away(form, product, np.float64), TensorProto.INT64)
    if call.options.get("keep_num_dims") or len(call.output.shape) != 2:
        levels = form.graph.emit("Reshape", levels, form.whole(call.output.shape))
    form.finish(operation, call, levels)


def real_products(call: KernelCall) -> Array:
    """Return the real factors of FULLY_CONNECTED, in double precision."""
    grid = call.tensor(1).grid
    scales = np.ones(1) if grid is None else grid.scale.astype(np.float64)
    product = np.float64(call.tensor(0).scale) * scales / np.float64(call.output.scale)
    return np.asarray(product if scales.size > 1 else product[0], dtype=np.float64)


def round_away(form: IntegerForm, value: str, dtype: type) -> str:
    """Return floats rounded to whole numbers, halves away from zero."""
    size = form.graph.emit("Abs", value)
    low = form.graph.emit("Floor", size)
    rest = form.graph.emit("Sub", size, low)
    half = form.graph.constant(np.asarray(0.5, dtype=dtype))
    one, none = (form.graph.constant(np.asarray(n, dtype=dtype)) for n in (1, 0))
    step = form.graph.emit("Where", form.graph.emit("Less", rest, half), none, one)
    return form.graph.emit(
        "Mul", form.graph.emit("Sign", value), form.graph.emit("Add", low, step)
    )


def _batch_matmul(form: IntegerForm, operation: Operation, call: KernelCall) -> None:
    sides, zeros = [], []
    for index, flag in ((0, "adj_x"), (1, "adj_y")):
        value = form.graph.codes(operation.inputs[index])
        if call.options.get(flag):
            rank = len(call.tensor(index).shape)
            order = [*range(rank - 2), rank - 1, rank - 2]
            value = form.graph.emit("Transpose", value, perm=order)
        sides.append(value)
        zeros.append(_zero(form, call.tensor(index)))
    sums = form.graph.emit("MatMulInteger", *sides, *zeros)
    scale = np.float32(call.tensor(0).scale * call.tensor(1).scale)
    by = factor(np.float64(scale) / np.float64(call.output.scale))
    form.finish(operation, call, form.rescale(form.cast(sums, TensorProto.INT64), by))


def _sum(form: IntegerForm, operation: Operation, call: KernelCall) -> None:
    layout = form.layout_of(operation)
    left, right, by, bits = sum_factors(call)
    sides = []
    for index, side in ((0, left), (1, right)):
        record = call.tensor(index)
        table = rescale(codes_of(codes_of_type(record.type), record) << bits, side)
        value = form.graph.codes(operation.inputs[index], layout)
        sides.append(form.looked_up(value, record, table))
    total = form.graph.emit("Sub" if call.name == "SUB" else "Add", *sides)
    form.finish(operation, call, form.rescale(total, by), layout)


def _product(form: IntegerForm, operation: Operation, call: KernelCall) -> None:
    layout = form.layout_of(operation)
    sides = (form.levels(i, layout) for i in operation.inputs)
    product = form.graph.emit("Mul", *sides)
    form.finish(operation, call, form.rescale(product, product_factor(call)), layout)


def _larger(form: IntegerForm, operation: Operation, call: KernelCall) -> None:
    layout, name = form.layout_of(operation), STANDARD[call.name]
    sides = (
        form.cast(form.graph.codes(i, layout), TensorProto.INT32) for i in operation.inputs
    )
    value = form.cast(form.graph.emit(name, *sides), PROTO_TYPES[call.output.type])
    form.made(operation, value, layout)


def _table(form: IntegerForm, operation: Operation, call: KernelCall) -> None:
    """Write a function of one tensor of 8 bits: its kernel on all 256 codes."""
    given, kernel = call.tensor(0), OPERATORS[call.name].on_codes
    if given.type == "FLOAT32":
        _quantize_floats(form, operation, call)
        return
    layout = form.layout_of(operation)
    table = kernel(call, codes_of_type(given.type)) if kernel is not None else None
    value = form.graph.codes(operation.inputs[0], layout)
    form.made(operation, form.looked_up(value, given, np.asarray(table)), layout)


def _quantize_floats(form: IntegerForm, operation: Operation, call: KernelCall) -> None:
    layout = form.layout_of(operation)
    value = form.graph.codes(operation.inputs[0], layout)
    ratio = form.graph.emit("Div", value, form.graph.constant(call.output.scale))
    low, high = CODE_TYPES[call.output.type]
    ends = [form.graph.constant(np.float32(n - call.output.zero)) for n in (low, high)]
    cut = form.graph.emit("Clip", round_away(form, ratio, np.float32), *ends)
    form.finish(operation, call, form.cast(cut, TensorProto.INT64), layout)


def _dequantize(form: IntegerForm, operation: Operation, call: KernelCall) -> None:
    layout = form.layout_of(operation)
    given, kernel = call.tensor(0), OPERATORS[call.name].on_floats
    table = np.zeros(0) if kernel is None else kernel(call, codes_of_type(given.type))
    value = form.graph.codes(operation.inputs[0], layout)
    form.made(operation, form.looked_up(value, given, np.asarray(table)), layout)


def _prelu(form: IntegerForm, operation: Operation, call: KernelCall) -> None:
    given, slope, made = call.tensor(0), call.tensor(1), call.output
    x, alpha = (form.levels(i) for i in operation.inputs)
    above = form.rescale(x, factor(float(np.float32(given.scale / made.scale))))
    by = factor(float(np.float32(given.scale * slope.scale / made.scale)))
    below = form.rescale(form.graph.emit("Mul", x, alpha), by)
    negative = form.graph.emit("Less", x, form.whole(0))
    form.finish(operation, call, form.graph.emit("Where", negative, below, above))


def _average_pool(form: IntegerForm, operation: Operation, call: KernelCall) -> None:
    size = (call.options["filter_height"], call.options["filter_width"])
    channels, dtype = call.tensor(0).shape[3], call.tensor(0).dtype
    ones = form.graph.constant(np.ones((channels, 1, *size), dtype=dtype))
    none = form.graph.constant(np.zeros((), dtype=dtype))
    x = form.graph.codes(operation.inputs[0], FIRST)
    sums = form.graph.emit(
        "ConvInteger", x, ones, none, none, group=channels, **window_of(call, size)
    )
    total = form.cast(sums, TensorProto.INT64)
    plane = np.ones((1, *call.tensor(0).shape[1:3], 1), dtype=np.int64)
    stride = (call.options["stride_h"], call.options["stride_w"])
    seen = windows(plane, size, stride, (1, 1), call.options["padding"], 0)
    # How many cells each window holds, [1, 1, rows, columns].
    count = np.asarray(seen.sum(axis=(3, 4)).transpose(0, 3, 1, 2))
    half = count // 2
    nudged = form.graph.emit("Add", total, form.chosen(total, half, -half))
    value = form.graph.emit("Div", nudged, form.whole(count))
    # codes, not levels: the zero point is part of them
    form.finish(operation, call, form.minus(value, call.output.zero), FIRST)


def _max_pool(form: IntegerForm, operation: Operation, call: KernelCall) -> None:
    size = (call.options["filter_height"], call.options["filter_width"])
    x = form.graph.codes(operation.inputs[0], FIRST)
    value = form.graph.emit("MaxPool", x, **window_of(call, size))
    levels = form.minus(form.cast(value, TensorProto.INT64), call.output.zero)
    form.finish(operation, call, levels, FIRST)


def _mean(form: IntegerForm, operation: Operation, call: KernelCall) -> None:
    shape, keeps = call.tensor(0).shape, bool(call.options.get("keep_dims"))
    axes = axes_of(call, constant_of(call, 1), len(shape))
    count = int(np.prod([shape[axis] for axis in axes], dtype=np.int64))
    layout, along = standard_axes(form.graph, operation, axes, keeps)
    x = form.levels(operation.inputs[0], layout)
    total = form.graph.emit("ReduceSum", x, form.whole(along), keepdims=int(keeps))
    made = layout if keeps else LAST
    form.finish(operation, call, form.rescale(total, mean_factor(call, count)), made)


def _reduce_max(form: IntegerForm, operation: Operation, call: KernelCall) -> None:
    keeps = bool(call.options.get("keep_dims"))
    axes = axes_of(call, constant_of(call, 1), len(call.tensor(0).shape))
    layout, along = standard_axes(form.graph, operation, axes, keeps)
    x = form.cast(form.graph.codes(operation.inputs[0], layout), TensorProto.INT32)
    name = STANDARD[call.name]
    value = form.graph.emit(name, x, axes=list(along), keepdims=int(keeps))
    form.made(
        operation, form.cast(value, PROTO_TYPES[call.output.type]), layout if keeps else LAST
    )


def _concat(form: IntegerForm, operation: Operation, call: KernelCall) -> None:
    rank = len(call.output.shape)
    axis = call.options["axis"] % rank
    layout = form.layout_of(operation) if rank == 4 else LAST
    parts = []
    for index, tensor in enumerate(operation.inputs):
        value, record = form.graph.codes(tensor, layout), call.tensor(index)
        if call.output.type == "UINT8" and not (
            record.scale == call.output.scale and record.zero == call.output.zero
        ):
            table = OPERATORS["CONCATENATION"].on_codes
            one = KernelCall(call.name, {"axis": 0}, (record,), call.outputs)
            codes = codes_of_type("UINT8")
            value = form.looked_up(value, record, np.asarray(table and table(one, codes)))
        parts.append(value)
    along = (0, 2, 3, 1)[axis] if layout == FIRST else axis
    form.made(operation, form.graph.emit("Concat", *parts, axis=along), layout)


def _moved(
    write: Callable[[StandardGraph, str, KernelCall], list[str]], data: int = 0
) -> Rule:
    def rule(form: IntegerForm, operation: Operation, call: KernelCall) -> None:
        values = write(form.graph, form.graph.codes(operation.inputs[data]), call)
        for index, value in enumerate(values):
            form.made(operation, value, index=index)

    return rule


def _pad(form: IntegerForm, operation: Operation, call: KernelCall) -> None:
    wide = constant_of(call, 1).astype(np.int64)
    fill = call.output.zero if not call.has(2) else int(constant_of(call, 2).reshape(-1)[0])
    x = form.graph.codes(operation.inputs[0])
    value = form.graph.constant(np.array(fill, dtype=call.output.dtype))
    pads = form.whole(np.concatenate([wide[:, 0], wide[:, 1]]))
    form.made(operation, form.graph.emit("Pad", x, pads, value))


def _pack(form: IntegerForm, operation: Operation, call: KernelCall) -> None:
    axis = form.whole([call.options["axis"]])
    parts = [form.graph.emit("Unsqueeze", form.graph.codes(i), axis) for i in operation.inputs]
    form.made(operation, form.graph.emit("Concat", *parts, axis=call.options["axis"]))


_RULES: Mapping[str, Rule] = {
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _conv,
    "FULLY_CONNECTED": _fully_connected,
    "BATCH_MATMUL": _batch_matmul,
    "ADD": _sum,
    "SUB": _sum,
    "MUL": _product,
    "MAXIMUM": _larger,
    "MINIMUM": _larger,
    **dict.fromkeys(
        (
            *("QUANTIZE", "RELU", "RELU6", "RELU_N1_TO_1"),
            *("LEAKY_RELU", "LOGISTIC", "TANH", "HARD_SWISH"),
        ),
        _table,
    ),
    "DEQUANTIZE": _dequantize,
    "PRELU": _prelu,
    "SOFTMAX": lambda form, operation, call: form.made(
        operation, write_softmax(form, operation, call)
    ),
    "AVERAGE_POOL_2D": _average_pool,
    "MAX_POOL_2D": _max_pool,
    "MEAN": _mean,
    "REDUCE_MAX": _reduce_max,
    "REDUCE_MIN": _reduce_max,
    "CONCATENATION": _concat,
    "PAD": _pad,
    "PADV2": _pad,
    "MIRROR_PAD": lambda form, operation, call: form.made(
        operation, moves.mirrored(form.graph, form.graph.codes(operation.inputs[0]), call)
    ),
    "TRANSPOSE": _moved(moves.transposed),
    **dict.fromkeys(("RESHAPE", "SQUEEZE", "EXPAND_DIMS"), _moved(moves.reshaped)),
    "SPLIT": _moved(moves.parts_of, 1),
    "SPLIT_V": _moved(moves.parts_of),
    "SLICE": _moved(moves.sliced),
    "STRIDED_SLICE": _moved(moves.sliced),
    "UNPACK": _moved(moves.packed),
    "PACK": _pack,
    "GATHER": _moved(moves.gathered),
    "RESIZE_NEAREST_NEIGHBOR": _moved(moves.nearest_rows),
}
