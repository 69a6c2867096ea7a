"""Tables that are looked up by integers: what they hold lies on the grid of a quantizer."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir
from onnx_ir import Graph, Node, Value

from qonnx_hub_adapters.qlinear.integer_nodes import shared_parameters
from qonnx_hub_adapters.qlinear.integer_sums import leaves_on_grid
from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.queries import is_standard, producer

_BYTES = frozenset({onnx_ir.DataType.INT8, onnx_ir.DataType.UINT8})


def quantize_lookups(graph: Graph) -> None:
    """Put a quantizer behind every table that is looked up by integers of a quantizer.

    Before -> after: ``DequantizeLinear(Gather(table, Cast(q)), s, z)`` ->
    ``DequantizeLinear(QuantizeLinear(Gather(DequantizeLinear(table, s, z), Cast(q)), s, z),
    s, z)``, which is the same for every integer, and of which the outer pair is a quantizer
    for what follows. The integers that look it up are dequantized and quantized again, so that
    they too are behind a quantizer. A table that is looked up by anything else (an embedding)
    is left alone.
    """
    done: set[Node] = set()
    for node in list(graph):
        reader = _reader_of_table(node)
        if reader is None:
            continue
        _requantize_index(node.inputs[1], done)
        emit = Emitter(node)
        values = emit.add("DequantizeLinear", [node.inputs[0], *reader.inputs[1:]])
        attributes = {name: a.value for name, a in node.attributes.items()}
        found = emit.add("Gather", [values, node.inputs[1]], **attributes)
        emit.replace_with(emit.add("QuantizeLinear", [found, *reader.inputs[1:]]))


def _reader_of_table(node: Node) -> Node | None:
    """Return a DequantizeLinear with the values of a lookup, if all its readers agree."""
    if not is_standard(node, "Gather"):
        return None
    table, index = dialect.constant_tensor(node.inputs[0]), node.inputs[1]
    if table is None or table.dtype not in _BYTES or index is None or not _is_of_codes(index):
        return None
    readers = list(_readers_behind(node.outputs[0]))
    known = [reader for reader in readers if reader is not None]
    keys = {shared_parameters(reader) or reader for reader in known}
    if not known or len(known) < len(readers) or len(keys) != 1:
        return None
    # Without a zero point QuantizeLinear makes uint8, and nothing else.
    bare = len(known[0].inputs) < 3 and table.dtype != onnx_ir.DataType.UINT8
    return None if bare else known[0]


def _is_index_arithmetic(node: Node) -> bool:
    return leaves_on_grid(node) or is_standard(node, "Add", "Cast", "Mul", "Sub")


def _only_moves(node: Node) -> bool:
    return leaves_on_grid(node) and not is_standard(node, "Gather")


def _requantize_index(index: Value | None, done: set[Node]) -> None:
    """Read an index from the values that its integers stand for, wherever it is cast.

    Args:
        index: The index.
        done: Nodes whose inputs are read so already: tables can share an index.
    """
    node = producer(index)
    if node is None or node in done or not _is_index_arithmetic(node):
        return
    done.add(node)
    source = producer(node.inputs[0])
    while source is not None and _only_moves(source):
        source = producer(source.inputs[0])
    is_quantized = source is not None and is_standard(source, "QuantizeLinear")
    if node.op_type != "Cast" or source is None or not is_quantized:
        for value in node.inputs:
            _requantize_index(value, done)
        return
    emit = Emitter(node)
    parameters = source.inputs[1:]
    values = emit.add("DequantizeLinear", [node.inputs[0], *parameters])
    node.replace_input_with(0, emit.add("QuantizeLinear", [values, *parameters]))


def _is_of_codes(value: Value) -> bool:
    """Return whether an index is computed from integers of a quantizer."""
    node = value.producer()
    if node is None or node.domain != "":
        return False
    if node.op_type == "QuantizeLinear":
        return True
    if not _is_index_arithmetic(node):
        return False
    return any(v is not None and _is_of_codes(v) for v in node.inputs)


def _readers_behind(value: Value) -> Iterator[Node | None]:
    """Give every DequantizeLinear that reads a value, moved or not; None for other readers."""
    if value.is_graph_output():
        yield None
    for reader in value.consumers():
        if is_standard(reader, "DequantizeLinear"):
            yield reader
        elif _only_moves(reader):
            for output in reader.outputs:
                yield from _readers_behind(output)
        elif reader.op_type != "Cast":
            yield None
