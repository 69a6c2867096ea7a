"""Live models: every output, values from outside of layers, and layers of every setting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import qonnx_hub as qh
from tests.adapters.qkeras.kit import GENERATION, Kit

Q4 = "quantized_bits(4,0,1,alpha=1)"
OUTSIDE = np.array([1.0, 2.0, 3.0, 4.0], dtype=np.float32)


def recurrent(name: str, **given: Any) -> Callable[[Kit], Any]:
    return lambda kit: kit.model((5, 3), getattr(kit.layers, name)(4, **given))


def upward(*args: Any, **given: Any) -> Callable[[Kit], Any]:
    return lambda kit: kit.model((5, 5, 2), kit.layers.Conv2DTranspose(*args, **given))


def normalized(kit: Kit) -> Any:
    layer = kit.layers.Normalization()
    layer.adapt(np.random.default_rng(0).normal(2, 3, (50, 4)).astype(np.float32))
    return kit.model((4,), layer, kit.layers.Dense(3))


def outside(kit: Kit) -> Any:
    held = tf.constant(OUTSIDE)
    return kit.model((4,), kit.layers.Lambda(lambda x: x * held))


def gru(kit: Kit) -> Any:
    given = {"kernel_quantizer": Q4, "recurrent_quantizer": Q4, "reset_after": True}
    return kit.model((5, 3), kit.q.QGRU(4, **given))


def pruned(kit: Kit) -> Any:
    sparsity = pytest.importorskip("tensorflow_model_optimization").sparsity
    return kit.model((4,), sparsity.keras.prune_low_magnitude(kit.layers.Dense(3)))


CASES: dict[str, Callable[[Kit], Any]] = {
    "lstm with states": recurrent("LSTM", return_state=True),
    "lstm with steps and states": recurrent("LSTM", return_state=True, return_sequences=True),
    "gru with state": recurrent("GRU", return_state=True),
    "qgru that resets after": gru,
    "normalization": normalized,
    "constant from outside": outside,
    "kernel below the stride": upward(3, 1, strides=2),
    "kernel below the stride, same": upward(3, 2, strides=3, padding="same"),
    "kernel below the stride, valid": upward(3, 2, strides=3),
    "output padding": upward(3, 3, strides=2, padding="same", output_padding=1),
    "groups": lambda kit: kit.model((6, 6, 4), kit.layers.Conv2D(4, 3, groups=2)),
    "groups of steps": lambda kit: kit.model((6, 4), kit.layers.Conv1D(4, 3, groups=2)),
    "gelu": lambda kit: kit.model((4,), kit.layers.Dense(3, activation="gelu")),
    "selu": lambda kit: kit.model((4,), kit.layers.Dense(3, activation="selu")),
    "a function of qkeras": lambda kit: kit.model(
        (4,), kit.q.QDense(3, kernel_quantizer=Q4, activation="hard_tanh")
    ),
}
if GENERATION == 2:
    CASES["pruned"] = pruned
else:
    CASES["celu"] = lambda kit: kit.model((4,), kit.layers.Activation("celu"))


@pytest.mark.parametrize("build", CASES.values(), ids=CASES)
def test_a_live_model_gives_all_its_outputs(kit, build) -> None:
    model, random = build(kit), np.random.default_rng(1)
    for variable in model.trainable_weights:
        variable.assign(random.normal(0, 0.5, variable.shape).astype(np.float32))
    x = random.normal(0, 1, (3, *model.inputs[0].shape[1:])).astype(np.float32)
    wanted = [one.numpy() for one in tf.nest.flatten(model(x))]
    ir = qh.load(model)
    found = list(qh.run(ir, {ir.graph.inputs[0].name: x}).values())
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


@pytest.mark.parametrize("suffix", ["", ".h5", ".keras"])
def test_inputs_and_outputs_of_a_dict_are_called_after_its_keys(kit, tmp_path, suffix) -> None:
    first, second = (kit.keras.Input((4,), name=name) for name in ("one", "two"))
    ends = {"z": kit.layers.Dense(2)(first), "s": kit.layers.Subtract()([first, second])}
    model = kit.keras.Model({"zed": first, "beta": second}, ends)
    source = model
    if suffix:
        source = tmp_path / f"net{suffix}"
        model.save(source)
    x, y = np.eye(4, dtype=np.float32), np.full((4, 4), 0.25, dtype=np.float32)
    for reader in ("qkeras", "keras") if suffix else ("qkeras",):
        ir = qh.load(source, from_=reader)
        assert [value.name for value in ir.graph.inputs] == ["beta", "zed"]
        found = qh.run(ir, {"zed": x, "beta": y})
        assert list(found) == ["s", "z"]
        np.testing.assert_array_equal(found["s"], x - y)
    report = qh.check(source, ir)
    assert report, str(report)


@pytest.mark.skipif(GENERATION != 3, reason="operations between layers are of Keras 3")
def test_an_operation_is_not_taken_for_a_constraint_of_qkeras(kit, tmp_path) -> None:
    start = kit.keras.Input((4,))
    model = kit.keras.Model(start, kit.keras.ops.clip(start, -0.5, 0.5))
    model.save(tmp_path / "net.keras")
    x = OUTSIDE[None] - 2.5
    ir = qh.load(str(tmp_path / "net.keras"), from_="qkeras")
    (found,) = qh.run(ir, {ir.graph.inputs[0].name: x}).values()
    np.testing.assert_array_equal(found, np.clip(x, -0.5, 0.5))
