"""What FINN's conversion (ConvertQONNXtoFINN) refuses, leaves behind or computes wrongly.

FINN turns every activation quantizer into a MultiThreshold and every weight quantizer into
integers with a datatype. Each rule holds for FINN as of version 0.10 and the development
branch after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from onnx_ir import Model, Node

from qonnx_hub_adapters.lint.finding import Finding, Severity, of_model, refused, wrong
from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.queries import (
    array,
    is_constant,
    is_weight,
    known,
    moved_axes,
    producer,
    quantizers,
    rank_of,
    readers,
)
from qonnx_hub_ir.quantizers import BipolarQuant, FloatQuant, IntQuant, Rounding, Trunc

EXPORT = "export with --to qonnx --profile finn, which does this"

WEIGHT_READERS = frozenset(
    {"MatMul", "Conv", "Add", "Sub", "Mul", "Div", "Gather", "ConvTranspose", "Gemm"}
)
"""Operators through which FINN carries an integer weight."""

MOST_BITS = 8
"""Activation bits up to which FINN makes thresholds."""


def find(model: Model) -> list[Finding]:
    """Return everything about an IR model that FINN does not take as it is."""
    found: list[Finding] = []
    for rule in _MODEL_RULES:
        found.extend(rule(model))
    for node in quantizers(model):
        for node_rule in _QUANTIZER_RULES:
            found.extend(node_rule(node))
    for node in model.graph:
        for node_rule in _NODE_RULES:
            found.extend(node_rule(node))
    return found


def _batch(model: Model) -> Iterator[Finding]:
    for value in model.graph.inputs:
        first = None if not value.shape else value.shape[0]
        if first != 1:
            yield Finding(
                Severity.REFUSED,
                str(value.name),
                "input",
                f"has the batch {first}",
                "FINN's layers are generated for static shapes of one sample",
                EXPORT,
            )


def _only_bipolar(model: Model) -> Iterator[Finding]:
    names = {node.op_type for node in quantizers(model)}
    if names == {"BipolarQuant"}:
        yield of_model(
            Severity.NOTE,
            "holds no quantizer but BipolarQuant",
            "the builder's step_qonnx_to_finn does not know that name and skips the model",
            "call ConvertQONNXtoFINN before the builder",
        )


def _ties(model: Model) -> Iterator[Finding]:
    rounding = [
        n
        for n in quantizers(model)
        if isinstance(q := dialect.read_quantizer(n), IntQuant)
        and q.rounding is Rounding.ROUND
        and not is_weight(n)
    ]
    if rounding:
        yield of_model(
            Severity.NOTE,
            f"{len(rounding)} activation quantizers round ties to even",
            "MultiThreshold takes every tie upward: on exact ties FINN is one step above",
            "compare with FINN on inputs beside the ties, not on them",
        )


def _channels_last(node: Node) -> Iterator[Finding]:
    if node.domain == dialect.CHANNELS_LAST_DOMAIN:
        yield refused(
            node,
            "works on channels-last data",
            "FINN expects NCHW and standard operators here and lays out channels itself",
            EXPORT,
        )


def _zero_point(node: Node) -> Iterator[Finding]:
    quant = dialect.read_quantizer(node)
    zero = getattr(quant, "zero_point", None)
    if zero is not None and np.any(array(zero) != 0):
        yield refused(
            node,
            "has a zero point other than 0",
            "ValueError: Only Quant nodes with zero-point == 0 are supported",
            "train with symmetric quantizers; an exact rewriting does not exist",
        )


def _rounding(node: Node) -> Iterator[Finding]:
    quant = dialect.read_quantizer(node)
    if isinstance(quant, IntQuant) and quant.rounding is not Rounding.ROUND:
        yield wrong(
            node,
            f"rounds with {quant.rounding.value}",
            "FINN never reads rounding_mode and rounds to nearest",
            "retrain with ROUND, or express the mode with standard operators before Quant",
        )


def _parameters(node: Node) -> Iterator[Finding]:
    quant = dialect.read_quantizer(node)
    if isinstance(quant, FloatQuant):
        reason, effect = "is a minifloat", "no handler: the node stays in the graph"
        yield refused(node, reason, effect, "use integer quantizers")
    elif any(parameter is None for parameter in dialect.parameters(quant)):
        yield refused(
            node,
            "has parameters computed at run time",
            "thresholds are made of constants",
            "freeze scale, zero point and bit width",
        )
    elif isinstance(quant, IntQuant):
        yield from _bits(node, quant)


def _bits(node: Node, quant: IntQuant) -> Iterator[Finding]:
    bits = array(quant.bits)
    if bits.size > 1:
        yield refused(
            node, "has several bit widths", "one datatype per tensor", "use one bit width"
        )
    elif float(bits.reshape(-1)[0]) > MOST_BITS and not is_weight(node):
        yield refused(
            node,
            f"has {int(bits.reshape(-1)[0])} bits",
            f"more than {MOST_BITS} bits: a warning, and the node stays in the graph",
            f"quantize activations to at most {MOST_BITS} bits",
        )


def _activation(node: Node) -> Iterator[Finding]:
    if is_weight(node):
        return
    quant = known(node)
    before = producer(node.inputs[0])
    op = "the graph's input" if before is None else before.op_type
    if isinstance(quant, BipolarQuant):
        if np.any(array(quant.scale) != 1):
            yield refused(
                node,
                "is bipolar with a scale other than 1",
                "ValueError: only a scale of 1 is supported",
                EXPORT,
            )
        return
    if quant is None or (quant.signed and np.any(array(quant.bits) == 1)):
        return
    relu = before is not None and before.op_type == "Relu"
    if relu and (quant.signed or quant.narrow):
        yield refused(
            node,
            "follows a Relu and is signed or narrow",
            "ValueError: FINN expects an unsigned, not narrow Quant behind Relu",
            EXPORT if quant.signed else "use the full unsigned range",
        )
    elif not relu and not quant.signed:
        yield refused(
            node,
            f"is unsigned behind {op}",
            "ValueError: signed must be 1 behind anything but Relu",
            EXPORT,
        )


def _one_signed_bit(node: Node) -> Iterator[Finding]:
    quant = known(node)
    if isinstance(quant, IntQuant) and quant.signed and np.all(array(quant.bits) == 1):
        yield wrong(
            node,
            "is signed with 1 bit",
            "FINN takes the levels -1 and 0 of two's complement, not -1 and +1",
            EXPORT,
        )


def _moved(node: Node) -> Iterator[Finding]:
    if is_weight(node):
        return
    after = readers(node.outputs[0])
    shape = node.outputs[0].shape
    channels = shape is None or (len(shape) > 2 and shape[1] != 1)
    if channels and any(moved_axes(reader) for reader in after):
        yield refused(
            node,
            "is reshaped behind the quantizer",
            "MultiThreshold takes channels on axis 1 and fails on the new shape",
            EXPORT,
        )


def _weight(node: Node) -> Iterator[Finding]:
    if not is_weight(node):
        return
    after = readers(node.outputs[0])
    if len(after) > 1:
        yield refused(
            node,
            f"is read by {len(after)} nodes",
            "ValueError: a weight quantizer has one consumer",
            EXPORT,
        )
    for reader in after:
        if reader.op_type not in WEIGHT_READERS and not _is_turned_weight(reader):
            yield refused(
                node,
                f"is a weight read by {reader.op_type}",
                "weights are folded into " + ", ".join(sorted(WEIGHT_READERS)) + " only",
                "put the quantizer directly before the product",
            )
    yield from _weight_scale(node, after)


def _is_turned_weight(reader: Node) -> bool:
    """Return whether a Transpose of a weight leads to a product, as Brevitas writes it."""
    after = readers(reader.outputs[0]) if reader.op_type == "Transpose" else []
    return bool(after) and all(node.op_type in WEIGHT_READERS for node in after)


def _weight_scale(node: Node, after: list[Node]) -> Iterator[Finding]:
    quant = known(node)
    if quant is None or array(quant.scale).size == 1:
        return
    shape = array(quant.scale).shape
    rows = shape[-2] if len(shape) > 1 else 1
    for reader in after:
        if reader.op_type == "MatMul" and rows > 1:
            yield refused(
                node,
                "has one scale per row of a MatMul's weight",
                "an invalid graph: scales can only move behind the product per column",
                "use one scale per output channel",
            )


def _bias(node: Node) -> Iterator[Finding]:
    if node.op_type not in {"Conv", "Gemm", "ConvTranspose"} or len(node.inputs) < 3:
        return
    bias = node.inputs[2]
    made_by = producer(bias)
    if made_by is not None and dialect.is_quantizer(made_by):
        yield refused(
            node,
            "has a quantized bias",
            "extract_conv_bias: cannot reshape array of size 1",
            EXPORT,
        )


def _trunc(node: Node) -> Iterator[Finding]:
    quant = dialect.read_quantizer(node)
    if isinstance(quant, Trunc) and not _is_pool_trunc(node, quant):
        yield refused(
            node,
            "is no Trunc behind AveragePool and Mul",
            "only AveragePool (square) -> Mul by its window -> Trunc (FLOOR) is read",
            "use an average pool that truncates",
        )


def _is_pool_trunc(node: Node, quant: Trunc) -> bool:
    if quant.rounding is not Rounding.FLOOR:
        return False
    mul = producer(node.inputs[0])
    if mul is None or mul.op_type != "Mul":
        return False
    factors = [dialect.constant_value(value) for value in mul.inputs]
    pools = [producer(v) for v, f in zip(mul.inputs, factors, strict=True) if f is None]
    if len(pools) != 1 or pools[0] is None or pools[0].op_type != "AveragePool":
        return False
    pool = pools[0].attributes
    kernel = list(pool["kernel_shape"].value) if "kernel_shape" in pool else []
    strides = list(pool["strides"].value) if "strides" in pool else [1, 1]
    pads = list(pool["pads"].value) if "pads" in pool else [0]
    factor = next(f for f in factors if f is not None)
    square = len(kernel) == 2 and kernel[0] == kernel[1] and strides == kernel
    window = factor.ndim == 0 and bool(factor == kernel[0] ** 2)
    return square and not any(pads) and window


def _matmul(node: Node) -> Iterator[Finding]:
    if node.op_type != "MatMul" or node.domain != "":
        return
    if (rank_of(node.inputs[0]) or 2) > 2:
        yield refused(
            node,
            f"multiplies data of rank {rank_of(node.inputs[0])}",
            "MultiThreshold takes channels on axis 1; shapes of MatMul do not fit",
            "flatten to (1, features) before the product",
        )
    if not any(is_constant(value) for value in node.inputs):
        yield refused(
            node,
            "multiplies two activations",
            "FINN's matrix unit has one constant operand",
            "there is no layer for it",
        )


_QUANTIZER_RULES: tuple[Callable[[Node], Iterator[Finding]], ...] = (
    _parameters,
    _zero_point,
    _rounding,
    _one_signed_bit,
    _activation,
    _moved,
    _weight,
    _trunc,
)
_NODE_RULES: tuple[Callable[[Node], Iterator[Finding]], ...] = (_channels_last, _bias, _matmul)
_MODEL_RULES: tuple[Callable[[Model], Iterator[Finding]], ...] = (_batch, _only_bipolar, _ties)
