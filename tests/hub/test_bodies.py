"""Quantizers and QDQ pairs in the bodies of If, Loop and Scan: read, run, converted."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import qonnx_hub as qh
from qonnx_hub_ir.errors import ExecutionError
from tests.support import DOMAIN, quant_node

runtime = pytest.importorskip("onnxruntime")

X = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
W = np.random.default_rng(1).normal(size=(4, 4)).astype(np.float32)
INTEGERS = np.random.default_rng(2).integers(-127, 127, (4, 4)).astype(np.int8)


def stairs(x: np.ndarray) -> np.ndarray:
    return (np.clip(np.rint(x / np.float32(0.25)), -8, 7) * np.float32(0.25)).astype(
        np.float32
    )


def info(name, shape, kind=TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(node, outputs, inputs=(), **constants) -> onnx.ModelProto:
    held = {
        "s": np.float32(0.25),
        "z": np.float32(0),
        "b": np.float32(4),
        "c": np.uint8(100),
        "w": W,
        "wi": INTEGERS,
        "ws": np.full(4, 0.02, dtype=np.float32),
        "wz": np.zeros(4, dtype=np.int8),
        **constants,
    }
    graph = helper.make_graph(
        [node],
        "g",
        [info("x", ["N", 4]), *inputs],
        [info(name, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in held.items()],
    )
    imports = [helper.make_opsetid("", 19), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


def pair(x, y) -> list[onnx.NodeProto]:
    return [
        helper.make_node("QuantizeLinear", [x, "s", "c"], [f"{y}_q"], f"{y}_q"),
        helper.make_node("DequantizeLinear", [f"{y}_q", "s", "c"], [y], f"{y}_d"),
    ]


def branches(make) -> onnx.ModelProto:
    graphs = {
        f"{name}_branch": helper.make_graph(make(name), name, [], [info(name, ["N", 4])])
        for name in ("then", "else")
    }
    node = helper.make_node("If", ["on"], ["y"], "if", **graphs)
    return model(node, ["y"], [info("on", [], TensorProto.BOOL)])


def paired_branch(name) -> list[onnx.NodeProto]:
    weights = ["wi", "ws", "wz"]
    return [
        helper.make_node("DequantizeLinear", weights, [f"{name}_w"], f"{name}_w", axis=1),
        helper.make_node("MatMul", ["x", f"{name}_w"], [f"{name}_m"], f"{name}_m"),
        *pair(f"{name}_m", name),
    ]


def loop(nodes) -> onnx.ModelProto:
    body = helper.make_graph(
        [*nodes, helper.make_node("Identity", ["c0"], ["c1"], "on")],
        "body",
        [
            info("i", [], TensorProto.INT64),
            info("c0", [], TensorProto.BOOL),
            info("h", ["N", 4]),
        ],
        [info("c1", [], TensorProto.BOOL), info("h1", ["N", 4])],
    )
    node = helper.make_node("Loop", ["trips", "on", "x"], ["y"], "loop", body=body)
    return model(node, ["y"], trips=np.int64(3), on=np.bool_(True))


def scan(nodes, elements=4, **attributes) -> onnx.ModelProto:
    body = helper.make_graph(
        [
            helper.make_node("ReduceSum", ["e"], ["r"], "sum", keepdims=1),
            helper.make_node("Add", ["h", "r"], ["a"], "add"),
            *nodes,
            helper.make_node("Add", ["e", "h1"], ["row"], "row"),
        ],
        "body",
        [info("h", [1]), info("e", [elements])],
        [info("h1", [1]), info("row", [elements])],
    )
    attributes = {"num_scan_inputs": 1, **attributes}
    node = helper.make_node("Scan", ["h0", "x"], ["h2", "y"], "scan", body=body, **attributes)
    return model(node, ["h2", "y"], h0=np.zeros(1, dtype=np.float32))


def theirs(proto, feeds) -> list[np.ndarray]:
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = proto.SerializeToString() if isinstance(proto, onnx.ModelProto) else str(proto)
    return runtime.InferenceSession(source, options).run(None, feeds)


def read_types(proto) -> list[str]:
    return [node.op_type for node in qh.load(proto).graph.all_nodes()]


@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("to", ["qonnx", "qcdq", "qlinear"])
def test_pairs_in_branches_are_quantizers_and_are_written_again(on, to, tmp_path):
    proto, feeds = branches(paired_branch), {"x": X, "on": np.array(on)}
    assert read_types(proto).count("Quant") == 4
    wanted = theirs(proto, feeds)[0]
    np.testing.assert_allclose(qh.run(proto, feeds)["y"], wanted, atol=1e-6)
    qh.convert(proto, tmp_path / "y.onnx", to=to, self_contained=to == "qonnx")
    np.testing.assert_allclose(theirs(tmp_path / "y.onnx", feeds)[0], wanted, atol=1e-6)


@pytest.mark.parametrize("to", ["qonnx", "qcdq", "qlinear"])
def test_a_pair_in_a_loop_is_a_quantizer_and_is_written_again(to, tmp_path):
    product = helper.make_node("MatMul", ["h", "w"], ["m"], "m")
    proto = loop([product, *pair("m", "h1")])
    assert "QuantizeLinear" not in read_types(proto)
    wanted = theirs(proto, {"x": X})[0]
    np.testing.assert_allclose(qh.run(proto, {"x": X})["y"], wanted, atol=1e-6)
    qh.convert(proto, tmp_path / "y.onnx", to=to, self_contained=to == "qonnx")
    np.testing.assert_allclose(theirs(tmp_path / "y.onnx", {"x": X})[0], wanted, atol=1e-6)


@pytest.mark.parametrize("to", ["qonnx", "qcdq", "qlinear"])
def test_a_quantizer_in_a_scan_is_run_and_written(to, tmp_path):
    proto = scan([quant_node("a", "h1")])
    state, rows = np.zeros(1, dtype=np.float32), []
    for element in X:
        state = stairs(state + element.sum(dtype=np.float32))
        rows.append(element + state)
    found = qh.run(proto, {"x": X})
    np.testing.assert_array_equal(found["h2"], state)
    np.testing.assert_array_equal(found["y"], np.stack(rows))
    qh.convert(proto, tmp_path / "y.onnx", to=to, self_contained=to == "qonnx")
    np.testing.assert_allclose(theirs(tmp_path / "y.onnx", {"x": X})[1], np.stack(rows))


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("backwards", [0, 1])
@pytest.mark.parametrize("made_axis", [0, 1])
@pytest.mark.parametrize("made_backwards", [0, 1])
def test_a_scan_goes_along_any_axis_in_both_directions(
    axis, backwards, made_axis, made_backwards
):
    proto = scan(
        [helper.make_node("Neg", ["a"], ["h1"], "neg")],
        elements=4 if axis == 0 else 3,
        scan_input_axes=[axis],
        scan_input_directions=[backwards],
        scan_output_axes=[made_axis],
        scan_output_directions=[made_backwards],
    )
    proto.graph.input[0].CopyFrom(info("x", [3, 4]))
    wanted = theirs(proto, {"x": X})
    found = qh.run(proto, {"x": X})
    np.testing.assert_allclose(found["h2"], wanted[0], rtol=1e-5)
    np.testing.assert_allclose(found["y"], wanted[1], rtol=1e-5)


def test_a_parameter_that_a_body_computes_of_constants_is_known():
    def make(name):
        half = helper.make_node("Mul", ["s", "two"], [f"{name}_s"], f"{name}_s")
        two = helper.make_node("Constant", [], ["two"], value_float=2.0)
        return [two, half, quant_node("x", name, scale=f"{name}_s")]

    tensors = qh.inspect(branches(make)).tensors
    assert [tensor.scale for tensor in tensors] == ["0.5", "0.5"]


def test_values_of_bodies_have_types_and_shapes():
    read = qh.load(branches(paired_branch))
    inner = [value for node in read.graph.all_nodes() for value in node.outputs]
    assert all(value.dtype is not None and value.shape is not None for value in inner)


def test_the_shapes_of_two_branches_with_equal_names_stay_apart():
    def make(name):
        count = 1 if name == "then" else 2
        parts = ["x"] * count
        return [
            helper.make_node("Concat", parts, ["t"], f"{name}_c", axis=1),
            helper.make_node("ReduceMax", ["t", "axes"], [name], f"{name}_r"),
        ]

    proto = branches(make)
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1]), "axes"))
    joins = [n for n in qh.load(proto).graph.all_nodes() if n.op_type == "Concat"]
    assert sorted(node.outputs[0].shape[1] for node in joins) == [4, 8]


SIGNED = np.array([[-2.0, -0.5, 0.5, 2.0]], dtype=np.float32)


def sharing(body: onnx.GraphProto, op: str) -> onnx.ModelProto:
    """Return a net of which a body reads 'n', which is an output as well."""
    if op == "If":
        node = helper.make_node("If", ["c"], ["z"], "if", then_branch=body, else_branch=body)
    else:
        node = helper.make_node("Loop", ["turns", "", "n"], ["z"], "loop", body=body)
    nodes = [
        helper.make_node("Neg", ["x"], ["n"], "neg"),
        node,
        helper.make_node("Relu", ["z"], ["y"], "relu"),
    ]
    graph = helper.make_graph(
        nodes,
        "sharing",
        [info("x", ["N", 4]), info("c", [], TensorProto.BOOL)],
        [info("y", ["N", 4]), info("n", ["N", 4])],
        [numpy_helper.from_array(np.array(3, dtype=np.int64), "turns")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("op", ["Relu", "Identity", "Exp"])
@pytest.mark.parametrize("on", [False, True])
def test_a_branch_leaves_what_it_reads_from_around_it(op, on):
    body = helper.make_graph(
        [helper.make_node(op, ["n"], ["r"], "inner")], "body", [], [info("r", None)]
    )
    found = qh.run(sharing(body, "If"), {"x": SIGNED, "c": np.array(on)})
    np.testing.assert_array_equal(found["n"], -SIGNED)
    made = {"Relu": lambda x: x.clip(0), "Identity": lambda x: x, "Exp": np.exp}[op](-SIGNED)
    np.testing.assert_array_equal(found["y"], made.clip(0))


def test_a_loop_reads_the_same_value_from_around_it_in_every_turn():
    nodes = [
        helper.make_node("Clip", ["n", "low"], ["r"], "inner"),
        helper.make_node("Add", ["r", "v"], ["more"], "add"),
        helper.make_node("Identity", ["go"], ["on"], "go"),
    ]
    body = helper.make_graph(
        nodes,
        "body",
        [info("i", [], TensorProto.INT64), info("go", [], TensorProto.BOOL), info("v", [])],
        [info("on", [], TensorProto.BOOL), info("more", None)],
        [numpy_helper.from_array(np.array(-1, dtype=np.float32), "low")],
    )
    body.input[2].type.tensor_type.ClearField("shape")
    found = qh.run(sharing(body, "Loop"), {"x": SIGNED, "c": np.array(True)})
    np.testing.assert_array_equal(found["n"], -SIGNED)
    # Three times what the Clip leaves, on top of what the loop starts with.
    np.testing.assert_array_equal(found["y"], (-SIGNED + 3 * (-SIGNED).clip(-1)).clip(0))


@pytest.mark.parametrize("count", [None, (1 << 63) - 1])
def test_a_loop_whose_condition_never_ends_it_is_named(count: int | None, monkeypatch) -> None:
    from qonnx_hub.executor import control_flow

    monkeypatch.setattr(control_flow, "MOST_TURNS", 50)
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Identity", ["going"], ["on"]),
        helper.make_node("Neg", ["state"], ["next"]),
    ]
    ends = [value("turn", TensorProto.INT64, []), value("going", TensorProto.BOOL, [])]
    body = helper.make_graph(
        nodes,
        "body",
        [*ends, value("state", TensorProto.FLOAT, [2])],
        [value("on", TensorProto.BOOL, []), value("next", TensorProto.FLOAT, [2])],
    )
    constants = [numpy_helper.from_array(np.array(True), "yes")]
    if count is not None:
        constants.append(numpy_helper.from_array(np.array(count, dtype=np.int64), "count"))
    graph = helper.make_graph(
        [
            helper.make_node(
                "Loop", ["count" if count else "", "yes", "x"], ["y"], "endless", body=body
            )
        ],
        "g",
        [value("x", TensorProto.FLOAT, [2])],
        [value("y", TensorProto.FLOAT, [2])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])
    with pytest.raises(ExecutionError, match=r"Loop 'endless'.*still holds after 50 turns"):
        qh.run(model, {"x": np.zeros(2, dtype=np.float32)})
