"""The executor's plan and session: feeds, batches, buffers, subgraphs, failures."""

from __future__ import annotations

import threading

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper

import qonnx_hub as qh
from qonnx_hub.executor import planner
from qonnx_hub.executor.batch_axis import Batcher
from qonnx_hub_ir.errors import ExecutionError, UnsupportedGraphError, UsageError
from tests.support import model_of, quant_node

CONSTANTS = {"s": 0.5, "z": 0.0, "b": 3.0}


def _session(*args: object, **kwargs: object) -> qh.Session:
    return qh.Session(qh.load(model_of(*args, **kwargs)))  # type: ignore[arg-type]


def _floats(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_outputs_come_in_the_order_of_the_graph() -> None:
    nodes = [
        helper.make_node("Neg", ["x"], ["minus"]),
        helper.make_node("Abs", ["x"], ["size"]),
    ]
    session = _session(nodes, {"x": (2,)}, ["size", "minus"])
    result = session.run({"x": _floats(-1, 2)})
    assert list(result) == ["size", "minus"]
    np.testing.assert_array_equal(result["size"], _floats(1, 2))
    np.testing.assert_array_equal(result["minus"], _floats(1, -2))


def test_every_intermediate_is_there_on_request() -> None:
    nodes = [quant_node("x", "q"), helper.make_node("Relu", ["q"], ["y"])]
    session = _session(nodes, {"x": (3,)}, ["y"], CONSTANTS)
    tensors = session.run({"x": _floats(-0.6, 0.6, 9)}, all_tensors=True)
    # 3 signed bits: -4 to 3 steps of a half.
    np.testing.assert_array_equal(tensors["q"], _floats(-0.5, 0.5, 1.5))
    np.testing.assert_array_equal(tensors["y"], _floats(0, 0.5, 1.5))
    np.testing.assert_array_equal(tensors["x"], _floats(-0.6, 0.6, 9))


def test_the_callers_arrays_are_never_changed() -> None:
    nodes = [
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node("Relu", ["same"], ["r"]),
        helper.make_node("Add", ["r", "r"], ["y"]),
    ]
    session = _session(nodes, {"x": (3,)}, ["y", "same"])
    x = _floats(-1, 0, 1)
    result = session.run({"x": x})
    np.testing.assert_array_equal(x, _floats(-1, 0, 1))
    result["same"][:] = 7
    np.testing.assert_array_equal(x, _floats(-1, 0, 1))


def test_a_constant_output_cannot_be_changed_from_outside() -> None:
    nodes = [helper.make_node("Neg", ["c"], ["k"]), helper.make_node("Add", ["x", "k"], ["y"])]
    session = _session(nodes, {"x": (1,)}, ["y", "k"], {"c": _floats(2)})
    first = session.run({"x": _floats(1)})
    first["k"][:] = 99
    np.testing.assert_array_equal(session.run({"x": _floats(1)})["y"], _floats(-1))


def test_buffers_are_not_reused_while_a_view_of_them_lives() -> None:
    nodes = [
        helper.make_node("Add", ["x", "one"], ["a"]),
        helper.make_node("Reshape", ["a", "shape"], ["view"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Reshape", ["r", "shape"], ["flat"]),
        helper.make_node("Sub", ["view", "flat"], ["y"]),
    ]
    constants = {"one": 1.0, "shape": np.array([4], dtype=np.int64)}
    session = _session(nodes, {"x": (2, 2)}, ["y"], constants)
    x = np.array([[-3, 1], [0, -2]], dtype=np.float32)
    # min(x + 1, 0), by hand.
    np.testing.assert_array_equal(session.run({"x": x})["y"], _floats(-2, 0, 0, -1))


def test_large_arrays_computed_in_place_give_the_same_numbers() -> None:
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["a"]),
        helper.make_node("Sub", ["a", "c"], ["b0"]),
        helper.make_node("Relu", ["b0"], ["r"]),
        quant_node("r", "y"),
    ]
    session = _session(nodes, {"x": ("N",)}, ["y"], {**CONSTANTS, "c": 1.0})
    x = np.random.default_rng(0).uniform(-2, 2, 300_000).astype(np.float32)
    expected = np.clip(np.rint(np.maximum(x * x - np.float32(1), 0) / 0.5), -4, 3) * 0.5
    np.testing.assert_array_equal(session.run({"x": x})["y"], expected.astype(np.float32))
    np.testing.assert_array_equal(session.run({"x": x})["y"], expected.astype(np.float32))


def test_one_session_serves_several_threads() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Relu", ["m"], ["y"]),
    ]
    rng = np.random.default_rng(1)
    weight = rng.integers(-3, 4, (64, 64)).astype(np.float32)
    session = _session(nodes, {"x": ("N", 64)}, ["y"], {"w": weight})
    feeds = [rng.integers(-3, 4, (50, 64)).astype(np.float32) for _ in range(4)]
    wrong: list[int] = []

    def work(index: int) -> None:
        expected = np.maximum(feeds[index].astype(np.int64) @ weight.astype(np.int64), 0)
        answers = [session.run({"x": feeds[index]})["y"] for _ in range(30)]
        wrong.extend(index for answer in answers if not np.array_equal(answer, expected))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def _frozen(
    nodes: list[onnx.NodeProto], shape: tuple[int, ...], **constants: object
) -> qh.Session:
    return _session(nodes, {"x": shape}, ["y"], constants)


