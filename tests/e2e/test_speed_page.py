"""The tables of the page on speed are those of the figures that were kept."""

from __future__ import annotations

from benchmarks import page


def test_the_tables_are_made_of_the_history() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.history()
    assert page.page(text) == text
