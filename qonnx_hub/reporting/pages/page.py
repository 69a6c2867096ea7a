"""What a page for the browser consists of, and the one place where pages are written.

A page is one file with everything inside it. It stays below 500 kB, whatever the model: it
goes into mails and bug reports, and is opened on telephones. Names come from foreign files:
templates escape all of them, and the page itself allows no script but the one it brings.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from importlib import resources
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from qonnx_hub.reporting.tables import Table

if TYPE_CHECKING:
    from jinja2 import Template

    from qonnx_hub.reporting.report import Part

Tone: TypeAlias = Literal["good", "near", "open", "bad", ""]
"""How a verdict is coloured."""

_TABLES = 260_000
"""Bytes that the rows of all tables of a page may take."""

_MARKUP = 60
"""Bytes around a row's or a cell's text."""

_LONGEST = 400
"""Characters of a cell; names that are longer are cut, and their length is told."""


@dataclass(frozen=True, slots=True)
class Words:
    """Lines of text.

    Attributes:
        lines: The lines.
        quiet: Whether they are set small.
    """

    kind: ClassVar[str] = "words"

    lines: tuple[str, ...]
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a list: a word that stands out, names with links, a sentence.

    Attributes:
        strong: What it is.
        names: Names, each with the anchor that it leads to; "" for none.
        words: The sentence.
        more: A second line.
    """

    strong: str
    names: tuple[tuple[str, str], ...]
    words: str
    more: str = ""


@dataclass(frozen=True, slots=True)
class Items:
    """A numbered list."""

    kind: ClassVar[str] = "items"

    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table.

    Attributes:
        cells: Its texts.
        marked: Whether it is one to look at: it differs, is refused, or failed.
        anchor: Where links lead to; "" for none.
    """

    cells: tuple[str, ...]
    marked: bool = False
    anchor: str = ""


@dataclass(frozen=True, slots=True)
class Rows:
    """A table that can be sorted by any column, and filtered to what is marked.

    Attributes:
        columns: Titles.
        rows: The rows.
        texts: How many columns, the first ones, are words; the others are numbers.
        only: What the filter says, where some rows are marked and some are not.
        left: Rows that did not fit.
    """

    kind: ClassVar[str] = "rows"

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    texts: int
    only: str = "only what differs"
    left: int = 0

    @property
    def is_filtered(self) -> bool:
        """Whether the filter would leave some rows, and not all."""
        return 0 < sum(row.marked for row in self.rows) < len(self.rows)


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark of an axis: where it is, in percent of the axis, and what stands there."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of a bar chart.

    Attributes:
        label: What it is of.
        lengths: One length per series, in percent of the axis.
        text: The value in words.
        anchor: Where its label leads to; "" for none.
    """

    label: str
    lengths: tuple[float, ...]
    text: str
    anchor: str = ""


@dataclass(frozen=True, slots=True)
class Bars:
    """Horizontal bars below one another, on one axis.

    Attributes:
        bars: The lines.
        ticks: Marks of the axis.
        series: What each colour means.
        words: What the axis shows.
    """

    kind: ClassVar[str] = "bars"

    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]
    series: tuple[str, ...]
    words: str


