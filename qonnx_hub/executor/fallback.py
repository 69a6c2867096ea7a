"""Standard operators without a kernel of ours run on ONNX's reference implementation."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnx_ir import Node

from qonnx_hub.executor.kernels.spec import Kernel

_REFUSED = {
    "QuantizeLinear": "the reference wraps values beyond the integer range",
    "DequantizeLinear": "the reference lacks it for some opsets",
}


class NoFallbackError(Exception):
    """The reference implementation cannot run this node; the text says why."""


def captured_names(node: Node) -> list[str]:
    """Return the names of outer values that the node's subgraphs read, in order."""
    names: dict[str, None] = {}
    for attr in node.attributes.values():
        graphs = attr.value if isinstance(attr.value, (list, tuple)) else [attr.value]
        for graph in graphs:
            if isinstance(graph, onnx_ir.Graph):
                names.update(dict.fromkeys(_free_names(graph)))
    return list(names)


def _free_names(graph: onnx_ir.Graph) -> list[str]:
    own = {str(v.name) for v in (*graph.inputs, *graph.initializers.values())}
    free: list[str] = []
    for node in graph:
        used = [str(v.name) for v in node.inputs if v is not None and v.name]
        free.extend(name for name in (*used, *captured_names(node)) if name not in own)
        own.update(str(v.name) for v in node.outputs)
    free.extend(str(v.name) for v in graph.outputs if str(v.name) not in own)
    return free


def build_fallback(node: Node, opset_imports: dict[str, int]) -> tuple[Kernel, list[str]]:
    """Return a kernel made of the reference implementation, and the outer names it reads.

    Args:
        node: A node of a standard domain.
        opset_imports: Domain -> version of the model.

    Returns:
        The kernel, which takes the node's inputs and then the outer values in order.

    Raises:
        NoFallbackError: The reference does not know the operator, or is known to be wrong.
    """
    if node.op_type in _REFUSED:
        raise NoFallbackError(_REFUSED[node.op_type])
    outer = captured_names(node)
    proto = onnx_ir.to_proto(node)
    del proto.input[:], proto.output[:]
    inputs = [f"__in{i}" if v is not None else "" for i, v in enumerate(node.inputs)]
    outputs = [f"__out{i}" if v.name else "" for i, v in enumerate(node.outputs)]
    proto.input.extend(inputs)
    proto.output.extend(outputs)
    given = [name for name in (*inputs, *outer) if name]
    graph = helper.make_graph(
        [proto],
        "node",
        [helper.make_value_info(name, onnx.TypeProto()) for name in given],
        [helper.make_value_info(name, onnx.TypeProto()) for name in outputs if name],
    )
    imports = [helper.make_opsetid(domain, v) for domain, v in opset_imports.items()]
    try:
        evaluator = ReferenceEvaluator(helper.make_model(graph, opset_imports=imports))
    except Exception as error:  # the evaluator raises several kinds for what it does not know
        raise NoFallbackError(str(error).strip()) from error
    wanted = [bool(name) for name in outputs]

    def run(*args: Any) -> Any:
        fed = [a for a, name in zip(args, (*inputs, *outer), strict=True) if name]
        results = iter(evaluator.run(None, dict(zip(given, fed, strict=True))))
        values = [next(results) if want else None for want in wanted]
        arrays = [np.asarray(v) if isinstance(v, np.generic) else v for v in values]
        return arrays[0] if len(arrays) == 1 else tuple(arrays)

    return run, outer
