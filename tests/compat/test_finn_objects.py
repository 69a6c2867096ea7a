"""FINN's own transformations run on wrappers of this project."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import qonnx_hub as qh
import qonnx_hub_adapters
from tests.compat.models import annotated

PYTHON = os.environ.get("FINN_PYTHON", sys.executable)
SCRIPT = Path(__file__).with_name("finn_on_wrappers.py")


def environment() -> dict[str, str]:
    """The variables under which FINN's interpreter finds this project."""
    rooms = (qh, qh.ir, qonnx_hub_adapters)
    folders = dict.fromkeys(str(Path(room.__file__).parents[1]) for room in rooms)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    call = [PYTHON, *map(str, arguments)]
    return subprocess.run(call, capture_output=True, text=True, check=False, env=environment())


HAS_FINN = run("-c", "import finn.transformation.streamline, onnx_ir, typer").returncode == 0

if os.environ.get("QONNX_HUB_REQUIRE_FINN") == "1" and not HAS_FINN:
    raise pytest.UsageError(f"QONNX_HUB_REQUIRE_FINN=1, but {PYTHON} has no FINN")


@pytest.mark.skipif(not HAS_FINN, reason="FINN_PYTHON names no Python with FINN")
def test_finn_converts_and_streamlines_a_wrapper(tmp_path):
    onnx.save(annotated(13), tmp_path / "m.onnx")
    # Whole numbers: no value lies on a tie of a quantizer.
    x = np.random.default_rng(1).integers(-8, 8, size=(1, 3, 8, 8)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", qh.run(str(tmp_path / "m.onnx"), {"x": x})["y"])
    done = run(SCRIPT, tmp_path / "m.onnx", tmp_path / "x.npy", tmp_path / "y.npy")
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found == {"is_theirs": True, "left": 0, "apart": [0.0, 0.0]}
