"""Matrix products of two activations, as in attention: integers, and the same values.

The reference is the executor on the graph with its quantizers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qonnx_hub.executor.session import Session
from tests.adapters.qlinear.kit import Net, assert_exact, export, net, ops, run_everywhere
from tests.adapters.qlinear.test_contract import predicted_share

RNG = np.random.default_rng


def scores(
    scale_a: float = 0.25,
    scale_b: float = 0.5,
    bits: tuple[int, int] = (4, 4),
    signed: tuple[int, int] = (1, 1),
) -> Net:
    """The product of the input by itself, turned, both quantized in their own way."""
    n = net()
    n.quant("x", "a", scale_a, bits[0], signed=signed[0])
    n.add("Transpose", ["x"], "turned", perm=[0, 2, 1])
    n.quant("turned", "b", scale_b, bits[1], signed=signed[1])
    n.add("MatMul", ["a", "b"], "acc")
    return n


@pytest.mark.parametrize("bits", [(4, 4), (8, 8), (8, 3)])
@pytest.mark.parametrize("signed", [(1, 1), (0, 1), (0, 0)])
def test_a_product_of_two_activations_is_integer_only(
    bits: tuple[int, int], signed: tuple[int, int]
) -> None:
    n = scores(bits=bits, signed=signed)
    n.quant("acc", "y", 0.5, 7)
    model = n.model((2, 5, 12), "y")
    artifact = export(model)
    assert artifact.notes[0] == "1 of 1 layers integer-only"
    assert "QLinearMatMul" in ops(artifact)
    assert not {"MatMul", "MatMulInteger"} & set(ops(artifact))
    assert_exact(model, artifact)


@pytest.mark.parametrize("dialect", ["onnx", "ort"])
def test_a_factor_behind_it_is_part_of_its_scale(dialect: str) -> None:
    n = scores()
    n.add("Div", ["acc", n.constant("root", 4.0)], "scaled")
    n.quant("scaled", "y", 0.25, 6)
    model = n.model((2, 5, 12), "y")
    artifact = export(model, dialect=dialect)
    assert "Div" not in ops(artifact)
    assert_exact(model, artifact)


def test_a_sum_that_floats_need_is_an_integer_sum() -> None:
    n = scores()
    n.add("Softmax", ["acc"], "y", axis=-1)
    model = n.model((2, 5, 12), "y")
    artifact = export(model)
    assert artifact.notes[0] == "1 of 1 layers integer-only"
    assert ops(artifact)[-4:] == ["MatMulInteger", "Cast", "Mul", "Softmax"]
    assert_exact(model, artifact)


@pytest.mark.parametrize("step", ["offset", "minus"])
def test_what_no_operator_of_two_activations_says_stays_a_float_epilogue(step: str) -> None:
    n = scores()
    if step == "offset":
        n.add("Add", ["acc", n.constant("c", 0.375)], "moved")
    else:
        n.add("Neg", ["acc"], "moved")
    n.quant("moved", "y", 0.5, 7)
    model = n.model((2, 5, 12), "y")
    artifact = export(model)
    assert "takes no bias and no other sign" in " ".join(artifact.notes)
    assert "MatMulInteger" in ops(artifact)
    assert_exact(model, artifact)


def test_one_factor_in_float_keeps_the_product_in_float() -> None:
    n = net()
    n.quant("x", "a", 0.25, 4)
    n.add("Transpose", ["x"], "turned", perm=[0, 2, 1])
    n.add("MatMul", ["a", "turned"], "acc")
    n.quant("acc", "y", 0.5, 7)
    artifact = export(n.model((2, 5, 12), "y"))
    assert artifact.notes[0] == "0 of 1 layers integer-only, 1 in float"


def test_attention_over_heads_is_integer_up_to_its_softmax() -> None:
    n = net()
    for name, seed in (("q", 1), ("k", 2), ("v", 3)):
        if seed == 1:
            n.quant("x", "xq", 0.125, 6)
        n.weight(f"w{name}", RNG(seed).normal(0, 0.3, (12, 12)), 0.125, 4, narrow=1)
        n.add("MatMul", ["xq", f"w{name}"], f"{name}_sum")
        n.quant(f"{name}_sum", f"{name}_codes", 0.25, 5)
        n.constants["heads"] = np.array([0, 0, 3, 4], dtype=np.int64)
        n.add("Reshape", [f"{name}_codes", "heads"], f"{name}_heads")
        n.add("Transpose", [f"{name}_heads"], name, perm=[0, 2, 3 if name == "k" else 1, 1]
              if name == "k" else [0, 2, 1, 3])  # fmt: skip
    n.add("MatMul", ["q", "k"], "scores")
    n.add("Div", ["scores", n.constant("root", 2.0)], "scaled")
    n.quant("scaled", "s", 0.25, 6)
    n.add("Softmax", ["s"], "shares", axis=-1)
    n.quant("shares", "p", 2.0**-7, 7, signed=0)
    n.add("MatMul", ["p", "v"], "mixed")
    n.quant("mixed", "y", 0.0625, 8)
    model = n.model((2, 5, 12), "y")
    artifact = export(model)
    assert artifact.notes[0] == "5 of 5 layers integer-only"
    assert_exact(model, artifact)


def test_odd_scales_are_at_most_one_step_apart_at_the_predicted_share() -> None:
    n = scores(0.01234, 0.0151, (8, 8))
    # Three deviations of a sum of 64 products of evenly spread codes fill the range.
    n.quant("acc", "y", 0.01234 * 0.0151 * 73.9 * 73.9 * 8 * 3 / 128, 8)
    model = n.model((64, 48, 64), "y")
    artifact = export(model)
    assert artifact.notes[0] == "1 of 1 layers integer-only"
    [record] = [r for r in artifact.quantizers if r.node == "y"]
    predicted = predicted_share(record.reason)
    assert 0 < predicted <= 1e-4
    feeds: Any = {"x": RNG(1).uniform(-1.6, 1.6, (64, 48, 64)).astype(np.float32)}
    ours = run_everywhere(artifact, feeds)["y"]
    expected = Session(model).run(feeds)["y"]
    step = np.min(np.diff(np.unique(expected)))
    apart = np.abs(ours - expected) / step
    assert float(apart.max()) < 1.01
    assert float(np.mean(apart > 0.5)) <= predicted
