"""Running a plan once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from qonnx_hub.executor.kernels.spec import Array
from qonnx_hub.executor.program import failed_step
from qonnx_hub_ir.errors import ExecutionError, failure

if TYPE_CHECKING:
    from qonnx_hub.executor.plan import Plan


def execute(plan: Plan, feeds: Mapping[str, Any]) -> dict[str, Array]:
    """Return the plan's results, or every value where the plan keeps them, by name.

    Args:
        plan: The plan; it is not changed, and may run in several threads.
        feeds: Input name -> array, all of them, of the right types.

    Raises:
        ExecutionError: A node fails; the message names it and its inputs.
    """
    given = [feeds[name] for name in plan.feeds]
    try:
        with np.errstate(all="ignore"):
            results = plan.program(*given)
    except ExecutionError:
        raise
    except Exception as error:  # kernels raise whatever numpy raises
        raise ExecutionError(_message(plan, error)) from error
    named = zip(plan.tensors or plan.results, results, strict=True)
    if not plan.shared:
        return dict(named)
    return {name: array.copy() if name in plan.shared else array for name, array in named}


def _message(plan: Plan, error: Exception) -> str:
    found = failed_step(error.__traceback__)
    if found is None:
        return failure("the graph", [], error)
    index, variables = found
    step = plan.steps[index]
    args = [variables.get(f"v{slot}", variables.get(f"c{slot}")) for slot in step.inputs]
    return failure(step.node, args, error)
