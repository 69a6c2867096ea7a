"""Integers that are moved, clipped or cast, as those of the values that they stand for.

``q = QuantizeLinear(x, s, z)`` equals ``QuantizeLinear(DequantizeLinear(q, s, z), s, z)`` for
every x, NaN included: the division gives the level back but for its last bits, and rounding
takes these away. So whatever reads q may read the right side, and what moves q, or takes the
largest of a window, may move the values: then both models are compared on values, which the
other model has, and not on integers, which it has not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir
from onnx_ir import Model, Node, TensorType, Value

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.queries import is_standard, producer
from qonnx_hub_ir.graph.rewriting import replace_node

_SCALES = 2.0**-100, 2.0**100
"""Between these, no level of 32 bits overflows or loses bits, and nor does its quotient."""

Parameters = tuple[Value, Value]


def with_values_of_codes(model: Model) -> Model:
    """Return a model in which what reads quantized integers reads those of their values.

    Args:
        model: A model with all types and shapes; it is not changed.

    Returns:
        The model itself where there is nothing to do.
    """
    if not any(_reads_codes(node) for node in model.graph):
        return model
    copy = model.clone()
    for node in list(copy.graph):
        if _reads_codes(node):
            _rewrite(node)
    return copy


def _reads_codes(node: Node) -> bool:
    takes = is_standard(node, "Cast") or operators.clamps(node) or _picks(node)
    return takes and any(_grid(node.inputs[index]) for index in operators.data_inputs(node))


def _picks(node: Node) -> bool:
    """Return whether each element of the output is one of the data, or the largest of some."""
    return len(node.outputs) == 1 and (
        operators.moves_values(node) or operators.is_max_pool(node)
    )


def _grid(value: Value | None) -> Parameters | None:
    """Return scale and zero point of integers that a QuantizeLinear made."""
    node = producer(value)
    if node is None or not is_standard(node, "QuantizeLinear") or len(node.inputs) != 3:
        return None
    scale, zero = node.inputs[1], node.inputs[2]
    step, offset = dialect.constant_value(scale), dialect.constant_value(zero)
    if scale is None or zero is None or step is None or offset is None:
        return None
    is_one = step.ndim == 0 and offset.ndim == 0 and offset.dtype.kind in "iu"
    fits = step.dtype == np.float32 and offset.dtype.itemsize <= 2
    return (scale, zero) if is_one and fits and _SCALES[0] < step < _SCALES[1] else None


def _rewrite(node: Node) -> None:
    emit, places = Emitter(node), operators.data_inputs(node)
    known = {index: _grid(node.inputs[index]) for index in places}
    given = [grid for grid in known.values() if grid is not None]
    if _picks(node) and len(given) == len(known) and _are_alike(given):
        for index in places:
            node.replace_input_with(index, _values(emit, node.inputs[index], given[0]))
        result = node.outputs[0]
        moved = emit.insert(onnx_ir.node(node.op_type, node.inputs, node.attributes))
        _named(moved, f"values of {result.name}").shape = result.shape
        moved.type = TensorType(onnx_ir.DataType.FLOAT)
        made = emit.add("QuantizeLinear", [moved, *given[0]], result)
        replace_node(node, _named(made, f"codes of {moved.name}"))
        return
    for index, grid in known.items():
        if grid is not None:
            again = _values(emit, node.inputs[index], grid)
            codes = node.inputs[index]
            made = emit.add("QuantizeLinear", [again, *grid], codes)
            name = f"codes of {again.name}"
            node.replace_input_with(index, _named(made, name))


def _are_alike(grids: Sequence[Parameters]) -> bool:
    read = [[dialect.constant_value(value) for value in grid] for grid in grids]
    return all(
        one is not None and other is not None and one.dtype == other.dtype and one == other
        for grid in read
        for one, other in zip(grid, read[0], strict=True)
    )


def _values(emit: Emitter, codes: Value | None, grid: Parameters) -> Value:
    assert codes is not None, "it was read before"
    values = emit.add("DequantizeLinear", [codes, *grid])
    values.type, values.shape = TensorType(onnx_ir.DataType.FLOAT), codes.shape
    return _named(values, f"values of {codes.name} in {emit.node.name}")


def _named(value: Value, name: str) -> Value:
    """Give a value a name that no value of a file has, with its maker."""
    node = value.producer()
    assert node is not None, "a node was just made"
    value.name = node.name = name
    return value
