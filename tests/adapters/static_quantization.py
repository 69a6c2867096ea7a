"""A small CNN as onnxruntime's ``quantize_static`` writes it: uint8 with zero points."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

SIZE = 8
"""Height and width of its input, with three channels."""


def images(count: int, seed: int = 1) -> np.ndarray:
    """Images on a grid of 2^-10, shifted off every tie of a scale that is a power of two."""
    drawn = np.random.default_rng(seed).normal(0.3, 1, (count, 3, SIZE, SIZE))
    return (np.round(drawn * 1024) / 1024 + 2.0**-12).astype(np.float32)


def quantized_cnn(folder: Path) -> Path:
    """Two convolutions in a row with padding, of which the first has a zero point; a pool."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    random = np.random.default_rng(0)
    shapes = {
        "w0": (6, 3, 3, 3),
        "b0": (6,),
        "w1": (6, 6, 3, 3),
        "b1": (6,),
        "w2": (6, 6, 3, 3),
    }
    shapes |= {"b2": (6,), "w3": (6 * 4 * 4, 10), "b3": (10,)}
    window: dict[str, Any] = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b0"], ["c0"], "conv0", **window),
        helper.make_node("Conv", ["c0", "w1", "b1"], ["c1"], "conv1", **window),
        helper.make_node("Relu", ["c1"], ["a1"], "act1"),
        helper.make_node(
            "MaxPool", ["a1"], ["p1"], "pool", kernel_shape=[2, 2], strides=[2, 2]
        ),
        helper.make_node("Conv", ["p1", "w2", "b2"], ["c2"], "conv2", **window),
        helper.make_node("Relu", ["c2"], ["a2"], "act2"),
        helper.make_node("Flatten", ["a2"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], "fc"),
    ]
    weights = [
        numpy_helper.from_array(random.normal(0, 0.25, shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    graph = helper.make_graph(
        nodes,
        "cnn",
        [helper.make_tensor_value_info("x", 1, [1, 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("y", 1, [1, 10])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, folder / "float.onnx")
    quantize_static(
        folder / "float.onnx",
        folder / "quantized.onnx",
        _Samples(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return folder / "quantized.onnx"


class _Samples:
    """Calibration data as onnxruntime reads them."""

    def __init__(self) -> None:
        self._left: Iterator[np.ndarray] = iter(images(32))

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self._left, None)
        return None if image is None else {"x": image[np.newaxis]}
