"""Files of integer operators run in integers, as they are written, batch by batch or at once.

The reference is onnxruntime on the file itself, with its default options.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.helper import make_node
from typer.testing import CliRunner

import qonnx_hub as qh
from qonnx_hub.cli import app
from qonnx_hub.executor.batch_axis import Batcher
from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.onnx_reader import read_model
from tests.adapters.qlinear.kit import export
from tests.adapters.qlinear.test_certainty import matmul_file, spread_scale
from tests.adapters.qlinear.test_convert import two_branches

RNG = np.random.default_rng
MICROSOFT = "com.microsoft"


def on_onnxruntime(path: Path, x: np.ndarray) -> np.ndarray:
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


@pytest.mark.parametrize("dialect", ["onnx", "ort"])
def test_the_verb_run_gives_the_integers_of_the_file(dialect: str, tmp_path: Path) -> None:
    path, inputs, outputs = (tmp_path / name for name in ("m.onnx", "x.npz", "y.npz"))
    onnx.save(onnx_ir.to_proto(export(two_branches(), dialect=dialect).model), path)
    x = RNG(1).normal(0, 2, (200, 6)).astype(np.float32)
    np.savez(inputs, x=x)
    asked = ["run", str(path), "--inputs", str(inputs), "-o", str(outputs), "--all-tensors"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    with np.load(outputs) as values:
        assert {"int8", "uint8"} & {values[name].dtype.name for name in values}
        np.testing.assert_array_equal(values["y"], on_onnxruntime(path, x))


def test_a_file_of_odd_scales_runs_in_integers_although_reading_it_may_round(
    tmp_path: Path,
) -> None:
    sx, sw = np.float32(0.01234), np.float32(0.00567)
    path = tmp_path / "m.onnx"
    onnx.save(matmul_file(64, sx=sx, sw=sw, sy=spread_scale(64, sx, sw)), path)
    x = RNG(1).uniform(-1.23, 1.91, (12000, 64)).astype(np.float32)
    [run] = qh.run(path, {"x": x}).values()
    np.testing.assert_array_equal(run, on_onnxruntime(path, x))
    # Read as quantizers, a few of these values lie a step away: run is not read so.
    assert np.any(qh.run(qh.load(path), {"x": x})["y"] != run)
    [asked] = [qh.run(qh.api.load_to_run(path, "qlinear"), {"x": x})["y"]]
    assert np.any(asked != run)


def test_a_file_without_integer_operators_is_read_as_ever(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    source = two_branches()
    qh.save(source, path, "qcdq")
    loaded, to_run = qh.load(path), qh.api.load_to_run(path)
    assert [n.op_type for n in to_run.graph] == [n.op_type for n in loaded.graph]


def frozen_file(nodes: list[Any], constants: dict[str, Any], size: int) -> onnx.ModelProto:
    """A file for a batch of two, from bytes `x` to bytes `y`."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "frozen",
        [value("x", TensorProto.UINT8, [2, size])],
        [value("y", TensorProto.UINT8, None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
    )
    imports = [helper.make_opsetid("", 19), helper.make_opsetid(MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


S, Z = np.float32(0.25), np.uint8(120)
WEIGHT = RNG(2).integers(-7, 8, (6, 6)).astype(np.int8)
CODES = {"s": S, "z": Z, "w": WEIGHT, "t": np.float32(0.5), "u": np.int8(0)}
XSZ, OUT = ["x", "s", "z"], ["s", "z"]


def own(op_type: str, inputs: list[str], **attrs: Any) -> Any:
    return make_node(op_type, inputs, ["y"], "op", domain=MICROSOFT, **attrs)


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        ([make_node("QLinearMatMul", [*XSZ, "w", "t", "u", *OUT], ["y"])], {}),
        ([own("QGemm", [*XSZ, "w", "t", "u", "", *OUT])], {}),
        ([own("QLinearAdd", [*XSZ, *XSZ, *OUT])], {}),
        ([own("QLinearConcat", [*OUT, *XSZ, *XSZ], axis=1)], {}),
        ([own("QLinearSigmoid", [*XSZ, *OUT])], {}),
        (
            [
                make_node("Cast", ["x"], ["i"], to=TensorProto.INT32),
                make_node("Gather", ["table", "i"], ["y"]),
            ],
            {"table": np.arange(255, -1, -1).astype(np.uint8)},
        ),
    ],
    ids=["matmul", "gemm", "add", "concat", "sigmoid", "table"],
)
def test_integer_operators_take_more_samples_than_the_file_says(
    nodes: list[Any], constants: dict[str, Any]
) -> None:
    model = read_model(frozen_file(nodes, CODES | constants, 6))
    assert Batcher(model).is_apart()
    session = Session(model)
    x = RNG(3).integers(0, 256, (8, 6)).astype(np.uint8)
    parts = [session.run({"x": x[i : i + 2]})["y"] for i in range(0, 8, 2)]
    np.testing.assert_array_equal(session.run({"x": x})["y"], np.concatenate(parts))


@pytest.mark.parametrize(
    ("node", "constants"),
    [
        (own("QLinearConcat", [*OUT, *XSZ, *XSZ], axis=0), {}),
        (own("QLinearAdd", [*XSZ, "c", "s", "z", *OUT]), {"c": np.ones((2, 6), np.uint8)}),
        (make_node("Gather", ["x", "i"], ["y"]), {"i": np.array([1, 0], np.int64)}),
        (
            make_node("QLinearMatMul", ["x", "rows", "zs", "w", "t", "u", *OUT], ["y"]),
            {"rows": np.full(2, 0.25, np.float32), "zs": np.full(2, 120, np.uint8)},
        ),
    ],
    ids=["concat of samples", "a constant per sample", "rows", "scales per row"],
)
def test_integer_operators_that_mix_samples_are_known(
    node: Any, constants: dict[str, Any]
) -> None:
    model = read_model(frozen_file([node], CODES | constants, 6))
    assert not Batcher(model).is_apart()


def test_a_range_of_all_samples_is_never_taken_from_more() -> None:
    node = make_node("DynamicQuantizeMatMul", ["f", "w", "t"], ["g"], "d", domain=MICROSOFT)
    nodes = [
        make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        node,
        make_node("Cast", ["g"], ["y"], to=TensorProto.UINT8),
    ]
    assert not Batcher(read_model(frozen_file(nodes, CODES, 6))).is_apart()
