"""Flatbuffers written by the table of the schema, without any package."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from qonnx_hub_adapters.tflite.container import Table
from qonnx_hub_adapters.tflite.schema import (
    IDENTIFIER,
    SCHEMA_VERSION,
    TableField,
    fields_of,
    options_table,
)

_ALIGNED = 16
"""Where the bytes of a vector begin: runtimes read weights in place."""


def write_container(model: Table) -> bytes:
    """Return a table ``Model`` as the bytes of a file; fields that are absent are left out.

    Args:
        model: Field -> value, as :func:`~.container.read_container` gives them.

    Example:
        >>> read_container(write_container(model))["description"]
        'made by qonnx-hub'
    """
    out = bytearray(struct.pack("<I", 0) + IDENTIFIER)
    root = _table(out, "Model", model | {"version": SCHEMA_VERSION})
    struct.pack_into("<I", out, 0, root)
    return bytes(out)


def _pad(out: bytearray, to: int, ahead: int = 0) -> None:
    """Fill up until what comes so many bytes later lies on a multiple."""
    out.extend(b"\0" * (-(len(out) + ahead) % to))


def _table(out: bytearray, name: str, values: Table) -> int:
    """Append a table and all below it; return where it lies."""
    kept = [f for f in fields_of(name) or () if not _is_default(f, values.get(f.name))]
    kept.sort(key=_size, reverse=True)
    places, end = {}, 4
    for field in kept:
        end += -end % _size(field)
        places[field.slot] = end
        end += _size(field)
    slots = max(places, default=-1) + 1
    vtable = struct.pack("<HH", 4 + 2 * slots, end)
    vtable += b"".join(struct.pack("<H", places.get(i, 0)) for i in range(slots))
    _pad(out, 8, len(vtable))
    out.extend(vtable)
    at = len(out)
    out.extend(struct.pack("<i", len(vtable)) + b"\0" * (end - 4))
    for field in kept:
        place, value = at + places[field.slot], values[field.name]
        if not field.is_vector and len(field.kind) == 1 and field.kind != "s":
            struct.pack_into(f"<{field.kind}", out, place, value)
            continue
        below = _below(out, field, value, values)
        struct.pack_into("<I", out, place, below - place)
    return at


def _is_default(field: TableField, value: Any) -> bool:
    if value is None:
        return True
    if field.is_vector or field.kind == "s":
        return len(value) == 0
    return len(field.kind) == 1 and value == field.default


def _size(field: TableField) -> int:
    if field.is_vector or len(field.kind) > 1 or field.kind == "s":
        return 4
    return struct.calcsize(f"<{field.kind}")


def _below(out: bytearray, field: TableField, value: Any, values: Table) -> int:
    """Append what a field points to; return where it lies."""
    if not field.is_vector:
        if field.kind == "s":
            return _string(out, value)
        union = options_table(int(values.get("builtin_options_type", 0)))
        return _table(out, union if field.kind == "table" else field.kind, value)
    if field.kind == "B":
        return _numbers(out, bytes(value), len(value), _ALIGNED)
    if len(field.kind) == 1 and field.kind != "s":
        raw = np.asarray(value, dtype=bool if field.kind == "?" else f"<{field.kind}")
        return _numbers(out, raw.tobytes(), raw.size, max(raw.itemsize, 4))
    at = _numbers(out, b"\0" * (4 * len(value)), len(value), 4)
    for index, item in enumerate(value):
        below = _string(out, item) if field.kind == "s" else _table(out, field.kind, item)
        place = at + 4 + 4 * index
        struct.pack_into("<I", out, place, below - place)
    return at


def _string(out: bytearray, text: str) -> int:
    raw = text.encode()
    return _numbers(out, raw + b"\0", len(raw), 4)


def _numbers(out: bytearray, raw: bytes, count: int, to: int) -> int:
    _pad(out, to, 4)
    at = len(out)
    out.extend(struct.pack("<I", count) + raw)
    return at
