"""Models whose weights lie in external files are converted without being read as a whole."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import qonnx_hub as qh
from benchmarks.large_model import LAYERS, convert, spot_check, write_model

SIZE = 64 << 20


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("large") / "large.onnx"
    write_model(path, SIZE)
    return path


def test_converting_takes_little_memory_beside_the_weights(large: Path) -> None:
    target = large.with_name("traced.onnx")
    qh.convert(large, target, "qcdq", check=False)  # imports count once, not here
    tracemalloc.start()
    try:
        qh.convert(large, target, "qcdq", check=False)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # Integers of weights below a block are kept, a quarter of the size, beside the working
    # arrays of one weight; reading the weights alone would take all of it.
    assert peak < SIZE * 0.75


def test_a_converted_file_holds_the_right_integers_and_took_little_memory(
    large: Path,
) -> None:
    # A process that converts 8 MiB shows what the libraries take by themselves.
    small, target = large.with_name("small.onnx"), large.with_name("checked.onnx")
    write_model(small, SIZE // 8)
    _, base = convert(small, large.with_name("small_out.onnx"))
    _, peak = convert(large, target)
    # The pages of a mapped file count while they are mapped.
    assert peak - base < SIZE * 2
    assert spot_check(large, target) > LAYERS * 1000
    assert target.stat().st_size < 1 << 20


def test_a_model_beyond_one_message_is_converted_without_the_check(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qonnx_hub.io.model_files._ONE_FILE_BYTES", SIZE // 2)
    report = qh.convert(large, large.with_name("unchecked.onnx"), "qcdq")
    assert report.check is None
    assert any("not checked: the weights take" in note for note in report.notes)
    weights = np.fromfile(large.with_name("unchecked.onnx.data"), dtype=np.int8)
    assert weights.size >= SIZE // 4 * 0.9
