"""What hls4ml 1.3 refuses or computes wrongly in a QONNX file given to it as it is.

Measured with hls4ml 1.3.0: every rule cites what it says or does. Our own export rewrites or
refuses all of these constructs, so each remedy that can be is that export.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from onnx_ir import Model, Node, Value

from qonnx_hub_adapters.lint.finding import Finding, Severity, refused, wrong
from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.queries import (
    array,
    is_constant,
    is_weight,
    known,
    made_of_sizes,
    producer,
    quantizers,
    rank_of,
    readers,
)
from qonnx_hub_ir.quantizers import BipolarQuant, IntQuant, Rounding, is_power_of_two

EXPORT = "export with --to hls4ml, which does this"
_NEVER = "hls4ml has no layer for it; take it out of the model"

ACCEPTED = frozenset(
    {
        *("Add", "Average", "AveragePool", "BatchNormalization", "BipolarQuant", "Concat"),
        *("Conv", "Div", "Dropout", "Elu", "Flatten", "GlobalAveragePool", "GlobalMaxPool"),
        *("Identity", "IntQuant", "LeakyRelu", "MatMul", "Max", "MaxPool", "Min", "Mul"),
        *("PRelu", "Pad", "Quant", "Relu", "Reshape", "Resize", "Selu", "Sigmoid", "Softmax"),
        *("Softplus", "Softsign", "Sub", "Sum", "Tanh", "ThresholdedRelu", "Transpose"),
    }
)
"""Operators that hls4ml's ONNX frontend knows; it looks at the name only."""

_MENDED = frozenset({"Gemm", "ReduceMean", "Squeeze", "Unsqueeze", "Neg"})
"""Operators that it does not know, and that our export writes in those it knows."""

_MERGES = frozenset({"Add", "Concat", "Max", "Min", "Mul", "Sub", "Sum"})
_SPATIAL = frozenset({"Conv", "MaxPool", "AveragePool"})
_ROUNDING = frozenset({Rounding.ROUND, Rounding.FLOOR})


def find(model: Model) -> list[Finding]:
    """Return everything about an IR model that hls4ml does not take as it is."""
    found: list[Finding] = []
    for value in model.graph.inputs:
        found.extend(_input(value))
    folded = made_of_sizes(model)
    for node in model.graph:
        if node.outputs[0] in folded:
            continue
        for rule in _NODE_RULES:
            found.extend(rule(node))
        if node.op_type == "Reshape" and node.inputs[1] not in folded:
            found.extend(_target(node))
    for node in quantizers(model):
        for rule in _QUANTIZER_RULES:
            found.extend(rule(node))
    return found


def _input(value: Value) -> Iterator[Finding]:
    first = None if not value.shape else value.shape[0]
    name = str(value.name)
    if not isinstance(first, int):
        yield Finding(
            Severity.REFUSED,
            name,
            "input",
            "has a symbolic batch",
            "qonnx takes it for 0 and cannot infer shapes",
            EXPORT,
        )
    after = readers(value)
    if not any(dialect.is_quantizer(node) for node in after):
        yield Finding(
            Severity.NOTE,
            name,
            "input",
            "has no quantizer",
            "it gets the model's default type, fixed<16,6>: larger or finer values are cut",
            "give --target-option input_range.NAME=LOW,HIGH to --to hls4ml",
        )
    elif any(_exceeds_default(node) for node in after if dialect.is_quantizer(node)):
        yield Finding(
            Severity.WRONG,
            name,
            "input",
            "has a quantizer that needs more than the default type fixed<16,6>",
            "hls4ml gives the input its default type: values beyond it wrap around",
            EXPORT,
        )


def _exceeds_default(node: Node) -> bool:
    quant = known(node)
    if not isinstance(quant, IntQuant) or array(quant.bits).size != 1:
        return False
    largest = float(np.max(array(quant.scale))) * 2.0 ** (
        float(array(quant.bits).reshape(-1)[0]) - int(quant.signed)
    )
    return largest > 32 or float(np.min(array(quant.scale))) < 2.0**-10


def _operator(node: Node) -> Iterator[Finding]:
    op = node.op_type
    if op not in ACCEPTED:
        remedy = EXPORT if op in _MENDED else _NEVER
        yield refused(node, "is not known", "ERROR: Unsupported operation type", remedy)
    rank_in = rank_of(node.inputs[0]) if node.inputs else None
    first = op in _SPATIAL or (op == "BatchNormalization" and (rank_in or 0) > 2)
    if first and node.domain == "":
        yield refused(
            node,
            "works on channels-first data",
            "RuntimeError: Please convert the model to channels-last first",
            EXPORT,
        )
    if op in {"GlobalAveragePool", "GlobalMaxPool"} and node.domain == "":
        yield wrong(
            node,
            "stays channels-first when qonnx turns the rest",
            "parsed as channels-last: errors of 0.5 on values of 1",
            EXPORT,
        )


