"""Many models in one call: folders, processes, machines; one that fails stops no other."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from qonnx_hub.cli.options import console, write_json
from qonnx_hub.reporting.pages.page import (
    Item,
    Items,
    Page,
    Row,
    Rows,
    Section,
    shortened,
)
from qonnx_hub.reporting.progress import advance, clear

if TYPE_CHECKING:
    from qonnx_hub.conversion.options import ConvertOptions
    from qonnx_hub.equivalence.options import CheckOptions

_MOST_REASONS = 80
"""Failures whose reasons a page tells."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one model.

    Attributes:
        source: What was to be converted, or the reference of a check.
        path: Path of the result, or the other side of the check.
        exit_code: What the exit code would be, were it the only model.
        line: The outcome in one line.
        error: Why it failed; empty where it did not.
        report: The report as plain data; ``None`` where it failed, or nothing was done.
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


def show_outcomes(outcomes: Iterable[Outcome], json: str | None, report: Path | None) -> None:
    """Print a line for each model as it is done, and what became of all of them.

    Raises:
        typer.Exit: With the highest exit code, where it is not 0.
    """
    from qonnx_hub.io.atomic import write_text
    from qonnx_hub.reporting.pages.page import render

    out = console(json)
    seen: list[Outcome] = []
    for outcome in outcomes:
        clear()
        out.print(outcome.line)
        seen.append(outcome)
    counts = Counter(outcome.exit_code for outcome in seen)
    others = (f"{counts[code]} with code {code}" for code in sorted(counts) if code)
    out.print(f"{len(seen)} models: {', '.join((f'{counts[0]} done', *others))}")
    write_json([outcome.to_dict() for outcome in seen], json)
    if report is not None:
        write_text(report, render(outcomes_page(seen)))
    if worst := max(counts):
        raise typer.Exit(worst)


def outcomes_page(outcomes: Sequence[Outcome]) -> Page:
    """Return many models as one page: a row for each, and why some failed."""
    done = sum(outcome.exit_code == 0 for outcome in outcomes)
    rows = []
    for one in outcomes:
        told = one.report or {}
        records = told.get("quantizers", ()) if "format" in told else ()
        exact = sum(record["exact"] for record in records)
        words = "failed" if one.error else told.get("verdict") or "not checked"
        cells = (one.source, words, f"{exact} of {len(records)}" if records else "")
        rows.append(Row((*cells, one.path, str(one.exit_code)), one.exit_code != 0))
    columns = ("model", "result", "exact quantizers", "other file", "code")
    table = Rows(columns, tuple(rows), 4, "only what failed or differs")
    reasons = tuple(
        Item(
            f"code {one.exit_code}",
            ((one.source, ""),),
            shortened(words, 2000),
        )
        for one in outcomes
        if one.exit_code and (words := one.error or one.line)
    )
    why = Section("Why", (Items(reasons[:_MOST_REASONS]),) if reasons else ())
    return Page(
        "Many models",
        f"{len(outcomes)} models",
        (Section("Models", (table,)), why),
        f"{done} of {len(outcomes)} done",
        "each as the table says",
        "good" if done == len(outcomes) else "bad",
    )


Pair = tuple[str, str]
"""What is read, and what is written or compared with it."""


@dataclass(frozen=True, slots=True)
class Where:
    """Where models are worked on.

    Attributes:
        jobs: Processes of this machine to spread them over.
        dask: Address of a dask scheduler whose workers do the work instead; they must see the
            same files. Empty for this machine.
    """

    jobs: int = 1
    dask: str = ""


def convert_many(
    sources: Sequence[str],
    folder: str,
    options: ConvertOptions,
    where: Where = Where(),
    *,
    skip_existing: bool = False,
) -> Iterator[Outcome]:
    """Give the outcome of each model, in the order given; none stops the others.

    Args:
        sources: Models, each as ``convert`` takes one, or folders of model files.
        folder: Folder of the results, which are named after the models; what lies in a folder
            keeps its place below it. Created if missing.
        options: How each conversion is done.
        where: Where.
        skip_existing: Leave out models whose result is there already.

    Raises:
        UsageError: Two models that would be written to one path, or a model that would be
            written over itself, or a folder without models: nothing is converted.
        UnknownAdapterError: No such form.
        MissingDependencyError: dask is not installed.
    """
    pairs = _targets(sources, folder, options.to)
    yield from _each(partial(_convert, options=options, skip=skip_existing), pairs, where)


def check_many_pairs(
    a: str, b: str, options: CheckOptions, where: Where = Where()
) -> Iterator[Outcome]:
    """Give how the models of two folders compare, pair by pair, in the order of their paths.

    Two files are a pair that have one path in both folders, suffixes aside.

    Args:
        a: Folder of the references.
        b: Folder of the other sides.
        options: What is asked of each pair.
        where: Where.

    Raises:
        UsageError: A folder without models.
        MissingDependencyError: dask is not installed.
    """
    left, right = (
        {str(Path(path).relative_to(side).with_suffix("")): path for path in models_in(side)}
        for side in (a, b)
    )
    pairs = [(left.get(name, ""), right.get(name, "")) for name in sorted({*left, *right})]
    yield from _each(partial(_check, options=options), pairs, where)


def is_model_folder(source: str) -> bool:
    """Return whether a path is a folder of models, and no model itself."""
    # Imported here because they load ONNX, which --help does not need.
    from qonnx_hub.equivalence.runners.recorded import is_golden
    from qonnx_hub_adapters.finn.stages import stage_files
    from qonnx_hub_adapters.hls4ml.file_names import is_folder

    plain = Path(source).is_dir() and not is_folder(source)
    return plain and not is_golden(source) and not stage_files(source)


