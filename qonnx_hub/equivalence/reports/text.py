"""A check's result for people who read text: tables, and sentences below them."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from qonnx_hub.equivalence.comparison.compare import TensorComparison, Verdict
from qonnx_hub.equivalence.reports.report import CheckResult, LayerRow

if TYPE_CHECKING:
    from rich.console import RenderableType

_MOST_LAYERS = 12
_MOST_NOTES = 12
_STYLES = {
    Verdict.PROVEN: "bold green",
    Verdict.EQUAL: "green",
    Verdict.WITHIN: "yellow",
    Verdict.DIFFERENT: "red",
}


def render_text(result: CheckResult, width: int = 100) -> str:
    """Return the result as plain text of that width."""
    from rich.console import Console

    stream = io.StringIO()
    console = Console(file=stream, width=width, highlight=False, color_system=None)
    for item in describe_result(result):
        console.print(item)
    return stream.getvalue()


def describe_result(result: CheckResult) -> Iterator[RenderableType]:
    """Give what a terminal shows of a result, tables first, the verdict last."""
    from rich.markup import escape

    yield _outputs_table(result.outputs)
    rows = _telling_rows(result.layer_rows)
    if rows:
        yield ""
        yield _layers_table(rows)
    if result.coverage:
        yield ""
        yield _coverage_line(result)
    if result.accumulators:
        yield ""
        yield accumulator_table(result.accumulators)
    for line in _sentences(result):
        yield escape(line)
    style = _STYLES[result.verdict]
    yield f"[{style}]{escape(result.summary())}[/]"


def _outputs_table(outputs: tuple[TensorComparison, ...]) -> RenderableType:
    from rich.table import Table

    columns = ("output", "verdict", "", "max abs", "max rel", "max LSB")
    table = Table(*columns, box=None, pad_edge=False)
    for row in outputs:
        table.add_row(
            row.name if row.name == row.other else f"{row.name} / {row.other}",
            f"[{_STYLES[row.verdict]}]{row.verdict}[/]",
            row.words(),
            f"{row.max_abs:.6g}",
            f"{row.max_rel:.3g}",
            _steps(row),
        )
    return table


def _steps(row: TensorComparison) -> str:
    return "-" if row.max_lsb is None else f"{row.max_lsb:.6g}"


def _telling_rows(rows: tuple[LayerRow, ...]) -> list[LayerRow]:
    """Return the layers around and behind the first difference; none where all are equal."""
    differing = [k for k, row in enumerate(rows) if row.comparison.differing]
    if not differing:
        return []
    start = max(differing[0] - 1, 0)
    return list(rows[start : start + _MOST_LAYERS])


def _layers_table(rows: list[LayerRow]) -> RenderableType:
    from rich.table import Table

    columns = ("layer", "accumulated", "max abs", "LSB", "isolated", "max abs", "LSB")
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        own, alone = row.comparison, row.isolated
        table.add_row(
            row.source,
            f"{own.differing} of {own.count}",
            f"{own.max_abs:.3g}",
            _steps(own),
            "-" if alone is None else f"{alone.differing} of {alone.count}",
            "-" if alone is None else f"{alone.max_abs:.3g}",
            "-" if alone is None else _steps(alone),
        )
    return table


def accumulator_table(rows: Iterable[Mapping[str, Any]]) -> RenderableType:
    """Return what the layers' sums can hold, as a table.

    Args:
        rows: Fields of :class:`~qonnx_hub_ir.analysis.AccumulatorRange`.
    """
    from rich.table import Table

    columns = ("accumulator", "input", "weights", "sums", "bits", "partial", "float32 exact")
    table = Table(*columns, box=None, pad_edge=False)
    for row in rows:
        table.add_row(
            row["node"],
            row["input_type"],
            row["weight_type"],
            f"{row['low']}..{row['high']}",
            str(row["bits"]),
            str(row["partial_bits"]),
            "yes" if row["float32_exact"] else "no",
        )
    return table


def _coverage_line(result: CheckResult) -> str:
    reached = sum(row.reached for row in result.coverage)
    exercised = sum(row.exercised for row in result.coverage)
    total = sum(row.total for row in result.coverage)
    return (
        f"thresholds of {len(result.coverage)} quantizers: {reached} of {total} have inputs "
        f"on both sides, {exercised} have neighbouring inputs on both sides"
    )


def _sentences(result: CheckResult) -> Iterator[str]:
    first = result.first_divergence
    if first is not None:
        yield f"first divergence: layer '{first.source}', {first.comparison.words()}"
    for finding in result.findings:
        yield f"cause: {finding.cause} in '{finding.layer}': {finding.words}"
        if finding.operand is not None and finding.values is not None:
            ours, theirs = finding.values
            read = f"it reads {finding.operand!r} and answers {ours!r}"
            yield f"       {read}, against {theirs!r}"
    if result.failing is not None:
        found = result.failing
        yield (
            f"smallest failing input: sample {found.sample}, {found.nonzero} of its values "
            f"not zero; '{found.layer}' is {found.values[0]!r}, against {found.values[1]!r}"
        )
    needed = result.required_tolerance()
    if needed:
        options = " or ".join(f"--{name} {value:.6g}" for name, value in needed.items())
        yield f"required tolerance: {options}"
    yield from _proof_sentences(result)
    if result.score is not None:
        yield _score_line(result)
    shown = result.notes[:_MOST_NOTES]
    yield from (f"note: {note}" for note in shown)
    if len(result.notes) > len(shown):
        yield f"note: and {len(result.notes) - len(shown)} more, see the JSON report"


def _proof_sentences(result: CheckResult) -> Iterator[str]:
    if result.certificate is None:
        return
    proven = bool(result.certificate.get("proven"))
    matched = result.certificate.get("matched")
    yield f"proof: {'complete' if proven else 'incomplete'}, {matched} values matched"


def _score_line(result: CheckResult) -> str:
    score = result.score
    if score is None:
        return ""
    text = f"predictions: {score.changed} of {score.samples} changed"
    if score.correct is not None:
        ours, theirs = (n / score.samples for n in score.correct)
        text += f"; accuracy {ours:.4%} and {theirs:.4%}"
    return text
