"""What products of stored integers can make: whole sums, and the float factor behind them.

Sums of whole numbers are the same in every order, so that only what reaches them moves them
apart. QLinearConv and QLinearMatMul multiply a sum with a factor of three scales and round it
to a code: as real numbers, and moved by the roundings of that factor, of the sum as a float
and of their product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from onnx_ir import Node, Value

from qonnx_hub.equivalence.proof.intervals import Argument, Enclosure
from qonnx_hub_ir import operators
from qonnx_hub_ir.analysis.float_error import FLOAT32_UNIT, sum_error
from qonnx_hub_ir.quantizers import Array

EPILOGUE_ROUNDINGS = 4
"""Roundings of ``float32(sum) * (x_scale * w_scale / y_scale)``."""

Run = Callable[[Node, Sequence[Array]], Array]
"""Runs a node on arrays of float64."""


def plain_product(node: Node) -> Node:
    """Return the product of real numbers that a product of stored integers is.

    Args:
        node: ConvInteger, MatMulInteger, QLinearConv or QLinearMatMul.
    """
    kind = "Conv" if _slides(node) else "MatMul"
    entries = [Value(name="left"), Value(name="right")]
    attributes = list(node.attributes.values()) if kind == "Conv" else []
    return Node("", kind, entries, attributes, outputs=[Value(name="sums")], name="sums")


def enclose_integer_product(
    node: Node, plain: Node, given: Sequence[Argument], run: Run, *, more: int = 0
) -> Enclosure:
    """Return between which ends any order and any float factor keeps the result.

    Args:
        node: The product.
        plain: What :func:`plain_product` makes of it.
        given: Its inputs; all that is known of them must hold everywhere.
        run: Runs the plain product.
        more: Roundings of the factor that are allowed beyond :data:`EPILOGUE_ROUNDINGS`.

    Raises:
        ValueError: Scales or zero points of rows, sums beyond int32, scales not of float32.
    """
    product = operators.of(node).product
    assert product is not None, "a product has a row of its own"
    zeros = [_parameter(given, k) for k in product.zero_points]
    right = _behind(zeros[1], node, given[product.weight])
    left = _ends(given[0], _single(zeros[0])), _ends(given[product.weight], right)
    middle = [(low + high) / 2 for low, high in left]
    grown = [np.maximum(np.abs(low), np.abs(high)) for low, high in left]
    # A magnitude and how far it reaches, and what is left of it without that.
    inner = [np.abs(m) for m in middle]
    outer = [i + (high - low) / 2 for i, (low, high) in zip(inner, left, strict=True)]
    centre, spread = run(plain, middle), run(plain, outer) - run(plain, inner)
    if np.any(run(plain, grown) >= 2.0**31):
        raise ValueError("sums leave int32")
    low, high = np.ceil(centre - spread), np.floor(centre + spread)
    known = np.ones(low.shape, dtype=np.bool_)
    if not product.scales:
        return Enclosure(low.astype(np.int32), high.astype(np.int32), known)
    bias = None if product.bias is None else _parameter(given, product.bias)
    if bias is not None:
        added = bias.astype(np.float64).reshape(-1, *[1] * (low.ndim - 2))
        low, high = low + added, high + added
        if np.any(low < -(2.0**31)) or np.any(high >= 2.0**31):
            raise ValueError("sums leave int32 with their bias")
    return _requantized(node, given, low, high, EPILOGUE_ROUNDINGS + more)


def _requantized(
    node: Node, given: Sequence[Argument], low: Array, high: Array, roundings: int
) -> Enclosure:
    product = operators.of(node).product
    assert product is not None, "a product has a row of its own"
    scales = [_parameter(given, k) for k in product.scales]
    zero = _parameter(given, product.zero_points[2])
    if zero is None or any(s is None or s.dtype != np.float32 for s in scales):
        raise ValueError("no float32 scales")
    read, weight, made = (None if s is None else s.astype(np.float64) for s in scales)
    assert weight is not None, "looked at above"
    if _slides(node):
        weight = weight.reshape(-1, *[1] * (low.ndim - 2))
    factor = _single(read) * weight / _single(made)
    ends = low * factor, high * factor
    error = sum_error(roundings, np.maximum(*map(np.abs, ends)), FLOAT32_UNIT)
    limits = np.iinfo(zero.dtype)
    codes = [
        np.clip(np.rint(end) + float(_single(zero)), limits.min, limits.max).astype(zero.dtype)
        for end in (np.minimum(*ends) - error, np.maximum(*ends) + error)
    ]
    return Enclosure(codes[0], codes[1], np.ones(codes[0].shape, dtype=np.bool_))


def _slides(node: Node) -> bool:
    product = operators.of(node).product
    return product is not None and product.slides


def _parameter(given: Sequence[Argument], place: int) -> Array | None:
    found = given[place] if place < len(given) else None
    if isinstance(found, Enclosure):
        raise ValueError("a parameter that is computed")  # noqa: TRY004
    return found


def _single(parameter: Array | None) -> Array:
    """Return a parameter that is one number; zero where it is left out."""
    if parameter is None:
        return np.zeros((), dtype=np.float64)
    return parameter.astype(np.float64).reshape(())


def _behind(zero: Array | None, node: Node, weights: Argument) -> Array:
    """Return the weights' zero point as it broadcasts to them."""
    if zero is None or zero.size == 1:
        return _single(zero)
    if not _slides(node):
        return zero.astype(np.float64)
    rank = (weights.low if isinstance(weights, Enclosure) else np.asarray(weights)).ndim
    return zero.astype(np.float64).reshape(-1, *[1] * (rank - 1))


def _ends(given: Argument, zero: Array) -> tuple[Array, Array]:
    """Return the lowest and highest codes minus their zero point, as float64."""
    if isinstance(given, Enclosure):
        return given.low.astype(np.float64) - zero, given.high.astype(np.float64) - zero
    assert given is not None, "factors are never left out"
    same = given.astype(np.float64) - zero
    return same, same
