"""Nets of post-training quantization, and random ones, go through FINN itself.

FINN asks for other versions of what the project needs: it runs in an interpreter of its own,
the one that the variable FINN_PYTHON names.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

import qonnx_hub as qh
from qonnx_hub_ir.errors import NotExactError
from tests.adapters.qonnx.finn_nets import RandomNet
from tests.adapters.static_quantization import images, quantized_cnn
from tests.adapters.ties import meets_tie

pytest.importorskip("onnxruntime")

STEPS = Path(__file__).with_name("finn_steps.py")
PYTHON = os.environ.get("FINN_PYTHON", sys.executable)


STAGES = [
    *("step_qonnx_to_finn", "step_tidy_up", "step_streamline", "step_convert_to_hw"),
    *("step_minimize_bit_width_initial", "step_create_dataflow_partition"),
    "step_specialize_layers",
    *("step_target_fps_parallelization", "step_minimize_bit_width", "step_set_fifo_depths"),
]


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
    stages = folder / "intermediate_models"
    stages.mkdir()
    call = [PYTHON, STEPS, file, folder / "x.npy", folder / "y.npy", stages]
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
    source = qh.load(tmp_path / "finn.onnx")
    report = qh.check_stages(source, tmp_path / "intermediate_models")
    assert report, report
    assert len(report.stages) == 4
    # What lint says of it: before padded layers the zero points stay as additions.
    assert found["left"]["Add"] > 1
    assert found["left"]["Im2Col"] == 2


@needs_finn
@pytest.mark.slow
def test_after_symmetrize_every_layer_is_hardware(tmp_path):
    fit = qh.transform(qh.load(quantized_cnn(tmp_path)), ["symmetrize"]).model
    found = through_finn(fit, tmp_path)
    assert set(found["apart"].values()) == {0.0}
    report = qh.check_stages(fit, tmp_path / "intermediate_models")
    assert report, report
    assert [one.stage for one in report.stages] == STAGES
    assert not {"Sub", "Im2Col", "MatMul", "MultiThreshold", "Conv"} & set(found["left"])


NETS = int(os.environ.get("QONNX_HUB_FINN_NETS", "40"))
"""How many random nets go through FINN; 500 where there is time."""

FIRST = int(os.environ.get("QONNX_HUB_FINN_SEED", "0"))
"""The first net's seed; the others follow."""


@needs_finn
@pytest.mark.slow
def test_random_nets_are_converted_to_the_same_function_or_refused(tmp_path):
    answers, refused = {}, Counter()
    for seed in range(FIRST, FIRST + NETS):
        model, file = RandomNet(seed).build(), tmp_path / f"net{seed}.onnx"
        try:
            qh.convert(model, file, profile="finn", check=False)
            onnx.save(model, tmp_path / f"net{seed}.source")
        except NotExactError as error:
            refused.update({gap.reason for gap in error.gaps})
            continue
        [value] = model.graph.input
        shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        # Between the points of every grid of powers of two.
        steps = np.random.default_rng(seed).integers(-2048, 2048, size=(3, *shape))
        inputs = (steps / 1024 + 2.0**-12).astype(np.float32)
        np.save(file.with_suffix(".npy"), inputs)
        runs = [next(iter(qh.run(model, {"x": one}).values())) for one in inputs]
        answers[file.stem] = np.stack([run.reshape(-1) for run in runs])
    call = [PYTHON, STEPS.with_name("finn_batch.py"), tmp_path]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(call, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert len(answers) > NETS / 2, refused
    values = sum(one.get("values", 0) for one in found.values())
    ties = sum(one.get("ties", 0) for one in found.values())
    print(f"{NETS} nets from seed {FIRST}: {len(answers)} converted, ", end="")
    print(f"{ties} of {values} values at ties")
    print(f"refused: {dict(refused)}")
    wrong = {name: words for name in answers if (words := _wrong(found[name], answers[name]))}
    at_ties = {name for name, words in wrong.items() if _is_at_ties(words, tmp_path / name)}
    print(f"{len(at_ties)} nets whose ties fall to the other side: {sorted(at_ties)}")
    assert not {name: words for name, words in wrong.items() if name not in at_ties}
    assert len(at_ties) <= NETS / 100


def _wrong(one, wanted):
    """Say what is wrong with a net that FINN took; nothing if all is right."""
    if "error" in one or one["left"]:
        return one.get("error") or f"left: {one['left']}"
    if any(map(any, one["apart"].values())):
        return one["apart"]
    # The qonnx package sums in another order: a sum beside a tie may fall to either side.
    limit = 2e-5 * max(np.abs(wanted).max(), 1e-9)
    share = float(np.mean(np.abs(np.array(one["answers"]) - wanted) > limit))
    return f"{share:.1%} of the answers are not those of the qonnx package" * bool(
        share > 0.02
    )


def _is_at_ties(words, path) -> bool:
    """Return whether every sample that differs meets a tie of a quantizer, or a sign of 0."""
    if not isinstance(words, dict):
        return False
    source, inputs = qh.load(onnx.load(f"{path}.source")), np.load(f"{path}.npy")
    differs = np.any(list(words.values()), axis=0)
    return all(meets_tie(source, {"x": one}) for one in inputs[differs])
