"""SOFTMAX of 8 bits in standard integer operators: a table, and three Newton steps."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from qonnx_hub_adapters.tflite.graph_writer import PROTO_TYPES
from qonnx_hub_adapters.tflite.integer_form import IntegerForm
from qonnx_hub_adapters.tflite.kernels.fixed_point import shift_right
from qonnx_hub_adapters.tflite.kernels.functions import exponentials, softmax_factor
from qonnx_hub_adapters.tflite.net import CODE_TYPES, KernelCall, Operation

_POWERS = 2 ** np.arange(32, dtype=np.int64)


def write_softmax(form: IntegerForm, operation: Operation, call: KernelCall) -> str:
    """Return the codes of SOFTMAX along the last axis."""
    graph, (low, high) = form.graph, CODE_TYPES[call.output.type]
    by, radius = softmax_factor(call)
    wide = form.cast(graph.codes(operation.inputs[0]), TensorProto.INT64)
    top = graph.emit("ReduceMax", wide, axes=[-1], keepdims=1)
    distance = graph.emit("Sub", top, wide)
    difference = -np.arange(256, dtype=np.int64)
    near = difference >= -radius
    powers = np.where(near, exponentials(difference, by), 0)
    shares = np.where(near, shift_right(powers, 12), 0)
    total = graph.emit(
        "ReduceSum",
        graph.emit("Gather", graph.constant(shares, "table"), distance),
        form.whole([-1]),
        keepdims=1,
    )
    # How many bits these positive numbers have; their last axis is 1.
    reached = form.graph.emit("Less", form.whole(_POWERS - 1), total)
    bits = form.graph.emit(
        "ReduceSum", form.cast(reached, TensorProto.INT64), form.whole([-1]), keepdims=1
    )
    free = graph.emit("Sub", form.whole(32), bits)
    shifted = form.minus(graph.emit("Mul", total, _power(form, free)), 2**31)
    share = _reciprocal(form, shifted)
    exps = graph.emit("Gather", graph.constant(powers, "table"), distance)
    product = form.high_product(share, exps)
    # 12 - free + 31 - 8 bits to the right, as many as 3 + bits
    right = form.plus(bits, 12 - 32 + 31 - 8)
    half = _power(form, form.minus(right, 1))
    codes = form.plus(
        graph.emit("Div", graph.emit("Add", product, half), _power(form, right)), low
    )
    codes = graph.emit("Clip", codes, form.whole(low), form.whole(high))
    is_near = graph.emit("Gather", graph.constant(near, "near"), distance)
    codes = graph.emit("Where", is_near, codes, form.whole(low))
    return form.cast(codes, PROTO_TYPES[call.output.type])


def _power(form: IntegerForm, exponent: str) -> str:
    return form.graph.emit("Gather", form.graph.constant(_POWERS, "powers"), exponent)


def _reciprocal(form: IntegerForm, value: str) -> str:
    """Return 1 / (1 + x) with 31 bits behind the point, as gemmlowp computes it."""
    graph = form.graph
    total = form.plus(value, 2**31 - 1)
    # never negative: halves go up
    half = graph.emit("Div", form.plus(total, 1), form.whole(2))
    x = form.plus(form.high_product(half, form.whole(-1010580540)), 1515870810)
    for _ in range(3):
        rest = graph.emit("Sub", form.whole(1 << 29), form.high_product(half, x))
        step = graph.emit("Mul", form.high_product(x, rest), form.whole(4))
        x = graph.emit("Add", x, step)
    doubled = graph.emit("Mul", x, form.whole(2))
    return graph.emit("Clip", doubled, form.whole(-(2**31)), form.whole(2**31 - 1))
