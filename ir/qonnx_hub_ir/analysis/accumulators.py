"""What integer hardware accumulates in each dense layer, and whether floats follow it.

A dense layer whose weights and input lie on grids computes, in units of both scales, a sum of
integer products. Its range follows from the weights themselves and the range of the input:
each product is largest where the input is at one of its ends.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from onnx_ir import Model, Value

from qonnx_hub_ir.analysis.dense_layers import read_layer
from qonnx_hub_ir.analysis.grids import IntegerType, holds
from qonnx_hub_ir.analysis.products import product_grid, summed
from qonnx_hub_ir.analysis.rule_context import NodeInfo
from qonnx_hub_ir.analysis.value_info import ValueInfo
from qonnx_hub_ir.analysis.value_ranges import InputRange, walk
from qonnx_hub_ir.describe import describe_number
from qonnx_hub_ir.quantizers import Array, bits_of_range, signed_bits
from qonnx_hub_ir.validity import label


@dataclass(frozen=True, slots=True)
class AccumulatorRange:
    """What the sum of one layer can hold, of all output channels together.

    Attributes:
        node: Operator and name of the layer.
        low: Lowest sum, without bias.
        high: Highest sum.
        bits: Bits that hold every sum.
        partial_bits: Bits that hold every partial sum as well, in any order of adding.
        scale: Value of one unit, or how many there are.
        input_type: Type of the layer's input.
        weight_type: Type of its weights.
        exact: Whether floats compute the layer to the bit, with its bias.
        float32_exact: Whether the layer's float type sums the products to the bit.
        magnitude: Largest sum of the magnitudes of all products of one output.
    """

    node: str
    low: int
    high: int
    bits: int
    partial_bits: int
    scale: str
    input_type: str
    weight_type: str
    exact: bool
    float32_exact: bool
    magnitude: int


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
        magnitude: Largest sum of magnitudes of all products, likewise: no partial sum, in any
            order, goes beyond it.
        bits: Width of the two's complement integer that holds every sum.
        partial_bits: Width that also holds every partial sum, in any order of adding.
        scale: Value of one unit of the accumulator, per output channel or of one element.
        input_type: Type of the layer's input.
        weight_type: Type of its weights.
        exact: Whether floats compute the layer's values to the bit, in any order of adding,
            with its bias.
        float32_exact: Whether the layer's float type, float32 as a rule, computes the sum of
            products to the bit, in any order of adding; beyond, a simulation in floats and
            integer hardware may part.
    """

    node: str
    output: str
    low: Array
    high: Array
    magnitude: Array
    bits: int
    partial_bits: int
    scale: Array
    input_type: IntegerType
    weight_type: IntegerType
    exact: bool
    float32_exact: bool

    def summary(self) -> AccumulatorRange:
        """Return the figures of all output channels together."""
        return AccumulatorRange(
            node=self.node,
            low=int(self.low.min()),
            high=int(self.high.max()),
            bits=self.bits,
            partial_bits=self.partial_bits,
            scale=describe_number(self.scale),
            input_type=str(self.input_type),
            weight_type=str(self.weight_type),
            exact=self.exact,
            float32_exact=self.float32_exact,
            magnitude=int(self.magnitude.max()),
        )


def accumulators(
    model: Model, inputs: Mapping[str, InputRange] | None = None
) -> list[Accumulator]:
    """Return the accumulator of every layer that multiplies integers by constant integers.

    Layers whose sums may go beyond 62 bits are left out.

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


def _accumulator_of(
    value: Value, site: NodeInfo | None, info: ValueInfo
) -> Accumulator | None:
    if site is None or value is not site.node.outputs[0]:
        return None
    layer = read_layer(site)
    products = None if layer is None else product_grid(layer.x, layer.terms)
    if layer is None or products is None:
        return None
    grid, weights = layer.x.grid, layer.terms.constant
    assert grid is not None, "products are of integers"
    assert weights.integers is not None, "products are of integers"
    # A partial sum leaves terms out: as if their inputs were zero.
    ends = (np.minimum(grid.low, 0), np.maximum(grid.high, 0))
    partial = summed(layer.terms, products.weights, *ends)
    sums, scale = products.sums, products.scale
    return Accumulator(
        node=label(site.node),
        output=str(value.name),
        low=sums.low,
        high=sums.high,
        magnitude=sums.magnitude,
        bits=signed_bits(int(sums.low.min()), int(sums.high.max())),
        partial_bits=signed_bits(int(partial.low.min()), int(partial.high.max())),
        scale=scale,
        input_type=grid.declared or grid.needed,
        weight_type=weights.declared
        or IntegerType(
            *bits_of_range(int(weights.integers.min()), int(weights.integers.max()))
        ),
        exact=info.grid is not None and info.grid.exact,
        float32_exact=products.exact and holds(site.float_type, sums.magnitude * scale, scale),
    )
