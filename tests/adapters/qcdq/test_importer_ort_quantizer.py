"""Files that onnxruntime's own quantizer writes compute the same after import."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.helper import make_node

from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_adapters.protocol import ExportOptions, ImportOptions
from qonnx_hub_adapters.qcdq.exporter import QcdqExporter
from qonnx_hub_adapters.qcdq.importer import QcdqImporter, kept_reasons
from qonnx_hub_ir import dialect
from qonnx_hub_ir.quantizers import IntQuant
from tests.support import model_of

ort = pytest.importorskip("onnxruntime")
quantization = pytest.importorskip("onnxruntime.quantization")

INT8, UINT8 = quantization.QuantType.QInt8, quantization.QuantType.QUInt8
INT16, UINT16 = quantization.QuantType.QInt16, quantization.QuantType.QUInt16


def perceptron(opset: int) -> tuple[onnx.ModelProto, tuple[int, ...]]:
    rng = np.random.default_rng(1)
    nodes = [
        make_node("Gemm", ["x", "w0", "b0"], ["h0"], "fc0", transB=1),
        make_node("Relu", ["h0"], ["h1"], "relu0"),
        make_node("Gemm", ["h1", "w1", "b1"], ["h2"], "fc1", transB=1),
        make_node("Sigmoid", ["h2"], ["h3"], "sigmoid"),
        make_node("MatMul", ["h3", "w2"], ["y"], "fc2"),
    ]
    constants = {
        "w0": rng.normal(0, 0.4, (16, 10)).astype(np.float32),
        "b0": rng.normal(0, 0.3, 16).astype(np.float32),
        "w1": rng.normal(0.1, 0.3, (12, 16)).astype(np.float32),
        "b1": rng.normal(0, 0.3, 12).astype(np.float32),
        "w2": rng.normal(0, 0.5, (12, 4)).astype(np.float32),
    }
    return model_of(nodes, {"x": ("n", 10)}, ["y"], constants, opset, domains=()), (64, 10)


def convolutions(opset: int) -> tuple[onnx.ModelProto, tuple[int, ...]]:
    rng = np.random.default_rng(2)
    nodes = [
        make_node("Conv", ["x", "w0", "b0"], ["h0"], "conv0", pads=[1, 1, 1, 1]),
        make_node("Relu", ["h0"], ["h1"], "relu0"),
        make_node("MaxPool", ["h1"], ["h2"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        make_node("Conv", ["h2", "w1", "b1"], ["h3"], "conv1", pads=[1, 1, 1, 1]),
        make_node("Add", ["h3", "h2"], ["h4"], "residual"),
        make_node("Clip", ["h4", "nil", "six"], ["h5"], "relu6"),
        make_node("Reshape", ["h5", "flat"], ["h6"], "flatten"),
        make_node("MatMul", ["h6", "w2"], ["h7"], "fc"),
        make_node("Add", ["h7", "b2"], ["y"], "bias"),
    ]
    constants = {
        "w0": rng.normal(0, 0.4, (4, 3, 3, 3)).astype(np.float32),
        "b0": rng.normal(0, 0.3, 4).astype(np.float32),
        "w1": rng.normal(0, 0.3, (4, 4, 3, 3)).astype(np.float32),
        "b1": rng.normal(0, 0.3, 4).astype(np.float32),
        "w2": rng.normal(0, 0.3, (64, 5)).astype(np.float32),
        "b2": rng.normal(0, 0.3, 5).astype(np.float32),
        "nil": 0.0,
        "six": 6.0,
        "flat": np.array([0, -1], dtype=np.int64),
    }
    return model_of(nodes, {"x": ("n", 3, 8, 8)}, ["y"], constants, opset, domains=()), (
        16,
        3,
        8,
        8,
    )


class Samples(quantization.CalibrationDataReader):
    """Four batches of random values."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        rng = np.random.default_rng(3)
        batches = [rng.normal(0.2, 1, shape).astype(np.float32) for _ in range(4)]
        self.batches: Iterator[np.ndarray] = iter(batches)

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.batches, None)
        return None if batch is None else {"x": batch}


