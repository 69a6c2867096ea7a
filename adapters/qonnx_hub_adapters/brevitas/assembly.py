"""From a traced graph to a verified IR model: every mark becomes its quantizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir
from onnx_ir import Graph, Model, Node, Value

from qonnx_hub_adapters.brevitas.quantizer_sites import PARAMETERS
from qonnx_hub_adapters.brevitas.quantizers import Form
from qonnx_hub_adapters.brevitas.recording import Call
from qonnx_hub_adapters.brevitas.tracing import DOMAIN, INDEX, MARK
from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_ir import dialect
from qonnx_hub_ir.passes import DropUnused, FoldWeightLayout, run_passes
from qonnx_hub_ir.quantizers import Array, IntQuant
from qonnx_hub_ir.verify import require_valid

_ROOT = "module"
"""Name of the user's module within the wrapper that is traced."""


def assemble(
    traced: onnx.ModelProto, calls: Sequence[Call], forms: Sequence[Form], name: str
) -> Model:
    """Return the IR model of a traced graph.

    Args:
        traced: A graph with marks.
        calls: What the marks stand for.
        forms: How the IR says them.
        name: Name of the graph.
    """
    traced.graph.name = name
    model = onnx_ir.from_proto(traced)
    _set_sources(model.graph)
    writer = _Writer(model.graph, calls, forms)
    for node in list(model.graph):
        if node.domain == DOMAIN and node.op_type == MARK:
            writer.replace(node)
    model.opset_imports.pop(DOMAIN, None)
    model.opset_imports[dialect.DOMAIN] = dialect.DOMAIN_VERSION
    read = read_model(model)
    # A linear layer without bias is traced as a product with turned weights.
    _merge_turned(read.graph)
    run_passes(read, [FoldWeightLayout(), DropUnused()])
    require_valid(read, name)
    return read


def _merge_turned(graph: Graph) -> None:
    """Turn weights once that are used, and turned, several times."""
    turned: dict[tuple[Value, tuple[int, ...]], Node] = {}
    for node in list(graph):
        source = node.inputs[0] if node.op_type == "Transpose" else None
        if source is None or "perm" not in node.attributes:
            continue
        key = source, tuple(node.attributes["perm"].as_ints())
        first = turned.setdefault(key, node)
        if first is not node and not node.outputs[0].is_graph_output():
            node.outputs[0].replace_all_uses_with(first.outputs[0])
            graph.remove(node, safe=True)


def source_path(node_name: str) -> str:
    """Return the module path out of a node's name: "/module/module.0/conv/Conv" -> "0.conv".

    Each part repeats the part before it where the module is an element of a list.
    """
    path: list[str] = []
    before = ""
    for part in node_name.strip("/").split("/")[:-1]:
        path.append(part.removeprefix(f"{before}.") if before else part)
        before = part
    return ".".join(path[1:] if path[:1] == [_ROOT] else path)


def _set_sources(graph: Graph) -> None:
    """Note on the last value of each module which module made it."""
    last: dict[str, Value] = {}
    for node in graph:
        path = source_path(node.name or "")
        if path and node.domain != DOMAIN and len(node.outputs) == 1:
            last[path] = node.outputs[0]
    for path, value in last.items():
        value.metadata_props[dialect.PROVENANCE] = path


@dataclass(slots=True)
class _Writer:
    """Puts quantizers into a graph in the place of marks.

    Attributes:
        graph: The graph.
        calls: What marks stand for.
        forms: How the IR says them.
    """

    graph: Graph
    calls: Sequence[Call]
    forms: Sequence[Form]
    _stored: dict[tuple[int, tuple[int, ...], bytes], Value] = field(default_factory=dict)

    def replace(self, mark: Node) -> None:
        """Put the quantizer that a mark stands for in its place."""
        index = mark.attributes[INDEX].as_int()
        call, form = self.calls[index], self.forms[index]
        if call.site.kind in PARAMETERS:
            value = self._parameter(mark, call, form)
        else:
            value = self._activation(mark, call, form)
        old = mark.outputs[0]
        value.type, value.shape = old.type, old.shape
        # A parameter that is used again keeps its first name.
        value.metadata_props.setdefault(dialect.PROVENANCE, call.name)
        old.replace_all_uses_with(value, replace_graph_outputs=True)
        was_output, name = value.is_graph_output(), old.name
        self.graph.remove(mark, safe=True)
        if was_output:
            old.name = None
            value.name = name

    def _parameter(self, mark: Node, call: Call, form: Form) -> Value:
        values = call.values
        key = (id(call.site), values.shape, values.tobytes())
        if key not in self._stored:
            constant = dialect.add_initializer(self.graph, call.name, values)
            constant.metadata_props[dialect.PROVENANCE] = call.name
            self._stored[key] = self._quantized(mark, constant, call, form)
        return self._stored[key]

    def _activation(self, mark: Node, call: Call, form: Form) -> Value:
        x = mark.inputs[0]
        if x is None:
            raise AssertionError("a mark has an input")
        if form.clip_below:
            x = self._add(mark, call, "Relu", [x])
        if form.threshold is not None:
            x = self._ternary(mark, call, form, x, form.threshold)
        return self._quantized(mark, x, call, form)

    def _ternary(
        self, mark: Node, call: Call, form: Form, x: Value, threshold: Array
    ) -> Value:
        """Return ``sign(x) * scale`` where the magnitude is above the threshold, else zero."""
        if not isinstance(form.quantizer, IntQuant) or form.quantizer.scale is None:
            raise AssertionError("a threshold goes with a static integer quantizer")
        limit = self._constant(call, "threshold", threshold)
        scale = self._constant(call, "level", form.quantizer.scale)
        zero = self._constant(call, "zero", np.zeros((), dtype=np.float32))
        size = self._add(mark, call, "Abs", [x])
        above = self._add(mark, call, "Greater", [size, limit])
        sign = self._add(mark, call, "Sign", [x])
        level = self._add(mark, call, "Mul", [sign, scale])
        return self._add(mark, call, "Where", [above, level, zero])

    def _constant(self, call: Call, label: str, array: Array) -> Value:
        return dialect.add_initializer(self.graph, f"{call.name}.{label}", array)

    def _add(self, mark: Node, call: Call, op_type: str, inputs: Sequence[Value]) -> Value:
        node = onnx_ir.node(op_type, inputs, name=f"{call.name}.{op_type}")
        node.outputs[0].name = f"{call.name}.{op_type}_out"
        mark.prepend(node)
        return node.outputs[0]

    def _quantized(self, mark: Node, x: Value, call: Call, form: Form) -> Value:
        if form.quantizer is None:
            return x
        suffix = f":{call.number + 1}" if call.number else ""
        name = f"{call.site.path}{suffix}"
        node = dialect.quantizer_node(x, form.quantizer, name, self.graph)
        mark.prepend(node)
        return node.outputs[0]
