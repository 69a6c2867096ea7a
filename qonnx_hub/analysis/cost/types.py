"""Datatypes of all tensors, as each convention of counting sees them.

* ``true``: what the values need. Quantizers declare their type, and stored integers have one;
  through operators that compute, the exact range of the integers decides.
* ``qonnx``: what the qonnx tool infers (``qonnx.transformation.infer_datatypes`` of version
  1.0 with scaled integers, and the types its operators report): sums are INT32, what follows
  a BatchNormalization or a Trunc is FLOAT32.
* ``paper``: the same, but activations with a scale other than 1 are FLOAT32, while weights
  have the bits of their quantizers: so the published table of the QONNX model zoo was made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from onnx_ir import Node, Value

from qonnx_hub.analysis.codes import coded_values, stored_type
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.analysis import IntegerType, ValueInfo
from qonnx_hub_ir.annotations import DATATYPE, annotations_of
from qonnx_hub_ir.datatypes import parse_datatype
from qonnx_hub_ir.errors import UsageError
from qonnx_hub_ir.graph.queries import attribute
from qonnx_hub_ir.quantizers import (
    Array,
    FloatQuant,
    IntQuant,
    is_bipolar,
    is_whole,
    single_value,
)


@dataclass(frozen=True, slots=True)
class Datatype:
    """A datatype with a name and a width.

    Attributes:
        name: As the QONNX tools write it, such as "INT4", "SCALEDINT<8>", "FLOAT32".
        bits: Its width.
    """

    name: str
    bits: int

    def __str__(self) -> str:
        """Return the name."""
        return self.name


FLOAT32 = Datatype("FLOAT32", 32)

_TOOL = operators.read_lists(
    """
    moves: Clip Concat Expand Flatten Gather GatherElements GatherND GlobalMaxPool Identity
        MaxPool Pad Reshape ScatterElements ScatterND Slice Squeeze Tile Transpose Unsqueeze
    sums: Add Conv Gemm MatMul Mul Sub
    counted: Conv Gemm MatMul Upsample
    free: Add AveragePool BatchNormalization Clip Concat DequantizeLinear Div Elu Flatten
        Identity MaxPool Mul Pad Quant QuantizeLinear Relu Reshape Selu Sigmoid Sub Transpose
        Trunc
    """
)
"""What the qonnx tool takes for movements and sums; what it counts, and takes for free; it
lists the rest. Its table, not that of operators."""


def counted_by_tool(node: Node) -> bool:
    """Return whether the qonnx tool knows what a node costs, be it nothing."""
    return node.op_type in _TOOL["counted"] | _TOOL["free"]


def of_integer(found: IntegerType) -> Datatype:
    """Return an integer type as a datatype; a single unsigned bit is BINARY."""
    if found == IntegerType(1, signed=False):
        return Datatype("BINARY", 1)
    return Datatype(str(found), found.bits)


def needed_types(order: list[Node], infos: Mapping[Value, ValueInfo]) -> dict[Value, Datatype]:
    """Return what the values of each tensor need.

    Args:
        order: All nodes, in order.
        infos: What is known about each value.
    """
    types: dict[Value, Datatype] = {}
    for value, info in infos.items():
        types[value], kind = FLOAT32, value.dtype
        if (stored := stored_type(value)) is not None:
            types[value] = of_integer(stored)
        elif info.datatype is not None:
            types[value] = of_integer(info.datatype)
        elif kind is not None and kind.is_floating_point() and kind.bitwidth != 32:
            types[value] = Datatype(f"FLOAT{int(kind.bitwidth)}", int(kind.bitwidth))
    for value, coded in coded_values(order).items():
        # Levels may fit fewer bits than the codes: what values need is the lower of both.
        if types.get(value, FLOAT32).bits > coded.type.bits:
            types[value] = of_integer(coded.type)
    minifloats: dict[Value, Datatype] = {}
    for node in order:
        source = node.inputs[0] if node.inputs else None
        quant = dialect.read_quantizer(node) if dialect.is_quantizer(node) else None
        if isinstance(quant, FloatQuant):
            widths = single_value(quant.exponent_bits), single_value(quant.mantissa_bits)
            minifloats[node.outputs[0]] = FLOAT32
            if widths[0] is not None and widths[1] is not None:
                exponent, mantissa = int(widths[0]), int(widths[1])
                name = f"FLOAT<{exponent},{mantissa}>"
                minifloats[node.outputs[0]] = Datatype(name, 1 + exponent + mantissa)
        elif operators.keeps_grid(node) and source in minifloats:
            datatype, flowing = minifloats[source], operators.data_inputs(node)
            if all(minifloats.get(v) == datatype for k in flowing if (v := node.inputs[k])):
                minifloats[node.outputs[0]] = datatype
    return {**types, **minifloats}


def tool_types(
    order: list[Node], initializers: Mapping[Value, Array], given: Mapping[Value, Datatype]
) -> dict[Value, Datatype]:
    """Return what the qonnx tool infers.

    Args:
        order: All nodes, in order.
        initializers: Constants of the graph.
        given: Types of the inputs; FLOAT32 where nothing is given or annotated.
    """
    types = dict(given)
    for node in order:
        result = tool_type(node, types, initializers)
        for value in node.outputs:
            types[value] = result
    return types


def tool_type(
    node: Node, types: Mapping[Value, Datatype], initializers: Mapping[Value, Array]
) -> Datatype:
    """Return what the qonnx tool infers of what a node makes.

    Args:
        node: The node.
        types: What is inferred of its inputs; the others have the types that are annotated.
        initializers: Constants of the graph.
    """
    known = [types.get(v) or annotated(v) for v in node.inputs if v is not None]
    return _tool_type(node, known, initializers)


def annotated(value: Value) -> Datatype:
    """Return the type that the file annotates, FLOAT32 without one."""
    name = annotations_of(value).get(DATATYPE)
    return FLOAT32 if name is None else named(name)


def named(name: str) -> Datatype:
    """Return the datatype of that name; FLOAT32 for one that is not known."""
    try:
        found = parse_datatype(name, "the file's annotation")
    except UsageError:
        return FLOAT32
    return Datatype(found.name, found.bits)


def _tool_type(
    node: Node, known: list[Datatype], constants: Mapping[Value, Array]
) -> Datatype:
    if node.domain == dialect.DOMAIN:
        rule = _OPERATORS.get(node.op_type)
        return FLOAT32 if rule is None else rule(node, constants)
    if node.op_type == "Sign":
        return Datatype("BIPOLAR", 1)
    if node.op_type in _TOOL["sums"]:
        names = [datatype.name for datatype in known]
        if any("FLOAT" in name for name in names):
            return FLOAT32
        if any(name.startswith("SCALEDINT") for name in names):
            return Datatype("SCALEDINT<32>", 32)
        signed = node.op_type == "Sub" or any(not name.startswith("UINT") for name in names)
        return Datatype("INT32" if signed else "UINT32", 32)
    is_nearest = operators.resizes(node) and attribute(node, "mode", "nearest") == "nearest"
    if node.op_type in _TOOL["moves"] or is_nearest:
        return known[0] if known else FLOAT32
    if node.op_type == "QuantizeLinear":
        return _element_type(node.outputs[0], "INT")
    if node.op_type == "DequantizeLinear":
        return _element_type(node.inputs[0], "SCALEDINT")
    return FLOAT32


def _element_type(value: Value | None, prefix: str) -> Datatype:
    kind = None if value is None else value.dtype
    if kind is None or not kind.is_integer():
        return FLOAT32
    width = int(kind.bitwidth)
    if prefix == "SCALEDINT":
        return Datatype(f"SCALEDINT<{width}>", width)
    return Datatype(f"{'INT' if kind.is_signed() else 'UINT'}{width}", width)


def _parameters(node: Node, constants: Mapping[Value, Array]) -> list[Array] | None:
    """Return the quantizer's parameters, ``None`` unless all are constants."""
    found = [None if v is None else constants.get(v) for v in node.inputs[1:]]
    known = [array for array in found if array is not None]
    return known if len(known) == len(found) else None


