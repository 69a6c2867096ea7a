"""Every layer that is written, with what may stand behind it: float layers as in the source.

What a file's own kernels add to that is bounded elsewhere; here nothing may be guessed.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import qonnx_hub as qh
from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.protocol import export_options
from qonnx_hub_adapters.tflite.exporter import TfliteExporter
from qonnx_hub_ir.errors import NotExactError

CHANNELS = 4
LAYERS = {
    "Conv": ((1, 4, 5, 5), (4, 4, 3, 3), {"pads": [1, 1, 1, 1]}),
    "Conv strided": ((1, 4, 6, 6), (4, 4, 2, 2), {"strides": [2, 2]}),
    "Conv depthwise": ((1, 4, 5, 5), (4, 1, 3, 3), {"group": 4}),
    "Conv grouped": ((1, 4, 5, 5), (4, 2, 3, 3), {"group": 2}),
    "ConvTranspose": ((1, 4, 3, 3), (4, 4, 2, 2), {"strides": [2, 2]}),
    "Gemm": ((1, 6), (6, 4), {}),
    "Gemm turned": ((1, 6), (4, 6), {"transB": 1}),
    "MatMul": ((1, 6), (6, 4), {}),
    "MatMul of rows": ((1, 3, 6), (6, 4), {}),
}
BEHIND = ("", "Relu", "Clip")
BIASES = ("none", "input", "one per channel", "one", "another axis")
SCALES = ("one", "per output", "per input")


def axes_of(name: str) -> tuple[int, int]:
    """Return the axes of output and input channels of weights."""
    kind = name.split()[0]
    if kind == "Conv" or name == "Gemm turned":
        return 0, 1
    return 1, 0


def model_of(name: str, behind: str, bias: str, scales: str) -> onnx.ModelProto | None:
    """Return a layer between quantizers; ``None`` for what cannot be written in ONNX."""
    kind, (shape, weights, attributes) = name.split()[0], LAYERS[name]
    rng = np.random.default_rng(len(name) + 7 * len(behind) + 11 * len(bias))
    arrays: dict[str, Any] = {"w": rng.normal(size=weights), "z": 0.0, "b": 8.0, "s": 0.05}
    sizes = [1] * len(weights)
    if scales != "one":
        axis = axes_of(name)[0 if scales == "per output" else 1]
        sizes[axis] = weights[axis]
    arrays["ws"] = rng.uniform(0.01, 0.03, sizes if scales != "one" else ())
    arrays["t"] = 0.11
    nodes = [quant("x", "s", "xq"), quant("w", "ws", "wq", narrow=1)]
    given, rank = ["xq", "wq"], len(shape)
    if bias == "input":
        if kind == "MatMul":
            return None
        arrays["bias"], given = rng.normal(size=CHANNELS), [*given, "bias"]
    nodes.append(helper.make_node(kind, given, ["m"], name="layer", **attributes))
    last = "m"
    if bias not in ("none", "input"):
        axis = 1 if "Conv" in kind else rank - 1
        if bias == "another axis":
            axis = rank - 1 if "Conv" in kind else rank - 2
            if rank == 2:
                return None
        sizes = [1] * rank
        sizes[axis] = 1 if bias == "one" else output_sizes(name)[axis]
        arrays["added"] = rng.normal(size=sizes)
        nodes.append(helper.make_node("Add", ["m", "added"], ["a"], name="add"))
        last = "a"
    if behind == "Relu":
        nodes.append(helper.make_node("Relu", [last], ["r"], name="relu"))
        last = "r"
    if behind == "Clip":
        arrays |= {"zero": 0.0, "six": 6.0}
        nodes.append(helper.make_node("Clip", [last, "zero", "six"], ["r"], name="clip"))
        last = "r"
    nodes.append(quant(last, "t", "y"))
    made = [
        numpy_helper.from_array(np.asarray(v, dtype=np.float32), n) for n, v in arrays.items()
    ]
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, shape),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, output_sizes(name)),
    ]
    graph = helper.make_graph(nodes, "layer", ends[:1], ends[1:], made)
    opsets = [helper.make_opsetid("", 19), helper.make_opsetid("qonnx.custom_op.general", 2)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def output_sizes(name: str) -> list[int]:
    shape = LAYERS[name][0]
    sides = {"Conv": 5, "Conv strided": 3, "ConvTranspose": 6}.get(name, 3)
    return [*shape[:-1], CHANNELS] if len(shape) < 4 else [1, CHANNELS, sides, sides]


def quant(x: str, scale: str, y: str, narrow: int = 0) -> onnx.NodeProto:
    usual = {"signed": 1, "narrow": narrow, "rounding_mode": "ROUND"}
    domain = "qonnx.custom_op.general"
    return helper.make_node("Quant", [x, scale, "z", "b"], [y], name=y, domain=domain, **usual)


WRITTEN = {"one": True, "per output": True, "per input": False}


@pytest.mark.parametrize("name", LAYERS)
def test_float_layers_of_the_file_are_the_sources_or_the_layer_is_refused(name: str):
    written = 0
    for behind, bias, scales in product(BEHIND, BIASES, SCALES):
        model = model_of(name, behind, bias, scales)
        if model is None:
            continue
        said = f"{name}, {behind or 'nothing'} behind, bias {bias}, scale {scales}"
        loaded = qh.load(model)
        try:
            made = TfliteExporter().export(loaded, export_options(allow_lossy=True))
        except NotExactError:
            depthwise = name == "Conv depthwise" and scales == "per input"
            may = bias == "another axis" or (scales == "per input" and not depthwise)
            assert may, f"{said}: refused"
            continue
        assert WRITTEN[scales] or name == "Conv depthwise", said
        assert made.near is not None
        close(loaded, made.near.model, said)
        written += 1
    assert written >= 12


def close(source: onnx_ir.Model, floats: onnx_ir.Model, said: str) -> None:
    """Compare whole codes: a bias that is rounded to integers moves few, by one step."""
    rng = np.random.default_rng(1)
    shape = [int(n) for n in source.graph.inputs[0].shape or ()]
    differing = count = 0
    for _ in range(3):
        x = rng.normal(0, 2, shape).astype(np.float32)
        ours = Session(floats).run({"x": x})["y"]
        expected = Session(source).run({"x": x})["y"]
        steps = np.abs(ours - expected) / 0.11
        assert steps.max() < 1.5, said
        differing, count = differing + int(np.count_nonzero(steps > 0.5)), count + ours.size
    assert differing <= 1 + count // 50, said
