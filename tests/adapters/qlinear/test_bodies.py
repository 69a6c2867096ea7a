"""Layers in the bodies of If, Loop and Scan: integers by the same rules as outside of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper
from onnx.helper import make_node

from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_adapters.protocol import Artifact, ImportOptions, export_options
from qonnx_hub_adapters.qlinear.exporter import QlinearExporter
from qonnx_hub_adapters.qlinear.importer import QlinearImporter
from tests.adapters.qlinear.kit import Net, export, inputs_of, net
from tests.adapters.qlinear.test_importer import QLINEAR_INPUTS
from tests.adapters.qlinear.test_importer_forms import in_branches
from tests.support import model_of

FLOAT, BOOL, INT64 = TensorProto.FLOAT, TensorProto.BOOL, TensorProto.INT64
ROWS = np.random.default_rng(5).normal(0, 1, (2, 4, 4))


def _info(name: str, kind: int = FLOAT, shape: Any = None) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def _layer(n: Net, x: str, y: str, k: int = 0, scale: float = 0.25) -> list[onnx.NodeProto]:
    """Nodes of a quantized layer from ``x`` to ``y``; its constants stay in the net."""
    inner = Net([], n.constants)
    inner.quant(x, f"{y}_x", 0.25, 4)
    inner.weight(f"{y}_w", ROWS[k], scale, 4, narrow=1)
    inner.add("MatMul", [f"{y}_x", f"{y}_w"], f"{y}_sum")
    inner.quant(f"{y}_sum", y, 0.5, 4)
    return inner.nodes


def run_everywhere(artifact: Artifact, feeds: Any) -> Any:
    """Return a file's outputs, once both engines agree on them."""
    ort = pytest.importorskip("onnxruntime")
    proto = onnx_ir.to_proto(artifact.model)
    ours = Session(read_model(proto)).run(feeds)
    session = ort.InferenceSession(proto.SerializeToString())
    for value, theirs in zip(session.get_outputs(), session.run(None, feeds), strict=True):
        np.testing.assert_array_equal(ours[value.name], theirs)
    return ours


def assert_exact(model: onnx_ir.Model, artifact: Artifact) -> None:
    assert all(record.exact for record in artifact.quantizers), artifact.quantizers
    reference = Session(model)
    for seed in range(6):
        feeds = inputs_of(model, seed)
        ours = run_everywhere(artifact, feeds)
        for name, expected in reference.run(feeds).items():
            assert np.ptp(expected) > 0, "the comparison would pass for a constant"
            np.testing.assert_array_equal(ours[name], expected)


def _inside(artifact: Artifact) -> list[str]:
    own = {id(node) for node in artifact.model.graph}
    return [n.op_type for n in artifact.model.graph.all_nodes() if id(n) not in own]


def _positive(n: Net, x: str) -> str:
    n.add("ReduceSum", [x], f"{x}_total", keepdims=0)
    return n.add("Greater", [f"{x}_total", n.constant("nil", 0.0)], f"{x}_is_positive")


def _conditional(n: Net, x: str, *branches: list[onnx.NodeProto], kind: int = FLOAT) -> None:
    graphs = [
        helper.make_graph(nodes, f"branch_{k}", [], [_info(nodes[-1].output[0], kind)])
        for k, nodes in enumerate(branches)
    ]
    named = dict(zip(("then_branch", "else_branch"), graphs, strict=True))
    n.add("If", [_positive(n, x)], "y", **named)


def test_layers_in_branches_are_integer_only() -> None:
    n = net()
    _conditional(n, "x", _layer(n, "x", "a", 0), _layer(n, "x", "b", 1))
    model = n.model((3, 4), "y")
    artifact = export(model)
    inside = _inside(artifact)
    assert inside.count("QLinearMatMul") == 2
    assert not {"MatMul", "Quant"} & set(inside)
    assert_exact(model, artifact)


def test_integers_from_around_a_branch_are_read_in_it() -> None:
    n = net()
    n.quant("x", "xq", 0.25, 4)
    weight = n.weight("w", ROWS[0], 0.25, 4, narrow=1)
    then, other = Net([], n.constants), Net([], n.constants)
    for part, name in ((then, "a"), (other, "b")):
        part.add("Transpose", ["xq"], f"{name}_turned", perm=[1, 0])
        part.add("MatMul", [f"{name}_turned", weight], f"{name}_sum")
        part.quant(f"{name}_sum", name, 0.5 if name == "a" else 1.0, 4)
    _conditional(n, "x", then.nodes, other.nodes)
    model = n.model((4, 4), "y")
    artifact = export(model)
    inside = _inside(artifact)
    assert inside.count("QLinearMatMul") == inside.count("Transpose") == 2
    assert "QuantizeLinear" not in inside
    assert_exact(model, artifact)