def test_a_file_frozen_to_one_sample_takes_many() -> None:
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    shape, weight = np.array([1, 4], dtype=np.int64), np.eye(4, 2, dtype=np.float32)
    session = _session(nodes, {"x": (1, 2, 2)}, ["y"], {"shape": shape, "w": weight})
    x = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    expected = np.array([[0, 1], [4, 5], [8, 9]], dtype=np.float32)
    np.testing.assert_array_equal(session.run({"x": x})["y"], expected)
    assert session._batcher.is_apart()


@pytest.mark.parametrize(
    ("node", "constants"),
    [
        (helper.make_node("Softmax", ["x"], ["y"], axis=0), {}),
        (helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0]), {}),
        (
            helper.make_node("ReduceMean", ["x", "a"], ["y"]),
            {"a": np.array([0], dtype=np.int64)},
        ),
        (
            helper.make_node("MatMul", ["w", "x"], ["y"]),
            {"w": np.ones((2, 1), dtype=np.float32)},
        ),
        (
            helper.make_node("Concat", ["x", "w"], ["y"], axis=0),
            {"w": np.ones((1, 3), np.float32)},
        ),
        (helper.make_node("CumSum", ["x", "a"], ["y"]), {"a": np.array(0, dtype=np.int64)}),
        (helper.make_node("Add", ["x", "w"], ["y"]), {"w": np.ones((2, 3), dtype=np.float32)}),
        (
            helper.make_node("Reshape", ["x", "a"], ["y"]),
            {"a": np.array([3, 1], dtype=np.int64)},
        ),
    ],
    ids=lambda v: v.op_type if isinstance(v, onnx.NodeProto) else "",
)
def test_samples_that_mix_are_never_computed_together(
    node: onnx.NodeProto, constants: dict[str, np.ndarray]
) -> None:
    model = qh.load(model_of([node], {"x": (1, 3)}, ["y"], constants))
    assert not Batcher(model).is_apart()


def test_samples_that_may_mix_are_computed_one_by_one() -> None:
    node = helper.make_node("Softmax", ["x"], ["y"], axis=0)
    session = _frozen([node], (1, 3))
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    # Over one sample, a softmax along the samples is one everywhere.
    np.testing.assert_array_equal(session.run({"x": x})["y"], np.ones((5, 3), np.float32))


