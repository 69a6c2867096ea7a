"""Arguments of an operation, which lie in its call, by name, or in its configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx_ir import Value

from qonnx_hub_adapters.keras_files.kinds import Use
from qonnx_hub_adapters.keras_files.scope import Scope

FLOAT = 1


class Arguments:
    """The arguments of a call, by position and name."""

    def __init__(self, s: Scope, use: Use) -> None:
        self._s, self.args = s, list(use.args)
        self.named = {**use.config, **use.kwargs}

    def tensor(self, index: int, *names: str) -> Value:
        """Return an argument as a value; numbers become constants."""
        found = self.plain(index, *names)
        value = self._s.value(found if not isinstance(found, list) else np.asarray(found))
        if value is None:
            raise self._s.fail(f"has no argument {names or index}")
        return value

    def plain(self, index: int, *names: str, default: Any = None) -> Any:
        """Return an argument as the file has it."""
        if 0 <= index < len(self.args):
            return self.args[index]
        for name in names:
            if self.named.get(name) is not None:
                return self.named[name]
        return default

    def axes(self, s: Scope, x: Value, default: Any = None) -> list[int] | None:
        """Return the axes that are reduced, ``None`` for all."""
        axis = self.plain(1, "axis", default=default)
        if axis is None:
            return None
        rank = s.rank(x)
        return [int(a) % rank for a in (axis if isinstance(axis, (list, tuple)) else [axis])]


Writes = Callable[[Scope, Arguments], Any]
"""Writes an operation; gives a value, or a list of them."""


def of_one_type(s: Scope, a: Arguments, op_type: str) -> tuple[Value, Value]:
    """Return two operands of one type, as Keras promotes whole numbers and truth values.

    A whole number takes the type that it meets; otherwise, and where one divides, floats win.
    """
    plain = a.plain(0, "x", "x1"), a.plain(1, "y", "x2")
    operands = [a.tensor(0, "x", "x1"), a.tensor(1, "y", "x2")]
    types = [value.dtype for value in operands]
    if None in types or (types[0] == types[1] and op_type != "Div"):
        return operands[0], operands[1]
    for number, one in enumerate(plain):
        other = types[1 - number]
        if isinstance(one, int) and op_type != "Div" and other is not None:
            operands[number] = s.op("Cast", operands[number], to=int(other))
            return operands[0], operands[1]
    left, right = (
        value
        if value.dtype is None or value.dtype.is_floating_point()
        else s.op("Cast", value, to=FLOAT)
        for value in operands
    )
    return left, right
