"""A net of post-training quantization goes through FINN itself.

FINN asks for other versions of what the project needs: it runs in an interpreter of its own,
the one that the variable FINN_PYTHON names.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import qonnx_hub as qh
from tests.adapters.static_quantization import images, quantized_cnn

pytest.importorskip("onnxruntime")

STEPS = Path(__file__).with_name("finn_steps.py")
PYTHON = os.environ.get("FINN_PYTHON", sys.executable)


def _has_finn() -> bool:
    call = [PYTHON, "-c", "import finn.transformation.streamline"]
    return subprocess.run(call, capture_output=True, check=False).returncode == 0


if os.environ.get("QONNX_HUB_REQUIRE_FINN") == "1" and not _has_finn():
    raise pytest.UsageError(f"QONNX_HUB_REQUIRE_FINN=1, but {PYTHON} has no FINN")

needs_finn = pytest.mark.skipif(
    not _has_finn(), reason="FINN_PYTHON names no Python with FINN"
)


def through_finn(model, folder: Path) -> dict[str, dict[str, float]]:
    """What FINN makes of a model: the steps' distances, the operators that are no hardware."""
    file = folder / "finn.onnx"
    qh.convert(model, file, profile="finn")
    inputs = images(3, 7)[:, np.newaxis]
    answers = np.stack([next(iter(qh.run(model, {"x": one}).values())) for one in inputs])
    np.save(folder / "x.npy", inputs)
    np.save(folder / "y.npy", answers)
    call = [PYTHON, STEPS, file, folder / "x.npy", folder / "y.npy"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(call, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert isinstance(found, dict)
    return found


@needs_finn
@pytest.mark.slow
def test_zero_points_give_equal_answers_after_every_step(tmp_path):
    found = through_finn(qh.load(quantized_cnn(tmp_path)), tmp_path)
    assert set(found["apart"].values()) == {0.0}
    # What lint says of it: before padded layers the zero points stay as additions.
    assert found["left"]["Add"] > 1
    assert found["left"]["Im2Col"] == 2


@needs_finn
@pytest.mark.slow
def test_after_symmetrize_every_layer_is_hardware(tmp_path):
    fit = qh.transform(qh.load(quantized_cnn(tmp_path)), ["symmetrize"]).model
    found = through_finn(fit, tmp_path)
    assert set(found["apart"].values()) == {0.0}
    assert not {"Sub", "Im2Col", "MatMul", "MultiThreshold", "Conv"} & set(found["left"])
