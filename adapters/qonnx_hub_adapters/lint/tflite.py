"""What a TFLite file cannot say of a model, or says with more operators or roundings."""

from __future__ import annotations

import numpy as np
from onnx_ir import Model, Node

from qonnx_hub_adapters.lint.finding import Severity
from qonnx_hub_adapters.lint.rules import (
    ACTIVATIONS,
    MODEL,
    Answer,
    LintRule,
    LintScope,
    LintTarget,
    integer_quantizer,
    main_nodes,
    quantizer_nodes,
    unknown_operators,
)
from qonnx_hub_adapters.tflite.exporter import net_or_gaps
from qonnx_hub_adapters.tflite.graph_layers import FIXED_GRIDS, LAYERS
from qonnx_hub_adapters.tflite.graph_moves import MOVES
from qonnx_hub_adapters.tflite.graph_reader import Unsaid, target_of
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.errors import HubError
from qonnx_hub_ir.graph.queries import is_standard, is_weight, readers
from qonnx_hub_ir.quantizers import IntQuant
from qonnx_hub_ir.semantics import quantize_to_integers

_FIXED_NAMES = {"Sigmoid": "LOGISTIC", "Tanh": "TANH", "Softmax": "SOFTMAX"}
"""Functions whose grid is fixed -> TFLite's name."""


def _is_unsaid(node: Node) -> Answer:
    """Answer with why the codes of a quantizer cannot be said."""
    try:
        target_of(dialect.read_quantizer(node))
    except Unsaid as why:
        return str(why)
    return False


def _widest_spread(node: Node) -> Answer:
    """Answer with how many codes weights span, where no zero point centres them."""
    quant, data = dialect.read_quantizer(node), dialect.constant_value(node.inputs[0])
    if not isinstance(quant, IntQuant) or data is None or quant.zero_point is None:
        return False
    if quant.scale is None or not np.all(np.asarray(quant.zero_point) % 1 == 0):
        return "has a zero point between two codes, or a computed scale"
    levels = quantize_to_integers(data, quant) - np.asarray(quant.zero_point)
    low, high = int(levels.min(initial=0)), int(levels.max(initial=0))
    if low >= -128 and high <= 127:
        return False
    if np.asarray(quant.scale).size == 1 and high - low <= 255:
        return False
    return f"holds levels {low} to {high}, which no zero point centres"


def _is_factor(node: Node) -> bool:
    """Return whether a weight quantizer feeds the second side of a product."""
    return is_weight(node) and any(
        operators.of(reader).product is not None and reader.inputs[1] is node.outputs[0]
        for reader in readers(node.outputs[0])
    )


def _first_gap(model: Model) -> Answer:
    """Answer with what the writer refuses first: node and reason."""
    try:
        _, gaps = net_or_gaps(model)
    except HubError as error:
        return ("a graph", f"cannot be prepared for it ({error})")
    return (f"{gaps[0].op} '{gaps[0].node}'", gaps[0].reason) if gaps else False


def _has_no_quantizer(node: Node) -> bool:
    """Return whether what a layer makes is read by anything but a quantizer."""
    behind = list(node.outputs)
    for value in behind:
        if value.is_graph_output():
            return True
        for reader in readers(value):
            if dialect.is_quantizer(reader) or is_standard(reader, "QuantizeLinear"):
                continue
            is_activation = LAYERS.get(reader.op_type) is LAYERS["Relu"]
            if reader.op_type in MOVES or is_activation or reader.op_type == "Add":
                behind += reader.outputs
                continue
            return True
    return False


def _narrow_bits(node: Node) -> Answer:
    quant = integer_quantizer(node)
    bits = 8 if quant is None or quant.bits is None else int(np.max(quant.bits))
    return bits if bits < 8 else False


def _other_grid(node: Node) -> Answer:
    """Answer with the fixed grid of a function, where its quantizer has another."""
    name = _FIXED_NAMES.get(node.op_type)
    for reader in readers(node.outputs[0]):
        quant = integer_quantizer(reader) if dialect.is_quantizer(reader) else None
        if quant is None or name is None:
            continue
        try:
            target = target_of(quant)
        except Unsaid:
            continue
        fixed = FIXED_GRIDS.get((name, target.type))
        if fixed is not None and not fixed.same(target.grid):
            return f"{float(fixed.scale[0]):.6g}, zero point {int(fixed.zero[0])}"
    return False


_SUMS = LintScope("layers", main_nodes, lambda node: operators.of(node).product is not None)
_FIXED = LintScope(
    "Sigmoid, Softmax, Tanh", main_nodes, lambda node: node.op_type in _FIXED_NAMES
)


def _is_said(node: Node) -> bool:
    if node.domain not in {*dialect.STANDARD_DOMAINS, dialect.DOMAIN}:
        return False
    if dialect.is_quantizer(node) or operators.is_qdq(node) or node.op_type == "Constant":
        return True
    return node.op_type in LAYERS or node.op_type in MOVES


TARGET = LintTarget(
    "TFLite, as --to tflite writes it",
    remedy="quantize the layer otherwise, or write --to qcdq",
    rules=(
        LintRule(
            *(Severity.REFUSED, ACTIVATIONS),
            _is_unsaid,
            "{}",
            "is refused: no TFLite tensor has such codes",
            "give it one scale, 2 to 8 bits or 16 bits with zero point 0, rounding to nearest",
        ),
        LintRule(
            *(Severity.REFUSED, LintScope("weights", quantizer_nodes, _is_factor)),
            _widest_spread,
            "{}",
            "is refused: kernels take weights around zero",
            "take signed, symmetric weights",
        ),
        LintRule(
            *(Severity.REFUSED, _SUMS),
            _has_no_quantizer,
            "has no quantizer behind it",
            "is refused: an integer kernel makes codes",
            "put a quantizer behind every layer",
        ),
        LintRule(
            *(Severity.REFUSED, MODEL),
            _first_gap,
            "holds {}, which {}",
            "the writer refuses it",
            "see the findings above; there may be more behind the first",
        ),
        unknown_operators(
            _is_said,
            main_nodes,
            severity=Severity.REFUSED,
            reason="has no operator in TFLite here",
            effect="is refused",
            remedy="take it out of the model, or write --to qcdq",
        ),
        LintRule(
            *(Severity.NOTE, ACTIVATIONS),
            _narrow_bits,
            "has {} bits",
            "is stored as 8 bits, between MAXIMUM and MINIMUM: two operators more",
            "take 8 bits where speed counts",
        ),
        LintRule(
            *(Severity.NOTE, _FIXED),
            _other_grid,
            "is quantized on another grid than its own, scale {}",
            "gets QUANTIZE behind it: rounded twice",
            "quantize it on that grid",
        ),
        LintRule(
            *(Severity.NOTE, MODEL),
            lambda model: any(operators.of(n).product is not None for n in model.graph),
            "holds layers that sum",
            "reference kernels round a sum twice, XNNPACK once: codes may be a step apart",
            "check --backend tflite and tflite:xnn on the file written",
        ),
    ),
)
