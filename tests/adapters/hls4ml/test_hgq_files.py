"""Files of HGQ2, converted, compiled by hls4ml and run: HGQ2's own recorded answers.

``channels.keras``: convolutions of widths per channel, SAT_SYM, RND_CONV. ``wraps.keras``:
HGQ2's own defaults, which are widths per element and WRAP.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import qonnx_hub as qh
from tests.adapters.hls4ml.harness import build, export, predict

FILES = Path(__file__).parent / "hgq2"


@pytest.mark.parametrize("name", ["channels", "wraps"])
def test_hls4ml_answers_as_hgq2_did(tmp_path, name):
    source = str(FILES / f"{name}.keras")
    recorded = np.load(FILES / f"{name}.npz")
    folder = export(source, tmp_path / "out")
    feeds = {qh.load(source).graph.inputs[0].name: recorded["x"]}
    (found,) = predict(build(folder), folder, feeds)
    np.testing.assert_array_equal(found, recorded["y"].reshape(found.shape))
