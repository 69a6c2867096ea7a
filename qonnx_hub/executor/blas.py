"""How many threads numpy's matrix library uses, where that can be asked and set.

numpy's own wheels bring OpenBLAS, which has a setter but no Python interface. With another
library nothing is found, and nothing is changed.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import threading
from pathlib import Path

import numpy as np

_PREFIXES = ("scipy_openblas", "openblas")
_SUFFIXES = ("64_", "")

_lock = threading.Lock()
_holders: list[int] = []
"""The number that each holder of the setting found; the first one is restored."""


@functools.cache
def _functions() -> tuple[ctypes._NamedFuncPointer, ctypes._NamedFuncPointer] | None:
    """Return getter and setter of the library that numpy loaded, or ``None``."""
    package = Path(np.__file__).parent
    folders = (package.parent / "numpy.libs", package / ".dylibs", package / ".libs")
    files = [file for folder in folders for file in sorted(folder.glob("*openblas*"))]
    for file in files:
        try:
            library = ctypes.CDLL(str(file))
        except OSError:
            continue
        for prefix, suffix in itertools.product(_PREFIXES, _SUFFIXES):
            getter = getattr(library, f"{prefix}_get_num_threads{suffix}", None)
            setter = getattr(library, f"{prefix}_set_num_threads{suffix}", None)
            if getter is not None and setter is not None:
                return getter, setter
    return None


def blas_threads() -> int | None:
    """Return how many threads the matrix library uses; ``None`` where it cannot be asked."""
    functions = _functions()
    return None if functions is None else int(functions[0]())


class limited_to:  # noqa: N801 - it reads as a function, and one would take twice as long
    """Let the matrix library use this many threads; the setting is the whole process'.

    Of several holders at once, the first one's number is in force, and the last one to leave
    restores the number that was there before.
    """

    __slots__ = ("_threads",)

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def __enter__(self) -> None:
        functions = _functions()
        if functions is not None:
            getter, setter = functions
            with _lock:
                _holders.append(getter())
                if len(_holders) == 1 and _holders[0] != self._threads:
                    setter(self._threads)

    def __exit__(self, *_: object) -> None:
        functions = _functions()
        if functions is not None:
            with _lock:
                before = _holders[0]
                _holders.pop()
                if not _holders and before != self._threads:
                    functions[1](before)
