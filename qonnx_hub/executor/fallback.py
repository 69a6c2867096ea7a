"""Standard operators without a kernel of ours run on ONNX's reference implementation."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnx_ir import Node, Value

from qonnx_hub.executor.kernels.spec import Kernel
from qonnx_hub_ir.errors import words_of
from qonnx_hub_ir.graph.subgraphs import captured_values

_REFUSED = {
    "QuantizeLinear": "the reference wraps values beyond the integer range",
    "DequantizeLinear": "the reference lacks it for some opsets",
}


class NoFallbackError(Exception):
    """The reference implementation cannot run this node; the message is the reason."""


def build_fallback(node: Node, opset_imports: dict[str, int]) -> tuple[Kernel, list[Value]]:
    """Return a kernel made of the reference implementation, and the outer values it reads.

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
    if node.op_type == "Optional":
        # The reference wraps it in a list, which its own OptionalGetElement then gives out.
        return (lambda value=None: value), []
    captured = captured_values(node)
    outer = [str(value.name) for value in captured]
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
        raise NoFallbackError(words_of(error)) from error
    wanted = [bool(name) for name in outputs]

    def run(*args: Any) -> Any:
        fed = [a for a, name in zip(args, (*inputs, *outer), strict=True) if name]
        results = iter(evaluator.run(None, dict(zip(given, fed, strict=True))))
        values = [next(results) if want else None for want in wanted]
        arrays = [np.asarray(v) if isinstance(v, np.generic) else v for v in values]
        return arrays[0] if len(arrays) == 1 else tuple(arrays)

    return run, captured
