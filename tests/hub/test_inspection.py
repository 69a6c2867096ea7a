"""What `inspect` says beyond the quantizers: ranges, accumulators, integers for export."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest
from onnx import helper

import qonnx_hub as qh
from qonnx_hub.analysis.weight_export import integer_weights, write_integers
from qonnx_hub_ir.errors import UsageError
from tests.support import DOMAIN, model_of, quant_node

WEIGHT = np.array([[1.0, -2.0], [0.5, 3.0]], dtype=np.float32)


def layer(**changes: Any) -> onnx_ir.Model:
    """x -> unsigned Quant with scale 1/4 -> MatMul with weights of scale 1/2."""
    constants = {"sx": 0.25, "z": 0.0, "b": 4.0, "sw": 0.5, "w/1": WEIGHT, **changes}
    nodes = [
        quant_node("x", "qx", scale="sx", signed=0),
        quant_node("w/1", "qw", scale="sw"),
        helper.make_node("MatMul", ["qx", "qw"], ["y"], "layer"),
    ]
    return qh.load(model_of(nodes, {"x": (1, 2)}, ["y"], constants))


def test_ranges_are_left_out_unless_asked_for():
    found = qh.inspect(layer())
    assert (found.ranges, found.accumulators) == ((), ())


def test_the_range_of_every_tensor_that_moves_is_told():
    found = qh.inspect(layer(), ranges=True)
    by_name = {one.name: one for one in found.ranges}
    assert list(by_name) == ["x", "qx", "y"]
    assert (by_name["x"].low, by_name["x"].datatype) == (-np.inf, "")
    activation = by_name["qx"]
    assert (activation.low, activation.high, activation.scale) == (0.0, 3.75, "0.25")
    assert (activation.datatype, activation.fixed_point) == ("UINT4", "ap_ufixed<4,2>")
    # Columns of integers 2, 1 and -4, 6, times 0..15, in steps of 1/8.
    result = by_name["y"]
    assert (result.integer_low, result.integer_high, result.axis) == (-60, 90, 1)
    assert (result.low, result.high, result.exact) == (-7.5, 11.25, True)
    assert result.fixed_point == "ap_fixed<8,5>"


def test_the_accumulators_are_told():
    (found,) = qh.inspect(layer(), ranges=True).accumulators
    assert (found.low, found.high, found.bits) == (-60, 90, 8)
    assert (found.input_type, found.weight_type, found.scale) == ("UINT4", "INT4", "0.125")


def test_the_range_of_an_input_can_be_given():
    found = qh.inspect(layer(), ranges=True, inputs={"x": (0.0, 1.0)})
    assert found.ranges[1].integer_high == 4
    with pytest.raises(UsageError, match="'z' is no input"):
        qh.inspect(layer(), ranges=True, inputs={"z": (0, 1)})


def test_an_inspection_with_infinite_ranges_is_plain_data():
    data = qh.inspect(layer(), ranges=True).to_dict()
    assert data["ranges"][0]["low"] == "-inf"


# Integers


def test_the_integers_of_a_weight_are_its_codes():
    (found,) = integer_weights(layer())
    assert found.name == "w/1"
    assert found.integers.tolist() == [[2, -4], [1, 6]]
    assert (found.integers.dtype, found.bits, found.signed) == (np.int8, 4, True)
    assert float(found.scale) == 0.5


def test_a_zero_point_is_kept_beside_the_codes():
    (found,) = integer_weights(layer(z=2.0))
    assert found.integers.tolist() == [[4, -2], [3, 7]]
    assert (float(found.zero_point), found.zeros) == (2.0, 0)


def test_bipolar_weights_are_minus_and_plus_one():
    nodes = [
        helper.make_node("BipolarQuant", ["w", "s"], ["qw"], domain=DOMAIN),
        helper.make_node("MatMul", ["x", "qw"], ["y"]),
    ]
    model = qh.load(model_of(nodes, {"x": (1, 2)}, ["y"], {"w": WEIGHT, "s": 2.0}))
    (found,) = integer_weights(model)
    assert found.integers.tolist() == [[1, -1], [1, 1]]
    assert found.bits == 1


def test_a_weight_that_is_quantized_twice_is_named_by_its_quantizers():
    nodes = [
        quant_node("w", "first"),
        quant_node("w", "second", scale="t"),
        helper.make_node("MatMul", ["x", "first"], ["m"]),
        helper.make_node("MatMul", ["m", "second"], ["y"]),
    ]
    constants = {"w": WEIGHT, "s": 1.0, "t": 0.5, "z": 0.0, "b": 8.0}
    found = integer_weights(qh.load(model_of(nodes, {"x": (1, 2)}, ["y"], constants)))
    assert [weight.name for weight in found] == ["first", "second"]


def test_integers_are_written_as_arrays(tmp_path: Path):
    target = tmp_path / "weights.npz"
    write_integers(integer_weights(layer(sw=np.array([[0.5, 1.0]], np.float32))), target)
    with np.load(target) as arrays:
        assert sorted(arrays.files) == [
            f"w/1.{part}" for part in ("bits", "integers", "scale", "zero_point")
        ]
        assert arrays["w/1.integers"].tolist() == [[2, -2], [1, 3]]
        assert arrays["w/1.scale"].tolist() == [[0.5, 1.0]]
        assert int(arrays["w/1.bits"]) == 4


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_a_c_compiler_reads_the_same_integers(tmp_path: Path):
    scale = np.array([[0.1, 3e-30]], dtype=np.float32)
    weights = integer_weights(layer(sw=scale, **{"w/1": WEIGHT * scale}))
    write_integers(weights, tmp_path / "weights.h")
    source = tmp_path / "weights.c"
    source.write_text(
        '#include "weights.h"\n'
        "int integer(int k) { return w_1[k]; }\n"
        "int bits(void) { return w_1_BITS * 1000 + w_1_SIZE; }\n"
        "float scale(int k) { return w_1_scale[k]; }\n"
        "float zero(void) { return w_1_zero_point[0]; }\n"
    )
    library = tmp_path / "weights.so"
    flags = ["-shared", "-fPIC", "-Wall", "-Werror", "-std=c99"]
    subprocess.run(["cc", *flags, "-o", str(library), str(source)], check=True)
    read = ctypes.CDLL(str(library))
    read.scale.restype = read.zero.restype = ctypes.c_float
    expected = weights[0].integers.reshape(-1).tolist()
    assert [read.integer(k) for k in range(4)] == expected
    assert read.bits() == 4004
    assert [np.float32(read.scale(k)) for k in range(2)] == scale.reshape(-1).tolist()
    assert read.zero() == 0.0


def test_names_that_c_cannot_tell_apart_get_numbers(tmp_path: Path):
    nodes = [
        quant_node("w.1", "first"),
        quant_node("w/1", "second"),
        helper.make_node("MatMul", ["x", "first"], ["m"]),
        helper.make_node("MatMul", ["m", "second"], ["y"]),
    ]
    constants = {"w.1": WEIGHT, "w/1": WEIGHT, "s": 1.0, "z": 0.0, "b": 8.0}
    model = qh.load(model_of(nodes, {"x": (1, 2)}, ["y"], constants))
    write_integers(integer_weights(model), tmp_path / "7 nets.h")
    text = (tmp_path / "7 nets.h").read_text()
    assert "int8_t w_1[4]" in text
    assert "int8_t w_1_2[4]" in text
    assert "#ifndef W_7_NETS_H" in text


def test_a_weight_is_not_called_as_the_header_s_own_guard(tmp_path: Path):
    # An empty macro of that name would take the name out of the array.
    nodes = [
        quant_node("NET_H", "wq"),
        helper.make_node("MatMul", ["x", "wq"], ["y"]),
    ]
    constants = {"NET_H": WEIGHT, "s": 1.0, "z": 0.0, "b": 8.0}
    model = qh.load(model_of(nodes, {"x": (1, 2)}, ["y"], constants))
    write_integers(integer_weights(model), tmp_path / "net.h")
    text = (tmp_path / "net.h").read_text()
    assert "#define NET_H\n" in text
    assert "int8_t NET_H_2[4]" in text


@pytest.mark.parametrize(
    ("name", "message"),
    [("w.txt", "named .npz or .h"), ("missing/w.npz", "cannot be written")],
)
def test_what_cannot_be_written_is_refused(tmp_path: Path, name: str, message: str):
    with pytest.raises(UsageError, match=message):
        write_integers(integer_weights(layer()), tmp_path / name)


def test_a_model_without_integer_weights_writes_nothing(tmp_path: Path):
    with pytest.raises(UsageError, match="no integer weights"):
        write_integers([], tmp_path / "w.npz")
    assert not list(tmp_path.iterdir())
