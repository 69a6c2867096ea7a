"""The networks of `benchmarks/nets.py`, which tests and benchmarks share."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import onnx
import onnx.numpy_helper
import pytest

from benchmarks import nets

BUILDERS: dict[str, Callable[[], onnx.ModelProto]] = {
    "tfc_w1a1": lambda: nets.tfc(1, 1),
    "tfc_w2a2": lambda: nets.tfc(2, 2),
    "cnv_w1a2": lambda: nets.cnv(1, 2),
    "mobilenet": lambda: nets.mobilenet_v1(width=0.25, resolution=32),
    "resnet8": nets.resnet8,
    "unet": lambda: nets.unet(width=8, resolution=16),
}


@pytest.fixture(params=sorted(BUILDERS))
def build(request) -> Callable[[], onnx.ModelProto]:
    return BUILDERS[request.param]


def test_a_net_is_the_same_bytes_each_time(build):
    assert build().SerializeToString() == build().SerializeToString()


def test_a_net_is_valid_onnx_with_a_symbolic_batch(build):
    model = build()
    onnx.checker.check_model(model)
    assert {opset.domain: opset.version for opset in model.opset_import} == {
        "": 19,
        "qonnx.custom_op.general": 1,
    }
    for value in (model.graph.input[0], model.graph.output[0]):
        assert value.type.tensor_type.shape.dim[0].dim_param == "N"


def test_fixing_the_batch_leaves_the_original_symbolic(build):
    model = build()
    fixed = nets.fix_batch(model, 3)
    for value in (fixed.graph.input[0], fixed.graph.output[0]):
        assert value.type.tensor_type.shape.dim[0].dim_value == 3
    assert model.SerializeToString() == build().SerializeToString()


# Counted by hand from the layers that the docstrings name:
# TFC        784*64 + 2 * 64*64 + 64*10 = 59,008 weights
# CNV        9 * (3*64 + 64*64 + 64*128 + 128*128 + 128*256 + 256*256)
#            + 256*512 + 512*512 + 512*10 = 1,542,848 weights
# MobileNet  stem 27*32 = 864 weights of 8 bits; of 4 bits: depthwise 9 * 4,960 = 44,640,
#            pointwise 3,139,584, last 1024*1000 = 1,024,000, together 4,208,224
@pytest.mark.parametrize(
    ("model", "bits"),
    [
        (nets.tfc(1, 1), 59_008),
        (nets.tfc(2, 2), 2 * 59_008),
        (nets.cnv(1, 1), 1_542_848),
        (nets.cnv(2, 2), 2 * 1_542_848),
        (nets.mobilenet_v1(), 8 * 864 + 4 * 4_208_224),
    ],
    ids=["tfc_w1a1", "tfc_w2a2", "cnv_w1a1", "cnv_w2a2", "mobilenet_w4a4"],
)
def test_a_net_has_the_weight_bits_of_its_layers(model, bits):
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    total = 0
    for node in model.graph.node:
        weight = tensors.get(node.input[0])
        if weight is not None:
            width = 1.0 if node.op_type == "BipolarQuant" else number(tensors[node.input[3]])
            total += int(np.prod(weight.dims)) * int(width)
    assert total == bits


def number(tensor: onnx.TensorProto) -> float:
    return float(onnx.numpy_helper.to_array(tensor).item())


def test_activations_use_the_range_of_their_quantizers(build):
    pytest.importorskip("qonnx", reason="the qonnx package executes the net")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from qonnx.core.modelwrapper import ModelWrapper
        from qonnx.core.onnx_exec import execute_onnx
        from qonnx.transformation.infer_shapes import InferShapes

        model = ModelWrapper(nets.fix_batch(build(), 2)).transform(InferShapes())
        shape = model.get_tensor_shape("x")
        x = np.random.default_rng(0).random(shape, dtype=np.float32)
        values = execute_onnx(model, {"x": x}, return_full_exec_context=True)
    activations = [
        node.output[0]
        for node in model.graph.node
        if node.op_type in {"Quant", "BipolarQuant"} and "weight" not in node.input[0]
    ]
    assert len(activations) > 3
    for name in activations:
        _, counts = np.unique(values[name], return_counts=True)
        assert len(counts) >= 2, name
        assert counts.max() < 0.95 * counts.sum(), name
