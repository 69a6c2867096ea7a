"""What ``hls_model.trace`` returns: which tensor of the model each of its keys stands for.

hls4ml calls its layers after the nodes of the file, but not quite: constant operands make a
MatMul a ``Dense_MatMul_0``, a Conv a ``Conv2D_Conv_0``, a Div a ``bn_Div_0``, and a Quant a
``Quant_5_act``. Where it merges a layer into the one before it, that one keeps its name and
computes something else: such keys are left out, by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import onnx_ir
from onnx_ir import Graph, Model, Node, Value

from qonnx_hub_adapters.hls4ml.builder import GRAPH
from qonnx_hub_adapters.hls4ml.file_names import CONFIG, MODEL, TENSORS
from qonnx_hub_adapters.hls4ml.fixed_point import FixedType
from qonnx_hub_adapters.hls4ml.folder import read_config
from qonnx_hub_adapters.hls4ml.inputs import configured_types
from qonnx_hub_adapters.hls4ml.ranges import MERGED
from qonnx_hub_adapters.hls4ml.tensor_map import StoredTensor, from_text
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.errors import SourceError
from qonnx_hub_ir.graph.queries import dims, producer
from qonnx_hub_ir.quantizers import (
    Array,
    BipolarQuant,
    IntQuant,
    is_power_of_two,
    single_value,
)

_PREFIXES: Mapping[str, Callable[[Node], bool]] = {
    "Dense": operators.is_matrix_product,
    **dict.fromkeys(
        ("Conv1D", "Conv2D", "DepthwiseConv1D", "DepthwiseConv2D"),
        lambda node: operators.is_convolution(node, any_layout=True),
    ),
    "bn": operators.is_affine,
}
"""Prefix of a layer -> the nodes that it is put before."""

_PREFIXED = re.compile(rf"({'|'.join(_PREFIXES)})_(.+)")


@dataclass(frozen=True, slots=True)
class HardwareTypes:
    """In which types a layer of hardware computes a value.

    Attributes:
        types: Name of a type, such as "accum" -> the type.
        factor: What stored values are multiplied by, to be those compared.
        offset: What is added then.
    """

    types: Mapping[str, FixedType]
    factor: float = 1.0
    offset: float = 0.0


@dataclass(frozen=True, slots=True)
class LayerTrace:
    """A trace under the names of a model.

    Attributes:
        arrays: Tensor -> values, the first axis over samples.
        notes: What could not be assigned.
        types: Tensor -> the types that the config beside the trace gives it.
    """

    arrays: Mapping[str, Array]
    notes: tuple[str, ...]
    types: Mapping[str, HardwareTypes] = field(default_factory=dict)


def read_trace(
    arrays: Mapping[str, Array], model: Model, folder: Path | None = None
) -> LayerTrace | None:
    """Return a trace under the names of a model, or ``None`` where it is no such trace.

    Args:
        arrays: What hls4ml calls its layers -> values.
        model: The model that was written for hls4ml, or the source that it was written from.
        folder: Where the arrays lie; the files beside them hold the source's names.

    Raises:
        SourceError: The files beside the arrays cannot be read, or do not fit each other.
    """
    types = _types_beside(folder)
    if model.graph.name == GRAPH:
        found = _by_tensor(arrays, model.graph)
        held = types_of_values(types, model.graph, None)
        return None if found is None else replace(found, types=held)
    beside = None if folder is None else _read_folder(folder)
    if beside is None:
        return None
    written, tensors = beside
    found = _by_tensor(arrays, written.graph)
    if found is None:
        return None
    held = types_of_values(types, written.graph, tensors)
    return replace(_by_source(found, tensors, model), types=held)


def _types_beside(folder: Path | None) -> dict[str, dict[str, FixedType]]:
    """Return node -> name -> type as the config of a folder gives them; none without one."""
    try:
        config = {} if folder is None else read_config(folder / CONFIG)["HLSConfig"]
    except SourceError:
        return {}
    entries = config.get("LayerName") or {}
    return {name: configured_types(entry) for name, entry in entries.items()}


def read_layers(
    arrays: Mapping[str, Array], graph: Graph, tensors: Sequence[StoredTensor]
) -> dict[str, Array]:
    """Return a trace under the names of the source, as far as it has such values.

    Args:
        arrays: What hls4ml calls its layers -> values.
        graph: The graph that was written for hls4ml.
        tensors: Where the values of the source are found in it.
    """
    found = _by_tensor(arrays, graph)
    held = {} if found is None else found.arrays
    return {t.source: t.value_of(held[t.name]) for t in tensors if t.name in held}


def types_of_values(
    types: Mapping[str, Mapping[str, FixedType]],
    graph: Graph,
    tensors: Sequence[StoredTensor] | None,
) -> dict[str, HardwareTypes]:
    """Return in which types values are computed.

    Args:
        types: What hls4ml calls its layers, or the config its nodes -> name -> type.
        graph: The graph that was written for hls4ml.
        tensors: Where the values of the source are found in it; for the names of the graph
            itself, ``None``. What is scaled channel by channel is left out.
    """
    nodes = {str(node.name): node for node in graph}
    found: dict[str, HardwareTypes] = {}
    for key, named in types.items():
        node = node_of_layer(key, nodes)
        if node is not None and named:
            found[str(node.outputs[0].name)] = HardwareTypes(named)
    if tensors is None:
        return found
    return {
        t.source: HardwareTypes(found[t.name].types, t.factor[0], t.offset[0])
        for t in tensors
        if t.name in found and len({*t.factor}) == len({*t.offset}) == 1 and not t.relu
    }


def _read_folder(folder: Path) -> tuple[Model, tuple[StoredTensor, ...]] | None:
    if not (folder / TENSORS).is_file() or not (folder / MODEL).is_file():
        return None
    try:
        tensors = from_text((folder / TENSORS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(f"'{folder / TENSORS}' cannot be read: {error}") from error
    try:
        return onnx_ir.load(folder / MODEL), tensors
    except Exception as error:  # the parser raises its own exception types
        raise SourceError(f"'{folder / MODEL}' cannot be read: {error}") from error


def _by_tensor(arrays: Mapping[str, Array], graph: Graph) -> LayerTrace | None:
    values = {str(value.name): value for node in graph for value in node.outputs}
    nodes = {str(node.name): node for node in graph}
    keys = {key: node for key in arrays if (node := node_of_layer(key, nodes)) is not None}
    if not keys:
        return None
    traced = set(keys.values())
    found: dict[str, Array] = {}
    notes: list[str] = []
    for key, array in arrays.items():
        node = keys.get(key)
        value = values.get(key) if node is None else node.outputs[0]
        reason = "no node of the model is called so"
        if value is not None:
            reason = "" if node is None else _doubt(key, node, traced)
        stored = None if value is None or reason else _laid_out(array, value)
        if value is not None and stored is not None:
            found[str(value.name)] = stored
        else:
            reason = reason or f"its shape {list(array.shape)} is not that of its tensor"
            notes.append(f"not compared: layer '{key}' of hls4ml: {reason}")
    return LayerTrace(found, tuple(notes))


def node_of_layer(key: str, nodes: Mapping[str, Node]) -> Node | None:
    """Return the node that a layer was made from."""
    if key in nodes:
        return nodes[key]
    matched = _PREFIXED.fullmatch(key)
    node = nodes.get(matched[2]) if matched else None
    if matched and node is not None and _PREFIXES[matched[1]](node):
        return node
    node = nodes.get(re.sub(r"_(act|scale|rescale)$", "", key))
    return node if node is not None and dialect.is_quantizer(node) else None


def _doubt(key: str, node: Node, traced: set[Node]) -> str:
    """Return why it is not certain that a layer computes what its node does."""
    if dialect.is_quantizer(node) and not (key.endswith("_act") and _is_one_layer(node)):
        return "one of several that a quantizer becomes, and which may be moved"
    readers = [usage.node for usage in node.outputs[0].uses()]
    for one in readers if len(readers) == 1 else ():
        may_be_merged = one.op_type in MERGED or operators.is_uniform_quantizer(one)
        if may_be_merged and one not in traced:
            return f"'{one.name}' behind it was not traced, and may be merged into it"
    return ""


def _is_one_layer(node: Node) -> bool:
    """Return whether hls4ml makes one layer of a quantizer: its type does all the work."""
    quant = dialect.read_quantizer(node)
    if isinstance(quant, BipolarQuant):
        return bool(np.all(quant.scale == 1))
    if not isinstance(quant, IntQuant) or single_value(quant.scale) is None:
        return False
    return not np.any(quant.zero_point) and is_power_of_two(quant.scale)


def _laid_out(array: Array, value: Value) -> Array | None:
    """Return traced values in the shape of their tensor, ``None`` where they do not fit."""
    sizes = dims(value)
    if sizes is None or array.ndim == 0:
        return None
    rest = [size for size in sizes[1:] if isinstance(size, int)]
    if len(rest) < len(sizes) - 1 or array.size != len(array) * math.prod(rest):
        return None
    stored: Array = array.reshape(len(array), *rest).astype(np.float32)
    # Bits are traced as they are stored: 0 stands for -1.
    if _is_bits(value) and np.all((stored == 0) | (stored == 1)):
        stored = stored * np.float32(2) - np.float32(1)
    return stored


def _is_bits(value: Value | None) -> bool:
    node = producer(value)
    if node is None:
        return False
    if operators.moves_axes(node) or operators.is_max_pool(node, any_layout=True):
        return _is_bits(node.inputs[0])
    return node.op_type == "BipolarQuant"


def _by_source(
    trace: LayerTrace, tensors: tuple[StoredTensor, ...], model: Model
) -> LayerTrace:
    names = {str(value.name) for node in model.graph for value in node.outputs}
    known = [t for t in tensors if t.source in names and t.name in trace.arrays]
    try:
        found = {t.source: t.value_of(trace.arrays[t.name]) for t in known}
    except (ValueError, IndexError) as error:
        raise SourceError(f"'{TENSORS}' does not fit '{MODEL}' beside it: {error}") from error
    left = [name for name in trace.arrays if name not in {t.name for t in known}]
    notes = list(trace.notes)
    if left:
        notes.append(
            f"not compared: the source has no value like {', '.join(left)}; a check against "
            f"'{MODEL}' beside the trace compares them"
        )
    return LayerTrace(found, tuple(notes))