def models_in(folder: str) -> list[str]:
    """Return the files below a folder that have the suffix of a model, in order.

    Raises:
        UsageError: There are none.
    """
    from qonnx_hub.io.registry import importers
    from qonnx_hub_ir.errors import UsageError

    registry = importers()
    suffixes = tuple(s for name in registry.names() for s in registry.load(name).info.suffixes)
    files = (path for path in sorted(Path(folder).rglob("*")) if path.is_file())
    # A .json may be anything, and is read where it is named.
    found = [str(path) for path in files if path.name.lower().endswith(suffixes)]
    found = [path for path in found if not path.lower().endswith(".json")]
    if not found:
        raise UsageError(f"no model lies below '{folder}' (looked for {', '.join(suffixes)})")
    return found


def _targets(sources: Sequence[str], folder: str, to: str) -> list[Pair]:
    from qonnx_hub.io.registry import find_exporter
    from qonnx_hub_ir.errors import UsageError

    place = Path(folder)
    if place.exists() and not place.is_dir():
        raise UsageError(f"'{folder}' is a file; several models go into a folder")
    suffix = next(iter(find_exporter(to).info.suffixes), "")
    pairs: list[Pair] = []
    for source in sources:
        if is_model_folder(source):
            inside = models_in(source)
            below = [Path(path).relative_to(source).with_suffix("") for path in inside]
            pairs += [
                (path, f"{place / at}{suffix}") for path, at in zip(inside, below, strict=True)
            ]
            continue
        # A result is named after the file, or the callable.
        stem = Path(source).stem if Path(source).suffix else source.rpartition(":")[2]
        pairs.append((source, f"{place / stem}{suffix}"))
    taken: dict[str, str] = {}
    for source, target in pairs:
        if target in taken:
            raise UsageError(
                f"'{taken[target]}' and '{source}' would both be written to '{target}'"
            )
        if Path(target).resolve() == Path(source).resolve():
            raise UsageError(f"'{source}' would be written over itself; name another folder")
        taken[target] = source
    for target in taken:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
    return pairs


def _each(
    work: Callable[[Pair], Outcome], pairs: Sequence[Pair], where: Where
) -> Iterator[Outcome]:
    """Give the outcome of each pair, in order, whatever becomes of who works on it."""
    for done, outcome in enumerate(_spread(work, pairs, where), start=1):
        yield outcome
        advance("working on models", done, len(pairs))


def _spread(
    work: Callable[[Pair], Outcome], pairs: Sequence[Pair], where: Where
) -> Iterator[Outcome]:
    if where.dask:
        from qonnx_hub.io.cluster import connected

        with connected(where.dask) as cluster:
            futures = [cluster.submit(work, pair) for pair in pairs]
            for pair, future in zip(pairs, futures, strict=True):
                yield _outcome_of(pair, future, cluster.lost, "workers were killed over it")
    elif where.jobs == 1:
        yield from map(work, pairs)
    else:
        yield from _in_processes(work, pairs, where.jobs)


def _in_processes(
    work: Callable[[Pair], Outcome], pairs: Sequence[Pair], jobs: int
) -> Iterator[Outcome]:
    """Give outcomes from a pool; a process that is killed takes its own model along alone."""
    lost, why = (BrokenExecutor,), "a process was killed; if memory ran out, try fewer --jobs"
    done = 0
    while done < len(pairs):
        rest = pairs[done:]
        with _pool(min(jobs, len(rest))) as pool:
            futures = [pool.submit(work, pair) for pair in rest]
            for pair, future in zip(rest, futures, strict=True):
                done += 1
                try:
                    yield future.result()
                except BrokenExecutor:
                    # Nobody knows which of the models at work killed it: this one goes alone,
                    # those behind it into a new pool.
                    with _pool(1) as alone:
                        yield _outcome_of(pair, alone.submit(work, pair), lost, why)
                    break


@contextlib.contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    # A fresh interpreter each: libraries that compute in threads do not survive a fork.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)


def _outcome_of(
    pair: Pair, future: Future[Outcome], lost: tuple[type[BaseException], ...], why: str
) -> Outcome:
    from qonnx_hub.cli.errors import UNREADABLE

    try:
        return future.result()
    except lost:
        return _failed(pair, why, UNREADABLE)


def _convert(pair: Pair, options: ConvertOptions, *, skip: bool) -> Outcome:
    from qonnx_hub.cli.errors import DIFFERENT, exit_code, message_of
    from qonnx_hub.conversion.convert import convert_source

    source, target = pair
    if skip and Path(target).exists():
        return Outcome(source, target, 0, f"{source} -> {target}: left as it is")
    try:
        report = convert_source(source, target, source, options)
    except Exception as error:  # the border of one model: the others go on
        return _failed(pair, message_of(error), exit_code(error))
    code = 0 if report.verdict is None or report else DIFFERENT
    return Outcome(source, target, code, report.summary(), report=report.document())


def _check(pair: Pair, options: CheckOptions) -> Outcome:
    from qonnx_hub.cli.errors import DIFFERENT, exit_code, message_of
    from qonnx_hub.equivalence.request import check_request

    a, b = pair
    if not a or not b:
        return _failed((a or b, ""), "the other folder has no model of this name", DIFFERENT)
    try:
        result = check_request(a, b, pair, options)
    except Exception as error:  # the border of one pair: the others go on
        return _failed(pair, message_of(error), exit_code(error))
    line = f"{result.sides()}: {result.summary()}"
    return Outcome(a, b, 0 if result else DIFFERENT, line, report=result.document())


def _failed(pair: Pair, why: str, code: int) -> Outcome:
    why = why.removeprefix("qonnx-hub: ")
    line = f"{pair[0]}: failed with code {code}: {' '.join(why.split())}"
    return Outcome(*pair, code, line, error=why)
