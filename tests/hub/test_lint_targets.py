"""Lint targets of other distributions, and what holds for the tables of all targets."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from typer.testing import CliRunner

import qonnx_hub as qh
from qonnx_hub.cli import app
from qonnx_hub.io import registry
from qonnx_hub_adapters.lint.finding import Severity
from qonnx_hub_adapters.lint.rules import (
    MODEL,
    LintRule,
    LintTarget,
    anywhere,
    find,
    operator,
    unknown_operators,
)
from qonnx_hub_ir.errors import AdapterConflictError
from tests.support import model_of

OURS = tuple(registry.LINT_TARGETS)


class _Point:
    def __init__(self, name: str, value: str) -> None:
        self.name, self.value = name, value


def _target(*rules: LintRule) -> LintTarget:
    return LintTarget("a chip", (*rules, unknown_operators(lambda n: n.op_type == "Relu")))


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    module: Any = types.ModuleType("chip_lint")
    monkeypatch.setitem(sys.modules, "chip_lint", module)

    def one(target: LintTarget, name: str = "chip") -> None:
        module.TARGET = target
        points = [_Point(name, "chip_lint:TARGET")]
        monkeypatch.setattr(
            registry, "entry_points", lambda group: points if group == "qonnx_hub.lint" else []
        )

    return one


def _net(*op_types: str, domain: str = "") -> onnx.ModelProto:
    names = ["x", *(f"t{i}" for i in range(len(op_types) - 1)), "y"]
    nodes = [
        helper.make_node(op, [names[i]], [names[i + 1]], f"{op}_{i}", domain=domain)
        for i, op in enumerate(op_types)
    ]
    return model_of(nodes, {"x": (1, 4)}, ["y"], {})


def test_another_distribution_registers_a_target(register) -> None:
    row = LintRule(Severity.REFUSED, operator("Relu"), anywhere, "is a Relu", "no", "omit it")
    register(_target(row))
    (found,) = qh.lint(_net("Relu"), "chip").findings
    assert (found.severity, found.op, found.node) == (Severity.REFUSED, "Relu", "Relu_0")
    assert str(found) == "refused: Relu 'Relu_0': is a Relu: no; omit it"


def test_a_node_without_a_name_is_called_by_what_it_makes(register) -> None:
    row = LintRule(Severity.REFUSED, operator("Relu"), anywhere, "is a Relu", "no", "omit it")
    register(_target(row))
    model = qh.load(_net("Relu"))
    (node,) = model.graph
    node.name = None
    (found,) = qh.lint(model, "chip").findings
    assert str(found) == "refused: Relu 'y': is a Relu: no; omit it"


def test_an_operator_that_a_table_does_not_know_is_an_error(register) -> None:
    register(_target())
    report = qh.lint(_net("Relu", "Tanh", "Relu"), "chip")
    assert [(f.severity.value, f.op) for f in report.findings] == [("unknown", "Tanh")]
    assert not report
    assert qh.lint(_net("Relu"), "chip")


def test_unknown_operators_inside_a_branch_are_reported(register) -> None:
    made = helper.make_tensor_value_info("b", onnx.TensorProto.FLOAT, [1, 4])
    branch, other = (
        helper.make_graph([helper.make_node(op, ["x"], ["b"], op)], "branch", [], [made])
        for op in ("Tanh", "Relu")
    )
    net = model_of(
        [helper.make_node("If", ["c"], ["y"], "if", then_branch=branch, else_branch=other)],
        {"x": (1, 4)},
        ["y"],
        {"c": np.array(True)},
    )
    register(LintTarget("a chip", (unknown_operators(lambda n: n.op_type in ("If", "Relu")),)))
    assert [f.op for f in qh.lint(net, "chip").errors] == ["Tanh"]


def test_a_name_that_is_taken_is_refused(register) -> None:
    register(_target(), "finn")
    with pytest.raises(AdapterConflictError, match=r"two lint targets are called 'finn'"):
        qh.lint(_net("Relu"), "finn")


def test_a_table_without_a_row_for_unknown_operators_is_refused() -> None:
    with pytest.raises(ValueError, match="let unknown operators pass"):
        LintTarget("a chip", (LintRule(Severity.NOTE, MODEL, anywhere, "a", "b", "c"),))


def test_numbers_texts_and_lists_fill_the_texts_of_a_row(register) -> None:
    answers = {"Relu": 3, "Tanh": ("a", "b"), "Abs": ["c", "d"], "Neg": 0}
    rows = [
        LintRule(Severity.NOTE, operator(op), lambda n: answers[n.op_type], "{}", "-", "-")
        for op in answers
    ]
    register(LintTarget("a chip", (*rows, unknown_operators(anywhere))))
    report = qh.lint(_net("Relu", "Tanh", "Abs", "Neg"), "chip")
    assert [f.reason for f in report.findings] == ["3", "a", "c", "d"]


@pytest.mark.parametrize("target", OURS)
@pytest.mark.parametrize("domain", ["", "some.where"])
def test_no_target_of_ours_passes_an_unknown_operator_silently(target: str, domain) -> None:
    model = qh.load(_net("Relu"))
    relu = model.graph[0]
    relu.op_type, relu.domain = "Frobnicate", domain
    table = registry.lint_targets().load(target)
    found = find((*table.file_rules, *table.rules), model)
    assert [f.op for f in found if f.op == "Frobnicate"], found


def test_the_rules_of_all_targets_are_listed(register) -> None:
    register(_target())
    lines = CliRunner().invoke(app, ["lint", "--list"])
    assert lines.exit_code == 0
    rows = lines.stdout.splitlines()
    assert {row.split(":")[0] for row in rows} == {*OURS, "chip"}
    assert any("finn: refused: weight quantizers: is read by {} nodes" in row for row in rows)
