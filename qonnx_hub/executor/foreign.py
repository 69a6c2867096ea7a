"""Operators that this project does not know: of other distributions, and of the qonnx package.

A class of the qonnx package's registry serves where that package is imported already: whoever
registers an operator there has imported it.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir
from onnx import helper
from onnx_ir import Model, Node

from qonnx_hub.executor.kernels.spec import Array, Kernel
from qonnx_hub.executor.plan import Plan, execute
from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_ir.errors import UsageError
from qonnx_hub_ir.graph.parts import is_partition
from qonnx_hub_ir.graph.queries import attribute, zeros_of
from qonnx_hub_ir.operators.foreign import foreign_operators

_REGISTRY = "qonnx.custom_op.registry"

_LOCK = threading.RLock()
"""Classes of the qonnx package change their own node, and others' state, while they run."""


def import_operators(module: str) -> None:
    """Import a module that brings operators, and the qonnx package's registry if it is there.

    Classes of the registry run from then on; "qonnx" names the package itself.

    Raises:
        UsageError: The module cannot be imported.
    """
    try:
        importlib.import_module(_REGISTRY if module == "qonnx" else module)
    except ImportError as error:
        raise UsageError(f"--operators: '{module}' cannot be imported: {error}") from error
    with contextlib.suppress(ImportError):
        importlib.import_module(_REGISTRY)


def foreign_kernel(
    node: Node, attributes: dict[str, Any], version: int, plan_of: Callable[[Model], Plan]
) -> Kernel | None:
    """Return a kernel from outside of this project; ``None`` where nobody has one.

    Args:
        node: A node.
        attributes: Its attributes as Python objects.
        version: The version that the model imports of its domain.
        plan_of: Makes the plan of a model that a node names.

    Raises:
        HubError: A model that a node names cannot be read or run.
    """
    known = foreign_operators().get((node.domain, node.op_type))
    if known is not None:
        return known.kernel(attributes)
    if is_partition(node):
        return _partition(node, plan_of)
    registry = sys.modules.get(_REGISTRY)
    if registry is None or not registry.is_custom_op(node.domain, node.op_type):
        return None
    return _custom_op(registry, node, version)


def is_foreign(node: Node) -> bool:
    """Return whether somebody outside of this project has a node's operator."""
    if (node.domain, node.op_type) in foreign_operators() or is_partition(node):
        return True
    registry = sys.modules.get(_REGISTRY)
    return registry is not None and registry.is_custom_op(node.domain, node.op_type)


def _partition(node: Node, plan_of: Callable[[Model], Plan]) -> Kernel:
    """Return what runs the file that a GenericPartition names, from the current folder."""
    plan = plan_of(read_model(str(attribute(node, "model", ""))))
    names = list(plan.feeds)

    def run(*args: Array) -> Any:
        found = execute(plan, dict(zip(names, args, strict=True)))
        results = tuple(found[name] for name in plan.outputs)
        return results[0] if len(results) == 1 else results

    return run


def _custom_op(registry: Any, node: Node, version: int) -> Kernel:
    """Return a kernel made of a CustomOp: it reads and writes a context by tensor name."""
    message = onnx_ir.to_proto(node)
    values = (*(v for v in node.inputs if v is not None), *node.outputs)
    infos = [onnx_ir.serde.serialize_value(value) for value in values if value.name]
    graph = helper.make_graph([message], "node", [], [], value_info=infos)
    named = [None if value is None else str(value.name) for value in node.inputs]

    def run(*args: Any) -> Any:
        with _LOCK:
            # Some rewrite their node while they run: each call has its own.
            fresh = onnx.NodeProto()
            fresh.CopyFrom(message)
            # Some read the shape of what they write: it is that of the file.
            context = {str(v.name): zeros_of(v) for v in node.outputs}
            given = zip(named, args, strict=True)
            context |= {n: np.array(a, copy=True) for n, a in given if n and a is not None}
            op = registry.getCustomOp(fresh, onnx_opset_version=version)
            op.execute_node(context, copy.deepcopy(graph))
        found = tuple(np.asarray(context[str(value.name)]) for value in node.outputs)
        return found[0] if len(found) == 1 else found

    return run