def test_an_output_without_samples_says_so() -> None:
    nodes = [helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)]
    session = _frozen(nodes, (1, 2))
    with pytest.raises(UsageError, match="'y' has no axis for samples"):
        session.run({"x": np.array([[1, 2], [3, 4]], dtype=np.float32)})


def test_a_batch_option_splits_and_joins() -> None:
    session = _session([quant_node("x", "y")], {"x": ("N", 2)}, ["y"], CONSTANTS)
    x = np.arange(14, dtype=np.float32).reshape(7, 2) / 8
    whole = session.run({"x": x})["y"]
    np.testing.assert_array_equal(session.run({"x": x}, batch=3)["y"], whole)


@pytest.mark.parametrize(
    ("feeds", "words"),
    [
        ({}, "missing inputs: x"),
        ({"x": _floats(1, 2), "z": _floats(1)}, "unknown inputs: z"),
        ({"x": np.zeros(2, dtype=np.float64)}, r"takes float32, float64 is given"),
        ({"x": np.zeros((2, 2), dtype=np.float32)}, r"shape \[2\], \[2, 2\] is given"),
        ({"x": np.zeros(0, dtype=np.float32)}, "takes batches of 2, 0 are given"),
    ],
)
def test_feeds_that_do_not_fit_are_a_usage_error(
    feeds: dict[str, np.ndarray], words: str
) -> None:
    session = _session([helper.make_node("Relu", ["x"], ["y"])], {"x": (2,)}, ["y"])
    with pytest.raises(UsageError, match=words):
        session.run(feeds)


def test_a_failing_node_is_named_with_its_shapes() -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "product")
    session = _session([node], {"x": ("N", "M"), "w": ("M", "K")}, ["y"])
    feeds = {"x": np.zeros((2, 3), np.float32), "w": np.zeros((4, 5), np.float32)}
    with pytest.raises(ExecutionError, match=r"MatMul 'product'.*float32\[2, 3\]"):
        session.run(feeds)


def test_an_operator_that_nothing_can_run_is_named() -> None:
    strings = helper.make_node("StringNormalizer", ["x"], ["y"], "words")
    graph = helper.make_graph(
        [strings],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.STRING, [1])],
        [helper.make_tensor_value_info("y", TensorProto.STRING, None)],
    )
    model = qh.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)]))
    session = qh.Session(model)
    assert session.output_names == ("y",)
    custom = model_of([helper.make_node("Relu", ["x"], ["y"], "r")], {"x": (1,)}, ["y"])
    foreign = qh.load(custom)
    foreign.graph[0].domain = "somebody.else"
    foreign.opset_imports["somebody.else"] = 1
    with pytest.raises(UnsupportedGraphError, match=r"somebody\.else::Relu 'r'"):
        qh.Session(foreign)


def test_branches_read_values_of_the_graph_around_them() -> None:
    def branch(op: str, name: str) -> onnx.GraphProto:
        output = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(op, ["r"], [name])], name, [], [output])

    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("Greater", ["total", "nil"], ["positive"]),
        helper.make_node(
            "If",
            ["positive"],
            ["y"],
            then_branch=branch("Neg", "a"),
            else_branch=branch("Identity", "b"),
        ),
    ]
    session = _session(nodes, {"x": (2,)}, ["y"], {"nil": 0.0})
    np.testing.assert_array_equal(session.run({"x": _floats(-1, 4)})["y"], _floats(0, -4))
    np.testing.assert_array_equal(session.run({"x": _floats(-5, 4)})["y"], _floats(0, 4))


