"""What PQuantML's exporter loses on the way to QONNX; its files are known by their names.

A quantizer there is made of one triple of bits (sign, before and after the point), a rounding
and an overflow mode. The file holds less: what became of the rest shows in no number of it.
"""

from __future__ import annotations

from collections.abc import Iterator

from onnx_ir import Model, Node

from qonnx_hub_adapters.lint.finding import Severity
from qonnx_hub_adapters.lint.rules import LintRule, LintScope, anywhere
from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.queries import attribute

_PARTS = ("_scale", "_zero_point", "_bit_width")
_AGAIN = "read the trained model itself, or ask the network's author"


def _is_theirs(node: Node) -> bool:
    """Return whether a quantizer and its parameters are named as PQuantML names them."""
    if node.op_type != "Quant" or len(node.inputs) != len(_PARTS) + 1:
        return False
    stem = str(node.outputs[0].name).removesuffix("_quantized")
    named = [None if value is None else value.name for value in node.inputs[1:]]
    return named == [stem + part for part in _PARTS]


def _theirs(model: Model) -> Iterator[Node]:
    return (node for node in model.graph.all_nodes() if _is_theirs(node))


def _first(model: Model) -> Iterator[Node]:
    """Give the first of them: what holds of all is said once."""
    yield from list(_theirs(model))[:1]


def _with(mode: str) -> LintScope:
    return LintScope(
        f"Quant of PQuantML, {mode}",
        _theirs,
        lambda node: str(attribute(node, dialect.ROUNDING, "")) == mode,
    )


RULES: tuple[LintRule, ...] = (
    LintRule(
        *(Severity.REFUSED, _with("TRUNCATE"), anywhere),
        "rounds with TRUNCATE, which no reader knows: PQuantML writes it for TRN_ZERO",
        "ValueError: Could not resolve rounding mode",
        "set rounding_mode to DOWN, which rounds towards zero",
    ),
    LintRule(
        *(Severity.NOTE, _with("ROUND"), anywhere),
        "rounds ties to even: PQuantML writes ROUND for RND, RND_ZERO and RND_INF too",
        "a net that was trained with one of them computes something else at ties",
        "where the net has RND, set rounding_mode to HALF_UP; RND_CONV is right as it is",
    ),
    LintRule(
        *(Severity.NOTE, _with("FLOOR"), anywhere),
        "rounds down: PQuantML writes FLOOR for RND_MIN_INF too, which rounds to nearest",
        "half of the values of such a net are a step too low",
        "where the net has RND_MIN_INF, set rounding_mode to HALF_DOWN; TRN is right",
    ),
    LintRule(
        *(Severity.NOTE, LintScope("Quant of PQuantML, bits", _first), anywhere),
        "has one scale and one width: PQuantML merges those of channels or weights into one",
        "where they differed, the coarsest step and the widest range are left, and weights "
        "are rounded anew",
        _AGAIN,
    ),
    LintRule(
        *(Severity.NOTE, LintScope("Quant of PQuantML, overflow", _first), anywhere),
        "saturates: PQuantML drops the overflow mode WRAP",
        "values of a net that wraps lie at the end of the range instead",
        _AGAIN,
    ),
)
"""Rules for a file as it lies, the same for every target that reads QONNX."""
