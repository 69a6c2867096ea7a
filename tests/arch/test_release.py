"""The script of releases changes the two places that name a version, or nothing."""

from __future__ import annotations

import runpy

import pytest


@pytest.fixture
def prepare(repository):
    return runpy.run_path(str(repository / ".ci" / "release.py"))["prepare"]


@pytest.fixture
def root(tmp_path):
    (tmp_path / "qonnx_hub").mkdir()
    (tmp_path / "qonnx_hub" / "_version.py").write_text('"""V."""\n\n__version__ = "0.1.0"\n')
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n\n- A thing.\n")
    return tmp_path


def test_version_and_heading_are_written(prepare, root):
    prepare(root, "0.2.0", "2027-01-31")
    assert '__version__ = "0.2.0"' in (root / "qonnx_hub" / "_version.py").read_text()
    log = (root / "CHANGELOG.md").read_text()
    assert log == "# Changelog\n\n## [Unreleased]\n\n## [0.2.0] - 2027-01-31\n\n- A thing.\n"
    with pytest.raises(ValueError, match="has nothing under"):
        prepare(root, "0.3.0", "2027-02-28")
    assert (root / "CHANGELOG.md").read_text() == log


@pytest.mark.parametrize("words", [("v0.2", "2027-01-31"), ("0.2.0", "31.1.2027")])
def test_what_is_no_version_or_date_is_refused(prepare, root, words):
    with pytest.raises(ValueError, match="is no"):
        prepare(root, *words)
    assert '"0.1.0"' in (root / "qonnx_hub" / "_version.py").read_text()
