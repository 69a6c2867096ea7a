"""Images made larger by repeating their elements."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from onnx_ir import Node

from qonnx_hub_adapters.hls4ml.context import Context
from qonnx_hub_adapters.hls4ml.pending_affine import Term
from qonnx_hub_adapters.hls4ml.refusals import refuse
from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph import permutations
from qonnx_hub_ir.graph.queries import attribute, dims, input_of

_REPEATS = {("asymmetric", "floor"), ("half_pixel", "round_prefer_floor")}
"""Coordinates and rounding that give every element as often as a whole factor says."""


def lower_resize(context: Context, node: Node) -> Term:
    """Return the term of a square image whose elements are repeated along both axes.

    hls4ml reads the region of interest, which ONNX mostly leaves out: it is filled in.
    """
    term, out = context.data(node), dims(node.outputs[0]) or ()
    factor = _factor(node, term.shape, tuple(out))
    if term.bits or not term.is_scaled_alike():
        term = context.settle(term)
    term = context.laid_out(term, permutations.to_first(4), node)
    made = replace(term, shape=(*term.shape[:2], *(n * factor for n in term.shape[2:])))
    # One number: hls4ml asks the array itself whether it is true.
    region = context.builder.constant(np.zeros(1, dtype=np.float32))
    scales = context.builder.constant(np.array([1, factor, factor, 1], dtype=np.float32))
    attributes = {
        "mode": "nearest",
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
    }
    return context.builder.put(made, "Resize", [term.value, region, scales], attributes)


def _factor(node: Node, shape: tuple[int, ...], out: tuple[object, ...]) -> int:
    """Return how often elements are repeated along both axes.

    Raises:
        RefusedError: hls4ml computes another Resize, or none.
    """
    if attribute(node, "mode", "nearest") != "nearest":
        raise refuse(node, "interpolates; hls4ml's Resize in ONNX is tested to repeat only")
    how = (
        attribute(node, "coordinate_transformation_mode", "half_pixel"),
        attribute(node, "nearest_mode", "round_prefer_floor"),
    )
    if len(shape) != 4 or shape[:2] != out[:2]:
        raise refuse(node, "resizes other axes than height and width")
    factors = [float(size) / old for size, old in zip(out[2:], shape[2:], strict=True)]  # type: ignore[arg-type]
    given = dialect.constant_value(input_of(node, 2))
    if given is not None:
        # Of all axes, or of those that are named: sizes alone do not tell 2.1 from 2.
        factors += [float(number) for number in given if number != 1]
    if len({*factors}) != 1 or factors[0] != int(factors[0]) or how not in _REPEATS:
        raise refuse(node, "is not by one whole factor with elements repeated in blocks")
    if shape[2] != shape[3]:
        raise refuse(node, "of an image that is not square: hls4ml takes height for width")
    return int(factors[0])
