"""What integer hardware accumulates in each dense layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from onnx_ir import Model, Value

from qonnx_hub_ir.analysis.dense_layers import Layer, read_layer
from qonnx_hub_ir.analysis.grids import IntegerType
from qonnx_hub_ir.analysis.products import Products, product_grid, summed
from qonnx_hub_ir.analysis.rule_context import Site
from qonnx_hub_ir.analysis.value_info import ValueInfo
from qonnx_hub_ir.analysis.value_ranges import InputRange, walk
from qonnx_hub_ir.quantizers import Array, bits_of_range, signed_bits
from qonnx_hub_ir.verify import label


@dataclass(frozen=True, slots=True, eq=False)
class Accumulator:
    """The integer sum of products of one dense layer, without its bias.

    ``low`` and ``high`` are of finished sums. Adders that wrap around need no more bits than
    those; adders that saturate need the bits of all partial sums.

    Attributes:
        node: Operator and name of the layer.
        output: Name of the value that it makes.
        low: Lowest sum per output channel, int64 of shape (C,).
        high: Highest sum per output channel, likewise.
        bits: Width of the two's complement integer that holds every sum.
        partial_bits: Width that also holds every partial sum, in any order of adding.
        scale: Value of one unit of the accumulator, per output channel or of one element.
        input_type: Type of the layer's input.
        weight_type: Type of its weights.
        exact: Whether float32 computes the same numbers to the bit, in any order of adding.
    """

    node: str
    output: str
    low: Array
    high: Array
    bits: int
    partial_bits: int
    scale: Array
    input_type: IntegerType
    weight_type: IntegerType
    exact: bool


def accumulators(
    model: Model, inputs: Mapping[str, InputRange] | None = None
) -> list[Accumulator]:
    """Return the accumulator of every layer that multiplies integers by constant integers.

    Args:
        model: An IR model; it is not changed.
        inputs: As in :func:`~qonnx_hub_ir.analysis.value_ranges.infer_values`.

    Raises:
        UsageError: As there.
    """
    return [a for _, _, a in walk_accumulators(model, inputs) if a is not None]


def walk_accumulators(
    model: Model, inputs: Mapping[str, InputRange] | None = None
) -> Iterator[tuple[str, ValueInfo, Accumulator | None]]:
    """Return every value's name, what is known about it, and its accumulator if it has one.

    Args:
        model: As in :func:`accumulators`.
        inputs: Likewise.
    """
    for value, site, info in walk(model, inputs):
        yield str(value.name), info, _accumulator_of(value, site, info)


def _accumulator_of(value: Value, site: Site | None, info: ValueInfo) -> Accumulator | None:
    if site is None or value is not site.node.outputs[0]:
        return None
    layer = read_layer(site)
    products = None if layer is None else product_grid(layer.x, layer.terms)
    if layer is None or products is None:
        return None
    return _accumulator(site, layer, products, str(value.name), info)


def _accumulator(
    site: Site, layer: Layer, products: Products, name: str, info: ValueInfo
) -> Accumulator:
    grid, weights = layer.x.grid, layer.terms.constant
    assert grid is not None, "products are of integers"
    assert weights.integers is not None, "products are of integers"
    # A partial sum leaves terms out: as if their inputs were zero.
    ends = (np.minimum(grid.low, 0), np.maximum(grid.high, 0))
    partial = summed(layer.terms, products.weights, *ends)
    sums = products.sums
    return Accumulator(
        node=label(site.node),
        output=name,
        low=sums.low,
        high=sums.high,
        bits=signed_bits(int(sums.low.min()), int(sums.high.max())),
        partial_bits=signed_bits(int(partial.low.min()), int(partial.high.max())),
        scale=products.scale,
        input_type=grid.declared or grid.needed,
        weight_type=weights.declared
        or IntegerType(
            *bits_of_range(int(weights.integers.min()), int(weights.integers.max()))
        ),
        exact=info.grid is not None and info.grid.exact,
    )
