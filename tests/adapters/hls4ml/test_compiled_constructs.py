"""Constructs that hls4ml gets wrong by itself: with our folder, its numbers agree.

All rows are one network with many inputs and outputs, all images another: hls4ml compiles
each in one go.
"""

from __future__ import annotations

import numpy as np
import pytest

import qonnx_hub as qh
from tests.adapters.hls4ml.constructs import IMAGES, ROWS, Build
from tests.adapters.hls4ml.harness import compare, export, lattice, merged, samples
from tests.adapters.hls4ml.test_traces import ROUNDING, traced


def distances(cases: dict[str, tuple[Build, float]], folder, count: int, **options):
    """Return the case and its distance from the executor, of those that are too far."""
    whole = merged({name: build() for name, (build, _) in cases.items()})
    found = compare(whole, folder, samples(whole, count), **options)
    limits = [limit for _, limit in cases.values()]
    return {
        name: distance
        for name, distance, limit in zip(cases, found, limits, strict=True)
        if not distance <= limit
    }


def test_rows_agree(tmp_path):
    assert distances(ROWS, tmp_path / "out", 40) == {}


@pytest.mark.slow
def test_images_agree(tmp_path):
    assert distances(IMAGES, tmp_path / "out", 16) == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["one_signed_bit", "scales_on_two_branches"])
def test_rows_agree_in_streams(tmp_path, name):
    cases = {name: ROWS[name]}
    assert distances(cases, tmp_path / "out", 16, io_type="io_stream") == {}


@pytest.mark.slow
def test_images_agree_in_streams(tmp_path):
    names = ("average_pool", "depthwise", "groups", "joined_channels")
    cases = {name: IMAGES[name] for name in names}
    assert distances(cases, tmp_path / "out", 16, io_type="io_stream") == {}


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["Vivado", "Quartus"])
def test_rows_agree_on_other_back_ends(tmp_path, backend):
    names = ("negative_factor_binary", "one_signed_bit", "scaled_signs", "sign_as_output")
    names += ("rounding_down", "weight_scale_per_channel", "zero_point")
    cases = {name: ROWS[name] for name in names}
    assert distances(cases, tmp_path / "out", 16, backend=backend) == {}


@pytest.mark.slow
def test_images_agree_without_depthwise_convolutions(tmp_path):
    names = ("average_pool", "depthwise", "one_axis", "padded_max_pool_of_unsigned")
    cases = {name: IMAGES[name] for name in names}
    assert distances(cases, tmp_path / "out", 16, backend="Quartus") == {}


@pytest.mark.slow
def test_the_resource_strategy_computes_the_same(tmp_path):
    cases = {name: ROWS[name] for name in ("weight_scale_per_channel", "rounding_down")}
    options = {"strategy": "Resource", "reuse_factor": 3}
    assert distances(cases, tmp_path / "out", 16, **options) == {}


def test_every_layer_of_every_construct_is_found_and_agrees(tmp_path):
    source = merged({name: build() for name, (build, _) in ROWS.items()})
    folder = export(source, tmp_path / "out")
    feeds = lattice(source, 5, 3.0)
    own = traced(folder, feeds)
    written = qh.check(folder / "model.onnx", folder / "trace.npz", own, **ROUNDING)
    assert written.verdict.name in {"EQUAL", "WITHIN"}, written.table()
    assert written.first_divergence is None
    with np.load(folder / "trace.npz") as archive:
        outputs = [key for key in archive if key.startswith("global_out")]
        assert written.layers == len(archive.files) - 2 * len(outputs)
    assert not [note for note in written.notes if "not compared" in note]
    through = qh.check(source, folder / "trace.npz", feeds, **ROUNDING)
    assert through.first_divergence is None, through.table()
    assert through.layers > len(outputs)
    assert len(through.outputs) == len(source.graph.output)
