"""The ground of every report: how it is shown at a prompt, in a notebook and on a terminal."""

from __future__ import annotations

import html
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, Union

from qonnx_hub.reporting.tables import Table

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.text import Text

    from qonnx_hub.reporting.pages.page import Page

Part: TypeAlias = Union[str, "Text", Table]
"""One piece of a report: a line, a styled line, or a table."""


class Report:
    """A report that shows itself; what the command line prints is its parts.

    A subclass says what it consists of: ``summary``, ``parts``, ``rows`` and ``to_dict``.

    Example:
        >>> report = qh.inspect("model.onnx")
        >>> report                    # one line; in a notebook, tables
        >>> report.show()             # what the command line prints
        >>> report.to_pandas()        # its main table
    """

    __slots__ = ()

    schema: ClassVar[str] = ""
    """Name and version of the JSON schema, as in ``qonnx_hub/schemas``."""

    heading: ClassVar[str] = "Report"
    """What a page for the browser is headed by."""

    def summary(self) -> str:
        """Return the report in one line."""
        raise NotImplementedError

    def parts(self) -> Iterator[Part]:
        """Give what is shown, in order; the line that says most comes last."""
        raise NotImplementedError

    def rows(self) -> list[dict[str, Any]]:
        """Return the main table as plain data, one dict per row."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data, fit for JSON."""
        raise NotImplementedError

    def to_json(self) -> str:
        """Return the report as JSON, with the name of its schema."""
        return json.dumps(self.document(), indent=2)

    def document(self) -> dict[str, Any]:
        """Return what ``to_json`` and ``--json`` write: the schema's name, then the report."""
        return {"schema": f"qonnx-hub/{self.schema}", **self.to_dict()}

    def page(self) -> Page:
        """Return what ``to_html`` and ``--report`` write: the parts, and charts of them."""
        from qonnx_hub.reporting.pages.page import Page, sections_of

        return Page(self.heading, self.summary(), tuple(sections_of(self.parts())))

    def to_html(self, path: str | Path) -> None:
        """Write the report as one page for the browser that needs nothing beside it.

        Raises:
            UsageError: It cannot be written there.
        """
        from qonnx_hub.io.atomic import write_text
        from qonnx_hub.reporting.pages.page import render

        write_text(path, render(self.page()))

    def to_pandas(self) -> Any:
        """Return the main table as a ``pandas.DataFrame``, one row per entry of ``rows()``.

        Raises:
            MissingDependencyError: pandas is not installed.
        """
        from qonnx_hub_adapters.dependencies import require

        pandas = require("pandas", needed_by="to_pandas()", extra="pandas")
        return pandas.DataFrame(self.rows())

    def table(self, width: int = 100) -> str:
        """Return all parts as text of that width, without colours."""
        from qonnx_hub.io.terminal import ReportConsole

        stream = io.StringIO()
        # A notebook would take the text for itself.
        self.show(
            ReportConsole(file=stream, width=width, color_system=None, force_jupyter=False)
        )
        return stream.getvalue()

    def show(self, console: Console | None = None) -> None:
        """Print the report, on the given console of rich; in a notebook, display it."""
        from qonnx_hub.io.terminal import ReportConsole

        console = console or ReportConsole()
        if console.is_jupyter:
            from IPython.display import HTML, display  # type: ignore[import-not-found]

            display(HTML(self._repr_html_()))
            return
        for part in self.parts():
            console.print(part)

    def __repr__(self) -> str:
        """Return one line, for the prompt."""
        return f"<{type(self).__name__}: {self.summary()}>"

    def _repr_html_(self) -> str:
        """Return the parts as HTML, for notebooks; names are escaped."""
        found = []
        for part in self.parts():
            if isinstance(part, Table):
                found.append(part.to_html())
            elif text := html.escape(str(part)):
                found.append(f'<div style="white-space:pre-wrap">{text}</div>')
            else:
                found.append("<br>")
        return "".join(found)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Give the parts to any console of rich; names are no markup."""
        from rich.text import Text

        from qonnx_hub.io.terminal import visible

        for part in self.parts():
            yield Text(visible(part)) if isinstance(part, str) else part