def _quant_type(node: Node, constants: Mapping[Value, Array]) -> Datatype:
    known = _parameters(node, constants)
    if known is None or known[2].ndim != 0 or np.any(known[1] != 0):
        return FLOAT32
    bits = int(known[2])
    if bits != known[2]:
        return FLOAT32
    if np.any(known[0] != 1):
        return Datatype(f"SCALEDINT<{bits}>", bits)
    quant = dialect.read_quantizer(node)
    assert isinstance(quant, IntQuant), "the operator says so"
    if bits == 1:
        return Datatype("BIPOLAR" if is_bipolar(quant) else "BINARY", 1)
    return Datatype(f"{'INT' if quant.signed else 'UINT'}{bits}", bits)


def _bipolar_type(node: Node, constants: Mapping[Value, Array]) -> Datatype:
    known = _parameters(node, constants)
    is_unit = known is not None and bool(np.all(known[0] == 1))
    return Datatype("BIPOLAR", 1) if is_unit else FLOAT32


def _minifloat_type(node: Node, constants: Mapping[Value, Array]) -> Datatype:
    known = _parameters(node, constants)
    if known is None or np.any(known[0] != 1) or any(p.ndim for p in known[1:]):
        return FLOAT32
    exponent, mantissa, bias = (float(p) for p in known[1:4])
    if not is_whole([exponent, mantissa, bias]):
        return FLOAT32
    name = f"FLOAT<{int(exponent)},{int(mantissa)},{int(bias)}>"
    return Datatype(name, 1 + int(exponent) + int(mantissa))


def _threshold_type(node: Node, constants: Mapping[Value, Array]) -> Datatype:
    declared = attribute(node, "out_dtype", None)
    scale, bias = attribute(node, "out_scale", 1.0), attribute(node, "out_bias", 0.0)
    return (
        named(str(declared)) if declared is not None and is_whole([scale, bias]) else FLOAT32
    )


_OPERATORS: Mapping[str, Callable[[Node, Mapping[Value, Array]], Datatype]] = {
    "BipolarQuant": _bipolar_type,
    "FloatQuant": _minifloat_type,
    "MultiThreshold": _threshold_type,
    "Quant": _quant_type,
}


def unscaled(datatype: Datatype) -> Datatype:
    """Return the type that the published table counts for an activation."""
    return FLOAT32 if datatype.name.startswith("SCALEDINT") else datatype
