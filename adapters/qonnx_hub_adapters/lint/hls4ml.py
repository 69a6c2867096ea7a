"""What hls4ml 1.3 refuses or computes wrongly in a QONNX file given to it as it is.

Measured with hls4ml 1.3.0: every rule cites what it says or does. Our own export rewrites or
refuses all of these constructs, so each remedy that can be is that export.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx_ir import Model, Node, Value

from qonnx_hub_adapters.hls4ml.lowering import RULES as EXPORTED
from qonnx_hub_adapters.lint import pquantml
from qonnx_hub_adapters.lint.finding import Severity
from qonnx_hub_adapters.lint.rules import (
    ACTIVATIONS,
    INPUTS,
    INTEGERS,
    QUANTIZERS,
    WEIGHTS,
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
    reader_count,
    scale_of,
    single_shape,
    unknown_operators,
)
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.constants import known_integers
from qonnx_hub_ir.graph.queries import (
    array,
    attribute,
    input_of,
    is_constant,
    is_weight,
    known,
    made_of_sizes,
    producer,
    rank_of,
    readers,
)
from qonnx_hub_ir.operators import Pool
from qonnx_hub_ir.quantizers import BipolarQuant, Rounding, is_power_of_two

EXPORT = "export with --to hls4ml, which does this"
_NEVER = "hls4ml has no layer for it; take it out of the model"

ACCEPTED = operators.read_lists(
    """
    accepted: Add Average AveragePool BatchNormalization BipolarQuant Concat Conv Div Dropout
        Elu Flatten GlobalAveragePool GlobalMaxPool Identity IntQuant LeakyRelu MatMul Max
        MaxPool Min Mul PRelu Pad Quant Relu Reshape Resize Selu Sigmoid Softmax Softplus
        Softsign Sub Sum Tanh ThresholdedRelu Transpose
    """
)["accepted"]
"""Operators that hls4ml's ONNX frontend knows; it looks at the name only."""


def _data_nodes(model: Model) -> Iterator[Node]:
    """Yield the nodes that compute more than sizes, which any cleanup folds."""
    folded = made_of_sizes(model)
    return (node for node in model.graph if node.outputs[0] not in folded)


def _computed_targets(model: Model) -> Iterator[Node]:
    """Yield each Reshape whose target no cleanup folds."""
    folded = made_of_sizes(model)
    reshapes = (n for n in _data_nodes(model) if n.op_type == "Reshape")
    return (node for node in reshapes if node.inputs[1] not in folded)


def _is_written(node: Node) -> bool:
    """Return whether our export writes an operator of which hls4ml does not know the name."""
    not_known = node.op_type not in ACCEPTED and not dialect.is_quantizer(node)
    return not_known and node.op_type in EXPORTED


def _input_quantizers(value: Value) -> list[Node]:
    return [node for node in readers(value) if dialect.is_quantizer(node)]


def _exceeds_default(node: Node) -> bool:
    quant, scale = integer_quantizer(node), scale_of(node)
    if quant is None or array(quant.bits).size != 1:
        return False
    largest = scale.max() * 2.0 ** (array(quant.bits).item() - int(quant.signed))
    return bool(largest > 32 or scale.min() < 2.0**-10)


def _is_channels_first(node: Node) -> bool:
    if not operators.has_channels_last_form(node):
        return False
    rank = rank_of(node.inputs[0]) if node.inputs else None
    return not operators.is_per_channel(node) or (rank or 0) > 2


def _pads_unsigned(node: Node) -> bool:
    before = producer(node.inputs[0])
    if before is None or not any(attribute(node, "pads", ())):
        return False
    quant = integer_quantizer(before) if dialect.is_quantizer(before) else None
    return before.op_type == "Relu" or (quant is not None and not quant.signed)


def _precedes_sign(node: Node) -> bool:
    return any(one.op_type == "BipolarQuant" for one in readers(node.outputs[0]))


def _negative_scales(node: Node) -> int:
    gamma = dialect.constant_value(node.inputs[1])
    return 0 if gamma is None or not _precedes_sign(node) else int(np.sum(gamma < 0))


def _odd_biases(node: Node) -> list[str]:
    """Return the names of quantized biases whose scale is no power of two."""
    makers = [maker for value in node.inputs if (maker := producer(value)) is not None]
    if node.op_type == "Conv":
        makers = [maker for maker in makers if maker is producer(input_of(node, 2))]
    elif node.op_type != "Add" or not any(
        one.op_type in ACCEPTED and operators.is_product(one, any_layout=True)
        for one in makers
    ):
        return []
    quantized = [n for n in makers if dialect.is_quantizer(n) and is_weight(n)]
    return [str(n.name) for n in quantized if not is_power_of_two(scale_of(n))]


