"""Arithmetic on several values, element by element; comparisons; logic."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx_ir import Node

from qonnx_hub_ir.operators.row import (
    FALLING,
    RISING,
    UNORDERED,
    Arithmetic,
    Batch,
    Buffer,
    Directions,
    Family,
    Moves,
    Operator,
    constant,
    holds_floats,
    row,
    rows,
)

_BROADCAST: dict[str, Any] = {"elementwise": True, "batch": Batch.BROADCAST}
_FRESH: dict[str, Any] = {**_BROADCAST, "buffer": Buffer.FRESH}
_COMMUTES: dict[str, Any] = {"commutative": True, "associative": True}


def _on_floats(*directions: int) -> Directions:
    """Return the directions of arithmetic that wraps on integers."""

    def rule(node: Node) -> tuple[int, ...]:
        return directions if holds_floats(node) else (UNORDERED,)

    return rule


def _sign_of(node: Node, index: int) -> int:
    """Return the direction that a factor gives: its sign, where all of it has one."""
    known = constant(node, index)
    if known is None or not holds_floats(node) or not np.all(np.isfinite(known)):
        return UNORDERED
    if np.all(known > 0):
        return RISING
    return FALLING if np.all(known < 0) else UNORDERED


def _prelu_directions(node: Node) -> tuple[int, ...]:
    slope = constant(node, 1)
    rises = slope is not None and holds_floats(node) and bool(np.all(slope >= 0))
    return (RISING if rises else UNORDERED, UNORDERED)


def _binary(name: str, traits: dict[str, Any], **more: Any) -> Operator:
    # Opset 7 brought numpy's broadcasting; before, an attribute named the axis.
    return row("", Family.ARITHMETIC, name, "left right", changed=(7,), **traits, **more)


def _comparison(name: str, *directions: int, changed: tuple[int, ...] = ()) -> Operator:
    return row(
        *("", Family.COMPARISON, name, "left right"),
        **_BROADCAST,
        monotone=directions,
        order_is_exact=True,
        piecewise_constant=True,
        is_comparison=True,
        changed=changed,
    )


def _logic(names: str, inputs: str = "left right", **traits: Any) -> list[Operator]:
    known = {**_BROADCAST, "piecewise_constant": True, **traits}
    return rows("", Family.LOGIC, names, inputs, **known)


OPERATORS: tuple[Operator, ...] = (
    _binary(
        *("Add", _FRESH),
        in_numpy=np.add,
        monotone=_on_floats(RISING),
        order_is_exact=True,
        commutative=True,
        arithmetic=Arithmetic.ADDS,
    ),
    _binary(
        *("Sub", _FRESH),
        in_numpy=np.subtract,
        monotone=_on_floats(RISING, FALLING),
        order_is_exact=True,
        arithmetic=Arithmetic.ADDS,
    ),
    _binary(
        *("Mul", _FRESH),
        in_numpy=np.multiply,
        monotone=lambda node: (_sign_of(node, 1), _sign_of(node, 0)),
        order_is_exact=True,
        commutative=True,
        arithmetic=Arithmetic.MULTIPLIES,
    ),
    _binary(
        *("Div", _FRESH),
        in_numpy=np.divide,
        monotone=lambda node: (_sign_of(node, 1), UNORDERED),
        order_is_exact=True,
        arithmetic=Arithmetic.MULTIPLIES,
        # By a constant, the sign of a zero decides about signs of zeros only.
        tells_zeros_apart=lambda node: constant(node, 1) is None,
    ),
    _binary("Pow", _FRESH, in_numpy=np.power, tells_zeros_apart=True),
    row("", Family.ARITHMETIC, "Mod", "left right", **_BROADCAST),
    row(
        *("", Family.ARITHMETIC, "PRelu", "data +slope"),
        **_BROADCAST,
        monotone=_prelu_directions,
        order_is_exact=True,
        changed=(7,),
    ),
    row("", Family.ARITHMETIC, "SwiGLU", "left right", **_BROADCAST),
    *rows(
        *("", Family.ARITHMETIC, "Sum Mean", "data*"),
        **_BROADCAST,
        monotone=_on_floats(RISING),
        order_is_exact=True,
        # With three or more, their order decides how the sums are rounded.
        commutative=lambda node: len(node.inputs) <= 2,
        changed=(8,),
    ),
    *(
        row(
            *("", Family.ARITHMETIC, name, "data*"),
            **{**_FRESH, **_COMMUTES},
            in_numpy=function,
            monotone=(RISING,),
            order_is_exact=True,
            selects_by_order=True,
            clamps=True,
            changed=(8,),
        )
        for name, function in (("Max", np.maximum), ("Min", np.minimum))
    ),
    row(
        *("", Family.COMPARISON, "Equal", "left right"),
        **_BROADCAST,
        commutative=True,
        piecewise_constant=True,
        changed=(7,),
    ),
    _comparison("Greater", RISING, FALLING, changed=(7,)),
    _comparison("GreaterOrEqual", RISING, FALLING),
    _comparison("Less", FALLING, RISING, changed=(7,)),
    _comparison("LessOrEqual", FALLING, RISING),
    *(
        row(
            *("", Family.COMPARISON, name, "data"),
            **_BROADCAST,
            in_numpy=function,
            piecewise_constant=True,
        )
        for name, function in (("IsInf", np.isinf), ("IsNaN", np.isnan))
    ),
    row(
        *("", Family.LOGIC, "Where", "-condition left right"),
        **_FRESH,
        in_numpy=np.where,
        moves=Moves.SELECTS | Moves.REPEATS,
        monotone=(UNORDERED, RISING, RISING),
        order_is_exact=True,
    ),
    *_logic("And Or", **_COMMUTES, monotone=(RISING,), order_is_exact=True, changed=(7,)),
    *_logic("Xor", **_COMMUTES, changed=(7,)),
    *_logic("Not", "data", monotone=(FALLING,), order_is_exact=True),
    *_logic("BitwiseAnd BitwiseOr BitwiseXor", **_COMMUTES),
    *_logic("BitwiseNot", "data"),
    *rows("", Family.LOGIC, "BitShift", "left right", **_BROADCAST),
)
"""Their rows."""
