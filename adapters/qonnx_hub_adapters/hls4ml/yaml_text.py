"""Plain data as YAML, for a config that people read and edit, and back."""

from __future__ import annotations

import importlib
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


def from_yaml(text: str) -> dict[str, Any]:
    """Return a text in YAML as mappings of texts, numbers, truth values and lists.

    What :func:`to_yaml` writes is read here, with comments and empty lines; for all else that
    YAML knows, the package PyYAML must be installed.

    Raises:
        ValueError: It is no YAML, no mapping, or needs PyYAML.
    """
    try:
        yaml = importlib.import_module("yaml")
    except ImportError:
        return _read(text)
    try:
        # Tags stand for objects of programs: as plain data they are refused.
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    if not isinstance(found, dict):
        raise ValueError("it is no mapping")  # noqa: TRY004  (of the text, not of an argument)
    return found


_ENTRY = re.compile(r"""( *)("(?:[^"\\]|\\.)*"|[^\s:#'"-][^:#]*):(?: +(.*))?""")


def _read(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    open_: list[tuple[int, dict[str, Any]]] = [(-1, found)]
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        matched = _ENTRY.fullmatch(line.rstrip())
        if matched is None:
            raise ValueError(f"line {number} is no 'name: value'; with PyYAML it may be read")
        indent, name, value = len(matched[1]), str(_value(matched[2], number)), matched[3]
        while open_[-1][0] >= indent:
            open_.pop()
        target = open_[-1][1]
        if value is None:
            target[name] = {}
            open_.append((indent, target[name]))
        else:
            target[name] = _value(value, number)
    return found


_TEXT = re.compile(r"[A-Za-z_][\w.<>/, +-]*|'[^']*'")


def _value(text: str, line: int) -> Any:
    if _TEXT.fullmatch(text) and text.lower() not in _RESERVED:
        return text.strip("'")
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"line {line} holds '{text}'; with PyYAML it may be read") from error


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
    return _flow(value)


def _flow(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_flow, value))}]"
    text = json.dumps(value)
    if isinstance(value, float) and "." not in text:
        text = text.replace("e", ".0e")  # without a point, YAML 1.1 takes it for a text
    return text
