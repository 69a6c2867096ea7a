"""Operations that pick, number and add up elements: the file answers as Keras does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import qonnx_hub as qh
from tests.adapters.qkeras.kit import GENERATION, Kit

WHOLE = np.array([[[-7, 7, 5], [0, -3, 9]]], dtype=np.int32)
TENTHS = np.array([[[1.0, -0.7, 0.3], [-0.0, 0.0, 0.6]]], dtype=np.float32)
ODD = np.array([[[0.1, 0.1, -0.1], [0.1, 3.0, -0.2]]], dtype=np.float32)

Case = Callable[[Any, Any, Any], Any]

OF_2: dict[str, Case] = {
    "gather": lambda x, y, n: tf.gather(x, [2, 0], axis=-1),
    "gather by a table": lambda x, y, n: tf.gather(x, [[1, 0], [1, 1]], axis=1),
    "argmax": lambda x, y, n: tf.argmax(x, axis=-1),
    "argmin in 32 bits": lambda x, y, n: tf.math.argmin(x, 1, output_type=tf.int32),
    "slice": lambda x, y, n: tf.slice(x, [0, 1, 0], [-1, 1, 2]),
    "sum of a list": lambda x, y, n: tf.add_n([x, y, x]),
    "squared difference": lambda x, y, n: tf.math.squared_difference(x, y),
    "whole quotient": lambda x, y, n: x // y,
    "whole quotient of integers": lambda x, y, n: n // -3,
    "rest": lambda x, y, n: x % y,
    "rest of integers": lambda x, y, n: n % -3,
    "repeated": lambda x, y, n: tf.broadcast_to(x[:1], [2, 2, 3]),
    "unstacked": lambda x, y, n: tf.unstack(x, axis=1),
    "running sum": lambda x, y, n: tf.cumsum(x, axis=2),
    "running sum backwards": lambda x, y, n: tf.math.cumsum(x, -1, reverse=True),
}


def of_3(keras: Any) -> dict[str, Case]:
    ops = keras.ops
    return {
        "gather": lambda x, y, n: ops.take(x, np.array([2, -3]), axis=-1),
        "gather of all": lambda x, y, n: ops.take(x, 1),
        "argmax": lambda x, y, n: ops.argmax(x, axis=-1),
        "argmin": lambda x, y, n: ops.argmin(x, axis=1, keepdims=True),
        "slice": lambda x, y, n: ops.slice(x, [0, 1, 0], [1, 1, 2]),
        "whole quotient": lambda x, y, n: x // y,
        "whole quotient of integers": lambda x, y, n: n // -3,
        "rest": lambda x, y, n: x % y,
        "rest of integers": lambda x, y, n: ops.mod(n, -3),
        "repeated": lambda x, y, n: ops.broadcast_to(
            ops.sum(x, axis=(0, 1), keepdims=True), (2, 2, 3)
        ),
        "unstacked": lambda x, y, n: ops.unstack(x, axis=1),
        "running sum": lambda x, y, n: ops.cumsum(x, axis=2),
    }


def test_each_operation_answers_as_keras_does(kit: Kit, tmp_path) -> None:
    cases = OF_2 if GENERATION == 2 else of_3(kit.keras)
    x, y = (kit.keras.Input((2, 3), name=name) for name in "xy")
    n = kit.keras.Input((2, 3), name="n", dtype="int32")
    feeds = {"x": TENTHS, "y": ODD, "n": WHOLE}
    for name, case in cases.items():
        model = kit.keras.Model([x, y, n], case(x, y, n))
        model.save(tmp_path / "net.keras")
        wanted = model(list(feeds.values()))
        wanted = wanted if isinstance(wanted, (list, tuple)) else [wanted]
        found = qh.run(qh.load(tmp_path / "net.keras", from_="keras"), feeds)
        for a, b in zip(found.values(), wanted, strict=True):
            assert a.dtype == b.numpy().dtype, name
            np.testing.assert_array_equal(a, b.numpy(), err_msg=name)


@pytest.mark.skipif(GENERATION != 2, reason="a function of TensorFlow")
def test_a_length_of_one_is_within_rounding(kit: Kit, tmp_path) -> None:
    x = kit.keras.Input((2, 3), name="x")
    model = kit.keras.Model(x, tf.math.l2_normalize(x, axis=-1))
    model.save(tmp_path / "net.keras")
    (found,) = qh.run(qh.load(tmp_path / "net.keras"), {"x": TENTHS}).values()
    np.testing.assert_allclose(found, model(TENTHS), rtol=5e-7)