def _has_matrix_channels(node: Node) -> bool:
    """Return whether scales differ within a weight that a matrix product reads.

    Also through a Transpose.
    """
    scale = scale_of(node)
    after = readers(node.outputs[0])
    ends = [e for n in after if n.op_type == "Transpose" for e in readers(n.outputs[0])]
    matrix = any(operators.is_matrix_product(reader) for reader in (*after, *ends))
    return matrix and bool(np.any(scale != scale.reshape(-1)[0]))


def _shares_input(node: Node) -> bool:
    source = node.inputs[0]
    return source is not None and any(one is not node for one in readers(source))


_REFUSED, _WRONG = Severity.REFUSED, Severity.WRONG
_NODES = LintScope("any node", _data_nodes)
_REWRITTEN = LintScope("operators that our export rewrites", _data_nodes, _is_written)
_SPATIAL = LintScope("channels-first operators", _data_nodes, _is_channels_first)
_POOLS = LintScope(
    "MaxPool, AveragePool",
    _data_nodes,
    lambda n: (
        operators.pool_of(n, any_layout=True) in (Pool.MAX, Pool.AVERAGE)
        and not operators.is_global_pool(n)
    ),
)
_GLOBAL_POOLS = LintScope("global pools", _data_nodes, operators.is_global_pool)
_ODD = LintScope(
    "activations whose scale is no power of two",
    ACTIVATIONS.places,
    lambda node: (
        ACTIVATIONS.holds(node)
        and integer_quantizer(node) is not None
        and scale_of(node).size == 1
        and not is_power_of_two(scale_of(node))
    ),
)
_UNKNOWN = "ERROR: Unsupported operation type"


def _at(name: str) -> LintScope:
    return operator(name, _data_nodes)