def test_a_loop_may_give_one_value_twice() -> None:
    def info(name: str, kind: int, shape: list[int]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kind, shape)

    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["go_on"]),
            helper.make_node("Add", ["total", "step"], ["sum"]),
        ],
        "body",
        [
            info("count", TensorProto.INT64, []),
            info("going", TensorProto.BOOL, []),
            info("total", TensorProto.FLOAT, []),
        ],
        [
            info("go_on", TensorProto.BOOL, []),
            info("sum", TensorProto.FLOAT, []),
            info("sum", TensorProto.FLOAT, []),
        ],
    )
    node = helper.make_node("Loop", ["n", "", "x"], ["last", "all"], body=body)
    constants = {"n": np.array(3, dtype=np.int64), "step": 2.0}
    session = _session([node], {"x": ()}, ["last", "all"], constants)
    result = session.run({"x": np.array(1, dtype=np.float32)})
    np.testing.assert_array_equal(result["last"], np.array(7, dtype=np.float32))
    np.testing.assert_array_equal(result["all"], _floats(3, 5, 7))


def test_parameters_computed_at_run_time_are_used() -> None:
    nodes = [
        helper.make_node("ReduceMax", ["x"], ["top"], keepdims=0),
        quant_node("x", "y", "top"),
    ]
    session = _session(nodes, {"x": (4,)}, ["y"], {"z": 0.0, "b": 2.0})
    # Scale 2: two signed bits hold -2 to 1 steps.
    np.testing.assert_array_equal(
        session.run({"x": _floats(2, 1, -3, -9)})["y"], _floats(2, 0, -4, -4)
    )


def test_a_quantized_weight_is_computed_once_and_can_be_read() -> None:
    nodes = [quant_node("w", "wq"), helper.make_node("MatMul", ["x", "wq"], ["y"])]
    weight = np.array([[0.3], [-9.0]], dtype=np.float32)
    session = _session(nodes, {"x": ("N", 2)}, ["y"], {**CONSTANTS, "w": weight})
    assert [step.node for step in session._plan.steps] == ["MatMul 'MatMul_0'"]
    tensors = session.run({"x": np.ones((1, 2), np.float32)}, all_tensors=True)
    np.testing.assert_array_equal(tensors["wq"], np.array([[0.5], [-2.0]], np.float32))


def test_an_initializer_without_a_reader_needs_no_memory_in_the_plan() -> None:
    model = qh.load(
        model_of([helper.make_node("Relu", ["x"], ["y"])], {"x": (1,)}, ["y"], {"unused": 1.0})
    )
    assert not model.graph.initializers


