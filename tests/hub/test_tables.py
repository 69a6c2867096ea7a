"""Long tables are printed in one piece, with the very text that rich gives."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qonnx_hub.reporting import tables

COLUMNS = ("name", "what", "count")


def printed(table: object, width: int) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width, highlight=False).print(table)
    return stream.getvalue()


def by_rich(rows: list[tuple[str, ...]]) -> Table:
    table = Table(*COLUMNS[:2], box=None, pad_edge=False)
    table.add_column(COLUMNS[2], justify="right")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


# Wide enough; brackets, which stay; a character of two columns.
@pytest.mark.parametrize(
    ("width", "what"), [(60, "int4"), (60, "[red]int4[/]"), (60, "\u5b57")]
)
def test_a_long_table_is_what_rich_prints(width, what):
    rows = [(f"node_{k}", what, str(7 * k)) for k in range(300)]
    assert printed(tables.Table(COLUMNS, rows, numbers=1), width) == printed(
        by_rich(rows), width
    )


@pytest.mark.parametrize("width", [14, 20, 24])
def test_a_narrow_terminal_breaks_cells_and_cuts_none(width):
    rows = [(f"node_{k}", "int4", str(7 * k)) for k in range(300)]
    text = printed(tables.Table(COLUMNS, rows, numbers=1), width)
    assert "\u2026" not in text
    assert max(map(len, text.splitlines())) <= width
    # Every sign of every cell is there, however cells are broken.
    cells = "".join("".join(row) for row in rows)
    for sign in "0123456789":
        assert text.count(sign) == cells.count(sign)