def test_a_branch_returns_no_value_of_the_graph_around_it_as_it_is() -> None:
    n = net()
    n.quant("x", "xq", 0.25, 8)
    n.constants |= {"scale": 0.25, "zero": np.array(0, np.int8), "none": np.array(-7, np.int8)}
    same = [make_node("QuantizeLinear", ["xq", "scale", "zero"], ["a"], "same")]
    other = [make_node("QuantizeLinear", ["xq", "scale", "none"], ["b"], "other")]
    _conditional(n, "x", same, other, kind=TensorProto.INT8)
    proto = model_of(n.nodes, {"x": (3, 4)}, ["y"], n.constants)
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.INT8
    model = read_model(proto)
    written = onnx_ir.to_proto(export(model).model)
    for node in written.graph.node:
        for attribute in node.attribute:
            made = {name for inner in attribute.g.node for name in inner.output}
            assert {value.name for value in attribute.g.output} <= made
    ort = pytest.importorskip("onnxruntime")
    x = np.random.default_rng(0).normal(0, 2, (3, 4)).astype(np.float32)
    session = ort.InferenceSession(written.SerializeToString())
    for sign in (1, -1):
        feeds = {"x": np.abs(x) * np.float32(sign)}
        np.testing.assert_array_equal(
            session.run(None, feeds)[0], Session(model).run(feeds)["y"]
        )


def _loop(n: Net, x: str, turns: int, scale: float = 0.25) -> None:
    nodes = [*_layer(n, "state", "next", 0, scale), make_node("Identity", ["go"], ["on"])]
    ends = [_info("turn", INT64, ()), _info("go", BOOL, ()), _info("state", FLOAT, (3, 4))]
    body = helper.make_graph(
        nodes, "body", ends, [_info("on", BOOL, ()), _info("next", FLOAT, (3, 4))]
    )
    count = n.constant("turns", np.array(turns, dtype=np.int64))
    n.add("Loop", [count, "", "x"], "y", body=body)


def test_a_layer_in_a_loop_is_integer_only() -> None:
    n = net()
    _loop(n, "x", 3)
    model = n.model((3, 4), "y")
    artifact = export(model)
    assert "QLinearMatMul" in _inside(artifact)
    assert not {"MatMul", "Quant"} & set(_inside(artifact))
    assert_exact(model, artifact)


def test_a_layer_in_a_scan_is_integer_only() -> None:
    n = net()
    nodes = [
        *_layer(n, "row", "made"),
        make_node("Add", ["sum", "made"], ["total"]),
        make_node("Identity", ["made"], ["each"]),
    ]
    body = helper.make_graph(
        nodes,
        "body",
        [_info("sum", FLOAT, (3, 4)), _info("row", FLOAT, (3, 4))],
        [_info("total", FLOAT, (3, 4)), _info("each", FLOAT, (3, 4))],
    )
    start = n.constant("start", np.zeros((3, 4), dtype=np.float32))
    n.nodes.append(
        make_node("Scan", [start, "x"], ["last", "y"], body=body, num_scan_inputs=1)
    )
    model = n.model((5, 3, 4), "y")
    artifact = export(model)
    assert "QLinearMatMul" in _inside(artifact)
    assert_exact(model, artifact)


def test_a_layer_in_a_branch_in_a_loop_is_integer_only() -> None:
    n = net()
    then, other = _layer(n, "state", "a", 0), _layer(n, "state", "b", 1)
    inner = Net([], n.constants)
    _conditional(inner, "state", then, other)
    inner.add("Identity", ["y"], "next")
    inner.add("Identity", ["go"], "on")
    ends = [_info("turn", INT64, ()), _info("go", BOOL, ()), _info("state", FLOAT, (3, 4))]
    body = helper.make_graph(
        inner.nodes, "body", ends, [_info("on", BOOL, ()), _info("next", FLOAT, (3, 4))]
    )
    count = n.constant("turns", np.array(2, dtype=np.int64))
    n.add("Loop", [count, "", "x"], "z", body=body)
    model = n.model((3, 4), "z")
    artifact = export(model)
    assert _inside(artifact).count("QLinearMatMul") == 2
    assert_exact(model, artifact)


