"""From a marked program to a verified IR model, through torch's own ONNX exporter."""

from __future__ import annotations

import ast
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Graph, Model, Node, Value

from qonnx_hub_adapters.dependencies import first_line, quiet
from qonnx_hub_adapters.pytorch import markers
from qonnx_hub_adapters.pytorch.expansion import QUANTIZED, WrittenQuantizer, expand
from qonnx_hub_adapters.pytorch.naming import clean_path
from qonnx_hub_adapters.pytorch.programs import MarkedProgram
from qonnx_hub_adapters.torch_common.graphs import read_traced
from qonnx_hub_adapters.torch_common.modules import output_names
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.errors import SourceError, UnsupportedGraphError
from qonnx_hub_ir.graph.constants import drop_unread
from qonnx_hub_ir.graph.queries import attribute, dims
from qonnx_hub_ir.graph.rewriting import replace_node
from qonnx_hub_ir.graph.subgraphs import every_node, every_value
from qonnx_hub_ir.passes import DropUnused, FoldWeightLayout, run_passes
from qonnx_hub_ir.validity import require_valid

_SCOPES = "pkg.torch.onnx.name_scopes"
_HELPER = "val_"


def assemble(
    marked: MarkedProgram, torch: Any, *, mode: str, name: str
) -> tuple[Model, list[WrittenQuantizer]]:
    """Return the IR model of a program, and the form of each quantizer.

    Args:
        marked: The program.
        torch: The framework.
        mode: "exact" or "quant".
        name: Name of the graph.

    Raises:
        SourceError: torch's exporter cannot write it.
        UnsupportedGraphError: It uses operators without an ONNX form.
    """
    try:
        with quiet(), torch.no_grad():
            written = torch.onnx.export(
                marked.program,
                dynamo=True,
                custom_translation_table=markers.translation(torch),
                optimize=False,
                verbose=False,
            )
    except Exception as error:  # torch's exporter raises whatever its parts raise
        raise _export_error(error) from error
    model: Model = written.model
    _bring_into_memory(model.graph)
    _set_provenance(model.graph)
    _settle_shapes(model.graph)
    forms = []
    for node in every_node(model):
        if (node.domain, node.op_type) == (markers.DOMAIN, markers.OPERATOR):
            key = node.attributes[markers.KEY].as_string()
            free_names(model, key, f"{key}{QUANTIZED}")
            forms.append(expand(node, key, marked.found[key], mode))
    _rename_outputs(model)
    clean = read_traced(model, name, markers.DOMAIN)
    run_passes(clean, (FoldWeightLayout(),))
    _drop_zero_biases(clean)
    run_passes(clean, (DropUnused(),))
    require_valid(clean, f"model '{name}'")
    return clean, forms


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
    drop_unread(graph, list(graph.initializers.values()))
    for value in graph.initializers.values():
        if (tensor := value.const_value) is not None:
            value.const_value = onnx_ir.Tensor(
                np.array(tensor.numpy()), dtype=tensor.dtype, name=tensor.name
            )


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
    """Replace operators that read a known shape or type by constants.

    torch's exporter asks a quantized weight for its shape to make zeros of it; quantizers are
    not folded, and the Shape would stay.
    """
    for node in list(graph):
        x = node.inputs[0] if node.inputs else None
        if node.op_type == "Shape" and (sizes := dims(x)) is not None:
            part = sizes[attribute(node, "start", 0) : attribute(node, "end", None)]
            if all(isinstance(size, int) for size in part):
                known = np.array(part, dtype=np.int64)
                fresh = dialect.add_initializer(graph, f"{node.outputs[0].name}_known", known)
                replace_node(node, fresh, keep_name=False)
        elif node.op_type == "CastLike" and (like := node.inputs[1]) is not None:
            if like.dtype is None:
                continue
            cast = onnx_ir.node("Cast", [x], {"to": like.dtype.value}, name=node.name)
            node.prepend(cast)
            replace_node(node, cast.outputs[0])


def free_names(model: Model, *names: str) -> None:
    """Rename the values that have one of these names, so that others can get it."""
    for value in every_value(model):
        if value.name in names:
            value.name = f"{value.name}_given"


def _rename_outputs(model: Model) -> None:
    graph, wanted = model.graph, output_names(len(model.graph.outputs))
    free_names(model, *wanted)
    for index, (value, name) in enumerate(zip(list(graph.outputs), wanted, strict=True)):
        if value.name in wanted or value.is_graph_input() or value.is_initializer():
            # Its name belongs to another output, or to what the model is given.
            copied = onnx_ir.node("Identity", [value], name=f"{name}_copy")
            copied.outputs[0].type, copied.outputs[0].shape = value.type, value.shape
            graph.append(copied)
            graph.outputs[index] = value = copied.outputs[0]
        value.name = name


def _drop_zero_biases(model: Model) -> None:
    """Remove the zeros that torch's exporter writes for layers without a bias."""
    for node in every_node(model):
        position = operators.bias_input(node)
        if position is None or len(node.inputs) <= position:
            continue
        bias = dialect.constant_value(node.inputs[position])
        if bias is not None and not np.any(bias):
            node.resize_inputs(position)