def _merge(node: Node) -> Iterator[Finding]:
    if node.op_type in _MERGES and len(node.inputs) > 2:
        effect = "Exception: two inputs only"
        yield refused(node, "merges more than two inputs", effect, _NEVER)
    if node.op_type == "Concat" and (rank_of(node.outputs[0]) or 0) > 4:
        yield refused(node, "joins more than three axes", "Exception: rank", _NEVER)
    if node.op_type == "Pad":
        value = dialect.constant_value(node.inputs[2]) if len(node.inputs) > 2 else None
        if value is not None and np.any(value != 0):
            yield refused(node, "pads with another number than 0", "Exception", _NEVER)


def _pool(node: Node) -> Iterator[Finding]:
    if node.op_type not in {"MaxPool", "AveragePool"}:
        return
    if rank_of(node.inputs[0]) == 3:
        yield wrong(
            node,
            "pools along one axis",
            "channels and width are swapped",
            "pool along two axes, one of size 1",
        )
    pads = node.attributes.get("pads")
    before = producer(node.inputs[0])
    quant = known(before) if before is not None and dialect.is_quantizer(before) else None
    unsigned = before is not None and before.op_type == "Relu"
    unsigned |= isinstance(quant, IntQuant) and not quant.signed
    if node.op_type == "MaxPool" and unsigned and pads is not None and any(pads.value):
        yield wrong(
            node,
            "pads unsigned values",
            "the padding is a large number, which wins against every pixel",
            EXPORT,
        )


def _region(node: Node) -> Iterator[Finding]:
    region = dialect.constant_value(node.inputs[1]) if len(node.inputs) > 1 else None
    if node.op_type == "Resize" and region is not None and region.size == 0:
        yield refused(
            node,
            "has an empty region of interest",
            "ValueError: The truth value of an empty array is ambiguous (numpy 2)",
            EXPORT,
        )


def _target(node: Node) -> Iterator[Finding]:
    if dialect.constant_tensor(node.inputs[1]) is None:
        yield refused(node, "has a target computed at run time", "Exception", _NEVER)


def _product(node: Node) -> Iterator[Finding]:
    if node.op_type != "MatMul":
        return
    left, right = node.inputs[:2]
    if is_constant(left):
        yield refused(
            node,
            "has its constant on the left",
            "IndexError: list index out of range",
            "transpose the product before export",
        )
    elif not is_constant(right):
        yield wrong(
            node,
            "multiplies two activations",
            "the layer emits no code: the output is whatever lay in memory",
            _NEVER,
        )
    if (rank_of(left) or 2) > 2:
        yield wrong(
            node,
            f"multiplies data of rank {rank_of(left)}",
            "the input's size is taken to be the product of all axes",
            "use a convolution of kernel 1",
        )
    before = producer(left)
    if before is not None and before.op_type == "Mul":
        yield refused(
            node,
            "follows a Mul",
            "RuntimeError: Unexpected new precision type: NamedType",
            EXPORT,
        )


def _norm_before_sign(node: Node) -> Iterator[Finding]:
    if node.op_type != "BatchNormalization":
        return
    gamma = dialect.constant_value(node.inputs[1])
    if not any(r.op_type == "BipolarQuant" for r in readers(node.outputs[0])):
        return
    if gamma is not None and np.any(gamma < 0):
        yield wrong(
            node,
            f"has {int(np.sum(gamma < 0))} negative scales before BipolarQuant",
            "both are merged into a threshold that forgets the sign",
            EXPORT,
        )
    else:
        yield wrong(
            node,
            "stands before BipolarQuant",
            "the merged threshold is rounded down, and binary weights behind it become 1",
            EXPORT,
        )


def _softmax(node: Node) -> Iterator[Finding]:
    if node.op_type == "Softmax":
        yield wrong(
            node,
            "is computed from tables",
            "with the default tables off by up to 0.7",
            "use --to hls4ml with --target-option softmax=skip, and apply it on the host",
        )


def _bias(node: Node) -> Iterator[Finding]:
    biases = list(node.inputs[2:3]) if node.op_type == "Conv" else []
    if node.op_type == "Add" and any(_is_product(v) for v in node.inputs):
        biases = list(node.inputs)
    for value in biases:
        made_by = producer(value)
        if made_by is None or not dialect.is_quantizer(made_by) or not is_weight(made_by):
            continue
        scale = getattr(known(made_by), "scale", None)
        if scale is not None and not is_power_of_two(scale):
            yield refused(
                node,
                "has a quantized bias whose scale is no power of two",
                "IndexError: list index out of range",
                EXPORT,
            )


