"""The float layer of every operator, and a whole net of them: near what kernels compute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from qonnx_hub_adapters.tflite.copied_codes import COPY, copy_codes, with_copied_codes
from qonnx_hub_adapters.tflite.float_form import FloatForm, Source
from qonnx_hub_adapters.tflite.graph_writer import FIRST, LAST, StandardGraph, start
from qonnx_hub_adapters.tflite.kernels.pools import axes_of
from qonnx_hub_adapters.tflite.kernels.windows import padding
from qonnx_hub_adapters.tflite.moves import (
    constant_of,
    gathered,
    mirrored,
    nearest_rows,
    packed,
    parts_of,
    reshaped,
    sliced,
    transposed,
)
from qonnx_hub_adapters.tflite.net import (
    RELU,
    RELU6,
    RELU_N1_TO_1,
    STANDARD,
    KernelCall,
    Operation,
    TfliteNet,
)
from qonnx_hub_ir.errors import SourceError

_OPSET, _OPSET_OF_WIDE_CODES = 19, 21
_ALONE = {"RELU": RELU, "RELU6": RELU6, "RELU_N1_TO_1": RELU_N1_TO_1}
_SHORT_TYPES = ("INT16", "INT4")

Rule = Callable[[FloatForm, Operation, KernelCall], None]


def window_of(call: KernelCall, size: tuple[int, int], data: int = 0) -> dict[str, Any]:
    """Return the attributes of a window of ONNX: size, strides, pads, dilations."""
    options = call.options
    strides = [options["stride_h"], options["stride_w"]]
    dilations = [options.get("dilation_h_factor", 1), options.get("dilation_w_factor", 1)]
    shape = call.tensor(data).shape
    ends = [
        padding(options["padding"], shape[i + 1], size[i], strides[i], dilations[i])
        for i in (0, 1)
    ]
    pads = [ends[0][1], ends[1][1], ends[0][2], ends[1][2]]
    found: dict[str, Any] = {"kernel_shape": list(size), "strides": strides, "pads": pads}
    return found | ({"dilations": dilations} if dilations != [1, 1] else {})


def _conv(form: FloatForm, operation: Operation, call: KernelCall) -> None:
    data = constant_of(call, 1)
    is_depthwise = call.name == "DEPTHWISE_CONV_2D"
    order = (3, 0, 1, 2) if is_depthwise else (0, 3, 1, 2)
    channels = call.tensor(0).shape[3]
    group = channels if is_depthwise else channels // data.shape[3]
    weights = form.weights(call.tensor(1), data, 0, order)
    x = form.floats(operation.inputs[0], FIRST)
    attributes = window_of(call, (data.shape[1], data.shape[2])) | {"group": group}
    value = form.writer.emit("Conv", x, weights, *form.bias(call, 2), **attributes)
    form.made(operation, value, FIRST)


def _transpose_conv(form: FloatForm, operation: Operation, call: KernelCall) -> None:
    data, shape = constant_of(call, 1), [int(n) for n in constant_of(call, 0)]
    strides = [call.options["stride_h"], call.options["stride_w"]]
    given, size, pads = call.tensor(2).shape, data.shape[1:3], [0, 0, 0, 0]
    extra = [0, 0]
    for i in (0, 1):
        before = padding(call.options["padding"], shape[i + 1], size[i], strides[i])[1]
        full = (given[i + 1] - 1) * strides[i] + size[i]
        after = full - before - shape[i + 1]
        pads[i], pads[i + 2], extra[i] = before, max(after, 0), max(-after, 0)
    weights = form.weights(call.tensor(1), data, 1, (3, 0, 1, 2))
    x = form.floats(operation.inputs[2], FIRST)
    value = form.writer.emit(
        "ConvTranspose",
        *(x, weights, *form.bias(call, 3, 2)),
        strides=strides,
        pads=pads,
        output_padding=extra,
        kernel_shape=list(size),
    )
    form.made(operation, value, FIRST)


def _fully_connected(form: FloatForm, operation: Operation, call: KernelCall) -> None:
    x, data = form.floats(operation.inputs[0]), constant_of(call, 1)
    shape = call.tensor(0).shape
    if len(shape) != 2 or shape[1] != data.shape[1]:
        wanted = form.writer.constant(np.array([-1, data.shape[1]], dtype=np.int64))
        x = form.writer.emit("Reshape", x, wanted)
    weights = form.weights(call.tensor(1), data, 0)
    value = form.writer.emit("Gemm", x, weights, *form.bias(call, 2), transB=1)
    if tuple(call.output.shape) != (
        int(np.prod(shape, dtype=np.int64)) // data.shape[1],
        data.shape[0],
    ):
        wanted = form.writer.constant(np.array(call.output.shape, dtype=np.int64))
        value = form.writer.emit("Reshape", value, wanted)
    form.made(operation, value)


def _batch_matmul(form: FloatForm, operation: Operation, call: KernelCall) -> None:
    sides = []
    for index, flag in ((0, "adj_x"), (1, "adj_y")):
        value = form.floats(operation.inputs[index])
        if call.options.get(flag):
            rank = len(call.tensor(index).shape)
            order = [*range(rank - 2), rank - 1, rank - 2]
            value = form.writer.emit("Transpose", value, perm=order)
        sides.append(value)
    form.made(operation, form.writer.emit("MatMul", *sides))


def _pair(form: FloatForm, operation: Operation, call: KernelCall) -> None:
    layout = form.layout_of(operation)
    if len({len(call.tensor(i).shape) for i in (0, 1)} - {0}) > 1:
        layout = LAST
    a, b = (
        form.floats(i, layout if len(form.net.tensors[i].shape) == 4 else LAST)
        for i in operation.inputs
    )
    form.made(operation, form.writer.emit(STANDARD[call.name], a, b), layout)


def _dequantize(form: FloatForm, operation: Operation, call: KernelCall) -> None:
    layout = form.layout_of(operation)
    form.writer.put(
        operation.outputs[0], "floats", form.floats(operation.inputs[0], layout), layout
    )


def _unary(form: FloatForm, operation: Operation, call: KernelCall) -> None:
    layout = form.layout_of(operation)
    x = form.floats(operation.inputs[0], layout)
    if call.name in _ALONE:
        form.made(operation, x, layout, fused=_ALONE[call.name])
        return
    extra: dict[str, Any] = (
        {"alpha": float(call.options["alpha"])} if call.name == "LEAKY_RELU" else {}
    )
    form.made(operation, form.writer.emit(STANDARD[call.name], x, **extra), layout)


def _softmax(form: FloatForm, operation: Operation, call: KernelCall) -> None:
    x, beta = form.floats(operation.inputs[0]), float(call.options.get("beta", 1.0))
    if beta != 1.0:
        x = form.writer.emit("Mul", x, form.writer.constant(np.float32(beta)))
    form.made(operation, form.writer.emit("Softmax", x, axis=-1))


def _pool(form: FloatForm, operation: Operation, call: KernelCall) -> None:
    size = (call.options["filter_height"], call.options["filter_width"])
    x = form.floats(operation.inputs[0], FIRST)
    name = "MaxPool" if call.name == "MAX_POOL_2D" else "AveragePool"
    form.made(operation, form.writer.emit(name, x, **window_of(call, size)), FIRST)


def standard_axes(
    graph: StandardGraph, operation: Operation, axes: tuple[int, ...], keeps: bool
) -> tuple[str, tuple[int, ...]]:
    """Return the layout in which a reduction is best done, and its axes there."""
    first = operation.inputs[0]
    is_first = len(graph.net.tensors[first].shape) == 4 and graph.is_first(first)
    if not is_first or (not keeps and axes != (1, 2)):
        return LAST, axes
    return FIRST, tuple(sorted((0, 2, 3, 1)[axis] for axis in axes))


def _reduce(form: FloatForm, operation: Operation, call: KernelCall) -> None:
    rank, keeps = len(call.tensor(0).shape), bool(call.options.get("keep_dims"))
    axes = axes_of(call, constant_of(call, 1), rank)
    layout, along = standard_axes(form.writer, operation, axes, keeps)
    x = form.floats(operation.inputs[0], layout)
    given = form.writer.constant(np.array(along, dtype=np.int64), "axes")
    value = form.writer.emit(STANDARD[call.name], x, given, keepdims=int(keeps))
    form.made(operation, value, layout if keeps else LAST)


def _concat(form: FloatForm, operation: Operation, call: KernelCall) -> None:
    rank, axis = len(call.output.shape), call.options["axis"]
    axis %= rank
    layout = form.layout_of(operation) if rank == 4 else LAST
    if layout == FIRST:
        axis = (0, 2, 3, 1)[axis]
    parts = [form.floats(i, layout) for i in operation.inputs]
    form.made(operation, form.writer.emit("Concat", *parts, axis=axis), layout)


def _moved(
    write: Callable[[StandardGraph, str, KernelCall], list[str]], data: int = 0
) -> Rule:
    """Return the rule of an operator that moves values; it works on floats and on codes."""

    def rule(form: FloatForm, operation: Operation, call: KernelCall) -> None:
        values = write(form.writer, form.floats(operation.inputs[data]), call)
        for index, value in enumerate(values):
            form.made(operation, value, index=index)

    return rule


def _pad(form: FloatForm, operation: Operation, call: KernelCall) -> None:
    wide = constant_of(call, 1).astype(np.int64)
    pads = form.writer.constant(np.concatenate([wide[:, 0], wide[:, 1]]), "pads")
    x = form.floats(operation.inputs[0])
    if call.name == "MIRROR_PAD":
        value = mirrored(form.writer, x, call)
    else:
        more = [form.floats(operation.inputs[2])] if call.has(2) else []
        if more and len(call.tensor(2).shape):
            shape = form.writer.constant(np.zeros(0, dtype=np.int64), "shape")
            more = [form.writer.emit("Reshape", more[0], shape)]
        value = form.writer.emit("Pad", x, pads, *more)
    form.made(operation, value)


def _resize(form: FloatForm, operation: Operation, call: KernelCall) -> None:
    size = [int(n) for n in constant_of(call, 1)]
    x = form.floats(operation.inputs[0], FIRST)
    shape = call.tensor(0).shape
    mode = "align_corners" if call.options.get("align_corners") else "asymmetric"
    mode = "half_pixel" if call.options.get("half_pixel_centers") else mode
    sizes = form.writer.constant(
        np.array([shape[0], shape[3], *size], dtype=np.int64), "sizes"
    )
    value = form.writer.emit(
        "Resize", x, "", "", sizes, mode="linear", coordinate_transformation_mode=mode
    )
    form.made(operation, value, FIRST)


_MOST_STEPS = 512
"""The longest sequence that is written step by step."""


def _lstm(form: FloatForm, operation: Operation, call: KernelCall) -> None:
    """Write UNIDIRECTIONAL_SEQUENCE_LSTM as LSTM: gates input, output, forget, cell.

    The operator does not clip its cell. Without an input gate it is written step by step.
    """
    if not call.has(1):
        _lstm_by_steps(form, operation, call)
        return
    w, order = form.writer, (0, 3, 1, 2)
    gates = [_gate_parts(form, call, i) for i in order]
    apart = w.constant(np.array([0], dtype=np.int64), "axes")
    data = w.emit("Concat", *(gate[0] for gate in gates), axis=0)
    state = w.emit("Concat", *(w.emit("Transpose", g[1], perm=(1, 0)) for g in gates), axis=0)
    units = call.tensor(5).shape[1]
    none = w.constant(np.zeros(4 * units, dtype=np.float32), "bias")
    bias = w.emit("Concat", *(gate[2] for gate in gates), none, axis=0)
    x = form.floats(operation.inputs[0])
    turned = (1, 0, 2)
    if not call.options.get("time_major"):
        x = w.emit("Transpose", x, perm=turned)
    parts = [w.emit("Unsqueeze", part, apart) for part in (data, state, bias)]
    made = w.emit("LSTM", x, *parts, hidden_size=units)
    value = w.emit("Squeeze", made, w.constant(np.array([1], dtype=np.int64), "axes"))
    if not call.options.get("time_major"):
        value = w.emit("Transpose", value, perm=turned)
    form.made(operation, value, fused=0)


def _lstm_by_steps(form: FloatForm, operation: Operation, call: KernelCall) -> None:
    """Write UNIDIRECTIONAL_SEQUENCE_LSTM step by step; states start at zero."""
    w, is_time_first = form.writer, bool(call.options.get("time_major"))
    axis = 0 if is_time_first else 1
    steps = call.tensor(0).shape[axis]
    if steps > _MOST_STEPS:
        raise SourceError(
            f"{call.name} (tensor '{call.output.name}'): {steps} steps, at most {_MOST_STEPS} "
            "are read"
        )
    rows = call.tensor(0).shape[1 - axis]
    one = w.constant(np.float32(1), "one")
    gates = {i: _gate_parts(form, call, i) for i in range(4) if call.has(1 + i)}
    x = w.emit_many(
        "Split", steps, form.floats(operation.inputs[0]), axis=axis, num_outputs=steps
    )
    units = call.tensor(5 + 1).shape[1]
    hidden = cell = w.constant(np.zeros((rows, units), dtype=np.float32), "state")
    flat = w.constant(np.array([rows, -1], dtype=np.int64), "shape")
    apart = w.constant(np.array([axis], dtype=np.int64), "axes")
    made = []
    for step in x:
        data = w.emit("Reshape", step, flat)
        sums = {
            i: w.emit(
                "Add", w.emit("Gemm", data, a, bias, transB=1), w.emit("MatMul", hidden, b)
            )
            for i, (a, b, bias) in gates.items()
        }
        opened = {i: w.emit("Tanh" if i == 2 else "Sigmoid", s) for i, s in sums.items()}
        entered = opened[0] if 0 in opened else w.emit("Sub", one, opened[1])
        kept = w.emit("Mul", opened[1], cell)
        cell = w.emit("Add", kept, w.emit("Mul", entered, opened[2]))
        if clip := float(call.options.get("cell_clip", 0.0)):
            ends = [w.constant(np.float32(end), "end") for end in (-clip, clip)]
            cell = w.emit("Clip", cell, *ends)
        hidden = w.emit("Mul", opened[3], w.emit("Tanh", cell))
        made.append(w.emit("Unsqueeze", hidden, apart))
    form.made(operation, w.emit("Concat", *made, axis=axis), fused=0)


def _gate_parts(form: FloatForm, call: KernelCall, gate: int) -> tuple[str, str, str]:
    """Return weights of data, turned weights of the state, and bias of a gate, as floats."""
    data = form.weights(call.tensor(1 + gate), constant_of(call, 1 + gate), 0)
    state = form.weights(call.tensor(5 + gate), constant_of(call, 5 + gate), 0)
    turned = form.writer.emit("Transpose", state, perm=(1, 0))
    scale = np.float32(call.tensor(0).scale * call.tensor(1 + gate).scale)
    bias = constant_of(call, 12 + gate).astype(np.float32) * scale
    return data, turned, form.writer.constant(bias, "bias")


def _pack(form: FloatForm, operation: Operation, call: KernelCall) -> None:
    axis = form.writer.constant(np.array([call.options["axis"]], dtype=np.int64), "axes")
    parts = [form.writer.emit("Unsqueeze", form.floats(i), axis) for i in operation.inputs]
    form.made(operation, form.writer.emit("Concat", *parts, axis=call.options["axis"]))


_RULES: Mapping[str, Rule] = {
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _conv,
    "TRANSPOSE_CONV": _transpose_conv,
    "FULLY_CONNECTED": _fully_connected,
    "BATCH_MATMUL": _batch_matmul,
    **dict.fromkeys(("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM"), _pair),
    "QUANTIZE": lambda form, operation, call: form.made(
        operation,
        form.floats(operation.inputs[0], form.layout_of(operation)),
        form.layout_of(operation),
    ),
    "DEQUANTIZE": _dequantize,
    **dict.fromkeys(
        (*("LOGISTIC", "TANH", "HARD_SWISH", "LEAKY_RELU"), *_ALONE),
        _unary,
    ),
    "PRELU": lambda form, operation, call: form.made(
        operation, form.writer.emit("PRelu", *map(form.floats, operation.inputs))
    ),
    "SOFTMAX": _softmax,
    "AVERAGE_POOL_2D": _pool,
    "MAX_POOL_2D": _pool,
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"), _reduce),
    "CONCATENATION": _concat,
    "PAD": _pad,
    "PADV2": _pad,
    "MIRROR_PAD": _pad,
    "TRANSPOSE": _moved(transposed),
    **dict.fromkeys(("RESHAPE", "SQUEEZE", "EXPAND_DIMS"), _moved(reshaped)),
    "SPLIT": _moved(parts_of, 1),
    "SPLIT_V": _moved(parts_of),
    "SLICE": _moved(sliced),
    "STRIDED_SLICE": _moved(sliced),
    "UNPACK": _moved(packed),
    "PACK": _pack,
    "GATHER": _moved(gathered),
    "RESIZE_NEAREST_NEIGHBOR": _moved(nearest_rows),
    "RESIZE_BILINEAR": _resize,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _lstm,
    "SHAPE": lambda form, operation, call: form.writer.put(
        operation.outputs[0],
        "codes",
        form.writer.constant(np.array(call.tensor(0).shape, dtype=call.output.dtype), "shape"),
    ),
}


def float_form(net: TfliteNet, meta: Mapping[str, str] | None = None) -> onnx.ModelProto:
    """Return a net in QDQ form; arguments and errors as in :func:`float_form_of`."""
    return float_form_of(net, meta)[0]


def float_form_of(
    net: TfliteNet, meta: Mapping[str, str] | None = None
) -> tuple[onnx.ModelProto, Mapping[str, Source]]:
    """Return a net in QDQ form, and which values stand for which of its tensors.

    Args:
        net: The net.
        meta: Metadata of the model.

    Raises:
        SourceError: An operation has no float form.
    """
    net = with_copied_codes(_without_constant_layers(net))
    is_wide = any(t.type in _SHORT_TYPES and not t.is_variable for t in net.tensors)
    form = FloatForm(start(net, _OPSET_OF_WIDE_CODES if is_wide else _OPSET))
    for operation in net.operations:
        if operation.name == COPY:
            copy_codes(form, operation)
            continue
        call = net.call(operation)
        try:
            _RULES[operation.name](form, operation, call)
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            # ranks and settings that no rule expects
            raise SourceError(
                f"{call.name} (tensor '{call.output.name}'): cannot be read ({error})"
            ) from error
    return form.writer.finish(form.output, dict(meta or {})), form.sources


def _without_constant_layers(net: TfliteNet) -> TfliteNet:
    """Return a net in which what DEQUANTIZE makes of constants is constant itself."""
    tensors, kept = list(net.tensors), []
    for operation in net.operations:
        first = tensors[operation.inputs[0]]
        if operation.name != "DEQUANTIZE" or first.data is None:
            kept.append(operation)
            continue
        made = operation.outputs[0]
        tensors[made] = replace(first, name=tensors[made].name)
    return replace(net, tensors=tuple(tensors), operations=tuple(kept))
