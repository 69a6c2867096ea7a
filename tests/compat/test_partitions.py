"""Parts of models in files of their own, put back, and models split on the command line."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper
from typer.testing import CliRunner

import qonnx_hub as qh
from qonnx_hub_ir.errors import PassError, UsageError
from tests.compat.models import DOMAIN, constant, info, model, note, notes

X = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)


def net(*, annotated: bool = False) -> onnx.ModelProto:
    """Relu, two branches that meet, and a sum with the Relu."""
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="Relu_0"),
        helper.make_node("MatMul", ["r", "w"], ["a"], name="MatMul_0"),
        helper.make_node("Mul", ["r", "k"], ["b"], name="Mul_0"),
        helper.make_node("Add", ["a", "b"], ["c"], name="Add_0"),
        helper.make_node("Add", ["c", "r"], ["y"], name="Add_1"),
    ]
    held = [constant("w", np.random.default_rng(1).normal(size=(3, 3))), constant("k", 3)]
    proto = model(nodes, [info("x", [2, 3])], [info("y", [2, 3])], held)
    for name in "rabc":
        proto.graph.value_info.append(info(name, [2, 3]))
    if annotated:
        note(proto, "r", finn_datatype="UINT4")
        note(proto, "a", finn_datatype="INT9")
    return proto


def cut(tmp_path, parts, proto=None):
    step = qh.passes.get("create_partitions")(parts, str(tmp_path / "parts"))
    return qh.transform(proto or net(), [step], check=False).model


def operators(found) -> list[str]:
    return [node.op_type for node in found.graph]


WANTED = {
    "one": {"one": ["Relu_0"]},
    "branches": {"0": ["MatMul_0", "Mul_0", "Add_0"]},
    "two": {0: [0], 1: [1, 2, 3, 4]},
    "apart": {"a": ["MatMul_0"], "b": ["Mul_0", "Add_0"]},
    "all": {"all": range(5)},
}


@pytest.mark.parametrize("parts", WANTED.values(), ids=WANTED)
def test_parts_in_files_compute_the_whole_and_can_be_put_back(tmp_path, parts):
    whole = qh.run(net(), {"x": X})["y"]
    after = cut(tmp_path, parts)
    stood_for = sum(len(list(members)) for members in parts.values())
    assert len(list(after.graph)) == 5 - stood_for + len(parts)
    assert np.array_equal(qh.run(after, {"x": X})["y"], whole)
    back = qh.transform(after, ["extend_partitions"], check=False).model
    assert sorted(operators(back)) == sorted(node.op_type for node in net().graph.node)
    assert np.array_equal(qh.run(back, {"x": X})["y"], whole)
    assert not qh.transform(back, ["extend_partitions"], check=False).modified


@pytest.mark.parametrize("parts", WANTED.values(), ids=WANTED)
def test_the_qonnx_package_makes_the_same_parts(tmp_path, parts):
    pytest.importorskip("qonnx")
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.transformation.create_generic_partitions import PartitionFromDict

    names = [node.name for node in net().graph.node]
    places = {
        k: [names.index(m) if isinstance(m, str) else m for m in v] for k, v in parts.items()
    }
    theirs = ModelWrapper(net()).transform(PartitionFromDict(places, str(tmp_path / "theirs")))
    ours = cut(tmp_path, parts)
    signature = {n.name: (list(n.input), list(n.output)) for n in theirs.graph.node}
    assert signature == {
        str(n.name): ([v.name for v in n.inputs], [v.name for v in n.outputs])
        for n in ours.graph
    }
    for part in parts:
        a, b = (
            onnx.load(tmp_path / folder / f"partition_{part}.onnx").graph
            for folder in ("theirs", "parts")
        )
        assert [n.name for n in a.node] == [n.name for n in b.node]
        assert [v.name for v in a.input] == [v.name for v in b.input]
        assert [v.name for v in a.output] == [v.name for v in b.output]
    qh.save(ours, str(tmp_path / "ours.onnx"))
    found = execute_onnx(ModelWrapper(str(tmp_path / "ours.onnx")), {"x": X})["y"]
    np.testing.assert_allclose(found, qh.run(net(), {"x": X})["y"], rtol=1e-6)


def test_annotations_go_with_their_tensors(tmp_path):
    after = cut(tmp_path, {"p": ["MatMul_0", "Mul_0", "Add_0"]}, net(annotated=True))
    inner = notes(onnx.load(tmp_path / "parts" / "partition_p.onnx"))
    assert inner == {"r": {"finn_datatype": "UINT4"}, "a": {"finn_datatype": "INT9"}}
    back = qh.transform(after, ["extend_partitions"], str(tmp_path / "b.onnx"), check=False)
    assert back.modified
    assert notes(onnx.load(tmp_path / "b.onnx")) == inner


def test_names_that_the_model_has_get_a_number(tmp_path):
    one = model(
        [
            helper.make_node("Neg", ["i"], ["t"], name="N"),
            helper.make_node("Neg", ["t"], ["o"], name="M"),
            helper.make_node("Identity", ["i"], ["same"], name="I"),
        ],
        [info("i", [2, 3])],
        [info("o", [2, 3]), info("i", [2, 3])],
        [],
    )
    onnx.save(one, tmp_path / "inner.onnx")
    twice = [
        helper.make_node(
            "GenericPartition",
            [given],
            [made, f"{made}_in"],
            name=made,
            domain=DOMAIN,
            model=str(tmp_path / "inner.onnx"),
        )
        for given, made in (("x", "t"), ("t", "y"))
    ]
    ends = [info(name, [2, 3]) for name in ("y", "y_in", "t_in")]
    proto = model(twice, [info("x", [2, 3])], ends, [])
    proto.graph.value_info.append(info("t", [2, 3]))
    after = qh.transform(proto, ["extend_partitions"], check=False).model
    found = qh.run(after, {"x": X})
    assert all(np.array_equal(found[name], X) for name in ("y", "y_in", "t_in"))
    assert len({node.name for node in after.graph}) == len(list(after.graph))


REFUSED = {
    "needs itself": ({"a": ["Relu_0", "Add_1"]}, "'Add_1' reads 'c'"),
    "others between": ({"a": ["Relu_0", "Add_0"]}, "part '.*' needs itself"),
    "unknown": ({"a": ["Nobody"]}, "there is no node 'Nobody'"),
    "twice": ({"a": ["Relu_0"], "b": ["Relu_0"]}, "'Relu_0' is in the parts a and b"),
    "empty": ({"a": []}, "part 'a' has no nodes"),
    "path": ({"../a": ["Relu_0"]}, "cannot be part of a file's name"),
    "no list": ({"a": "Relu_0"}, "no list of nodes"),
    "no dict": ("[1, 2]", "parts are a dict"),
    "no python": ("{", "no Python dict"),
}


@pytest.mark.parametrize(("parts", "reason"), REFUSED.values(), ids=REFUSED)
def test_parts_that_one_node_cannot_stand_for_are_refused(tmp_path, parts, reason):
    with pytest.raises(PassError, match=reason):
        cut(tmp_path, parts)
    assert not (tmp_path / "parts").exists()


def test_two_parts_that_need_each_other_are_refused(tmp_path):
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], name="A"),
        helper.make_node("Neg", ["r"], ["n"], name="B"),
        helper.make_node("Exp", ["x"], ["e"], name="C"),
        helper.make_node("Abs", ["e"], ["a"], name="D"),
        helper.make_node("Add", ["n", "a"], ["y"], name="E"),
    ]
    proto = model(nodes, [info("x", [2, 3])], [info("y", [2, 3])], [])
    with pytest.raises(PassError, match="needs itself"):
        cut(tmp_path, {1: ["A", "D"], 2: ["B", "C"]}, proto)


def test_a_model_is_split_on_the_command_line(tmp_path):
    from qonnx_hub.cli import app

    onnx.save(net(), tmp_path / "m.onnx")
    paths = [str(tmp_path / name) for name in ("m.onnx", "a.onnx", "b.onnx")]
    run = CliRunner().invoke
    found = run(app, ["split", *paths, "--at", "c", "--at", "r"])
    assert found.exit_code == 0
    middle = qh.run(paths[1], {"x": X})
    assert list(middle) == ["c", "r"]
    whole = qh.run(paths[0], {"x": X})["y"]
    assert np.array_equal(qh.run(paths[2], middle)["y"], whole)
    assert run(app, ["split", *paths, "--at", "c"]).exit_code != 0
    same = run(app, ["split", paths[0], paths[1], paths[1], "--at", "r"])
    assert isinstance(same.exception, UsageError)
