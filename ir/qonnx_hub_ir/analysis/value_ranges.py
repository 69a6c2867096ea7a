"""Ranges and grids of every tensor of a model, in one walk over its nodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import onnx_ir
from onnx_ir import Model, Node, Value

from qonnx_hub_ir import dialect
from qonnx_hub_ir.analysis import (
    data_movement,
    dense_layers,
    functions,
    pointwise,
    pooling,
    quantizer_ranges,
)
from qonnx_hub_ir.analysis.grids import ZERO, Grid, IntegerType, digits_of, largest_of
from qonnx_hub_ir.analysis.rule_context import (
    NodeInfo,
    Rule,
    numpy_type,
    rounded_outward,
    shape_of,
)
from qonnx_hub_ir.analysis.value_info import (
    Constant,
    ValueInfo,
    between,
    of_constant,
    of_integers,
    of_type,
    on_grid,
    settled,
    unbounded,
)
from qonnx_hub_ir.datatypes import WIDEST, parse_datatype
from qonnx_hub_ir.errors import UsageError
from qonnx_hub_ir.passes.layout.lower_channels_last import LowerChannelsLast
from qonnx_hub_ir.passes.shapes.infer_shapes import InferShapes

InputRange: TypeAlias = "tuple[float, float] | str | IntegerType | ValueInfo"
"""What is said about an input: its ends, or its type, such as "UINT8" or "FLOAT32"."""

STANDARD_RULES: Mapping[str, Rule] = {
    **pointwise.RULES,
    **functions.RULES,
    **data_movement.RULES,
    **pooling.RULES,
    **dense_layers.RULES,
    **quantizer_ranges.RULES,
}
"""Rules of the standard operators. What has none can be anything within its bounds."""


def infer_values(
    model: Model, inputs: Mapping[str, InputRange] | None = None
) -> dict[str, ValueInfo]:
    """Return what is known about every tensor: range, grid, integers, constants.

    Ranges are sound: no value of the model, on any runtime that rounds each operation to its
    type, lies outside, as long as none is NaN. Operators without a rule give anything.

    Args:
        model: An IR model; it is not changed. Values without a known type or shape are
            inferred first, on a copy.
        inputs: Input name -> its ends, or its type. Inputs that are not named are unbounded.

    Returns:
        Name -> info, of the inputs, initializers and all values that nodes make.

    Raises:
        UsageError: A name that is no input, or a range or type that is none.
    """
    return {str(value.name): info for value, _, info in walk(model, inputs) if value.name}


def infer_constants(model: Model) -> dict[str, Constant]:
    """Return the values that do not depend on any input, with the integers behind them.

    These are initializers, what quantizers make of them, and where moves put that.

    Args:
        model: As in :func:`infer_values`.
    """
    known = {v: i for v, i in _given(model, {}).items() if i.constant is not None}
    for node in model.graph:
        if all(value is None or value in known for value in node.inputs):
            made = zip(node.outputs, outputs_of(site_of(node, known)), strict=True)
            known.update((v, i) for v, i in made if i.constant is not None)
    return {str(v.name): i.constant for v, i in known.items() if i.constant is not None}


def walk(
    model: Model, inputs: Mapping[str, InputRange] | None = None
) -> Iterator[tuple[Value, NodeInfo | None, ValueInfo]]:
    """Return every value with the node that makes it and what is known, in order.

    Args:
        model: As in :func:`infer_values`.
        inputs: Likewise.
    """
    model = prepared(model)
    known = _given(model, inputs or {})
    for value, info in known.items():
        yield value, None, info
    for node in model.graph:
        site = site_of(node, known)
        for value, info in zip(node.outputs, outputs_of(site), strict=True):
            known[value] = info
            yield value, site, info


def prepared(model: Model) -> Model:
    """Return the model in standard operators with all shapes; a copy if that changes it."""
    has_last = any(n.domain == dialect.CHANNELS_LAST_DOMAIN for n in model.graph.all_nodes())
    made = (value for node in model.graph for value in node.outputs)
    if not has_last and all(v.shape is not None and v.dtype is not None for v in made):
        return model
    copy = model.clone()
    LowerChannelsLast()(copy)
    InferShapes()(copy)
    return copy


def _given(model: Model, inputs: Mapping[str, InputRange]) -> dict[Value, ValueInfo]:
    names = [str(v.name) for v in model.graph.inputs]
    for name in inputs:
        if name not in names:
            raise UsageError(
                f"'{name}' is no input of the model; there are: {', '.join(names)}"
            )
    known: dict[Value, ValueInfo] = {}
    for value in model.graph.inputs:
        name = str(value.name)
        given = inputs.get(name)
        info = of_elements(value) if given is None else _input_info(name, given, value)
        known[value] = settled(info, shape_of(value))
    for value in model.graph.initializers.values():
        if not value.is_graph_input():
            known[value] = _initializer(value)
    return known


def _initializer(value: Value) -> ValueInfo:
    array = dialect.constant_value(value)
    if array is None:
        return of_elements(value)
    if array.dtype.kind in "iufb" and array.dtype.names is None:
        return of_constant(Constant(np.asarray(array)))
    # numpy alone does not have the type: int4 and its like.
    is_integer = value.dtype is not None and value.dtype.is_integer()
    return of_constant(Constant(array.astype(np.int64))) if is_integer else unbounded()


def of_elements(value: Value) -> ValueInfo:
    """Return what follows from the type of a value's elements alone."""
    kind = value.dtype
    if kind is None:
        return unbounded()
    if kind == onnx_ir.DataType.BOOL:
        return of_integers(0, 1)
    if not kind.is_integer() or kind.bitwidth > WIDEST:
        return unbounded()
    return of_type(IntegerType(int(kind.bitwidth), signed=kind.is_signed()))


