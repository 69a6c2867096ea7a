"""A model in few boxes: operators in a row, up to a quantizer, are one."""

from __future__ import annotations

from onnx_ir import Model, Node

from qonnx_hub.equivalence.graph_slices import source_layer
from qonnx_hub.reporting.pages.pictures import GraphStep
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.describe import describe_quantizer
from qonnx_hub_ir.facts import facts_of
from qonnx_hub_ir.graph.queries import only_reader, producer


def stages_of(model: Model | None) -> tuple[GraphStep, ...]:
    """Return the boxes of a model's main graph, in order; what no input reaches is in none.

    Args:
        model: An IR model; ``None`` gives no boxes.

    Example:
        >>> stages_of(qh.load("model.onnx"))[1].operators
        ('Conv', 'BatchNormalization', 'Relu')
    """
    if model is None:
        return ()
    dynamic = facts_of(model).dynamic
    found: list[GraphStep] = []
    # Value -> its stage; a stage is open until its result is quantized.
    made = {}
    for value in model.graph.inputs:
        if value.is_initializer():
            continue
        made[value] = len(found)
        found.append(GraphStep((str(value.name),), ("input",), "", "", ()))
    for node in model.graph:
        if not any(str(value.name) in dynamic for value in node.outputs):
            continue
        read = [v for v in dict.fromkeys(node.inputs) if v is not None and v in made]
        before = list(dict.fromkeys(made[v] for v in read))
        quant, weights = _result(node), _weights(node)
        last = found[before[0]] if len(before) == 1 else None
        if last is not None and not last.result and only_reader(read[0]) and len(read) == 1:
            k = before[0]
            found[k] = GraphStep(
                (*last.layers, source_layer(node)),
                last.operators if quant else (*last.operators, node.op_type),
                last.weights or weights,
                quant,
                last.inputs,
            )
        else:
            k = len(found)
            found.append(
                GraphStep(
                    (source_layer(node),), (node.op_type,), weights, quant, tuple(before)
                )
            )
        made.update(dict.fromkeys(node.outputs, k))
    return tuple(found)


def _result(node: Node) -> str:
    if dialect.is_quantizer(node):
        # That scales differ by channel is told in the tables.
        return describe_quantizer(dialect.read_quantizer(node)).removesuffix(", per-channel")
    if not operators.of(node).quantizes:
        return ""
    kind = node.outputs[0].dtype
    return "integers" if kind is None else kind.name.lower()


def _weights(node: Node) -> str:
    """Return what a node's stored weights are quantized to, also where they are turned."""
    for value in node.inputs:
        maker = producer(value)
        while maker is not None and len(maker.inputs) == 1:
            maker = producer(maker.inputs[0])
        stored = maker.inputs[0] if maker is not None and maker.inputs else None
        if maker is None or stored is None or dialect.constant_value(stored) is None:
            continue
        if operators.dequantizes(maker) and stored.dtype is not None:
            return stored.dtype.name.lower()
        if words := _result(maker):
            return words
    return ""
