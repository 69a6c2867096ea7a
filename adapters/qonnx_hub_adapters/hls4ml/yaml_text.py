"""Plain data as YAML, for a config that people read and edit."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_][\w.<>/-]*\Z")
_RESERVED = frozenset(
    {"true", "false", "yes", "no", "on", "off", "null", "y", "n", "nan", "inf"}
)


def to_yaml(data: Mapping[str, Any]) -> str:
    """Return mappings of texts, numbers, truth values and lists as YAML, keys in order.

    Texts that YAML could take for something else are quoted as JSON quotes them, which is
    YAML as well.
    """
    return "\n".join(_lines(data, "")) + "\n"


def _lines(data: Mapping[str, Any], indent: str) -> list[str]:
    lines: list[str] = []
    for key, value in data.items():
        label = f"{indent}{_scalar(key)}:"
        if isinstance(value, Mapping) and value:
            lines += [label, *_lines(value, indent + "  ")]
        else:
            lines.append(f"{label} {_scalar(value)}")
    return lines


def _scalar(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{}"
    if isinstance(value, str) and _PLAIN.match(value) and value.lower() not in _RESERVED:
        return value
    return json.dumps(value)
