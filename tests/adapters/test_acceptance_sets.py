"""Acceptance sets that lie beside the project, through FINN and hls4ml; minutes each."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from qonnx_hub_adapters.dependencies import is_installed

SETS = Path(__file__).resolve().parents[3] / "shared" / "dropin"
FINN = os.environ.get("FINN_PYTHON", "")
KNOWN = {
    "eltwise_chanlast_testcase",  # its input stays UINT8; the set feeds fractions
    "linear_w1_int__qonnx_dyn",  # an infinite scale is refused
    "linear_w1_int__qonnx_ts",
    "lstm_weight_only__qonnx_dyn",  # a graph without nodes
}
"""Files on which the set and the rules of this project part, and why."""

pytestmark = pytest.mark.skipif(
    "QONNX_HUB_ACCEPTANCE_SETS" not in os.environ or not SETS.is_dir(),
    reason="tox run -e acceptance, where the sets lie beside the project",
)


def answers(program: str, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, SETS / program, *words], capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


@pytest.mark.skipif(not FINN, reason="FINN_PYTHON names no Python with FINN")
def test_finn_takes_what_is_written_for_it_and_computes_the_same() -> None:
    said = answers("finn_accept.py", FINN)
    failed = set(re.findall(r"^ *FAIL (\w+):", said, re.MULTILINE))
    assert re.search(r"^\d+ of \d+$", said, re.MULTILINE), said[-2000:]
    assert failed == KNOWN, said[-3000:]


@pytest.mark.skipif(not is_installed("hls4ml"), reason="needs hls4ml and g++")
def test_hls4ml_takes_data_of_the_source_s_layout() -> None:
    said = answers("hls4ml_layout.py", "--compile")
    assert "38 of 38" in said, said[-3000:]
