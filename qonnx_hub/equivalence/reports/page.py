"""A check's result as a page: verdict, causes, the graph, charts, tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from qonnx_hub.equivalence.comparison.compare import TensorComparison
from qonnx_hub.equivalence.reports.causes import grouped
from qonnx_hub.equivalence.reports.columns import (
    LAYER_COLUMNS,
    OUTPUT_COLUMNS,
    format_steps,
    layer_cells,
    output_cells,
)
from qonnx_hub.equivalence.reports.text import accumulator_table
from qonnx_hub.equivalence.verdicts import Verdict
from qonnx_hub.reporting.pages.charts import bars, histogram, scatter
from qonnx_hub.reporting.pages.page import (
    Block,
    Item,
    Items,
    Page,
    Plot,
    Plots,
    Row,
    Rows,
    Section,
    Tone,
    Words,
    rows_of,
    shortened,
)
from qonnx_hub.reporting.pages.pictures import GraphStep, draw

if TYPE_CHECKING:
    from qonnx_hub.equivalence.reports.report import CheckResult, LayerRow

TONES: Mapping[Verdict, Tone] = {
    Verdict.PROVEN: "good",
    Verdict.PROVEN_WITHIN: "good",
    Verdict.EQUAL: "good",
    Verdict.WITHIN: "near",
    Verdict.UNDECIDED: "open",
    Verdict.INCOMPLETE: "open",
    Verdict.DIFFERENT: "bad",
}
_LEGEND = {
    "equal": "all values equal",
    "near": "one step of its quantizer apart at most",
    "far": "up to ten steps apart",
    "most": "more than ten steps apart, or no steps to count",
    "none": "not compared",
}
_LEVELS = ("none", "equal", "near", "far", "most")
_MOST_NAMES = 12
_MOST_NOTES = 60
_MOST_PLOTS = 6


def check_page(result: CheckResult) -> Page:
    """Return the page of a check."""
    return Page(
        heading=result.heading,
        lead=result.sides(),
        sections=tuple(check_sections(result)),
        verdict=str(result.verdict),
        words=result.summary().partition(": ")[2],
        tone=TONES[result.verdict],
    )


def check_sections(
    result: CheckResult, side: str = "", title: str = "", *, tables: bool = True
) -> Iterator[Section]:
    """Give the parts of a check's page; those that have nothing to show are empty.

    Args:
        result: The check.
        side: What anchors begin with, where a page holds several checks.
        title: What titles begin with.
        tables: Whether the tables of quantizers, notes and versions are among them.
    """
    anchors = {row.source: f"{side}layer-{k}" for k, row in enumerate(result.layer_rows)}
    yield Section(f"{title}Why they differ", tuple(_causes(result, anchors)))
    if not tables:
        yield Section(f"{title}Outputs", tuple(_outputs(result)))
        yield Section(f"{title}Layers", tuple(_layers(result.layer_rows, anchors)))
        return
    yield Section("Proof", tuple(_proof(result)))
    yield Section("Outputs", tuple(_outputs(result)))
    yield Section("The graph of the reference", tuple(_graph(result, anchors)))
    yield Section("Error by layer", tuple(_chart(result.layer_rows, anchors)))
    yield Section("Layers", tuple(_layers(result.layer_rows, anchors)))
    yield Section("Smallest failing input", tuple(_failing(result)))
    yield Section("Quantizers of the reference", tuple(_quantizers(result)))
    notes = [*result.notes[:_MOST_NOTES]]
    if len(result.notes) > len(notes):
        notes.append(f"{len(result.notes) - len(notes)} more notes; all with --json")
    yield Section("Notes", (Words(tuple(shortened(n, 2000) for n in notes)),) if notes else ())
    about = {**result.environment, "inputs": result.inputs, "samples": str(result.samples)}
    if result.seed is not None:
        about["seed"] = str(result.seed)
    made = tuple(Row(pair) for pair in about.items())
    yield Section("How this was made", (Rows(("what", "value"), made, 2),))


def _causes(result: CheckResult, anchors: Mapping[str, str]) -> Iterator[Block]:
    items = []
    for finding, layers in grouped(result.findings):
        names = [(shortened(layer), anchors.get(layer, "")) for layer in layers[:_MOST_NAMES]]
        if len(layers) > len(names):
            names.append((f"{len(layers) - len(names)} more", ""))
        more = ""
        if finding.operand is not None and finding.values is not None:
            ours, theirs = finding.values
            more = f"It reads {finding.operand!r} and answers {ours!r}, against {theirs!r}."
        words = shortened(finding.words, 2000)
        items.append(Item(str(finding.cause), tuple(names), words, more))
    first = result.first_divergence
    if first is not None:
        name = (shortened(first.source), anchors.get(first.source, ""))
        items.append(Item("first layer that differs", (name,), first.comparison.words()))
    if items:
        yield Items(tuple(items[:_MOST_NOTES]))
    needed = result.required_tolerance()
    if needed:
        options = " or ".join(f"--{name} {value:.6g}" for name, value in needed.items())
        yield Words((f"Required tolerance: {options}.",), quiet=True)


def _proof(result: CheckResult) -> Iterator[Block]:
    if result.certificate is None:
        return
    proven = bool(result.certificate.get("proven"))
    matched = result.certificate.get("matched")
    lines = [f"{'Complete' if proven else 'Incomplete'}: {matched} values matched."]
    assumed = result.certificate.get("assumptions") or ()
    lines += [f"Assumed: {words}" for words in assumed]
    yield Words(tuple(lines))
    if result.accumulators:
        yield rows_of(accumulator_table(result.accumulators))


def _outputs(result: CheckResult) -> Iterator[Block]:
    rows = [
        Row(tuple(output_cells(o)), o.verdict is Verdict.DIFFERENT) for o in result.outputs
    ]
    yield Rows(OUTPUT_COLUMNS, tuple(rows), 3)
    differing = [output for output in result.outputs if output.differing]
    plots = [plot for output in differing[:_MOST_PLOTS] for plot in _plots(output)]
    if plots:
        yield Plots(tuple(plots))


def _plots(output: TensorComparison) -> Iterator[Plot]:
    name = shortened(output.name, 80)
    steps = {k: n for k, n in sorted(output.histogram.items()) if k}
    if steps:
        counts = {f"{k}" if k < 8 else f"{k}+": n for k, n in steps.items()}
        yield histogram(
            f"{name}: how far values are apart",
            dict([*counts.items()][:14]),
            "Steps (LSB) of its quantizer; how many values. "
            f"{output.histogram.get(0, 0):,} of {output.count:,} are no step apart.",
        )
    elif output.decades:
        last = max(output.decades)
        first = max(min(output.decades), last - 6)
        counts = {f"1e{k}": output.decades.get(k, 0) for k in range(first, last + 1)}
        yield histogram(
            f"{name}: how far values are apart",
            counts,
            f"Powers of ten that the difference begins with; how many values. "
            f"{output.count - output.differing:,} of {output.count:,} are equal.",
        )
    if output.points:
        yield scatter(
            f"{name}: one side against the other",
            output.points,
            f"Across: the reference; up: the other side; {len(output.points)} values of the "
            "batches that differ. Equal values lie on the line.",
        )


def _graph(result: CheckResult, anchors: Mapping[str, str]) -> Iterator[Block]:
    rows = {row.source: row for row in result.layer_rows}
    outputs = {output.name: output for output in result.outputs}

    def found(stage: GraphStep) -> Iterable[TensorComparison]:
        compared = (rows[name].comparison for name in stage.layers if name in rows)
        return (*compared, *(outputs[name] for name in stage.layers if name in outputs))

    def level(stage: GraphStep) -> str:
        return max(map(_level, found(stage)), key=_LEVELS.index, default="none")

    def anchor(stage: GraphStep) -> str:
        known = [name for name in stage.layers if name in anchors]
        bad = [name for name in known if rows[name].comparison.differing]
        return anchors[(bad or known[-1:])[0]] if known else ""

    picture = draw(result.stages, level, anchor, _LEGEND)
    if picture is not None:
        yield picture
        if len(result.stages) > len(picture.boxes):
            words = f"The first {len(picture.boxes)} of {len(result.stages)} steps are drawn."
            yield Words((words,), quiet=True)


def _level(comparison: TensorComparison) -> str:
    if not comparison.differing:
        return "equal"
    steps = comparison.max_lsb
    if steps is None or steps > 10:
        return "most"
    return "near" if steps <= 1 + 1e-6 else "far"


def _chart(rows: Iterable[LayerRow], anchors: Mapping[str, str]) -> Iterator[Block]:
    """Give bars of the largest error of every quantized layer, in its own steps."""
    shown = [
        row for row in rows if row.comparison.max_lsb is not None and not row.constant
    ]  # weights that differ are told among the causes
    if not any(row.comparison.differing for row in shown):
        return
    lines = [
        (
            shortened(row.source, 120),
            (_steps(row.comparison), _steps(row.isolated)),
            format_steps(row.comparison),
            anchors[row.source],
        )
        for row in shown
    ]
    yield bars(
        lines,
        ("up to there", "its own, fed with the reference's values"),
        "Largest difference of each quantized layer, in steps (LSB) of its own quantizer; the "
        "axis is logarithmic.",
        logarithmic=True,
    )


def _steps(comparison: TensorComparison | None) -> float:
    steps = 0.0 if comparison is None else comparison.max_lsb or 0.0
    return steps if math.isfinite(steps) else 1e15


def _layers(rows: Iterable[LayerRow], anchors: Mapping[str, str]) -> Iterator[Block]:
    found = tuple(
        Row(tuple(layer_cells(row)), bool(row.comparison.differing), anchors[row.source])
        for row in rows
    )
    if found:
        yield Rows(LAYER_COLUMNS, found, 1)
        yield Words(
            (
                "Accumulated: the error up to there. Isolated: the layer's own, when it is "
                "fed with the reference's values; one without only passes on what came in.",
            ),
            quiet=True,
        )


def _failing(result: CheckResult) -> Iterator[Block]:
    found = result.failing
    if found is None:
        return
    where = ", ".join(map(str, found.where))
    zeros = f"{found.nonzero} of its values not zero" if found.nonzero else "all zeros"
    yield Words(
        (
            f"Sample {found.sample}, {zeros}. There, {shortened(found.layer)}[{where}] is "
            f"{found.values[0]!r} in the reference, {found.values[1]!r} in the other side.",
        )
    )
    rows = []
    for name, x in found.feeds.items():
        places = [tuple(int(i) for i in p) for p in zip(*x.nonzero(), strict=True)]
        shown = [f"[{', '.join(map(str, p))}] = {float(x[p])!r}" for p in places[:12]]
        more = f"; and {len(places) - 12} more" if len(places) > 12 else ""
        kind = f"{x.dtype.name}[{', '.join(map(str, x.shape))}]"
        rows.append(Row((name, kind, "; ".join(shown) + more or "none")))
    yield Rows(("input", "shape", "values that are not zero"), tuple(rows), 3)


def _quantizers(result: CheckResult) -> Iterator[Block]:
    if not result.quantizers:
        return
    blamed = {finding.layer for finding in result.findings}
    met = {row.layer: row for row in result.coverage}
    rows = []
    for row in result.quantizers:
        seen = met.get(row.layer)
        reached = "-" if seen is None else f"{seen.reached} of {seen.total}"
        close = "-" if seen is None else f"{seen.exercised} of {seen.total}"
        kind = "weight" if row.weight else "activation"
        rows.append(Row((row.layer, kind, row.words, reached, close), row.layer in blamed))
    heads = ("quantizer", "of", "what", "thresholds reached", "crossed closely")
    yield Rows(heads, tuple(rows), 3, "only those that are a cause")
