"""Documents name places that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

# A path inside backticks or a link: folders and files, no options, no URLs.
PLACE = re.compile(r"`([\w.-]+(?:/[\w.<>-]*)+|[\w-]+\.py)`")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)\)")
ROOTS = (
    "",
    "ir/",
    "adapters/",
    "ir/qonnx_hub_ir/",
    "adapters/qonnx_hub_adapters/",
    "qonnx_hub/",
)
WRITTEN = {"build.py"}  # files that conversions write, not files of the repository
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/api-changes.md",
    "docs/architecture.md",
    "docs/glossary.md",
    "docs/hostile-input.md",
)


def places_in(text: str) -> list[str]:
    """Return the places that a document names; patterns with <name> are none."""
    return [p for p in PLACE.findall(text) if "<" not in p and p not in WRITTEN]


def exists(place: str, repository: Path) -> bool:
    """Return whether a place is a file or folder below one of the roots."""
    if any((repository / root / place).exists() for root in ROOTS):
        return True
    # A bare file name stands for the one file of that name.
    return "/" not in place and bool(list(repository.glob(f"*/**/{place}")))


def test_a_place_that_is_gone_is_found():
    assert places_in("see `qonnx_hub/no_such_file.py` and `x.py`") == [
        "qonnx_hub/no_such_file.py",
        "x.py",
    ]


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_place_that_a_document_names_exists(name, repository):
    text = (repository / name).read_text(encoding="utf-8")
    missing = [place for place in places_in(text) if not exists(place, repository)]
    assert missing == []


def test_every_test_that_holds_a_fault_exists(repository):
    text = (repository / "docs/hostile-input.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/\S+\.py)`, `(test_\w+)`", text)
    texts = {file: (repository / file).read_text(encoding="utf-8") for file, _ in named}
    assert len(named) > 25
    assert [name for file, name in named if f"def {name}(" not in texts[file]] == []


def test_every_link_between_documents_leads_somewhere(repository):
    files = [repository / "README.md", repository / "CONTRIBUTING.md"]
    files += sorted((repository / "docs").rglob("*.md"))
    links = [(file, link) for file in files for link in LINK.findall(file.read_text("utf-8"))]
    assert links
    assert [(f.name, link) for f, link in links if not (f.parent / link).exists()] == []
