"""What a file promises where scales are no powers of two, measured.

The source sums rounded floats, the file sums integers; they may be one step apart in a share
of values that the report states beforehand.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
from onnx_ir import Model

from qonnx_hub.executor.session import Session
from tests.adapters.qlinear.kit import export, net, ops, run_everywhere

RNG = np.random.default_rng


def product_net(a_bits: int, w_bits: int, length: int, seed: int, odd: bool = True) -> Model:
    rng = RNG(seed)
    n = net()
    sx = np.float32(rng.uniform(0.01, 0.02)) if odd else np.float32(2.0**-6)
    sw = rng.uniform(0.005, 0.01, (1, 32)).astype(np.float32) if odd else np.float32(2.0**-7)
    n.quant("x", "xq", sx, a_bits)
    weight = rng.normal(0, 2.0 ** (w_bits - 2), (length, 32)).astype(np.float32)
    n.weight("w", np.clip(weight, -(2.0 ** (w_bits - 1)), None) * sw, sw, w_bits)
    n.add("MatMul", ["xq", "w"], "acc")
    # Three deviations of the sum fill the range of eight bits.
    deviation = float(sx * np.mean(sw)) * 2.0 ** (a_bits + w_bits - 4) * length**0.5
    sy = np.float32(deviation * 3 / 128 * (rng.uniform(0.9, 1.1) if odd else 1.0))
    n.quant("acc", "y", sy if odd else np.float32(2.0 ** np.round(np.log2(sy))), 8)
    return n.model(("N", length), "y")


def predicted_share(reason: str) -> float:
    found = re.search(r"share below ([0-9.e-]+) ", reason)
    return 0.0 if found is None else float(found[1])


def compared(model: Model, x: np.ndarray) -> tuple[float, float, list[str]]:
    """(share of values that differ, largest difference in steps, operators)."""
    artifact = export(model)
    [record] = [r for r in artifact.quantizers if r.node == "y"]
    ours = run_everywhere(artifact, {"x": x})["y"]
    expected = Session(model).run({"x": x})["y"]
    assert len(np.unique(expected)) > 100
    step = np.min(np.diff(np.unique(expected)))
    apart = np.abs(ours - expected) / step
    predicted = predicted_share(record.reason)
    layer = " ".join(note for note in artifact.notes if "MatMul 'acc'" in note)
    predicted = max(predicted, predicted_share(layer))
    assert predicted <= 1e-4
    share = float(np.mean(apart > 0.5))
    assert share <= predicted
    return share, float(apart.max()), ops(artifact)


@pytest.mark.parametrize(("a_bits", "w_bits"), [(4, 4), (8, 4), (8, 8)])
@pytest.mark.parametrize("length", [64, 512])
def test_odd_scales_are_at_most_one_step_apart_at_the_predicted_share(
    a_bits: int, w_bits: int, length: int
) -> None:
    model = product_net(a_bits, w_bits, length, seed=a_bits * 10 + w_bits)
    x = RNG(1).uniform(-1, 1, (6000, length)).astype(np.float32) * 2.0 ** (a_bits - 8) * 2
    _, largest, _ = compared(model, x)
    assert largest < 1.01


@pytest.mark.parametrize(("a_bits", "w_bits"), [(4, 4), (8, 4), (8, 8)])
def test_powers_of_two_are_equal_on_random_values_and_on_ties(
    a_bits: int, w_bits: int
) -> None:
    model = product_net(a_bits, w_bits, 64, seed=3, odd=False)
    artifact = export(model)
    assert all(record.exact for record in artifact.quantizers)
    assert "QLinearMatMul" in ops(artifact)
    for grid in (None, 2.0**-7):
        x = RNG(1).uniform(-2, 2, (3000, 64)).astype(np.float32)
        if grid is not None:
            # Halves of the input's step: each one is a tie of the first quantizer.
            x = (np.rint(x / grid) * grid).astype(np.float32)
        ours = run_everywhere(artifact, {"x": x})["y"]
        np.testing.assert_array_equal(ours, Session(model).run({"x": x})["y"])


def test_a_layer_whose_sums_keep_away_from_ties_is_exact_with_odd_scales() -> None:
    n = net()
    n.quant("x", "xq", 0.1, 2, narrow=1)
    n.weight("w", RNG(1).normal(0, 0.3, (9, 4)), 0.3, 2, narrow=1)
    n.add("MatMul", ["xq", "w"], "acc")
    # Sums are multiples of 0.03 up to 0.27, ties odd multiples of 0.1: never closer than 0.01.
    n.quant("acc", "y", 0.2, 4)
    model = n.model(("N", 9), "y")
    artifact = export(model)
    assert all(record.exact for record in artifact.quantizers)
    x = RNG(2).normal(0, 0.3, (5000, 9)).astype(np.float32)
    ours = run_everywhere(artifact, {"x": x})["y"]
    np.testing.assert_array_equal(ours, Session(model).run({"x": x})["y"])


def test_sums_that_hit_ties_are_not_called_exact() -> None:
    n = net()
    n.quant("x", "xq", 0.1, 4)
    n.weight("w", RNG(1).normal(0, 0.3, (9, 4)), 0.1, 4)
    n.add("MatMul", ["xq", "w"], "acc")
    # Sums are multiples of 0.01, ties of 0.02 lie on every second one.
    n.quant("acc", "y", 0.02, 6)
    artifact = export(n.model(("N", 9), "y"))
    assert not all(record.exact for record in artifact.quantizers)


def test_eight_by_eight_bits_are_warned_about_and_seven_are_not() -> None:
    for bits, expected in ((8, True), (7, False)):
        n = net()
        n.quant("x", "xq", 2.0**-6, 8)
        weights = np.full((16, 3), 10.0)
        n.weight("w", weights, 2.0**-6, bits, narrow=1)
        n.add("MatMul", ["xq", "w"], "acc")
        n.quant("acc", "y", 1.0, 8)
        artifact = export(n.model(("N", 16), "y"))
        warned = any("VNNI" in note and "'acc'" in note for note in artifact.notes)
        assert warned is expected


def test_accumulators_are_counted_by_their_worst_case() -> None:
    n = net()
    n.quant("x", "xq", 1.0, 4)
    n.weight("w", np.full((16, 1), 7.0), 1.0, 4)
    n.add("MatMul", ["xq", "w"], "acc")
    n.quant("acc", "y", 16.0, 8)
    artifact = export(n.model(("N", 16), "y"))
    # 16 * 7 * (-8) = -896 to 16 * 7 * 7 = 784: eleven bits.
    assert "widest accumulator: 11 bits, in MatMul 'acc'" in artifact.notes
