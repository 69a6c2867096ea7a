"""What every value of the lowered graph can be: grids from inputs to outputs, exactly.

The walk is not that of :mod:`qonnx_hub_ir.analysis`, which follows float32: hls4ml folds batch
normalizations and divisors in another order of rounding, computes in fixed point without
rounding sums, and rounds scaled results to the types that are chosen here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from onnx_ir import Model, Node, Value

from qonnx_hub_adapters.hls4ml.fixed_point import (
    BEFORE_QUANTIZER,
    FixedGrid,
    FixedType,
    exponent,
    lowest_bit,
    number,
    quantizer_type,
)
from qonnx_hub_adapters.hls4ml.weights import constant_of
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.quantizers import Array, BipolarQuant, IntQuant, is_power_of_two

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
    """Return factor and offset, float32, of a batch normalization as hls4ml computes them."""
    known = [constant_of(value) for value in node.inputs[1:]]
    scale, bias, mean, variance = (p for p in known if p is not None)
    factor = scale / np.sqrt(variance + float(node.attributes["epsilon"].value))
    factor = factor.astype(np.float32)
    return factor, (bias - factor * mean).astype(np.float32)


def inverse_divisor(node: Node) -> Array:
    """Return the factor, float32, that hls4ml makes of a divisor."""
    divisor = constant_of(node.inputs[1])
    assert divisor is not None
    return np.asarray(1 / divisor, dtype=np.float32)


def _scaled(grid: FixedGrid, factor: Array, offset: Array) -> FixedGrid:
    factor, offset = factor.astype(np.float64), offset.astype(np.float64)
    ends = grid.low * factor + offset, grid.high * factor + offset
    lsb = grid.lsb + lowest_bit(factor)
    if np.any(offset):
        lsb = min(lsb, lowest_bit(offset))
    return FixedGrid(np.minimum(*ends), np.maximum(*ends), lsb).limited()


def _of_norm(node: Node, given: list[FixedGrid]) -> FixedGrid:
    factor, offset = folded_norm(node)
    return _before_quantizers(node, _scaled(given[0], factor, offset), factor)


def _of_division(node: Node, given: list[FixedGrid]) -> FixedGrid:
    factor = inverse_divisor(node)
    scaled = _scaled(given[0], factor, np.zeros((), dtype=np.float32))
    return _before_quantizers(node, scaled, factor)


def _before_quantizers(node: Node, grid: FixedGrid, factor: Array) -> FixedGrid:
    """Return the grid, rounded to what quantizers that alone read it need."""
    if is_power_of_two(np.abs(factor)):
        return grid
    tops = [_top(usage.node) for usage in node.outputs[0].uses()]
    known = [top for top in tops if top is not None]
    if not tops or len(known) != len(tops) or node.outputs[0].is_graph_output():
        return grid
    return grid.coarser(max(known) - BEFORE_QUANTIZER)


def _top(reader: Node) -> int | None:
    """Return the exponent of the largest number that a quantizer does not saturate."""
    shifts = reader.op_type == "BatchNormalization" and bool(
        np.all(folded_norm(reader)[0] == 1)
    )
    passes = shifts or reader.op_type == "Relu" or operators.reshapes(reader)
    if passes and not reader.outputs[0].is_graph_output():
        tops = [_top(usage.node) for usage in reader.outputs[0].uses()]
        known = [top for top in tops if top is not None]
        return max(known) if known and len(known) == len(tops) else None
    if reader.op_type != "Quant" or not dialect.is_quantizer(reader):
        return None
    if any(usage.node.op_type == "BipolarQuant" for usage in reader.outputs[0].uses()):
        # Of what a sign is taken, no number is too small to count.
        return None
    quant = dialect.read_quantizer(reader)
    assert isinstance(quant, IntQuant)
    return exponent(max(abs(end) for end in quantizer_type(quant).grid().ends()))


def _of_quantizer(node: Node, given: list[FixedGrid]) -> FixedGrid:
    quant = dialect.read_quantizer(node)
    if isinstance(quant, BipolarQuant):
        return FixedGrid(number(-1.0), number(1.0), 0, bits=True)
    assert isinstance(quant, IntQuant)
    target = quantizer_type(quant).grid()
    step = 2.0**target.lsb
    rounding = np.floor if quantizer_type(quant).rounding == "TRN" else np.rint
    low, high = (
        np.clip(rounding(end / step) * step, target.low, target.high)
        for end in (given[0].low, given[0].high)
    )
    return FixedGrid(low, high, target.lsb)


def _of_relu(node: Node, given: list[FixedGrid]) -> FixedGrid:
    grid = given[0]
    return replace(grid, low=np.maximum(grid.low, 0.0), high=np.maximum(grid.high, 0.0))


def _of_leaky_relu(node: Node, given: list[FixedGrid]) -> FixedGrid:
    grid = given[0]
    alpha = np.asarray(node.attributes["alpha"].value, dtype=np.float32)
    below = _scaled(grid, alpha, np.zeros((), dtype=np.float32))
    ends = [np.where(end > 0, end, end * np.float64(alpha)) for end in (grid.low, grid.high)]
    low, high = np.minimum(*ends), np.maximum(*ends)
    if alpha < 0:
        low = np.minimum(low, 0.0)
    return FixedGrid(low, high, min(below.lsb, grid.lsb)).limited()


def weight_arrays(node: Node) -> tuple[Array, int]:
    """Return the weights of a layer as (terms, outputs), float64, and their lowest bit."""
    values = constant_of(node.inputs[1])
    assert values is not None
    lsb = lowest_bit(values)
    if node.op_type == "MatMul":
        return values.astype(np.float64), lsb
    return np.ascontiguousarray(values.reshape(values.shape[0], -1).T).astype(np.float64), lsb


def _of_product(node: Node, given: list[FixedGrid]) -> FixedGrid:
    grid = given[0]
    weights, lsb = weight_arrays(node)
    if node.op_type == "Conv":
        grid = _window_terms(node, grid, weights.shape[0])
    above, below = np.maximum(weights, 0.0), np.minimum(weights, 0.0)
    spread = weights.shape
    if grid.low.ndim == 2:
        low = (above * grid.low + below * grid.high).sum(axis=0)
        high = (above * grid.high + below * grid.low).sum(axis=0)
    else:
        ends = [np.broadcast_to(end, spread[:1]) for end in (grid.low, grid.high)]
        low, high = ends[0] @ above + ends[1] @ below, ends[1] @ above + ends[0] @ below
    total = FixedGrid(low, high, grid.lsb + lsb)
    bias = constant_of(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is None:
        return total
    shifted = bias.astype(np.float64)
    return FixedGrid(low + shifted, high + shifted, min(total.lsb, lowest_bit(bias)))


def _window_terms(node: Node, grid: FixedGrid, terms: int) -> FixedGrid:
    """Return the grid of every term of a window: (terms,), or (terms, outputs) depthwise."""
    if any(node.attributes["pads"].value):
        grid = grid.with_zero()
    if grid.low.size == 1:
        return grid.overall()
    if int(node.attributes["group"].value) == 1:
        count = terms // grid.low.size
        return replace(grid, low=np.tile(grid.low, count), high=np.tile(grid.high, count))
    return replace(grid, low=grid.low[None, :], high=grid.high[None, :])


_OPERATIONS: Mapping[str, Callable[[Array, Array], Array]] = {
    "Add": np.add,
    "Max": np.maximum,
    "Min": np.minimum,
    "Mul": np.multiply,
    "Sub": np.subtract,
}
"""Operators of two values, monotone in each -> what they compute."""


def _of_two(node: Node, given: list[FixedGrid]) -> FixedGrid:
    a, b = given[0], given[-1]
    operation = _OPERATIONS[node.op_type]
    corners = [operation(x, y) for x in (a.low, a.high) for y in (b.low, b.high)]
    ends = np.minimum.reduce(corners), np.maximum.reduce(corners)
    if operators.multiplies(node):
        return FixedGrid(*ends, a.lsb + b.lsb).limited()
    return FixedGrid(*ends, min(a.lsb, b.lsb))


def _of_concat(node: Node, given: list[FixedGrid]) -> FixedGrid:
    a, b = given[0].overall(), given[-1].overall()
    return FixedGrid(np.minimum(a.low, b.low), np.maximum(a.high, b.high), min(a.lsb, b.lsb))


def _of_move(node: Node, given: list[FixedGrid]) -> FixedGrid:
    grid, shape = given[0], node.outputs[0].shape
    size = 1 if shape is None else int(shape[-1])  # type: ignore[arg-type]
    if grid.low.size == 1 or node.op_type == "Transpose" or size % grid.low.size:
        return grid.overall()
    if size == grid.low.size and node.inputs[0] is not None:
        return grid
    count = size // grid.low.size
    return replace(grid, low=np.tile(grid.low, count), high=np.tile(grid.high, count))


def _of_table(node: Node, given: list[FixedGrid]) -> FixedGrid:
    low, high = operators.bounds(node) or (-math.inf, math.inf)
    if math.isinf(high):
        # Softplus: at most the input and the logarithm of 2.
        high = max(given[0].ends()[1], 0.0) + 1.0
    return FixedGrid(number(low), number(high), -16)


_RULES: Mapping[str, Rule] = {
    **dict.fromkeys(_OPERATIONS, _of_two),
    "BatchNormalization": _of_norm,
    "BipolarQuant": _of_quantizer,
    "Concat": _of_concat,
    "Conv": _of_product,
    "Div": _of_division,
    "LeakyRelu": _of_leaky_relu,
    "MatMul": _of_product,
    "MaxPool": lambda node, given: given[0],
    "Pad": lambda node, given: given[0].with_zero(),
    "Quant": _of_quantizer,
    "Relu": _of_relu,
    "Reshape": _of_move,
    "Sigmoid": _of_table,
    "Softmax": _of_table,
    "Softplus": _of_table,
    "Softsign": _of_table,
    "Tanh": _of_table,
    "Transpose": _of_move,
}
