"""The onnxruntime backend of sessions computes the executor's numbers."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner

import qonnx_hub as qh
from benchmarks import nets
from qonnx_hub.cli import app
from qonnx_hub.executor.onnxruntime.layout import BLOCKED, quantize_in_blocks
from qonnx_hub_ir.errors import ExecutionError, MissingDependencyError, UsageError
from tests.adapters.qonnx.kit import quantizers_model, telling_values
from tests.support import DOMAIN, corpus, model_of, needs_shared, quant_node, shared_models

pytest.importorskip("onnxruntime")

SCALES = (0.25, 0.3, 1.7)


def both(source: object, feeds: dict[str, np.ndarray]) -> tuple[list, list]:
    """Answers of the executor and of onnxruntime."""
    model = qh.load(source)
    own = qh.Session(model).run(feeds)
    theirs = qh.Session(model, backend="ort").run(feeds)
    assert list(own) == list(theirs)
    return list(own.values()), list(theirs.values())


@pytest.mark.parametrize("bits", [1, 2, 4, 7, 8, 9, 16, 24])
def test_quantizers_of_every_width_are_exact(bits: int) -> None:
    settings = [
        (
            {"signed": signed, "narrow": narrow, "rounding_mode": mode},
            [scale, zero, bits],
        )
        for signed, narrow, mode, scale, zero in itertools.product(
            (0, 1), (0, 1), ("ROUND", "FLOOR", "HALF_UP"), SCALES, (0, 3)
        )
    ]
    x = telling_values(SCALES, (0, 3))
    # Integers hold no NaN; the limits of float32 are covered.
    x = x[~np.isnan(x)]
    for own, theirs in zip(
        *both(quantizers_model("Quant", settings, x.shape), {"x": x}), strict=True
    ):
        assert own.size
        np.testing.assert_array_equal(theirs, own)


def test_scales_per_channel_and_bipolar_are_exact() -> None:
    scales = np.array([0.25, 0.3, 1.0, 1.7], dtype=np.float32).reshape(4, 1)
    flags = {"signed": 1, "narrow": 0, "rounding_mode": "ROUND"}
    x = telling_values(SCALES)
    x = x[~np.isnan(x)]
    x = x[: x.size // 4 * 4].reshape(4, -1)
    proto = quantizers_model("Quant", [(flags, [scales, 0, 4])], x.shape)
    proto.graph.node.append(
        helper.make_node("BipolarQuant", ["x", "p0_0"], ["y1"], domain=DOMAIN)
    )
    proto.graph.output.append(helper.make_tensor_value_info("y1", 1, x.shape))
    own, theirs = both(proto, {"x": x})
    assert len(own) == 2
    for a, b in zip(own, theirs, strict=True):
        np.testing.assert_array_equal(b, a)


def blocked_convs(channels: int, branches: bool) -> onnx.ModelProto:
    """Two convolutions with a quantizer between them, which others may read as well."""
    rng = np.random.default_rng(0)
    shapes = {"w1": (channels, 16, 3, 3), "w2": (16, channels, 1, 1)}
    weights = {n: rng.integers(-2, 3, shape).astype(np.float32) for n, shape in shapes.items()}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r"]),
        quant_node("r", "q", signed=0),
        helper.make_node("Conv", ["q", "w2"], ["c2"]),
        quant_node("c2", "y"),
    ]
    outputs = ["y"]
    if branches:
        nodes.append(helper.make_node("ReduceMax", ["q"], ["m"], keepdims=0))
        outputs.append("m")
    constants = {**weights, "s": 2.0, "z": 0.0, "b": 4.0}
    return model_of(nodes, {"x": (2, 16, 9, 7)}, outputs, constants)


@pytest.mark.parametrize("channels", [32, 24, 10])
@pytest.mark.parametrize("branches", [False, True])
def test_quantizers_between_convolutions_are_exact(channels: int, branches: bool) -> None:
    x = np.random.default_rng(1).integers(-4, 5, (2, 16, 9, 7)).astype(np.float32)
    own, theirs = both(blocked_convs(channels, branches), {"x": x})
    assert np.unique(own[0]).size > 4
    for a, b in zip(own, theirs, strict=True):
        np.testing.assert_array_equal(b, a)


def blocked_graph(others: int) -> onnx_ir.Model:
    """What onnxruntime makes of two convolutions around a quantizer, in short."""
    blocked = {"domain": BLOCKED}
    pair = [
        helper.make_node("QuantizeLinear", ["o", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
    ]
    nodes = [
        helper.make_node("ReorderInput", ["x"], ["i"], **blocked),
        helper.make_node("ReorderOutput", ["i"], ["o"], channels=32, **blocked),
        *pair,
        helper.make_node("ReorderInput", ["d"], ["j"], **blocked),
        helper.make_node("ReorderOutput", ["j"], ["y"], channels=32, **blocked),
    ]
    nodes += [helper.make_node("Relu", ["d"], [f"r{k}"]) for k in range(others)]
    outputs = ["y", *(f"r{k}" for k in range(others))]
    zero = {"z": np.zeros((), dtype=np.uint8), "s": 0.5}
    proto = model_of(nodes, {"x": (1, 32, 4, 4)}, outputs, zero, domains=(BLOCKED,))
    return onnx_ir.from_proto(proto)


def test_reorderings_around_a_quantizer_are_taken_out() -> None:
    model = blocked_graph(0)
    assert quantize_in_blocks(model)
    assert [node.op_type for node in model.graph] == [
        *("ReorderInput", "QuantizeLinear", "DequantizeLinear", "ReorderOutput"),
    ]
    assert not quantize_in_blocks(model)


def test_other_readers_of_a_quantized_value_get_it_in_order() -> None:
    model = blocked_graph(2)
    assert quantize_in_blocks(model)
    relus = [node for node in model.graph if node.op_type == "Relu"]
    (source,) = {node.inputs[0] for node in relus}
    assert source is not None
    producer = source.producer()
    assert producer is not None
    assert (producer.domain, producer.op_type) == (BLOCKED, "ReorderOutput")


def relu_net(signed: int, also_an_output: bool = False) -> onnx.ModelProto:
    nodes = [helper.make_node("Relu", ["x"], ["r"]), quant_node("r", "y", signed=signed)]
    outputs = ["y", "r"] if also_an_output else ["y"]
    return model_of(nodes, {"x": (64,)}, outputs, {"s": 0.3, "z": 0.0, "b": 4.0})


@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("also_an_output", [False, True])
def test_a_relu_in_front_is_kept_in_effect(signed: int, also_an_output: bool) -> None:
    x = np.linspace(-6, 6, 64).astype(np.float32)
    for own, theirs in zip(*both(relu_net(signed, also_an_output), {"x": x}), strict=True):
        np.testing.assert_array_equal(theirs, own)


@pytest.mark.parametrize("build", [nets.tfc, nets.cnv])
def test_a_net_of_exact_sums_is_exact_up_to_its_last_float_step(build: object) -> None:
    model = qh.load(nets.fix_batch(build(2, 2), 1))
    # Everything before the last normalization is integers times powers of two.
    inner = [n for n in model.graph if n.op_type in {"MatMul", "Gemm"}][-1].outputs[0]
    model.graph.outputs[:] = [inner]
    shape = [int(d) for d in model.graph.inputs[0].shape or ()]
    x = np.random.default_rng(0).uniform(0, 1, (4, *shape[1:])).astype(np.float32)
    own, theirs = both(model, {"x": x})
    assert np.unique(own[0]).size > 8
    np.testing.assert_array_equal(theirs[0], own[0])


@needs_shared
@pytest.mark.parametrize("path", shared_models(), ids=lambda p: p.stem)
def test_a_published_model_agrees(path: Path) -> None:
    rng = np.random.default_rng(0)
    feeds = {
        str(v.name): rng.uniform(-1, 1, list(v.shape or ())).astype(np.float32)
        for v in qh.load(path).graph.inputs
    }
    for own, theirs in zip(*both(path, feeds), strict=True):
        beyond = ~np.isclose(theirs, own, rtol=0, atol=2e-6 * np.abs(own).max())
        # Another order of summation may flip a tie of an image's pixels.
        assert beyond.mean() <= (5e-5 if own.size > 10_000 else 0)


@needs_shared
@pytest.mark.parametrize("folder", corpus("qonnx"), ids=lambda p: p.name)
def test_an_export_agrees(folder: Path) -> None:
    data = np.load(folder / "io.npz")
    names = [str(v.name) for v in qh.load(folder / "model.onnx").graph.inputs]
    feeds = {name: data[f"x{index}"][0] for index, name in enumerate(names)}
    for own, theirs in zip(*both(folder / "model.onnx", feeds), strict=True):
        bound = 2e-6 * np.nanmax(np.abs(own), initial=0.0)
        np.testing.assert_allclose(theirs, own, rtol=0, atol=bound)


def test_more_samples_than_the_file_holds_run_together() -> None:
    model = qh.load(nets.fix_batch(nets.tfc(), 1))
    session = qh.Session(model, backend="ort")
    x = np.random.default_rng(0).uniform(0, 1, (7, 1, 28, 28)).astype(np.float32)
    alone = [session.run({"x": x[k : k + 1]})["logits"] for k in range(7)]
    assert session.run({"x": x})["logits"].shape == (7, 10)
    np.testing.assert_array_equal(session.run({"x": x})["logits"], np.concatenate(alone))
    np.testing.assert_array_equal(
        session.run({"x": x}, batch=2)["logits"], np.concatenate(alone)
    )


def test_samples_that_the_graph_mixes_run_one_by_one() -> None:
    nodes = [quant_node("x", "q"), helper.make_node("ReduceMax", ["q"], ["m"], keepdims=1)]
    nodes.append(helper.make_node("Sub", ["q", "m"], ["y"]))
    proto = model_of(nodes, {"x": (2, 3)}, ["y"], {"s": 0.5, "z": 0.0, "b": 4.0})
    x = np.random.default_rng(0).normal(0, 2, (6, 3)).astype(np.float32)
    own, theirs = both(proto, {"x": x})
    np.testing.assert_array_equal(theirs[0], own[0])
    with pytest.raises(UsageError, match="leave the batch out"):
        qh.Session(qh.load(proto), backend="ort").run({"x": x[:2]}, batch=1)


def test_the_number_of_threads_is_what_is_asked_for() -> None:
    model = qh.load(relu_net(0))
    x = {"x": np.linspace(-1, 1, 64).astype(np.float32)}
    answers = [qh.Session(model, backend="ort", threads=n).run(x)["y"] for n in (1, 2)]
    np.testing.assert_array_equal(*answers)
    with pytest.raises(UsageError, match="1 thread or more"):
        qh.Session(model, backend="ort", threads=0)


def test_wrong_feeds_are_explained_as_everywhere() -> None:
    session = qh.Session(qh.load(relu_net(0)), backend="ort")
    with pytest.raises(UsageError, match="missing inputs: x"):
        session.run({})
    with pytest.raises(UsageError, match="takes float32, float64 is given"):
        session.run({"x": np.zeros(64)})
    with pytest.raises(UsageError, match="outputs only"):
        session.run({"x": np.zeros(64, dtype=np.float32)}, all_tensors=True)


def test_an_unknown_backend_is_refused() -> None:
    with pytest.raises(UsageError, match="there are: numpy, ort"):
        qh.Session(qh.load(relu_net(0)), backend="cuda")


def test_without_onnxruntime_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'qonnx-hub\[ort\]'"):
        qh.Session(qh.load(relu_net(0)), backend="ort")


def test_the_command_line_runs_on_it(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(relu_net(0).SerializeToString())
    x = np.linspace(-6, 6, 64).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    names = ("numpy", "ort")
    for name in names:
        asked = ["run", str(tmp_path / "m.onnx"), "--inputs", str(tmp_path / "x.npz")]
        asked += ["-o", str(tmp_path / f"{name}.npz"), "--backend", name, "--threads", "1"]
        assert CliRunner().invoke(app, asked).exit_code == 0
    own, theirs = (np.load(tmp_path / f"{name}.npz")["y"] for name in names)
    assert np.unique(own).size == 16
    np.testing.assert_array_equal(own, theirs)


_TRUE_OF_FLOAT8 = np.array([1.0, -3.5, 448.0], np.float32)


def _cast_to(kind: int) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Cast", ["x"], ["y"], to=kind)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [3])],
        [helper.make_tensor_value_info("y", kind, [3])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)


def test_a_float8_output_of_onnxruntime_holds_numbers_and_no_bytes():
    model = _cast_to(TensorProto.FLOAT8E4M3FN)
    found = qh.Session(qh.load(model), backend="ort").run({"x": _TRUE_OF_FLOAT8})["y"]
    np.testing.assert_array_equal(found.astype(np.float32), _TRUE_OF_FLOAT8)


def test_an_output_that_onnxruntime_gives_as_no_array_is_named():
    model = _cast_to(TensorProto.BFLOAT16)
    with pytest.raises(ExecutionError, match=r"output 'y' is tensor\(bfloat16\)"):
        qh.Session(qh.load(model), backend="ort").run({"x": _TRUE_OF_FLOAT8})
