"""hls4ml converts, compiles and predicts what the executor computes.

1e-5 is the rounding of float32 on outputs of some tens: hls4ml computes exactly, the executor
rounds. Where scales are powers of two, both are exact, on ties and on both sides of them.
Where they are not, division in float32 itself decides what is a tie: hls4ml multiplies with
the rounded inverse instead, so inputs are random there.
"""

from __future__ import annotations

import numpy as np
import pytest

import qonnx_hub as qh
from tests.adapters.hls4ml import nets
from tests.adapters.hls4ml.harness import (
    anything,
    build,
    compare,
    export,
    lattice,
    predict,
    samples,
)
from tests.support import SHARED, needs_shared

ZOO = SHARED / "models" / "zoo"
ROUNDING = 1e-5


@needs_shared
def test_the_jet_tagger_is_exact_up_to_its_softmax(tmp_path):
    source = str(ZOO / "qkeras_jettagging.onnx")
    feeds = lattice(source, 48, 64.0)
    assert compare(source, tmp_path / "out", feeds) == [0.0]


@needs_shared
@pytest.mark.slow
def test_a_tuned_softmax_is_near(tmp_path):
    # Both tables are read at 4096 places: their steps are 16 / 4096 and 8 / 4096.
    source = str(ZOO / "qkeras_jettagging.onnx")
    feeds = lattice(source, 48, 4.0)
    folder = export(source, tmp_path / "out", softmax="tuned")
    (found,) = predict(build(folder), folder, feeds)
    (wanted,) = qh.Session(qh.load(source)).run(feeds).values()
    assert np.abs(found - wanted).max() < 16 / 4096
    assert np.array_equal(found.argmax(axis=1), wanted.argmax(axis=1))


@needs_shared
@pytest.mark.parametrize("name", ["TFC_1W1A", "TFC_2W2A"])
def test_networks_for_digits_agree(tmp_path, name):
    # Pixels, and a lattice that holds the ties of the first quantizer. Float32 neighbours of
    # those ties are left out: the executor itself rounds them onto the tie in 2 * x - 1.
    source = str(ZOO / f"{name}.onnx")
    rng = np.random.default_rng(1)
    pixels = (rng.integers(0, 256, (24, 1, 28, 28)) / 255).astype(np.float32)
    quarters = (rng.integers(-4, 9, (12, 1, 28, 28)) / 4).astype(np.float32)
    feeds = {"0": np.concatenate([pixels, quarters])}
    assert max(compare(source, tmp_path / "out", feeds)) <= ROUNDING


@needs_shared
@pytest.mark.slow
def test_keyword_spotting_with_a_scale_per_channel_agrees(tmp_path):
    source = str(ZOO / "kwsmlp_w3a3.onnx")
    feeds = anything(source, 32, 120.0)
    assert max(compare(source, tmp_path / "out", feeds)) <= ROUNDING


@needs_shared
@pytest.mark.slow
def test_a_binary_layer_is_exact(tmp_path):
    source = str(SHARED / "models" / "hls4ml_examples" / "bnn_model_fc_1layer.onnx")
    assert compare(source, tmp_path / "out", lattice(source, 32, 2.0)) == [0.0]


@pytest.mark.slow
def test_a_network_of_qkeras_with_convolutions_is_exact(tmp_path):
    source = nets.qkeras_cnn()
    feeds = samples(source, 24)
    assert compare(source, tmp_path / "out", feeds) == [0.0]


@pytest.mark.slow
def test_a_network_of_brevitas_with_convolutions_agrees(tmp_path):
    source = nets.brevitas_cnn()
    feeds = anything(source, 24, 2.5)
    assert max(compare(source, tmp_path / "out", feeds)) <= ROUNDING


@pytest.mark.slow
def test_a_residual_network_agrees(tmp_path):
    source = nets.residual_net()
    feeds = anything(source, 200, 1.8)
    assert max(compare(source, tmp_path / "out", feeds)) <= ROUNDING
