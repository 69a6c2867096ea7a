"""Zero points after rounding as two quantizers; onnxruntime and qonnx say what is right."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import helper

from qonnx_hub.executor.session import Session
from qonnx_hub_ir import dialect
from qonnx_hub_ir.passes import JoinZeroPoint, RemoveRedundantQuant, SplitZeroPoint
from qonnx_hub_ir.quantizers import IntQuant
from qonnx_hub_ir.semantics import quantize
from tests.ir.graphs import f32, info, proto, quant
from tests.ir.pass_kit import loaded
from tests.ir.test_zero_point_order import TYPES, beside_ties, on_onnxruntime, pair


def ordered(scale, zero, bits: float, signed: bool, **attributes) -> onnx_ir.Model:
    weights = {"s": f32(scale), "z": f32(zero), "b": f32(bits)}
    node = quant(signed=int(signed), zero_point_after_rounding=1, **attributes)
    shape = [None] * max(np.ndim(scale), 1)
    return loaded(proto([node], [info("x", shape)], [info("y", shape)], weights))


def quantizers(found: onnx_ir.Model) -> list[IntQuant]:
    return [dialect.read_quantizer(n) for n in found.graph if dialect.is_quantizer(n)]


def by_qonnx(found: onnx_ir.Model, x: np.ndarray) -> np.ndarray:
    """What the qonnx package's own function makes of the quantizers of a chain."""
    module = pytest.importorskip("qonnx.custom_op.general.quant")
    for one in quantizers(found):
        parameters = [np.asarray(p) for p in dialect.parameters(one)]
        with np.errstate(over="ignore"):
            x = module.quant(x, *parameters, one.signed, one.narrow, str(one.rounding))
    return x


@pytest.mark.parametrize("scale", [0.25, 0.0173, 3.7])
@pytest.mark.parametrize("kind", TYPES)
def test_a_reader_that_adds_first_computes_quantizelinear_beside_every_tie(kind, scale):
    bits, signed = TYPES[kind]
    low = -(1 << (bits - 1)) if signed else 0
    for zero in {low + 1, low + 2, low + (1 << bits) - 1, low + (1 << (bits - 1)) + 1} - {0}:
        found = ordered(scale, zero, bits, signed)
        assert SplitZeroPoint()(found).modified
        x = beside_ties(scale, zero, bits, signed)
        x = x[~np.isnan(x)]
        wanted = on_onnxruntime(pair(kind, scale, zero), x)
        np.testing.assert_array_equal(by_qonnx(found, x), wanted, err_msg=f"{zero}")
        np.testing.assert_array_equal(Session(found).run({"x": x})["y"], wanted)


def test_the_first_quantizer_rounds_and_the_second_has_the_bits_of_the_file():
    found = ordered(0.5, 113, 8, False)
    SplitZeroPoint()(found)
    first, second = quantizers(found)
    assert (float(first.bits), first.signed, float(first.zero_point)) == (9, True, 0)
    assert (float(second.bits), second.signed, float(second.zero_point)) == (8, False, 113)
    assert all(dialect.ORDER not in n.attributes for n in found.graph)


@pytest.mark.parametrize("zero", [-99, 99, 300])
def test_a_zero_point_outside_of_the_codes_is_held_by_a_wider_first_quantizer(zero):
    found = ordered(0.5, zero, 4, True)
    SplitZeroPoint()(found)
    wide, _ = quantizers(found)
    top = 2 ** (int(wide.bits) - 1)
    assert -top <= -8 - zero <= 7 - zero <= top - 1
    x = (np.arange(-700, 700) / 2).astype(np.float32)
    after = IntQuant(f32(0.5), f32(zero), f32(4), zero_point_after_rounding=True)
    np.testing.assert_array_equal(Session(found).run({"x": x})["y"], quantize(x, after))


def test_zero_points_per_channel_share_a_first_quantizer():
    zeros = np.array([[0.0], [255.0], [7.0]], dtype=np.float32)
    scales = np.array([[0.5], [0.3], [0.07]], dtype=np.float32)
    found = ordered(scales, zeros, 8, False)
    SplitZeroPoint()(found)
    x = np.random.default_rng(3).normal(0, 40, (3, 500)).astype(np.float32)
    after = IntQuant(scales, zeros, f32(8), False, zero_point_after_rounding=True)
    np.testing.assert_array_equal(Session(found).run({"x": x})["y"], quantize(x, after))
    assert JoinZeroPoint()(found).modified
    (back,) = quantizers(found)
    assert back == after


