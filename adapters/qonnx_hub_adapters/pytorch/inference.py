"""The source's own answer: torch's forward pass at inference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qonnx_hub_adapters.pytorch.framework import first_line, quiet
from qonnx_hub_ir.errors import ExecutionError
from qonnx_hub_ir.quantizers import Array


def output_names(count: int) -> list[str]:
    """Return the names of a model's outputs."""
    return ["output"] if count == 1 else [f"output_{index}" for index in range(count)]


def answer(module: Any, args: Sequence[Array], torch: Any) -> dict[str, Array]:
    """Return the outputs of a module under the names that its IR model uses.

    A graph that was traced with a fixed batch is run batch by batch.

    Raises:
        ExecutionError: It fails.
    """
    tensors = [torch.from_numpy(np.array(value)) for value in args]
    size, total = _fixed_batch(module, torch), tensors[0].shape[0] if tensors[0].ndim else 0
    try:
        with quiet(), torch.no_grad():
            if size and total != size and total % size == 0:
                parts = [
                    _leaves(module(*(t[k : k + size] for t in tensors)), torch)
                    for k in range(0, total, size)
                ]
                arrays = [np.concatenate(column) for column in zip(*parts, strict=True)]
            else:
                arrays = _leaves(module(*tensors), torch)
    except Exception as error:  # whatever the user's forward raises
        raise ExecutionError(f"the model itself fails: {first_line(error)}") from error
    return dict(zip(output_names(len(arrays)), arrays, strict=True))


def layers(
    module: Any, shown: Mapping[str, Any], args: Sequence[Array], torch: Any
) -> dict[str, Array]:
    """Return what modules give in one forward pass, by their names.

    Of several calls of one module, the graph calls the first quantizer like its module and
    numbers the others, and gives the module's name to the last of other layers.

    Args:
        module: Our own copy.
        shown: Modules of it, by name.
        args: The inputs.
        torch: The framework.

    Raises:
        ExecutionError: The forward pass fails.
    """
    found: dict[str, Array] = {}
    calls: dict[str, int] = {}
    handles = []
    for name, child in shown.items():

        def note(_m: Any, _a: Any, result: Any, name: str = name) -> None:
            if not isinstance(result, torch.Tensor):
                return
            calls[name] = calls.get(name, -1) + 1
            numbered = calls[name] > 0 and hasattr(shown[name], "fake_quant_enabled")
            key = f"{name}_{calls[name]}" if numbered else name
            found[key] = np.array(result.detach().cpu().numpy())

        handles.append(child.register_forward_hook(note))
    try:
        answer(module, args, torch)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _leaves(result: Any, torch: Any) -> list[Array]:
    leaves = torch.utils._pytree.tree_leaves(result)
    return [
        np.array(leaf.detach().cpu().numpy())
        for leaf in leaves
        if isinstance(leaf, torch.Tensor)
    ]


def _fixed_batch(module: Any, torch: Any) -> int:
    """Return the first axis that a traced graph insists on, 0 where it does not."""
    if not isinstance(module, torch.fx.GraphModule):
        return 0
    for node in module.graph.nodes:
        value = node.meta.get("val") if node.op == "placeholder" else None
        if isinstance(value, torch.Tensor) and value.ndim and isinstance(value.shape[0], int):
            return int(value.shape[0])
    return 0
