"""The source's own answer: torch's forward pass at inference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from qonnx_hub_adapters.dependencies import first_line, quiet
from qonnx_hub_adapters.pytorch.tracing import traced_inputs
from qonnx_hub_adapters.torch_common.modules import answer_in_pieces, array_of
from qonnx_hub_ir.errors import ExecutionError
from qonnx_hub_ir.quantizers import Array


def answer(module: Any, args: Sequence[Array], torch: Any) -> dict[str, Array]:
    """Return the outputs of a module under the names that its IR model uses.

    A graph that was traced with a fixed batch is run batch by batch.

    Raises:
        ExecutionError: It fails.
    """

    def forward(arrays: list[Array]) -> list[Array]:
        result = module(*(torch.from_numpy(np.array(array)) for array in arrays))
        leaves = torch.utils._pytree.tree_leaves(result)
        return [array_of(leaf) for leaf in leaves if isinstance(leaf, torch.Tensor)]

    first = [x.shape[0] for x in traced_inputs(module, torch) if x is not None and x.ndim]
    batch = next((size for size in first if isinstance(size, int)), 0)
    try:
        with quiet(), torch.no_grad():
            return answer_in_pieces(forward, args, batch)
    except Exception as error:  # whatever the user's forward raises
        raise ExecutionError(f"the model itself fails: {first_line(error)}") from error


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
    with ExitStack() as hooks:
        for name, child in shown.items():

            def note(_m: Any, _a: Any, result: Any, name: str = name) -> None:
                if not isinstance(result, torch.Tensor):
                    return
                calls[name] = calls.get(name, -1) + 1
                numbered = calls[name] > 0 and hasattr(shown[name], "fake_quant_enabled")
                key = f"{name}_{calls[name]}" if numbered else name
                found[key] = array_of(result)

            hooks.enter_context(child.register_forward_hook(note))
        answer(module, args, torch)
    return found
