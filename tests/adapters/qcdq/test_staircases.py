"""Quantizers in float operators of any order: recognized where every value is the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.helper import make_node

import qonnx_hub as qh
from qonnx_hub_adapters.qcdq.importer import kept_reasons
from qonnx_hub_ir import dialect
from qonnx_hub_ir.quantizers import IntQuant, Rounding
from tests.support import SHARED, model_of, needs_shared

runtime = pytest.importorskip("onnxruntime")

Form = list[tuple[str, dict[str, Any]]]


def form(*steps: tuple[str, Any]) -> onnx.ModelProto:
    """Return a file with operators one behind the other, each with its constants."""
    nodes, constants, value = [], {}, "x"
    for index, (op_type, *parameters) in enumerate(steps):
        names = [f"c{index}_{place}" for place in range(len(parameters))]
        constants |= {
            name: np.asarray(number, dtype=np.float32)
            for name, number in zip(names, parameters, strict=True)
        }
        result = "y" if index + 1 == len(steps) else f"v{index}"
        nodes.append(make_node(op_type, [value, *names], [result], f"{op_type}_{index}"))
        value = result
    return model_of(nodes, {"x": ("N", 4)}, ["y"], constants, domains=(), opset=13)


def telling(*factors: float) -> np.ndarray:
    """Return values on and beside the ties of steps, and large ones."""
    halves = np.arange(-600, 600, dtype=np.float64) / 2
    near = np.concatenate([(halves * factor).astype(np.float32) for factor in factors])
    beside = [np.nextafter(near, np.float32(end)) for end in (-np.inf, np.inf)]
    ends = np.array([3e38, -3e38, 1e-40, 0.0], dtype=np.float32)
    values = np.concatenate([near, *beside, ends])
    return np.resize(values, (-(-values.size // 4), 4))


def theirs(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = runtime.InferenceSession(proto.SerializeToString(), options)
    return session.run(None, {"x": x})[0]


def read(proto: onnx.ModelProto) -> tuple[list[str], list[IntQuant]]:
    nodes = list(qh.load(proto).graph)
    found = [dialect.read_quantizer(node) for node in nodes if dialect.is_quantizer(node)]
    return [node.op_type for node in nodes], found


WHOLE: dict[str, tuple[onnx.ModelProto, float]] = {
    "learned step size": (
        form(("Div", 0.1), ("Clip", -8, 7), ("Round",), ("Mul", 0.1)),
        0.1,
    ),
    "times the inverse": (
        form(("Mul", 4), ("Round",), ("Clip", 0, 255), ("Mul", 0.25)),
        0.25,
    ),
    "levels of the unit interval": (
        form(("Clip", 0, 1), ("Mul", 16), ("Floor",), ("Clip", 0, 15), ("Div", 16)),
        0.0625,
    ),
    "clipped before dividing": (
        form(("Clip", 0, 3.75), ("Div", 0.25), ("Round",), ("Mul", 0.25)),
        0.25,
    ),
    "zero point added after rounding": (
        form(("Div", 0.1), ("Round",), ("Add", 3), ("Clip", 0, 15), ("Sub", 3), ("Mul", 0.1)),
        0.1,
    ),
    "limits that are not symmetric": (
        form(("Div", 0.5), ("Round",), ("Clip", -3, 12), ("Mul", 0.5)),
        0.5,
    ),
    "half up": (
        form(("Mul", 2), ("Add", 0.5), ("Floor",), ("Clip", 0, 15), ("Mul", 0.5)),
        0.5,
    ),
    "one step for each channel": (
        form(
            ("Div", [0.1, 0.2, 0.3, 0.4]),
            ("Round",),
            ("Clip", -7, 7),
            ("Mul", [0.1, 0.2, 0.3, 0.4]),
        ),
        0.1,
    ),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_staircase_that_is_a_quantizer_is_read_as_one(name: str) -> None:
    proto, step = WHOLE[name]
    kinds, (quant,) = read(proto)
    assert kinds == ["Quant"]
    assert float(np.asarray(quant.scale).flat[0]) == np.float32(step)


@pytest.mark.parametrize("name", WHOLE)
def test_its_values_are_those_of_the_file(name: str) -> None:
    proto, step = WHOLE[name]
    x = telling(step, 0.2, 0.3)
    np.testing.assert_array_equal(qh.run(qh.load(proto), {"x": x})["y"], theirs(proto, x))


def test_an_inverse_that_rounds_elsewhere_is_none_and_says_so() -> None:
    proto = form(("Mul", 1 / 0.3), ("Round",), ("Clip", -128, 127), ("Mul", 0.3))
    kinds, (quant,) = read(proto)
    assert kinds == ["Mul", "Quant", "Mul"]
    assert float(np.asarray(quant.scale)) == 1.0
    assert "levels begin elsewhere" in str(kept_reasons(qh.load(proto)))
    x = telling(0.3)
    np.testing.assert_array_equal(qh.run(qh.load(proto), {"x": x})["y"], theirs(proto, x))


def test_rounding_that_nothing_limits_is_none_and_says_so() -> None:
    proto = form(("Div", 0.1), ("Round",), ("Mul", 0.1), ("Clip", -1e30, 1e30))
    assert read(proto)[1] == []


def test_integers_that_nothing_scales_back_are_a_quantizer_of_scale_1() -> None:
    proto = form(("Mul", 37), ("Add", 11), ("Div", 256), ("Floor",), ("Clip", 0, 255))
    kinds, (quant,) = read(proto)
    assert kinds == ["Mul", "Add", "Div", "Quant"]
    assert quant.rounding is Rounding.FLOOR
    x = np.random.default_rng(0).integers(-5000, 5000, (300, 4)).astype(np.float32)
    np.testing.assert_array_equal(qh.run(proto, {"x": x})["y"], theirs(proto, x))


DIALECTS = ("deeploy_quant", "deeploy_add_rq", "deeploy_conv2d_rq", "deepquant_transformer")


@needs_shared
@pytest.mark.parametrize("name", DIALECTS)
def test_published_files_give_their_recorded_answers(name: str) -> None:
    path = SHARED / "models" / "dialects" / f"{name}.onnx"
    model = qh.load(path)
    given, wanted = (np.load(path.with_suffix(f".{e}.npz")) for e in ("inputs", "outputs"))
    feeds = {
        str(value.name): given[key].astype(value.dtype.numpy())
        for value, key in zip(model.graph.inputs, given.files, strict=False)
    }
    (found,) = qh.run(model, feeds).values()
    np.testing.assert_array_equal(found, wanted[wanted.files[0]].reshape(found.shape))
    assert any(dialect.is_quantizer(node) for node in model.graph)


def shifted(**changes: Any) -> onnx.ModelProto:
    """Return a file with a RequantShift of 4 bits: floor((5 x + 3) / 16 + 1/2)."""
    numbers = {"div": 16.0, "n_levels": 16.0, "signed": 1.0, **changes}
    attributes = {
        name: helper.make_tensor(name, onnx.TensorProto.FLOAT, [1], [value])
        for name, value in numbers.items()
    }
    node = make_node("RequantShift", ["x", "m", "a"], ["y"], "shift", **attributes)
    return model_of([node], {"x": ("N", 4)}, ["y"], {"m": 5.0, "a": 3.0}, domains=())


@pytest.mark.parametrize("signed", [0.0, 1.0])
def test_requant_shift_is_that_of_integers(signed: float) -> None:
    x = np.arange(-40, 40, dtype=np.float32).reshape(20, 4)
    low, high = (-8, 7) if signed else (0, 15)
    wanted = np.clip((5 * x.astype(int) + 3 + 8) >> 4, low, high)
    np.testing.assert_array_equal(qh.run(shifted(signed=signed), {"x": x})["y"], wanted)


@pytest.mark.parametrize("to", ["qcdq", "qonnx"])
def test_requant_shift_is_written_in_standard_operators(to: str, tmp_path: Any) -> None:
    qh.convert(shifted(), tmp_path / "y.onnx", to=to, self_contained=to == "qonnx")
    x = np.arange(-40, 40, dtype=np.float32).reshape(20, 4)
    wanted = np.clip((5 * x.astype(int) + 3 + 8) >> 4, -8, 7)
    found = runtime.InferenceSession(tmp_path / "y.onnx").run(None, {"x": x})[0]
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("change", [{"div": 12.0}, {"n_levels": 5.5}, {"div": -16.0}])
def test_a_requant_shift_that_is_not_understood_stays(change: dict[str, float]) -> None:
    assert read(shifted(**change))[0] == ["RequantShift"]


@pytest.mark.parametrize("domain", ["com.amd.quark", "com.vai.quantize"])
@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int16, np.uint16])
def test_the_quantizers_of_amd_are_read(domain: str, kind: Any) -> None:
    prefix = "Extended" if domain == "com.amd.quark" else "Vitis"
    constants = {"s": 0.25, "z": np.array(3, dtype=kind)}
    nodes = [
        make_node(f"{prefix}QuantizeLinear", ["x", "s", "z"], ["q"], "q", domain=domain),
        make_node(f"{prefix}DequantizeLinear", ["q", "s", "z"], ["y"], "d", domain=domain),
    ]
    proto = model_of(nodes, {"x": ("N", 4)}, ["y"], constants, domains=(domain,))
    (quant,) = read(proto)[1]
    assert int(np.asarray(quant.bits)) == np.iinfo(kind).bits
    x = np.clip(telling(0.25), -1e6, 1e6)
    codes = np.clip(np.rint(x / np.float32(0.25)) + 3, *_limits(kind)) - 3
    np.testing.assert_array_equal(qh.run(proto, {"x": x})["y"], codes * np.float32(0.25))


def _limits(kind: Any) -> tuple[int, int]:
    return np.iinfo(kind).min, np.iinfo(kind).max


def test_what_only_looks_like_a_quantizer_is_listed_with_the_reason() -> None:
    proto = form(("Mul", 1 / 0.3), ("Round",), ("Clip", -128, 127), ("Mul", 0.3))
    (note,) = qh.inspect(proto).notes
    assert "'Mul_3' is no quantizer here: looks like a quantizer" in note


def faked(low: float, high: float, levels: int, domain: str) -> onnx.ModelProto:
    node = make_node(
        *("FakeQuantize", ["x", "l", "h", "l", "h"], ["y"], "fake"),
        domain=domain,
        levels=levels,
    )
    constants = {"l": low, "h": high}
    return model_of([node], {"x": ("N", 4)}, ["y"], constants, domains=(domain,))


@pytest.mark.parametrize(
    ("low", "high", "levels"), [(-8.0, 7.9375, 256), (0.0, 15.0, 16), (-1.3, 2.1, 256)]
)
def test_openvinos_fake_quantize_is_its_documents_formula(
    low: float, high: float, levels: int
) -> None:
    proto = faked(low, high, levels, "org.openvinotoolkit")
    x = np.clip(telling(0.0625, 1.0), -1e6, 1e6)
    f = np.float32
    inner = np.clip(x, f(low), f(high))
    share = (inner - f(low)) / (f(high) - f(low))
    wanted = np.rint(share * f(levels - 1)) / f(levels - 1) * (f(high) - f(low)) + f(low)
    np.testing.assert_array_equal(qh.run(proto, {"x": x})["y"], wanted)


def test_openvinos_fake_quantize_of_a_power_of_two_is_a_quantizer() -> None:
    kinds, (quant,) = read(faked(0.0, 15.0, 16, "org.openvinotoolkit"))
    assert kinds == ["Quant"]
    assert float(np.asarray(quant.bits)) == 4.0
