"""The table: one row per operator, found by domain and name."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import onnx.defs
from onnx_ir import Node

from qonnx_hub_ir import dialect
from qonnx_hub_ir.operators import (
    arithmetic,
    functions,
    movement,
    normalization,
    onnxruntime,
    others,
    pooling,
    products,
    qonnx_general,
    quantizers,
    reductions,
    tflite,
)
from qonnx_hub_ir.operators.channels_last import channels_last
from qonnx_hub_ir.operators.row import UNKNOWN, Moves, Operator

T = TypeVar("T")

_STANDARD = (
    *arithmetic.OPERATORS,
    *functions.OPERATORS,
    *products.OPERATORS,
    *movement.OPERATORS,
    *pooling.OPERATORS,
    *reductions.OPERATORS,
    *normalization.OPERATORS,
    *quantizers.OPERATORS,
    *qonnx_general.OPERATORS,
    *others.OPERATORS,
)


def _by_key(operators: Iterable[Operator]) -> Mapping[tuple[str, str], Operator]:
    table: dict[tuple[str, str], Operator] = {}
    for operator in operators:
        key = (operator.domain, operator.name)
        if key in table:
            raise ValueError(f"operator {key} has two rows")
        table[key] = operator
        if not operator.domain:
            table["ai.onnx", operator.name] = operator
    return table


OPERATORS: tuple[Operator, ...] = (
    *_STANDARD,
    *channels_last(_STANDARD),
    *onnxruntime.OPERATORS,
    *tflite.OPERATORS,
)
"""All rows."""

_TABLE = _by_key(OPERATORS)


def of(node: Node) -> Operator:
    """Return the row of a node's operator; of what has none, nothing good is known."""
    return _TABLE.get((node.domain, node.op_type), UNKNOWN)


def find(domain: str, name: str) -> Operator:
    """Return the row of an operator by its domain and name, or that of the unknown."""
    return _TABLE.get((domain, name), UNKNOWN)


@functools.cache
def is_opaque_name(domain: str, name: str) -> bool:
    """Return whether no row, and no operator document of ONNX, knows an operator.

    Of its nodes nothing is known but what they read and make. They are passed through as they
    are, and only a runtime that has them can run them.
    """
    standard = "" if domain in dialect.STANDARD_DOMAINS else domain
    return find(standard, name) is UNKNOWN and not onnx.defs.has(name, standard)


def is_opaque(node: Node) -> bool:
    """Return whether nothing knows a node's operator; see :func:`is_opaque_name`."""
    return is_opaque_name(node.domain, node.op_type)


def where(
    test: Callable[[Operator], Any] | None = None, *, domain: str | None = "", **traits: Any
) -> tuple[Operator, ...]:
    """Return the rows with these traits.

    Args:
        test: What else a row must fulfil.
        domain: The domain; ``None`` for all of them.
        traits: Field of :class:`Operator` -> the value that it must have. A trait that is a
            function of the node equals no value: such rows are left out.
    """
    return tuple(
        operator
        for operator in OPERATORS
        if domain in (None, operator.domain)
        and all(getattr(operator, field) == value for field, value in traits.items())
        and (test is None or test(operator))
    )


def assign(
    rule: T,
    test: Callable[[Operator], Any] | None = None,
    *,
    domain: str | None = "",
    **traits: Any,
) -> dict[tuple[str, str], T]:
    """Return (domain, name) -> the rule, for every operator with these traits.

    Args:
        rule: What a room says of each of them.
        test: As in :func:`where`, like all that follows.
        domain: The domain; ``None`` for all of them.
        traits: Field of :class:`Operator` -> the value that it must have.
    """
    return {(row.domain, row.name): rule for row in where(test, domain=domain, **traits)}


def read_lists(text: str) -> Mapping[str, frozenset[str]]:
    """Return names by the word before them, as in ``"sums: Add Conv free: Relu"``.

    This is how tables of other tools are written, about whose operators ours is not asked.
    """
    parts = re.split(r"(\w+):", text)[1:]
    return {
        head: frozenset(names.split())
        for head, names in zip(parts[::2], parts[1::2], strict=True)
    }


def always_moves(operator: Operator) -> bool:
    """Return whether every node of an operator moves values, whatever its attributes say."""
    return isinstance(operator.moves, Moves) and not operator.moves & Moves.INSERTS


def names(
    test: Callable[[Operator], Any] | None = None, *, domain: str | None = "", **traits: Any
) -> frozenset[str]:
    """Return the names of the rows with these traits, as :func:`where` finds them."""
    return frozenset(operator.name for operator in where(test, domain=domain, **traits))
