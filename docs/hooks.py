"""Shows the output of a page's code behind it; a page whose output is old stops the build."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS))

import pages  # noqa: E402  (found by the path above: mkdocs loads this file alone)


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Return the page with what its blocks print."""
    path = DOCS / page.file.src_uri
    if not path.is_file() or not pages.blocks_of(markdown):
        return markdown
    try:
        return pages.with_outputs(path, markdown)
    except ValueError as error:
        raise PluginError(str(error)) from error
