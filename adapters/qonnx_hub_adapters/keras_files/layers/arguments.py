"""Arguments of an operation, which lie in its call, by name, or in its configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx_ir import DataType, Value

from qonnx_hub_adapters.keras_files.kinds import Use
from qonnx_hub_adapters.keras_files.scope import Scope

FLOAT = 1


class Arguments:
    """The arguments of a call, by position and name; each has to be read."""

    def __init__(self, s: Scope, use: Use) -> None:
        self._s, self.args = s, list(use.args)
        self.named = {**use.config, **use.kwargs}
        self.named.pop("name", None)
        self._read: set[int | str] = set()

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
            self._read.add(index)
            return self.args[index]
        for name in names:
            if self.named.get(name) is not None:
                self._read.add(name)
                return self.named[name]
        return default

    def axes(self, s: Scope, x: Value, default: Any = None) -> list[int] | None:
        """Return the axes that are reduced, ``None`` for all."""
        axis = self.plain(1, "axis", default=default)
        if axis is None:
            return None
        rank = s.rank(x)
        return [int(a) % rank for a in (axis if isinstance(axis, (list, tuple)) else [axis])]

    def require_all_read(self) -> None:
        """Refuse a call with an argument that nothing has read.

        Raises:
            SourceError: There is one that is not ``None`` or ``False``.
        """
        given = [*enumerate(self.args), *self.named.items()]
        for name, value in given:
            if name not in self._read and value is not None and value is not False:
                raise self._s.fail(f"its argument {name!r} is not supported")


Writes = Callable[[Scope, Arguments], Any]
"""Writes an operation; gives a value, or a list of them."""


def of_one_type(s: Scope, a: Arguments, op_type: str) -> tuple[Value, Value]:
    """Return two operands of one type, as Keras promotes whole numbers and truth values.

    A whole number takes the type that it meets, and so does a truth value; otherwise, and
    where one divides, floats win.

    Raises:
        SourceError: Frameworks differ in the type: whole numbers of two sizes, or divided in
            Keras 2.
    """
    plain = a.plain(0, "x", "x1"), a.plain(1, "y", "x2")
    operands = [a.tensor(0, "x", "x1"), a.tensor(1, "y", "x2")]
    types = [value.dtype for value in operands if value.dtype is not None]
    if len(types) < 2:
        return operands[0], operands[1]
    for number, one in enumerate(plain):
        if isinstance(one, int) and op_type != "Div":
            other = types[1 - number]
            types[number] = DataType.INT32 if other == DataType.BOOL else other
    wanted: DataType = DataType.FLOAT
    wholes = [one for one in types if not one.is_floating_point()]
    if op_type == "Div" and wholes:
        if s.net.generation == 2:
            raise s.fail("divides whole numbers, in float64; cast them to float32 before")
    elif not wholes:
        wanted = types[0]
    elif len(wholes) == 2:
        wanted = types[1] if types[0] == DataType.BOOL else types[0]
        if types[1] not in (wanted, DataType.BOOL):
            raise s.fail("takes whole numbers of two types; cast one before")
    left, right = (
        value if value.dtype == wanted else s.op("Cast", value, to=int(wanted))
        for value in operands
    )
    return left, right
