"""Options of reading that stand anywhere on a command line: which files, and how large."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

EXTERNAL, MEMORY, NODES = "--allow-external", "--max-memory", "--max-nodes"

_UNITS: Mapping[str, int] = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


def taken_out(arguments: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Return the arguments without these options, and what each of the options was given.

    Example:
        >>> taken_out(["run", "m.onnx", "--max-nodes=10"])[0]
        ['run', 'm.onnx']
    """
    found: dict[str, list[str]] = {EXTERNAL: [], MEMORY: [], NODES: []}
    kept, left = [], iter(arguments)
    for text in left:
        name, is_joined, value = text.partition("=")
        if name not in found:
            kept.append(text)
        elif is_joined:
            found[name].append(value)
        elif (after := next(left, None)) is not None:
            found[name].append(after)
        else:
            kept.append(text)  # the parser says what is missing
    return kept, found


@contextmanager
def reading_as_told(found: Mapping[str, Sequence[str]]) -> Iterator[None]:
    """Read sources as these options say, while this is entered.

    Args:
        found: Option -> what it was given, as :func:`taken_out` returns it.

    Raises:
        UsageError: A folder that is none, or a bound that is no number.
    """
    if not any(found.values()):
        yield
        return
    # Imported here because it loads ONNX, which --help does not need.
    from qonnx_hub_adapters.external_data import allowed_folders
    from qonnx_hub_ir.limits import reading_limits

    memory, nodes = ([_number(name, text) for text in found[name]] for name in (MEMORY, NODES))
    with ExitStack() as stack:
        stack.enter_context(allowed_folders(*found[EXTERNAL]))
        limits = reading_limits(
            max_memory=memory[-1] if memory else None, max_nodes=nodes[-1] if nodes else None
        )
        stack.enter_context(limits)
        yield


def _number(name: str, text: str) -> int:
    """Return what a text such as "4G" says.

    Raises:
        UsageError: It says no number above 0.
    """
    from qonnx_hub_ir.errors import UsageError

    read = re.fullmatch(r"([1-9]\d{0,17})([KMGT]?)(?:i?B)?", text, re.IGNORECASE | re.ASCII)
    if read is None:
        raise UsageError(f"{name}: '{text}' is no number above 0, such as 500000 or 8G")
    return int(read[1]) << _UNITS[read[2].upper()]