@dataclass(frozen=True, slots=True)
class Plot:
    """Points, or columns that stand on the axis below; one of both is empty.

    Attributes:
        title: What it shows.
        points: Across and up, in percent of both axes.
        columns: Start and height in percent, and what stands above; all are equally wide.
        across: Marks of the axis below.
        up: Marks of the axis at the left.
        words: What the axes are.
    """

    title: str
    points: tuple[tuple[float, float], ...]
    columns: tuple[tuple[float, float, str], ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    words: str

    @property
    def step(self) -> float:
        """Percent of the axis below that a column takes."""
        return 100 / max(len(self.columns), 1)


@dataclass(frozen=True, slots=True)
class Plots:
    """Plots beside one another, as far as there is room."""

    kind: ClassVar[str] = "plots"

    plots: tuple[Plot, ...]


@dataclass(frozen=True, slots=True)
class Box:
    """A box of the graph's picture.

    Attributes:
        x: Its left edge, in pixels.
        y: Its upper edge.
        lines: What stands in it.
        title: What it says when pointed at.
        level: How far its values are apart: "none", "equal", "near", "far", "most".
        anchor: Where it leads to; "" for none.
    """

    x: float
    y: float
    lines: tuple[str, ...]
    title: str
    level: str
    anchor: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A graph: boxes below one another, with the lines between them.

    Attributes:
        boxes: The boxes.
        paths: Lines, as data of SVG paths.
        width: Pixels.
        height: Pixels.
        box: Pixels of a box, in both directions.
        legend: Level and what its colour means.
    """

    kind: ClassVar[str] = "picture"

    boxes: tuple[Box, ...]
    paths: tuple[str, ...]
    width: int
    height: int
    box: tuple[int, int]
    legend: tuple[tuple[str, str], ...] = ()


Block: TypeAlias = Words | Items | Rows | Bars | Plots | Picture
"""One piece of a section."""


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a page, in a frame of its own; one without blocks is left out."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A page.

    Attributes:
        heading: What it is.
        lead: What it is of.
        sections: Its parts.
        verdict: A word in large letters; "" for none.
        words: What stands beside it.
        tone: Its colour.
    """

    heading: str
    lead: str
    sections: tuple[Section, ...]
    verdict: str = ""
    words: str = ""
    tone: Tone = ""


def rows_of(table: Table) -> Rows:
    """Return a table of a terminal as one of a page."""
    rows = tuple(
        Row(tuple(str(cell) for cell in cells), k in table.marked)
        for k, cells in enumerate(table.rows)
    )
    return Rows(tuple(table.columns), rows, table.texts, f"only {table.only}")


def sections_of(parts: Iterator[Part], titles: Sequence[str] = ()) -> Iterator[Section]:
    """Give what a terminal shows as sections, each with a table and the lines behind it.

    Args:
        parts: What is shown.
        titles: Titles of the sections, in order; those beyond have none.
    """
    blocks: list[Block] = []
    lines: list[str] = []
    names = iter(titles)
    for part in parts:
        if not isinstance(part, Table):
            lines += [text] if (text := str(part)).strip() else []
            continue
        blocks += [Words(tuple(lines))] if lines else []
        if blocks:
            yield Section(next(names, ""), tuple(blocks))
        blocks, lines = [rows_of(part)], []
    blocks += [Words(tuple(lines))] if lines else []
    if blocks:
        yield Section(next(names, ""), tuple(blocks))


def render(page: Page) -> str:
    """Return the page as HTML."""
    script = _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _template().render(
        page=_fitted(page), style=_asset("style.css"), script=script, digest=digest
    )


def _fitted(page: Page) -> Page:
    """Return the page with as many rows as fit; marked ones stay first."""
    tables = [b for s in page.sections for b in s.blocks if isinstance(b, Rows)]
    whole = sum(_size(row) for table in tables for row in table.rows)
    share = min(1.0, _TABLES / max(whole, 1))

    def cut(block: Block) -> Block:
        if not isinstance(block, Rows):
            return block
        room = share * sum(map(_size, block.rows))
        kept: set[int] = set()
        for k in sorted(range(len(block.rows)), key=lambda k: not block.rows[k].marked):
            room -= _size(block.rows[k])
            if room < -1:
                break
            kept.add(k)
        return _kept(block, kept)

    sections = (replace(s, blocks=tuple(map(cut, s.blocks))) for s in page.sections)
    return replace(page, sections=tuple(s for s in sections if s.blocks))


def _kept(table: Rows, kept: Collection[int]) -> Rows:
    rows = tuple(
        replace(row, cells=tuple(map(shortened, row.cells)))
        for k, row in enumerate(table.rows)
        if k in kept
    )
    return replace(table, rows=rows, left=len(table.rows) - len(rows))


def _size(row: Row) -> int:
    texts = (escape(shortened(cell)).encode("utf-8", "replace") for cell in row.cells)
    return _MARKUP + sum(len(text) + 12 for text in texts)


def shortened(text: str, longest: int = _LONGEST) -> str:
    """Return a text of at most so many characters, and how long it was."""
    if len(text) <= longest:
        return text
    return f"{text[:longest]}... ({len(text)} characters)"


@functools.cache
def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


@functools.cache
def _template() -> Template:
    import jinja2

    loader = jinja2.PackageLoader("qonnx_hub.reporting.pages")
    found = jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return found.get_template("page.html")
