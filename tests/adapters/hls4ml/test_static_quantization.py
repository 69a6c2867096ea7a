"""A net of post-training quantization, with zero points, on its way through hls4ml."""

from __future__ import annotations

import numpy as np
import pytest

import qonnx_hub as qh
from tests.adapters.hls4ml.harness import build, expected, export, predict
from tests.adapters.static_quantization import images, quantized_cnn

pytest.importorskip("onnxruntime")


def distances(source, folder, feeds):
    """How far hls4ml's compiled answers lie from the executor's."""
    export(source, folder)
    net = build(folder)
    (found,), (wanted,) = predict(net, folder, feeds), expected(source, folder, feeds)
    return np.abs(found - wanted.reshape(found.shape))


@pytest.mark.slow
def test_zero_points_agree_to_float_noise(tmp_path):
    # Scales are no powers of two: beside ties of the float32 quotients, nothing differs.
    model = qh.load(quantized_cnn(tmp_path))
    assert distances(model, tmp_path / "out", {"x": images(12, 5)}).max() < 1e-5


@pytest.mark.slow
def test_a_net_made_fit_for_hardware_agrees_exactly(tmp_path):
    fit = qh.transform(
        qh.load(quantized_cnn(tmp_path)), ["symmetrize", "power_of_two_scales"]
    ).model
    feeds = {"x": images(12, 5)}
    assert distances(fit, tmp_path / "out", feeds).max() == 0
    assert not np.array_equal(feeds["x"], np.rint(feeds["x"]))
