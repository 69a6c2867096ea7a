"""Small quantized nets, exported as QLinear and run by the executor and by onnxruntime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import helper
from onnx.helper import make_node
from onnx_ir import Model

from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_adapters.protocol import Artifact, export_options
from qonnx_hub_adapters.qlinear.exporter import QlinearExporter
from tests.support import model_of, quant_node

Nodes = list[onnx.NodeProto]
Constants = dict[str, Any]

INTEGERS = {onnx_ir.DataType.INT8, onnx_ir.DataType.UINT8, onnx_ir.DataType.INT32}


@dataclass
class Net:
    """Nodes and constants of a net that grows; `x` is its input."""

    nodes: Nodes
    constants: Constants

    def quant(
        self, x: str, y: str, scale: Any, bits: int, zero: float = 0.0, **attrs: Any
    ) -> str:
        self.constants |= {f"{y}_s": scale, f"{y}_z": zero, f"{y}_b": float(bits)}
        self.nodes.append(quant_node(x, y, f"{y}_s", f"{y}_z", f"{y}_b", **attrs))
        return y

    def weight(
        self, name: str, values: np.ndarray, scale: Any, bits: int, **attrs: Any
    ) -> str:
        self.constants[f"{name}_float"] = values.astype(np.float32)
        return self.quant(f"{name}_float", name, scale, bits, **attrs)

    def add(self, op_type: str, inputs: list[str], y: str, **attrs: Any) -> str:
        self.nodes.append(make_node(op_type, inputs, [y], y, **attrs))
        return y

    def constant(self, name: str, value: Any) -> str:
        self.constants[name] = value
        return name

    def model(self, shape: tuple[Any, ...], output: str, opset: int = 19) -> Model:
        return read_model(model_of(self.nodes, {"x": shape}, [output], self.constants, opset))


def net() -> Net:
    return Net([], {})


def export(model: Model, **options: Any) -> Artifact:
    return QlinearExporter().export(model, export_options(**options))


def ops(artifact: Artifact) -> list[str]:
    return [node.op_type for node in artifact.model.graph]


def inputs_of(model: Model, seed: int = 0, spread: float = 2.0, batch: int = 4) -> Any:
    """Random values, half of them moved onto a grid on which quantizers have ties."""
    value = model.graph.inputs[0]
    assert value.shape is not None
    shape = [d if isinstance(d, int) else batch for d in value.shape]
    x = np.random.default_rng(seed).normal(0, spread, shape).astype(np.float32)
    on_ties = np.random.default_rng(seed + 1).random(shape) < 0.5
    return {str(value.name): np.where(on_ties, np.rint(x * 32) / 32, x).astype(np.float32)}


def with_integers(proto: onnx.ModelProto, model: Model) -> onnx.ModelProto:
    """Return the file with every integer value of its nodes as a further output."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    known = {o.name for o in copy.graph.output}
    for node in model.graph:
        for value in node.outputs:
            if value.dtype in INTEGERS and value.name not in known:
                kind = int(value.dtype)
                copy.graph.output.append(helper.make_tensor_value_info(value.name, kind, None))
    return copy


def run_everywhere(artifact: Artifact, feeds: Any) -> dict[str, np.ndarray]:
    """Return the file's outputs, once both engines agree on them and on every integer.

    onnxruntime runs with its default options, on the file as it is and on a copy that shows
    its inner integers.
    """
    ort = pytest.importorskip("onnxruntime")
    proto = onnx_ir.to_proto(artifact.model)
    shown = with_integers(proto, artifact.model)
    ours = Session(read_model(shown)).run(feeds)
    for file in (proto, shown):
        session = ort.InferenceSession(
            file.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        theirs = session.run(None, feeds)
        names = [o.name for o in session.get_outputs()]
        for name, value in zip(names, theirs, strict=True):
            if value.dtype.kind in "iu":
                np.testing.assert_array_equal(ours[name], value, err_msg=name)
            else:
                np.testing.assert_allclose(ours[name], value, rtol=1e-6, atol=1e-6)
    integers = [v for v in ours.values() if v.dtype.kind in "iu"]
    assert integers, "no integers were compared"
    return ours


def assert_exact(model: Model, artifact: Artifact, seeds: int = 3, **how: Any) -> None:
    """Hold the file to fake quantization, bit for bit, on random values and on ties."""
    assert all(record.exact for record in artifact.quantizers), artifact.notes
    reference = Session(model)
    for seed in range(seeds):
        feeds = inputs_of(model, seed, **how)
        ours = run_everywhere(artifact, feeds)
        for name, expected in reference.run(feeds).items():
            assert np.ptp(expected) > 0, "the comparison would pass for a constant"
            np.testing.assert_array_equal(ours[name], expected)
