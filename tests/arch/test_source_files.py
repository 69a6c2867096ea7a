"""What holds of every source file."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

LONGEST_MODULE = 500
LONGEST_FILE = 599
TEXT_FILES = ("*.py", "*.md", "*.toml", "*.ini", "*.txt", ".importlinter", ".ci/run")
NOT_OURS = {".git", ".tox", ".venv", "build", "dist"}
# Assembled from pieces, or this file would find itself.
MACHINE_PATH = re.compile(r"(?<![\w.~}])/(?:home|root|work|Users|opt)" + r"/\w")
UNFINISHED = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b|To be described")


def text_files(repository: Path) -> list[Path]:
    files = {file for pattern in TEXT_FILES for file in repository.rglob(pattern)}
    return sorted(f for f in files if NOT_OURS.isdisjoint(f.relative_to(repository).parts))


def findings(files: list[Path], pattern: re.Pattern[str]) -> list[str]:
    return [
        f"{file.name}:{number}: {line.strip()}"
        for file in files
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
        if pattern.search(line)
    ]


def test_files_stay_short(python_files, repository):
    lengths = {
        str(file.relative_to(repository)): len(file.read_text(encoding="utf-8").splitlines())
        for file in python_files
    }
    assert {name: n for name, n in lengths.items() if n > LONGEST_FILE} == {}


def test_modules_stay_shorter_still(room_files, repository):
    lengths = {f: len(f.read_text(encoding="utf-8").splitlines()) for f in room_files}
    long = {
        str(f.relative_to(repository)): n
        for f, n in lengths.items()
        # It has to stand alone, in one file.
        if n > LONGEST_MODULE and f.name != "verifier.py"
    }
    assert long == {}


def test_every_module_says_what_it_is(room_files, repository):
    silent = [
        str(file.relative_to(repository))
        for file in room_files
        if not ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert silent == []


def test_no_module_is_left_unfinished(room_files):
    assert findings(room_files, UNFINISHED) == []


def test_no_text_names_a_path_of_somebodys_machine(repository):
    files = text_files(repository)
    assert len(files) > 20
    assert findings(files, MACHINE_PATH) == []


@pytest.mark.parametrize("folder", ["home", "root", "work", "Users", "opt"])
def test_an_absolute_path_of_a_machine_is_recognized(folder):
    assert MACHINE_PATH.search(f"open('/{folder}/somebody/model.onnx')")


@pytest.mark.parametrize("text", ["net/work/x", "~/opt/x", "./work/x", "https://a.org/work"])
def test_a_relative_path_is_not_mistaken_for_one_of_a_machine(text):
    assert not MACHINE_PATH.search(text)
