"""Random valid graphs and their conversions compute what other programs compute.

Set ``QONNX_HUB_FUZZ_GRAPHS`` for more graphs than fit a usual run.
"""

from __future__ import annotations

import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.fuzz import differential
from tests.fuzz.differential import graph_of, judge, run_graphs
from tests.fuzz.oracles import alike
from tests.fuzz.wide_steps import STEPS

GRAPHS = int(os.environ.get("QONNX_HUB_FUZZ_GRAPHS", "60"))
SEED = int(os.environ.get("QONNX_HUB_FUZZ_SEED", "0"))


def test_no_number_is_wrong_and_nothing_breaks() -> None:
    tally = run_graphs(GRAPHS, SEED, every=6)
    broken = [found for found in tally.finds if found[1].kind in ("wrong", "crash", "hang")]
    assert broken == [], tally.report()
    assert tally.graphs == GRAPHS


def test_a_graph_is_made_of_seed_and_number_alone() -> None:
    model, feeds = graph_of(3, 5)
    again, others = graph_of(3, 5)
    assert model.SerializeToString() == again.SerializeToString()
    assert all(np.array_equal(feeds[n], others[n], equal_nan=True) for n in feeds)
    assert graph_of(4, 5)[0].SerializeToString() != model.SerializeToString()


def test_graphs_are_valid_and_have_operators_types_and_bodies_of_many_kinds() -> None:
    operators, kinds, opsets = set(), set(), set()
    for number in range(80):
        model, feeds = graph_of(SEED, number)
        if all(value.type.tensor_type.HasField("shape") for value in model.graph.input):
            onnx.checker.check_model(model)
        operators |= {node.op_type for node in model.graph.node}
        kinds |= {array.dtype.name for array in feeds.values()}
        opsets.add(model.opset_import[0].version)
    assert len(operators) > 70
    assert {"Quant", "QuantizeLinear", "If"} <= operators
    assert len(kinds) > 4
    assert len(opsets) > 10
    assert len(STEPS) > 15


def product(bias: float) -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="product"),
        helper.make_node("Add", ["m", "b"], ["y"], name="sum"),
    ]
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, None])],
        [
            numpy_helper.from_array(np.ones((3, 2), np.float32), "w"),
            numpy_helper.from_array(np.float32(bias), "b"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


FEEDS = {"x": np.ones((2, 3), dtype=np.float32)}


def test_a_wrong_number_is_found_and_its_operator_named(monkeypatch) -> None:
    assert judge(product(1), FEEDS) == []
    right = differential._run

    def shifted(model, feeds, all_tensors=False):
        found = right(model, feeds, all_tensors)
        return {n: a + 1 if n == "y" else a for n, a in found.items()}

    monkeypatch.setattr(differential, "_run", shifted)
    (find,) = judge(product(1), FEEDS)
    assert (find.kind, find.stage, find.operator) == ("wrong", "run", "Add")


def test_a_traceback_is_a_crash_and_an_error_of_one_line_a_refusal(monkeypatch) -> None:
    from qonnx_hub_ir.errors import UsageError

    for error, kind in ((ValueError("spoiled"), "crash"), (UsageError("said"), "refused")):

        def failing(model, feeds, all_tensors=False, error=error):
            raise error

        monkeypatch.setattr(differential, "_run", failing)
        (find,) = judge(product(1), FEEDS)
        assert (find.kind, find.stage) == (kind, "run")


def test_a_nan_is_seen_that_only_a_body_knows() -> None:
    def model(start: float) -> onnx.ModelProto:
        value = helper.make_tensor_value_info
        nodes = [
            helper.make_node("Sqrt", ["x"], ["root"]),
            helper.make_node("IsNaN", ["root"], ["flag"]),
            helper.make_node("Cast", ["flag"], ["inner"], to=TensorProto.FLOAT),
        ]
        graphs = [
            helper.make_graph(
                [*nodes, helper.make_node("Mul", ["inner", "nil"], [f"out{k}"])],
                f"branch{k}",
                [],
                [value(f"out{k}", TensorProto.FLOAT, [2])],
            )
            for k in range(2)
        ]
        branches = dict(zip(("then_branch", "else_branch"), graphs, strict=True))
        graph = helper.make_graph(
            [helper.make_node("If", ["yes"], ["y"], **branches)],
            "g",
            [value("x", TensorProto.FLOAT, [2])],
            [value("y", TensorProto.FLOAT, [2])],
            [
                numpy_helper.from_array(np.array(True), "yes"),
                numpy_helper.from_array(np.float32(start), "nil"),
            ],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])

    negative, positive = ({"x": np.full(2, v, dtype=np.float32)} for v in (-1, 1))
    assert differential._meets_nan(model(0), negative)
    assert not differential._meets_nan(model(0), positive)


@pytest.mark.parametrize(
    ("theirs", "ours", "same"),
    [
        ([1.0, np.nan], [1.0, np.nan], True),
        ([1.0, 0.0], [1.0 + 1e-6, 1e-6], True),
        ([1.0, 2.0], [1.0, 2.001], False),
        ([1.0, np.inf], [1.0, 5.0], False),
        ([1.0, np.nan], [1.0, 0.0], False),
    ],
)
def test_numbers_are_alike_up_to_the_order_of_sums(theirs, ours, same) -> None:
    assert alike(np.array(theirs, np.float32), np.array(ours, np.float32)) is same
