"""Text for terminals: names of a model are shown as they are spelled, and steer nothing."""

from __future__ import annotations

import os
import sys
from typing import Any

from rich.console import Console
from rich.text import Text

GONE = 141
"""Exit code when the reader of the output went away: 128 and the number of its signal."""

_KEPT = "\n\t"
_STEERING = (*range(0x20), *range(0x7F, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A))
"""Control characters, and those that turn the direction of what follows."""

_SPELLED = {code: ascii(chr(code))[1:-1] for code in _STEERING if chr(code) not in _KEPT}


def visible(text: str) -> str:
    r"""Return text in which characters that steer a terminal are spelled out.

    Line breaks and tabs stay.

    Example:
        >>> print(visible("a\x1b[31m"))
        a\x1b[31m
    """
    return text.translate(_SPELLED)


class ReportConsole(Console):
    """A console that prints text as it is: no markup, no emoji, no control characters."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Return text as rich lays it out, with control characters spelled out."""
        return super().render_str(visible(text), **options)

    def on_broken_pipe(self) -> None:
        """End without a word: whoever read the output went away."""
        leave_closed_pipe()


def leave_closed_pipe() -> None:
    """End the process with code ``GONE``; what is still to be written goes nowhere."""
    drop_output()
    raise SystemExit(GONE)


def drop_output() -> None:
    """Send what is still to be written to standard output nowhere: it cannot be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
