"""What no graph output needs is dropped."""

from __future__ import annotations

from onnx_ir import Model
from onnx_ir.passes import InPlacePass
from onnx_ir.passes.common import (
    RemoveUnusedFunctionsPass,
    RemoveUnusedNodesPass,
    RemoveUnusedOpsetsPass,
)


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
    model.opset_imports.setdefault("", 19)
    return modified
