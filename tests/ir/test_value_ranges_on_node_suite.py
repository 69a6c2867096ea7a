"""Ranges against ONNX's own node tests: their answers lie inside, whatever the operator.

Every case is inferred twice: from the ends of its inputs alone, and with all inputs but the
first as constants, so that the rules for constant operands are met as well.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import onnx_ir
import pytest

from qonnx_hub_ir.analysis import ValueInfo, infer_values
from qonnx_hub_ir.dialect import register_tensor
from tests.node_suite import Case, node_cases

pytestmark = pytest.mark.skipif(
    os.environ.get("QONNX_HUB_REQUIRE_ORACLES") != "1",
    reason="takes half a minute; part of the environment 'oracle'",
)


def cases() -> list[Case]:
    return [c for c in node_cases() if len(c.inputs) == len(c.model.graph.input)]


def is_number(array: np.ndarray) -> bool:
    return array.dtype.kind in "iuf" and array.size > 0


def infer(case: Case, *, constants: bool) -> list[ValueInfo]:
    """Return what is known about the outputs."""
    model = onnx_ir.from_proto(case.model)
    ranges: dict[str, Any] = {}
    left = []
    for index, (value, array) in enumerate(zip(model.graph.inputs, case.inputs, strict=True)):
        if constants and index > 0 and array.dtype.kind in "iufb":
            tensor = onnx_ir.tensor(array)
            known = register_tensor(model.graph, f"{value.name}_constant", tensor)
            value.replace_all_uses_with(known)
            continue
        left.append(value)
        if is_number(array) and bool(np.all(np.isfinite(array.astype(np.float64)))):
            ranges[str(value.name)] = (float(array.min()), float(array.max()))
    model.graph.inputs[:] = left
    found = infer_values(model, ranges)
    return [found[str(value.name)] for value in model.graph.outputs]


def complaint(found: ValueInfo, answer: np.ndarray) -> str:
    """Return what of the answer lies outside, or an empty string."""
    values = answer.astype(np.float64)
    if np.isnan(values).any():
        return ""
    # The suite's answers are computed in other types and orders than a runtime's.
    reach = np.where(np.isfinite(values), np.abs(values), 0.0)
    slack = 1e-6 * np.maximum(1.0, reach)
    if not bool(np.all((values >= found.low - slack) & (values <= found.high + slack))):
        return f"{values.min()}..{values.max()} in {found.low.min()}..{found.high.max()}"
    grid = found.grid
    if grid is not None and grid.exact:
        steps = (values - grid.offset) / grid.scale
        if not bool(np.all(steps == np.rint(steps))):
            return "off the grid"
    return ""


@pytest.mark.parametrize("constants", [False, True])
def test_the_answers_of_the_standard_lie_inside(constants: bool):
    wrong, compared, bounded = {}, 0, 0
    for case in cases():
        infos = infer(case, constants=constants)
        for found, answer in zip(infos, case.outputs, strict=True):
            if not is_number(answer):
                continue
            compared += 1
            bounded += found.is_bounded
            if reason := complaint(found, answer):
                wrong[case.name] = reason
    assert wrong == {}
    assert compared > 1500
    assert bounded > 400
