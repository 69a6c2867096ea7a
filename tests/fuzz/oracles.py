"""Programs of other projects that run a graph, each asked in its own way."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterable

import numpy as np
import onnx

from tests.fuzz.planted_graphs import QONNX
from tests.fuzz.wide_graphs import Feeds, computed, reference

Answers = dict[str, np.ndarray]

NEAR = {"float16": 1e-2, "bfloat16": 5e-2, "float32": 2e-5, "float64": 2e-5}
"""What other orders of sums and other libraries of functions change, of the largest number."""


LOOSE = {"LRN": 1e-3}
"""Operators of which an oracle's own error is larger: onnxruntime sums squares of channels as
the difference of running sums, in float32."""

OFTEN_WRONG = frozenset(
    (
        *("MaxPool", "AveragePool", "LpPool", "ConvTranspose", "LRN", "LpNormalization"),
        *("BatchNormalization", "Softmax", "LogSoftmax", "Hardmax"),
    )
)
"""Where onnx.reference parts from onnxruntime: pads that differ by side and NaN in windows,
samples taken for channels, old BatchNormalization, axes before opset 13."""


def operators_in(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """Return the operators of nodes and their bodies."""
    found = set()
    for node in nodes:
        found.add(node.op_type)
        for attribute in node.attribute:
            found |= operators_in(attribute.g.node)
    return found


def answers_of(model: onnx.ModelProto, feeds: Feeds) -> dict[str, Answers | None]:
    """Return the outputs by oracle; ``None`` where one does not run the model."""
    names = [value.name for value in model.graph.output]
    found = {}
    for name, run in (
        ("onnxruntime", _onnxruntime),
        ("onnx.reference", _reference),
        ("qonnx", _qonnx),
    ):
        try:
            arrays = run(model, feeds)
        except Exception:  # programs of other projects raise anything
            arrays = None
        found[name] = None if arrays is None else dict(zip(names, arrays, strict=True))
    return found


def _onnxruntime(model: onnx.ModelProto, feeds: Feeds) -> list[np.ndarray] | None:
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [np.asarray(y) for y in session.run(None, feeds)]


def _reference(model: onnx.ModelProto, feeds: Feeds) -> list[np.ndarray]:
    return computed(reference(model), feeds)


def _qonnx(model: onnx.ModelProto, feeds: Feeds) -> list[np.ndarray] | None:
    plain = all(not node.domain or node.domain == QONNX for node in model.graph.node)
    own = any(node.domain == QONNX for node in model.graph.node)
    if not own or not plain or importlib.util.find_spec("qonnx") is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from qonnx.core.modelwrapper import ModelWrapper
        from qonnx.core.onnx_exec import execute_onnx
        from qonnx.transformation.infer_shapes import InferShapes

        copy = onnx.ModelProto.FromString(model.SerializeToString())
        for value in copy.graph.input:
            shape = feeds[value.name].shape
            for axis, size in zip(value.type.tensor_type.shape.dim, shape, strict=True):
                axis.dim_value = size
        wrapped = ModelWrapper(copy).transform(InferShapes())
        found = execute_onnx(wrapped, feeds)
    return [np.asarray(found[value.name]) for value in model.graph.output]


def alike(theirs: np.ndarray, ours: np.ndarray, least: float = 0.0) -> bool:
    """Return whether numbers are those of an oracle, but for the order of sums.

    Args:
        theirs: The oracle's.
        ours: Those that are judged.
        least: How far apart they may be at least, of the largest number.
    """
    if theirs.dtype != ours.dtype or theirs.shape != ours.shape:
        return False
    if ours.dtype.name not in NEAR:
        return bool(np.array_equal(theirs, ours))
    a, b = theirs.astype(np.float64), ours.astype(np.float64)
    if not np.array_equal(np.isnan(a), np.isnan(b)):
        return False
    finite = np.isfinite(a) & np.isfinite(b)
    rest = ~finite & ~np.isnan(a)
    if not np.array_equal(a[rest], b[rest]):
        return False
    size = max(float(np.max(np.abs(a[finite]), initial=0)), 1e-3)
    near = max(NEAR[ours.dtype.name], least)
    return bool(np.all(np.abs(a[finite] - b[finite]) <= near * size))


def feeds_for(model: onnx.ModelProto, feeds: Feeds) -> Feeds:
    """Return the feeds that a model made smaller still has."""
    return {value.name: feeds[value.name] for value in model.graph.input}
