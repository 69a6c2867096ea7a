"""The nine tools, with the qonnx package's flags."""

from __future__ import annotations

import ast
import importlib
import json

import numpy as np
import onnx
import pytest
from onnx import helper

import qonnx_hub as qh
from qonnx_hub.cli.compat import TOOLS
from qonnx_hub.compat.arguments import run_tool
from tests.compat.models import annotated, constant, info, model, note, quant

RNG = np.random.default_rng(0)


def tool(name: str):
    return importlib.import_module(f"qonnx_hub.compat.{name.replace('-', '_')}").main


def mlp(tmp_path, scale: float = 0.25) -> str:
    """Shape chain, Reshape, Quant, MatMul by a transposed quantized weight, Relu, Quant."""
    nodes = [
        helper.make_node("Shape", ["x"], ["sh"]),
        helper.make_node("Gather", ["sh", "zero"], ["n"], axis=0),
        helper.make_node("Unsqueeze", ["n", "axes"], ["n1"]),
        helper.make_node("Concat", ["n1", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["flat"]),
        quant("flat", "q"),
        quant("w", "wq"),
        helper.make_node("Transpose", ["wq"], ["wt"], perm=[1, 0]),
        helper.make_node("MatMul", ["q", "wt"], ["m"]),
        helper.make_node("Relu", ["m"], ["r"]),
        quant("r", "y", signed=0),
    ]
    w = np.round(RNG.normal(size=(3, 4)) * 4) / 4
    w[1] = 0
    held = [
        *(constant("zero", 0, np.int64), constant("axes", [0], np.int64)),
        *(constant("rest", [-1], np.int64), constant("w", w), constant("s", scale)),
        *(constant("z", 0), constant("b", 4)),
    ]
    proto = model(nodes, [info("x", [1, 1, 2, 2])], [info("y", [1, 3])], held)
    path = tmp_path / "m.onnx"
    onnx.save(proto, path)
    return str(path)


def operators(path) -> list[str]:
    return [node.op_type for node in onnx.load(str(path)).graph.node]


@pytest.mark.parametrize("name", TOOLS)
def test_every_tool_says_how_it_is_called(name, capsys):
    assert tool(name)(["--help"]) == 0
    assert f"usage: qonnx-hub compat {name}" in capsys.readouterr().out


def test_cleanup_leaves_no_shapes_and_no_turned_weights(tmp_path):
    assert tool("cleanup")([mlp(tmp_path)]) == 0
    cleaned = tmp_path / "m_clean.onnx"
    # Sorted by depth, as the qonnx package leaves the same file.
    assert operators(cleaned) == ["Quant", "Reshape", "Quant", "MatMul", "Relu", "Quant"]
    graph = onnx.load(cleaned).graph
    assert (graph.input[0].name, graph.output[0].name) == ("global_in", "global_out")
    assert [node.name for node in graph.node][:3] == ["Quant_0", "Reshape_0", "Quant_1"]


def test_cleanup_names_and_orders_as_the_qonnx_package(tmp_path):
    pytest.importorskip("qonnx.util.cleanup").cleanup(
        mlp(tmp_path), out_file=str(tmp_path / "theirs.onnx")
    )
    assert (
        tool("cleanup")([str(tmp_path / "m.onnx"), "--out-file", str(tmp_path / "o.onnx")])
        == 0
    )
    theirs, ours = (onnx.load(tmp_path / name).graph for name in ("theirs.onnx", "o.onnx"))
    assert [n.name for n in ours.node] == [n.name for n in theirs.node]
    assert [list(n.output) for n in ours.node] == [list(n.output) for n in theirs.node]
    assert [list(n.input) for n in ours.node] == [list(n.input) for n in theirs.node]


def test_cleanup_never_overwrites_its_input(tmp_path, capsys):
    path = mlp(tmp_path)
    assert tool("cleanup")([path, f"--out-file={path}"]) == 2
    assert "not overwritten" in capsys.readouterr().err


def test_cleanup_folds_quantized_constants_if_asked(tmp_path):
    path = mlp(tmp_path)
    assert tool("cleanup")([path, "--preserve-qnt-ops=False"]) == 0
    assert operators(tmp_path / "m_clean.onnx").count("Quant") == 2


@pytest.mark.parametrize("size", ["4", "(4,1,2,2)"])
def test_cleanup_takes_another_batch(tmp_path, size):
    path = mlp(tmp_path)
    assert tool("cleanup")([path, f"--override-inpsize={size}"]) == 0
    x = RNG.normal(size=(4, 1, 2, 2)).astype(np.float32)
    found = qh.run(str(tmp_path / "m_clean.onnx"), {"global_in": x})["global_out"]
    each = [qh.run(path, {"x": one[None]})["y"][0] for one in x]
    assert np.array_equal(found, np.stack(each))


def test_a_size_is_read_and_never_run(tmp_path, capsys):
    assert (
        tool("cleanup")([mlp(tmp_path), "--override-inpsize=__import__('os').getcwd()"]) == 2
    )
    assert "no Python number" in capsys.readouterr().err


def test_exec_writes_a_file_per_output_and_batch(tmp_path, monkeypatch, capsys):
    path = mlp(tmp_path)
    monkeypatch.chdir(tmp_path)
    x = RNG.normal(size=(3, 1, 2, 2)).astype(np.float32)
    np.save("x.npy", x)
    np.save("l.npy", np.array([0, 0, 0]))
    given = [path, "x.npy", "--argmax-verify-npy", "l.npy", "--expose-intermediates", "m"]
    assert tool("exec")([*given, "--output-prefix=o_"]) == 0
    files = sorted(p.name for p in tmp_path.glob("o_*.npy"))
    assert files == [f"o_{t}_batch{i}.npy" for t in ("m", "y") for i in range(3)]
    found = np.concatenate([np.load(f"o_y_batch{i}.npy") for i in range(3)])
    want = np.concatenate([qh.run(path, {"x": one[None]})["y"] for one in x])
    assert np.array_equal(found, want)
    right = int((want.argmax(axis=-1) == 0).sum())
    assert f"ok {right} nok {3 - right}" in capsys.readouterr().out


def test_exec_refuses_a_batch_that_does_not_divide(tmp_path, monkeypatch, capsys):
    path = mlp(tmp_path)
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.zeros((3, 1, 2, 2), dtype=np.float32))
    assert tool("exec")([path, "x.npy", "--override-batchsize=2"]) == 2
    assert "does not divide" in capsys.readouterr().err


