"""Options that only one importer has, as that importer's own dataclass."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

from qonnx_hub_adapters.protocol import ImportOptions
from qonnx_hub_ir.errors import UsageError

T = TypeVar("T")


def read_own_options(kind: type[T], adapter: str, options: ImportOptions) -> T:
    """Return an importer's options out of those of the call.

    Args:
        kind: The importer's dataclass; its fields are the options.
        adapter: Name of the importer, for the message.
        options: What the caller gave.

    Raises:
        UsageError: An option that does not exist.
    """
    dataclass: Any = kind
    known = {field.name for field in fields(dataclass)}
    unknown = sorted(set(options.extra) - known)
    if unknown:
        raise UsageError(
            f"adapter '{adapter}' has no option {', '.join(unknown)}; "
            f"it has {', '.join(sorted(known))}"
        )
    return kind(**dict(options.extra))