TARGET = LintTarget(
    "hls4ml 1.3: its ONNX frontend",
    remedy=EXPORT,
    file_rules=pquantml.RULES,
    rules=(
        LintRule(
            *(_REFUSED, INPUTS),
            lambda value: not value.shape or not isinstance(value.shape[0], int),
            "has a symbolic batch",
            "qonnx takes it for 0 and cannot infer shapes",
        ),
        LintRule(
            *(Severity.NOTE, INPUTS, lambda value: not _input_quantizers(value)),
            "has no quantizer",
            "hls4ml gives it the model's default type, fixed<16,6>, and cuts larger or finer "
            "values; a folder of --to hls4ml has fixed<32,16,RND,SAT>",
            "give --target-option input_range.NAME=LOW,HIGH to --to hls4ml",
        ),
        LintRule(
            *(_WRONG, INPUTS, lambda v: any(map(_exceeds_default, _input_quantizers(v)))),
            "has a quantizer that needs more than the default type fixed<16,6>",
            "hls4ml gives the input its default type: values beyond it wrap around",
        ),
        LintRule(*(_REFUSED, _REWRITTEN, anywhere), "is not known", _UNKNOWN),
        unknown_operators(
            lambda node: node.op_type in ACCEPTED or _is_written(node),
            _data_nodes,
            severity=_REFUSED,
            reason="is not known",
            effect=_UNKNOWN,
            remedy=_NEVER,
        ),
        LintRule(
            *(_REFUSED, _SPATIAL, anywhere, "works on channels-first data"),
            "RuntimeError: Please convert the model to channels-last first",
        ),
        LintRule(
            *(_WRONG, _GLOBAL_POOLS, lambda node: not node.domain),
            "stays channels-first when qonnx transposes the rest",
            "parsed as channels-last: errors of 0.5 on values of 1",
        ),
        LintRule(
            *(_REFUSED, _NODES),
            lambda n: (
                n.op_type in ACCEPTED
                and operators.of(n).inputs.is_variadic
                and len(n.inputs) > 2
            ),
            "merges more than two inputs",
            "Exception: two inputs only",
            _NEVER,
        ),
        LintRule(
            *(_REFUSED, _at("Concat"), lambda node: (rank_of(node.outputs[0]) or 0) > 4),
            "joins more than three axes",
            "Exception: rank",
            _NEVER,
        ),
        LintRule(
            *(_REFUSED, _at("Pad"), inserts_numbers, "pads with another number than 0"),
            "Exception",
            _NEVER,
        ),
        LintRule(
            *(_REFUSED, _at("MatMul"), lambda node: is_constant(node.inputs[0])),
            "has its constant on the left",
            "IndexError: list index out of range",
            "transpose the product before export",
        ),
        LintRule(
            *(_WRONG, _at("MatMul"), has_no_constant),
            "multiplies two activations",
            "the layer emits no code: the output is whatever lay in memory",
            _NEVER,
        ),
        LintRule(
            *(_WRONG, _at("MatMul"), high_rank, "multiplies data of rank {}"),
            "the input's size is taken to be the product of all axes",
            "use a convolution of kernel 1",
        ),
        LintRule(
            *(_REFUSED, _at("MatMul"), lambda node: follows(node, "Mul"), "follows a Mul"),
            "RuntimeError: Unexpected new precision type: NamedType",
        ),
        LintRule(
            *(_WRONG, _POOLS, lambda node: rank_of(node.inputs[0]) == 3),
            "pools along one axis",
            "channels and width are swapped",
            "pool along two axes, one of size 1",
        ),
        LintRule(
            *(_WRONG, _at("MaxPool"), _pads_unsigned, "pads unsigned values"),
            "the padding is a large number, which wins against every pixel",
        ),
        LintRule(
            *(_REFUSED, _at("Resize"), lambda node: known_integers(input_of(node, 1)) == []),
            "has an empty region of interest",
            "ValueError: The truth value of an empty array is ambiguous (numpy 2)",
        ),
        LintRule(
            *(_WRONG, _at("BatchNormalization"), _negative_scales),
            "has {} negative scales before BipolarQuant",
            "both are merged into a threshold that forgets the sign",
        ),
        LintRule(
            *(_WRONG, _at("BatchNormalization")),
            lambda node: _precedes_sign(node) and not _negative_scales(node),
            "stands before BipolarQuant",
            "the merged threshold is rounded down, and binary weights behind it become 1",
        ),
        LintRule(
            *(_WRONG, _at("Softmax"), anywhere, "is computed from tables"),
            "with the default tables off by up to 0.7",
            "use --to hls4ml with --target-option softmax=skip, and apply it on the host",
        ),
        LintRule(
            *(_REFUSED, _NODES, _odd_biases),
            "has a quantized bias whose scale is no power of two",
            "IndexError: list index out of range",
        ),
        LintRule(
            *(_REFUSED, LintScope("Reshape", _computed_targets)),
            lambda node: dialect.constant_tensor(node.inputs[1]) is None,
            "has a target computed at run time",
            "Exception",
            _NEVER,
        ),
        LintRule(
            *(_REFUSED, QUANTIZERS),
            lambda node: operators.is_uniform_quantizer(node) and known(node) is None,
            "has parameters computed at run time",
            "hls4ml reads scale, zero point and bit width from constants",
            "freeze the parameters",
        ),
        LintRule(
            *(_REFUSED, INTEGERS),
            lambda node: other_rounding(node, Rounding.ROUND, Rounding.FLOOR),
            "rounds with {}",
            "NotImplementedError: only ROUND and FLOOR",
            "retrain with ROUND or FLOOR",
        ),
        LintRule(
            *(_WRONG, INTEGERS),
            lambda n: is_power_of_two(scale_of(n)) and bool(constants_of(n).zero_point.any()),
            "has a zero point and a power-of-two scale",
            "the zero point is dropped: errors of 1 to 2 on values of 2",
        ),
        LintRule(
            *(_WRONG, INTEGERS, lambda node: constants_of(node).zero_point_after_rounding),
            "adds its zero point after rounding, as QuantizeLinear does",
            "hls4ml adds it before, and ties fall to other codes",
        ),
        LintRule(
            *(_REFUSED, INTEGERS, has_several_widths, "has several bit widths"),
            "one bit width is read",
            _NEVER,
        ),
        LintRule(
            *(_WRONG, INTEGERS, is_one_signed_bit, "is signed with 1 bit"),
            "the levels are -1 and 0 instead of -1 and +1: errors of 4",
        ),
        LintRule(
            *(_REFUSED, WEIGHTS, _has_matrix_channels),
            "has one scale per channel on the weight of a MatMul",
            "IndexError: list index out of range (layers.py)",
        ),
        LintRule(
            *(_REFUSED, ACTIVATIONS, lambda node: scale_of(node).size > 1),
            "has one scale per channel on an activation",
            "ValueError: The truth value of an array is ambiguous",
        ),
        LintRule(
            *(_REFUSED, ACTIVATIONS),
            lambda n: is_power_of_two(scale_of(n)) and single_shape(scale_of(n)),
            "has a scale of shape {}",
            "TypeError: only length-1 arrays can be converted",
        ),
        LintRule(
            *(_WRONG, _ODD, _shares_input),
            "has no power-of-two scale and shares its input with another node",
            "its scaling is wired into the other branch: errors as large as the values",
        ),
        LintRule(
            *(_WRONG, _ODD, lambda node: bool(reader_count(node)) and not _shares_input(node)),
            "has no power-of-two scale and several readers",
            "its scaling reaches the first reader only: errors as large as the values",
        ),
        LintRule(
            *(_WRONG, WEIGHTS, reader_count, "is a weight of several layers"),
            "one of them emits no code: the output is whatever lay in memory",
        ),
        LintRule(
            *(_WRONG, QUANTIZERS),
            lambda n: n.outputs[0].is_graph_output() and isinstance(known(n), BipolarQuant),
            "is an output",
            "the output has the type of an exclusive-or gate: 0 and 1 stand for -1 and +1",
            "decode it as 2 * y - 1, or use --to hls4ml",
        ),
    ),
)
