"""How many threads numpy's matrix library uses, where that can be asked and set.

threadpoolctl knows OpenBLAS, BLIS, MKL and FlexiBLAS. With another library, such as Apple's
Accelerate, nothing is found, and nothing is changed.
"""

from __future__ import annotations

import functools
import threading
from typing import Any

_lock = threading.Lock()
_holders: list[list[int]] = []
"""The numbers that each holder of the setting found; the first one's are restored."""


@functools.cache
def _libraries() -> tuple[Any, ...]:
    """Return the matrix libraries that are loaded, each with a getter and a setter."""
    import numpy as np
    from threadpoolctl import ThreadpoolController

    # numpy loads the library with its first product, where not with its import.
    np.ones((2, 2), dtype=np.float32) @ np.ones((2, 2), dtype=np.float32)
    return tuple(ThreadpoolController().select(user_api="blas").lib_controllers)


def blas_threads() -> int | None:
    """Return how many threads the matrix library uses; ``None`` where it cannot be asked."""
    numbers = [library.get_num_threads() for library in _libraries()]
    return max((int(number) for number in numbers if number is not None), default=None)


class limited_to:  # noqa: N801 - it reads as a function, and one would take twice as long
    """Let the matrix library use this many threads; the setting is the whole process'.

    Of several holders at once, the first one's number is in force, and the last one to leave
    restores the number that was there before.
    """

    __slots__ = ("_threads",)

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def __enter__(self) -> None:
        libraries = _libraries()
        with _lock:
            # Whoever else holds the setting has changed it already.
            _holders.append([x.get_num_threads() for x in libraries] if not _holders else [])
            if len(_holders) == 1:
                for library, before in zip(libraries, _holders[0], strict=True):
                    if before != self._threads:
                        library.set_num_threads(self._threads)

    def __exit__(self, *_: object) -> None:
        with _lock:
            numbers = _holders[0]
            _holders.pop()
            if not _holders:
                for library, before in zip(_libraries(), numbers, strict=True):
                    if before != self._threads:
                        library.set_num_threads(before)