def _is_product(value: Value | None) -> bool:
    made_by = producer(value)
    return made_by is not None and made_by.op_type in {"MatMul", "Conv"}


def _parameters(node: Node) -> Iterator[Finding]:
    if node.op_type in {"FloatQuant", "Trunc"}:
        yield refused(node, "is not known", "ERROR: Unsupported operation type", _NEVER)
        return
    if known(node) is None:
        yield refused(
            node,
            "has parameters computed at run time",
            "hls4ml reads scale, zero point and bit width from constants",
            "freeze the parameters",
        )


def _rounding(node: Node) -> Iterator[Finding]:
    quant = known(node)
    if isinstance(quant, IntQuant) and quant.rounding not in _ROUNDING:
        yield refused(
            node,
            f"rounds with {quant.rounding.value}",
            "NotImplementedError: only ROUND and FLOOR",
            "retrain with ROUND or FLOOR",
        )


def _zero_point(node: Node) -> Iterator[Finding]:
    quant = known(node)
    if not isinstance(quant, IntQuant) or not is_power_of_two(quant.scale):
        return
    if np.any(array(quant.zero_point) != 0):
        yield wrong(
            node,
            "has a zero point and a power-of-two scale",
            "the zero point is dropped: errors of 1 to 2 on values of 2",
            EXPORT,
        )


def _bits(node: Node) -> Iterator[Finding]:
    quant = known(node)
    if not isinstance(quant, IntQuant):
        return
    bits = array(quant.bits)
    if bits.size > 1:
        yield refused(node, "has several bit widths", "one bit width is read", _NEVER)
    elif quant.signed and np.any(bits == 1):
        yield wrong(
            node,
            "is signed with 1 bit",
            "the levels are -1 and 0 instead of -1 and +1: errors of 4",
            EXPORT,
        )


def _scale(node: Node) -> Iterator[Finding]:
    quant = known(node)
    if quant is None:
        return
    scale = array(quant.scale)
    varied = scale.size > 1 and np.any(scale != scale.reshape(-1)[0])
    after = readers(node.outputs[0])
    if is_weight(node):
        if varied and any(_reads_as_matrix(r) for r in after):
            yield refused(
                node,
                "has one scale per channel on the weight of a MatMul",
                "IndexError: list index out of range (layers.py)",
                EXPORT,
            )
        return
    if scale.size > 1:
        yield refused(
            node,
            "has one scale per channel on an activation",
            "ValueError: The truth value of an array is ambiguous",
            EXPORT,
        )
    elif scale.ndim > 1 and is_power_of_two(quant.scale):
        yield refused(
            node,
            f"has a scale of shape {scale.shape}",
            "TypeError: only length-1 arrays can be converted",
            EXPORT,
        )
    if isinstance(quant, IntQuant) and not is_power_of_two(quant.scale):
        yield from _odd_scale(node, after)


def _odd_scale(node: Node, after: list[Node]) -> Iterator[Finding]:
    source = node.inputs[0]
    others = [] if source is None else [r for r in readers(source) if r is not node]
    if others:
        yield wrong(
            node,
            "has no power-of-two scale and shares its input with another node",
            "its scaling is wired into the other branch: errors as large as the values",
            EXPORT,
        )
    elif len(after) > 1:
        yield wrong(
            node,
            "has no power-of-two scale and several readers",
            "its scaling reaches the first reader only: errors as large as the values",
            EXPORT,
        )


def _reads_as_matrix(reader: Node) -> bool:
    if reader.op_type == "Transpose":
        return any(r.op_type in {"MatMul", "Gemm"} for r in readers(reader.outputs[0]))
    return reader.op_type in {"MatMul", "Gemm"}


def _shared_weight(node: Node) -> Iterator[Finding]:
    if is_weight(node) and len(readers(node.outputs[0])) > 1:
        yield wrong(
            node,
            "is a weight of several layers",
            "one of them emits no code: the output is whatever lay in memory",
            EXPORT,
        )


def _bipolar_scale(node: Node) -> Iterator[Finding]:
    if isinstance(known(node), BipolarQuant) and any(
        value.is_graph_output() for value in node.outputs
    ):
        yield wrong(
            node,
            "is an output",
            "the output has the type of an exclusive-or gate: 0 and 1 stand for -1 and +1",
            "decode it as 2 * y - 1, or use --to hls4ml",
        )


_NODE_RULES: tuple[Callable[[Node], Iterator[Finding]], ...] = (
    _operator,
    _merge,
    _product,
    _pool,
    _region,
    _norm_before_sign,
    _softmax,
    _bias,
)
_QUANTIZER_RULES: tuple[Callable[[Node], Iterator[Finding]], ...] = (
    _parameters,
    _rounding,
    _zero_point,
    _bits,
    _scale,
    _shared_weight,
    _bipolar_scale,
)