@pytest.mark.parametrize("mode", ["ROUND", "FLOOR", "CEIL", "HALF_UP"])
@pytest.mark.parametrize("bits", [2, 3, 8, 16, 19])
def test_a_pair_is_read_as_the_quantizer_that_it_was(bits, mode):
    found = ordered(0.3, 1, bits, False, rounding_mode=mode)
    (before,) = quantizers(found)
    assert SplitZeroPoint()(found).modified
    assert not SplitZeroPoint()(found).modified
    assert len(quantizers(found)) == 2
    assert JoinZeroPoint()(found).modified
    assert quantizers(found) == [before]
    assert not JoinZeroPoint()(found).modified


def test_constants_on_the_grid_keep_one_quantizer():
    node = quant(zero_point_after_rounding=1, signed=0)
    weights = {"x": f32([-1.5, 0.0, 2.5]), "s": f32(0.5), "z": f32(3), "b": f32(8)}
    found = loaded(proto([node], [], [info("y", [3])], weights))
    SplitZeroPoint()(found)
    (kept,) = quantizers(found)
    assert not kept.zero_point_after_rounding
    assert Session(found).run({})["y"].tolist() == [-1.5, 0.0, 2.5]


def test_more_bits_than_a_float_scales_exactly_stay():
    found = ordered(0.3, 1, 20, False)
    assert not SplitZeroPoint()(found).modified


def chain(first: dict, second: dict, *more: onnx.NodeProto) -> onnx_ir.Model:
    """Two quantizers in a row; each has scale `s`, its zero point and its bits."""
    weights = {"s": f32(0.5)}
    nodes = []
    for number, (x, y, given) in enumerate((("x", "t", first), ("t", "y", second))):
        given = {"scale": "s", "z": 0, "b": 8, **given}
        weights |= {f"z{number}": f32(given.pop("z")), f"b{number}": f32(given.pop("b"))}
        inputs = [x, given.pop("scale"), f"z{number}", f"b{number}"]
        nodes.append(helper.make_node("Quant", inputs, [y], domain=dialect.DOMAIN, **given))
    weights["other"] = f32(0.25)
    outputs = [info("y", [None]), *(info(n.output[0], [None]) for n in more)]
    return loaded(proto([*nodes, *more], [info("x", [None])], outputs, weights))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"b": 8}, {"z": 3, "signed": 0}),  # 252 is no level of the first
        ({"b": 9}, {"z": 3, "signed": 0, "scale": "other"}),
        ({"b": 9, "z": 1}, {"z": 3, "signed": 0}),
        ({"b": 9}, {"z": 2.5, "signed": 0}),
        ({"b": 9}, {"z": 0}),
        ({"b": 9}, {"z": 3, "rounding_mode": "FLOOR"}),
        ({"b": 1}, {"z": 3, "signed": 0}),
        ({"b": 24}, {"z": 3, "signed": 0}),
    ],
)
def test_other_quantizers_in_a_row_stay_two(first, second):
    assert not JoinZeroPoint()(chain(first, second)).modified


def test_a_first_quantizer_with_another_reader_stays():
    negated = helper.make_node("Neg", ["t"], ["n"])
    assert not JoinZeroPoint()(chain({"b": 9}, {"z": 3, "signed": 0}, negated)).modified


@pytest.mark.parametrize("zero", [3, 128, 255])
def test_no_pass_takes_one_of_a_pair_for_redundant(zero):
    found = ordered(0.5, zero, 8, False)
    SplitZeroPoint()(found)
    RemoveRedundantQuant()(found)
    assert len(quantizers(found)) == 2


def test_a_quantizer_that_turns_nan_into_a_code_is_not_redundant():
    node = quant(zero_point_after_rounding=1, signed=0)
    first = helper.make_node("Quant", ["x", "s", "n", "b4"], ["t"], domain=dialect.DOMAIN)
    node.input[0] = "t"
    weights = {"s": f32(0.5), "n": f32(0), "z": f32(100), "b": f32(8), "b4": f32(4)}
    found = loaded(proto([first, node], [info("x", [2])], [info("y", [2])], weights))
    x = f32([np.nan, 1.0])
    before = Session(found).run({"x": x})["y"]
    RemoveRedundantQuant()(found)
    np.testing.assert_array_equal(Session(found).run({"x": x})["y"], before)
    assert before.tolist() == [-50.0, 1.0]
