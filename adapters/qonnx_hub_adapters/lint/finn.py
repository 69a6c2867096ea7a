"""What FINN's conversion (ConvertQONNXtoFINN) refuses, leaves behind or computes wrongly.

FINN turns every activation quantizer into a MultiThreshold and every weight quantizer into
integers with a datatype. Rules hold for FINN 0.10 and the development branch after it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from onnx_ir import Model, Node, Value

from qonnx_hub_adapters.lint import pquantml
from qonnx_hub_adapters.lint.finding import Severity
from qonnx_hub_adapters.lint.rules import (
    ACTIVATIONS,
    INPUTS,
    INTEGERS,
    MODEL,
    NODES,
    QUANTIZERS,
    WEIGHTS,
    Answer,
    LintRule,
    LintScope,
    LintTarget,
    anywhere,
    constants_of,
    follows,
    has_no_constant,
    has_several_widths,
    high_rank,
    inserts_numbers,
    integer_quantizer,
    is_one_signed_bit,
    operator,
    other_rounding,
    quantizer_nodes,
    reader_count,
    scale_of,
    unknown_operators,
)
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.queries import (
    array,
    attribute,
    input_of,
    is_constant,
    is_standard,
    is_weight,
    producer,
    rank_of,
    readers,
)
from qonnx_hub_ir.graph.subgraphs import every_node
from qonnx_hub_ir.quantizers import IntQuant, Rounding, Trunc

EXPORT = "export with --to qonnx --profile finn, which does this"

MOST_BITS = 8
"""Activation bits up to which FINN makes thresholds."""

FINN = operators.read_lists(
    """
    weights: Add Conv ConvTranspose Div Gather Gemm MatMul Mul Sub
    deleted: Relu Selu
    layers: AveragePool BatchNormalization Concat Constant Dropout Flatten GlobalAveragePool
        Identity Im2Col MaxPool MultiThreshold Pad Relu Reshape Resize Selu Shape Split Squeeze
        TopK Transpose Unsqueeze Upsample
    """
)
"""What FINN carries integer weights through; activations that it makes one with the quantizer
behind, and deletes; further operators that have a layer, or are moved out of the way."""


def _takes(node: Node) -> bool:
    """Return whether FINN's conversion knows a node, or quantizers' rules do."""
    return dialect.is_quantizer(node) or node.op_type in FINN["weights"] | FINN["layers"]


def _batch(value: Value) -> Answer:
    first = None if not value.shape else value.shape[0]
    return (first,) if first != 1 else False


def _ties(model: Model) -> int:
    quants = [dialect.read_quantizer(n) for n in quantizer_nodes(model) if not is_weight(n)]
    return sum(isinstance(q, IntQuant) and q.rounding is Rounding.ROUND for q in quants)


def _bits_beyond(most: int) -> Callable[[Node], int]:
    """Return a test for the bits of an activation that gets no thresholds."""

    def beyond(node: Node) -> int:
        quant = integer_quantizer(node)
        if quant is None or array(quant.bits).size != 1:
            return 0
        bits = array(quant.bits).item()
        return int(bits) if bits > most else 0

    return beyond


def _has_zero_point(node: Node) -> bool:
    zero = getattr(dialect.read_quantizer(node), "zero_point", None)
    return zero is not None and bool(np.any(array(zero) != 0))


def _pads_zero_point(node: Node) -> bool:
    """Return whether a node pads what a quantizer with a zero point made."""
    if operators.is_opaque(node) or operators.is_max_pool(node):
        return False
    if not any(attribute(node, "pads", ())):
        return False
    before = producer(node.inputs[0])
    while before is not None and (
        operators.moves_first(before) or operators.is_max_pool(before)
    ):
        before = producer(before.inputs[0])
    if before is not None and dialect.is_quantizer(before):
        return _has_zero_point(before)
    steps = []
    while before is not None and is_standard(before, "Mul", "Sub"):
        steps.append(before.op_type)
        before = producer(before.inputs[0])
    return before is not None and dialect.is_thresholds(before) and "Sub" in steps


def _levels(node: Node) -> IntQuant | None:
    """Return the integer quantizer of an activation, unless it is of one signed bit."""
    quant = integer_quantizer(node)
    if quant is None or (quant.signed and np.any(array(quant.bits) == 1)):
        return None
    return quant


def _is_partial_behind_relu(node: Node) -> bool:
    quant = None if is_weight(node) else _levels(node)
    return quant is not None and follows(node, "Relu") and (quant.signed or quant.narrow)


def _unsigned_behind(node: Node) -> str:
    quant, before = _levels(node), producer(node.inputs[0])
    if quant is None or quant.signed or follows(node, "Relu"):
        return ""
    return "the graph's input" if before is None else before.op_type


def _is_reshaped(node: Node) -> bool:
    shape = node.outputs[0].shape
    channels = shape is None or (len(shape) > 2 and shape[1] != 1)
    return channels and any(operators.reshapes(one) for one in readers(node.outputs[0]))


def _foreign_readers(node: Node) -> list[str]:
    """Return the operators that read a weight and do not fold it.

    A Transpose of a weight that leads to a product does, as Brevitas writes it.
    """
    found = []
    for reader in readers(node.outputs[0]):
        behind = readers(reader.outputs[0]) if reader.op_type == "Transpose" else []
        ends = behind or [reader]
        if not all(end.op_type in FINN["weights"] for end in ends):
            found.append(reader.op_type)
    return found


def _row_scales(node: Node) -> list[str]:
    """Return an entry for each MatMul that reads a weight with one scale per row."""
    shape = scale_of(node).shape
    by_row = len(shape) > 1 and shape[-2] > 1
    return [n.op_type for n in readers(node.outputs[0]) if by_row and n.op_type == "MatMul"]


def _is_pool_trunc(node: Node) -> bool:
    quant, mul = dialect.read_quantizer(node), producer(node.inputs[0])
    if not isinstance(quant, Trunc) or quant.rounding is not Rounding.FLOOR:
        return False
    if mul is not None and mul.op_type == "AveragePool" and quant.version > 1:
        return _truncates_sums(quant, mul)
    if mul is None or mul.op_type != "Mul":
        return False
    factors = [dialect.constant_value(value) for value in mul.inputs]
    pools = [producer(v) for v, f in zip(mul.inputs, factors, strict=True) if f is None]
    if len(pools) != 1 or pools[0] is None or pools[0].op_type != "AveragePool":
        return False
    factor = next(f for f in factors if f is not None)
    return factor.ndim == 0 and bool(factor == _square_window(pools[0]))


def _square_window(pool: Node) -> int:
    """Return how many elements a pool averages; 0 unless windows are square, side by side."""
    kernel = list(attribute(pool, "kernel_shape", ()))
    strides = list(attribute(pool, "strides", (1, 1)))
    square = len(kernel) == 2 and kernel[0] == kernel[1] and strides == kernel
    padded = any(attribute(pool, "pads", (0,))) or attribute(
        pool, "auto_pad", "NOTSET"
    ) not in (
        "NOTSET",
        "VALID",
    )
    spread = any(d != 1 for d in attribute(pool, "dilations", ()))
    plain = square and not padded and not spread and not attribute(pool, "ceil_mode", 0)
    return kernel[0] ** 2 if plain else 0


def _truncates_sums(quant: Trunc, pool: Node) -> bool:
    """Return whether a Trunc of version 2 drops low bits of the sums that a pool averages.

    FINN takes the sums of codes, and shifts them by the difference of the two bit widths.
    """
    before, window = producer(pool.inputs[0]), _square_window(pool)
    source = None if before is None else integer_quantizer(before)
    if source is None or not window or np.any(array(quant.zero_point)):
        return False
    numbers = (quant.scale, quant.out_scale, quant.in_bits, quant.out_bits)
    scale, out_scale, in_bits, out_bits = (array(one) for one in numbers)
    given_scale, given_bits = array(source.scale), array(source.bits)
    if any(one.size != 1 for one in (scale, out_scale, in_bits, out_bits, given_scale)):
        return False
    if np.any(array(source.zero_point)) or given_bits.size != 1:
        return False
    shift, largest = float(in_bits.item() - out_bits.item()), 2 ** int(given_bits.item()) - 1
    is_shift = shift >= 0 and out_scale.item() == scale.item() * 2.0**shift
    is_sum = np.float32(given_scale.item()) == np.float32(scale.item()) * np.float32(window)
    return is_shift and is_sum and in_bits.item() == (largest * window).bit_length()


def _shares_relu(node: Node) -> bool:
    """Return whether a quantizer reads a Relu or Selu that something else reads too."""
    before = producer(node.inputs[0])
    if before is None or before.op_type not in FINN["deleted"] or before.domain:
        return False
    out = before.outputs[0]
    return out.is_graph_output() or len(out.uses()) > 1


def _read_twice(node: Node) -> list[str]:
    """Return the computed values that a node reads at more than one place."""
    data = [v for v in node.inputs if v is not None and not is_constant(v)]
    return [str(value.name) for value in dict.fromkeys(data) if data.count(value) > 1]


def _adds_input(node: Node) -> bool:
    """Return whether a node adds an input of the graph to what a quantizer reads next."""
    if node.op_type != "Add" or node.domain or any(is_constant(v) for v in node.inputs):
        return False
    behind = readers(node.outputs[0])
    while len(behind) == 1 and behind[0].op_type == "Relu":
        behind = readers(behind[0].outputs[0])
    reads_input = any(v is not None and v.is_graph_input() for v in node.inputs)
    return (
        reads_input
        and len(behind) == 1
        and (dialect.is_quantizer(behind[0]) or dialect.is_thresholds(behind[0]))
    )


def _rank_beyond(most: int) -> Callable[[Node], int]:
    """Return a test for the rank of what a node reads."""

    def beyond(node: Node) -> int:
        rank = rank_of(node.inputs[0]) if node.inputs else None
        return rank if rank is not None and rank > most else 0

    return beyond


def quantized_bias(node: Node) -> Node | None:
    """Return the quantizer that makes a layer's bias, if one does."""
    position = operators.bias_input(node)
    maker = None if position is None else producer(input_of(node, position))
    return maker if maker is not None and dialect.is_quantizer(maker) else None


