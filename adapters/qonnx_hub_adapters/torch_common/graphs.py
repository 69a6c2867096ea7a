"""Graphs that torch's ONNX exporter wrote, with marks where quantizers belong."""

from __future__ import annotations

from typing import Any

from onnx_ir import Model

from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.subgraphs import every_graph, every_node, every_value


def read_traced(model: Model, name: str, marks: str) -> Model:
    """Return a traced graph whose quantizers are written as a verified IR model.

    torch's notes are left out: they name the files and folders of whoever traced the module.

    Args:
        model: The graph; changed in place.
        name: Its name from now on.
        marks: The domain of the marks, none of which are left.

    Raises:
        SourceError: The graph holds what no operator document knows.
        InvalidModelError: It breaks rules of the IR; all of them are listed.
    """
    holders: list[Any] = [*every_graph(model), *every_node(model), *every_value(model)]
    for holder in (model, *holders):
        source = holder.metadata_props.get(dialect.PROVENANCE)
        holder.metadata_props.clear()
        if source is not None:
            holder.metadata_props[dialect.PROVENANCE] = source
        holder.doc_string = None
    model.graph.name = name
    model.opset_imports.pop(marks, None)
    model.opset_imports[dialect.DOMAIN] = dialect.DOMAIN_VERSION
    return read_model(model)
