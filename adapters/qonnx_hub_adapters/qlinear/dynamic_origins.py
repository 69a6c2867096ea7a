"""Products of run-time scales, written as onnxruntime's operators that they were read from.

``MatMulInteger``, ``Cast``, ``Mul`` by both scales and ``Add`` say the same as
``DynamicQuantizeMatMul`` and ``MatMulIntegerToFloat``.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx_ir import Model, Node, Value

from qonnx_hub_adapters.qlinear.layouts import ORIGIN
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.queries import input_of, is_standard, only_reader, producer, rank_of
from qonnx_hub_ir.lowering.onnxruntime_operators import DOMAIN as CONTRIB


@dataclass(frozen=True, slots=True)
class ScaledSums:
    """A product of integers, cast, scaled and with a bias.

    Attributes:
        product: The MatMulInteger.
        scales: Those of both factors.
        bias: What is added; ``None`` for nothing.
    """

    product: Node
    scales: tuple[Value, Value]
    bias: Value | None


def restore_dynamic(model: Model) -> None:
    """Write every unchanged product of run-time scales as the operator it was read from."""
    for node in list(model.graph.all_nodes()):
        name = node.metadata_props.get(ORIGIN)
        if name not in _INPUTS:
            continue
        found = _read(node)
        inputs = None if found is None else _INPUTS[name](found)
        if inputs is None:
            continue
        emit = Emitter(node)
        while inputs[-1] is None:
            inputs.pop()
        value = emit.add(name, inputs)
        made = value.producer()
        assert made is not None, "a node was just made"
        made.domain, made.name = CONTRIB, node.name
        emit.replace_with(value)


def _read(end: Node) -> ScaledSums | None:
    """Return the scaled sums whose values a node makes, ``None`` for anything else."""
    bias, scaled = None, end
    if is_standard(end, "Add"):
        before, bias = _only(end, 0, "Mul"), end.inputs[1]
        if before is None or rank_of(bias) != 1:
            return None
        scaled = before
    cast, unit = _only(scaled, 0, "Cast"), producer(input_of(scaled, 1))
    if not is_standard(scaled, "Mul") or cast is None or unit is None:
        return None
    product = _only(cast, 0, "MatMulInteger")
    scales = unit.inputs
    if (
        product is None
        or not is_standard(unit, "Mul")
        or scales[0] is None
        or scales[1] is None
    ):
        return None
    return ScaledSums(product, (scales[0], scales[1]), bias)


def _only(node: Node, index: int, op_type: str) -> Node | None:
    """Return what makes an input, if it is that operator and nobody else reads it."""
    value = input_of(node, index)
    found = producer(value)
    if value is None or found is None or not only_reader(value):
        return None
    return found if is_standard(found, op_type) else None


def _of_dynamic(sums: ScaledSums) -> list[Value | None] | None:
    left, right, zero, right_zero = (input_of(sums.product, index) for index in range(4))
    source = producer(left)
    if source is None or not is_standard(source, "DynamicQuantizeLinear"):
        return None
    codes, scale, point = source.outputs
    if left is not codes or sums.scales[0] is not scale or zero is not point:
        return None
    return [source.inputs[0], right, sums.scales[1], right_zero, sums.bias]


def _of_integers(sums: ScaledSums) -> list[Value | None] | None:
    left, right, zero, right_zero = (input_of(sums.product, index) for index in range(4))
    return [left, right, *sums.scales, zero, right_zero, sums.bias]


_INPUTS = {"DynamicQuantizeMatMul": _of_dynamic, "MatMulIntegerToFloat": _of_integers}
"""Operator -> its inputs."""
