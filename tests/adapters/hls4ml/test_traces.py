"""What hls4ml itself traces, layer by layer, beside the executor.

1e-5 is the rounding of float32: hls4ml computes sums and batch normalizations exactly.
"""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

import qonnx_hub as qh
from qonnx_hub.cli import app
from tests.adapters.hls4ml import nets
from tests.adapters.hls4ml.harness import export, lattice
from tests.adapters.hls4ml.test_input_layout import image_net

ROUNDING = {"rtol": 1e-5, "atol": 1e-5}


def traced(folder, feeds):
    """Run the folder's own script, and return the inputs that it wrote beside the trace."""
    np.savez(folder / "x.npz", **feeds)
    script = [sys.executable, "-W", "ignore", str(folder / "build.py")]
    done = subprocess.run(
        [*script, "--trace", str(folder / "x.npz")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with np.load(folder / "trace_inputs.npz") as archive:
        return dict(archive)


def layers(result):
    return {row.source: row.comparison for row in result.layer_rows}


@pytest.fixture(scope="module")
def wrapping(tmp_path_factory):
    """A network, and a trace in which the second convolution has four bits too few."""
    folder = tmp_path_factory.mktemp("trace") / "out"
    source = nets.qkeras_cnn()
    export(source, folder)
    config = folder / "hls4ml_config.yml"
    text = config.read_text()
    kind = re.search(r"Conv_1:\n(?:.*\n){3} +accum: \"fixed<(\d+),(\d+)>\"", text)
    bits, whole = int(kind[1]), int(kind[2])
    before = f"fixed<{bits},{whole}>"
    start, end = text.index("Conv_1:\n"), text.index("BatchNormalization_1:\n")
    entry = text[start:end].replace(before, f"fixed<{bits - 4},{whole - 4}>")
    assert entry != text[start:end]
    config.write_text(text[:start] + entry + text[end:])
    return source, folder


@pytest.fixture
def wrapped(wrapping):
    source, folder = wrapping
    feeds = lattice(source, 6, 2.0)
    if not (folder / "trace.npz").exists():
        traced(folder, feeds)
    with np.load(folder / "trace_inputs.npz") as archive:
        return source, folder, feeds, dict(archive)


def test_a_layer_that_wraps_is_named_first(wrapped):
    _, folder, _, feeds = wrapped
    result = qh.check(folder / "model.onnx", folder / "trace.npz", feeds, **ROUNDING)
    assert result.first_divergence.source == "Conv_1_out0"
    # Six bits before the point are two of them now: what is lost is a multiple of four.
    assert result.first_divergence.comparison.max_abs % 4 == 0
    assert layers(result)["Conv_0_out0"].max_abs == 0
    assert layers(result)["MaxPool_0_out0"].max_abs == 0


def test_a_layer_that_wraps_is_named_by_the_source(wrapped):
    source, folder, feeds, _ = wrapped
    result = qh.check(source, folder / "trace.npz", feeds, **ROUNDING)
    second = [node for node in source.graph.node if node.op_type == "Conv"][1]
    assert result.first_divergence.source == second.output[0]
    assert layers(result)["n7"].max_abs == 0  # of shape (6, 4, 4, 4): channels are turned
    assert {"n3", "n6", "n7", "n12", "n14", "n19"} <= set(layers(result))


def test_the_command_says_so_and_ends_with_one(wrapped, tmp_path):
    _, folder, _, feeds = wrapped
    np.savez(tmp_path / "x.npz", **feeds)
    words = ["check", str(folder / "model.onnx"), str(folder / "trace.npz"), "--inputs"]
    words += [str(tmp_path / "x.npz"), "--rtol", "1e-5", "--atol", "1e-5"]
    ran = CliRunner().invoke(app, words)
    assert ran.exit_code == 1
    assert "first divergence: layer 'Conv_1_out0'" in ran.output


def run_script(folder, inputs, *words):
    np.savez(folder / "x.npz", **inputs)
    script = [sys.executable, "-W", "ignore", str(folder / "build.py"), *words]
    return subprocess.run(script, capture_output=True, text=True, check=False)


def test_the_script_answers_for_data_in_the_layout_of_the_source(tmp_path):
    source = image_net("Quant")
    x = (np.random.default_rng(0).integers(-120, 120, size=(8, 6, 5, 2)) / 32).astype("f4")
    wanted = qh.run(source, {"x": x})["y"]
    folder, perm = tmp_path / "out", (0, 3, 1, 2)
    qh.convert(source, folder, to="hls4ml", layout="nchw")
    done = run_script(folder, {"x": x.transpose(perm)}, "--predict", folder / "x.npz")
    assert done.returncode == 0, done.stderr
    with np.load(folder / "answers.npz") as answers:
        np.testing.assert_array_equal(answers["y"], wanted.transpose(perm))
    done = run_script(folder, {"x": x[:, :5]}, "--predict", folder / "x.npz")
    assert done.returncode == 1
    assert "a sample of 'x' has the shape [5, 5, 2]; wanted: [2, 6, 5]" in done.stderr
