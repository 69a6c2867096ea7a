"""Whole networks: how much of them is integer, and that both engines agree on it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest
from onnx_ir import Model, Value

from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_adapters.protocol import ExportOptions, ImportOptions
from qonnx_hub_adapters.qcdq.exporter import QcdqExporter
from qonnx_hub_adapters.qcdq.importer import QcdqImporter
from qonnx_hub_adapters.qlinear.importer import QlinearImporter
from tests.adapters.qlinear.kit import export, inputs_of, ops, run_everywhere
from tests.support import SHARED, needs_shared

ROOT = Path(__file__).resolve().parents[3]
ZOO = SHARED / "models" / "zoo"


def nets() -> Any:
    spec = importlib.util.spec_from_file_location("nets", ROOT / "benchmarks" / "nets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["nets"] = module
    spec.loader.exec_module(module)
    return module


def built(name: str, *args: Any) -> Model:
    return read_model(getattr(nets(), name)(*args))


EXACT = [
    ("tfc", (2, 2), "4 of 4 layers integer-only"),
    ("tfc", (1, 1), "4 of 4 layers integer-only"),
    ("cnv", (2, 2), "9 of 9 layers integer-only"),
    ("cnv", (1, 1), "9 of 9 layers integer-only"),
]


@pytest.mark.parametrize(("name", "args", "total"), EXACT)
def test_nets_of_scales_that_are_powers_of_two_are_integer_and_exact(
    name: str, args: tuple[int, ...], total: str
) -> None:
    model = built(name, *args)
    artifact = export(model)
    assert artifact.notes[0] == total
    assert all(record.exact for record in artifact.quantizers)
    assert "BatchNormalization" not in ops(artifact)
    feeds = inputs_of(model, spread=0.7, batch=3)
    for key, value in Session(model).run(feeds).items():
        np.testing.assert_array_equal(run_everywhere(artifact, feeds)[key], value)


def test_a_residual_net_is_integer_but_for_its_first_epilogue() -> None:
    model = built("resnet8")
    artifact = export(model)
    assert artifact.notes[0].startswith(
        "9 of 10 layers integer-only, 1 with an integer product"
    )
    # The three sums are tables of both operands' codes.
    assert [r.encoding for r in artifact.quantizers].count("table of Add") == 3
    feeds = inputs_of(model, spread=0.7, batch=3)
    ours = run_everywhere(artifact, feeds)["logits"]
    expected = Session(model).run(feeds)["logits"]
    # No code flipped on these inputs, so that only the last layer's float rounding differs.
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=2e-6)


@needs_shared
@pytest.mark.parametrize(
    ("file", "total", "exact"),
    [
        ("TFC_2W2A", "4 of 4 layers integer-only", True),
        ("TFC_1W1A", "4 of 4 layers integer-only", True),
        ("kwsmlp_w3a3", "4 of 4 layers integer-only", False),
        ("qkeras_jettagging", "3 of 4 layers integer-only, 1 in float", True),
    ],
)
def test_public_models(file: str, total: str, exact: bool) -> None:
    model = read_model(ZOO / f"{file}.onnx")
    artifact = export(model)
    assert artifact.notes[0] == total
    assert all(record.exact for record in artifact.quantizers) is exact
    reference = Session(model)
    for seed in range(10):
        feeds = inputs_of(model, seed, spread=40.0 if "kws" in file else 1.0)
        ours = run_everywhere(artifact, feeds)
        for key, value in reference.run(feeds).items():
            if exact:
                np.testing.assert_array_equal(ours[key], value)
            else:
                np.testing.assert_allclose(ours[key], value, rtol=1e-5, atol=2e-6)


LAYERS = {"QGemm", "QLinearConv", "QLinearMatMul"}


def behind(value: Value) -> Value:
    """The value behind what a layer's own operator is followed by."""
    readers = list(value.consumers())
    if len(readers) == 1 and readers[0].op_type in {"Clip", "Squeeze"}:
        return behind(readers[0].outputs[0])
    return value


@pytest.mark.parametrize("dialect", ["onnx", "ort"])
@pytest.mark.parametrize(
    ("name", "args", "count"), [("tfc", (2, 2), 3), ("cnv", (2, 2), 8), ("resnet8", (), 9)]
)
def test_a_round_trip_through_qcdq_keeps_the_integers(
    name: str, args: tuple[int, ...], count: int, dialect: str
) -> None:
    model = built(name, *args)
    first = read_model(onnx_ir.to_proto(export(model, dialect=dialect).model))
    imported = QlinearImporter().load(onnx_ir.to_proto(first), ImportOptions())
    qcdq = QcdqExporter().export(imported, ExportOptions())
    back = QcdqImporter().load(onnx_ir.to_proto(qcdq.model), ImportOptions())
    again = export(back, dialect=dialect)
    assert "in float" not in again.notes[0]
    second = read_model(onnx_ir.to_proto(again.model))
    feeds = inputs_of(model, spread=0.7, batch=3)
    before = Session(first).run(feeds, all_tensors=True)
    after = Session(second).run(feeds, all_tensors=True)
    bytes_after = [v for v in after.values() if v.dtype in {np.dtype("int8"), np.dtype("u1")}]
    layers = [node for node in first.graph if node.op_type in LAYERS]
    assert len(layers) == count
    for node in layers:
        codes = before[str(behind(node.outputs[0]).name)]
        assert len(np.unique(codes)) > 1
        assert any(np.array_equal(codes, other) for other in bytes_after), node.name
    for one, other in zip(first.graph.outputs, second.graph.outputs, strict=True):
        np.testing.assert_array_equal(before[str(one.name)], after[str(other.name)])
