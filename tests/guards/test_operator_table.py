"""What the table of operators says of a node holds for what the node computes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import onnx_ir

from qonnx_hub.executor.kernels import kernel_table
from qonnx_hub_ir import dialect, operators
from tests.guards.variants import Variant, all_variants, answer, loaded

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Trial:
    """A node of which one input moves, and that input's name, position and values."""

    label: str
    variant: Variant
    node: onnx_ir.Node
    name: str
    index: int

    @property
    def x(self) -> np.ndarray:
        return self.variant.feeds[self.name]

    def data(self) -> np.ndarray:
        """Return all elements of the node's data inputs, the moving one and constants."""
        parts = []
        for index in operators.data_inputs(self.node):
            value = self.node.inputs[index]
            known = self.x if index == self.index else dialect.constant_value(value)
            if known is not None:
                parts.append(known.reshape(-1))
        return np.concatenate(parts)

    def run(self, x: np.ndarray) -> list[np.ndarray] | None:
        """Return the outputs that the table speaks of."""
        found = answer(self.variant, {self.name: x})
        names = [str(value.name) for value in operators.value_outputs(self.node)]
        if found is None or any(name not in found for name in names):
            return None
        return [found[name] for name in names]


@cache
def trials() -> tuple[Trial, ...]:
    return tuple(_trials())


def _trials() -> Iterator[Trial]:
    """Give each number input of every variant of one node, the other inputs constant."""
    for base in all_variants():
        row = operators.find(base.proto.graph.node[-1].domain, base.op_type)
        if row.monotone == (0,) and row.moves is None and row.bounds is None:
            continue
        for name, x in base.feeds.items():
            variant = base.with_constants([name]) if len(base.feeds) > 1 else base
            model = loaded(variant)
            if model is None or len(model.graph) != 1 or x.dtype.kind not in "fiu":
                continue
            node = model.graph[0]
            at = [i for i, v in enumerate(node.inputs) if v is not None and v.name == name]
            if len(at) == 1:
                yield Trial(variant.label, variant, node, name, at[0])


def order_complaint(trial: Trial) -> str | None:
    """Return where an output moves against the direction that the table gives."""
    direction = operators.direction(trial.node, trial.index)
    if not direction or trial.x.dtype.kind != "f":
        return None
    draw = np.random.default_rng(0)
    steps = draw.random(trial.x.shape) * draw.integers(0, 2, trial.x.shape)
    before, after = trial.run(trial.x), trial.run(trial.x + steps.astype(trial.x.dtype))
    if before is None or after is None or before[0].shape != after[0].shape:
        return None
    rises = direction * (after[0].astype(np.float64) - before[0].astype(np.float64))
    size = np.nanmax(np.abs(before[0].astype(np.float64)), initial=1.0)
    slack = 0.0 if operators.order_is_exact(trial.node) else 1e-5 * float(size)
    against = rises[np.isfinite(rises) & (rises < -slack)]
    return f"{trial.label}: input {trial.index} {against[:3]}" if against.size else ""


def movement_complaint(trial: Trial) -> str | None:
    """Return which elements an operator that moves values makes or loses."""
    if not operators.moves_values(trial.node) or trial.index not in operators.data_inputs(
        trial.node
    ):
        return None
    found, data = trial.run(trial.x), trial.data()
    if found is None:
        return None
    given = np.concatenate([array.reshape(-1) for array in found])
    if not np.all(np.isin(given, data)):
        return f"{trial.label}: makes values"
    if operators.keeps_memory_order(trial.node) and not np.array_equal(given, data):
        return f"{trial.label}: changes the order"
    if operators.permutes(trial.node) and not np.array_equal(np.sort(given), np.sort(data)):
        return f"{trial.label}: selects or repeats"
    if not operators.repeats(trial.node) and given.size > data.size:
        return f"{trial.label}: repeats"
    return ""


def limits_complaint(trial: Trial) -> str | None:
    """Return which results lie outside of the bounds of the table."""
    bounds = operators.bounds(trial.node)
    found = None if bounds is None else trial.run(trial.x * trial.x.dtype.type(3))
    if bounds is None or found is None:
        return None
    low, high = np.asarray(bounds, dtype=found[0].dtype)
    given = found[0][~np.isnan(found[0].astype(np.float64))]
    outside = given[(given < low) | (given > high)]
    return f"{trial.label}: {outside[:3]}" if outside.size else ""


def judged(judge: Callable[[Trial], str | None]) -> tuple[int, list[str]]:
    """Return how many trials were judged, and the complaints."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        words = [judge(trial) for trial in trials()]
    known = [one for one in words if one is not None]
    return len(known), [one for one in known if one]


def test_outputs_rise_and_fall_as_the_table_says_for_every_attribute():
    count, wrong = judged(order_complaint)
    assert wrong == []
    assert count > 400


def test_operators_that_move_values_make_none_for_every_attribute():
    count, wrong = judged(movement_complaint)
    assert wrong == []
    assert count > 200


def test_results_lie_within_the_bounds_of_the_table_for_every_attribute():
    count, wrong = judged(limits_complaint)
    assert wrong == []
    assert count > 50


def test_every_kernel_has_a_row():
    rows = {(row.domain, row.name) for row in operators.OPERATORS}
    assert set(kernel_table()) <= rows
