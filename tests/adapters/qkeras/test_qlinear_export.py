"""A QKeras CNN becomes a file of integers: the same numbers as QKeras, in every engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import qonnx_hub as qh
from qonnx_hub_adapters.dependencies import is_installed
from tests.adapters.qkeras.helpers import ask_keras
from tests.adapters.qkeras.kit import Kit, set_weights
from tests.adapters.qkeras.layer_cases import bits

INTEGER_TYPES = {onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.INT32}


def cnn(kit: Kit, quantized_input: bool = True) -> Any:
    """Two convolutions with normalization, ReLU and pooling, and a dense layer."""
    q, layers = kit.q, kit.layers
    first = [q.QActivation("quantized_bits(8,2)", name="in_q")] if quantized_input else []
    return kit.model(
        (12, 12, 3),
        *first,
        q.QConv2D(8, 3, kernel_quantizer=bits(kit), bias_quantizer=bits(kit, 6, 2), name="c1"),
        layers.BatchNormalization(name="bn1"),
        q.QActivation("quantized_relu(4,2)", name="a1"),
        layers.MaxPooling2D(name="p1"),
        q.QConv2D(8, 3, kernel_quantizer=bits(kit), use_bias=False, name="c2"),
        layers.BatchNormalization(name="bn2"),
        q.QActivation("quantized_relu(4,2)", name="a2"),
        layers.Flatten(name="flat"),
        q.QDense(10, kernel_quantizer=bits(kit), bias_quantizer=bits(kit, 6, 2), name="dense"),
    )


def inputs(samples: int = 64) -> np.ndarray:
    """Values on a grid finer than that of the first quantizer: ties, limits and beyond."""
    rng = np.random.default_rng(3)
    return (rng.integers(-600, 601, (samples, 12, 12, 3)) / 128).astype(np.float32)


def integers_of(path: Path, x: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Every integer value, and the outputs, on onnxruntime with default options."""
    ort = pytest.importorskip("onnxruntime")
    proto = onnx.shape_inference.infer_shapes(onnx.load(path))
    outputs = [o.name for o in proto.graph.output]
    inner = [
        info for info in proto.graph.value_info
        if info.type.tensor_type.elem_type in INTEGER_TYPES
    ]  # fmt: skip
    proto.graph.output.extend(inner)
    session = ort.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    feed = {session.get_inputs()[0].name: x}
    theirs = session.run([*outputs, *(info.name for info in inner)], feed)
    ours = qh.run(str(path), feed, all_tensors=True)
    names = [*outputs, *(info.name for info in inner)]
    assert len(inner) > 6
    return [ours[name] for name in names], theirs


def assert_integers_agree(path: Path, x: np.ndarray) -> None:
    if not is_installed("onnxruntime"):
        return
    ours, theirs = integers_of(path, x)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine, other)


def test_a_cnn_with_dyadic_normalization_is_integer_only_and_exact(
    kit: Kit, tmp_path: Path
) -> None:
    model = cnn(kit)
    set_weights(model)
    path = tmp_path / "out.onnx"
    report = qh.convert(model, path, "qlinear", samples=32)
    assert report.notes[0] == "3 of 3 layers integer-only"
    assert all(record.exact for record in report.quantizers)
    x = inputs()
    [expected] = ask_keras(model, [x])
    assert np.ptp(expected) > 1
    [ours] = qh.run(str(path), {name_of(path): x}).values()
    np.testing.assert_array_equal(ours, expected)
    assert_integers_agree(path, x)


def name_of(path: Path) -> str:
    return str(onnx.load(path).graph.input[0].name)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_cnn_with_any_normalization_gives_the_integers_of_its_quantizers(
    kit: Kit, tmp_path: Path, seed: int
) -> None:
    model = cnn(kit)
    set_weights(model)
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        name = str(getattr(variable, "path", None) or variable.name)
        size = tuple(variable.shape)
        if "variance" in name or "gamma" in name:
            variable.assign(rng.uniform(0.3, 1.7, size).astype(np.float32))
        elif "mean" in name or "beta" in name:
            variable.assign(rng.normal(0, 0.5, size).astype(np.float32))
    path = tmp_path / "out.onnx"
    report = qh.convert(model, path, "qlinear", samples=32)
    # A normalization that no int32 bias says keeps its floats; its product is of integers.
    assert "in float" not in report.notes[0]
    ir = qh.load(model)
    feed = {str(ir.graph.inputs[0].name): inputs()}
    [expected] = qh.run(ir, feed).values()
    [ours] = qh.run(str(path), {name_of(path): inputs()}).values()
    assert np.ptp(expected) > 1
    if all(record.exact for record in report.quantizers):
        np.testing.assert_array_equal(ours, expected)
    else:
        assert report.check is not None
        assert np.mean(ours != expected) < 1e-2
    assert_integers_agree(path, inputs())


def test_a_first_layer_on_floats_stays_in_float_and_says_why(kit: Kit, tmp_path: Path) -> None:
    model = cnn(kit, quantized_input=False)
    set_weights(model)
    report = qh.convert(model, tmp_path / "out.onnx", "qlinear", samples=32)
    assert report.notes[0] == "2 of 3 layers integer-only, 1 in float"
    assert any("c1" in n and "not quantized to 8 bits" in n for n in report.notes)
