"""Reading ONNX in any form: the part that all adapters for ONNX files share."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import onnx
import onnx_ir
from google.protobuf.message import DecodeError
from onnx_ir import Model

from qonnx_hub_adapters.external_data import settle_external_data
from qonnx_hub_adapters.fused_operators import expand_fused, is_fused_operator
from qonnx_hub_adapters.onnx_border import reading
from qonnx_hub_adapters.onnx_messages import message_issues
from qonnx_hub_adapters.sparse_tensors import without_sparse
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.errors import InvalidModelError, SourceError
from qonnx_hub_ir.facts import facts_of
from qonnx_hub_ir.graph.names import separate_names
from qonnx_hub_ir.graph.subgraphs import every_node, every_value
from qonnx_hub_ir.limits import require_memory, require_nodes
from qonnx_hub_ir.passes import (
    IMPORT_PIPELINE,
    InlineFunctions,
    NormalizeDialect,
    OpenAxes,
    run_passes,
)
from qonnx_hub_ir.passes.opset.source_versions import remember_versions
from qonnx_hub_ir.validity import require_valid

SUFFIXES = (".onnx",)

_LISTED_KINDS = 5
"""Kinds of unknown operators that a note lists."""


def is_onnx(source: object) -> bool:
    """Return whether the source is an ONNX file or model. Nothing is read."""
    if isinstance(source, (onnx.ModelProto, Model)):
        return True
    return isinstance(source, (str, Path)) and Path(source).suffix.lower() in SUFFIXES


def operators_in(source: object) -> frozenset[tuple[str, str]]:
    """Return the (domain, operator) pairs of an ONNX source, subgraphs and functions included.

    A file is parsed once, however many adapters ask; its external data is not read. A source
    that cannot be read has none: reading it will say what is wrong with it.
    """
    if isinstance(source, Model):
        nodes = [*source.graph.all_nodes()]
        nodes += [n for function in source.functions.values() for n in function.all_nodes()]
        return frozenset((node.domain, node.op_type) for node in nodes)
    if isinstance(source, onnx.ModelProto):
        return frozenset(_message_operators(source))
    if not isinstance(source, (str, Path)):
        return frozenset()
    try:
        stat = Path(source).stat()
        return _file_operators(str(source), stat.st_mtime_ns, stat.st_size)
    except Exception:  # whatever is wrong with the file, reading it will say so
        return frozenset()


@functools.lru_cache(maxsize=8)
def _file_operators(path: str, _changed: int, _size: int) -> frozenset[tuple[str, str]]:
    return frozenset(_message_operators(onnx.load(path, load_external_data=False)))


def _message_operators(message: onnx.ModelProto) -> Iterator[tuple[str, str]]:
    yield from _node_operators(message.graph.node)
    for function in message.functions:
        yield from _node_operators(function.node)


def _node_operators(nodes: Iterable[onnx.NodeProto]) -> Iterator[tuple[str, str]]:
    for node in nodes:
        # A name that is no text comes as bytes: reading will say so.
        if isinstance(node.domain, str) and isinstance(node.op_type, str):
            yield node.domain, node.op_type
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _node_operators(graph.node)


def describe(source: object) -> str:
    """Return how messages call the source: its path, or the kind of object."""
    if isinstance(source, (str, Path)):
        return f"'{source}'"
    return f"the given {type(source).__name__}"


def read_model(
    source: object,
    prepare: Callable[[Model], None] | None = None,
    *,
    keep_versions: bool = False,
) -> Model:
    """Return an ONNX source as a verified IR model, in canonical dialect.

    Args:
        source: Path of a file, ModelProto, or onnx_ir model (which is copied).
        prepare: Changes the model in place while its operators still are those of the file,
            in canonical dialect: before constants are folded, opsets raised or rules checked.
        keep_versions: Whether the opset and IR version are a user's, to be written again.

    Raises:
        SourceError: It is missing, empty, cut off, no ONNX file, or speaks of things that no
            operator document knows.
        InvalidModelError: It breaks rules of the IR; all of them are listed.
    """
    name = describe(source)
    with reading(name) as border:
        model = border.model = parse(source)
        file = Path(source) if isinstance(source, (str, Path)) else None
        settle_external_data(model, name, file)
        if keep_versions:
            remember_versions(model)
        OpenAxes()(model)
        fused = any(is_fused_operator(n.domain, n.op_type) for n in every_node(model))
        if prepare is not None or model.functions or fused:
            NormalizeDialect()(model)  # drops functions that define quantizers
        InlineFunctions()(model)
        if fused:
            expand_fused(model)
        if prepare is not None:
            _require_order(model, name)  # copies of a graph are made in its order
            NormalizeDialect()(model)
            own = set(every_value(model))
            prepare(model)
            separate_names(model, own)
        _require_order(model, name)
        run_passes(model, IMPORT_PIPELINE)
        require_valid(model, name)
        _note_opaque(model)
        _set_provenance(model)
        # By the pipeline; names alone changed since.
        facts_of(model).has_inferred_shapes = True
    return model


def _require_order(model: Model, name: str) -> None:
    """Bring the nodes into topological order, or say that there is none."""
    try:
        model.graph.sort()
    except ValueError:
        require_valid(model, name)
        raise SourceError("the graph has a cycle") from None
    undefined = [
        f"'{value.name}' (read by {node.op_type} '{node.name or node.outputs[0].name}')"
        for node in model.graph
        for value in node.inputs
        if value is not None
        and value.producer() is None
        and not value.is_graph_input()
        and not value.is_initializer()
    ]
    if undefined:
        raise SourceError(f"these inputs are defined nowhere: {', '.join(undefined)}")


def parse(source: object) -> Model:
    """Return an ONNX source as it lies, no pass run: sparse tensors alone became dense.

    Raises:
        SourceError: It is missing, empty, cut off, or no ONNX file.
    """
    if isinstance(source, Model):
        return source.clone()
    if isinstance(source, onnx.ModelProto):
        # Renaming a value of the IR renames the tensor it was read from: the caller's.
        own = onnx.ModelProto()
        own.CopyFrom(source)
        return _deserialize(own, describe(source))
    if not isinstance(source, (str, Path)):
        raise SourceError(f"{describe(source)} is neither an ONNX file nor an ONNX model")
    path = Path(source)
    if not path.exists():
        raise SourceError(f"'{path}' does not exist")
    if path.is_dir():
        raise SourceError(f"'{path}' is a folder, an ONNX file is needed")
    if path.stat().st_size == 0:
        raise SourceError(f"'{path}' is empty")
    require_memory(path.stat().st_size, f"'{path}'")
    try:
        proto = onnx.load(path, load_external_data=False)
    except (DecodeError, UnicodeDecodeError, ValueError) as error:
        raise SourceError(
            f"'{path}' is not an ONNX file, or it is cut off: {error}"
        ) from error
    except OSError as error:
        raise SourceError(f"'{path}' cannot be read: {error.strerror}") from error
    require_nodes(sum(1 for _ in _message_operators(proto)), f"'{path}' has")
    model = _deserialize(proto, f"'{path}'")
    onnx_ir.external_data.set_base_dir(model.graph, path.parent)
    return model


def _deserialize(proto: onnx.ModelProto, name: str) -> Model:
    if not proto.HasField("graph") or not (proto.graph.node or proto.graph.output):
        raise SourceError(f"{name} holds no graph: it is not an ONNX file, or it is cut off")
    proto = without_sparse(proto)
    issues = list(message_issues(proto))
    if issues:
        raise InvalidModelError(f"{name} is malformed:", issues)
    return onnx_ir.from_proto(proto)


def _note_opaque(model: Model) -> None:
    """Note which nodes nothing is known of: they go through every conversion as they are."""
    opaque = [node for node in every_node(model) if operators.is_opaque(node)]
    if not opaque:
        return
    kinds = Counter(f"{node.domain or 'ai.onnx'}::{node.op_type}" for node in opaque)
    listed = [f"{count} {kind}" for kind, count in kinds.most_common(_LISTED_KINDS)]
    if len(kinds) > _LISTED_KINDS:
        listed.append(f"{len(kinds) - _LISTED_KINDS} other kinds")
    model.metadata_props[dialect.NOTE] = (
        f"{len(opaque)} nodes of operators that are not known here are passed through as they "
        f"are: {', '.join(listed)}"
    )


def _set_provenance(model: Model) -> None:
    for value in model.graph.inputs:
        value.metadata_props.setdefault(dialect.PROVENANCE, str(value.name))
    for node in model.graph:
        for value in node.outputs:
            if value.name:
                value.metadata_props.setdefault(dialect.PROVENANCE, value.name)
