"""Tables that are looked up by integers: what they hold lies on the grid of a quantizer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx_ir
from onnx_ir import Graph, Node, Value

from qonnx_hub_adapters.qlinear.integer_sums import MOVES
from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.builder import Emitter

_ARITHMETIC = frozenset({"Add", "Cast", "Mul", "Sub"})
_BYTES = frozenset({onnx_ir.DataType.INT8, onnx_ir.DataType.UINT8})


def quantize_lookups(graph: Graph) -> None:
    """Say of every table that is looked up by integers what its own integers stand for.

    Before -> after: ``DequantizeLinear(Gather(table, Cast(q)), s, z)`` ->
    ``DequantizeLinear(QuantizeLinear(Gather(DequantizeLinear(table, s, z), Cast(q)), s, z),
    s, z)``, which is the same for every integer, and of which the outer pair is a quantizer
    for what follows. The integers that look it up are dequantized and quantized again, so that
    they too are behind a quantizer. A table that is looked up by anything else (an embedding)
    is left alone.
    """
    for node in list(graph):
        reader = _reader_of_table(node)
        if reader is None:
            continue
        _requantize_index(graph, node.inputs[1])
        emit = Emitter(node)
        values = emit.add("DequantizeLinear", [node.inputs[0], *reader.inputs[1:]])
        attributes = {name: a.value for name, a in node.attributes.items()}
        found = emit.add("Gather", [values, node.inputs[1]], **attributes)
        emit.replace_with(emit.add("QuantizeLinear", [found, *reader.inputs[1:]]))


def _reader_of_table(node: Node) -> Node | None:
    """Return a DequantizeLinear that says what a lookup gives, if all its readers agree."""
    if node.domain != "" or node.op_type != "Gather":
        return None
    table, index = dialect.constant_tensor(node.inputs[0]), node.inputs[1]
    if table is None or table.dtype not in _BYTES or index is None or not _is_of_codes(index):
        return None
    readers = list(_readers_behind(node.outputs[0]))
    known = [reader for reader in readers if reader is not None]
    if not known or len(known) < len(readers) or len({_key(one) for one in known}) != 1:
        return None
    # Without a zero point QuantizeLinear makes uint8, and nothing else.
    bare = len(known[0].inputs) < 3 and table.dtype != onnx_ir.DataType.UINT8
    return None if bare else known[0]


def _requantize_index(graph: Graph, index: Value | None) -> None:
    """Read an index from the values that its integers stand for, wherever it is cast."""
    node = None if index is None else index.producer()
    if node is None or node.op_type not in MOVES | _ARITHMETIC:
        return
    codes = node.inputs[0]
    source = None if codes is None else _quantize_node(codes)
    if node.op_type != "Cast" or codes is None or source is None:
        for value in node.inputs:
            _requantize_index(graph, value)
        return
    emit = Emitter(node)
    parameters = source.inputs[1:]
    values = emit.add("DequantizeLinear", [codes, *parameters])
    node.replace_input_with(0, emit.add("QuantizeLinear", [values, *parameters]))


def _quantize_node(value: Value) -> Node | None:
    """Return the QuantizeLinear that made integers which were only moved since."""
    node = value.producer()
    while node is not None and node.domain == "" and node.op_type in MOVES - {"Gather"}:
        inner = node.inputs[0]
        node = None if inner is None else inner.producer()
    is_source = node is not None and node.domain == "" and node.op_type == "QuantizeLinear"
    return node if is_source else None


def _is_of_codes(value: Value) -> bool:
    """Return whether an index is computed from integers of a quantizer."""
    node = value.producer()
    if node is None or node.domain != "":
        return False
    if node.op_type == "QuantizeLinear":
        return True
    if node.op_type not in MOVES | _ARITHMETIC:
        return False
    return any(v is not None and _is_of_codes(v) for v in node.inputs)


def _readers_behind(value: Value) -> Iterator[Node | None]:
    """Give every DequantizeLinear that reads a value, moved or not; None for other readers."""
    if value.is_graph_output():
        yield None
    for reader in value.consumers():
        if reader.domain == "" and reader.op_type == "DequantizeLinear":
            yield reader
        elif reader.domain == "" and reader.op_type in MOVES - {"Gather"}:
            for output in reader.outputs:
                yield from _readers_behind(output)
        elif reader.op_type != "Cast":
            yield None


def _key(node: Node) -> tuple[Any, ...]:
    known = [dialect.constant_value(value) for value in node.inputs[1:]]
    if any(array is None or array.size != 1 for array in known):
        return (node,)
    return tuple((a.dtype.str, a.tobytes()) for a in known if a is not None)
