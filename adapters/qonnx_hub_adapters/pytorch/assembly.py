"""From a marked program to a verified IR model, through torch's own ONNX exporter."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Graph, Model, Node, Value

from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_adapters.pytorch import markers
from qonnx_hub_adapters.pytorch.expansion import QUANTIZED, Form, expand
from qonnx_hub_adapters.pytorch.framework import first_line, quiet
from qonnx_hub_adapters.pytorch.inference import output_names
from qonnx_hub_adapters.pytorch.naming import clean_path
from qonnx_hub_adapters.pytorch.programs import Marked
from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import SourceError, UnsupportedGraphError
from qonnx_hub_ir.passes import DropUnused, FoldWeightLayout, run_passes
from qonnx_hub_ir.quantizers import Array
from qonnx_hub_ir.verify import require_valid

_SCOPES = "pkg.torch.onnx.name_scopes"
_HELPER = "val_"
_WITH_BIAS: Mapping[str, int] = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2}


def assemble(marked: Marked, torch: Any, *, mode: str, name: str) -> tuple[Model, list[Form]]:
    """Return the IR model of a program, and what became of its quantizers.

    Args:
        marked: The program.
        torch: The framework.
        mode: "exact" or "quant".
        name: Name of the graph.

    Raises:
        SourceError: torch's exporter cannot write it.
        UnsupportedGraphError: It uses operators without an ONNX form.
    """
    model = _written(marked.program, torch)
    _bring_into_memory(model.graph)
    _set_provenance(model.graph)
    _settle_shapes(model.graph)
    forms = _expand_markers(model.graph, marked, mode)
    model.opset_imports.pop(markers.DOMAIN, None)
    model.opset_imports[dialect.DOMAIN] = dialect.DOMAIN_VERSION
    _rename_outputs(model.graph)
    _forget_origin(model, name)
    clean = read_model(model)
    run_passes(clean, (FoldWeightLayout(),))
    _drop_zero_biases(clean.graph)
    run_passes(clean, (DropUnused(),))
    require_valid(clean, f"model '{name}'")
    return clean, forms


def _written(program: Any, torch: Any) -> Model:
    try:
        with quiet(), torch.no_grad():
            written = torch.onnx.export(
                program,
                dynamo=True,
                custom_translation_table=markers.translation(torch),
                optimize=False,
                verbose=False,
            )
    except Exception as error:  # torch's exporter raises whatever its parts raise
        raise _export_error(error) from error
    model: Model = written.model
    return model


def _export_error(error: Exception) -> Exception:
    """Return what torch's exporter failed on, in a sentence; its own fills pages."""
    chain: list[BaseException] = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    texts = [first_line(one) for one in chain]
    missing = next((t for t in texts if "No decompositions registered" in t), "")
    if missing or any("Dispatch" in text for text in texts):
        reason = missing or texts[-1]
        return UnsupportedGraphError(f"torch's exporter has no ONNX form: {reason}")
    node = next((text for text in texts if "translating node" in text), "")
    return SourceError(
        f"torch's exporter cannot write the model: {texts[-1]}{f' ({node})' if node else ''}"
    )


