"""Pages that need a framework run where it is installed: every environment has its own."""

from __future__ import annotations

import os

import pytest

from docs import pages
from qonnx_hub_adapters.dependencies import is_installed
from tests.e2e.test_pages import FRAMEWORKS, PAGES, environment

TUTORIALS = [page for page in PAGES if environment(page)]


def test_every_page_names_an_environment_that_is_known():
    assert {environment(page) for page in TUTORIALS} <= set(FRAMEWORKS)


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_page_runs_in_its_environment(page, tmp_path, monkeypatch):
    name = environment(page)
    elsewhere = os.environ.get("TOX_ENV_NAME", name) != name
    missing = [module for module in FRAMEWORKS[name] if not is_installed(module)]
    if elsewhere or missing or (name == "finn" and "FINN_PYTHON" not in os.environ):
        pytest.skip(f"runs in the environment '{name}'")
    monkeypatch.setenv("COLUMNS", pages.COLUMNS)
    monkeypatch.chdir(tmp_path)
    assert len(pages.run(page)) == len(pages.blocks_of(page.read_text(encoding="utf-8")))
