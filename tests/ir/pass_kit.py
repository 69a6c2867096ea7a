"""What the tests of single passes share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx_ir
from onnx_ir.passes import InPlacePass

import qonnx_hub as qh
from qonnx_hub_ir.passes import InferShapes
from qonnx_hub_ir.validity import verify

Feeds = Mapping[str, np.ndarray]


def loaded(source: onnx.ModelProto | onnx_ir.Model) -> onnx_ir.Model:
    """A model with shapes; nothing else about it is changed."""
    found = source.clone() if isinstance(source, onnx_ir.Model) else onnx_ir.from_proto(source)
    InferShapes()(found)
    return found


def transformed(
    source: onnx.ModelProto | onnx_ir.Model, *steps: InPlacePass
) -> tuple[onnx_ir.Model, onnx_ir.Model]:
    """The model before and after passes that all fire, and find nothing to do again."""
    before = loaded(source)
    after = before.clone()
    for step in steps:
        assert step(after).modified, step
    assert verify(after) == []
    assert not steps[-1](after).modified
    return before, after


def assert_equal(before: onnx_ir.Model, after: onnx_ir.Model, feeds: Feeds) -> None:
    """Both models give the same values on the executor, bit for bit but the sign of zero."""
    wanted, found = qh.run(before, feeds), qh.run(after, feeds)
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        assert values.size
        assert found[name].dtype == values.dtype
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def assert_left_alone(source: onnx.ModelProto | onnx_ir.Model, step: InPlacePass) -> None:
    """The pass says that it found nothing to do, and did nothing."""
    found = loaded(source)
    before = onnx_ir.to_proto(found).SerializeToString(deterministic=True)
    assert not step(found).modified
    assert onnx_ir.to_proto(found).SerializeToString(deterministic=True) == before


def around_ties(scale: float, low: int, high: int, zero: float = 0.0) -> np.ndarray:
    """Every tie and level of a quantizer, with the floats beside them, and far values."""
    halves = np.arange(2 * low - 3, 2 * high + 4, dtype=np.float64) / 2
    points = ((halves - zero) * scale).astype(np.float32)
    beside: Sequence[np.ndarray] = [
        points,
        np.nextafter(points, np.float32(np.inf)),
        np.nextafter(points, np.float32(-np.inf)),
        np.array([-np.inf, np.inf, -1e30, 1e30, -0.0, 0.0, 1e-40, -1e-40], dtype=np.float32),
    ]
    return np.unique(np.concatenate(beside))
