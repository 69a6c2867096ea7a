"""A quantizer that is exported and read again is the same quantizer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx.helper import make_node
from onnx_ir import Model

from qonnx_hub_adapters.protocol import ExportOptions, ImportOptions, export_options
from qonnx_hub_adapters.qcdq.exporter import QcdqExporter
from qonnx_hub_adapters.qcdq.importer import QcdqImporter, kept_reasons
from qonnx_hub_adapters.qonnx.importer import QonnxImporter
from qonnx_hub_ir import dialect
from qonnx_hub_ir.quantizers import BipolarQuant, FloatQuant, IntQuant, Quantizer, Rounding
from tests.support import DOMAIN, model_of, quant_node

SCALARS = [0.125, 0.1, 1.0, float(np.float32(1 / 3)), 1e-7]
PER_CHANNEL = np.array([0.1, 0.25, 1 / 3], dtype=np.float32).reshape(1, 3, 1, 1)


def quantizer_in(model: Model) -> Quantizer:
    assert kept_reasons(model) == {}
    nodes = [node for node in model.graph if node.op_type not in {"Identity"}]
    assert [node.op_type for node in nodes if not dialect.is_quantizer(node)] == []
    (node,) = nodes
    return dialect.read_quantizer(node)


def there_and_back(proto: Any, **options: Any) -> tuple[Quantizer, Quantizer]:
    model = QonnxImporter().load(proto, ImportOptions())
    written = QcdqExporter().export(model, export_options(**options)).to_proto()
    assert not any(node.domain == DOMAIN for node in written.graph.node)
    back = QcdqImporter().load(written, ImportOptions())
    return quantizer_in(model), quantizer_in(back)


def int_quant(
    bits: int, scale: Any = 0.1, zero: Any = 0.0, x: Any = None, **attributes: Any
) -> Any:
    nodes = [quant_node("x", "y", **attributes)]
    constants = {"s": scale, "z": zero, "b": float(bits)}
    if x is not None:
        constants["x"] = x
        nodes = [quant_node("x", "w", **attributes), make_node("Identity", ["w"], ["y"])]
        return model_of(nodes, {}, ["y"], constants)
    return model_of(nodes, {"x": (2, 3, 4, 4)}, ["y"], constants)


def assert_same(before: Quantizer, after: Quantizer) -> None:
    assert isinstance(before, IntQuant)
    assert isinstance(after, IntQuant)
    for name in ("signed", "narrow", "rounding"):
        assert getattr(before, name) == getattr(after, name)
    for name in ("scale", "zero_point", "bits"):
        ours, theirs = (np.asarray(getattr(q, name)) for q in (before, after))
        assert ours.size == theirs.size
        assert ours.tobytes() == theirs.tobytes()
        assert ours.dtype == theirs.dtype == np.float32


@pytest.mark.parametrize("encoding", ["auto", "qcdq", "qdq", "float"])
@pytest.mark.parametrize("scale", [*SCALARS, PER_CHANNEL], ids=str)
@pytest.mark.parametrize("narrow", [0, 1])
@pytest.mark.parametrize("signed", [0, 1])
def test_two_to_eight_bits_come_back(
    signed: int, narrow: int, scale: Any, encoding: str
) -> None:
    for bits in range(2, 9):
        proto = int_quant(bits, scale, signed=signed, narrow=narrow)
        assert_same(*there_and_back(proto, encoding=encoding))


@pytest.mark.parametrize("opset", [19, 21, 25])
def test_every_opset_comes_back(opset: int) -> None:
    for bits in (2, 4, 5, 8):
        for narrow in (0, 1):
            proto = int_quant(bits, PER_CHANNEL, narrow=narrow)
            assert_same(*there_and_back(proto, opset=opset))


@pytest.mark.parametrize("scale", [0.1, PER_CHANNEL], ids=str)
@pytest.mark.parametrize("bits", [9, 12, 15, 16])
def test_nine_to_sixteen_bits_come_back(bits: int, scale: Any) -> None:
    for signed in (0, 1):
        for narrow in (0, 1):
            proto = int_quant(bits, scale, signed=signed, narrow=narrow)
            assert_same(*there_and_back(proto))


def test_unsigned_one_bit_and_wide_quantizers_come_back() -> None:
    assert_same(*there_and_back(int_quant(1, signed=0)))
    assert_same(*there_and_back(int_quant(20)))


@pytest.mark.parametrize("encoding", ["auto", "qdq", "float"])
@pytest.mark.parametrize("zero", [3.0, -5.0, 8.0])
def test_a_zero_point_comes_back(zero: float, encoding: str) -> None:
    for bits in (4, 8):
        assert_same(*there_and_back(int_quant(bits, 0.1, zero), encoding=encoding))


@pytest.mark.parametrize("encoding", ["auto", "qdq", "float"])
@pytest.mark.parametrize("mode", [m for m in Rounding if m is not Rounding.ROUND])
def test_a_rounding_mode_comes_back(mode: Rounding, encoding: str) -> None:
    for zero in (0.0, 3.0):
        proto = int_quant(4, PER_CHANNEL, zero, rounding_mode=str(mode))
        before, after = there_and_back(proto, encoding=encoding)
        assert isinstance(before, IntQuant)
        assert before.rounding is mode
        assert_same(before, after)


def test_a_zero_point_that_is_not_whole_comes_back() -> None:
    assert_same(*there_and_back(int_quant(4, 0.1, 0.3)))


@pytest.mark.parametrize("scale", [0.1, PER_CHANNEL], ids=str)
def test_a_bipolar_quantizer_comes_back(scale: Any) -> None:
    node = make_node("BipolarQuant", ["x", "s"], ["y"], "y", domain=DOMAIN)
    proto = model_of([node], {"x": (2, 3, 4, 4)}, ["y"], {"s": scale})
    before, after = there_and_back(proto)
    assert isinstance(before, BipolarQuant)
    assert isinstance(after, BipolarQuant)
    assert np.asarray(before.scale).tobytes() == np.asarray(after.scale).tobytes()


def test_one_signed_bit_comes_back() -> None:
    assert_same(*there_and_back(int_quant(1, 0.25)))


@pytest.mark.parametrize(
    "numbers", [(4, 3, 7, 448), (4, 3, 8, 240), (5, 2, 15, 57344), (5, 2, 16, 57344)]
)
def test_a_minifloat_of_eight_bits_comes_back(numbers: tuple[int, ...]) -> None:
    names = ["s", "e", "m", "b", "v"]
    node = make_node("FloatQuant", ["x", *names], ["y"], "y", domain=DOMAIN, has_subnormal=1)
    constants = dict(zip(names, (0.3, *map(float, numbers)), strict=True))
    proto = model_of([node], {"x": (2, 3)}, ["y"], constants)
    before, after = there_and_back(proto)
    assert isinstance(before, FloatQuant)
    assert isinstance(after, FloatQuant)
    for name in ("scale", "exponent_bits", "mantissa_bits", "exponent_bias", "max_val"):
        assert np.array_equal(getattr(before, name), getattr(after, name))
    assert after.saturation


@pytest.mark.parametrize("signed", [0, 1])
def test_a_weight_of_eight_bits_comes_back(signed: int) -> None:
    x = np.linspace(-14, 14, 301, dtype=np.float32)
    assert_same(*there_and_back(int_quant(8, 0.1, x=x, signed=signed)))


def test_a_dynamic_scale_comes_back() -> None:
    nodes = [
        make_node("Abs", ["x"], ["a"]),
        make_node("ReduceMax", ["a"], ["s"], keepdims=0),
        quant_node("x", "y"),
    ]
    proto = model_of(nodes, {"x": (2, 3)}, ["y"], {"z": 0.0, "b": 5.0})
    model = QonnxImporter().load(proto, ImportOptions())
    written = QcdqExporter().export(model, ExportOptions()).to_proto()
    back = QcdqImporter().load(written, ImportOptions())
    assert kept_reasons(back) == {}
    (quant,) = [dialect.read_quantizer(n) for n in back.graph if dialect.is_quantizer(n)]
    assert isinstance(quant, IntQuant)
    assert (quant.scale, float(np.asarray(quant.bits))) == (None, 5.0)
