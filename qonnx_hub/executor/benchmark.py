"""How fast models run here: latency, throughput and memory, by backend and batch."""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from onnx_ir import Model

from qonnx_hub.executor.session import Session
from qonnx_hub.reporting.plain_data import plain
from qonnx_hub.reporting.progress import stage
from qonnx_hub.reporting.report import Part, Report
from qonnx_hub.reporting.tables import Table
from qonnx_hub_ir.quantizers import Array


@dataclass(frozen=True, slots=True)
class Timing:
    """One model on one backend at one batch.

    Attributes:
        backend: "numpy" or "ort".
        batch: Samples of a run.
        runs: Runs that were measured, after one that was not.
        median: Seconds of a run.
        fastest: Seconds of the fastest.
        slowest: Seconds of the slowest.
        peak: Bytes that numpy allocated at most during one run; ``None`` for onnxruntime,
            which does not say.
    """

    backend: str
    batch: int
    runs: int
    median: float
    fastest: float
    slowest: float
    peak: int | None

    @property
    def per_second(self) -> float:
        """Samples a second, of the median."""
        return self.batch / self.median


@dataclass(frozen=True, slots=True, repr=False)
class BenchmarkReport(Report):
    """How fast a model runs here.

    Attributes:
        source: The model.
        threads: Threads that were asked for; ``None`` leaves it to the backend.
        timings: One per backend and batch.
    """

    schema: ClassVar[str] = "bench/1"
    heading: ClassVar[str] = "Time and memory"

    source: str
    threads: int | None
    timings: tuple[Timing, ...]

    def summary(self) -> str:
        """Return the best throughput in one line."""
        best = max(self.timings, key=lambda one: one.per_second)
        where = f"on {best.backend} at batch {best.batch}"
        return f"{self.source}: {best.per_second:,.0f} samples a second {where}"

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per backend and batch."""
        return [{**plain(one), "samples_per_second": one.per_second} for one in self.timings]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data, fit for JSON."""
        return {"source": self.source, "threads": self.threads, "timings": self.rows()}

    def parts(self) -> Iterator[Part]:
        """Give a table of the timings, and the best of them."""
        columns = (
            "backend",
            "batch",
            "ms",
            "fastest",
            "slowest",
            "samples/s",
            "peak MB",
        )
        cells = [
            (
                *(one.backend, str(one.batch), f"{1e3 * one.median:.3f}"),
                *(f"{1e3 * one.fastest:.3f}", f"{1e3 * one.slowest:.3f}"),
                f"{one.per_second:,.1f}",
                "-" if one.peak is None else f"{one.peak / 1e6:.2f}",
            )
            for one in self.timings
        ]
        yield Table(columns, cells, numbers=6)
        yield self.summary()


def measure(
    model: Model,
    feeds: dict[int, dict[str, Array]],
    backends: Sequence[str],
    source: str,
    *,
    seconds: float = 1.0,
    threads: int | None = None,
) -> BenchmarkReport:
    """Return how fast a model runs on each backend.

    Args:
        model: An IR model.
        feeds: Batch -> inputs of so many samples.
        backends: "numpy", "ort" or both.
        source: How the report calls the model.
        seconds: How long each row is measured; three runs at least.
        threads: Threads of each backend.
    """
    timings = []
    for backend in backends:
        session = Session(model, backend=backend, threads=threads)
        for batch, arrays in feeds.items():
            stage(f"measuring {backend}, batch {batch}")
            timings.append(_measured(session, backend, batch, arrays, seconds))
    return BenchmarkReport(source, threads, tuple(timings))


def _measured(
    session: Session, backend: str, batch: int, feeds: dict[str, Array], seconds: float
) -> Timing:
    peak = None
    if backend == "numpy":
        tracemalloc.start()
        session.run(feeds)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    session.run(feeds)
    runs: list[float] = []
    end = time.perf_counter() + seconds
    while len(runs) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        session.run(feeds)
        runs.append(time.perf_counter() - start)
    return Timing(
        backend, batch, len(runs), statistics.median(runs), min(runs), max(runs), peak
    )
