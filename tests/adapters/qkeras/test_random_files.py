"""Random models, saved by the framework, read without it: the framework's own answers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qonnx_hub as qh
from tests.adapters.qkeras.kit import GENERATION, Kit
from tests.adapters.qkeras.random_models import Drawn, answers, drawn

SEEDS = range(int(os.environ.get("QONNX_HUB_RANDOM_FILES", "24")))


def built(kit: Kit, seed: int, draw: Any) -> tuple[Drawn, list[Any]]:
    """Return a model and its answers; what the framework itself refuses is drawn anew."""
    reasons = []
    for attempt in range(6):
        kit.keras.backend.clear_session()
        try:
            model = draw(kit, [seed, attempt])
            return model, answers(model.model, model.feeds)
        except Exception as error:  # whatever the framework raises of its own
            reasons.append(str(error)[:200])
    raise AssertionError(f"no draw could be built: {reasons}")


def saved(model: Any, folder: Path, seed: int) -> tuple[str, dict[str, str]]:
    """Write a model in one of the containers of its generation."""
    kind = seed % 3
    if kind == 2:
        config, weights = folder / "net.json", folder / "net.weights.h5"
        config.write_text(model.to_json())
        model.save_weights(str(weights))
        return str(config), {"weights": str(weights)}
    path = folder / ("net.keras" if kind else "net.h5")
    model.save(str(path))
    return str(path), {}


def compare(case: Drawn, wanted: list[Any], source: str, given: dict[str, str]) -> None:
    model = qh.load(source, from_="keras", **given)
    names = [value.name for value in model.graph.inputs]
    found = list(qh.run(model, dict(zip(names, case.feeds, strict=True))).values())
    assert [one.shape for one in found] == [one.shape for one in wanted]
    for a, b in zip(found, wanted, strict=True):
        if case.exact:
            np.testing.assert_array_equal(a, b)
        else:
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(1.0, np.abs(b).max()))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_file_gives_the_frameworks_answer(kit, tmp_path, seed) -> None:
    case, wanted = built(kit, seed + 1000 * GENERATION, drawn)
    compare(case, wanted, *saved(case.model, tmp_path, seed))
