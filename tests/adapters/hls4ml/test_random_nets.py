"""Random small nets, several in one library: hls4ml computes what the executor does.

They are those that go through FINN: forks, shared Relus, residuals, averages, all forms of
quantizers. Where a sample meets no rounding tie, nothing may differ.
"""

from __future__ import annotations

import json
import os
from collections import Counter

import numpy as np
import pytest

import qonnx_hub as qh
from qonnx_hub_ir.errors import NotExactError
from tests.adapters.hls4ml.harness import build, merged, predict, stored
from tests.adapters.qonnx.finn_nets import RandomNet
from tests.adapters.ties import meets_tie

NETS = int(os.environ.get("QONNX_HUB_HLS4ML_NETS", "6"))
"""How many random nets are compiled; 60 where there is time."""

FIRST = int(os.environ.get("QONNX_HUB_HLS4ML_SEED", "0"))
"""The first net's seed; the others follow."""

TOGETHER = 10
"""Nets in one library."""

SAMPLES = 12


def accepted(count):
    """Give nets that hls4ml can compute, by seed, and count why others are refused."""
    nets, refused, seed = {}, Counter(), FIRST
    while len(nets) < count:
        net = RandomNet(seed).build()
        try:
            qh.convert(net, None, to="hls4ml", check=False)
            nets[f"n{seed}"] = net
        except NotExactError as error:
            refused.update({gap.reason for gap in error.gaps})
        seed += 1
    return nets, refused


@pytest.mark.slow
def test_random_nets_are_compiled_to_the_same_function(tmp_path):
    nets, refused = accepted(NETS)
    print(f"{len(nets)} nets from seed {FIRST}; refused: {dict(refused)}")
    wrong, ties, values = [], 0, 0
    names = list(nets)
    for start in range(0, len(names), TOGETHER):
        part = {name: nets[name] for name in names[start : start + TOGETHER]}
        folder = tmp_path / f"part{start}"
        whole = merged(part)
        qh.convert(whole, folder, to="hls4ml", check=False)
        told = json.loads((folder / "report.json").read_text())
        rng = np.random.default_rng(start)
        feeds = {
            port["source"]: rng.uniform(-2, 2, (SAMPLES, *port["source_shape"][1:])).astype(
                np.float32
            )
            for port in told["inputs"]
        }
        found = predict(build(folder), folder, feeds)
        for port, answer in zip(told["outputs"], found, strict=True):
            name = port["source"].split("_")[0]
            model = qh.load(part[name])
            x = feeds[f"{name}_x"]
            runs = [next(iter(qh.run(model, {"x": one[None]}).values())) for one in x]
            wanted = np.concatenate(runs)
            wanted = stored(port, wanted).reshape(SAMPLES, -1)
            apart = np.abs(answer - wanted) > 2e-5 * max(np.abs(wanted).max(), 1.0)
            values += wanted.size
            for k in np.flatnonzero(apart.any(axis=1)):
                if meets_tie(model, {"x": x[k : k + 1]}):
                    ties += int(apart[k].sum())
                else:
                    wrong.append((name, int(k), float(np.abs(answer - wanted)[k].max())))
    print(f"{ties} of {values} values differ at ties, {len(wrong)} samples elsewhere")
    assert not wrong
    assert ties <= values / 20
