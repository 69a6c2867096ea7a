"""Quantizers as NEMO, binary nets in PyTorch, mct_quantizers and AMD Quark write them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.helper import make_node

import qonnx_hub as qh
from qonnx_hub_ir import dialect
from qonnx_hub_ir.quantizers import Rounding
from tests.support import SHARED, model_of, needs_shared

MCT = "mct_quantizers"
X = np.concatenate(
    [
        np.linspace(-9, 9, 145, dtype=np.float32),
        np.array([0.0, -0.0, 1e-45, -1e-45, 1e-38, 3e38, -3e38], dtype=np.float32),
    ]
).reshape(-1, 4)


def kinds(proto: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in qh.load(proto).graph]


def quantizers(proto: onnx.ModelProto) -> list[Any]:
    nodes = qh.load(proto).graph
    return [dialect.read_quantizer(node) for node in nodes if dialect.is_quantizer(node)]


def signed(*more: onnx.NodeProto, source: str = "x") -> onnx.ModelProto:
    """Return a net whose one layer reads signs, which are made of ``source``."""
    nodes = [
        *more,
        make_node("Sign", [source], ["s"], "sign"),
        make_node("Mul", ["s", "gain"], ["g"], "gain"),
        make_node("MatMul", ["g", "w"], ["y"], "product"),
    ]
    weight = np.eye(4, 3, dtype=np.float32)
    constants = {"gain": 0.5, "w": weight, "little": 0.1}
    return model_of(nodes, {"x": ("N", 4)}, ["y"], constants, domains=(), opset=17)


def test_a_sign_that_a_layer_reads_is_a_quantizer_of_three_values() -> None:
    (quant,) = quantizers(signed())
    assert (quant.rounding, float(quant.bits), quant.narrow) == (Rounding.UP, 2.0, True)
    wanted = np.sign(X)[:, :3] * np.float32(0.5)
    np.testing.assert_array_equal(qh.run(qh.load(signed()), {"x": X})["y"], wanted)


def test_a_sign_of_a_shifted_sign_has_two_values() -> None:
    before = [
        make_node("Sign", ["x"], ["t"], "first"),
        make_node("Add", ["t", "little"], ["u"], "shift"),
    ]
    proto = signed(*before, source="u")
    assert kinds(proto) == ["BipolarQuant", "Mul", "MatMul"]
    wanted = np.where(X >= 0, 0.5, -0.5).astype(np.float32)[:, :3]
    np.testing.assert_array_equal(qh.run(qh.load(proto), {"x": X})["y"], wanted)


def test_a_sign_that_no_layer_reads_stays_one() -> None:
    nodes = [make_node("Sign", ["x"], ["y"], "sign")]
    assert kinds(model_of(nodes, {"x": ("N", 4)}, ["y"], {}, domains=(), opset=17)) == ["Sign"]


def nemo(low: float = 0.0, high: float = 255.0, kind: int = TensorProto.INT64):
    """Return a chain that scales in integers and clips in floats."""
    nodes = [
        make_node("Cast", ["x"], ["i"], "in", to=kind),
        make_node("Mul", ["i", "m"], ["p"], "mul"),
        make_node("Div", ["p", "d"], ["q"], "div"),
        make_node("Cast", ["q"], ["f"], "out", to=TensorProto.FLOAT),
        make_node("Clip", ["f", "low", "high"], ["y"], "clip"),
    ]
    whole = helper.tensor_dtype_to_np_dtype(kind)
    constants = {"m": np.array(20, whole), "d": np.array(7, whole), "low": low, "high": high}
    return model_of(nodes, {"x": ("N", 4)}, ["y"], constants, domains=(), opset=13)


@pytest.mark.parametrize("kind", [TensorProto.INT32, TensorProto.INT64])
@pytest.mark.parametrize(("low", "bits", "is_signed"), [(0, 8, False), (-256, 9, True)])
def test_integers_that_are_clipped_to_codes_are_a_quantizer(
    kind, low, bits, is_signed
) -> None:
    proto = nemo(low, kind=kind)
    assert kinds(proto) == ["Cast", "Mul", "Div", "Cast", "Quant"]
    (quant,) = quantizers(proto)
    assert (float(quant.scale), float(quant.bits), quant.signed) == (1.0, bits, is_signed)
    x = np.arange(-200, 200, dtype=np.float32).reshape(-1, 4)
    # Integers are divided towards zero.
    wanted = np.trunc(x.astype(np.float64) * 20 / 7).clip(low, 255)
    np.testing.assert_array_equal(qh.run(qh.load(proto), {"x": x})["y"], wanted)


def test_integers_that_are_clipped_elsewhere_are_none() -> None:
    assert kinds(nemo(high=200.0))[-1] == "Clip"
    assert kinds(nemo(low=0.5))[-1] == "Clip"


@needs_shared
def test_the_quantizers_of_a_published_file_of_nemo_are_found() -> None:
    found = qh.inspect(SHARED / "models/dialects/nemo_eegnet.onnx")
    assert [(row.bits, row.signed) for row in found.tensors] == [("8", False)] * 4


def activation(threshold: float, is_signed: int, bits: int, op: str) -> onnx.ModelProto:
    node = make_node(
        *(op, ["x"], ["y"], "act"),
        domain=MCT,
        threshold=threshold,
        signed=is_signed,
        num_bits=bits,
    )
    return model_of([node], {"x": ("N", 4)}, ["y"], {}, domains=(MCT,))


def as_registered(x: np.ndarray, threshold: float, is_signed: int, bits: int) -> np.ndarray:
    """Return what the operator computes that mct_quantizers registers, by its formula."""
    scale = threshold / 2 ** (bits - is_signed)
    low = -threshold if is_signed else 0
    return np.round(np.clip(x, low, threshold - scale) / scale) * scale


@pytest.mark.parametrize("op", ["ActivationPOTQuantizer", "ActivationSymmetricQuantizer"])
@pytest.mark.parametrize("is_signed", [0, 1])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_activations_of_mct_are_quantizers(op: str, is_signed: int, bits: int) -> None:
    proto = activation(4.0, is_signed, bits, op)
    (quant,) = quantizers(proto)
    assert (float(quant.bits), quant.signed) == (bits, bool(is_signed))
    wanted = as_registered(X, 4.0, is_signed, bits)
    np.testing.assert_array_equal(qh.run(qh.load(proto), {"x": X})["y"], wanted)


def test_an_activation_of_mct_of_any_threshold_gives_the_values_of_its_formula() -> None:
    threshold = float(np.float32(2.7))
    proto = activation(threshold, 1, 8, "ActivationSymmetricQuantizer")
    wanted = as_registered(X, threshold, 1, 8)
    np.testing.assert_array_equal(qh.run(qh.load(proto), {"x": X})["y"], wanted)


@pytest.mark.parametrize("op", ["WeightsPOTQuantizer", "WeightsSymmetricQuantizer"])
@pytest.mark.parametrize("axis", [0, 1, -1, None])
def test_weights_of_mct_are_quantizers(op: str, axis: int | None) -> None:
    threshold = np.array(
        [4.0] if axis is None else [1.0, 2.0, 0.5, 8.0][: 4 if not axis else 3]
    )
    more = {"per_channel": int(axis is not None), "channel_axis": axis or 0}
    node = make_node(
        *(op, ["w", "t"], ["q"], "weight"), domain=MCT, num_bits=4, signed=1, **more
    )
    product = make_node("MatMul", ["x", "q"], ["y"], "product")
    weight = (np.arange(12, dtype=np.float32).reshape(4, 3) - 6) * np.float32(0.37)
    constants = {"w": weight, "t": threshold.astype(np.float32)}
    proto = model_of([node, product], {"x": ("N", 4)}, ["y"], constants, domains=(MCT,))
    assert kinds(proto) == ["Quant", "MatMul"]
    shape = [1, 1]
    if axis is not None:
        shape[axis] = -1
    limits = threshold.reshape(shape).astype(np.float32)
    scale = limits / np.float32(8)
    wanted = np.round(np.clip(weight, -limits, limits - scale) / scale) * scale
    found = qh.run(qh.load(proto), {"x": np.eye(4, dtype=np.float32)})["y"]
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("op", "domain", "words"),
    [
        ("BFPQuantizeDequantize", "com.amd.quark", "shares an exponent"),
        ("MXQuantizeDequantize", "com.amd.quark", "shares a scale"),
        ("ActivationUniformQuantizer", MCT, "limits are moved"),
        ("WeightsLUTPOTQuantizer", MCT, "those of a table"),
    ],
)
def test_what_quantizes_otherwise_is_listed_with_the_reason(op, domain, words) -> None:
    node = make_node(op, ["x"], ["y"], "other", domain=domain)
    proto = model_of([node], {"x": ("N", 4)}, ["y"], {}, domains=(domain,))
    assert kinds(proto) == [op]
    notes = [n for n in qh.inspect(proto).notes if "'other' is no quantizer here" in n]
    assert len(notes) == 1
    assert "looks like a quantizer, is none of integers" in notes[0]
    assert words in notes[0]
