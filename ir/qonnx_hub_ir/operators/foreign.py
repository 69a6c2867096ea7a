"""Operators of other distributions: what they compute, and the shapes of what they make.

A distribution names them under the entry point ``qonnx_hub.operators``::

    [project.entry-points."qonnx_hub.operators"]
    mine = "my_package.hub:OPERATORS"

    OPERATORS = (ForeignOperator("my.ops", "Twice", kernel=twice),)

    def twice(attributes):
        return lambda x: x * attributes.get("k", 2)

No rule of this project knows anything of them: passes go around them, ranges and proofs stop.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from qonnx_hub_ir.errors import AdapterConflictError, UsageError

GROUP = "qonnx_hub.operators"
"""Entry points of operators: any name -> "module:sequence of ForeignOperator"."""

Sizes = tuple["int | str | None", ...]
"""Sizes of a tensor: numbers, names of open sizes, ``None`` where nothing is known."""


@dataclass(frozen=True, slots=True)
class ForeignOperator:
    """An operator that this project does not know.

    Attributes:
        domain: Its domain.
        name: Its name.
        kernel: Takes the attributes of a node, by name, and returns a function of the arrays
            of its inputs (``None`` for one that is left out) that returns one array, or a
            tuple of arrays. Arrays must not be changed.
        shapes: Takes the sizes of the inputs (``None`` where the rank is not known) and the
            attributes, and returns the sizes of the outputs; without it, they are what the
            file says.
    """

    domain: str
    name: str
    kernel: Callable[[Mapping[str, Any]], Callable[..., Any]]
    shapes: (
        Callable[[Sequence[Sizes | None], Mapping[str, Any]], Sequence[Sizes | None]] | None
    ) = None


@functools.cache
def foreign_operators() -> Mapping[tuple[str, str], ForeignOperator]:
    """Return (domain, name) -> operator, of all distributions that are installed.

    Raises:
        AdapterConflictError: Two distributions name one operator.
        UsageError: What an entry point names cannot be imported, or holds something else.
    """
    found: dict[tuple[str, str], ForeignOperator] = {}
    for point in sorted(entry_points(group=GROUP), key=lambda p: (p.name, p.value)):
        module, _, attribute = point.value.partition(":")
        try:
            held = tuple(getattr(importlib.import_module(module), attribute))
        except (ImportError, AttributeError, TypeError) as error:
            raise UsageError(
                f"the operators '{point.value}' cannot be read: {error}"
            ) from error
        for one in held:
            if not isinstance(one, ForeignOperator):
                raise UsageError(f"'{point.value}' holds a {type(one).__name__}, no operator")
            if found.setdefault((one.domain, one.name), one) is not one:
                raise AdapterConflictError(
                    f"two distributions have the operator '{one.domain}::{one.name}'; "
                    "uninstall one of them"
                )
    return found
