"""QuantizeLinear to a small float type becomes FloatQuant."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx.helper import make_node

import qonnx_hub as qh
from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.protocol import ImportOptions
from qonnx_hub_adapters.qcdq.importer import QcdqImporter, kept_reasons
from tests.support import model_of

FORMATS = {
    "e4m3fn": (ml_dtypes.float8_e4m3fn, 8, 19),
    "e4m3fnuz": (ml_dtypes.float8_e4m3fnuz, 8, 19),
    "e5m2": (ml_dtypes.float8_e5m2, 8, 19),
    "e5m2fnuz": (ml_dtypes.float8_e5m2fnuz, 8, 19),
    "e2m1": (ml_dtypes.float4_e2m1fn, 4, 23),
}


def every_value(dtype: Any, bits: int) -> np.ndarray:
    """Every finite value of a type."""
    codes = np.arange(1 << bits, dtype=np.uint8).view(dtype).astype(np.float32)
    return np.unique(codes[np.isfinite(codes)])


def hard_values(dtype: Any, bits: int) -> np.ndarray:
    """Every value, what lies halfway between two, beyond the last, and two floats beside."""
    values = every_value(dtype, bits)
    last = values[-1] - values[-2]
    steps = last * np.arange(1, 4, dtype=np.float32)
    values = np.concatenate([values[0] - steps[::-1], values, values[-1] + steps])
    exact = np.concatenate([values, (values[1:] + values[:-1]) / 2])
    near = [np.nextafter(exact, np.float32(end)) for end in (np.inf, -np.inf)]
    return np.concatenate([exact, *near, np.array([3e38, -3e38], dtype=np.float32)])


def imported_run(dtype: Any, opset: int, scale: Any, x: np.ndarray, **attributes: Any) -> Any:
    nodes = [
        make_node("QuantizeLinear", ["x", "s", "z"], ["q"], **attributes),
        make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    constants = {"s": scale, "z": np.zeros(np.shape(scale), dtype=dtype)}
    proto = model_of(nodes, {"x": x.shape}, ["y"], constants, opset, domains=())
    imported = QcdqImporter().load(proto, ImportOptions())
    assert kept_reasons(imported) == {}
    assert [node.op_type for node in imported.graph] == ["FloatQuant"]
    return Session(imported).run({"x": x})["y"]


# Expected values: the conversions of the ml_dtypes package.


@pytest.mark.parametrize("scale", [1.0, 0.25, 2.0**-20])
@pytest.mark.parametrize("name", FORMATS)
def test_values_are_rounded_to_the_type_and_saturate(name: str, scale: float) -> None:
    dtype, bits, opset = FORMATS[name]
    x = hard_values(dtype, bits)
    limit = every_value(dtype, bits)[-1]
    expected = np.clip(x, -limit, limit).astype(dtype).astype(np.float32) * np.float32(scale)
    with np.errstate(over="ignore"):
        y = imported_run(dtype, opset, scale, x * np.float32(scale))
    assert len(x) > 100 or bits == 4
    np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("name", [n for n in FORMATS if n != "e2m1"])
def test_without_saturation_values_beyond_overflow(name: str) -> None:
    dtype, bits, opset = FORMATS[name]
    x = hard_values(dtype, bits)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = x.astype(dtype).astype(np.float32)
    assert not np.all(np.isfinite(expected))
    y = imported_run(dtype, opset, 1.0, x, saturate=0)
    np.testing.assert_array_equal(y, expected)


def test_a_scale_per_channel_is_kept() -> None:
    x = np.array([[0.3, 0.3], [1000, 1000]], dtype=np.float32)
    scale = np.array([1.0, 4.0], dtype=np.float32)
    y = imported_run(ml_dtypes.float8_e4m3fn, 19, scale, x)
    # 0.3 lies between 0.28125 and 0.3125, 0.3 / 4 between 0.0703125 and 0.078125; 1000 / 4 is
    # rounded to 256.
    assert y.tolist() == [[0.3125, 0.3125], [448.0, 1024.0]]


@pytest.mark.parametrize("name", FORMATS)
def test_stored_values_become_a_quantizer_on_them(name: str) -> None:
    dtype, bits, opset = FORMATS[name]
    values = every_value(dtype, bits)
    nodes = [
        make_node("DequantizeLinear", ["w", "s", "z"], ["v"]),
        make_node("Add", ["x", "v"], ["y"]),
    ]
    zero = np.zeros((), dtype=dtype)
    constants = {"w": values.astype(dtype), "s": 0.5, "z": zero}
    proto = model_of(nodes, {"x": values.shape}, ["y"], constants, opset, domains=())
    imported = QcdqImporter().load(proto, ImportOptions())
    assert [node.op_type for node in imported.graph] == ["FloatQuant", "Add"]
    y = Session(imported).run({"x": np.zeros(values.shape, dtype=np.float32)})["y"]
    np.testing.assert_array_equal(y, values * np.float32(0.5))


@pytest.mark.parametrize("saturate", [0, 1])
def test_a_float8_of_a_file_overflows_as_it_did(saturate, tmp_path) -> None:
    info, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT8E4M3FN
    nodes = [
        onnx.helper.make_node(
            *("QuantizeLinear", ["x", "s", "z"], ["q"], "q"), saturate=saturate
        ),
        onnx.helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], "d"),
    ]
    parameters = [
        onnx.helper.make_tensor("s", onnx.TensorProto.FLOAT, [], [0.5]),
        onnx.helper.make_tensor("z", kind, [], [0.0]),
    ]
    ends = [[info(name, onnx.TensorProto.FLOAT, [3])] for name in "xy"]
    graph = onnx.helper.make_graph(nodes, "g", *ends, parameters)
    imports = [onnx.helper.make_opsetid("", 19)]
    model = qh.load(onnx.helper.make_model(graph, opset_imports=imports, ir_version=9))
    x = np.array([1.0, 3.1, 1000.0], dtype=np.float32)
    # By hand: 6.2 lies nearest to 6; beyond 448 * 0.5 is no number, or that.
    wanted = np.array([1, 3, 224 if saturate else np.nan], dtype=np.float32)
    np.testing.assert_array_equal(qh.run(model, {"x": x})["y"], wanted)
    written = qh.save(model, tmp_path / "m.onnx", "qcdq").to_proto()
    (first,) = [node for node in written.graph.node if node.op_type == "QuantizeLinear"]
    assert [a.i for a in first.attribute if a.name == "saturate"] == [saturate]
