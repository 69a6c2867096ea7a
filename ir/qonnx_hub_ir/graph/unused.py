"""What no graph output needs is dropped."""

from __future__ import annotations

from onnx_ir import Model
from onnx_ir.passes import InPlacePass
from onnx_ir.passes.common import (
    RemoveUnusedFunctionsPass,
    RemoveUnusedNodesPass,
    RemoveUnusedOpsetsPass,
)

from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.subgraphs import nested_graphs, nodes_within


def import_used(model: Model) -> None:
    """Import the domains of quantizers and of channels-last operators where they are used.

    The import of channels-last operators, whose versions are those of the standard ones, goes
    where there are none.
    """
    imports, used = model.opset_imports, {node.domain for node in nodes_within(model.graph)}
    if dialect.DOMAIN in used:
        imports[dialect.DOMAIN] = dialect.DOMAIN_VERSION
    if dialect.CHANNELS_LAST_DOMAIN in used:
        imports[dialect.CHANNELS_LAST_DOMAIN] = imports[""]
    else:
        imports.pop(dialect.CHANNELS_LAST_DOMAIN, None)


def drop_unused(model: Model) -> bool:
    """Drop nodes, initializers, functions and opset imports that no graph output needs.

    Graph inputs stay, used or not. Returns whether anything was dropped.
    """
    steps: tuple[InPlacePass, ...] = (
        RemoveUnusedNodesPass(),
        RemoveUnusedFunctionsPass(),  # type: ignore[no-untyped-call]
        RemoveUnusedOpsetsPass(process_functions=False),
    )
    modified = False
    for step in steps:
        modified |= step(model).modified
    # The passes look at the initializers of the main graph only.
    for body in nested_graphs(model.graph)[1:]:
        constants = body.initializers
        unread = [n for n, v in constants.items() if not (v.uses() or v.is_graph_output())]
        for name in unread:
            del constants[name]
        modified |= bool(unread)
    model.opset_imports.setdefault("", 19)
    return modified
