"""The example that trains with HGQ2."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "hgq2_jet_tagger.py"


@pytest.mark.filterwarnings("ignore")
def test_the_example_trains_saves_converts_and_checks(tmp_path, capsys) -> None:
    spec = importlib.util.spec_from_file_location("hgq2_example", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.main(str(tmp_path / "jets.keras")) == 0
    assert "100.00% of the answers are those of HGQ2" in capsys.readouterr().out