_REFUSED, _WRONG, _NOTE = Severity.REFUSED, Severity.WRONG, Severity.NOTE
_BEHIND_RELU = replace(
    ACTIVATIONS,
    name="activation quantizers behind a Relu, signed or narrow",
    holds=_is_partial_behind_relu,
)
_RECURRENT = replace(NODES, name="LSTM, GRU, RNN", holds=operators.is_recurrent)
_MATMUL = replace(operator("MatMul"), holds=lambda n: n.op_type == "MatMul" and not n.domain)
_MINIFLOATS = replace(QUANTIZERS, name="FloatQuant", holds=lambda n: n.op_type == "FloatQuant")
_TRUNCS = replace(QUANTIZERS, name="Trunc", holds=lambda node: node.op_type == "Trunc")
_ALIASES = LintScope(
    "other names of Quant", every_node, lambda node: node.op_type in dialect.OPERATOR_ALIASES
)


def _of_bits(most: int) -> LintRule:
    """Return the rule of activations with more bits than FINN is told to take."""
    return LintRule(
        *(_REFUSED, ACTIVATIONS, _bits_beyond(most), "has {} bits"),
        f"more than {most} bits: a warning, and the node stays in the graph",
        f"quantize activations to at most {most} bits, or export with --target-option "
        "max_bits=16 and give FINN's conversion that max_multithreshold_bit_width",
    )


