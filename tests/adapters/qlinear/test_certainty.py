"""What a reader of integer files promises: the very integers, or a note of one step.

The reference is the file itself, run in integers; onnxruntime is held to the same integers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.helper import make_node

import qonnx_hub as qh
from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_adapters.protocol import ImportOptions
from qonnx_hub_adapters.qlinear.importer import QlinearImporter
from qonnx_hub_ir import dialect
from tests.adapters.qlinear.test_importer import (
    BASE,
    MICROSOFT,
    QLINEAR_INPUTS,
    answers,
    file_of,
    framed,
    integers,
)

RNG = np.random.default_rng


def load(proto: Any) -> Any:
    return QlinearImporter().load(proto, ImportOptions())


def bound(proto: onnx.ModelProto) -> str:
    return str(load(proto).metadata_props.get(dialect.BOUNDED, ""))


def matmul_file(length: int, low: int = -127, **changes: Any) -> onnx.ModelProto:
    constants = BASE | {"w": integers((length, 32), low, -low + 1)} | changes
    node = make_node("QLinearMatMul", QLINEAR_INPUTS, ["r"], "matmul")
    return file_of(framed(node), constants, ("N", length))


def spread_scale(length: int, sx: float, sw: float) -> np.float32:
    """A scale of the output with which three deviations of random sums fill 8 bits."""
    return np.float32(sx * sw * 73.6 * 73.6 * np.sqrt(length) * 3 / 128)


@pytest.mark.parametrize("length", [64, 256])
def test_odd_scales_are_at_most_one_step_apart_and_a_note_says_so(length: int) -> None:
    sx, sw = np.float32(0.01234), np.float32(0.00567)
    proto = matmul_file(length, sx=sx, sw=sw, sy=spread_scale(length, sx, sw))
    assert "QLinearMatMul 'matmul'" in bound(proto)
    assert "one step" in bound(proto)
    x = RNG(length).uniform(-1.23, 1.91, (12000, length)).astype(np.float32)
    # Half of the inputs lie on ties of the first quantizer.
    ties = (np.floor(x / sx) + np.float32(0.5)) * sx
    x = np.where(RNG(1).random(x.shape) < 0.5, ties, x).astype(np.float32)
    file = Session(read_model(proto)).run({"x": x})["y"]
    np.testing.assert_array_equal(file, answers(proto, x))
    apart = np.abs(Session(load(proto)).run({"x": x})["y"] - file)
    step = np.min(np.diff(np.unique(file)))
    assert len(np.unique(file)) > 200
    assert float(np.max(apart)) < 1.01 * step
    # The note says a few in 100000; 384000 values are compared.
    assert float(np.mean(apart > 0.5 * step)) <= 1e-4


def random_file(seed: int) -> onnx.ModelProto:
    """One integer operator between two quantizers, with scales of any kind."""
    rng = RNG(seed)

    def scale(odd: bool) -> np.float32:
        size = 2.0 ** rng.integers(-4, 0)
        return np.float32(size * (rng.integers(1, 4) if rng.random() < 0.3 else 1)
                          * (rng.uniform(0.7, 1.4) if odd else 1))  # fmt: skip

    odd = rng.random() < 0.4
    kind = str(rng.choice(["matmul", "conv", "gemm", "add", "mul", "pool", "global"]))
    constants = BASE | {name: scale(odd) for name in ("sx", "sw")}
    constants["sy"] = np.float32(2.0 ** rng.integers(-2, 5)) if not odd else scale(odd)
    constants["zy"] = np.uint8(rng.integers(100, 156))
    pair, single = ["q", "sx", "zx"] * 2, ["q", "sx", "zx", "sy", "zy"]
    own: dict[str, Any] = {"domain": MICROSOFT}
    if kind == "conv":
        constants["w"] = integers((3, 4, 2, 2), -20, 21)
        node = make_node("QLinearConv", QLINEAR_INPUTS, ["r"], "op")
    elif kind in {"matmul", "gemm"}:
        constants["w"] = integers((6, 5), -60, 61)
        inputs = QLINEAR_INPUTS
        if kind == "gemm":
            constants["b"] = rng.integers(-999, 999, 5).astype(np.int32)
            inputs = [*QLINEAR_INPUTS[:6], "b", "sy", "zy"]
            node = make_node("QGemm", inputs, ["r"], "op", **own)
        else:
            node = make_node("QLinearMatMul", inputs, ["r"], "op")
    elif kind in {"add", "mul"}:
        name = "QLinearAdd" if kind == "add" else "QLinearMul"
        node = make_node(name, [*pair, "sy", "zy"], ["r"], "op", **own)
    elif kind == "pool":
        attrs = {"kernel_shape": [int(k) for k in rng.integers(1, 4, 2)]}
        node = make_node("QLinearAveragePool", single, ["r"], "op", **own, **attrs)
    else:
        node = make_node("QLinearGlobalAveragePool", single, ["r"], "op", **own)
    flat = kind in {"matmul", "gemm"}
    return file_of(framed(node), constants, (300, 6) if flat else (30, 4, 4, 6))


def test_what_has_no_note_gives_the_very_integers_of_the_file() -> None:
    noted, silent = 0, 0
    for seed in range(80):
        proto = random_file(seed)
        shape = [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
        x = RNG(seed).normal(0, 6, shape).astype(np.float32)
        file = Session(read_model(proto)).run({"x": x})["y"]
        ours = Session(load(proto)).run({"x": x})["y"]
        if bound(proto):
            noted += 1
            step = float(np.min(np.diff(np.unique(file)), initial=np.inf))
            assert float(np.max(np.abs(ours - file))) <= 1.001 * step
        else:
            silent += 1
            np.testing.assert_array_equal(ours, file, err_msg=f"seed {seed}")
    assert noted > 20
    assert silent > 20


def test_sums_beyond_the_whole_numbers_of_float32_are_noted() -> None:
    # Weights are 63 on average: 1200 * 63 * 255 is above 2^24, 500 * 30 * 255 is not.
    assert "QLinearMatMul" in bound(matmul_file(1200))
    assert bound(matmul_file(500, low=-60)) == ""


def test_exponentials_are_noted() -> None:
    node = make_node(
        "QLinearSigmoid", ["q", "sx", "zx", "sy", "zy"], ["r"], "curve", domain=MICROSOFT
    )
    words = bound(file_of(framed(node), BASE, (3, 8)))
    assert "QLinearSigmoid 'curve'" in words
    assert "exponentials" in words


def test_a_conversion_reports_the_note(tmp_path: Path) -> None:
    path = tmp_path / "file.onnx"
    onnx.save(matmul_file(64, sx=np.float32(0.1)), path)
    report = qh.convert(path, tmp_path / "out.onnx", "qcdq", samples=8)
    assert any("1 of 1 integer operators" in note for note in report.notes)
    onnx.save(matmul_file(64), path)
    report = qh.convert(path, tmp_path / "out.onnx", "qcdq", samples=8)
    assert not any("integer operators" in note for note in report.notes)


@pytest.mark.parametrize(("length", "doubted"), [(4, False), (4096, True)])
def test_a_product_with_a_vector_adds_all_of_its_products(length: int, doubted: bool) -> None:
    """4 * 255 * 127 is a whole number of float32, 4096 * 255 * 127 beyond them."""
    constants = BASE | {"w": np.full(length, 127, dtype=np.int8)}
    node = make_node("QLinearMatMul", QLINEAR_INPUTS, ["r"], "matmul")
    assert bool(bound(file_of(framed(node), constants, ("N", length)))) is doubted
