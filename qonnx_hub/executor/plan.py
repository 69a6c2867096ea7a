"""What a plan is: plain data, immutable, without run-time state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from qonnx_hub.executor.kernels.spec import Kernel
from qonnx_hub.executor.program import Program


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
