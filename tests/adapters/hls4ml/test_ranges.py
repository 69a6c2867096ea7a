"""Types hold what is computed: every value of the executor lies on its layer's grid."""

from __future__ import annotations

import json

import numpy as np
import pytest

import qonnx_hub as qh
from qonnx_hub_adapters.hls4ml.exporter import Hls4mlExporter
from qonnx_hub_adapters.hls4ml.inputs import parse_type
from qonnx_hub_adapters.hls4ml.ranges import grids_of
from qonnx_hub_adapters.protocol import ExportOptions
from tests.adapters.hls4ml import nets
from tests.adapters.hls4ml.constructs import EXACT, IMAGES, ROWS

CASES = {
    **{name: build for name, (build, limit) in {**ROWS, **IMAGES}.items() if limit == EXACT},
    "qkeras_cnn": nets.qkeras_cnn,
}


def values_and_grids(source):
    """Return the executor's values on the corners of the inputs and between, and the grids."""
    artifact = Hls4mlExporter().export(qh.load(source), ExportOptions())
    told = json.loads(artifact.files["report.json"])
    types = {port["name"]: parse_type(port["type"]) for port in told["inputs"]}
    grids = grids_of(artifact.model, types)
    rng = np.random.default_rng(0)
    feeds = {}
    for value in artifact.model.graph.inputs:
        grid = types[value.name].grid()
        low, high = grid.ends()
        step, shape = 2.0**grid.lsb, (60, *value.shape[1:])
        anywhere = np.clip(np.rint(rng.uniform(low, high, shape) / step) * step, low, high)
        corners = rng.choice([low, high], shape)
        feeds[value.name] = np.concatenate([anywhere, corners]).astype(np.float32)
    found = qh.Session(artifact.model).run(feeds, all_tensors=True)
    return [(found[value.name].astype(np.float64), grid) for value, grid in grids.items()]


@pytest.mark.parametrize("name", CASES)
def test_every_value_lies_on_the_grid_of_its_type(name):
    pairs = values_and_grids(CASES[name]())
    assert len(pairs) > 2
    compared = 0
    for values, grid in pairs:
        # The executor rounds to 24 bits what a normalization or a wide sum computes.
        slack = 2.0**-22 * np.abs(values).max()
        assert np.all(values >= grid.low - slack)
        assert np.all(values <= grid.high + slack)
        units = values * 2.0**-grid.lsb
        if not grid.rounded and np.abs(units).max() < 2**24:
            assert np.array_equal(units, np.rint(units))
            compared += 1
    assert compared > 1


@pytest.mark.parametrize("name", CASES)
def test_the_type_of_a_grid_holds_its_ends(name):
    for _, grid in values_and_grids(CASES[name]()):
        held = grid.type().grid()
        assert held.lsb == grid.lsb
        assert held.ends()[0] <= grid.ends()[0]
        assert held.ends()[1] >= grid.ends()[1]


def test_a_sum_s_range_is_met_at_the_corners():
    net = nets.Net()
    x = net.quant("x", 2, 1.0)
    weight = net.quant(net.constant(np.float32([[1], [-1], [0.5]])), 4, 0.5)
    pairs = values_and_grids(net.model((1, 3), net.add("MatMul", [x, weight])))
    values, grid = pairs[-1]
    # x from -2 to 1: highest 1 + 2 + 0.5, lowest -2 - 1 - 1.
    assert grid.ends() == (-4.0, 3.5)
    assert (values.min(), values.max()) == (-4.0, 3.5)
