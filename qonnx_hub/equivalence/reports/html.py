"""A check's result as one page for the browser, with everything inside it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
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
from qonnx_hub.equivalence.verdicts import Verdict

if TYPE_CHECKING:
    from qonnx_hub.equivalence.diagnosis.minimize import FailingInput
    from qonnx_hub.equivalence.reports.report import CheckResult, LayerRow

_COLOURS = {
    Verdict.PROVEN: "#0a7d3c",
    Verdict.PROVEN_WITHIN: "#0a7d3c",
    Verdict.EQUAL: "#0a7d3c",
    Verdict.WITHIN: "#8f5c00",
    Verdict.UNDECIDED: "#7a3e9d",
    Verdict.INCOMPLETE: "#7a3e9d",
    Verdict.DIFFERENT: "#b3261e",
}
_ACCUMULATED = "#5b7fb8"
_ISOLATED = "#c8553d"
_ROW = 20
_LABELS = 190
_CHART = 760


def render_page(result: CheckResult) -> str:
    """Return the page: verdict, causes, chart of layers, outputs, quantizers, environment."""
    layers = [
        (row.comparison.verdict is Verdict.DIFFERENT, layer_cells(row))
        for row in result.layer_rows
    ]
    summary = result.summary().partition(": ")[2]
    about = {**result.environment, "inputs": result.inputs, "samples": str(result.samples)}
    if result.seed is not None:
        about["seed"] = str(result.seed)
    made = [(False, pair) for pair in about.items()]
    parts = [
        f"<h1>Equivalence check</h1><p class=sides><code>{escape(result.a)}</code> against "
        f"<code>{escape(result.b)}</code></p>",
        f"<section class=verdict style='background:{_COLOURS[result.verdict]}'>"
        f"<b>{result.verdict}</b><span>{escape(summary)}</span></section>",
        _causes(result),
        _proof(result),
        _outputs(result.outputs),
        _chart(result.layer_rows),
        _section("Layers", _table(LAYER_COLUMNS, layers, 1)) if layers else "",
        _failing(result.failing),
        _quantizers(result),
        _section("Notes", _list(result.notes)),
        _section("How this was made", _table(("what", "value"), made, 2)),
    ]
    body = "\n".join(part for part in parts if part)
    style = resources.files(__package__).joinpath("style.css").read_text("utf-8")
    title = f"{result.verdict}: {escape(result.a)} against {escape(result.b)}"
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content='width=device-width'>"
        f"<title>{title}</title><style>\n{style}</style></head>\n"
        f"<body><main>\n{body}\n</main></body></html>\n"
    )


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def _list(items: Iterable[object]) -> str:
    lines = "".join(f"<li>{escape(str(item))}</li>" for item in items)
    return f"<ul>{lines}</ul>" if lines else ""


def _table(heads: Sequence[str], rows: Iterable[tuple[bool, Sequence[str]]], text: int) -> str:
    """Return a table whose first ``text`` columns are words, the others numbers."""
    kinds = ["" if k < text else " class=n" for k in range(len(heads))]
    cells = "".join(f"<th{c}>{escape(h)}</th>" for c, h in zip(kinds, heads, strict=True))
    lines = [f"<tr>{cells}</tr>"]
    for bad, row in rows:
        cells = "".join(f"<td{c}>{escape(v)}</td>" for c, v in zip(kinds, row, strict=True))
        lines.append(f"<tr{' class=bad' if bad else ''}>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _causes(result: CheckResult) -> str:
    items = []
    for finding, layers in grouped(result.findings):
        names = ", ".join(f"<code>{escape(layer)}</code>" for layer in layers)
        text = f"<span class=cause>{escape(str(finding.cause))}</span> in "
        text += f"{names}: {escape(finding.words)}"
        if finding.operand is not None and finding.values is not None:
            ours, theirs = finding.values
            text += f"<br>It reads <code>{finding.operand!r}</code> and answers "
            text += f"<code>{ours!r}</code>, against <code>{theirs!r}</code>."
        items.append(f"<li>{text}</li>")
    body = f"<ol>{''.join(items)}</ol>" if items else ""
    first = result.first_divergence
    if first is not None:
        body += "<p class=quiet>First layer that differs: "
        body += f"<code>{escape(first.source)}</code>, {escape(first.comparison.words())}.</p>"
    needed = result.required_tolerance()
    if needed:
        options = " or ".join(f"<code>--{k} {v:.6g}</code>" for k, v in needed.items())
        body += f"<p class=quiet>Required tolerance: {options}.</p>"
    return _section("Why they differ", body)


def _outputs(outputs: Sequence[TensorComparison]) -> str:
    rows = [(o.verdict is Verdict.DIFFERENT, output_cells(o)) for o in outputs]
    body = _table(OUTPUT_COLUMNS, rows, 3)
    for o in outputs:
        if o.differing and o.histogram:
            counts = ", ".join(f"{n} by {steps}" for steps, n in sorted(o.histogram.items()))
            text = f"{o.name}: elements by steps of difference: {counts}"
            body += f"<p class=quiet>{escape(text)}</p>"
    return _section("Outputs", body)


def _chart(rows: Sequence[LayerRow]) -> str:
    """Return bars of the largest error of every quantized layer, in its own steps."""
    shown = [row for row in rows if row.comparison.max_lsb is not None]
    if not any(row.comparison.differing for row in shown):
        return ""
    bars = [(_height(row.comparison), _height(row.isolated)) for row in shown]
    largest = max(1.0, *(max(pair) for pair in bars))
    width, height = _CHART - _LABELS - 70, len(shown) * _ROW + 24
    parts = [
        f"<svg viewBox='0 0 {_CHART} {height}' width='{_CHART}' height='{height}' role=img>"
    ]
    for decade in range(math.floor(largest) + 1):
        x, label = _LABELS + decade / largest * width, f"{10**decade - 1:,}"
        parts.append(f"<path d='M{x:.1f} 0V{height - 18}' stroke='var(--row)'/>")
        parts.append(f"<text x='{x:.1f}' y='{height - 4}' text-anchor=middle>{label}</text>")
    for k, (row, (own, alone)) in enumerate(zip(shown, bars, strict=True)):
        y = k * _ROW
        name = row.source if len(row.source) < 30 else "..." + row.source[-26:]
        parts.append(
            f"<text x='{_LABELS - 8}' y='{y + 14}' text-anchor=end>{escape(name)}"
            f"<title>{escape(row.source)}</title></text>"
        )
        for offset, value, colour in ((3, own, _ACCUMULATED), (10, alone, _ISOLATED)):
            length = max(value / largest * width, 1.0)
            parts.append(
                f"<rect x='{_LABELS}' y='{y + offset}' width='{length:.1f}' height='6' "
                f"rx='1' fill='{colour}'/>"
            )
        end = _LABELS + max(own, alone) / largest * width
        parts.append(
            f"<text x='{end + 6:.1f}' y='{y + 14}'>{format_steps(row.comparison)}</text>"
        )
    parts.append("</svg>")
    key = (
        f"<p class=quiet>Largest difference of each quantized layer in steps (LSB) of its own "
        f"quantizer, logarithmic.<span class=key style='background:{_ACCUMULATED}'></span>"
        f"accumulated<span class=key style='background:{_ISOLATED}'></span>"
        f"isolated: its inputs taken from the reference</p>"
    )
    return _section("Error by layer", "".join(parts) + key)


def _height(comparison: TensorComparison | None) -> float:
    if comparison is None or comparison.max_lsb is None:
        return 0.0
    return math.log10(1 + min(comparison.max_lsb, 1e12))


def _failing(found: FailingInput | None) -> str:
    if found is None:
        return ""
    where = ", ".join(map(str, found.where))
    body = (
        f"<p>Sample {found.sample}, {found.nonzero} of its values not zero. There, "
        f"<code>{escape(found.layer)}[{where}]</code> is <code>{found.values[0]!r}</code> in "
        f"the reference, <code>{found.values[1]!r}</code> in the other side.</p>"
    )
    rows = []
    for name, x in found.feeds.items():
        places = [tuple(int(i) for i in p) for p in zip(*x.nonzero(), strict=True)]
        shown = [f"[{', '.join(map(str, p))}] = {float(x[p])!r}" for p in places[:24]]
        more = f"; and {len(places) - 24} more" if len(places) > 24 else ""
        kind = f"{x.dtype.name}[{', '.join(map(str, x.shape))}]"
        rows.append((False, (name, kind, "; ".join(shown) + more or "none")))
    heads = ("input", "shape", "values that are not zero")
    return _section("Smallest failing input", body + _table(heads, rows, 3))


def _proof(result: CheckResult) -> str:
    if result.certificate is None:
        return ""
    proven = bool(result.certificate.get("proven"))
    matched = result.certificate.get("matched")
    body = f"<p>{'Complete' if proven else 'Incomplete'}: {matched} values matched.</p>"
    assumptions = result.certificate.get("assumptions") or ()
    if assumptions:
        body += f"<p>Assumed:</p>{_list(assumptions)}"
    if result.accumulators:
        heads = list(result.accumulators[0])
        rows = [
            (False, [str(row.get(head, "")) for head in heads]) for row in result.accumulators
        ]
        body += _table(heads, rows, 1)
    return _section("Proof", body)


def _quantizers(result: CheckResult) -> str:
    if not result.quantizers:
        return ""
    blamed = {finding.layer for finding in result.findings}
    met = {row.layer: row for row in result.coverage}
    rows = []
    for row in result.quantizers:
        seen = met.get(row.layer)
        reached = "-" if seen is None else f"{seen.reached} of {seen.total}"
        close = "-" if seen is None else f"{seen.exercised} of {seen.total}"
        kind = "weight" if row.weight else "activation"
        rows.append((row.layer in blamed, (row.layer, kind, row.words, reached, close)))
    heads = ("quantizer", "of", "what", "thresholds reached", "crossed closely")
    return _section("Quantizers of the reference", _table(heads, rows, 3))
