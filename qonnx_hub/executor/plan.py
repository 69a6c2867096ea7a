"""Plans: a graph ready to run, its steps as one Python function, and one run of it.

A plan is plain, immutable data without run-time state. Walking over a list of steps costs more
than what small layers compute; the interpreter walks over its own instructions faster than any
loop written in it. So a plan is compiled: a line per step, values in local variables.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qonnx_hub.executor.kernels.spec import Array, Kernel
from qonnx_hub_ir.errors import ExecutionError, failure

_FILE = "<plan>"
_FIRST_STEP = 2
"""Line of the first step in the function's text."""

Program = Callable[..., tuple[Any, ...]]
"""Takes the feeds in order and returns the results in order."""


@dataclass(frozen=True, slots=True)
class Step:
    """One node, ready to run.

    Attributes:
        run: The kernel.
        inputs: Slots to read; slot 0 always holds ``None``, for optional inputs left out.
        outputs: Slots to write, one per output.
        frees: Slots that nobody reads after this step.
        node: Operator and name, for messages.
    """

    run: Kernel
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    frees: tuple[int, ...]
    node: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A graph, ready to run.

    Attributes:
        initial: Slot contents before a run: constants, ``None`` elsewhere.
        feeds: Input name -> slot.
        steps: In order.
        results: Output name -> slot, in the graph's order.
        outputs: Output names in the graph's order; a value given twice stands there twice.
        tensors: Name -> slot of every value; filled only in a plan that keeps them all.
        shared: Names of results that may share memory with a feed or a constant.
        program: The steps as one function: feeds in order in, results (or all tensors) out.
    """

    initial: tuple[Any, ...]
    feeds: dict[str, int]
    steps: tuple[Step, ...]
    results: dict[str, int]
    outputs: tuple[str, ...]
    tensors: dict[str, int]
    shared: frozenset[str]
    program: Program = field(repr=False, compare=False)


def compile_program(
    initial: Sequence[Any],
    feeds: Sequence[int],
    steps: Sequence[Step],
    results: Sequence[int],
) -> Program:
    """Return a function that runs the steps.

    Args:
        initial: Slot contents before a run: constants, ``None`` elsewhere.
        feeds: Slots of its arguments.
        steps: In order.
        results: Slots of what it returns.
    """
    fed_or_made = {*feeds, *(slot for step in steps for slot in step.outputs)}
    names: dict[str, Any] = {}

    def read(slot: int) -> str:
        if slot in fed_or_made:
            return f"v{slot}"
        names[f"c{slot}"] = initial[slot]
        return f"c{slot}"

    lines = [f"def program({', '.join(f'v{slot}' for slot in feeds)}):"]
    for index, step in enumerate(steps):
        names[f"k{index}"] = step.run
        targets = [f"v{slot}" for slot in step.outputs]
        target = targets[0] if len(targets) == 1 else f"({''.join(f'{t}, ' for t in targets)})"
        line = f"    {target} = k{index}({', '.join(map(read, step.inputs))})"
        freed = "".join(f"v{slot} = " for slot in step.frees)
        lines.append(f"{line}; {freed}None" if freed else line)
    given = "".join(f"{read(slot)}, " for slot in results)
    lines.append(f"    return ({given})")
    exec(compile("\n".join(lines), _FILE, "exec"), names)  # the text is made of slot numbers
    program: Program = names["program"]
    return program


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
    """Return what to say of an exception: the step that raised it, and that step's inputs."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != _FILE:
        trace = trace.tb_next
    if trace is None:
        return failure("the graph", [], error)
    variables = {**trace.tb_frame.f_globals, **trace.tb_frame.f_locals}
    step = plan.steps[trace.tb_lineno - _FIRST_STEP]
    args = [variables.get(f"v{slot}", variables.get(f"c{slot}")) for slot in step.inputs]
    return failure(step.node, args, error)
