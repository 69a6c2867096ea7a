"""Published models and exports as self-contained files, on every runtime that reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import qonnx_hub as qh
from qonnx_hub_ir.annotations import DATATYPE, annotations_of
from tests.adapters.qonnx.kit import (
    Array,
    on_executor,
    on_onnxruntime,
    on_qonnx,
    on_reference,
    self_contained,
)
from tests.support import corpus, needs_shared, shared_models

pytestmark = needs_shared
pytest.importorskip("onnxruntime")

# All products and sums are exact in float32: powers of two as scales, and nothing after.
EXACT = {
    "TFC_1W1A",
    "TFC_2W2A",
    "bnn_model_fc_1layer",
    "branched_model_ch_last",
    "eltwise_chanlast_testcase",
    "separable_conv_model_ch_last",
}

# Its answer is quantized to this step: a sum on a rounding tie may fall to either side.
STEPS = {"espcn_nn_resize_quant": 1 / 255}

# The reference needs seconds for each of their convolutions, qonnx a minute.
LARGE = {"branched_model_ch_last", "separable_conv_model_ch_last"}

# qonnx 1.0.0 executes no LSTM, in no form.
NOT_IN_QONNX = {"lstm_weight_only__qonnx_dyn"}

EXPORTS = corpus("qonnx", "yes", "NO")


def feeds_of(source: Path) -> dict[str, Array]:
    rng, feeds = np.random.default_rng(0), {}
    for value in qh.load(source).graph.inputs:
        # What is said to hold integers is rounded to them in the qonnx package.
        scale = 255 if annotations_of(value).get(DATATYPE) == "UINT8" else 0
        x = rng.uniform(-1, 1, list(value.shape or ()))
        x = np.rint(np.abs(x) * scale) if scale else x
        feeds[str(value.name)] = x.astype(np.float32)
    return feeds


def assert_near(answer: Array, expected: Array, step: float = 0.0) -> None:
    """Equal but for another order of summation; quantized ones may be a step away, rarely."""
    noise = 2e-6 * np.nanmax(np.abs(expected), initial=0.0)
    np.testing.assert_allclose(answer, expected, rtol=0, atol=noise + step, equal_nan=True)
    beyond = ~np.isclose(answer, expected, rtol=0, atol=noise, equal_nan=True)
    assert beyond.mean() <= 5e-5


def assert_agree(name: str, answers: list[Array], expected: list[Array]) -> None:
    for answer, own in zip(answers, expected, strict=True):
        assert own.size
        if name in EXACT:
            np.testing.assert_array_equal(answer, own)
        else:
            assert_near(answer, own, STEPS.get(name, 0.0))


@pytest.mark.parametrize("path", shared_models(), ids=lambda p: p.stem)
def test_a_published_model_runs_on_stock_runtimes(path: Path) -> None:
    file, feeds = self_contained(path), feeds_of(path)
    expected = on_executor(path, feeds)
    assert_agree(path.stem, on_onnxruntime(file, feeds), expected)
    if path.stem not in LARGE:
        assert_agree(path.stem, on_reference(file, feeds), expected)


@pytest.mark.parametrize(
    "path", [p for p in shared_models() if p.stem not in LARGE], ids=lambda p: p.stem
)
def test_a_published_model_executes_in_the_qonnx_package(path: Path) -> None:
    pytest.importorskip("qonnx")
    file, feeds = self_contained(path), feeds_of(path)
    assert_agree(path.stem, on_qonnx(file, feeds), on_executor(path, feeds))


def recorded(folder: Path) -> dict[str, Array]:
    """Return the first recorded batch of an export."""
    model = onnx.load(folder / "model.onnx")
    constants = {tensor.name for tensor in model.graph.initializer}
    names = [i.name for i in model.graph.input if i.name not in constants]
    data = np.load(folder / "io.npz")
    return {name: data[f"x{index}"][0] for index, name in enumerate(names)}


def test_there_are_as_many_exports_as_promised() -> None:
    assert len(EXPORTS) >= 50


@pytest.mark.parametrize("folder", EXPORTS, ids=lambda p: p.name)
def test_an_export_runs_everywhere(folder: Path) -> None:
    file, feeds = self_contained(folder / "model.onnx"), recorded(folder)
    expected = on_executor(folder / "model.onnx", feeds)
    for run in (on_onnxruntime, on_reference):
        for answer, own in zip(run(file, feeds), expected, strict=True):
            assert own.size
            assert_near(answer, own)


@pytest.mark.parametrize(
    "folder", [f for f in EXPORTS if f.name not in NOT_IN_QONNX], ids=lambda p: p.name
)
def test_an_export_executes_in_the_qonnx_package(folder: Path) -> None:
    pytest.importorskip("qonnx")
    file, feeds = self_contained(folder / "model.onnx"), recorded(folder)
    expected = on_executor(folder / "model.onnx", feeds)
    for answer, own in zip(on_qonnx(file, feeds), expected, strict=True):
        assert_near(answer, own)
