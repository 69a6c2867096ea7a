"""Random models of HGQ2, saved by it, read without it: its own answers."""

from __future__ import annotations

import os
from typing import Any

import keras
import numpy as np
import pytest

import qonnx_hub as qh
from tests.adapters.hgq.random_models import drawn

SEEDS = range(int(os.environ.get("QONNX_HUB_RANDOM_FILES", "24")))
pytestmark = pytest.mark.filterwarnings("ignore")


def built(seed: int) -> tuple[Any, Any, bool, Any]:
    """Return a model and its answer; what the framework itself refuses is drawn anew."""
    reasons = []
    for attempt in range(6):
        keras.utils.clear_session()
        keras.utils.set_random_seed(0)
        try:
            model, x, exact = drawn([seed, attempt])
            return model, x, exact, np.asarray(model(x, training=False))
        except Exception as error:  # whatever the framework raises of its own
            reasons.append(str(error)[:200])
    raise AssertionError(f"no draw could be built: {reasons}")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_file_of_hgq2_gives_its_codes(tmp_path, seed) -> None:
    model, x, exact, wanted = built(seed)
    path = tmp_path / ("net.keras" if seed % 2 else "net.h5")
    model.save(path)
    ir = qh.load(str(path), from_="keras")
    (found,) = qh.run(ir, {ir.graph.inputs[0].name: x}).values()
    if exact:
        np.testing.assert_array_equal(found, wanted)
        return
    # A float exponential or division may lie on the other side of a tie.
    assert np.mean(found != wanted) < 0.01
