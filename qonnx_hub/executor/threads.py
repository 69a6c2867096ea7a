"""Parts of one operation on several threads, and numpy's matrix library on one.

The matrix library's own threads spin while they wait for each other: where another process
holds one of the cores, a product takes many times as long. Here an idle thread sleeps.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from qonnx_hub.executor.blas import blas_threads, limited_to

T = TypeVar("T")
R = TypeVar("R")

_here = threading.local()
_lock = threading.Lock()
_pools: list[ThreadPoolExecutor] = []
"""The one pool, once it is needed."""


def usable_cores() -> int:
    """Return how many cores this process may use; a container or a batch job gives few."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_threads() -> int:
    """Return the default number of threads: as many as the matrix library would use.

    That number follows the cores, and ``OPENBLAS_NUM_THREADS`` where it is set. It is 1 where
    the library's own number of threads cannot be set.
    """
    return min(blas_threads() or 1, usable_cores())


@contextmanager
def use_threads(threads: int) -> Iterator[None]:
    """Let operations of this thread use this many threads, and the matrix library one."""
    with limited_to(1):
        before = getattr(_here, "threads", 1)
        _here.threads = threads
        try:
            yield
        finally:
            _here.threads = before


def parallel_for(
    make: Callable[[], Callable[[T], None]], parts: Iterable[T], *, share: bool = True
) -> None:
    """Do all parts, on this thread and on those of the team that are free.

    Args:
        make: Called once on each thread that takes part; returns what does one part there.
        parts: What to do, in any order.
        share: Whether other threads help; where they cost more than they save, they do not.

    Raises:
        BaseException: What any part raised; the others may or may not have been done.
    """
    todo = list(parts)
    helpers = min(getattr(_here, "threads", 1), len(todo)) - 1 if share else 0
    if helpers < 1:
        work = make()
        for part in todo:
            work(part)
        return
    rest = iter(todo)

    def drain() -> None:
        # numpy's error handling is a setting per thread.
        with np.errstate(all="ignore"):
            work = make()
            # Taking the next part of a list iterator is one step for the interpreter.
            for part in rest:
                work(part)

    futures = [_pool().submit(drain) for _ in range(helpers)]
    try:
        drain()
    finally:
        for future in futures:
            # One that has not begun will find nothing left to do.
            if not future.cancel():
                future.exception()
    for future in futures:
        if not future.cancelled():
            future.result()


def parallel_map(run: Callable[[T], R], items: Sequence[T], threads: int) -> list[R]:
    """Return what ``run`` gives for each item, in order.

    Args:
        run: Called on several threads at once.
        items: What to compute.
        threads: How many.
    """
    results: list[Any] = [None] * len(items)

    def make() -> Callable[[int], None]:
        def one(index: int) -> None:
            inside = getattr(_here, "threads", 1)
            _here.threads = 1
            try:
                results[index] = run(items[index])
            finally:
                _here.threads = inside

        return one

    with use_threads(threads):
        parallel_for(make, range(len(items)))
    return results


def _pool() -> ThreadPoolExecutor:
    with _lock:
        if not _pools:
            _pools.append(ThreadPoolExecutor(max(1, usable_cores() - 1)))
        return _pools[0]


def _forget_pool() -> None:
    """Threads do not survive a fork: the child makes a pool of its own."""
    global _lock  # the parent may have held it
    _lock = threading.Lock()
    _pools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
