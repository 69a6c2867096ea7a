"""Tables without lines, for terminals and notebooks."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeGuard

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.segment import Segment
    from rich.text import Text

_LONG = 200
"""Rows from which on a table that fits the terminal is printed without rich's layout."""

_MOST_ROWS = 500
"""Rows of a table in a notebook; the count of the others is said."""


class Table:
    """A table without lines, as rich prints it, but in one piece where it is long and fits.

    Laying out thousands of cells one by one takes rich longer than many a conversion.

    Args:
        columns: Titles.
        rows: Cells: text, shown as it is, or styled text of rich.
        numbers: How many columns, the last ones, are aligned to the right.
        marked: Which rows are to be looked at, for pages in the browser.
        only: What a page calls them, behind "only".

    Attributes:
        columns: Titles.
        rows: Cells.
        texts: How many columns, the first ones, are words.
        marked: Which rows are to be looked at.
        only: What they are.

    Example:
        >>> from rich.console import Console
        >>> Console(width=40).print(Table(("layer", "MACs"), [("conv", "24")], numbers=1))
        layer  MACs
        conv     24
    """

    def __init__(
        self,
        columns: Sequence[str],
        rows: Iterable[Sequence[str | Text]],
        *,
        numbers: int = 0,
        marked: Iterable[int] = (),
        only: str = "what differs",
    ) -> None:
        self.columns = columns
        self.rows = list(rows)
        self.texts = len(columns) - numbers
        self.marked = frozenset(marked)
        self.only = only

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Give what a terminal shows."""
        from rich import table
        from rich.text import Text

        from qonnx_hub.io.terminal import visible

        # Styles, line breaks and wide characters are rich's to lay out.
        plain = [[cell for cell in cells if _is_plain(cell)] for cells in self.rows]
        complete = all(len(cells) == len(self.columns) for cells in plain)
        if complete and len(plain) >= _LONG:
            whole = [self.columns, *plain]
            widths = [max(map(len, cells)) for cells in zip(*whole, strict=True)]
            if sum(widths) + 2 * len(widths) - 2 <= options.max_width:
                yield from self._lines(whole, widths)
                return
        found = table.Table(box=None, pad_edge=False)
        for k, title in enumerate(self.columns):
            # Cells are broken, never cut: other commands take their names.
            found.add_column(
                title, justify="left" if k < self.texts else "right", overflow="fold"
            )
        for row in self.rows:
            # Text, since a console of somebody else would read a cell as markup.
            cells = (Text(visible(cell)) if isinstance(cell, str) else cell for cell in row)
            found.add_row(*cells)
        yield found

    def _lines(self, whole: list[Sequence[str]], widths: Sequence[int]) -> Iterator[Segment]:
        from rich.segment import Segment
        from rich.style import Style

        def line(cells: Sequence[str]) -> str:
            padded = (
                cell.ljust(width) if k < self.texts else cell.rjust(width)
                for k, (cell, width) in enumerate(zip(cells, widths, strict=True))
            )
            return "  ".join(padded) + "\n"

        yield Segment(line(whole[0]), Style(bold=True))
        yield Segment("".join(map(line, whole[1:])))

    def to_html(self) -> str:
        """Return the table as HTML; every cell is escaped, and what is left out is said."""
        aligned = ["left" if k < self.texts else "right" for k in range(len(self.columns))]

        def line(tag: str, cells: Sequence[str | Text]) -> str:
            found = (
                f'<{tag} style="text-align:{side}">{html.escape(str(cell))}</{tag}>'
                for side, cell in zip(aligned, cells, strict=True)
            )
            return f"<tr>{''.join(found)}</tr>"

        body = "".join(line("td", row) for row in self.rows[:_MOST_ROWS])
        left = len(self.rows) - _MOST_ROWS
        more = f"<p>{left} of {len(self.rows)} rows are not shown</p>" if left > 0 else ""
        head = line("th", self.columns)
        return f"<table><thead>{head}</thead><tbody>{body}</tbody></table>{more}"


def _is_plain(cell: str | Text) -> TypeGuard[str]:
    return isinstance(cell, str) and cell.isascii() and cell.isprintable()
