"""Float operators that onnxruntime's optimizer writes, in those of the standard.

A saved optimized model (``SessionOptions.optimized_model_filepath``) holds products with the
activation or the permutation behind or in front of them inside. The rules are those of the
operators' documents in onnxruntime (``docs/ContribOperators.md``). What onnxruntime itself
does not compute in the same bits either way stays, opaque as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from onnx_ir import Model, Node, Value

from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.queries import attribute, dims, input_of, rank_of
from qonnx_hub_ir.graph.subgraphs import every_node
from qonnx_hub_ir.lowering.onnxruntime_operators import DOMAIN
from qonnx_hub_ir.passes import InferShapes
from qonnx_hub_ir.quantizers import Array

_WINDOW = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
_GEMM = ("alpha", "beta", "transA", "transB")
_SWITCHES = ("transA", "transB", "transBatchA", "transBatchB")

_ACTIVATIONS: Mapping[str, tuple[str, ...]] = {
    "Elu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "LeakyRelu": ("alpha",),
    "Relu": (),
    "Selu": ("alpha", "gamma"),
    "Sigmoid": (),
    "Softplus": (),
    "Softsign": (),
    "Tanh": (),
    "ThresholdedRelu": ("alpha",),
}
"""Activation -> its parameters, in the order of ``activation_params``."""

_CLIP = "Clip"
"""The activation whose limits are inputs of the standard's operator: lowest, highest."""

_OPSET_OF_CLIP = 11
"""The first opset where they are."""


def is_fused_operator(domain: str, op_type: str) -> bool:
    """Return whether an operator is one that :func:`expand_fused` knows."""
    return domain == DOMAIN and op_type in _RULES


def expand_fused(model: Model) -> None:
    """Write the optimizer's float operators in those of the standard, in place.

    Args:
        model: Its constants must be initializers.
    """
    left = -1
    while (waiting := list(_fused(model))) and len(waiting) != left:
        left = len(waiting)
        if any(attribute(node, name, 0) for node in waiting for name in _SWITCHES):
            InferShapes()(model)  # a permutation needs to know how many axes there are
        for node in waiting:
            made = _RULES[node.op_type](Emitter(node), node)
            if made is not None:
                last = made.producer()
                assert last is not None, "a node was just made"
                last.name = node.name
                Emitter(node).replace_with(made)
    names = {node.domain for node in every_node(model)}
    if DOMAIN not in names:
        model.opset_imports.pop(DOMAIN, None)


def _fused(model: Model) -> Iterator[Node]:
    clips = model.opset_imports.get("", 1) >= _OPSET_OF_CLIP
    for node in every_node(model, functions=False):
        known = is_fused_operator(node.domain, node.op_type)
        if known and (clips or attribute(node, "activation", "") != _CLIP):
            yield node


def _given(node: Node, names: Sequence[str]) -> dict[str, Any]:
    return {name: node.attributes[name].value for name in names if name in node.attributes}


def _is_known(node: Node, *names: str) -> bool:
    return set(node.attributes) <= set(names)


def _conv(emit: Emitter, node: Node) -> Value | None:
    """``FusedConv``: ``activation(Conv(x, w, bias))``.

    Another value to add starts the sums there, which an Add behind them does not.
    """
    parameters = [float(number) for number in attribute(node, "activation_params", ())]
    activation = str(attribute(node, "activation", ""))
    if not _is_known(node, *_WINDOW, "activation", "activation_params"):
        return None
    if input_of(node, 3) is not None or not _can_activate(activation, parameters):
        return None
    value = emit.add("Conv", node.inputs[:3], **_given(node, _WINDOW))
    return _activated(emit, value, activation, parameters, node.inputs[1])


def _gemm(emit: Emitter, node: Node) -> Value | None:
    """``FusedGemm``: ``activation(Gemm(a, b, c))``."""
    activation = str(attribute(node, "activation", ""))
    names = _ACTIVATIONS.get(activation)
    own = [f"activation_{name}" for name in ("alpha", "beta", "gamma")]
    if names is None or not _is_known(node, *_GEMM, "activation", *own):
        return None
    given = [node.attributes.get(f"activation_{name}") for name in names]
    known = [float(one.value) for one in given if one is not None]
    if len(known) != len(names):
        return None  # onnxruntime has no defaults for them
    value = emit.add("Gemm", node.inputs, **_given(node, _GEMM))
    return _activated(emit, value, activation, known, node.inputs[0])