def parse_type(text: str, where: str) -> IntegerType | None:
    """Return the integer type of that name, ``None`` for what is no integer.

    Args:
        text: Such as "INT8", "UINT4", "BIPOLAR", "BINARY", "TERNARY", "FLOAT32".
        where: What is said to have it, for the message.

    Raises:
        UsageError: No such type, or one of more than 53 bits.
    """
    found = parse_datatype(text, where)
    if not found.is_integer:
        return None
    if found.bits > WIDEST:
        raise UsageError(f"{where}: '{text}' has more than {WIDEST} bits")
    return IntegerType(found.bits, signed=found.signed, bipolar=found.name == "BIPOLAR")


def _input_info(name: str, given: InputRange, value: Value) -> ValueInfo:
    if isinstance(given, ValueInfo):
        return given
    if isinstance(given, IntegerType):
        return of_type(given)
    if isinstance(given, str):
        return _of_name(given, f"input '{name}'")
    low, high = (float(end) for end in given)
    if not low <= high:
        raise UsageError(f"input '{name}': {low:g} to {high:g} is no range")
    found, dtype = between(low, high), numpy_type(value)
    if dtype is not None and dtype.kind == "f":
        # What is fed is rounded to the input's type.
        return between(*rounded_outward(found.low, found.high, dtype))
    return found


def _of_name(text: str, where: str) -> ValueInfo:
    found, kind = parse_datatype(text, where), parse_type(text, where)
    if found.low is None or found.high is None:
        return unbounded()
    if found.name == "TERNARY":
        return of_integers(-1, 1, IntegerType(2, signed=True))
    if kind is not None:
        return of_type(kind)
    if found.step is None or found.bits > WIDEST:
        return between(found.low, found.high)
    step = np.array(found.step, dtype=np.float64)
    codes = np.array([found.low, found.high], dtype=np.float64) / step
    low, high = codes.astype(np.int64)
    return on_grid(Grid(step, ZERO, np.asarray(low), np.asarray(high), exact=True))


def site_of(node: Node, known: Mapping[Value, ValueInfo]) -> NodeInfo:
    """Return a node with what is known about its inputs."""
    infos = tuple(
        None if value is None else known.get(value) or of_elements(value)
        for value in node.inputs
    )
    out = node.outputs[0]
    shapes = tuple(shape_of(value) for value in node.inputs)
    return NodeInfo(node, infos, shapes, shape_of(out), numpy_type(out))


def outputs_of(site: NodeInfo) -> list[ValueInfo]:
    """Return what is known about each output of a node."""
    node, rule = site.node, None
    if node.domain == dialect.DOMAIN:
        rule = quantizer_ranges.CUSTOM_RULES.get(node.op_type)
    elif node.domain in dialect.STANDARD_DOMAINS:
        rule = STANDARD_RULES.get(node.op_type, functions.bounded)
    # Infinite ends are what unbounded inputs have; what becomes of them is looked at.
    with np.errstate(all="ignore"):
        found = rule(site) if rule is not None and site.has(0) else None
    infos = [] if found is None else [found] if isinstance(found, ValueInfo) else list(found)
    infos += [unbounded()] * (len(node.outputs) - len(infos))
    return [_of_output(info, value) for info, value in zip(infos, node.outputs, strict=True)]


def _of_output(info: ValueInfo, value: Value) -> ValueInfo:
    """Return the info in its settled form, within the range of the value's type."""
    info, dtype = settled(info, shape_of(value)), numpy_type(value)
    if dtype is not None and digits_of(dtype):
        # Beyond its largest number the type may overflow.
        largest = largest_of(dtype)
        low = np.where(info.low < -largest, -np.inf, info.low)
        high = np.where(info.high > largest, np.inf, info.high)
        return replace(info, low=low, high=high)
    by_type = of_elements(value)
    if by_type.grid is None or info.grid is not None:
        return info
    low, high = np.maximum(info.low, by_type.low), np.minimum(info.high, by_type.high)
    return replace(info, low=low, high=high, grid=by_type.grid)