def _flatten_of(batch: int) -> onnx.ModelProto:
    """The flatten of torch: the batch is read from the input, put before -1."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Unsqueeze", ["n", "axes"], ["u"]),
        helper.make_node("Concat", ["u", "rest"], ["t"], axis=0),
        helper.make_node("Reshape", ["x", "t"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    constants = {
        "zero": np.array(0, dtype=np.int64),
        "axes": np.array([0], dtype=np.int64),
        "rest": np.array([-1], dtype=np.int64),
        "w": np.arange(12, dtype=np.float32).reshape(6, 2),
    }
    return model_of(nodes, {"x": (batch, 2, 3)}, ["y"], constants)


def test_sizes_that_a_graph_reads_are_those_of_the_feeds() -> None:
    session = qh.Session(qh.load(_flatten_of(2)))
    x = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    w = np.arange(12, dtype=np.float32).reshape(6, 2)
    np.testing.assert_array_equal(session.run({"x": x})["y"], x.reshape(4, 6) @ w)
    np.testing.assert_array_equal(session.run({"x": x[:2]})["y"], x[:2].reshape(2, 6) @ w)
    shown = session.run({"x": x}, all_tensors=True)
    np.testing.assert_array_equal(shown["t"], [4, -1])


def test_a_batch_needs_no_copy_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    model = qh.load(_flatten_of(1))
    monkeypatch.setattr(type(model), "clone", None)
    assert Batcher(model).is_apart()


def test_shapes_that_were_changed_by_hand_are_not_trusted() -> None:
    node = helper.make_node("Add", ["x", "w"], ["y"])
    model = qh.load(model_of([node], {"x": (1, 3)}, ["y"], {"w": np.ones((3,), np.float32)}))
    assert Batcher(model).free_shapes is not None
    # The weight now adds an axis, in front of which the samples do not stand.
    weight = model.graph.initializers["w"]
    weight.const_value = onnx_ir.tensor(np.ones((4, 1, 3), dtype=np.float32))
    weight.shape = onnx_ir.Shape([4, 1, 3])
    assert Batcher(model).free_shapes is None
    assert not Batcher(model).is_apart()


def test_a_session_returns_the_values_that_it_was_asked_for() -> None:
    nodes = [quant_node("x", "q"), helper.make_node("Neg", ["q"], ["y"])]
    model = qh.load(model_of(nodes, {"x": (1, 2)}, ["y"], CONSTANTS))
    x = np.array([[0.5, 1.0], [1.5, 0.25], [1.0, 0.5]], dtype=np.float32)
    whole = qh.Session(model).run({"x": x}, all_tensors=True)
    found = qh.Session(model, outputs=["q"]).run({"x": x})
    assert list(found) == ["q"]
    np.testing.assert_array_equal(found["q"], whole["q"])


def test_values_that_depend_on_no_input_do_not_keep_samples_from_a_batch() -> None:
    nodes = [
        helper.make_node("RandomNormal", [], ["r"], shape=[2], seed=1.0),
        helper.make_node("Neg", ["x"], ["y"]),
    ]
    model = onnx_ir.from_proto(model_of(nodes, {"x": (1, 2)}, ["y"]))
    session = qh.Session(model, outputs=["r", "y"])
    found = session.run({"x": np.ones((3, 2), dtype=np.float32)})
    assert found["r"].shape == (2,)
    assert found["y"].shape == (3, 2)


def test_a_session_refuses_outputs_that_the_graph_does_not_have() -> None:
    model = qh.load(model_of([quant_node("x", "y")], {"x": (1, 2)}, ["y"], CONSTANTS))
    with pytest.raises(UsageError, match="no values nothing to return"):
        qh.Session(model, outputs=["nothing"])


def test_what_the_reference_returns_is_not_overwritten(monkeypatch) -> None:
    # onnx.reference hands an unbounded Clip's input on as it is; our own kernel copies it.
    ours = {key: make for key, make in planner.kernel_table().items() if key != ("", "Clip")}
    monkeypatch.setattr(planner, "kernel_table", lambda: ours)
    clip = helper.make_node("Clip", ["x"], ["t"], name="clip")
    relu = helper.make_node("Relu", ["t"], ["y"], name="relu")
    x = np.linspace(-1, 1, 2 * 8192, dtype=np.float32).reshape(2, 8192)
    fed = x.copy()
    answer = qh.run(model_of([clip, relu], {"x": (2, 8192)}, ["y"]), {"x": fed})["y"]
    np.testing.assert_array_equal(answer, np.maximum(x, 0))
    np.testing.assert_array_equal(fed, x)
    same = qh.run(model_of([clip], {"x": (2, 8192)}, ["t"]), {"x": fed})["t"]
    assert not np.shares_memory(same, fed)


def test_a_batch_of_a_known_size_gives_the_same_bits_again() -> None:
    weights = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"]),
        helper.make_node("Softmax", ["p"], ["y"], axis=1),
    ]
    session = qh.Session(model_of(nodes, {"x": (1, 7)}, ["y"], {"w": weights}))
    x = np.random.default_rng(1).normal(size=(9, 7)).astype(np.float32)
    first, again = session.run({"x": x})["y"], session.run({"x": x})["y"]
    alone = np.concatenate([session.run({"x": x[i : i + 1]})["y"] for i in range(9)])
    np.testing.assert_array_equal(first.view(np.uint32), again.view(np.uint32))
    np.testing.assert_allclose(first, alone, rtol=1e-5)
    with pytest.raises(UsageError, match="takes float32"):
        session.run({"x": x.astype(np.float64)})
    with pytest.raises(UsageError, match="has shape"):
        session.run({"x": x[:, :6]})
