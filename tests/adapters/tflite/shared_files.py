"""Published and made TFLite files with recorded codes, where they lie beside the project."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FOLDER = Path(__file__).resolve().parents[3].parent / "shared" / "tflite"


def rows(*expected: str) -> list[dict[str, str]]:
    """Return the rows of the index with these expectations; none where it is missing."""
    index = FOLDER / "INDEX.tsv"
    if not index.exists():
        return []
    with index.open() as lines:
        found = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [row for row in found if row["expected"] in expected]


def path_of(name: str) -> Path:
    """Return a file; the test is skipped where it is missing."""
    path = FOLDER / f"{name}.tflite"
    if not path.exists():
        pytest.skip("the files with recorded codes are not here")
    return path


def recorded(name: str) -> tuple[list[np.ndarray[Any, Any]], list[np.ndarray[Any, Any]]]:
    """Return inputs and outputs of the reference kernels, samples first."""
    stored = np.load(FOLDER / f"{name}.io.npz")
    given, made = (
        [stored[f"{kind}{i}"] for i in range(9) if f"{kind}{i}" in stored.files]
        for kind in ("x", "y")
    )
    return given, made