def test_exec_scales_bytes(tmp_path, monkeypatch):
    path = mlp(tmp_path)
    monkeypatch.chdir(tmp_path)
    pixels = np.array([[[[0, 255], [51, 102]]]], dtype=np.uint8)
    np.save("x.npy", pixels)
    assert tool("exec")([path, "x.npy", "--input-pix2float", "--input-zerocenter"]) == 0
    x = (2 * (pixels / 255.0).astype(np.float32) - 1).astype(np.float32)
    assert np.array_equal(np.load("out_y_batch0.npy"), qh.run(path, {"x": x})["y"])


def test_cost_has_the_keys_of_the_qonnx_package(tmp_path, capsys):
    path = tmp_path / "m.onnx"
    onnx.save(annotated(13), path)
    out = tmp_path / "c.json"
    given = [
        str(path),
        f"--output-json={out}",
        "--discount-sparsity=False",
        "--cost-breakdown",
    ]
    assert tool("inference-cost")(given) == 0
    found = json.loads(out.read_text())
    # By hand: 6 * 3 * 3 * 3 weights at each of 64 places.
    assert found["total_cost"]["op_mac_INT4_INT4"] == 6 * 27 * 64
    assert found["total_cost"]["total_bops"] == 6 * 27 * 64 * 16
    assert found["total_cost"]["mem_o_INT32"] == 6 * 64
    assert found["node_cost"]["Conv_0"]["mem_w_INT4"] == 6 * 27
    assert "op_mac_INT4_INT4" in capsys.readouterr().out


def test_cost_counts_as_the_qonnx_package(tmp_path):
    theirs = pytest.importorskip("qonnx.util.inference_cost").inference_cost
    from qonnx_hub.compat.inference_cost import inference_cost

    path = tmp_path / "m.onnx"
    onnx.save(annotated(13), path)
    for sparse in (True, False):
        want = theirs(str(path), discount_sparsity=sparse, cost_breakdown=True)
        assert inference_cost(str(path), discount_sparsity=sparse, cost_breakdown=True) == want


def test_activations_multiplied_by_one_another_cost_as_in_the_qonnx_package(tmp_path):
    theirs = pytest.importorskip("qonnx.util.inference_cost").inference_cost
    from qonnx_hub.compat.inference_cost import inference_cost

    nodes = [helper.make_node("MatMul", ["x", "v"], ["y"], name="MatMul_0")]
    ends = [info("x", [2, 3, 4]), info("v", [2, 4, 3])]
    path = tmp_path / "m.onnx"
    onnx.save(model(nodes, ends, [info("y", [2, 3, 3])], []), path)
    want = theirs(str(path), cost_breakdown=True)
    assert inference_cost(str(path), cost_breakdown=True) == want


def stuck(tmp_path, capsys, *flags: str):
    assert tool("range-analysis")([mlp(tmp_path), *flags]) == 0
    return ast.literal_eval(capsys.readouterr().out)


def test_channels_that_hold_one_value_are_reported(tmp_path, capsys):
    # The second row of the weights is zero.
    found = stuck(tmp_path, capsys, "--irange=(-1,1)")
    assert found["m"] == [(1, 0.0)]
    assert found["y"] == [(1, 0.0)]


