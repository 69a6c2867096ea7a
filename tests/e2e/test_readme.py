"""The README's Python runs as it stands, line by line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qonnx_hub as qh
from tests.support import model_of, quant_node

README = Path(__file__).resolve().parents[2] / "README.md"


def _python() -> str:
    text = README.read_text(encoding="utf-8")
    section = re.search(r"^## In Python\n(.*?)^## ", text, flags=re.DOTALL | re.MULTILINE)
    assert section is not None
    lines = [line[4:] for line in section[1].splitlines() if line.startswith("    ")]
    return "\n".join(lines)


def test_the_python_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constants = {"s": 0.5, "z": 0.0, "b": 4.0}
    message = model_of([quant_node("x", "y")], {"x": (1, 4)}, ["y"], constants)
    (tmp_path / "model.onnx").write_bytes(message.SerializeToString())
    monkeypatch.chdir(tmp_path)
    x = np.array([[0.2, 0.3, -9.0, 9.0]], dtype=np.float32)
    names: dict[str, Any] = {"x": x}
    exec(_python(), names)  # the text is our own README
    # A scale of 0.5 and 4 signed bits: steps of a half from -4 to 3.5.
    np.testing.assert_array_equal(names["y"]["y"], [[0.0, 0.5, -4.0, 3.5]])
    assert names["report"].check
    assert names["result"].verdict is qh.api.Verdict.PROVEN
