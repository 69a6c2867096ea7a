"""Flatbuffers read by the table of the schema; every offset is checked before use."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from qonnx_hub_adapters.tflite.schema import (
    IDENTIFIER,
    SCHEMA_VERSION,
    TableField,
    fields_of,
    options_table,
)
from qonnx_hub_ir.errors import SourceError

MOST_TABLES = 1_000_000
"""More tables than any net has: a file whose offsets lead in circles ends here."""

_DEEPEST = 12
"""How deep tables lie in each other at most; the schema's own are five deep."""

Table = dict[str, Any]
"""Field -> value: a number, ``str``, bytes, a numpy vector, a table, or a list of these."""


@dataclass(slots=True)
class _Budget:
    tables: int = MOST_TABLES


def read_container(data: bytes) -> Table:
    """Return the table ``Model`` of a file.

    Args:
        data: The whole file.

    Raises:
        SourceError: It is no TFLite file of version 3, or something in it points out of it.

    Example:
        >>> read_container(path.read_bytes())["subgraphs"][0]["operators"]
    """
    if len(data) < 8 or data[4:8] != IDENTIFIER:
        found = "it is empty" if not data else "the identifier TFL3 is missing"
        raise SourceError(f"no TFLite file: {found}")
    reader = _Reader(data, _Budget())
    model = reader.table(reader.offset(0), "Model", 0)
    if model["version"] != SCHEMA_VERSION:
        raise SourceError(
            f"the file is of schema version {model['version']}, {SCHEMA_VERSION} is read; "
            "convert it with a newer TensorFlow"
        )
    return model


@dataclass(frozen=True, slots=True)
class _Reader:
    """One file.

    Attributes:
        data: Its bytes.
        budget: How many tables may still be read.
    """

    data: bytes
    budget: _Budget

    def number(self, kind: str, at: int) -> Any:
        """Return one number."""
        size = struct.calcsize(f"<{kind}")
        if not 0 <= at <= len(self.data) - size:
            raise SourceError(f"the file is damaged: byte {at} is behind its end")
        return struct.unpack_from(f"<{kind}", self.data, at)[0]

    def offset(self, at: int) -> int:
        """Return where an offset leads."""
        return at + int(self.number("I", at))

    def table(self, at: int, name: str, depth: int) -> Table:
        """Return a table with all its fields."""
        self.budget.tables -= 1
        if self.budget.tables < 0 or depth > _DEEPEST:
            raise SourceError("the file is damaged: its tables never end")
        listed = fields_of(name)
        if listed is None:
            return {}
        offsets = at - int(self.number("i", at))
        size = int(self.number("H", offsets))
        if size < 4 or size % 2:
            raise SourceError(f"the file is damaged: a {name} at byte {at} has no fields")
        found: Table = {}
        for field in listed:
            place = offsets + 4 + 2 * field.slot
            shift = int(self.number("H", place)) if place < offsets + size else 0
            found[field.name] = self.field(field, at + shift if shift else None, depth)
        union = options_table(int(found.get("builtin_options_type", 0)))
        if union and isinstance(found.get("builtin_options"), int):
            found["builtin_options"] = self.table(found["builtin_options"], union, depth + 1)
        return found

    def field(self, field: TableField, at: int | None, depth: int) -> Any:
        """Return one field; its default where the table does not hold it."""
        if field.is_vector:
            return self.vector(field, None if at is None else self.offset(at), depth)
        if len(field.kind) == 1 and field.kind != "s":
            return field.default if at is None else self.number(field.kind, at)
        if at is None:
            return "" if field.kind == "s" else None
        inner = self.offset(at)
        if field.kind == "s":
            return self.span(inner).decode("utf-8", "replace")
        if field.kind == "table":
            self.number("i", inner)
            return inner
        return self.table(inner, field.kind, depth + 1)

    def vector(self, field: TableField, at: int | None, depth: int) -> Any:
        """Return the elements of a vector: an array of numbers, or a list."""
        if field.kind == "B":
            return b"" if at is None else self.span(at)
        is_numbers = len(field.kind) == 1 and field.kind != "s"
        if at is None:
            return np.zeros(0, dtype=_dtype(field.kind)) if is_numbers else []
        if is_numbers:
            raw = self.span(at, struct.calcsize(f"<{field.kind}"))
            return np.frombuffer(raw, dtype=_dtype(field.kind))
        count = len(self.span(at, 4)) // 4
        places = [self.offset(at + 4 + 4 * i) for i in range(count)]
        if field.kind == "s":
            return [self.span(place).decode("utf-8", "replace") for place in places]
        if field.kind == "table":
            return places
        return [self.table(place, field.kind, depth + 1) for place in places]

    def span(self, at: int, size: int = 1) -> bytes:
        """Return the bytes of a vector whose elements have a size."""
        count = int(self.number("I", at))
        if count * size > len(self.data) - at - 4:
            raise SourceError(
                f"the file is damaged: a vector at byte {at} has {count} elements and reaches "
                "behind its end"
            )
        return self.data[at + 4 : at + 4 + count * size]


def _dtype(kind: str) -> np.dtype[Any]:
    return np.dtype(bool if kind == "?" else f"<{kind}")