def test_what_reads_rounded_sums_of_a_loop_is_not_called_exact() -> None:
    """Scales that are no powers of two: float sums round, integer sums do not."""
    n = net()
    nodes = Net([], n.constants)
    nodes.quant("state", "state_q", 0.3, 8)
    nodes.weight("w", ROWS[0] * 20, 0.7, 8)
    nodes.add("MatMul", ["state_q", "w"], "next")
    nodes.add("Identity", ["go"], "on")
    ends = [_info("turn", INT64, ()), _info("go", BOOL, ()), _info("state", FLOAT, (3, 4))]
    body = helper.make_graph(
        nodes.nodes, "body", ends, [_info("on", BOOL, ()), _info("next", FLOAT, (3, 4))]
    )
    count = n.constant("turns", np.array(2, dtype=np.int64))
    n.add("Loop", [count, "", "x"], "out", body=body)
    n.quant("out", "y", 0.3, 4)
    artifact = export(n.model((3, 4), "y"))
    assert "MatMulInteger" in _inside(artifact)
    exact = {record.node: record.exact for record in artifact.quantizers}
    assert not exact["y"]
    assert not exact["state_q"]


@pytest.mark.parametrize(("scale", "exact"), [(0.7, False), (0.5, True)])
def test_rounding_is_followed_through_any_number_of_layers(scale: float, exact: bool) -> None:
    """By powers of two, float sums do not round; by others they do."""
    n = net()
    n.quant("x", "q", 0.3 if not exact else 0.25, 8)
    n.weight("w", ROWS[0] * 20, scale, 8)
    last = n.add("MatMul", ["q", "w"], "sum")
    for k in range(1500):
        last = n.add("Sin", [last], f"sin_{k}")
    n.quant(last, "y", 0.3, 4)
    artifact = export(n.model((3, 4), "y"))
    assert "MatMulInteger" in [node.op_type for node in artifact.model.graph]
    assert {record.node: record.exact for record in artifact.quantizers}["y"] is exact


def test_layers_that_were_integer_operators_in_branches_are_again() -> None:
    def layer(k: int, out: str) -> list[Any]:
        inputs = [f"q{k}" if name == "q" else name for name in QLINEAR_INPUTS]
        return [
            make_node("QuantizeLinear", ["x", "sx", "zx"], [f"q{k}"], f"first{k}"),
            make_node("QLinearMatMul", inputs, [f"r{k}"], f"matmul{k}"),
            make_node("DequantizeLinear", [f"r{k}", "sy", "zy"], [out], f"last{k}"),
        ]

    proto = in_branches(layer(1, "a"), layer(2, "b"))
    model = QlinearImporter().load(proto, ImportOptions())
    artifact = QlinearExporter().export(model, export_options())
    assert _inside(artifact) == ["QuantizeLinear", "QLinearMatMul", "DequantizeLinear"] * 2
    feeds = {"x": np.random.default_rng(0).normal(0, 1, (3, 8)).astype(np.float32)}
    expected = pytest.importorskip("onnxruntime").InferenceSession(proto.SerializeToString())
    for sign in (1, -1):
        given = {"x": np.abs(feeds["x"]) * np.float32(sign)}
        made = run_everywhere(artifact, given)["y"]
        np.testing.assert_array_equal(made, expected.run(None, given)[0])


def test_layers_in_local_functions_are_integer_only() -> None:
    n = net()
    nodes = _layer(n, "x", "y")
    made = {name for node in nodes for name in node.output}
    read = dict.fromkeys(name for node in nodes for name in node.input if name not in made)
    imports = [helper.make_opsetid("", 19), helper.make_opsetid(nodes[0].domain, 1)]
    function = helper.make_function("own", "Layer", [*read], ["y"], nodes, imports)
    call = Net([make_node("Layer", [*read], ["y"], "call", domain="own")], n.constants)

    proto = model_of(call.nodes, {"x": (3, 4)}, ["y"], n.constants)
    proto.opset_import.append(helper.make_opsetid("own", 1))
    proto.functions.append(function)
    model = read_model(proto)
    artifact = export(model)
    assert "QLinearMatMul" in [node.op_type for node in artifact.model.graph]
    assert_exact(model, artifact)
