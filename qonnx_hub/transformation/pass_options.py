"""Options of passes as text: ``batch=4,inputs=a,inputs=b,names=old=new,masks=@masks.npz``.

Options and their types are the fields of the pass's dataclass.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx_ir.passes import InPlacePass

from qonnx_hub.io.arrays import read_arrays
from qonnx_hub_ir.errors import UsageError

_WORD_LIST = re.compile(r"\[(\s*[A-Za-z_][\w./:]*(?:\s*,\s*[A-Za-z_][\w./:]*)*\s*)\]")
"""A list of names without quotes: [h,aq]."""

_CLOSING = {"[": "]", "{": "}"}
_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def option_names(cls: type[InPlacePass]) -> tuple[str, ...]:
    """Return a line for every option of a pass: "name: type = default"."""
    words = []
    hints = _hints(cls)
    for option in _fields(cls):
        default, value = "", option.default
        if option.default_factory is not dataclasses.MISSING or value in (None, (), {}):
            default = " = none"
        elif value is not dataclasses.MISSING:
            default = f" = {str(value).lower() if isinstance(value, bool) else value}"
        words.append(f"{option.name}: {_type_words(hints[option.name])}{default}")
    return tuple(words)


def build(cls: type[InPlacePass], name: str, text: str) -> InPlacePass:
    """Return a pass with the options that a text gives it.

    Args:
        cls: Its class.
        name: Its name, for messages.
        text: "option=value,..."; empty for none.

    Raises:
        UsageError: An unknown option, one that is missing, or a value of another type.
    """
    known = {option.name: option for option in _fields(cls)}
    given: dict[str, list[str]] = {}
    for part in split(text):
        option, equals, value = part.partition("=")
        option = option.strip()
        if not equals or option not in known:
            raise UsageError(f"pass '{name}' has no option '{option}'; {_known(cls)}")
        given.setdefault(option, []).append(value.strip())
    missing = [
        option.name
        for option in known.values()
        if option.name not in given
        and option.default is dataclasses.MISSING
        and option.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UsageError(f"pass '{name}' needs {', '.join(missing)}; {_known(cls)}")
    hints = _hints(cls)
    values = {
        option: _convert(texts, hints[option], f"option '{option}' of pass '{name}'")
        for option, texts in given.items()
    }
    return cls(**values)


def split(text: str) -> list[str]:
    """Return the parts between commas; commas in brackets and quotes separate nothing."""
    parts, start, open_ = [], 0, ""
    quoted = escaped = False
    for place, sign in enumerate(text):
        if quoted:
            quoted = sign != '"' or escaped
            escaped = sign == "\\" and not escaped
        elif sign == '"':
            quoted = True
        elif sign in _CLOSING:
            open_ += _CLOSING[sign]
        elif open_ and sign == open_[-1]:
            open_ = open_[:-1]
        elif sign == "," and not open_:
            parts.append(text[start:place])
            start = place + 1
    parts.append(text[start:])
    return [part.strip() for part in parts if part.strip()]


def _fields(cls: type[InPlacePass]) -> tuple[dataclasses.Field[Any], ...]:
    if not dataclasses.is_dataclass(cls):
        return ()
    return tuple(option for option in dataclasses.fields(cls) if option.init)


def _hints(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls)
    except (NameError, TypeError):
        # A type that only a type checker can see: values are taken as JSON or text.
        return {option.name: Any for option in _fields(cls)}


def _known(cls: type[InPlacePass]) -> str:
    words = "; ".join(option_names(cls))
    return f"its options are: {words}" if words else "it takes no options"


def _type_words(hint: Any) -> str:
    names = {bool: "true|false", int: "whole number", float: "number", str: "text"}
    if hint in names:
        return names[hint]
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if _is_union(origin):
        kept = [arg for arg in args if arg is not type(None)]
        return " or ".join(dict.fromkeys(_type_words(arg) for arg in kept))
    if _is_mapping(origin):
        return f"name={_type_words(args[1])}, repeated"
    if _is_sequence(origin):
        return f"{_type_words(args[0])}, repeated"
    return "value"


def _is_union(origin: Any) -> bool:
    return origin is typing.Union or origin is types.UnionType


def _is_mapping(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _is_sequence(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, Sequence)


def _convert(texts: list[str], hint: Any, where: str) -> Any:
    """Return the value of one option from the texts given for it."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if _is_union(origin):
        empty = texts in (["none"], [""])
        return _first_that_fits(_convert, texts, args, where, is_none=empty)
    if _is_mapping(origin):
        return _mapping(texts, args, where)
    if _is_sequence(origin):
        given = [_read(text, where) for text in texts]
        items = [i for one in given for i in (one if isinstance(one, list) else [one])]
        return tuple(_single(item, args[0], where) for item in items)
    if len(texts) > 1:
        raise UsageError(f"{where} is given {len(texts)} times; it takes one value")
    return _single(_read(texts[0], where), hint, where)


