"""Places in which graphs are written otherwise: numbers that were folded, or that are off."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir
import pytest
from onnx_ir import Node

from qonnx_hub.analysis.diff import Change, WeightChange
from qonnx_hub.equivalence.rewriting import ROUNDED, Rewriting, find_rewriting
from qonnx_hub_adapters.onnx_reader import read_model
from tests.support import model_of, quant_node


def quantizer(scale: Any) -> Node:
    """A quantizer of rows of six numbers, by a scale or by one for each of them."""
    constants = {"s": np.asarray(scale, dtype=np.float32), "z": 0.0, "b": 8.0}
    made = read_model(
        model_of([quant_node("x", "y")], {"x": (2, np.size(scale))}, ["y"], constants)
    )
    return next(node for node in made.graph if node.op_type == "Quant")


def step(op_type: str, count: int = 1) -> Node:
    inputs = [onnx_ir.Value(name=f"{op_type} {index}") for index in range(count)]
    return onnx_ir.node(op_type, inputs, name=op_type)


def changed(one: Node | None, other: Node | None, kind: str) -> Rewriting:
    """Return what is found of one change, beside numbers that both sides have."""
    named = {"n": one} if one else {}, {"m": other} if other else {}
    change = Change("n" if one else "", "m" if other else "", kind, "", "", "")
    held = {"w": np.array([2.5, 3.5], dtype=np.float32)}
    return find_rewriting([change], [], named, (held, held), ())


@pytest.mark.parametrize("number", [-1.0, 0.0, 1.0])
def test_a_neutral_number_of_one_side_comes_from_nowhere_and_need_not(number: float) -> None:
    assert stored([2.5], [2.5, number]).moved
    assert stored([2.5, number], [2.5]).moved


@pytest.mark.parametrize("number", [-2.0, 0.5, 2.0])
def test_another_number_of_one_side_alone_was_not_taken_up(number: float) -> None:
    assert not stored([2.5], [2.5, number]).moved
    assert not stored([2.5, number], [2.5]).moved


def test_numbers_of_both_sides_may_hold_each_other() -> None:
    assert stored([2.5, 3.0], [2.5, 4.0]).moved


def stored(*values: list[float]) -> Rewriting:
    one, other = ({"w": np.array(part, dtype=np.float32)} for part in values)
    return find_rewriting([], [], ({}, {}), (one, other), ())


@pytest.mark.parametrize(
    ("name", "count", "holds"),
    [("Sigmoid", 1, True), ("Mul", 2, False), ("MatMul", 2, False), ("Relu", 1, False)],
)
def test_a_number_may_be_in_what_a_function_of_the_other_side_is(
    name: str, count: int, holds: bool
) -> None:
    values = np.array([2.5], dtype=np.float32), np.array([2.5, 7.0], dtype=np.float32)
    named = {"n": step(name, count)}, {}
    change = Change("n", "", "missing", "", "", "")
    sides = {"w": values[0]}, {"w": values[1]}
    assert find_rewriting([change], [], named, sides, ()).moved is holds


@pytest.mark.parametrize(
    ("first", "second", "is_rounded"),
    [
        (1.0, 1.0 + ROUNDED, True),
        (1.0, 1.0 - ROUNDED, True),
        (1.0, 1.0 + 2 * ROUNDED, False),
        (1.0, 1.0, False),
        (0.25, 0.25 + ROUNDED, False),
        ([0.5, 0.5 + ROUNDED / 4], 0.5, True),
        (0.5, [0.5, 0.5 + ROUNDED / 4], True),
        ([0.5, 0.75], 0.5, False),
        ([0.5, 0.5 + ROUNDED / 4], [0.5, 0.5, 0.5], False),
    ],
)
def test_a_scale_that_is_off_by_its_last_digits_was_not_folded(
    first: Any, second: Any, is_rounded: bool
) -> None:
    found = changed(quantizer(first), quantizer(second), "quantizer")
    assert found.moved is not is_rounded
    assert found.places == 1


def test_a_scale_has_to_stand_against_a_scale() -> None:
    assert changed(quantizer(1.0), step("Relu"), "operator").moved
    assert changed(step("Relu"), quantizer(1.0), "operator").moved
    assert changed(None, quantizer(1.0), "added").moved


@pytest.mark.parametrize(("name", "count"), [("Transpose", 0), ("Flatten", 0), ("Relu", 1)])
def test_what_only_moves_values_is_no_stranger(name: str, count: int) -> None:
    assert changed(step(name), None, "missing").strangers == count
    assert changed(None, step(name), "added").strangers == count


def test_what_has_a_counterpart_is_no_stranger() -> None:
    assert changed(step("Relu"), step("Sigmoid"), "operator").strangers == 0


def test_wiring_and_what_layers_explain_are_no_places() -> None:
    node = step("Relu")
    assert changed(node, node, "wiring").places == 0
    change = Change("n", "", "missing", "", "", "")
    assert find_rewriting([change], [], ({"n": node}, {}), ({}, {}), [node]).places == 0


@pytest.mark.parametrize(("largest", "moved"), [(4 * ROUNDED, False), (5 * ROUNDED, True)])
def test_a_weight_that_is_off_by_its_last_digits_was_not_folded(
    largest: float, moved: bool
) -> None:
    held = {"w": np.array([-4.0, 1.0], dtype=np.float32)}
    change = WeightChange("w", 2, 1, largest, "value")
    found = find_rewriting([], [change], ({}, {}), (held, held), ())
    assert found == Rewriting(places=1, strangers=0, moved=moved)


def test_two_places_make_another_form_and_one_makes_none() -> None:
    assert not Rewriting(places=1).may_be_equal
    assert Rewriting(places=2).may_be_equal
    assert not Rewriting(places=2, moved=False).may_be_equal
