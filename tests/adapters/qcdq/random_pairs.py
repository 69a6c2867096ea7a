"""Random graphs of quantized values: types, axes, zero points, opsets, several readers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

SHAPE = (2, 4, 6)
_TYPES = {
    10: ["UINT8", "INT8"],
    21: ["UINT16", "INT16", "UINT4", "INT4"],
    25: ["UINT2", "INT2"],
}
_RANGES = {
    f"{'' if signed else 'U'}INT{width}": (
        -(1 << (width - 1)) if signed else 0,
        (1 << (width - 1)) - 1 if signed else (1 << width) - 1,
    )
    for width in (2, 4, 8, 16)
    for signed in (True, False)
}


class _Graph:
    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.opset = int(self.random.choice([10, 11, 12, 13, 15, 17, 19, 21, 23, 25]))
        is_contrib = self.opset < 21 and self.random.random() < 0.3
        self.domain = "com.microsoft" if is_contrib else ""
        types = [
            kind for first, kinds in _TYPES.items() if first <= self.opset for kind in kinds
        ]
        self.types = [*types, "UINT16", "INT16"] if is_contrib else types
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []

    def constant(self, kind: str, values: Any) -> str:
        name, array = f"c{len(self.tensors)}", np.asarray(values)
        dtype = getattr(TensorProto, kind)
        flat = array.reshape(-1).tolist()
        self.tensors.append(helper.make_tensor(name, dtype, array.shape, flat))
        return name

    def add(self, op_type: str, inputs: list[str], **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        made = helper.make_node(op_type, inputs, [name], f"{op_type}_{name}", **attributes)
        self.nodes.append(made)
        return name

    def scales(self, shape: tuple[int, ...]) -> str:
        exact = self.random.random() < 0.5
        steps = 2.0 ** -self.random.integers(1, 7, shape)
        values = steps if exact else self.random.uniform(0.01, 0.3, shape)
        return self.constant("FLOAT", np.asarray(values, dtype=np.float32))

    def zeros(self, kind: str, shape: tuple[int, ...]) -> str:
        low, high = _RANGES[kind]
        choice = self.random.choice([low, high, (low + high + 1) // 2, 0], shape)
        other = self.random.integers(low, high + 1, shape)
        return self.constant(kind, np.where(self.random.random(shape) < 0.5, choice, other))

    def parameters(self, kind: str, size: int, axis: int) -> tuple[list[str], dict[str, Any]]:
        # Quantizers of the standard had no axis before opset 13.
        wide = self.random.random() < 0.3 and (self.opset >= 13 or bool(self.domain))
        shape = (size,) if wide else ()
        both = [self.scales(shape), self.zeros(kind, shape)]
        return both, ({"axis": axis} if wide else {}) | {"domain": self.domain}

    def quantized(self, x: str, readers: int) -> list[str]:
        kind = str(self.random.choice(self.types))
        both, attributes = self.parameters(kind, SHAPE[1], 1)
        codes = self.add("QuantizeLinear", [x, *both], **attributes)
        reads = [[codes, *both] for _ in range(readers)]
        return [self.add("DequantizeLinear", inputs, **attributes) for inputs in reads]

    def weights(self) -> str:
        kind = str(self.random.choice(self.types))
        both, attributes = self.parameters(kind, 6, 1)
        low, high = _RANGES[kind]
        codes = self.constant(kind, self.random.integers(low, high + 1, (6, 6)))
        return self.add("DequantizeLinear", [codes, *both], **attributes)


def random_pairs(seed: int) -> onnx.ModelProto:
    """Return a file of QuantizeLinear and DequantizeLinear around MatMul, Add and Relu."""
    graph = _Graph(seed)
    (value,) = graph.quantized("x", 1)
    value = graph.add("MatMul", [value, graph.weights()])
    first, second = graph.quantized(value, 2)
    value = graph.add("Add", [first, graph.add("Relu", [second])])
    (value,) = graph.quantized(value, 1)
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE) for name in ("x", value)
    ]
    made = helper.make_graph(graph.nodes, "g", ends[:1], ends[1:], graph.tensors)
    opsets = [helper.make_opsetid("", graph.opset)]
    version = helper.find_min_ir_version_for(opsets)
    if graph.domain:
        opsets.append(helper.make_opsetid(graph.domain, 1))
    return helper.make_model(made, opset_imports=opsets, ir_version=version)


def feeds(seed: int) -> list[dict[str, np.ndarray]]:
    """Return normal numbers, and numbers that meet many ties."""
    random = np.random.default_rng(seed)
    normal = random.normal(0, 2, SHAPE).astype(np.float32)
    ties = (np.rint(random.normal(0, 3, SHAPE) * 32) / 32).astype(np.float32)
    return [{"x": normal}, {"x": ties}]
