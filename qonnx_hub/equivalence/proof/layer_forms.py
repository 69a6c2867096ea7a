"""Layers and neutral operators by one form each; every equality here holds bit for bit.

* A bias of Conv and ConvTranspose is added behind the sum, as the executor does it;
* a reduction along constant axes, whether they are an input or an attribute;
* HardSwish is its input times a HardSigmoid, as ONNX defines it;
* times or divided by ones, plus or less zeros: nothing happens but to the sign of a zero;
* Slice, Transpose, Expand and Pad that keep every element in its place.
"""

from __future__ import annotations

import numpy as np
from onnx_ir import Node, Value

from qonnx_hub.equivalence.proof.proof_model import ProofModel
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.constants import channel_shape
from qonnx_hub_ir.graph.permutations import keeps_all_axes
from qonnx_hub_ir.graph.queries import attribute, dims, fits_into, input_of


def kept_input(model: ProofModel, node: Node) -> Value | None:
    """Return the input that the node returns as it is, but for signs of zeros.

    Args:
        model: The model.
        node: Its node.

    Returns:
        ``None`` where something happens, or may.
    """
    if node.domain not in dialect.STANDARD_DOMAINS or not node.inputs:
        return None
    arithmetic = operators.of(node).arithmetic
    if arithmetic is not None:
        return _without_effect(model, node, arithmetic.neutral)
    x = node.inputs[0]
    kept = {
        "Transpose": lambda: keeps_all_axes(node),
        "Slice": lambda: _steps_are_one(model, node) and _keeps_sizes(node),
        "Expand": lambda: _keeps_sizes(node),
        "Pad": lambda: _pads_nothing(model, node),
    }.get(node.op_type)
    return x if kept is not None and kept() else None


def _without_effect(model: ProofModel, node: Node, neutral: int) -> Value | None:
    for index in (1, 0) if operators.is_commutative(node) else (1,):
        value, other = node.inputs[index], node.inputs[1 - index]
        known = None if value is None else model.constants.get(value)
        if known is None or other is None or known.dtype.kind not in "fiu":
            continue
        if np.all(known == neutral) and fits_into(known.shape, dims(other)):
            return other
    return None


def _keeps_sizes(node: Node) -> bool:
    before = dims(node.inputs[0])
    return before is not None and None not in before and before == dims(node.outputs[0])


def _steps_are_one(model: ProofModel, node: Node) -> bool:
    value = input_of(node, 4)
    steps = None if value is None else model.constants.get(value)
    return value is None or (steps is not None and bool(np.all(steps == 1)))


def _pads_nothing(model: ProofModel, node: Node) -> bool:
    value = input_of(node, 1)
    pads = None if value is None else model.constants.get(value)
    return pads is not None and not np.any(pads)


def layer_form(model: ProofModel, node: Node) -> int | None:
    """Return the number of a node's first output in the form that stands for all others.

    Args:
        model: The model.
        node: Its node; its inputs have numbers.

    Returns:
        ``None`` where the node itself is that form.
    """
    if operators.is_convolution(node):
        return _with_bias_behind(model, node)
    if operators.is_reduction(node):
        return _along_axes(model, node)
    if node.op_type == "HardSwish" and node.domain in dialect.STANDARD_DOMAINS:
        x = model.number(node.inputs[0])
        gate = model.make("HardSigmoid", x, alpha=float(np.float32(1 / 6)))
        return model.make("Mul", x, gate)
    return None


def _with_bias_behind(model: ProofModel, node: Node) -> int | None:
    value, signature = input_of(node, 2), model.signature(node)
    bias = None if value is None else model.constants.get(value)
    rank = dims(node.outputs[0])
    if bias is None or signature is None or rank is None:
        return None
    product = model.numbering.of_expression(
        signature, [model.number(value) for value in node.inputs[:2]]
    )
    if not np.any(bias):
        return product
    # A single element stands for a scalar.
    shape = () if bias.size == 1 else channel_shape(len(rank))
    return model.make("Add", product, model.numbering.of_constant(bias.reshape(shape)))


def _along_axes(model: ProofModel, node: Node) -> int | None:
    position, sizes = operators.axes_input(node), dims(node.inputs[0])
    given = attribute(node, "axes", None)
    if position is not None and (value := input_of(node, position)) is not None:
        known = model.constants.get(value)
        if known is None:
            return None
        given = known.reshape(-1).tolist()
    if sizes is None or (not given and attribute(node, "noop_with_empty_axes", 0)):
        return None
    axes = sorted(int(axis) % len(sizes) for axis in given or range(len(sizes)))
    keep = int(attribute(node, "keepdims", 1))
    return model.make(node.op_type, model.number(node.inputs[0]), axes=tuple(axes), keep=keep)
