"""Running a plan once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from qonnx_hub.executor.kernels.spec import Array
from qonnx_hub_ir.errors import ExecutionError, failure

if TYPE_CHECKING:
    from qonnx_hub.executor.steps import Plan


def execute(plan: Plan, feeds: Mapping[str, Any]) -> dict[str, Array]:
    """Return the plan's results, or every value where the plan keeps them, by name.

    Args:
        plan: The plan; it is not changed, and may run in several threads.
        feeds: Input name -> array, all of them, of the right types.

    Raises:
        ExecutionError: A node fails; the message names it and its inputs.
    """
    values = list(plan.initial)
    for name, slot in plan.feeds.items():
        values[slot] = feeds[name]
    step = None
    args: list[Any] = []
    try:
        with np.errstate(all="ignore"):
            for step in plan.steps:
                args = [values[i] for i in step.inputs]
                result = step.run(*args)
                if len(step.outputs) == 1:
                    values[step.outputs[0]] = result
                else:
                    for slot, array in zip(step.outputs, result, strict=False):
                        values[slot] = array
                for slot in step.frees:
                    values[slot] = None
    except Exception as error:  # kernels raise whatever numpy raises
        where = step.node if step else "the graph"
        raise ExecutionError(failure(where, args, error)) from error
    names = plan.tensors or plan.results
    return {
        name: values[slot].copy() if name in plan.shared else values[slot]
        for name, slot in names.items()
    }