def test_ranges_are_reported_and_filtered(tmp_path, capsys):
    found = stuck(tmp_path, capsys, "--irange=(-1,1)", "--report-mode=range", "--key-filter=x")
    assert found == {"x": (-1.0, 1.0)}


def test_each_input_has_its_own_annotation(tmp_path, capsys):
    proto = model(
        [helper.make_node("Add", ["a", "b"], ["y"])],
        [info("a", [1, 2]), info("b", [1, 2])],
        [info("y", [1, 2])],
        [],
    )
    note(proto, "a", finn_datatype="UINT2")
    note(proto, "b", finn_datatype="INT2")
    onnx.save(proto, tmp_path / "two.onnx")
    assert tool("range-analysis")([str(tmp_path / "two.onnx"), "--report-mode=range"]) == 0
    found = ast.literal_eval(capsys.readouterr().out)
    assert found == {"a": (0.0, 3.0), "b": (-2.0, 1.0), "y": (-2.0, 4.0)}


def test_all_files_count_in_the_statistics(tmp_path):
    path, dump = mlp(tmp_path), tmp_path / "dump"
    dump.mkdir()
    for number, low in enumerate((-5.0, 0.0, 1.0)):
        np.save(dump / f"out_y_batch{number}.npy", np.array([[low, 0, number]]))
    np.save(dump / "out_y2_batch0.npy", np.array([[99.0, 99, 99]]))
    out = tmp_path / "s.json"
    given = [path, str(dump), str(tmp_path / "st"), "--plot=False", f"--output-json={out}"]
    assert tool("tensor-stats")(given) == 0
    found = json.loads(out.read_text())
    assert found["y"]["axis1"] == {"min": [-5.0, 0.0, 0.0], "max": [1.0, 0.0, 2.0]}


def test_statistics_without_any_file_are_refused(tmp_path, capsys):
    (tmp_path / "dump").mkdir()
    given = [mlp(tmp_path), str(tmp_path / "dump"), str(tmp_path / "st"), "--plot=False"]
    assert tool("tensor-stats")(given) == 2
    assert "holds no file" in capsys.readouterr().err


def test_channels_are_pruned_by_a_specification(tmp_path):
    path = tmp_path / "m.onnx"
    proto = annotated(13)
    proto.graph.node.add().CopyFrom(
        helper.make_node("Conv", ["y", "V"], ["z2"], name="Conv_1", kernel_shape=[1, 1])
    )
    proto.graph.initializer.append(constant("V", RNG.normal(size=(2, 6, 1, 1))))
    proto.graph.output[0].CopyFrom(info("z2", [1, 2, 8, 8]))
    onnx.save(proto, path)
    (tmp_path / "spec.txt").write_text("{'r': {1: {0, 5}}}")
    assert tool("prune-channels")([str(path), str(tmp_path / "spec.txt")]) == 0
    done = onnx.load(tmp_path / "m_pruned.onnx")
    held = {one.name: list(one.dims) for one in done.graph.initializer}
    assert held["W"] == [4, 3, 3, 3]
    assert held["V"] == [2, 4, 1, 1]


def test_channels_last_keeps_or_turns_the_input(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(annotated(13), path)
    for flag, shape in ((["--make-input-channels-last"], [1, 8, 8, 3]), ([], [1, 3, 8, 8])):
        assert tool("to-channels-last")([str(path), *flag]) == 0
        graph = onnx.load(tmp_path / "m_channels_last.onnx").graph
        assert [d.dim_value for d in graph.input[0].type.tensor_type.shape.dim] == shape


def test_convert_goes_both_ways(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(annotated(13), path)
    assert tool("convert")([str(path), "--output-style=qcdq"]) == 0
    assert "QuantizeLinear" in operators(tmp_path / "m_qcdq.onnx")
    back = ["--output-style", "quant", "--output-file", str(tmp_path / "back.onnx")]
    assert tool("convert")([str(tmp_path / "m_qcdq.onnx"), *back]) == 0
    assert operators(tmp_path / "back.onnx").count("Quant") == 2


def test_the_keys_of_the_published_models_are_listed(capsys):
    assert tool("download-model")(["list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 19


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "IN_FILE is missing"),
        (["a", "b"], "one argument too many"),
        (["a", "--nothing=1"], "there is no flag --nothing"),
        (["a", "--preserve-qnt-ops=maybe"], "neither true nor false"),
        (["a", "--out-file"], "needs a value"),
    ],
)
def test_wrong_usage_is_told_in_a_line(given, words, capsys):
    assert tool("cleanup")(given) == 2
    assert words in capsys.readouterr().err


def _own(one: str, *rest: str, number: int = 1, on: bool = True, off: bool = False) -> str:
    """Return what was given."""
    return f"{one} {rest} {number} {on} {off}"


def test_flags_stand_before_or_behind_with_or_without_a_sign(capsys):
    assert run_tool(_own, ["--number", "3", "a", "--off", "b", "--on=no"]) == 0
    assert capsys.readouterr().out == "a ('b',) 3 False True\n"
