"""Makes the tables of docs/speed.md of what benchmarks/history holds.

    python -m benchmarks.page

The newest file gives the table of figures, all files together how they went.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HISTORY = Path(__file__).resolve().parent / "history"
PAGE = HISTORY.parents[1] / "docs" / "speed.md"
BEGIN, END = "<!-- tables of benchmarks/page.py -->", "<!-- end of tables -->"


def history() -> list[dict[str, Any]]:
    """Return the figures of all runs that were kept, the oldest first."""
    return [json.loads(path.read_text("utf-8")) for path in sorted(HISTORY.glob("*.json"))]


def tables(runs: list[dict[str, Any]]) -> str:
    """Return the tables as Markdown."""
    newest = runs[-1]
    lines = [
        f"Measured on {newest['date']} at commit {newest['commit']}: {newest['machine']}, "
        f"{newest['cores']} cores, {newest['threads']} threads, Python {newest['python']}.",
        "",
        "| net | batch | best ms | median (middle half) | against qonnx | onnxruntime, same "
        "threads, node by node | onnxruntime, fused | numpy's floor | memory |",
        "|---|---|---|---|---|---|---|---|---|",
        *map(_row, newest["inference"]),
        "",
        "How many times as long as onnxruntime node by node, by commit:",
        "",
        f"| net | batch | {' | '.join(run['commit'] for run in runs)} |",
        f"|---|---|{'---|' * len(runs)}",
    ]
    for figure in newest["inference"]:
        key = figure["net"], figure["batch"]
        found = [
            next(
                (_times(f, "ort") for f in run["inference"] if (f["net"], f["batch"]) == key),
                "-",
            )
            for run in runs
        ]
        lines.append(f"| {key[0]} | {key[1]} | {' | '.join(found)} |")
    return "\n".join(lines)


def _row(figure: dict[str, Any]) -> str:
    ours, peers = figure["ours"], ("ort", "ort_fused", "floor")
    ratios = " | ".join(_times(figure, peer) for peer in peers)
    qonnx = (
        "-"
        if figure["qonnx"] is None
        else f"{figure['qonnx']['best'] / ours['best']:.3g}x faster"
    )
    return (
        f"| {figure['net']} | {figure['batch']} | {ours['best']:.3g} | {ours['median']:.3g} "
        f"({ours['low']:.3g} to {ours['high']:.3g}) | {qonnx} | "
        f"{ratios} | {figure['memory']:.2f}x |"
    )


def _times(figure: dict[str, Any], peer: str) -> str:
    theirs = figure[peer]
    return "-" if theirs is None else f"{figure['ours']['best'] / theirs['best']:.2f}x"


def page(text: str) -> str:
    """Return the page with its tables made anew."""
    before, rest = text.split(BEGIN)
    behind = rest.split(END)[1]
    return f"{before}{BEGIN}\n{tables(history())}\n{END}{behind}"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(PAGE.read_text("utf-8")), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
