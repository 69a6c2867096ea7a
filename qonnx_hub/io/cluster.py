"""Work on other machines: the workers of a dask scheduler."""

from __future__ import annotations

import contextlib
import importlib
import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from qonnx_hub._version import __version__
from qonnx_hub_adapters.dependencies import is_installed, require
from qonnx_hub_ir.errors import UsageError, words_of

_COMPARED = ("numpy", "onnx", "onnx_ir", "onnxruntime")
"""Packages that a verdict can depend on."""

_SECONDS = 10
"""How long a scheduler may take to answer."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A connection to workers that run what this process runs.

    Attributes:
        client: dask's own client.
        lost: What is raised for work whose workers were killed again and again. Work of a
            worker that is gone is done anew by another one before.
    """

    client: Any
    lost: tuple[type[BaseException], ...]

    @property
    def threads(self) -> int:
        """How much is worked on at once."""
        return int(sum(self.client.nthreads().values()))

    def submit(self, work: Callable[..., Any], *args: Any, pure: bool = False) -> Any:
        """Return the future of a call."""
        return self.client.submit(work, *args, pure=pure)

    def scatter(self, data: Any) -> Any:
        """Return what stands for data in calls: each worker is sent them once."""
        return self.client.scatter(data, broadcast=True, hash=False)


@contextlib.contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """Give the workers of a scheduler.

    Args:
        address: Where it listens, such as "tcp://host:8786".

    Raises:
        MissingDependencyError: dask is not installed.
        UsageError: Nobody answers there, it has no workers, or they run other versions.

    Example:
        >>> with connected("tcp://10.0.0.5:8786") as cluster:  # doctest: +SKIP
        ...     cluster.submit(pow, 2, 10).result()
        1024
    """
    distributed = require("distributed", needed_by="--dask", extra="dask")
    try:
        client = distributed.Client(address, timeout=_SECONDS, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise UsageError(
            f"--dask: no scheduler answers at '{address}': {words_of(error)}"
        ) from error
    with client:
        _require_same_versions(client)
        lost = (
            distributed.KilledWorker,
            distributed.client.FutureCancelledError,
            distributed.CancelledError,
        )
        yield Cluster(client, lost)


def versions() -> dict[str, str]:
    """Return what the results of this process depend on: package -> version."""
    found = {"python": platform.python_version().rpartition(".")[0], "qonnx_hub": __version__}
    for name in _COMPARED:
        there = is_installed(name)
        found[name] = importlib.import_module(name).__version__ if there else "not installed"
    return found


def _require_same_versions(client: Any) -> None:
    own, others = versions(), client.run(versions)
    if not others:
        raise UsageError("--dask: the scheduler has no workers")
    for worker, theirs in others.items():
        apart = [f"{n} {theirs.get(n)} (here {v})" for n, v in own.items() if theirs[n] != v]
        if apart:
            raise UsageError(
                f"--dask: the worker {worker} runs {', '.join(apart)}; results would not be "
                "those of this machine"
            )
