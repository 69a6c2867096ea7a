"""A check's result for people who read text: tables, and sentences below them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from qonnx_hub.equivalence.reports.causes import grouped, layers_in_words
from qonnx_hub.equivalence.reports.columns import (
    LAYER_COLUMNS,
    OUTPUT_COLUMNS,
    layer_cells,
    output_cells,
)
from qonnx_hub.equivalence.verdicts import Verdict
from qonnx_hub.reporting.tables import Table

if TYPE_CHECKING:
    from rich.text import Text

    from qonnx_hub.equivalence.comparison.scores import Score
    from qonnx_hub.equivalence.reports.report import CheckResult
    from qonnx_hub.reporting.report import Part

_MOST_LAYERS = 12
_MOST_NOTES = 12
_STYLES = {
    Verdict.PROVEN: "bold green",
    Verdict.PROVEN_WITHIN: "bold green",
    Verdict.EQUAL: "green",
    Verdict.WITHIN: "yellow",
    Verdict.UNDECIDED: "magenta",
    Verdict.INCOMPLETE: "magenta",
    Verdict.DIFFERENT: "red",
}


_MOST_MOVED = 6


def score_in_words(score: Score) -> str:
    """Return how many predictions changed, from which class to which, and both metrics."""
    values, metric = score.values(), score.spec.metric
    if score.residuals is not None:
        mean = score.residuals.total / score.residuals.count
        text = f"numbers: {score.residuals.largest:.6g} apart at most, {mean:.6g} on average"
        return text if values is None else f"{text}; r2 {values[0]:.6f} and {values[1]:.6f}"
    text = f"predictions: {score.changed} of {score.samples} changed"
    if score.spec.top_k > 1:
        within = score.samples - score.agreeing
        text += f", {within} beyond the best {score.spec.top_k}"
    if values is not None:
        top = f"top-{score.spec.top_k} " if score.spec.top_k > 1 else ""
        shown = f"{values[0]:.4%} and {values[1]:.4%}"
        if metric == "auc":
            top, shown = "", f"{values[0]:.6f} and {values[1]:.6f}"
        text += f"; {top}{metric} {shown}"
    often = sorted(score.moved.items(), key=lambda item: (-item[1], item[0]))
    if often:
        moved = [f"{a} to {b} {n} times" for (a, b), n in often[:_MOST_MOVED]]
        more = f" and {left} more pairs" if (left := len(often) - len(moved)) > 0 else ""
        text += f"; from class {', '.join(moved)}{more}"
    return text


def notions_in_words(result: CheckResult) -> str:
    """Return by how much outputs are epsilon- and top-k-equivalent, and on what that rests."""
    where = "every input" if result.verdict is Verdict.PROVEN else "these inputs"
    words = f"epsilon-equivalent on {where} with epsilon {result.epsilon:.6g}"
    score = result.score
    if score is None or score.residuals is not None:
        return words
    share = f"{score.agreeing} of {score.samples} samples"
    return f"{words}; top-{score.spec.top_k}-equivalent on {share}"


def describe_result(result: CheckResult) -> Iterator[Part]:
    """Give what a terminal shows of a result, tables first, the verdict last."""
    from rich.text import Text

    from qonnx_hub.io.terminal import visible

    outputs: list[list[str | Text]] = [[*output_cells(output)] for output in result.outputs]
    for cells, output in zip(outputs, result.outputs, strict=True):
        cells[1] = Text(str(output.verdict), _STYLES[output.verdict])
    yield Table(OUTPUT_COLUMNS, outputs)
    differing = [k for k, row in enumerate(result.layer_rows) if row.comparison.differing]
    if differing:
        start = max(differing[0] - 1, 0)
        rows = result.layer_rows[start : start + _MOST_LAYERS]
        yield ""
        yield Table(LAYER_COLUMNS, map(layer_cells, rows))
        yield (
            "accumulated: the error up to there; isolated: the layer's own, fed with the "
            "reference's values; LSB: steps of its own quantizer"
        )
        if len(rows) < len(result.layer_rows):
            yield (
                f"{len(rows)} of {len(result.layer_rows)} layers; all with --report or --json"
            )
    if result.coverage:
        reached, exercised, total = (
            sum(getattr(row, field) for row in result.coverage)
            for field in ("reached", "exercised", "total")
        )
        yield ""
        share = f"{reached / total:.0%}" if total else "none"
        yield (
            f"coverage: {share} of the rounding thresholds of {len(result.coverage)} "
            f"quantizers were crossed: {reached} of {total}, {exercised} by near inputs"
        )
    if result.bends:
        met = sum(row.reached == row.reachable for row in result.bends)
        yield f"bends (Relu, Clip): {met} of {len(result.bends)} were met on all sides"
    for name, sizes in result.sizes.items():
        yield Text(visible(f"open size {name}: run at {', '.join(map(str, sizes))}"))
    if result.accumulators:
        yield ""
        yield accumulator_table(result.accumulators)
    yield from _sentences(result)
    yield Text(visible(result.summary()), _STYLES[result.verdict])


def accumulator_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """Return what the layers' sums can hold, as a table.

    Args:
        rows: Fields of :class:`~qonnx_hub_ir.analysis.AccumulatorRange`.
    """
    columns = ("accumulator", "input", "weights", "sums", "bits", "partial", "float32 exact")
    return Table(
        columns,
        (
            (
                row["node"],
                row["input_type"],
                row["weight_type"],
                f"{row['low']}..{row['high']}",
                str(row["bits"]),
                str(row["partial_bits"]),
                "yes" if row["float32_exact"] else "no",
            )
            for row in rows
        ),
    )


def _sentences(result: CheckResult) -> Iterator[str]:
    first = result.first_divergence
    if first is not None:
        inside = "" if any(o.differing for o in result.outputs) else "outputs equal; inside, "
        yield f"{inside}first divergence: layer '{first.source}', {first.comparison.words()}"
    for finding, layers in grouped(result.findings):
        yield f"cause: {finding.cause} in {layers_in_words(layers)}: {finding.words}"
        if finding.values is not None:
            ours, theirs = finding.values
            at = f" at {list(finding.where)}" if finding.where else ""
            read = f"it answers {ours!r}{at}"
            if finding.operand is not None:
                read = f"it reads {finding.operand!r}{at} and answers {ours!r}"
            yield f"       {read}, against {theirs!r}"
    if result.failing is not None:
        found = result.failing
        what = f"{found.nonzero} of its values not zero" if found.nonzero else "all zeros"
        at = f" at {list(found.where)}" if found.where else ""
        yield (
            f"smallest failing input: sample {found.sample}, {what}; '{found.layer}' is "
            f"{found.values[0]!r}{at}, against {found.values[1]!r}"
        )
    needed = result.required_tolerance()
    if needed:
        options = " or ".join(f"--{name} {value:.6g}" for name, value in needed.items())
        yield f"required tolerance: {options}"
    if result.certificate is not None:
        proven = bool(result.certificate.get("proven"))
        matched = result.certificate.get("matched")
        yield f"proof: {'complete' if proven else 'incomplete'}, {matched} values matched"
    if result.score is not None:
        yield score_in_words(result.score)
        yield notions_in_words(result)
    shown = result.notes[:_MOST_NOTES]
    yield from (f"note: {note}" for note in shown)
    if len(result.notes) > len(shown):
        left = len(result.notes) - len(shown)
        yield f"note: {left} of {len(result.notes)} notes are not shown; all with --json"
