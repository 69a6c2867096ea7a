"""Nodes of one operator with inputs, and what ONNX's reference evaluator makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir
from onnx import defs, helper
from onnx.reference import ReferenceEvaluator

from qonnx_hub_ir import operators
from qonnx_hub_ir.operators import Family, Operator

OPSET = defs.onnx_opset_version()
ATTRIBUTES: dict[str, dict[str, Any]] = {
    "Cast": {"to": onnx.TensorProto.DOUBLE},
    "BitShift": {"direction": "LEFT"},
    "BitCast": {"to": onnx.TensorProto.INT32},
    "Concat": {"axis": 1},
    "DepthToSpace": {"blocksize": 2},
    "SpaceToDepth": {"blocksize": 2},
    "Split": {"axis": 1, "num_outputs": 2},
    "Softmax": {"axis": 1},
    "MaxPool": {"kernel_shape": [2, 2]},
    "AveragePool": {"kernel_shape": [2, 2]},
    "LpPool": {"kernel_shape": [2, 2]},
    "Compress": {"axis": 3},
}
SETTINGS: dict[str, list[Any]] = {
    "Reshape": [[8, -1]],
    "Squeeze": [[4]],
    "Unsqueeze": [[0]],
    "ReverseSequence": [[2, 1, 4, 3]],
    "Slice": [[3], [0], [3], [-2]],
    "Gather": [[1, 1, 0]],
    "GatherElements": [np.ones((2, 4, 4, 4), dtype=np.int64)],
    "GatherND": [[[1, 1], [0, 0], [1, 1]]],
    "Compress": [np.array([True, False, True, True])],
    "Expand": [[3, 1, 1, 1, 1]],
    "Tile": [[1, 1, 2, 3]],
    "Pad": [[0, 0, 1, 1, 0, 0, 0, 2]],
    "CenterCropPad": [[2, 4, 6, 2]],
    "Resize": [None, np.array([1, 1, 1.5, 0.5], dtype=np.float32)],
    "TopK": [[2]],
    "Clip": [np.float32(-0.5), np.float32(0.7)],
}


class Case:
    """A node of an operator, with values for its inputs and ONNX's answer to them."""

    def __init__(self, row: Operator, data: list[np.ndarray], **attributes: Any) -> None:
        self.row = row
        self.attributes = {**ATTRIBUTES.get(row.name, {}), **attributes}
        self.settings = [
            np.asarray(value, np.int64) if isinstance(value, list) else value
            for value in SETTINGS.get(row.name, [])
        ]
        self.data = data

    def run(self, data: list[np.ndarray] | None = None, output: int = 0) -> np.ndarray:
        given = [*(self.data if data is None else data), *self.settings]
        names = ["" if v is None else f"x{i}" for i, v in enumerate(given)]
        count = 2 if self.row.name in {"Split", "TopK"} else 1
        outputs = [f"y{i}" for i in range(count)]
        node = helper.make_node(self.row.name, names, outputs, **self.attributes)
        graph = helper.make_graph(
            [node],
            "g",
            [helper.make_value_info(n, onnx.TypeProto()) for n in names if n],
            [helper.make_value_info(n, onnx.TypeProto()) for n in outputs],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
        feeds = {n: np.asarray(v) for n, v in zip(names, given, strict=True) if n}
        with np.errstate(all="ignore"):
            return np.asarray(ReferenceEvaluator(model).run(None, feeds)[output])

    def node(self) -> onnx_ir.Node:
        given = [*self.data, *self.settings]
        return make_node(self.row.name, given, fed=range(len(self.data)), **self.attributes)


def make_node(
    op_type: str,
    given: list[Any],
    *,
    fed: Any = (),
    domain: str = "",
    version: int = OPSET,
    **attributes: Any,
) -> onnx_ir.Node:
    """Return a node whose inputs are constants, but for those at the positions ``fed``."""
    values: list[onnx_ir.Value | None] = []
    for index, value in enumerate(given):
        if value is None:
            values.append(None)
            continue
        tensor = onnx_ir.tensor(np.asarray(value))
        made = onnx_ir.Value(name=f"x{index}", type=onnx_ir.TensorType(tensor.dtype))
        made.const_value = None if index in fed else tensor
        values.append(made)
    converted = [onnx_ir.convenience.convert_attribute(k, v) for k, v in attributes.items()]
    node = onnx_ir.Node(domain, op_type, values, converted, version=version)
    return node


def schemas() -> list[Any]:
    return list(defs.get_all_schemas())


def images(seed: int = 0, count: int = 1) -> list[np.ndarray]:
    """Return images (2, 4, 4, 4) of distinct numbers that are no zeros."""
    draw = np.random.default_rng(seed)
    size = 2 * 4 * 4 * 4
    numbers = (draw.permutation(2 * size * count) - size * count + 0.5) / 64
    return list(numbers.astype(np.float32)[: size * count].reshape(count, 2, 4, 4, 4))


def vectors(row: Operator, seed: int = 0) -> list[np.ndarray]:
    """Return inputs of one length in a type that the operator takes."""
    draw = np.random.default_rng(seed)
    kinds = defs.get_schema(row.name, OPSET, "").inputs[-1].types
    count = len(row.inputs.roles) + row.inputs.is_variadic
    if "tensor(float)" in kinds:
        data = [draw.normal(size=12).astype(np.float32) for _ in range(count)]
    elif "tensor(bool)" in kinds:
        data = [draw.integers(0, 2, 12).astype(np.bool_) for _ in range(count)]
    else:
        data = [draw.integers(0, 9, 12).astype(np.uint8) for _ in range(count)]
    return [data[0] > 0, *data[1:]] if row.name == "Where" else data


NOT_RUN = {"Dropout", "CastLike", "Clip", "Gelu", "SwiGLU"}
EVALUATED = [row for row in operators.where(elementwise=True) if row.name not in NOT_RUN]
FUNCTIONS = [row for row in EVALUATED if row.family is Family.FUNCTION]


def name_of(row: Operator) -> str:
    return row.name
