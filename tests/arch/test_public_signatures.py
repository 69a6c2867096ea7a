"""How everything public is called: kept in a file, so that a change shows in a review.

After a wanted change: ``python -m tests.arch.test_public_signatures`` writes the file anew.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_origin

import qonnx_hub as qh
import qonnx_hub.compat
import qonnx_hub.testing
import qonnx_hub_adapters.protocol
import qonnx_hub_ir.errors

KEPT = Path(__file__).with_name("public_signatures.txt")

MODULES = (
    qh,
    qh.passes,
    qh.zoo,
    qh.compat,
    qh.testing,
    qh.ir,
    qonnx_hub_ir.errors,
    qonnx_hub_adapters.protocol,
)


def _public_names(module: Any) -> list[str]:
    listed = getattr(module, "__all__", None)
    if listed is not None:
        return sorted(listed)
    return sorted(
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    )


def _callables(name: str, value: Any) -> Iterator[str]:
    if inspect.isfunction(value):
        yield f"{name}{inspect.signature(value)}"
    # Python 3.10 takes an alias such as Mapping[str, Array] for a class.
    if not inspect.isclass(value) or get_origin(value) is not None:
        return
    # How enumerations, protocols and plain errors are called depends on the Python version.
    if issubclass(value, Enum):
        yield f"{name}: {', '.join(member.name for member in value)}"
        return
    own = inspect.isfunction(vars(value).get("__init__")) and not is_protocol(value)
    yield f"{name}{inspect.signature(value)}" if own else name
    for method, inner in sorted(vars(value).items()):
        if not method.startswith("_") and inspect.isfunction(inner):
            yield f"{name}.{method}{inspect.signature(inner)}"


def is_protocol(kind: type) -> bool:
    return bool(getattr(kind, "_is_protocol", False))


def signatures() -> str:
    """Return every public callable with its signature, one per line."""
    lines = (
        line
        for module in MODULES
        for name in _public_names(module)
        for line in _callables(f"{module.__name__}.{name}", getattr(module, name))
    )
    return "\n".join(dict.fromkeys(lines)) + "\n"


def test_public_signatures_are_those_that_were_agreed_on() -> None:
    assert signatures() == KEPT.read_text(encoding="utf-8")


if __name__ == "__main__":
    KEPT.write_text(signatures(), encoding="utf-8")
