"""A plan's steps as one Python function: a line per step, values in local variables.

Walking over a list of steps costs more than what small layers compute; the interpreter walks
over its own instructions faster than any loop written in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

    from qonnx_hub.executor.plan import Step

_FILE = "<plan>"
_FIRST_STEP = 2
"""Line of the first step in the function's text."""

Program = Callable[..., tuple[Any, ...]]
"""Takes the feeds in order and returns the results in order."""


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
        call = f"k{index}({', '.join(map(read, step.inputs))})"
        freed = (
            f"; {' = '.join(f'v{slot}' for slot in step.frees)} = None" if step.frees else ""
        )
        lines.append(f"    {_targets(step)} = {call}{freed}")
    given = "".join(f"{read(slot)}, " for slot in results)
    lines.append(f"    return ({given})")
    exec(compile("\n".join(lines), _FILE, "exec"), names)  # the text is made of slot numbers
    program: Program = names["program"]
    return program


def _targets(step: Step) -> str:
    if len(step.outputs) == 1:
        return f"v{step.outputs[0]}"
    # A kernel may give fewer optional outputs than the node lists, never more.
    return f"({''.join(f'v{slot}, ' for slot in step.outputs)})"


def failed_step(trace: TracebackType | None) -> tuple[int, dict[str, Any]] | None:
    """Return which step of a program raised, and the program's variables.

    Args:
        trace: Where the exception went.
    """
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename == _FILE:
            variables = {**trace.tb_frame.f_globals, **trace.tb_frame.f_locals}
            return trace.tb_lineno - _FIRST_STEP, variables
        trace = trace.tb_next
    return None
