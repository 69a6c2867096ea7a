"""What the pages of the site say runs, and what they show is what it prints."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from docs import pages
from qonnx_hub_adapters.dependencies import is_installed

FRAMEWORKS = {
    "oracle": ("onnxruntime", "qonnx"),
    "qkeras": ("qkeras", "tf_keras"),
    "hgq": ("hgq",),
    "torch": ("brevitas", "torchao"),
    "hls4ml": ("hls4ml",),
    "finn": (),
}
"""Environments of tox that pages name, and what must be there; FINN has its own Python."""

PAGES = list(pages.pages())


def environment(page: Path) -> str:
    return pages.head_of(page.read_text(encoding="utf-8")).get("environment", "")


def words(text: str) -> str:
    """Text without numbers and the layout of tables, which differ between machines."""
    return " ".join(re.sub(r"[-+]?\d[\d.,e+-]*", "#", text).split())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_kept_output_belongs_to_the_code(page):
    pages.require_fresh(page, page.read_text(encoding="utf-8"))


def test_code_that_is_newer_than_its_output_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "DOCS", tmp_path)
    monkeypatch.setattr(pages, "OUTPUTS", tmp_path / "outputs")
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(1)\n```\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"page\.md has no output: run"):
        pages.require_fresh(page, page.read_text(encoding="utf-8"))
    kept = {"hash": pages.hash_of(page.read_text(encoding="utf-8")), "outputs": ["1\n"]}
    pages.OUTPUTS.mkdir()
    pages.output_of(page).write_text(json.dumps(kept), encoding="utf-8")
    shown = pages.with_outputs(page, page.read_text(encoding="utf-8"))
    assert shown == "```python\nprint(1)\n```\n\n```text\n1\n```\n"
    with pytest.raises(ValueError, match="its code is newer than its output"):
        pages.require_fresh(page, "```python\nprint(2)\n```\n")


@pytest.mark.parametrize(
    "page", [page for page in PAGES if not environment(page)], ids=lambda page: page.stem
)
def test_a_page_without_a_framework_runs_and_prints_what_it_shows(page, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", pages.COLUMNS)
    monkeypatch.chdir(tmp_path)
    outputs = pages.run(page)
    if is_installed("onnxruntime"):  # without it, conversions say less
        kept = json.loads(pages.output_of(page).read_text(encoding="utf-8"))["outputs"]
        assert list(map(words, outputs)) == list(map(words, kept))


def test_the_report_page_says_what_the_report_shows():
    shown = " ".join(json.loads((pages.OUTPUTS / "report.json").read_text())["outputs"])
    said = " ".join(shown.split())
    told = ("DIFFERENT", "required tolerance", "smallest failing input", "cause", "isolated")
    for word in told:
        assert word in said
    assert "first divergence: layer 'x_quant'" in said


def test_the_committed_picture_is_what_the_executor_draws():
    from docs import pictures

    assert pictures.PICTURE.read_text(encoding="utf-8") == pictures.picture()


@pytest.mark.parametrize("page", sorted(pages.DOCS.rglob("*.md")), ids=lambda page: page.stem)
def test_tables_of_figures_are_those_of_the_data(page):
    from docs.figures import with_tables

    text = page.read_text(encoding="utf-8")
    assert with_tables(text) == text, "run `python docs/figures.py`"