def _bring_into_memory(graph: Graph) -> None:
    """Copy the weights out of torch's tensors, which their owner may change."""
    for value in list(graph.initializers.values()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[str(value.name)]
            continue
        tensor = value.const_value
        if tensor is not None:
            held = onnx_ir.Tensor(
                np.array(tensor.numpy()), dtype=tensor.dtype, name=tensor.name
            )
            value.const_value = held


def _set_provenance(graph: Graph) -> None:
    """Name the layer of each value: its module for what the module gives, else the operator.

    The last value of a module is what it gives. Values that the exporter made in between are
    left out.
    """
    last: dict[str, Value] = {}
    for node in graph:
        path, operator = _scope(node)
        value = node.outputs[0]
        if not operator or str(value.name).startswith(_HELPER):
            continue
        source = f"{path}.{operator}" if path else operator
        value.metadata_props[dialect.PROVENANCE] = source
        last[path] = value
    for path, value in last.items():
        if path:
            value.metadata_props[dialect.PROVENANCE] = path


def _scope(node: Node) -> tuple[str, str]:
    """Return (module path, operator's name in the traced graph)."""
    try:
        scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
    except (ValueError, SyntaxError):
        scopes = []
    if not scopes:
        return "", ""
    path = str(scopes[-2]) if len(scopes) > 1 else ""
    return clean_path(path), str(scopes[-1])


def _settle_shapes(graph: Graph) -> None:
    """Put numbers in the place of operators that read a shape or type that is known.

    torch's exporter asks a quantized weight for its shape to make zeros of it; quantizers are
    not folded, so that the question would stay.
    """
    for node in list(graph):
        x = node.inputs[0] if node.inputs else None
        if node.op_type == "Shape" and x is not None and x.shape is not None:
            start, end = node.attributes.get("start"), node.attributes.get("end")
            part = x.shape[
                0 if start is None else start.as_int() : None if end is None else end.as_int()
            ]
            if all(isinstance(size, int) for size in part):
                _make_constant(graph, node, np.array(part, dtype=np.int64))
        elif node.op_type == "CastLike" and (like := node.inputs[1]) is not None:
            if like.dtype is None:
                continue
            cast = onnx_ir.node("Cast", [x], {"to": like.dtype.value}, name=node.name)
            node.prepend(cast)
            _take_place(graph, node, cast.outputs[0])


def _make_constant(graph: Graph, node: Node, array: Array) -> None:
    fresh = dialect.add_initializer(graph, f"{node.outputs[0].name}_known", array)
    node.outputs[0].replace_all_uses_with(fresh, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _take_place(graph: Graph, node: Node, value: Value) -> None:
    old = node.outputs[0]
    value.type, value.shape = old.type, old.shape
    old.replace_all_uses_with(value, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    name, old.name = old.name, None
    value.name = name


def _expand_markers(graph: Graph, marked: Marked, mode: str) -> list[Form]:
    forms = []
    for node in list(_markers(graph)):
        key = node.attributes[markers.KEY].as_string()
        give_way(graph, key)
        give_way(graph, f"{key}{QUANTIZED}")
        forms.append(expand(node, key, marked.found[key], mode))
    return forms


def give_way(graph: Graph, name: str) -> None:
    """Rename the values that have a name, so that another one can get it."""
    for value in values_of(graph):
        if value.name == name:
            value.name = f"{name}_given"


def _markers(graph: Graph) -> Iterator[Node]:
    for node in graph.all_nodes():
        if node.domain == markers.DOMAIN and node.op_type == markers.OPERATOR:
            yield node


def _rename_outputs(graph: Graph) -> None:
    wanted = output_names(len(graph.outputs))
    for value in values_of(graph):
        if value.name in wanted:
            value.name = f"{value.name}_inner"
    seen: set[Value] = set()
    for index, name in enumerate(wanted):
        value = graph.outputs[index]
        if value in seen or value.is_graph_input() or value.is_initializer():
            # Its name belongs to another output, or to what the model is given.
            copied = onnx_ir.node("Identity", [value], name=f"{name}_copy")
            copied.outputs[0].type, copied.outputs[0].shape = value.type, value.shape
            graph.append(copied)
            graph.outputs[index] = value = copied.outputs[0]
        seen.add(value)
        value.name = name


def values_of(graph: Graph) -> Iterator[Value]:
    """Return inputs, initializers and results, in order."""
    yield from graph.inputs
    yield from list(graph.initializers.values())
    for node in graph.all_nodes():
        yield from node.outputs


def _forget_origin(model: Model, name: str) -> None:
    """Remove torch's notes, which name the files and folders of who traced the model."""
    graph = model.graph
    graph.name, graph.doc_string, model.doc_string = name, None, None
    kept = {dialect.PROVENANCE}
    holders: Sequence[Any] = [model, graph, *values_of(graph), *graph.all_nodes()]
    for holder in holders:
        for key in [key for key in holder.metadata_props if key not in kept]:
            del holder.metadata_props[key]
    for node in graph.all_nodes():
        node.doc_string = None


def _drop_zero_biases(graph: Graph) -> None:
    """Remove the zeros that torch's exporter writes for layers without a bias."""
    for node in graph.all_nodes():
        position = _WITH_BIAS.get(node.op_type)
        if node.domain or position is None or len(node.inputs) <= position:
            continue
        bias = dialect.constant_value(node.inputs[position])
        if bias is not None and not np.any(bias):
            node.resize_inputs(position)
