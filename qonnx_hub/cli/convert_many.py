"""Many models in one call of ``qonnx-hub convert``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qonnx_hub.conversion.options import ConvertOptions


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one model.

    Attributes:
        source: What was to be converted.
        path: Path of the result.
        exit_code: What the exit code would be, were it the only model.
        line: The outcome in one line.
        error: Why it failed; empty where it did not.
        report: The conversion's report as plain data; ``None`` where it failed.
    """

    source: str
    path: str
    exit_code: int
    line: str
    error: str = ""
    report: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the outcome as plain data."""
        data = asdict(self)
        del data["line"]
        return data


def convert_many(
    sources: Sequence[str], folder: str, jobs: int, options: ConvertOptions
) -> Iterator[Outcome]:
    """Give the outcome of each model, in the order given; none stops the others.

    Args:
        sources: Models, each as ``convert`` takes one.
        folder: Folder of the results, which are named after the models; created if missing.
        jobs: Processes to spread the models over.
        options: How each conversion is done.

    Raises:
        UsageError: Two models that would be written to one path, or a model that would be
            written over itself: nothing is converted.
        UnknownAdapterError: No such form.
    """
    from qonnx_hub.cli.errors import UNREADABLE

    targets = _targets(sources, folder, options.to)
    pairs = list(zip(sources, targets, strict=True))
    if jobs == 1:
        for source, target in pairs:
            yield _convert(source, target, options)
        return
    # A fresh interpreter each: libraries that compute in threads do not survive a fork.
    workers = min(jobs, len(pairs))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(_convert, source, target, options) for source, target in pairs]
        try:
            for (source, target), future in zip(pairs, futures, strict=True):
                try:
                    outcome = future.result()
                except BrokenProcessPool:
                    why = "a process was killed; if memory ran out, try fewer --jobs"
                    outcome = _failed(source, target, why, UNREADABLE)
                yield outcome
        finally:
            pool.shutdown(cancel_futures=True)


def _targets(sources: Sequence[str], folder: str, to: str) -> list[Path]:
    from qonnx_hub.io.registry import find_exporter
    from qonnx_hub_ir.errors import UsageError

    place = Path(folder)
    if place.exists() and not place.is_dir():
        raise UsageError(f"'{folder}' is a file; several models go into a folder")
    suffix = next(iter(find_exporter(to).info.suffixes), "")
    # A result is named after the file, or the callable.
    stems = [Path(s).stem if Path(s).suffix else s.rpartition(":")[2] for s in sources]
    targets = [place / f"{stem}{suffix}" for stem in stems]
    taken: dict[Path, str] = {}
    for source, target in zip(sources, targets, strict=True):
        if target in taken:
            raise UsageError(
                f"'{taken[target]}' and '{source}' would both be written to '{target}'"
            )
        if target.resolve() == Path(source).resolve():
            raise UsageError(f"'{source}' would be written over itself; name another folder")
        taken[target] = source
    place.mkdir(parents=True, exist_ok=True)
    return targets


def _convert(source: str, target: Path, options: ConvertOptions) -> Outcome:
    from qonnx_hub.cli.errors import DIFFERENT, exit_code, message_of
    from qonnx_hub.conversion.convert import convert_source

    try:
        report = convert_source(source, target, source, options)
    except Exception as error:  # the border of one model: the others go on
        why = message_of(error).removeprefix("qonnx-hub: ")
        return _failed(source, target, why, exit_code(error))
    code = 0 if report.verdict is None or report else DIFFERENT
    return Outcome(source, str(target), code, report.summary(), report=report.document())


def _failed(source: str, target: Path, why: str, code: int) -> Outcome:
    line = f"{source}: failed with code {code}: {' '.join(why.split())}"
    return Outcome(source, str(target), code, line, error=why)
