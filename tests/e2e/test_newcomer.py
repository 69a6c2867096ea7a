"""A newcomer's path, literally: clone, install, convert, check, read a report, mend, prove."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = "import os, pathlib; from docs import pages; os.chdir({folder!r}); pages.run({page})"


@pytest.mark.skipif(
    "QONNX_HUB_NEWCOMER" not in os.environ,
    reason="tox run -e newcomer clones and installs the project",
)
def test_the_first_command_and_the_first_pages_are_followed_to_the_proof(
    tmp_path: Path,
) -> None:
    clone = tmp_path / "qonnx_hub"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    readme = (clone / "README.md").read_text(encoding="utf-8")
    first, second = re.findall(r"^    (.*\.venv/bin/.*)$", readme, re.MULTILINE)
    assert second.endswith("tox"), "the second command runs all tests"
    # What the environment of the test has set is not a newcomer's.
    own = {
        k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL", "TOX"))
    }

    def run(command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", command], cwd=clone, env=own, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    shown = run(first).splitlines()
    # The report in the README is what is printed, but for the place of the model.
    kept = [
        line for line in readme.splitlines() if line.startswith(("    Quant_", "    PROVEN"))
    ]
    assert [line.split() for line in kept] == [
        line.split() for line in shown if line.startswith(("Quant_", "PROVEN"))
    ]
    for page in ("docs/index.md", "docs/report.md"):
        (folder := tmp_path / Path(page).stem).mkdir()
        code = PAGE.format(folder=str(folder), page=f"pathlib.Path({str(clone / page)!r})")
        run(f'.venv/bin/python -c "{code}"')
    assert (tmp_path / "report" / "certificate.json").is_file()
