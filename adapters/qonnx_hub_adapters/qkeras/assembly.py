"""From a trace with markers to a clean IR model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx.defs
import onnx_ir
from onnx_ir import Graph, Model, Node, Value

from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_adapters.qkeras.cleanup import (
    clean_up,
    mend_resize,
    mend_transposed_convolutions,
    separate_results,
)
from qonnx_hub_adapters.qkeras.expansion import Writer, expand
from qonnx_hub_adapters.qkeras.naming import name_axes, name_values
from qonnx_hub_adapters.qkeras.patching import QuantizerSlot
from qonnx_hub_adapters.qkeras.recording import Recorded
from qonnx_hub_adapters.qkeras.tracing import DOMAIN, KEY, MARKER, MarkedTrace
from qonnx_hub_adapters.qkeras.weights import OffGridError, store
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.errors import Gap, SourceError, UnsupportedGraphError
from qonnx_hub_ir.graph.names import free_name
from qonnx_hub_ir.graph.subgraphs import every_value
from qonnx_hub_ir.validity import require_valid


def assemble(
    trace: MarkedTrace,
    sites: Sequence[QuantizerSlot],
    recorded: Mapping[str, Recorded],
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    name: str,
    layers: Collection[str],
    generation: int,
) -> Model:
    """Return the IR model of a trace: markers expanded, cleaned, named, verified.

    Args:
        trace: The graph with markers.
        sites: Places of the quantizers.
        recorded: What the weights' quantizers did.
        inputs: Names of the model's inputs.
        outputs: Names of the model's outputs.
        name: Name of the model.
        layers: Names of its layers.
        generation: Of Keras, 2 or 3.

    Raises:
        SourceError: A weight is not on its quantizer's grid.
        UnsupportedGraphError: Operators of TensorFlow without an ONNX form.
    """
    model = onnx_ir.from_proto(trace.proto)
    by_key = {site.key: site for site in sites}
    _set_weights(model.graph, trace, by_key, recorded, len(inputs))
    _expand_markers(model.graph, by_key)
    model.opset_imports.pop(DOMAIN, None)
    model.opset_imports[dialect.DOMAIN] = dialect.DOMAIN_VERSION
    _require_known_operators(model, name)
    mend_resize(model)
    mend_transposed_convolutions(model)
    _rename_ends(model, inputs, outputs)
    model.graph.name, model.graph.doc_string = name, None
    model.doc_string = None
    clean = read_model(model)
    name_axes(clean)
    clean_up(clean)
    separate_results(clean)
    name_values(clean, layers, numbered=generation == 3)
    require_valid(clean, f"model '{name}'")
    return clean


def _set_weights(
    graph: Graph,
    trace: MarkedTrace,
    sites: Mapping[str, QuantizerSlot],
    recorded: Mapping[str, Recorded],
    count: int,
) -> None:
    """Put initializers and their quantizers in the place of the extra inputs."""
    extra = {str(v.name).partition(":")[0]: v for v in graph.inputs}
    first = graph[0]
    for index, key in enumerate(trace.weights):
        value = extra.pop(f"weight_{index}", None)
        if value is None:
            continue  # the model reads the weight nowhere: tf2onnx dropped the input
        _set_weight(graph, value, sites[key], recorded[key], first)
        graph.inputs.remove(value)
    kept = [extra[f"input_{i}"] for i in range(count) if f"input_{i}" in extra]
    if len(kept) != count or len(graph.inputs) != count:
        names = ", ".join(str(v.name) for v in graph.inputs)
        raise SourceError(f"the trace has the inputs {names}; {count} were expected")
    graph.inputs.clear()
    graph.inputs.extend(kept)


def _set_weight(
    graph: Graph, value: Value, site: QuantizerSlot, record: Recorded, before: Node
) -> None:
    try:
        stored, quantizer = store(
            site.description, record.given, record.quantized, record.scale
        )
    except OffGridError as error:
        raise SourceError(
            f"layer '{site.layer}': the {site.role} cannot be stored: {error}"
        ) from error
    # Nothing is shared with the recorded array: a later pass may change the initializer.
    fresh = dialect.add_initializer(graph, site.key, np.array(stored, dtype=np.float32))
    fresh.metadata_props[dialect.PROVENANCE] = site.key
    if quantizer is not None:
        node = dialect.quantizer_node(fresh, quantizer, f"{site.key}_quant", graph)
        graph.insert_before(before, node)
        fresh = node.outputs[0]
        fresh.metadata_props[dialect.PROVENANCE] = f"{site.key}_quant"
    value.replace_all_uses_with(fresh, replace_graph_outputs=True)


def _expand_markers(graph: Graph, sites: Mapping[str, QuantizerSlot]) -> None:
    taken: set[str] = set()
    for node in list(graph.all_nodes()):
        if (node.domain, node.op_type) != (DOMAIN, MARKER):
            continue
        site = sites[node.attributes[KEY].as_string()]
        node.name = free_name(site.key, taken)
        owner, x = node.graph, node.inputs[0]
        if not isinstance(owner, Graph) or x is None:
            raise SourceError(f"layer '{site.layer}': a marker lost its input")
        node.outputs[0].metadata_props[dialect.PROVENANCE] = node.name
        write = Writer(node)
        value = expand(write, x, site.description)
        # The marker's name may not go to its own input.
        write.emit.replace_with(write.op("Identity", x) if value is x else value)


def _require_known_operators(model: Model, name: str) -> None:
    version = model.opset_imports[""]
    gaps = []
    for node in model.graph.all_nodes():
        if node.domain not in dialect.STANDARD_DOMAINS:
            continue
        where = node.name or str(node.outputs[0].name)
        if operators.of(node).random is True and operators.is_known(operators.of(node)):
            gaps.append(Gap(where, node.op_type, "draws random values at inference"))
        elif not onnx.defs.has(node.op_type, version):
            reason = "an operator of TensorFlow that tf2onnx does not convert"
            gaps.append(Gap(where, node.op_type, reason))
    if gaps:
        raise UnsupportedGraphError(
            f"model '{name}' has operators without an ONNX form:", gaps
        )


def _rename_ends(model: Model, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Give inputs and outputs their Keras names; other values with such a name are renamed."""
    graph = model.graph
    ends = [*zip(graph.inputs, inputs, strict=True), *zip(graph.outputs, outputs, strict=True)]
    wanted = {*inputs, *outputs}
    for value in list(every_value(model)):
        if value.name in wanted:
            value.name = f"{value.name}_inner"
    taken: set[str] = set()
    for value, name in ends:
        fresh = name if name not in taken else f"{name}_out"
        taken.add(fresh)
        value.name = fresh
