"""What every value of the lowered graph can be: grids from inputs to outputs, exactly.

The walk is not that of :mod:`qonnx_hub_ir.analysis`, which follows float32: hls4ml folds batch
normalizations and divisors in another order of rounding, computes in fixed point without
rounding sums, and rounds scaled results to the types that are chosen here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from onnx_ir import Model, Node, Value

from qonnx_hub_adapters.hls4ml.fixed_point import (
    BEFORE_QUANTIZER,
    WHOLE_BITS,
    FixedGrid,
    FixedType,
    lowest_bit,
    number,
    type_of_quantizer,
)
from qonnx_hub_adapters.hls4ml.weights import constant_of
from qonnx_hub_ir import operators
from qonnx_hub_ir.errors import Gap, NotExactError
from qonnx_hub_ir.graph.queries import input_of
from qonnx_hub_ir.operators import Family
from qonnx_hub_ir.quantizers import Array, is_power_of_two

Grids = Mapping[Value, FixedGrid]
Rule = Callable[[Node, list[FixedGrid]], FixedGrid]


def grids_of(model: Model, inputs: Mapping[str, FixedType]) -> dict[Value, FixedGrid]:
    """Return the grid of every computed value.

    Args:
        model: A lowered graph.
        inputs: Type of every graph input, by name.
    """
    grids = {value: inputs[str(value.name)].grid() for value in model.graph.inputs}
    for node in model.graph:
        if constant_of(node.outputs[0]) is not None:
            continue
        given = [grids[value] for value in node.inputs if value is not None and value in grids]
        grids[node.outputs[0]] = _RULES[node.op_type](node, given)
    return grids


def folded_norm(node: Node) -> tuple[Array, Array]:
    """Return factor and offset, float32, as hls4ml computes them of one of :data:`MERGED`."""
    known = [p for value in node.inputs[1:] if (p := constant_of(value)) is not None]
    if node.op_type == "Div":
        return np.asarray(1 / known[0], dtype=np.float32), np.zeros((), dtype=np.float32)
    scale, bias, mean, variance = known
    factor = scale / np.sqrt(variance + float(node.attributes["epsilon"].value))
    factor = factor.astype(np.float32)
    return factor, (bias - factor * mean).astype(np.float32)


def _scaled(grid: FixedGrid, factor: Array, offset: Array) -> FixedGrid:
    factor, offset = factor.astype(np.float64), offset.astype(np.float64)
    ends = grid.low * factor + offset, grid.high * factor + offset
    lsb = grid.lsb + lowest_bit(factor)
    if np.any(offset):
        lsb = min(lsb, lowest_bit(offset))
    return FixedGrid(np.minimum(*ends), np.maximum(*ends), lsb).limited()


def _of_norm(node: Node, given: list[FixedGrid]) -> FixedGrid:
    """Return the scaled grid, rounded to what quantizers that alone read it need."""
    factor, offset = folded_norm(node)
    grid, top = _scaled(given[0], factor, offset), _top_behind(node.outputs[0])
    if top is None or is_power_of_two(np.abs(factor)):
        return grid
    return grid.coarser(top - BEFORE_QUANTIZER)


def _top_behind(value: Value) -> int | None:
    """Return the exponent of the largest number that quantizers behind do not saturate.

    ``None`` where something else reads the value.
    """
    tops = [_top(usage.node) for usage in value.uses()]
    known = [top for top in tops if top is not None]
    if not known or len(known) != len(tops) or value.is_graph_output():
        return None
    return max(known)


def step_behind(value: Value) -> int | None:
    """Return the exponent of the largest step that a value is rounded to; ``None`` for none.

    What only moves values may be left out of the hardware: it is looked through.
    """
    steps = []
    for usage in value.uses():
        kind = type_of_quantizer(usage.node)
        moves = operators.reshapes(usage.node) or operators.moves_axes(usage.node)
        step = step_behind(usage.node.outputs[0]) if moves else None
        steps.append(step if kind is None else kind.lsb())
    return max((step for step in steps if step is not None), default=None)


def _top(reader: Node) -> int | None:
    shifts = reader.op_type == "BatchNormalization" and np.all(folded_norm(reader)[0] == 1)
    if shifts or reader.op_type == "Relu" or operators.reshapes(reader):
        return _top_behind(reader.outputs[0])
    kind = type_of_quantizer(reader)
    # Of what a sign is taken, no number is too small to count.
    signs = any(usage.node.op_type == "BipolarQuant" for usage in reader.outputs[0].uses())
    return None if kind is None or signs else kind.grid().magnitude()


def _of_quantizer(node: Node, given: list[FixedGrid]) -> FixedGrid:
    kind = type_of_quantizer(node)
    if kind is None:
        return FixedGrid(number(-1.0), number(1.0), 0, bits=True)
    target, step = kind.grid(), 2.0 ** kind.lsb()
    if kind.width == WHOLE_BITS and given[0].magnitude() >= WHOLE_BITS:
        gap = Gap(
            str(node.name), node.op_type, f"makes numbers of over {WHOLE_BITS} bits whole"
        )
        raise NotExactError("hls4ml cannot compute these nodes exactly:", [gap])
    rounding = np.floor if kind.rounding == "TRN" else np.rint
    low, high = (
        np.clip(rounding(end / step) * step, target.low, target.high)
        for end in (given[0].low, given[0].high)
    )
    return FixedGrid(low, high, target.lsb)


def _of_leaky_relu(node: Node, given: list[FixedGrid]) -> FixedGrid:
    grid = given[0]
    alpha = np.asarray(node.attributes["alpha"].value, dtype=np.float32)
    below = _scaled(grid, alpha, np.zeros((), dtype=np.float32))
    ends = [np.where(end > 0, end, end * np.float64(alpha)) for end in (grid.low, grid.high)]
    low, high = np.minimum(*ends), np.maximum(*ends)
    if alpha < 0:
        low = np.minimum(low, 0.0)
    return FixedGrid(low, high, min(below.lsb, grid.lsb)).limited()


def _of_product(node: Node, given: list[FixedGrid]) -> FixedGrid:
    grid, values = given[0], constant_of(node.inputs[1])
    assert values is not None
    weights = values.astype(np.float64)
    if node.op_type == "Conv":
        weights = np.ascontiguousarray(weights.reshape(len(weights), -1).T)
        grid = _window_terms(node, grid, len(weights))
    above, below = np.maximum(weights, 0.0), np.minimum(weights, 0.0)
    if grid.low.ndim == 2:
        low = (above * grid.low + below * grid.high).sum(axis=0)
        high = (above * grid.high + below * grid.low).sum(axis=0)
    else:
        a, b = (np.broadcast_to(end, weights.shape[:1]) for end in (grid.low, grid.high))
        low, high = a @ above + b @ below, b @ above + a @ below
    lsb, bias = grid.lsb + lowest_bit(values), constant_of(input_of(node, 2))
    if bias is None:
        return FixedGrid(low, high, lsb)
    return FixedGrid(low, high, min(lsb, lowest_bit(bias))).mapped(lambda ends: ends + bias)


def _window_terms(node: Node, grid: FixedGrid, terms: int) -> FixedGrid:
    """Return the grid of every term of a window: (terms,), or (terms, outputs) depthwise."""
    if any(node.attributes["pads"].value):
        grid = grid.with_zero()
    if grid.low.size == 1:
        return grid.overall()
    if int(node.attributes["group"].value) == 1:
        return grid.mapped(lambda ends: np.tile(ends, terms // grid.low.size))
    return grid.mapped(lambda ends: ends[None, :])


_OF_TWO = operators.names(
    lambda row: row.in_numpy, family=Family.ARITHMETIC, order_is_exact=True
)
"""Operators of two values, monotone in each."""


def _of_two(node: Node, given: list[FixedGrid]) -> FixedGrid:
    a, b = given[0], given[-1]
    function = operators.of(node).in_numpy
    assert function is not None
    corners = [function(x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
    ends = np.minimum.reduce(corners), np.maximum.reduce(corners)
    if operators.multiplies(node):
        return FixedGrid(*ends, a.lsb + b.lsb).limited()
    return FixedGrid(*ends, min(a.lsb, b.lsb))


def _of_move(node: Node, given: list[FixedGrid]) -> FixedGrid:
    grid, shape = given[0], node.outputs[0].shape
    size = 1 if shape is None else int(shape[-1])  # type: ignore[arg-type]
    if grid.low.size == 1 or node.op_type == "Transpose" or size % grid.low.size:
        return grid.overall()
    return grid.mapped(lambda ends: np.tile(ends, size // grid.low.size))


def _of_table(node: Node, given: list[FixedGrid]) -> FixedGrid:
    low, high = operators.bounds(node) or (-math.inf, math.inf)
    if math.isinf(high):
        # Softplus: at most the input and the logarithm of 2.
        high = max(given[0].ends()[1], 0.0) + 1.0
    return FixedGrid(number(low), number(high), -16)


_RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_OF_TWO, _of_two),
    "BatchNormalization": _of_norm,
    "BipolarQuant": _of_quantizer,
    "Concat": lambda node, given: given[0].hull(given[-1]),
    "Conv": _of_product,
    "Div": _of_norm,
    "LeakyRelu": _of_leaky_relu,
    "MatMul": _of_product,
    "MaxPool": lambda node, given: given[0],
    "Pad": lambda node, given: given[0].with_zero(),
    "Quant": _of_quantizer,
    "Relu": lambda node, given: given[0].mapped(lambda ends: np.maximum(ends, 0.0)),
    "Reshape": _of_move,
    "Resize": lambda node, given: given[0],
    "Sigmoid": _of_table,
    "Softmax": _of_table,
    "Softplus": _of_table,
    "Softsign": _of_table,
    "Tanh": _of_table,
    "Transpose": _of_move,
}

MERGED = frozenset(name for name, rule in _RULES.items() if rule is _of_norm)
"""Operators that hls4ml takes for batch normalizations: it merges them into the layer before,
and with a sign function after them."""

TABLES = frozenset(n for n, rule in _RULES.items() if rule is _of_table) - {"Softmax"}
"""Functions of one number that hls4ml reads from a table."""
