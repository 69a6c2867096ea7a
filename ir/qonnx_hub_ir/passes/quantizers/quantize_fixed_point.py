"""Float models get fixed-point weights and results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx_ir
from onnx_ir import Graph, Model, Node, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.annotations import carry
from qonnx_hub_ir.effects import Effect
from qonnx_hub_ir.errors import HubError, PassError
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.queries import is_standard, readers
from qonnx_hub_ir.graph.rewriting import rewrite_nodes
from qonnx_hub_ir.graph.unused import import_used
from qonnx_hub_ir.quantizers import IntQuant, Rounding

_MOST_BITS = 24
"""Widest numbers whose every value is a float32."""

_PARTS = ("weight", "bias", "result")

Format = tuple[int, ...]
"""(W, I): all bits, and those before the point, the sign among them."""


@dataclass(frozen=True)
class QuantizeFixedPoint(InPlacePass):
    """Quantize weights, inputs and results of a float model to fixed<W, I>.

    Before -> after::

        y = Conv(x, w, b)
        y = Quant(Conv(Quant(x), Quant(w), Quant(b)))

    Numbers are signed, of W bits with I before the point (the sign among them): steps of
    2^(I - W) from -2^(I - 1) to 2^(I - 1) - 2^(I - W), where values beyond saturate. Every
    operator that makes new values gets a quantizer behind it; those that only choose or move
    values (Relu, MaxPool, Reshape ...) stay on the grid. Constant operands of Conv,
    ConvTranspose, Gemm, MatMul, Add, Sub, Mul, Div and PRelu are weights. The statistics of
    BatchNormalization stay floats: fold it first. New nodes are called after the node and its
    part: ``Conv_0_weight_quant``, ``Conv_0_bias_quant``, ``Conv_0_result_quant``.

    Does not fire on what a quantizer makes or reads already, on other types than float32, nor
    inside of subgraphs.

    Attributes:
        bits: W of everything that ``layers`` does not name.
        integer_bits: I of everything that ``layers`` does not name.
        layers: Node or input -> (W, I); "node:weight", "node:bias" and "node:result" are more
            precise than "node".
        skip: Nodes and inputs that are left as they are.
        rounding: Rounding mode of all quantizers.

    Raises:
        PassError: A format or rounding mode that there is not, or a name without a node.
    """

    bits: int = 16
    integer_bits: int = 6
    layers: Mapping[str, Format] = field(default_factory=dict)
    skip: tuple[str, ...] = ()
    rounding: str = "ROUND"
    effect = Effect.VALUES

    def requires(self, model: Model) -> None:
        """Refuse formats that are none, and names without a node."""
        names = {str(node.name) for node in model.graph}
        names.update(str(value.name) for value in model.graph.inputs)
        parts = {f"{name}:{part}": name for name in names for part in _PARTS}
        asked = [*(parts.get(name, name) for name in self.layers), *self.skip]
        missing = [name for name in asked if name not in names]
        if missing:
            raise PassError(f"no node or input is called {', '.join(missing)}")
        for where, given in {"all others": self._default, **self.layers}.items():
            if len(given) != 2 or not 1 <= given[0] <= _MOST_BITS or abs(given[1]) > 64:
                raise PassError(
                    f"the format of {where} is {tuple(given)}; it must be W, I with W from 1 "
                    f"to {_MOST_BITS}, which float32 holds exactly"
                )
        try:
            dialect.parse_rounding(self.rounding, "fixed point")
        except HubError as error:
            raise PassError(str(error)) from error

    @property
    def _default(self) -> Format:
        return (self.bits, self.integer_bits)

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        graph = model.graph
        modified = rewrite_nodes(graph, self._quantize_node, bodies=False)
        for value in graph.inputs if len(graph) else ():
            if value.name not in self.skip:
                name = str(value.name)
                modified |= self._quantize_value(graph, value, name, f"{name}_quant")
        if modified:
            import_used(model)
        return PassResult(model, modified=modified)

    def _quantize_node(self, node: Node) -> bool:
        computes = any(
            v is not None and dialect.constant_tensor(v) is None for v in node.inputs
        )
        if node.domain != "" or node.name in self.skip or not computes:
            return False
        modified = self._quantize_operands(node)
        if not _stays_on_grid(node):
            graph, name = Emitter(node).graph, str(node.name)
            result = node.outputs[0]
            modified |= self._quantize_value(graph, result, name, f"{name}_result_quant")
        return modified

    def _quantizer(self, name: str, part: str) -> IntQuant:
        given = self.layers.get(f"{name}:{part}", self.layers.get(name, self._default))
        return fixed_point(given[0], given[1], Rounding(self.rounding.upper()))

    def _quantize_operands(self, node: Node) -> bool:
        if not (
            operators.is_product(node)
            or operators.is_affine(node)
            or is_standard(node, "PRelu")
        ):
            return False
        emit, modified = Emitter(node), False
        for index, value in enumerate(node.inputs):
            if value is None or dialect.constant_tensor(value) is None:
                continue
            if value.dtype != onnx_ir.DataType.FLOAT:
                continue
            part = "bias" if index == 2 else "weight"
            quant = self._quantizer(str(node.name), part)
            fresh = emit.quantizer(value, quant, name=f"{node.name}_{part}_quant")
            fresh.metadata_props.update(value.metadata_props)
            carry(value, fresh)
            node.replace_input_with(index, fresh)
            modified = True
        return modified

    def _quantize_value(self, graph: Graph, value: Value, owner: str, name: str) -> bool:
        is_read = value.is_graph_output() or not all(map(dialect.is_quantizer, readers(value)))
        if value.dtype != onnx_ir.DataType.FLOAT or not is_read:
            return False
        quant, maker = self._quantizer(owner, "result"), value.producer()
        fresh = dialect.quantizer_node(value, quant, name, graph)
        if maker is None:
            graph.insert_before(graph[0], fresh)
        else:
            maker.append(fresh)
        _let_others_read(graph, value, fresh.outputs[0])
        return True


def fixed_point(bits: int, integer_bits: int, rounding: Rounding = Rounding.ROUND) -> IntQuant:
    """Return the quantizer of signed fixed-point numbers.

    Args:
        bits: W, all bits.
        integer_bits: I, those before the point, the sign among them.
        rounding: How values between two numbers are rounded.
    """
    scale = np.asarray(2.0 ** (integer_bits - bits), dtype=np.float32)
    zero = np.zeros((), dtype=np.float32)
    return IntQuant(scale, zero, np.asarray(bits, dtype=np.float32), rounding=rounding)


def _stays_on_grid(node: Node) -> bool:
    """Return whether results are values that the node was given, or inserted constants."""
    dequantizes = operators.is_qdq(node) and not operators.of(node).quantizes
    return (
        operators.keeps_values(node)
        or operators.inserts(node)
        or dequantizes
        or is_standard(node, "Relu")
    )


def _let_others_read(graph: Graph, value: Value, result: Value) -> None:
    """Let all readers of a value but quantizers read ``result``, graph outputs included."""
    for usage in tuple(value.uses()):
        if not dialect.is_quantizer(usage.node):
            usage.node.replace_input_with(usage.idx, result)
    if not value.is_graph_output() or value.is_graph_input():
        return
    name = value.name
    graph.outputs[:] = [result if output is value else output for output in graph.outputs]
    value.name = f"{name}_unquantized"
    result.name = name
