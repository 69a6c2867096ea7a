"""Options that only one adapter has, as that adapter's own dataclass."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from typing import Any, TypeVar

from qonnx_hub_adapters.protocol import ExportOptions, ImportOptions
from qonnx_hub_ir.errors import UsageError

T = TypeVar("T")


def read_own_options(kind: type[T], adapter: str, options: ImportOptions | ExportOptions) -> T:
    """Return an adapter's own options out of those of the call.

    Args:
        kind: The adapter's dataclass; its fields are the options.
        adapter: Name of the adapter, for the message.
        options: What the caller gave.

    Raises:
        UsageError: An option that does not exist, or a value that it cannot have.
    """
    dataclass: Any = kind
    refuse_unknown_options(adapter, options, [field.name for field in fields(dataclass)])
    return kind(**dict(options.extra))


def refuse_unknown_options(
    adapter: str, options: ImportOptions | ExportOptions, known: Collection[str]
) -> None:
    """Refuse options that would have no effect.

    Raises:
        UsageError: An option that the adapter does not have.
    """
    unknown = sorted(set(options.extra) - set(known))
    if unknown:
        what = "adapter" if isinstance(options, ImportOptions) else "the form"
        raise UsageError(
            f"{what} '{adapter}' has no option {', '.join(unknown)}; "
            f"it has {', '.join(sorted(known)) or 'none'}"
        )