def _first_that_fits(
    read: Callable[[Any, Any, str], Any],
    value: Any,
    hints: Sequence[Any],
    where: str,
    *,
    is_none: bool,
) -> Any:
    """Return a value as the first of several types that takes it."""
    if is_none and type(None) in hints:
        return None
    *others, last = (hint for hint in hints if hint is not type(None))
    for hint in others:
        with contextlib.suppress(UsageError):
            return read(value, hint, where)
    return read(value, last, where)


def _mapping(texts: list[str], args: tuple[Any, ...], where: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in texts:
        if text.startswith(("{", "@")):
            read = _read(text, where)
            if not isinstance(read, Mapping):
                raise UsageError(f"{where} takes names and values, not '{text}'")
            entries = {str(key): value for key, value in read.items()}
        else:
            key, equals, value = text.partition("=")
            if not equals:
                raise UsageError(f"{where} takes name=value, not '{text}'")
            entries = {key.strip(): _read(value.strip(), where)}
        found.update((key, _single(value, args[1], where)) for key, value in entries.items())
    return found


def _read(text: str, where: str) -> Any:
    """Return the value of a text: a file's content, JSON, or the text itself."""
    if text.startswith("@"):
        return _read_file(Path(text[1:]), where)
    if text.startswith(("{", "[", '"')):
        if (words := _WORD_LIST.fullmatch(text)) is not None:
            return [word.strip() for word in words[1].split(",")]
        try:
            return json.loads(text)
        except ValueError as error:
            raise UsageError(f"{where}: '{text}' is not JSON: {error}") from error
    return text


def _read_file(path: Path, where: str) -> Any:
    if not path.is_file():
        raise UsageError(f"{where}: there is no file '{path}'")
    try:
        if path.suffix.lower() == ".npz":
            return read_arrays(path)
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, UsageError) as error:
        raise UsageError(
            f"{where}: '{path}' cannot be read as a {path.suffix} file: {error}"
        ) from (error)


def _single(value: Any, hint: Any, where: str) -> Any:
    """Return one value as the type that an option asks for."""
    if hint is Any or hint is object:
        return value
    args = typing.get_args(hint)
    if _is_union(typing.get_origin(hint)):
        return _first_that_fits(_single, value, args, where, is_none=value is None)
    origin = typing.get_origin(hint)
    # From Python 3.12 on, numpy's alias for arrays is no type itself.
    named = getattr(origin, "__value__", None)
    if np.ndarray in (hint, origin, typing.get_origin(named)):
        return np.asarray(value)
    if _is_sequence(typing.get_origin(hint)):
        items = value if isinstance(value, (list, tuple)) else [value]
        return tuple(_single(item, args[0], where) for item in items)
    if hint is bool and isinstance(value, (bool, str)) and str(value).lower() in _WORDS:
        return _WORDS[str(value).lower()]
    if hint is str:
        return str(value)
    if hint in (int, float) and not isinstance(value, bool):
        try:
            if hint is float or isinstance(value, str) or int(value) == value:
                return hint(value)
        except (TypeError, ValueError):
            pass
    raise UsageError(f"{where} takes {_type_words(hint)}, not '{value}'")
