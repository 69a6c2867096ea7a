"""The built site in a real browser, from its files: wide and narrow, no network, a search.

Run by ``tox run -e docs`` where there is a Chromium; QONNX_HUB_SITE names the site's folder.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SITE = Path(os.environ.get("QONNX_HUB_SITE", "."))
PAGES = sorted(SITE.rglob("*.html")) if "QONNX_HUB_SITE" in os.environ else []
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

pytestmark = [
    pytest.mark.skipif(not PAGES, reason="tox run -e docs builds the site and opens it"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium"),
]

WIDE = """
() => [...document.querySelectorAll(".md-content *")].filter((e) => {
  const place = e.getBoundingClientRect();
  // Tables and code may be wider: they scroll within their own frame.
  const framed = e.closest("pre, .md-typeset__scrollwrap, .highlight");
  return !framed && place.width > 0 && place.right > document.documentElement.clientWidth + 1;
}).map((e) => `${e.tagName} "${(e.textContent ?? "").trim().slice(0, 40)}"`)
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        yield found
        found.close()


@pytest.fixture(scope="module", params=[1280, 390])
def page(browser: Any, request: pytest.FixtureRequest) -> Iterator[tuple[Any, list[str]]]:
    """A page of one width, and all that it said or fetched."""
    found = browser.new_page(viewport={"width": request.param, "height": 900})
    said: list[str] = []
    found.on("pageerror", lambda error: said.append(str(error)))
    found.on(
        "request",
        lambda wanted: (
            None
            if wanted.url.startswith(("file:", "data:", "blob:"))
            else said.append(wanted.url)
        ),
    )
    yield found, said
    found.close()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(SITE)))
def test_a_page_fits_and_fetches_nothing(page: tuple[Any, list[str]], path: Path) -> None:
    shown, said = page
    said.clear()
    shown.goto(path.as_uri())
    assert shown.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0
    assert shown.evaluate(WIDE) == []
    assert shown.locator("h1").count() >= 1
    assert said == []


def test_a_word_is_found_without_a_server(page: tuple[Any, list[str]]) -> None:
    shown, said = page
    shown.goto((SITE / "index.html").as_uri())
    if not shown.locator("input.md-search__input").is_visible():
        shown.locator("label[for=__search]").first.click()
    # Typed key by key: a value that is put there at once is not always noticed.
    shown.locator("input.md-search__input").press_sequentially("certificate")
    shown.locator(".md-search-result__item").first.wait_for(timeout=20_000)
    assert "ertificate" in shown.locator(".md-search-result__list").inner_text()
    assert said == []
