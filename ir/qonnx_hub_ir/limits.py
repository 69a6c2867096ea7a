"""How much a source may take: bounds for files that somebody else made.

A file of some bytes can stand for more nodes, or unpack to more bytes, than any machine holds.
The bounds are generous; whoever trusts a larger file raises them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from qonnx_hub_ir.errors import SourceError, UsageError

MOST_NODES = 1 << 19
"""Nodes of a model, bodies and called functions included, where nothing else is said."""

_nodes: ContextVar[int] = ContextVar("_nodes", default=MOST_NODES)
_memory: ContextVar[int | None] = ContextVar("_memory", default=None)


@contextmanager
def reading_limits(
    *, max_memory: int | None = None, max_nodes: int | None = None
) -> Iterator[None]:
    """Bound what sources may take, while this is entered.

    Args:
        max_memory: Bytes that a file, its weights or its unpacked members may take; the
            memory of the machine by default.
        max_nodes: Nodes of a model, bodies and called functions included; half a million by
            default.

    Raises:
        UsageError: A bound below 1.

    Example:
        >>> with reading_limits(max_memory=1 << 30, max_nodes=10_000):
        ...     model = qh.load("model.onnx")
    """
    for name, bound in (("max_memory", max_memory), ("max_nodes", max_nodes)):
        if bound is not None and bound < 1:
            raise UsageError(f"{name} is {bound}; a bound is at least 1")
    nodes = _nodes.set(_nodes.get() if max_nodes is None else max_nodes)
    memory = _memory.set(_memory.get() if max_memory is None else max_memory)
    try:
        yield
    finally:
        _memory.reset(memory)
        _nodes.reset(nodes)


def require_nodes(count: int, what: str) -> None:
    """Refuse more nodes than a model may have.

    Args:
        count: How many there are.
        what: What has them, as the message says it.

    Raises:
        SourceError: There are more.
    """
    if count > (most := _nodes.get()):
        raise SourceError(
            f"{what} {count} nodes, more than {most}; a model that is trusted is read with "
            "--max-nodes (qonnx_hub_ir.limits.reading_limits in Python)"
        )


def require_memory(size: int, what: str) -> None:
    """Refuse what would take more memory than it may.

    Args:
        size: Bytes in memory.
        what: What takes them, as the message says it.

    Raises:
        SourceError: There are more.
    """
    most = _memory.get() or _machine_bytes()
    if size > most:
        raise SourceError(
            f"{what} takes {size} bytes in memory, more than {most}; a file that is trusted "
            "is read with --max-memory (qonnx_hub_ir.limits.reading_limits in Python)"
        )


def _machine_bytes() -> int:
    """Return the memory of the machine; 64 GiB where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 1 << 36
