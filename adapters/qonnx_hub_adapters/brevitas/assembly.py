"""From a traced graph to a verified IR model: every mark becomes its quantizer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx_ir import Graph, Model, Node, Value

from qonnx_hub_adapters.brevitas.quantizer_sites import PARAMETERS
from qonnx_hub_adapters.brevitas.quantizers import QuantizerForm
from qonnx_hub_adapters.brevitas.recording import Call
from qonnx_hub_adapters.brevitas.tracing import DOMAIN, INDEX, MARK
from qonnx_hub_adapters.torch_common.graphs import read_traced
from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.rewriting import replace_node
from qonnx_hub_ir.passes import DropUnused, FoldWeightLayout, run_passes
from qonnx_hub_ir.quantizers import IntQuant
from qonnx_hub_ir.validity import require_valid

_ROOT = "module"
"""Name of the user's module within the wrapper that is traced."""


def assemble(
    model: Model, calls: Sequence[Call], forms: Sequence[QuantizerForm], name: str
) -> Model:
    """Return the IR model of a traced graph.

    Args:
        model: A graph with marks; changed in place.
        calls: What the marks stand for.
        forms: Their quantizers in terms of the IR.
        name: Name of the graph.
    """
    _set_sources(model.graph)
    written: dict[tuple[int, tuple[int, ...], bytes], Value] = {}
    for node in list(model.graph):
        if node.domain == DOMAIN and node.op_type == MARK:
            index = node.attributes[INDEX].as_int()
            _replace(node, calls[index], forms[index], written)
    read = read_traced(model, name, DOMAIN)
    # A linear layer without bias is traced as a product with transposed weights.
    _share_transposes(read.graph)
    run_passes(read, [FoldWeightLayout(), DropUnused()])
    require_valid(read, name)
    return read


def _share_transposes(graph: Graph) -> None:
    """Transpose weights once that are used, and transposed, several times."""
    transposed: dict[tuple[Value, tuple[int, ...]], Node] = {}
    for node in list(graph):
        source = node.inputs[0] if node.op_type == "Transpose" else None
        if source is None or "perm" not in node.attributes:
            continue
        key = source, tuple(node.attributes["perm"].as_ints())
        first = transposed.setdefault(key, node)
        if first is not node and not node.outputs[0].is_graph_output():
            replace_node(node, first.outputs[0], keep_name=False, keep_metadata=False)


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


def _replace(
    mark: Node,
    call: Call,
    form: QuantizerForm,
    written: dict[tuple[int, tuple[int, ...], bytes], Value],
) -> None:
    """Put the quantizer that a mark stands for in its place.

    Args:
        mark: The mark.
        call: The use of a quantizer that it stands for.
        form: Its quantizer in terms of the IR.
        written: Parameters that are in the graph already; one that is used again is not
            written again, and keeps its first name.
    """
    x = mark.inputs[0]
    if x is None:
        raise AssertionError("a mark has an input")
    mark.name, mark.outputs[0].metadata_props[dialect.PROVENANCE] = call.name, call.name
    emit = Emitter(mark)
    if call.site.kind not in PARAMETERS:
        if form.clip_below:
            x = emit.add("Relu", [x])
        if form.threshold is not None:
            x = _ternary(emit, x, form)
        replace_node(mark, _quantized(emit, x, call, form), keep_name=False)
        return
    key = (id(call.site), call.values.shape, call.values.tobytes())
    if key in written:
        replace_node(mark, written[key], keep_name=False, keep_metadata=False)
        return
    constant = dialect.add_initializer(emit.graph, call.name, call.values)
    constant.metadata_props[dialect.PROVENANCE] = call.name
    written[key] = _quantized(emit, constant, call, form)
    replace_node(mark, written[key], keep_name=False)


def _quantized(emit: Emitter, x: Value, call: Call, form: QuantizerForm) -> Value:
    if form.quantizer is None:
        return x
    return emit.quantizer(x, form.quantizer, name=call.numbered(call.site.path))


def _ternary(emit: Emitter, x: Value, form: QuantizerForm) -> Value:
    """Return ``sign(x) * scale`` where the magnitude is above the threshold, else zero."""
    if not isinstance(form.quantizer, IntQuant) or form.quantizer.scale is None:
        raise AssertionError("a threshold goes with a static integer quantizer")
    limit = emit.constant("threshold", np.asarray(form.threshold))
    zero = emit.constant("zero", np.zeros((), dtype=np.float32))
    scale = emit.constant("level", form.quantizer.scale)
    above = emit.add("Greater", [emit.add("Abs", [x]), limit])
    level = emit.add("Mul", [emit.add("Sign", [x]), scale])
    return emit.add("Where", [above, level, zero])
