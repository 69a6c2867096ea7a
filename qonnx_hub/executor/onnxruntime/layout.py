"""Quantizers inside onnxruntime's blocked layout.

On processors with vector units, onnxruntime's convolutions keep their channels in blocks. In
front of an operator that knows nothing of blocks it puts them in order, and behind it into
blocks again. Clip, QuantizeLinear and DequantizeLinear with one parameter treat every element
alike: between two convolutions they need no order at all.
"""

from __future__ import annotations

from onnx_ir import Graph, Model, Node, Value

from qonnx_hub_ir import operators

BLOCKED = "com.microsoft.nchwc"
"""Domain of the operators on blocks; files with them are made by onnxruntime itself."""

_WHOLE_BLOCKS = 16
"""Largest block in use: where it divides the channels, blocks hold nothing else."""


def quantize_in_blocks(model: Model) -> bool:
    """Take out reorderings around quantizers, in place; return whether there were any.

    Before -> after (an optimized model of onnxruntime)::

        ReorderInput(DequantizeLinear(QuantizeLinear(ReorderOutput(x))))
        DequantizeLinear(QuantizeLinear(x))

    Other readers of the quantized value get it in order, from a reordering behind it.
    """
    nodes = [node for node in model.graph if _is_plain(node, "ReorderOutput")]
    taken = [node for node in nodes if _take_out(model.graph, node)]
    return bool(taken)


def _is_plain(node: Node, op_type: str) -> bool:
    """Return whether a node reorders between blocks and channels that come first."""
    if (node.domain, node.op_type) != (BLOCKED, op_type):
        return False
    last = node.attributes.get("channels_last")
    return last is None or not last.value


def _take_out(graph: Graph, reorder: Node) -> bool:
    if int(reorder.attributes["channels"].value) % _WHOLE_BLOCKS:
        return False
    steps = _steps_after(reorder.outputs[0])
    if not steps:
        return False
    result = steps[-1].outputs[0]
    users = [(usage.node, usage.idx) for usage in result.uses()]
    into_blocks = [node for node, _ in users if _is_plain(node, "ReorderInput")]
    if not into_blocks or result.is_graph_output():
        return False
    steps[0].replace_input_with(0, reorder.inputs[0])
    for step in steps:
        step.outputs[0].shape = None
    for node in into_blocks:
        node.outputs[0].replace_all_uses_with(result)
        graph.remove(node, safe=True)
    _put_behind(reorder, result, [(n, i) for n, i in users if n not in into_blocks])
    graph.remove(reorder, safe=True)
    return True


def _steps_after(value: Value) -> list[Node]:
    """Return the operators that only follow each other and treat every element alike."""
    steps: list[Node] = []
    while len(value.uses()) == 1 and not value.is_graph_output():
        (usage,) = value.uses()
        node = usage.node
        alike = operators.is_qdq(node) or operators.is_elementwise(node)
        if node.domain != "" or not alike or node.inputs[0] is not value:
            break
        parameters = [v.const_value for v in node.inputs[1:] if v is not None]
        if not all(constant is not None and constant.size == 1 for constant in parameters):
            break
        steps.append(node)
        value = node.outputs[0]
    return steps


def _put_behind(reorder: Node, result: Value, users: list[tuple[Node, int]]) -> None:
    if not users:
        return
    attributes = list(reorder.attributes.values())
    late = Node(BLOCKED, "ReorderOutput", [result], attributes, name=f"{reorder.name}_late")
    late.outputs[0].name, late.outputs[0].type = f"{result.name}_in_order", result.type
    producer = result.producer()
    if producer is not None:
        producer.append(late)
    for node, index in users:
        node.replace_input_with(index, late.outputs[0])
