"""Which layers of a file onnxruntime runs in integers: asked of onnxruntime itself."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir
from onnx_ir import Model, Node, Value

from qonnx_hub.io.model_files import in_one_message
from qonnx_hub_adapters.dependencies import one_line, require
from qonnx_hub_ir import operators
from qonnx_hub_ir.errors import SourceError
from qonnx_hub_ir.graph.queries import input_of, producer, readers
from qonnx_hub_ir.passes import NameNodes

_COPY = re.compile(r"_token_\d+$")
"""What onnxruntime puts behind the name of a node that it lays out anew."""

_CODES = frozenset({"INT8", "UINT8", "INT16", "UINT16", "INT4", "UINT4", "INT2", "UINT2"})
"""Types of quantized data; wider integers are sizes and indices."""

_BYTES = frozenset({"INT8", "UINT8"})


@dataclass(frozen=True, slots=True)
class FusedLayer:
    """What onnxruntime makes of one node between QuantizeLinear and DequantizeLinear.

    Attributes:
        node: Its name; of the operator, where it has none.
        op: Its operator.
        runs_as: The operator on integers that onnxruntime runs; empty where it runs floats.
        reason: Why it stays in float, where that can be seen in the file.
    """

    node: str
    op: str
    runs_as: str
    reason: str = ""


def fused_layers(written: Model) -> tuple[FusedLayer, ...]:
    """Return what the installed onnxruntime, on this machine, runs in integers, in order.

    It optimizes the file with its default options and shows the graph; the nodes are found
    there by their names. What it merged into a neighbour (a Relu into a quantizer) is left
    out, and so is what depends on no input.

    Args:
        written: The file as it lies, without any pass.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
        SourceError: It does not load the file.
    """
    named = onnx_ir.from_proto(in_one_message(written))
    named.graph.sort()
    NameNodes()(named)
    optimized = _optimized(onnx_ir.to_proto(named))
    codes, found = _quantized_values(optimized), dict[str, Node]()
    for node in optimized.graph:
        found.setdefault(_COPY.sub("", str(node.name)), node)
    layers = []
    for node in named.graph:
        if operators.is_qdq(node) or not _depends_on_input(node):
            continue
        twin = found.get(str(node.name))
        if twin is None and not operators.is_product(node, any_layout=True):
            continue
        runs = "" if twin is None or not _is_integer(twin, codes) else twin.op_type
        reason = "" if runs else _why_float(node)
        layers.append(FusedLayer(str(node.name), node.op_type, runs, reason))
    return tuple(layers)


def _optimized(message: onnx.ModelProto) -> Model:
    ort = require("onnxruntime", needed_by="lint --fused", extra="ort")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimized.onnx"
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = str(path)
        try:
            ort.InferenceSession(
                message.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the binding raises its own exception types
            raise SourceError(
                f"onnxruntime does not load the file: {one_line(error)}"
            ) from error
        return onnx_ir.from_proto(onnx.load(path))


def _depends_on_input(node: Node) -> bool:
    """Return whether a node reads more than constants, through quantizers and the like."""
    pending, seen = [node], {node}
    while pending:
        for value in pending.pop().inputs:
            if value is None or value.is_initializer():
                continue
            before = value.producer()
            if before is None:
                return True
            if before not in seen:
                seen.add(before)
                pending.append(before)
    return False


def _quantized_values(model: Model) -> set[Value]:
    """Return the values of onnxruntime's graph that hold codes; it writes no types."""
    found = {
        value
        for value in (*model.graph.inputs, *model.graph.initializers.values())
        if _type_of(value) in _CODES
    }
    for node in model.graph:
        if _first_data(node) in found and _keeps_type(node):
            found.update(node.outputs)
        elif _makes_codes(node):
            found.add(node.outputs[0])
    return found


def _keeps_type(node: Node) -> bool:
    """Return whether an operator gives the type that its data has, and computes on codes."""
    chooses = operators.is_max_pool(node) or operators.clamps(node)
    return operators.moves_values(node) or chooses or node.op_type == "NhwcMaxPool"


def _makes_codes(node: Node) -> bool:
    quantizes = operators.is_qdq(node) and not operators.dequantizes(node)
    if node.op_type == "QGemm":  # its last input is the result's zero point, if it has one
        return input_of(node, 8) is not None
    return quantizes or node.op_type.startswith(("QLinear", "DynamicQuantizeLinear"))


def _type_of(value: Value) -> str:
    dtype = value.dtype if value.const_value is None else value.const_value.dtype
    return "" if dtype is None else dtype.name


def _first_data(node: Node) -> Value | None:
    return next((value for value in node.inputs if value is not None), None)


def _is_integer(node: Node, codes: set[Value]) -> bool:
    """Return whether a node of onnxruntime's graph computes on codes."""
    own = node.op_type.startswith(("QLinear", "QGemm", "DynamicQuantizeMatMul"))
    integer = operators.is_integer_product(node) or node.op_type == "MatMulIntegerToFloat"
    return own or integer or (_first_data(node) in codes and _keeps_type(node))


def _why_float(node: Node) -> str:
    """Return what in the file keeps a layer in float; empty where nothing shows."""
    product = operators.is_product(node, any_layout=True)
    labels = ("input", "weight") if product else ("input",)
    for label, value in zip(labels, node.inputs, strict=False):
        before = producer(value)
        if before is None or not operators.dequantizes(before):
            return f"its {label} is not quantized"
        kind = _type_of_codes(before)
        if kind and kind not in _BYTES:
            return f"its {label} has the type {kind}"
    after, between = readers(node.outputs[0]), ""
    if len(after) == 1 and operators.clamps(after[0]):
        between, after = after[0].op_type, readers(after[0].outputs[0])
    if not after or not all(operators.is_qdq(one) for one in after):
        return "its result is not quantized"
    if between:
        return f"the {between} between it and its quantizer is not taken into it"
    return "onnxruntime has no integer form of it here"


def _type_of_codes(node: Node) -> str:
    codes = node.inputs[0]
    if codes is not None and _type_of(codes):
        return _type_of(codes)
    zero = input_of(node, 2)
    return "" if zero is None else _type_of(zero)
