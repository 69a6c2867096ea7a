"""Writes the tables of the pages anew from the data beside them.

    python docs/figures.py

A table of figures stands behind ``<!-- NAME.csv -->``, and its data are in ``docs/NAME.csv``;
what makes the data is said on the page, and ``make figures MODELS=FOLDER`` does all of it.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping
from pathlib import Path

DOCS = Path(__file__).resolve().parent
Row = Mapping[str, str]
Column = tuple[str, Callable[[Row], str]]
"""The title of a column, and what stands there."""

_TABLE = re.compile(r"(<!-- (\w+\.csv) -->\n)((?:\|.*\n)*)")


def _count(key: str) -> Callable[[Row], str]:
    return lambda row: f"{int(row[key]):,}"


def _text(key: str, more: str = "") -> Callable[[Row], str]:
    return lambda row: row[key] + more


TABLES: dict[str, tuple[Column, ...]] = {
    "keras_files.csv": (
        ("file", _text("file")),
        ("nodes", _count("nodes")),
        ("quantizers", _count("quantizers")),
        ("weights", _count("weights")),
        ("read in", _text("read_ms", " ms")),
        ("largest difference from Keras", _text("largest_difference")),
    ),
    "tflite_files.csv": (
        ("file", _text("file")),
        ("operations", _count("operations")),
        ("read in", _text("read_ms", " ms")),
        ("values", _count("values")),
        ("`run`", _count("run")),
        ("integer", _count("integer")),
        ("QDQ, a layer within", lambda row: f"{row['qdq']}, {row['qdq_steps_a_layer']} LSB"),
        ("again", _count("again")),
        ("optimized", _count("optimized")),
        ("XNNPACK", _count("xnnpack")),
    ),
    "campaigns.csv": (
        ("program", _text("program")),
        ("commit", _text("commit")),
        ("seed", _text("seed")),
        ("cases", _count("cases")),
        ("faults", _count("faults")),
    ),
    "passes.csv": (
        ("pass", lambda row: f"`{row['what']}`"),
        ("proven", _count("proven")),
        ("of", _count("of")),
    ),
}


def table(name: str) -> str:
    """Return the table of a file of data, as lines of Markdown."""
    columns = TABLES[name]
    with (DOCS / name).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    cells = [[title for title, _ in columns], ["---"] * len(columns)]
    cells += [[shown(row) for _, shown in columns] for row in rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in cells)


def with_tables(text: str) -> str:
    """Return a page with its tables as the data are now."""
    return _TABLE.sub(lambda found: found[1] + table(found[2]), text)


if __name__ == "__main__":
    for page in sorted(DOCS.rglob("*.md")):
        old = page.read_text(encoding="utf-8")
        if (new := with_tables(old)) != old:
            page.write_text(new, encoding="utf-8")
            print(page.relative_to(DOCS.parent))
