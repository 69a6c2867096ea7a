"""A file of QuantizeLinear and DequantizeLinear is written as it is, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import qonnx_hub as qh
from qonnx_hub.equivalence.verdicts import Verdict
from qonnx_hub.executor.batch_axis import batcher_of
from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_adapters.qcdq.origins import KEY
from qonnx_hub_ir import dialect
from tests.adapters.qcdq.random_pairs import feeds, random_pairs

KINDS = {
    "INT8": 13,
    "UINT8": 13,
    "INT16": 21,
    "UINT16": 21,
    "INT4": 21,
    "UINT4": 21,
    "INT2": 25,
    "UINT2": 25,
}


def ends_of(kind: str) -> tuple[int, int]:
    signed, width = (
        not kind.startswith("U"),
        int(kind[-2:] if kind.endswith("6") else kind[-1]),
    )
    return (-(1 << (width - 1)), (1 << (width - 1)) - 1) if signed else (0, (1 << width) - 1)


def tensor(name: str, kind: str, values: Any) -> onnx.TensorProto:
    array = np.asarray(values)
    dtype = getattr(TensorProto, kind)
    return helper.make_tensor(name, dtype, array.shape, array.reshape(-1).tolist())


def file_of(
    nodes: list[onnx.NodeProto], tensors: list[onnx.TensorProto], opset: int, *outputs: str
) -> onnx.ModelProto:
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 4, 6))
    made = [
        helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs or ("y",)
    ]
    opsets = [helper.make_opsetid("", opset)]
    if any(node.domain for node in nodes):
        opsets.append(helper.make_opsetid("com.microsoft", 1))
    graph = helper.make_graph(nodes, "g", [x], made, tensors)
    version = helper.find_min_ir_version_for([helper.make_opsetid("", opset)])
    return helper.make_model(graph, opset_imports=opsets, ir_version=version)


def node(op_type: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    """A node that is called after what it makes."""
    name = f"the {output}"
    return helper.make_node(op_type, inputs.split(), [output], name, **attributes)


def pair(**attributes: Any) -> list[onnx.NodeProto]:
    return [
        node("QuantizeLinear", "x s z", "q", **attributes),
        node("DequantizeLinear", "q s z", "y", **attributes),
    ]


def converted(source: onnx.ModelProto, to: str, tmp_path: Path) -> onnx.ModelProto:
    path = tmp_path / f"{to}.onnx"
    qh.convert(source, path, to=to)
    return onnx.load(path)


def said(model: onnx.ModelProto) -> list[tuple[Any, ...]]:
    """(name, operator, domain, attributes, stored parameters) of all nodes, sorted."""
    known = {t.name: t for t in model.graph.initializer}

    def stored(name: str) -> tuple[Any, ...] | None:
        found = known.get(name)
        if found is None:
            return None
        data = onnx.numpy_helper.to_array(found)
        single = (
            data.reshape(-1)[:1] if data.size and np.all(data == data.reshape(-1)[0]) else data
        )
        return found.data_type, single.astype(np.float64).reshape(-1).tolist()

    rows = []
    for one in model.graph.node:
        attributes = sorted(
            (a.name, helper.get_attribute_value(a))
            for a in one.attribute
            if a.name != "saturate"
        )
        parameters = tuple(stored(name) for name in one.input)
        rows.append((one.name, one.op_type, one.domain, attributes, parameters))
    return sorted(rows, key=str)


def answers(model: onnx.ModelProto, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found: list[np.ndarray] = session.run(None, feed)
    return found


def assert_kept(source: onnx.ModelProto, tmp_path: Path, to: str = "qcdq") -> None:
    back = converted(source, to, tmp_path)
    if to != "qcdq":
        back = converted(back, "qcdq", tmp_path)
    assert said(back) == said(source)
    opsets = ({o.domain: o.version for o in m.opset_import} for m in (source, back))
    own, written = opsets
    assert written == own
    for feed in feeds(7):
        for ours, theirs in zip(answers(back, feed), answers(source, feed), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("to", ["qcdq", "qonnx"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_type_and_zero_point_is_kept(kind: str, to: str, tmp_path: Path) -> None:
    low, high = ends_of(kind)
    for zero in {low, high, (low + high + 1) // 2, low + 1, 0}:
        tensors = [tensor("s", "FLOAT", 0.3), tensor("z", kind, zero)]
        assert_kept(file_of(pair(), tensors, KINDS[kind]), tmp_path, to)


@pytest.mark.parametrize("to", ["qcdq", "qonnx"])
def test_zero_points_along_an_axis_are_kept(to: str, tmp_path: Path) -> None:
    tensors = [
        tensor("s", "FLOAT", [0.5, 0.3, 0.25, 0.1]),
        tensor("z", "UINT8", [3, 0, 255, 128]),
    ]
    assert_kept(file_of(pair(axis=1), tensors, 13), tmp_path, to)


@pytest.mark.parametrize("to", ["qcdq", "qonnx"])
@pytest.mark.parametrize("kind", ["INT8", "UINT16", "INT16"])
def test_nodes_of_onnxruntime_keep_their_domain_and_the_opset(
    kind: str, to: str, tmp_path: Path
) -> None:
    tensors = [tensor("s", "FLOAT", 0.3), tensor("z", kind, 5)]
    assert_kept(file_of(pair(domain="com.microsoft"), tensors, 15), tmp_path, to)


def test_a_scale_that_is_computed_keeps_its_zero_point(tmp_path: Path) -> None:
    nodes = [
        node("ReduceMax", "x", "m", keepdims=0),
        node("Abs", "m", "a"),
        node("Max", "a least", "s"),
        *pair(),
    ]
    tensors = [tensor("least", "FLOAT", 0.01), tensor("z", "UINT8", 77)]
    assert_kept(file_of(nodes, tensors, 13), tmp_path)


def test_several_readers_of_one_quantizelinear_keep_their_own_dequantizelinear(
    tmp_path: Path,
) -> None:
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        *(node("DequantizeLinear", "q s z", name) for name in ("one", "two", "y")),
        node("Add", "one two", "sum"),
        node("Relu", "two", "r"),
    ]
    tensors = [tensor("s", "FLOAT", 0.3), tensor("z", "UINT8", 5)]
    assert_kept(file_of(nodes, tensors, 13, "sum", "r", "y"), tmp_path)


@pytest.mark.parametrize(("low", "high"), [(0, 15), (3, 200), (1, 255)])
def test_a_clip_of_integers_keeps_its_name(low: int, high: int, tmp_path: Path) -> None:
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        node("Clip", "q low high", "c"),
        node("DequantizeLinear", "c s z", "y"),
    ]
    tensors = [tensor("s", "FLOAT", 0.3), tensor("z", "UINT8", 5)]
    ends = [tensor("low", "UINT8", low), tensor("high", "UINT8", high)]
    source = file_of(nodes, [*tensors, *ends], 13)
    back = converted(source, "qcdq", tmp_path)
    kinds = [sorted((n.name, n.op_type) for n in m.graph.node) for m in (source, back)]
    assert kinds[0] == kinds[1]
    for feed in feeds(7):
        np.testing.assert_array_equal(answers(back, feed)[0], answers(source, feed)[0])


def test_a_file_that_the_optimizations_of_onnxruntime_break_is_written_with_a_note(
    tmp_path: Path,
) -> None:
    pytest.importorskip("onnxruntime")
    # They move the pooling between the nodes, and it takes no 4-bit integers.
    pool = node("MaxPool", "y", "pooled", kernel_shape=[2])
    tensors = [tensor("s", "FLOAT", 0.3), tensor("z", "INT4", 0)]
    source = file_of([*pair(), pool], tensors, 21, "pooled")
    report = qh.convert(source, tmp_path / "out.onnx", to="qcdq")
    assert any("break the source already" in note for note in report.notes)
    assert said(onnx.load(tmp_path / "out.onnx")) == said(source)


def test_int8_in_front_of_a_pooling_that_is_quantized_comes_back_from_qonnx_as_int8(
    tmp_path: Path,
) -> None:
    pool = node("MaxPool", "y", "pooled", kernel_shape=[2])
    behind = [
        node("QuantizeLinear", "pooled s z", "q2"),
        node("DequantizeLinear", "q2 s z", "y2"),
    ]
    tensors = [tensor("s", "FLOAT", 0.3), tensor("z", "INT8", 3)]
    source = file_of([*pair(), pool, *behind], tensors, 21, "y2")
    assert_kept(source, tmp_path, "qonnx")


def test_one_quantize_of_two_dequantizes_is_equal_on_onnxruntime(
    tmp_path: Path,
) -> None:
    pytest.importorskip("onnxruntime")
    again = node("DequantizeLinear", "q s z", "again")
    both = [node("Relu", "y", "positive"), node("Add", "positive again", "sum")]
    tensors = [tensor("s", "FLOAT", 0.3), tensor("z", "UINT8", 140)]
    source = file_of([*pair(), again, *both], tensors, 13, "sum")
    report = qh.convert(source, tmp_path / "out.onnx", to="qcdq")
    assert report.ort is not None
    assert report.ort.verdict == "EQUAL"


def test_biases_that_float32_does_not_hold_keep_their_integers(tmp_path: Path) -> None:
    numbers = [16777217, -2147483647, 33554435, 5, 2147483647, 0]
    nodes = [
        *pair(),
        node("DequantizeLinear", "b sb zb", "bias"),
        node("Add", "y bias", "sum"),
    ]
    tensors = [tensor("s", "FLOAT", 0.3), tensor("z", "UINT8", 140)]
    tensors += [tensor("b", "INT32", numbers), tensor("sb", "FLOAT", 3e-9)]
    source = file_of(nodes, [*tensors, tensor("zb", "INT32", 0)], 13, "sum")
    written = converted(source, "qcdq", tmp_path)
    stored = [onnx.numpy_helper.to_array(t) for t in written.graph.initializer]
    assert [a.tolist() for a in stored if a.shape == (6,)] == [numbers]


def test_a_move_of_integers_keeps_its_name_and_moves_values(tmp_path: Path) -> None:
    nodes = pair()
    nodes[1].input[0] = "moved"
    nodes.insert(1, node("Transpose", "q", "moved", perm=[0, 2, 1]))
    tensors = [tensor("s", "FLOAT", 0.3), tensor("z", "UINT8", 5)]
    source = file_of(nodes, tensors, 13)
    back = converted(source, "qcdq", tmp_path)
    kinds = [sorted((n.name, n.op_type) for n in m.graph.node) for m in (source, back)]
    assert kinds[0] == kinds[1]


def test_a_clip_of_floats_before_a_zero_point_stays_as_it_is(tmp_path: Path) -> None:
    clip = node("Clip", "x low high", "clipped")
    nodes = [clip, *pair()]
    nodes[1].input[0] = "clipped"
    ends = [tensor("low", "FLOAT", -1.0), tensor("high", "FLOAT", 1.0)]
    scale, zero = tensor("s", "FLOAT", 2 / 255), tensor("z", "UINT8", 128)
    assert_kept(file_of(nodes, [*ends, scale, zero], 13), tmp_path)


WEIGHTS = {
    "UINT8 around its middle": ("UINT8", {}, 13),
    "INT4": ("INT4", {}, 21),
    "UINT4 in blocks": ("UINT4", {"axis": 0, "block_size": 2}, 21),
    "INT8 per channel": ("INT8", {"axis": 1}, 13),
    "float8": ("FLOAT8E4M3FN", {}, 19),
    "INT2": ("INT2", {}, 25),
}


@pytest.mark.parametrize("to", ["qcdq", "qonnx"])
@pytest.mark.parametrize("case", WEIGHTS)
def test_stored_weights_keep_type_integers_and_blocks(
    case: str, to: str, tmp_path: Path
) -> None:
    kind, attributes, opset = WEIGHTS[case]
    random = np.random.default_rng(4)
    shape = {0: (3, 4), 1: (4,)}[attributes["axis"]] if attributes else ()
    if kind.startswith("FLOAT8"):
        codes, zeros = np.round(random.normal(0, 2, (6, 4)), 1), np.zeros(shape)
    else:
        low, high = ends_of(kind)
        codes = random.integers(low, high + 1, (6, 4))
        zeros = random.integers(low, high + 1, shape)
        zeros = zeros * 0 + (low + high + 1) // 2 if case.startswith("UINT8") else zeros
    tensors = [
        tensor("w", kind, codes),
        tensor("s", "FLOAT", random.uniform(0.01, 0.1, shape).astype(np.float32)),
        tensor("z", kind, zeros),
    ]
    nodes = [
        node("DequantizeLinear", "w s z", "weights", **attributes),
        node("MatMul", "x weights", "y"),
    ]
    assert_kept(file_of(nodes, tensors, opset), tmp_path, to)


def test_weights_that_a_file_quantizes_itself_stay_floats(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    tensors = [
        tensor("w", "FLOAT", random.normal(0, 1, (6, 4)).astype(np.float32)),
        tensor("s", "FLOAT", 0.02),
        tensor("z", "UINT8", 121),
    ]
    nodes = [
        node("QuantizeLinear", "w s z", "codes"),
        node("DequantizeLinear", "codes s z", "weights"),
        node("MatMul", "x weights", "y"),
    ]
    source = file_of(nodes, tensors, 13)
    back = converted(source, "qcdq", tmp_path)
    assert [n.op_type for n in back.graph.node] == [n.op_type for n in source.graph.node]
    feed = feeds(7)[0]
    np.testing.assert_array_equal(answers(back, feed)[0], answers(source, feed)[0])


NOTES = {
    "another type": {"type_name": "INT4"},
    "an unsigned type": {"type_name": "UINT8"},
    "no type": {"type_name": "BFLOAT16"},
    "blocks": {"axis": 0, "block_size": 2},
    "a strange axis": {"axis": 9, "block_size": 1},
    "another domain": {"domain": "nobody"},
    "names of others": {"quantize": "the y", "dequantize": "the y"},
    "readers that are gone": {"more": {"third": [["nothing", 0]]}},
    "readers that are none": {"more": {"third": 4}},
    "a number": 17,
    "no JSON": "{",
}


@pytest.mark.parametrize("case", NOTES)
def test_a_note_on_the_spelling_changes_no_number(case: str) -> None:
    tensors = [tensor("s", "FLOAT", 0.3), tensor("z", "INT8", -5)]
    model = qh.load(file_of(pair(), tensors, 13))
    (quantizer,) = [n for n in model.graph if dialect.is_quantizer(n)]
    own, note = json.loads(quantizer.metadata_props[KEY]), NOTES[case]
    text = json.dumps({**own, **note}) if isinstance(note, dict) else str(note)
    quantizer.metadata_props[KEY] = text
    written = qh.convert(model, None, to="qcdq").model
    for feed in feeds(7):
        np.testing.assert_array_equal(
            qh.run(written, feed)["y"], answers(file_of(pair(), tensors, 13), feed)[0]
        )


@pytest.mark.parametrize("seed", range(12))
def test_a_random_graph_is_written_as_it_is_and_comes_back_from_qonnx(
    seed: int, tmp_path: Path
) -> None:
    source = random_pairs(seed)
    assert_kept(source, tmp_path)
    back = converted(converted(source, "qonnx", tmp_path), "qcdq", tmp_path)
    assert qh.check(source, back, level="proof").verdict is Verdict.PROVEN
    wanted = [row for row in said(source) if "quantize" in row[1].lower()]
    assert [row for row in said(back) if "quantize" in row[1].lower()] == wanted
    for feed in feeds(seed):
        for ours, theirs in zip(answers(back, feed), answers(source, feed), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_samples_stay_apart_behind_quantizers_of_onnxruntime() -> None:
    weights = np.arange(18).reshape(6, 3) / 8
    tensors = [
        tensor("s", "FLOAT", 0.3),
        tensor("z", "INT16", 7),
        tensor("w", "FLOAT", weights),
    ]
    nodes = [*pair(domain="com.microsoft"), node("MatMul", "y w", "sums")]
    model = read_model(file_of(nodes, tensors, 13, "sums"))
    # The rank of what is multiplied follows only from the shapes of the quantizers.
    assert batcher_of(model).wide_model is not None
    x = np.random.default_rng(0).normal(0, 2, (10, 4, 6)).astype(np.float32)
    whole = Session(model).run({"x": x})["sums"]
    parts = [Session(model).run({"x": x[at : at + 2]})["sums"] for at in range(0, 10, 2)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
