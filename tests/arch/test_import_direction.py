"""The contracts of `.importlinter`, and the proof that they can fail."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

pytest.importorskip("importlinter")

LINT = """
import sys
from importlinter.cli import lint_imports
sys.exit(lint_imports(config_filename=sys.argv[1], no_cache=True, no_logo=True))
"""
PACKAGES = ("qonnx_hub", "qonnx_hub_adapters", "qonnx_hub_ir")
VIOLATIONS = [
    ("qonnx_hub_ir", "import qonnx_hub_adapters", "qonnx_hub_ir is not allowed to import"),
    ("qonnx_hub_ir", "import qonnx_hub", "qonnx_hub_ir is not allowed to import"),
    ("qonnx_hub_adapters", "import qonnx_hub", "qonnx_hub_adapters is not allowed to import"),
    ("qonnx_hub", "import qonnx", "is not allowed to import qonnx"),
    ("qonnx_hub_ir", "def f():\n    import torch", "is not allowed to import torch"),
    ("qonnx_hub_adapters", "import rich", "is not allowed to import rich"),
]


def test_the_rooms_import_each_other_in_one_direction_only(repository, run_python):
    roots = [str(repository), str(repository / "ir"), str(repository / "adapters")]
    done = run_python(LINT, ".importlinter", cwd=repository, roots=roots)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 kept, 0 broken" in done.stdout


@pytest.mark.parametrize(("package", "source", "message"), VIOLATIONS)
def test_a_forbidden_import_breaks_a_contract(
    package, source, message, repository: Path, run_python, tmp_path
):
    for name in PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(source if name == package else "")
    shutil.copy(repository / ".importlinter", tmp_path)
    done = run_python(LINT, ".importlinter", cwd=tmp_path, roots=[str(tmp_path)])
    assert done.returncode == 1, done.stdout + done.stderr
    assert message in done.stdout
