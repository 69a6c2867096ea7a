"""The source tree, as the tests of the house see it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
ROOMS = {
    "qonnx_hub": REPOSITORY / "qonnx_hub",
    "qonnx_hub_adapters": REPOSITORY / "adapters" / "qonnx_hub_adapters",
    "qonnx_hub_ir": REPOSITORY / "ir" / "qonnx_hub_ir",
}


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def room_files() -> list[Path]:
    """Every Python file of the three rooms."""
    return [file for room in ROOMS.values() for file in _python_files(room)]


@pytest.fixture(scope="session")
def python_files(room_files: list[Path]) -> list[Path]:
    """Every Python file of the repository."""
    beside = [_python_files(REPOSITORY / folder) for folder in ("benchmarks", "tests")]
    return [*room_files, *(file for files in beside for file in files)]


@pytest.fixture(scope="session")
def run_python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program in a fresh interpreter that finds the packages this session finds."""
    roots: list[str] = []
    for name in ROOMS:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        roots.append(str(Path(spec.origin).parents[1]))

    def run(
        program: str, *arguments: str, cwd: Path | None = None, roots: list[str] = roots
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", program, *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(roots)},
        )

    return run


def _python_files(folder: Path) -> list[Path]:
    files = sorted(folder.rglob("*.py"))
    assert files, f"no Python file below {folder}"
    return files