def quantized(
    net: Any, path: Path, opset: int, extra: dict[str, Any], **options: Any
) -> tuple[Path, tuple[int, ...]]:
    model, shape = net(opset)
    source, target = path / "float.onnx", path / "quantized.onnx"
    onnx.save(model, source)
    quantization.quantize_static(
        source,
        target,
        Samples(shape),
        quant_format=quantization.QuantFormat.QDQ,
        extra_options=extra,
        **options,
    )
    return target, shape


def ort_run(path: Path, x: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


CASES = {
    "int8": (19, INT8, INT8, False, {}),
    "uint8": (19, UINT8, UINT8, False, {}),
    "uint8 activations, int8 weights": (13, UINT8, INT8, False, {}),
    "symmetric": (19, INT8, INT8, False, {"ActivationSymmetric": True}),
    "per channel": (19, UINT8, INT8, True, {}),
    "asymmetric weights": (19, UINT8, UINT8, True, {"WeightSymmetric": False}),
    "int16 activations": (21, INT16, INT8, True, {}),
    "uint16 activations": (21, UINT16, UINT8, False, {}),
    "int16 in onnxruntime's domain": (17, INT16, INT8, False, {"UseQDQContribOps": True}),
    "uint8 in onnxruntime's domain": (17, UINT8, INT8, True, {"UseQDQContribOps": True}),
    "a pair for each consumer": (19, UINT8, INT8, False, {"DedicatedQDQPair": True}),
    "float weights": (19, UINT8, INT8, True, {"AddQDQPairToWeight": True}),
}


@pytest.mark.parametrize("net", [perceptron, convolutions])
@pytest.mark.parametrize("case", list(CASES))
def test_a_quantized_net_equals_onnxruntime(net: Any, case: str, tmp_path: Path) -> None:
    opset, activations, weights, per_channel, extra = CASES[case]
    path, shape = quantized(
        net,
        tmp_path,
        opset,
        extra,
        activation_type=activations,
        weight_type=weights,
        per_channel=per_channel,
    )
    imported = QcdqImporter().load(path, ImportOptions())
    assert kept_reasons(imported) == {}
    # Beyond what calibration saw, so that every quantizer saturates somewhere.
    x = np.random.default_rng(4).normal(0.2, 2, shape).astype(np.float32)
    expected = ort_run(path, x)
    actual = Session(imported).run({"x": x})["y"]
    assert sum(n.op_type == "Quant" for n in imported.graph) >= 6
    # Sums in another order end on the other side of a tie now and then; a step of 16 bits is
    # small enough to be allowed for.
    wide = activations in {INT16, UINT16}
    tolerance = 1e-4 if wide else 2e-6
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()
    again = tmp_path / "again.onnx"
    message = QcdqExporter().export(imported, ExportOptions()).to_proto()
    again.write_bytes(message.SerializeToString())
    np.testing.assert_array_equal(Session(read_model(again)).run({"x": x})["y"], actual)
    exported = ort_run(again, x)
    assert np.abs(exported - expected).max() <= tolerance * np.abs(expected).max()
    if not extra.get("UseQDQContribOps"):
        as_written = Session(read_model(path)).run({"x": x})["y"]
        np.testing.assert_array_equal(actual, as_written)


@pytest.mark.parametrize("net", [perceptron, convolutions])
def test_symmetric_quantizers_become_plain_ones(net: Any, tmp_path: Path) -> None:
    path, _ = quantized(
        net,
        tmp_path,
        19,
        {"ActivationSymmetric": True},
        activation_type=INT8,
        weight_type=INT8,
    )
    imported = QcdqImporter().load(path, ImportOptions())
    quants = [dialect.read_quantizer(n) for n in imported.graph if dialect.is_quantizer(n)]
    assert {
        (float(np.asarray(q.bits)), q.signed) for q in quants if isinstance(q, IntQuant)
    } == {
        (8.0, True),
        (32.0, True),
    }
    assert all(np.all(q.zero_point == 0) for q in quants if isinstance(q, IntQuant))
