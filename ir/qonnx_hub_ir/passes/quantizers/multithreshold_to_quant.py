"""Counted thresholds become the quantizers that they are."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir
from onnx_ir import Model, Node, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.constants import full_rank
from qonnx_hub_ir.graph.names import node_names
from qonnx_hub_ir.graph.queries import attribute, dims, fits_into, is_standard, only_reader
from qonnx_hub_ir.graph.rewriting import rewrite_nodes
from qonnx_hub_ir.quantizers import Array, BipolarQuant, IntQuant, Rounding, is_whole
from qonnx_hub_ir.thresholds import channel_axis, find_thresholds

_MODES = (Rounding.ROUND, *(mode for mode in Rounding if mode is not Rounding.ROUND))


@dataclass(frozen=True)
class MultithresholdToQuant(InPlacePass):
    """Replace a MultiThreshold by the quantizer that has the very same thresholds.

    Before -> after::

        y = Mul(Sub(MultiThreshold(x, thresholds), z), s)
        y = Quant(x, s, z, b)

    Sub and Mul may be missing. The bit width follows from the number of thresholds, sign and
    narrowness from ``out_bias``; the rounding mode is the one whose thresholds, found by
    bisection, are those of the node in every channel. A single threshold of 0 with the levels
    -1 and +1 is a BipolarQuant.

    Does not fire where no quantizer has these thresholds (those that other tools compute lie
    beside the ties), where the levels are not whole numbers, where a value in between is read
    by others, nor on thresholds that are computed.
    """

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        names = node_names(model.graph)

        def replace(node: Node) -> bool:
            return dialect.is_thresholds(node) and _replace(node, names)

        return PassResult(model, modified=rewrite_nodes(model.graph, replace))


@dataclass(frozen=True, slots=True)
class _Levels:
    """What stands behind a MultiThreshold.

    Attributes:
        low: Lowest code.
        width: Distance of neighbouring codes.
        zero: Zero point, of any shape that broadcasts.
        scale: Scale, likewise.
        nodes: The nodes that apply them, in order.
    """

    low: int
    width: int
    zero: Array
    scale: Array
    nodes: tuple[Node, ...]


def _replace(node: Node, names: set[str]) -> bool:
    x, table = node.inputs[0], dialect.constant_value(node.inputs[1])
    shape = dims(x)
    if table is None or shape is None or x is None:
        return False
    if x.dtype != onnx_ir.DataType.FLOAT or table.dtype != np.float32 or len(shape) < 2:
        return False
    axis = channel_axis(str(attribute(node, "data_layout", "")), len(shape))
    for levels in _readings(node):
        quant = _matching(np.sort(table, axis=1), levels, axis, len(shape))
        if quant is not None:
            chain, name = (node, *levels.nodes), str(node.name)
            plain = name.removesuffix(f"_{dialect.THRESHOLDS}")
            if plain and plain not in names:
                names.add(plain)
                name = plain
            emit = Emitter(chain[-1])
            emit.replace_with(emit.quantizer(x, quant, name=name))
            for used in reversed(chain[:-1]):
                emit.graph.remove(used, safe=True)
            return True
    return False


def _readings(node: Node) -> Iterator[_Levels]:
    """Yield codes and what is done to them, with as many of the nodes behind as possible."""
    width = float(attribute(node, "out_scale", 1.0))
    low = float(attribute(node, "out_bias", 0.0))
    if width not in (1.0, 2.0) or low != np.rint(low) or abs(low) > 1 << 24:
        return
    none, one = np.zeros((), dtype=np.float32), np.ones((), dtype=np.float32)
    zero, nodes = none, []
    found = _constant_behind(node.outputs[0], "Sub")
    if found is not None:
        zero, after = found
        nodes.append(after)
    found = _constant_behind((node, *nodes)[-1].outputs[0], "Mul")
    if found is not None and bool(np.all(found[0] > 0)):
        yield _Levels(int(low), int(width), zero, found[0], (*nodes, found[1]))
    if nodes:
        yield _Levels(int(low), int(width), zero, one, tuple(nodes))
    yield _Levels(int(low), int(width), none, one, ())


def _constant_behind(value: Value, op_type: str) -> tuple[Array, Node] | None:
    """Return the constant and the node, where one such node alone reads the value."""
    if not only_reader(value):
        return None
    ((node, index),) = value.uses()
    if not is_standard(node, op_type) or (op_type == "Sub" and index != 0):
        return None
    known = dialect.constant_value(node.inputs[1 - index])
    if known is None or known.dtype != np.float32 or not np.all(np.isfinite(known)):
        return None
    if known.size > 1 and not fits_into(known.shape, dims(value)):
        return None
    return known, node


def _matching(
    table: Array, levels: _Levels, axis: int, rank: int
) -> IntQuant | BipolarQuant | None:
    """Return the quantizer whose thresholds are those of the table, in every channel."""
    scale, zero = (_column(values, axis, rank) for values in (levels.scale, levels.zero))
    if scale is None or zero is None:
        return None
    steps = table.shape[1]
    if levels.width == 2 and (levels.low, steps) != (-1, 1):
        return None
    if levels.width == 2 and not np.any(table) and not np.any(levels.zero):
        return BipolarQuant(levels.scale)
    # QONNX adds the zero point before rounding, QuantizeLinear after it: others' thresholds.
    orders = (False, True) if np.any(zero) and is_whole(zero) else (False,)
    tries = itertools.product(_ranges(levels, steps), _MODES, orders)
    for (bits, signed, narrow), mode, order in tries:
        width = np.asarray(bits, dtype=np.float32)
        tried = IntQuant(scale, zero, width, signed, narrow, mode, order)
        found = find_thresholds(tried, levels.low, steps)
        if len(found) in (1, len(table)) and np.array_equal(
            np.broadcast_to(found, table.shape), table
        ):
            return dataclasses.replace(tried, scale=levels.scale, zero_point=levels.zero)
    return None


def _column(values: Array, axis: int, rank: int) -> Array | None:
    """Return a parameter as (channels, 1) or (); ``None`` if it differs along other axes."""
    if values.size == 1:
        return values.reshape(())
    return (
        values.reshape(-1, 1) if full_rank(values, rank).shape[axis] == values.size else None
    )


def _ranges(levels: _Levels, steps: int) -> Iterator[tuple[int, bool, bool]]:
    """Yield bits, sign and narrowness of integer ranges with these codes."""
    if levels.width == 2:
        yield 1, True, False
        return
    for narrow in (False, True):
        codes = steps + 1 + int(narrow)
        bits = codes.bit_length() - 1
        if codes != 1 << bits or bits > 16:
            continue
        if levels.low == 0:
            yield bits, False, narrow
        elif levels.low == -(1 << (bits - 1)) + int(narrow) and bits > 1:
            yield bits, True, narrow
