"""A whole graph as a net: node by node, from the inputs to the outputs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from onnx_ir import Model, Node, Value

from qonnx_hub_adapters.tflite.graph_layers import LAYERS
from qonnx_hub_adapters.tflite.graph_moves import MOVES
from qonnx_hub_adapters.tflite.graph_reader import (
    CodeTarget,
    GraphReader,
    Unsaid,
    Waiting,
    gap_of,
    target_of,
)
from qonnx_hub_adapters.tflite.net import CODE_TYPES, CodeGrid, TfliteNet
from qonnx_hub_adapters.tflite.net_builder import Held, one_grid
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.errors import Gap
from qonnx_hub_ir.graph.queries import input_of, is_constant, is_standard, producer, readers
from qonnx_hub_ir.quantizers import Array

_ENDS = {(0.0, 6.0): 3, (-1.0, 1.0): 2, (0.0, None): 1}
_TYPES = {"INT8": "INT8", "UINT8": "UINT8", "INT16": "INT16", "FLOAT": "FLOAT32"}


def net_of(model: Model) -> tuple[TfliteNet | None, list[Gap]]:
    """Return a model as a net, and what it cannot say; no net where there are gaps.

    Args:
        model: Float layers, each with a quantizer behind it.
    """
    reader = GraphReader()
    where: Node | Value = (
        model.graph.inputs[0] if model.graph.inputs else model.graph.outputs[0]
    )
    try:
        inputs, outputs = [], []
        for where in model.graph.inputs:
            inputs += [(_input(reader, where), str(where.name))]
        for where in model.graph:
            _read(reader, where)
        for where in model.graph.outputs:
            outputs += [(_output(reader, where), str(where.name))]
    except Unsaid as why:
        # whatever reads it fails as well, and would only repeat the first reason
        return None, [_gap(where, why)]
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        # shapes and attributes that no rule expects: what is not understood is not said
        return None, [_gap(where, Unsaid(f"has parts that are not understood ({error})"))]
    return reader.net.net(inputs, outputs), []


def _gap(where: Node | Value, why: Unsaid) -> Gap:
    if isinstance(where, Node):
        return gap_of(where, why)
    return Gap(str(where.name), "value", str(why), why.remedy)


def _input(reader: GraphReader, value: Value) -> int:
    type_ = _TYPES.get("" if value.dtype is None else value.dtype.name)
    if type_ is None:
        raise Unsaid(f"has the type {value.dtype}")
    grid = None if type_ == "FLOAT32" else _grid_behind(value)
    tensor = reader.net.tensor(str(value.name), type_, reader.shape(value), grid)
    held = tensor
    if type_ == "UINT8" and grid is not None:
        held = reader.net.requantized(tensor, "INT8", CodeGrid(grid.scale, grid.zero - 128))
    reader.held[value] = Held(held)
    return tensor


def _grid_behind(value: Value) -> CodeGrid:
    """Return the grid with which integers are read, behind what only moves them."""
    found = [value]
    for one in found:
        for node in readers(one):
            if is_standard(node, "DequantizeLinear"):
                return _linear_grid(node)
            if node.op_type in MOVES:
                found += node.outputs
    return one_grid(1.0)


def _linear_grid(node: Node) -> CodeGrid:
    scale, zero = dialect.constant_value(node.inputs[1]), input_of(node, 2)
    number: Array | None = np.zeros(1) if zero is None else dialect.constant_value(zero)
    if scale is None or number is None or scale.size != 1:
        raise Unsaid("has a scale per channel, or a computed one")
    return one_grid(scale, number)


def _output(reader: GraphReader, value: Value) -> int:
    tensor = reader.plain(value)
    record = reader.net.tensors[tensor]
    wanted = _TYPES.get("" if value.dtype is None else value.dtype.name)
    if wanted == record.type:
        return tensor
    if wanted == "FLOAT32":
        made = reader.net.tensor(str(value.name), "FLOAT32", record.shape)
        reader.net.operate("DEQUANTIZE", (tensor,), (made,))
        return made
    if wanted == "UINT8" and record.type == "INT8" and record.grid is not None:
        grid = CodeGrid(record.grid.scale, record.grid.zero + 128)
        return reader.net.requantized(tensor, "UINT8", grid)
    raise Unsaid(f"has the type {value.dtype}, and codes of {record.type}")


def _read(reader: GraphReader, node: Node) -> None:
    first = node.inputs[0] if node.inputs else None
    if dialect.is_quantizer(node):
        if dialect.constant_value(first) is None:
            _quantizer(reader, node, target_of(dialect.read_quantizer(node)))
        return
    if is_standard(node, "QuantizeLinear"):
        _quantizer(reader, node, _linear_target(node))
        return
    if is_standard(node, "DequantizeLinear"):
        held, grid = reader.find(first), _linear_grid(node)
        is_unsigned = (
            first is not None and first.dtype is not None and first.dtype.name == "UINT8"
        )
        read = CodeGrid(grid.scale, grid.zero - (128 if is_unsigned else 0))
        own = reader.net.tensors[held.tensor].grid
        if own is None or not own.same(read):
            raise Unsaid("reads codes on another grid than the one they lie on")
        reader.held[node.outputs[0]] = held
        return
    if node.domain not in dialect.STANDARD_DOMAINS:
        raise Unsaid("is no standard operator")
    if all(value is None or _is_known(value) for value in node.inputs):
        return
    before = None if first is None else reader.waiting.get(first)
    if node.op_type in MOVES and before is not None and len(node.outputs) == 1:
        # equal codes stay equal, and larger ones larger: the quantizer may come first
        reader.waiting[node.outputs[0]] = replace(before, moves=(*before.moves, node))
        return
    if node.op_type in MOVES:
        for value, held in zip(node.outputs, MOVES[node.op_type](reader, node), strict=True):
            reader.held[value] = held
        return
    _layer(reader, node)


def _is_known(value: Value) -> bool:
    """Return whether a value follows from constants alone."""
    if is_constant(value):
        return True
    node = producer(value)
    return node is not None and all(v is None or _is_known(v) for v in node.inputs)


def _layer(reader: GraphReader, node: Node) -> None:
    """Note a float layer, or join it with the one in front of it."""
    if node.op_type not in LAYERS:
        raise Unsaid("has no operator in TFLite here")
    before = reader.waiting.get(node.inputs[0]) if node.inputs[0] is not None else None
    out = node.outputs[0]
    if LAYERS[node.op_type] is LAYERS["Relu"]:
        kind = _activation(node)
        if (
            before is not None
            and not before.activation
            and not any(move.op_type == "Pad" for move in before.moves)
        ):
            reader.waiting[out] = replace(before, activation=kind)
            return
        reader.waiting[out] = Waiting(node, activation=kind)
        return
    if node.op_type == "Add" and (joined := _with_bias(reader, node)) is not None:
        reader.waiting[out] = joined
        return
    reader.waiting[out] = Waiting(node)


def _with_bias(reader: GraphReader, node: Node) -> Waiting | None:
    """Return a product with a constant added to it; ``None`` for other sums."""
    for value, other in (node.inputs, node.inputs[::-1]):
        before = None if value is None else reader.waiting.get(value)
        added = reader.floats(other)
        if before is None or added is None or before.activation or before.moves:
            continue
        if before.bias is not None:
            continue
        rank = len(reader.shape(before.node.outputs[0]))
        axis = 1 if operators.is_convolution(before.node) else rank - 1
        place = axis - rank + added.ndim
        if added.size > 1 and not (place >= 0 and added.shape[place] == added.size):
            continue
        if operators.of(before.node).product is not None:
            return replace(before, bias=added)
    return None


def _activation(node: Node) -> int:
    if node.op_type == "Relu":
        return 1
    ends = []
    for index in (1, 2):
        value = input_of(node, index)
        number = None if value is None else dialect.constant_value(value)
        if value is not None and number is None:
            raise Unsaid("clips to an end that is computed")
        ends.append(None if number is None else float(number.reshape(-1)[0]))
    found = _ENDS.get((ends[0], ends[1])) if ends[0] is not None else None
    if found is None:
        raise Unsaid(
            f"clips to {ends}, and TFLite to [0, 6], [-1, 1] or from 0 on",
            "let the quantizer behind it clip",
        )
    return found


def _linear_target(node: Node) -> CodeTarget:
    grid = _linear_grid(node)
    dtype = node.outputs[0].dtype
    type_ = _TYPES.get("" if dtype is None else dtype.name, "")
    if type_ not in CODE_TYPES or (type_ == "INT16" and grid.zero.any()):
        raise Unsaid(f"makes {dtype} with zero point {int(grid.zero[0])}")
    if type_ == "UINT8":
        return CodeTarget("INT8", CodeGrid(grid.scale, grid.zero - 128), -128, 127)
    return CodeTarget(type_, grid, *CODE_TYPES[type_])


def _quantizer(reader: GraphReader, node: Node, target: CodeTarget) -> None:
    """Write the layer in front of a quantizer, or a change of grid."""
    value, out = node.inputs[0], node.outputs[0]
    waiting = None if value is None else reader.waiting.get(value)
    if waiting is not None:
        try:
            held = LAYERS[waiting.node.op_type](reader, waiting, target)
            for move in waiting.moves:
                reader.held[_data_of(move)] = held
                held = MOVES[move.op_type](reader, move)[0]
            reader.held[out] = held
        except Unsaid as why:
            named = f"'{waiting.node.name}' ({waiting.node.op_type}) in front of it {why}"
            raise Unsaid(named, why.remedy) from why
        return
    found = reader.find(value)
    tensor = reader.net.requantized(found.tensor, target.type, target.grid)
    reader.held[out] = Held(
        reader.net.clamped(tensor, target.low, target.high), found.is_first
    )


def _data_of(node: Node) -> Value:
    first = node.inputs[0]
    if first is None:
        raise Unsaid("reads nothing")
    return first