def _matmul(emit: Emitter, node: Node) -> Value | None:
    """``FusedMatMul``: ``alpha * (A @ B)`` of permuted factors.

    onnxruntime multiplies every part of a long sum, which rounds otherwise than the whole.
    """
    if not _is_known(node, "alpha", *_SWITCHES):
        return None
    alpha = np.float32(attribute(node, "alpha", 1.0))
    scales_exactly = abs(np.frexp(alpha)[0]) == _MANTISSA_OF_POWERS
    if not scales_exactly and not _is_short(node):
        return None
    orders = [_order(node, index, side) for index, side in enumerate("AB")]
    if any(order is None for order in orders):
        return None
    factors = [
        emit.add("Transpose", [value], perm=order) if order else value
        for value, order in zip(node.inputs, orders, strict=True)
    ]
    value = emit.add("MatMul", factors)
    if alpha == 1:
        return value
    factor = _like(emit, "alpha", alpha, node.inputs[0])
    return None if factor is None else emit.add("Mul", [value, factor])


_MANTISSA_OF_POWERS = 0.5

_ONE_PART = 128
"""Products of a sum that onnxruntime's kernels surely take in one part (MLAS's stride)."""


def _is_short(node: Node) -> bool:
    """Return whether the sums of a product are known to have few summands."""
    found = False
    for value, side, at in zip(node.inputs, "AB", (-1, -2), strict=True):
        sizes = dims(value)
        if sizes is None or len(sizes) < 2:
            continue
        swaps = bool(attribute(node, f"trans{side}", 0))
        rows = 0 if attribute(node, f"transBatch{side}", 0) else -2
        size = sizes[rows if swaps == (at == -1) else -1]
        found |= isinstance(size, int) and size <= _ONE_PART
    return found


def _order(node: Node, index: int, side: str) -> list[int] | None:
    """Return how a factor is permuted; empty for not at all, ``None`` if that is not known."""
    swaps = bool(attribute(node, f"trans{side}", 0))
    moves = bool(attribute(node, f"transBatch{side}", 0))
    rank = rank_of(node.inputs[index])
    if not swaps and not moves:
        return []
    if rank is None or rank < 2:
        return None
    first, last = [*range(rank - 2)], [rank - 2, rank - 1]
    if moves:  # the first axis is a row of the matrix, those of the batch come behind it
        first, last = [*range(1, rank - 1)], [0, rank - 1]
    return [*first, *(reversed(last) if swaps else last)]


def _quick_gelu(emit: Emitter, node: Node) -> Value | None:
    """``QuickGelu``: ``x * sigmoid(alpha * x)``."""
    if not _is_known(node, "alpha"):
        return None
    x = node.inputs[0]
    alpha = np.float32(attribute(node, "alpha", _ALPHA_OF_QUICK_GELU))
    factor = _like(emit, "alpha", alpha, x)
    if factor is None:
        return None
    return emit.add("Mul", [x, emit.add("Sigmoid", [emit.add("Mul", [x, factor])])])


_ALPHA_OF_QUICK_GELU = 1.702


def _can_activate(activation: str, parameters: Sequence[float]) -> bool:
    if activation == _CLIP:
        return len(parameters) == 2
    names = _ACTIVATIONS.get(activation)
    return not activation or (names is not None and len(parameters) == len(names))


def _activated(
    emit: Emitter,
    value: Value,
    activation: str,
    parameters: Sequence[float],
    like: Value | None,
) -> Value | None:
    if not activation:
        return value
    if activation == _CLIP:
        ends = [
            _like(emit, label, np.float32(end), like)
            for label, end in zip(("lowest", "highest"), parameters, strict=True)
        ]
        return None if None in ends else emit.add(_CLIP, [value, *ends])
    named = dict(zip(_ACTIVATIONS[activation], parameters, strict=True))
    return emit.add(activation, [value], **named)


def _like(emit: Emitter, label: str, number: np.float32, like: Value | None) -> Value | None:
    """Return a constant of the type of a value, if that is known."""
    if like is None or like.dtype is None:
        return None
    array: Array = np.asarray(number, dtype=like.dtype.numpy())
    return emit.constant(label, array)


_RULES: Mapping[str, Callable[[Emitter, Node], Value | None]] = {
    "FusedConv": _conv,
    "FusedGemm": _gemm,
    "FusedMatMul": _matmul,
    "QuickGelu": _quick_gelu,
}
