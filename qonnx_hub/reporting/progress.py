"""How far a long call is: told to a terminal, a notebook, a log, or whoever asked."""

from __future__ import annotations

import contextlib
import html
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Protocol

Progress = Callable[[int, int], None]
"""``f(done, in all)``."""

_LOG = logging.getLogger("qonnx_hub")
_DELAY = 0.5
"""Seconds that a call takes before anything is shown of it."""

_BETWEEN = 0.1
"""Seconds between two pictures in a notebook."""


class ProgressView(Protocol):
    """Who is told how far a call is."""

    def update(self, what: str, done: int, total: int) -> None:
        """Take what is done, and how much of it; a total of 0 is not known."""

    def clear(self) -> None:
        """Take away what is shown: a report follows, or the call ends."""


_WATCHER: ContextVar[ProgressView | None] = ContextVar("qonnx_hub_watcher", default=None)


def stage(what: str) -> None:
    """Say what a call does from now on, in two or three words."""
    _LOG.info("%s", what)
    watcher = _WATCHER.get()
    if watcher is not None:
        watcher.update(what, 0, 0)


def advance(what: str, done: int, total: int) -> None:
    """Say how many of all pieces a call has done."""
    watcher = _WATCHER.get()
    if watcher is not None:
        watcher.update(what, done, total)


def clear() -> None:
    """Take away what is shown of the running call, before something else is printed."""
    watcher = _WATCHER.get()
    if watcher is not None:
        watcher.clear()


@contextlib.contextmanager
def watched(progress: bool | Progress | None = None) -> Iterator[None]:
    """Show how far the calls within are; a call within another one shows nothing of its own.

    Args:
        progress: ``True`` shows a bar; ``False`` none; ``None`` one on a terminal and in a
            notebook, and none in pipes and files. A function is called with how many samples
            are done, and how many there are.

    Example:
        >>> with watched(False):
        ...     qh.check("a.onnx", "b.onnx")
    """
    if _WATCHER.get() is not None and not callable(progress):
        yield
        return
    watcher = _chosen(progress)
    token = _WATCHER.set(watcher)
    try:
        yield
    finally:
        watcher.clear()
        _WATCHER.reset(token)


def _chosen(progress: bool | Progress | None) -> ProgressView:
    if callable(progress):
        return _Told(progress)
    in_notebook = "ipykernel" in sys.modules and "IPython" in sys.modules
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    if progress is False or not (progress or in_notebook or is_terminal):
        return _Nobody()
    return _NotebookBar() if in_notebook else _TerminalBar()


class _Nobody:
    def update(self, what: str, done: int, total: int) -> None:
        pass

    def clear(self) -> None:
        pass


class _Told(_Nobody):
    """A function of the user's; it hears of pieces that can be counted."""

    def __init__(self, function: Progress) -> None:
        self._function = function

    def update(self, what: str, done: int, total: int) -> None:
        if total:
            self._function(done, total)


class _TerminalBar:
    """A bar on standard error, shown once a call takes longer, gone when it ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state: tuple[str, int, int] = ("", 0, 0)
        self._timer: threading.Timer | None = None
        self._bar: Any = None

    def update(self, what: str, done: int, total: int) -> None:
        with self._lock:
            self._state = (what, done, total)
            if self._bar is not None:
                self._draw()
            elif self._timer is None:
                # While one step takes long, nobody calls.
                self._timer = threading.Timer(_DELAY, self._show)
                self._timer.daemon = True
                self._timer.start()

    def _show(self) -> None:
        from rich import progress
        from rich.console import Console

        with self._lock:
            if self._timer is None:
                return
            columns = (
                progress.SpinnerColumn(),
                progress.TextColumn("{task.description}", markup=False),
                progress.BarColumn(),
                progress.TimeElapsedColumn(),
            )
            # Standard output may be a file: it stays as it is.
            self._bar = progress.Progress(
                *columns,
                console=Console(stderr=True),
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._task = self._bar.add_task("", total=None)
            self._draw()
            self._bar.start()

    def _draw(self) -> None:
        what, done, total = self._state
        self._bar.update(self._task, description=what, completed=done, total=total or None)

    def clear(self) -> None:
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            if self._bar is not None:
                self._bar.stop()
            self._timer = self._bar = None


class _NotebookBar:
    """A bar in the output of a cell, without any package beside IPython."""

    def __init__(self) -> None:
        self._start = self._last = time.monotonic()
        self._shown: Any = None

    def update(self, what: str, done: int, total: int) -> None:
        from IPython.display import HTML, display  # type: ignore[import-not-found]

        now = time.monotonic()
        if now - self._start < _DELAY or now - self._last < _BETWEEN:
            return
        self._last = now
        value = f' value="{done}" max="{total}"' if total else ""
        page = HTML(f"<progress{value}></progress> {html.escape(what)}")
        if self._shown is None:
            self._shown = display(page, display_id=True)
        else:
            self._shown.update(page)

    def clear(self) -> None:
        if self._shown is not None:
            from IPython.display import HTML

            self._shown.update(HTML(""))
            self._shown = None
