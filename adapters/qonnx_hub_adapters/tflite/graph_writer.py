"""Standard ONNX nodes for a net: values by tensor and layout, made when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from qonnx_hub_adapters.tflite.net import NetTensor, TfliteNet
from qonnx_hub_ir.quantizers import Array

LAST, FIRST = "channels last", "channels first"
"""The layouts in which a value with four axes can lie."""

_TO_FIRST, _TO_LAST = (0, 3, 1, 2), (0, 2, 3, 1)

PROTO_TYPES = {
    "FLOAT32": TensorProto.FLOAT,
    "FLOAT16": TensorProto.FLOAT16,
    "FLOAT64": TensorProto.DOUBLE,
    "INT64": TensorProto.INT64,
    "INT32": TensorProto.INT32,
    "INT16": TensorProto.INT16,
    "INT8": TensorProto.INT8,
    "INT4": TensorProto.INT4,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "BOOL": TensorProto.BOOL,
}


@dataclass(slots=True)
class StandardGraph:
    """Nodes of one graph.

    Attributes:
        net: What is written.
        opset: Of the standard operators.
        nodes: So far.
        initializers: So far.
        held: (tensor, kind, layout) -> name of the value; kinds are "codes" and "floats".
    """

    net: TfliteNet
    opset: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: dict[str, onnx.TensorProto] = field(default_factory=dict)
    held: dict[tuple[int, str, str], str] = field(default_factory=dict)
    taken: dict[str, int] = field(default_factory=dict)
    domains: dict[str, int] = field(default_factory=dict)

    def name(self, hint: str) -> str:
        """Return a name that no value has."""
        hint = hint or "value"
        count = self.taken.get(hint)
        self.taken[hint] = 1 if count is None else count + 1
        return hint if count is None else self.name(f"{hint}_{count}")

    def constant(self, numbers: Any, hint: str = "constant") -> str:
        """Return the value of constants."""
        array = np.asarray(numbers)
        name = self.name(hint)
        self.initializers[name] = numpy_helper.from_array(np.asarray(array, order="C"), name)
        return name

    def constant_int4(self, codes: Array, hint: str) -> str:
        """Return the value of constants of four bits."""
        name = self.name(hint)
        self.initializers[name] = helper.make_tensor(
            name, TensorProto.INT4, codes.shape, codes.reshape(-1).astype(np.int64).tolist()
        )
        return name

    def emit(self, op_type: str, *inputs: str, hint: str = "", **attributes: Any) -> str:
        """Return the value of a new node with one output."""
        return self.emit_many(op_type, 1, *inputs, hint=hint, **attributes)[0]

    def emit_many(
        self, op_type: str, outputs: int, *inputs: str, hint: str = "", **attributes: Any
    ) -> list[str]:
        """Return the values of a new node."""
        made = [self.name(hint or op_type.lower()) for _ in range(outputs)]
        node = self.name(f"{op_type}_{made[0]}")
        self.nodes.append(helper.make_node(op_type, inputs, made, name=node, **attributes))
        return made

    def put(self, tensor: int, kind: str, value: str, layout: str = LAST) -> None:
        """Say what holds a tensor."""
        self.held[tensor, kind, layout] = value

    def has(self, tensor: int, kind: str, layout: str) -> bool:
        """Return whether a tensor is held in a layout."""
        return (tensor, kind, layout) in self.held

    def is_first(self, tensor: int) -> bool:
        """Return whether a tensor is only held with channels first, in any kind."""
        kinds = ("codes", "floats")
        first = any(self.has(tensor, kind, FIRST) for kind in kinds)
        return first and not any(self.has(tensor, kind, LAST) for kind in kinds)

    def turned(self, value: str, layout: str) -> str:
        """Return a value of four axes in the other layout; ``layout`` is the new one."""
        order = _TO_FIRST if layout == FIRST else _TO_LAST
        return self.emit("Transpose", value, perm=order)

    def held_value(self, tensor: int, kind: str, layout: str) -> str | None:
        """Return the value of a tensor, turned where it lies otherwise; ``None`` for none."""
        if not self.has(tensor, kind, layout):
            other = LAST if layout == FIRST else FIRST
            if not self.has(tensor, kind, other):
                return None
            self.put(tensor, kind, self.turned(self.held[tensor, kind, other], layout), layout)
        return self.held[tensor, kind, layout]

    def codes(self, tensor: int, layout: str = LAST) -> str:
        """Return the numbers of a tensor as the net holds them."""
        found = self.held_value(tensor, "codes", layout)
        if found is not None:
            return found
        data = self.net.tensors[tensor].data
        if data is None:
            raise KeyError(f"tensor {tensor} is not made yet")
        turned = data.transpose(_TO_FIRST) if layout == FIRST else data
        value = self.constant(turned, self.net.tensors[tensor].name)
        self.put(tensor, "codes", value, layout)
        return value

    def finish(self, output: Callable[[int], str], meta: dict[str, str]) -> onnx.ModelProto:
        """Return the model; ``output`` gives the value of an output tensor."""
        values = [output(i) for i in self.net.outputs]
        for value, name in zip(values, self.net.output_names, strict=True):
            self.nodes.append(
                helper.make_node("Identity", [value], [name], name=f"out_{name}")
            )
        graph = helper.make_graph(
            self.nodes,
            "tflite",
            [_info(n, self.net.tensors[i]) for i, n in self._named(self.net.inputs, True)],
            [_info(n, self.net.tensors[i]) for i, n in self._named(self.net.outputs, False)],
            list(self.initializers.values()),
        )
        imports = [helper.make_opsetid("", self.opset)]
        imports += [helper.make_opsetid(d, v) for d, v in self.domains.items()]
        model = helper.make_model(graph, opset_imports=imports, producer_name="qonnx-hub")
        model.ir_version = 10 if self.opset >= 21 else 8
        helper.set_model_props(model, meta)
        return model

    def _named(self, tensors: Sequence[int], is_input: bool) -> list[tuple[int, str]]:
        names = self.net.input_names if is_input else self.net.output_names
        return list(zip(tensors, names, strict=True))


def start(net: TfliteNet, opset: int) -> StandardGraph:
    """Return a graph that holds the net's inputs."""
    writer = StandardGraph(net, opset)
    for name in (*net.input_names, *net.output_names):
        writer.taken[name] = 1
    for index, name in zip(net.inputs, net.input_names, strict=True):
        kind = "codes" if net.tensors[index].type not in ("FLOAT32",) else "floats"
        writer.put(index, kind, name)
        writer.put(index, "codes", name)
    return writer


def _info(name: str, tensor: NetTensor) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, PROTO_TYPES[tensor.type], list(tensor.shape))