_OF_BITS = _of_bits(MOST_BITS)

TARGET = LintTarget(
    "FINN 0.10: ConvertQONNXtoFINN",
    remedy=EXPORT,
    file_rules=(
        LintRule(
            *(_REFUSED, _ALIASES, lambda node: node.op_type, "is called {}"),
            "FINN looks for Quant by name and leaves the node in the graph",
        ),
        *pquantml.RULES,
    ),
    rules=(
        LintRule(
            *(_REFUSED, INPUTS, _batch, "has the batch {}"),
            "FINN's layers are generated for static shapes of one sample",
        ),
        LintRule(
            *(_NOTE, MODEL),
            lambda m: {node.op_type for node in quantizer_nodes(m)} == {"BipolarQuant"},
            "holds no quantizer but BipolarQuant",
            "the builder's step_qonnx_to_finn does not know that name and skips the model",
            "call ConvertQONNXtoFINN before the builder",
        ),
        LintRule(
            *(_NOTE, MODEL, _ties, "{} activation quantizers round ties to even"),
            "MultiThreshold takes every tie upward: on exact ties FINN is one step above",
            "compare with FINN on inputs beside the ties, not on them",
        ),
        LintRule(
            *(_REFUSED, _MINIFLOATS, anywhere, "is a minifloat"),
            "no handler: the node stays in the graph",
            "use integer quantizers",
        ),
        LintRule(
            *(_REFUSED, replace(QUANTIZERS, holds=lambda n: n.op_type != "FloatQuant")),
            lambda n: any(dialect.constant_tensor(one) is None for one in n.inputs[1:]),
            "has parameters computed at run time",
            "thresholds are made of constants",
            "freeze scale, zero point and bit width",
        ),
        LintRule(
            *(_REFUSED, INTEGERS, has_several_widths, "has several bit widths"),
            "one datatype per tensor",
            "use one bit width",
        ),
        _OF_BITS,
        LintRule(
            *(_REFUSED, QUANTIZERS, _has_zero_point, "has a zero point other than 0"),
            "ValueError: Only Quant nodes with zero-point == 0 are supported",
            "export with --to qonnx --profile finn, which writes thresholds, a Sub and a Mul; "
            "or make the net fit: qonnx-hub transform --pass symmetrize",
        ),
        LintRule(
            *(_NOTE, NODES, _pads_zero_point, "pads data with a zero point"),
            "what is padded is the code of 0: the Sub of the zero point stays in front of the "
            "layer, and does not become hardware",
            "qonnx-hub transform --pass symmetrize, before the export",
        ),
        LintRule(
            *(_WRONG, NODES, inserts_numbers, "pads with another number than 0"),
            *("Streamline moves scales past it, and scales the number as well", "pad with 0"),
        ),
        LintRule(
            *(_WRONG, QUANTIZERS, lambda n: other_rounding(n, Rounding.ROUND)),
            "rounds with {}",
            "FINN never reads rounding_mode and rounds to nearest",
            "retrain with ROUND, or express the mode with standard operators before Quant",
        ),
        LintRule(
            *(_WRONG, INTEGERS, is_one_signed_bit, "is signed with 1 bit"),
            "FINN takes the levels -1 and 0 of two's complement, not -1 and +1",
        ),
        LintRule(
            *(_REFUSED, ACTIVATIONS),
            lambda n: n.op_type == "BipolarQuant" and bool(np.any(scale_of(n) != 1)),
            "is bipolar with a scale other than 1",
            "ValueError: only a scale of 1 is supported",
        ),
        LintRule(
            *(_WRONG, ACTIVATIONS, _shares_relu),
            "reads a Relu or Selu that something else reads too",
            "FINN makes one step of both and deletes the function: other readers get data "
            "that was not clipped",
        ),
        LintRule(
            *(_WRONG, ACTIVATIONS),
            lambda n: (
                n.op_type == "BipolarQuant" and any(follows(n, one) for one in FINN["deleted"])
            ),
            "is bipolar behind a Relu or Selu",
            "FINN makes 0 and 1 of it, not -1 and +1",
            "drop the function in front, or use an unsigned quantizer",
        ),
        LintRule(
            *(_REFUSED, _BEHIND_RELU, lambda node: constants_of(node).signed),
            "follows a Relu and is signed or narrow",
            "ValueError: FINN expects an unsigned, not narrow Quant behind Relu",
        ),
        LintRule(
            *(_REFUSED, _BEHIND_RELU, lambda node: not constants_of(node).signed),
            "follows a Relu and is signed or narrow",
            "ValueError: FINN expects an unsigned, not narrow Quant behind Relu",
            "use the full unsigned range",
        ),
        LintRule(
            *(_REFUSED, ACTIVATIONS, _unsigned_behind, "is unsigned behind {}"),
            "ValueError: signed must be 1 behind anything but Relu",
        ),
        LintRule(
            *(_REFUSED, ACTIVATIONS, _is_reshaped, "is reshaped behind the quantizer"),
            "MultiThreshold takes channels on axis 1 and fails on the new shape",
        ),
        LintRule(
            *(_REFUSED, WEIGHTS, reader_count, "is read by {} nodes"),
            "ValueError: a weight quantizer has one consumer",
        ),
        LintRule(
            *(_REFUSED, WEIGHTS, _foreign_readers, "is a weight read by {}"),
            f"weights are folded into {', '.join(sorted(FINN['weights']))} only",
            "put the quantizer directly before the product",
        ),
        LintRule(
            *(_REFUSED, WEIGHTS, _row_scales, "has one scale per row of a MatMul's weight"),
            "an invalid graph: scales can only move behind the product per column",
            "use one scale per output channel",
        ),
        LintRule(
            *(_REFUSED, _TRUNCS, lambda node: not _is_pool_trunc(node)),
            "is no Trunc of the sums of a square AveragePool",
            "only a pool over codes (square, side by side, no pads) -> Trunc (FLOOR) is read",
            "use an average pool that truncates",
        ),
        LintRule(
            *(_REFUSED, NODES, lambda n: n.domain == dialect.CHANNELS_LAST_DOMAIN),
            "works on channels-last data",
            "FINN expects NCHW and standard operators here and lays out channels itself",
        ),
        LintRule(
            *(_REFUSED, NODES, lambda node: quantized_bias(node) is not None),
            "has a quantized bias",
            "extract_conv_bias: cannot reshape array of size 1",
        ),
        LintRule(
            *(_NOTE, _MATMUL, high_rank, "multiplies data of rank {}"),
            "finn-plus converts it; FINN 0.10 takes channels on axis 1",
            "flatten to (1, features) before the product",
        ),
        LintRule(
            *(_NOTE, _MATMUL, has_no_constant),
            "multiplies two activations",
            "FINN's matrix unit has one constant operand: the node stays in the graph",
            "leave it to the host",
        ),
        LintRule(
            *(_REFUSED, NODES, _read_twice, "reads {} twice"),
            "where qonnx cleans a file up it renames one of the two, and loses the other",
            "compute one of the two by a node of its own",
        ),
        LintRule(
            *(_REFUSED, NODES, _adds_input, "adds an input of the graph, then is quantized"),
            "AssertionError: Initializer for add weights is not set (Streamline takes what no "
            "node makes for a constant)",
            "quantize the input first",
        ),
        LintRule(
            *(_REFUSED, MODEL, lambda model: not len(model.graph), "holds no node"),
            "IndexError: list index out of range, when the model is run",
            "what does not depend on the inputs needs no hardware",
        ),
        LintRule(
            *(_REFUSED, NODES, _rank_beyond(4), "reads data of rank {}"),
            "Unknown number of dims",
            "flatten, or drop an axis",
        ),
        LintRule(
            *(_REFUSED, _RECURRENT, lambda node: node.op_type, "is {}"),
            "weights are not folded into it, and there is no layer",
            "leave it to the host",
        ),
        unknown_operators(
            lambda node: _takes(node) or node.domain not in dialect.STANDARD_DOMAINS,
            severity=_NOTE,
            reason="is no operator that FINN 0.10 converts",
            effect="the node stays in the graph, and a build needs a layer for it",
            remedy="leave it to the host, or give FINN a layer",
        ),
        unknown_operators(
            lambda node: _takes(node) or node.domain in dialect.STANDARD_DOMAINS
        ),
    ),
)


def rules_for(most_bits: int) -> tuple[LintRule, ...]:
    """Return the rules of a conversion that makes thresholds of so many bits at most."""
    return tuple(_of_bits(most_bits) if one is _OF_BITS else one for one in TARGET.rules)
