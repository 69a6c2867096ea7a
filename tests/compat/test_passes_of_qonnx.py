"""Each pass beside the transformation of the qonnx package that it stands for."""

from __future__ import annotations

from collections import Counter
from importlib import import_module

import numpy as np
import pytest
from onnx import helper

import qonnx_hub as qh
from qonnx_hub import compat
from tests.compat.models import DOMAIN, constant, info, model, note, quant

pytest.importorskip("qonnx")

from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.infer_shapes import InferShapes

# The package warns where it guesses.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

RNG = np.random.default_rng(3)


def image():
    """Conv with bias, BatchNormalization, Sub, Div, Relu, Flatten, Gemm, Add of a constant."""
    window = {"kernel_shape": [3, 3], "pads": [1] * 4, "strides": [1, 1], "dilations": [1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "w", "bias"], ["c"], name="Conv_0", group=1, **window),
        helper.make_node("BatchNormalization", ["c", "g", "h", "m", "v"], ["n"], name="B_0"),
        helper.make_node("Sub", ["n", "k"], ["s0"], name="Sub_0"),
        helper.make_node("Div", ["s0", "two"], ["d"], name="Div_0"),
        helper.make_node("Relu", ["d"], ["r"], name="Relu_0"),
        helper.make_node("Flatten", ["r"], ["f"], name="Flatten_0", axis=1),
        helper.make_node("Gemm", ["f", "u", "e"], ["o"], name="Gemm_0", transB=0),
        helper.make_node("Add", ["two", "o"], ["y"], name="Add_0"),
    ]
    vectors = {name: RNG.uniform(0.5, 2, size=4) for name in ("bias", "g", "h", "m", "v")}
    held = [constant(name, array) for name, array in vectors.items()]
    held += [constant("w", RNG.normal(size=(4, 3, 3, 3))), constant("two", 2)]
    held += [constant("k", RNG.normal(size=(1, 4, 1, 1)))]
    held += [constant("u", RNG.normal(size=(100, 6))), constant("e", RNG.normal(size=6))]
    return model(nodes, [info("x", [1, 3, 5, 5])], [info("y", [1, 6])], held)


def chain(*, double: bool = False):
    """Quant, MatMul, Relu, Mul with the scale of the Quant."""
    kind = np.float64 if double else np.float32
    nodes = [
        quant("x", "q", name="Quant_0"),
        *([helper.make_node("Cast", ["w"], ["wf"], name="Cast_0", to=1)] if double else []),
        helper.make_node("MatMul", ["q", "wf" if double else "w"], ["h"], name="MatMul_0"),
        helper.make_node("Relu", ["h"], ["r"], name="Relu_0"),
        helper.make_node("Mul", ["r", "s"], ["y"], name="Mul_0"),
    ]
    held = [constant("s", 0.5), constant("z", 0), constant("b", 4)]
    held.append(constant("w", RNG.integers(-3, 4, size=(4, 5)), kind))
    return model(nodes, [info("x", [2, 4])], [info("y", [2, 5])], held)


def signal():
    window = {"kernel_shape": [3], "pads": [1, 1], "strides": [1], "dilations": [1]}
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], name="Conv_0", group=1, **window),
        helper.make_node("Add", ["c", "t"], ["a"], name="Add_0"),
        helper.make_node(
            "MaxPool", ["a"], ["y"], name="P_0", kernel_shape=[2], strides=[2], pads=[0, 0]
        ),
    ]
    held = [
        constant("k", RNG.normal(size=(4, 3, 3))),
        constant("t", RNG.normal(size=(1, 4, 1))),
    ]
    return model(nodes, [info("x", [1, 3, 8])], [info("y", [1, 4, 4])], held)


def bipolar():
    attributes = {"out_dtype": "BIPOLAR", "out_scale": 2.0, "out_bias": -1.0}
    nodes = [
        helper.make_node(
            "MultiThreshold", ["x", "t"], ["p"], name="T_0", domain=DOMAIN, **attributes
        ),
        helper.make_node("MatMul", ["p", "w"], ["y"], name="MatMul_0"),
    ]
    signs = np.where(RNG.normal(size=(8, 3)) >= 0, 1, -1)
    held = [constant("t", [[0.0]]), constant("w", signs)]
    proto = model(nodes, [info("x", [2, 8])], [info("y", [2, 3])], held)
    note(proto, "p", finn_datatype="BIPOLAR")
    note(proto, "w", finn_datatype="BIPOLAR")
    return proto


def pool():
    attributes = {"stride": 2, "kernel": 2, "ibits": 4, "obits": 4, "signed": 0}
    node = helper.make_node(
        *("QuantAvgPool2d", ["x"], ["y"]),
        name="P_0",
        domain=DOMAIN,
        data_layout="NCHW",
        **attributes,
    )
    return model([node], [info("x", [1, 3, 4, 4])], [info("y", [1, 3, 2, 2])], [])


def pixels():
    window = {"kernel_shape": [3, 3], "pads": [1] * 4, "strides": [1, 1], "dilations": [1, 1]}
    nodes = [
        quant("w", "wq", name="Quant_0"),
        helper.make_node("Conv", ["x", "wq"], ["c"], name="Conv_0", group=1, **window),
        helper.make_node("DepthToSpace", ["c"], ["y"], name="D_0", blocksize=2, mode="CRD"),
    ]
    held = [constant("w", RNG.normal(size=(8, 3, 3, 3))), constant("s", 0.25)]
    held += [constant("z", 0), constant("b", 4)]
    return model(nodes, [info("x", [1, 3, 5, 5])], [info("y", [1, 2, 10, 10])], held)


MAP = {"op_type": {"MatMul": [(("output", 0), (0.25, 0, 6, 0, 1, "ROUND"))]}}

PASSES = {
    "sub_to_add": (image, "general", "ConvertSubToAdd", {}),
    "div_to_mul": (image, "general", "ConvertDivToMul", {}),
    "sort_commutative": (image, "general", "SortCommutativeInputsInitializerLast", {}),
    "unique_parameters": (chain, "general", "GiveUniqueParameterTensors", {}),
    "extract_bias:convolutions=true": (image, "extract_conv_bias", "ExtractBiasFromConv", {}),
    "fold_batchnorm": (image, "batchnorm_to_affine", "BatchNormToAffine", {}),
    "gemm_to_matmul": (image, "gemm_to_matmul", "GemmToMatMul", {}),
    "lower_conv_to_matmul": (image, "lower_convs_to_matmul", "LowerConvsToMatMul", {}),
    "insert_topk:k=2": (chain, "insert_topk", "InsertTopK", {"k": 2}),
    "insert_identity:tensor=h": (
        *(chain, "insert", "InsertIdentity"),
        {"tensor_name": "h", "producer_or_consumer": "producer"},
    ),
    "expose:patterns=[h]": (
        *(chain, "expose_intermediate", "ExposeIntermediateTensorsPatternList"),
        {"pattern_list": ["h"]},
    ),
    "change_batch:batch=3": (chain, "change_batchsize", "ChangeBatchSize", {"bsize": 3}),
    "extract_scale": (chain, "extract_quant_scale_zeropt", "ExtractQuantScaleZeroPt", {}),
    "double_to_single": (
        *(lambda: chain(double=True), "double_to_single_float", "DoubleToSingleFloat"),
        {},
    ),
    f'quantize_graph:map="{MAP}"': (
        *(chain, "quantize_graph", "QuantizeGraph"),
        {"quantnode_map": MAP},
    ),
    "change_3d_to_4d": (signal, "change_3d_tensors_to_4d", "Change3DTo4DTensors", {}),
    "bipolar_to_xnor": (bipolar, "bipolar_to_xnor", "ConvertBipolarMatMulToXnorPopcount", {}),
    "quant_avgpool_nhwc": (pool, "change_datalayout", "ChangeDataLayoutQuantAvgPool2d", {}),
    "subpixel_to_deconv": (pixels, "subpixel_to_deconv", "SubPixelToDeconvolution", {}),
}
"""Pass -> model, module and class of the transformation, its arguments."""

FOLDED = {"double_to_single": Counter({"Cast": 1})}
"""Operators that the package leaves and import has folded already."""


def counts(wrapper) -> Counter[str]:
    return Counter(node.op_type for node in wrapper.graph.node)


@pytest.mark.parametrize("step", PASSES, ids=[name.partition(":")[0] for name in PASSES])
def test_a_pass_does_what_the_transformation_does(step):
    make, module, name, arguments = PASSES[step]
    proto = make()
    transformation = getattr(import_module(f"qonnx.transformation.{module}"), name)
    source = ModelWrapper(proto).transform(InferShapes())
    theirs = source.transform(transformation(**arguments)).transform(InferShapes())
    ours = compat.ModelWrapper(make_again(proto)).transform(step)
    assert counts(theirs) - counts(ours) == FOLDED.get(step, Counter())
    assert counts(ours) - counts(theirs) == Counter()
    shape = theirs.get_tensor_shape(theirs.graph.input[0].name)
    assert ours.get_tensor_shape(ours.graph.input[0].name) == shape
    x = RNG.integers(0, 15, size=shape).astype(np.float32)
    wanted = execute_onnx(theirs, {theirs.graph.input[0].name: x})
    found = compat.execute_onnx(ours, {ours.graph.input[0].name: x})
    assert len(found) == len(wanted)
    for a, b in zip(found.values(), wanted.values(), strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def make_again(proto):
    fresh = type(proto)()
    fresh.CopyFrom(proto)
    return fresh


@pytest.mark.parametrize("make", [image, chain, bipolar])
def test_datatypes_are_inferred_as_the_package_does(make):
    from qonnx.transformation.infer_datatypes import InferDataTypes

    proto = make()
    theirs = ModelWrapper(make_again(proto)).transform(InferDataTypes())
    ours = compat.ModelWrapper(make_again(proto)).transform("infer_datatypes")
    for node in theirs.graph.node:
        tensor = node.output[0]
        assert ours.get_tensor_datatype(tensor) == theirs.get_tensor_datatype(tensor), tensor


def test_a_merged_model_computes_what_the_package_merges():
    from qonnx.transformation.merge_onnx_models import MergeONNXModels

    nodes = [helper.make_node("Mul", ["i", "f"], ["o"], name="M")]
    front = model(nodes, [info("i", [2, 4])], [info("o", [2, 4])], [constant("f", 3)])
    behind = chain()
    theirs = ModelWrapper(make_again(behind)).transform(MergeONNXModels(ModelWrapper(front)))
    ours = qh.passes.merge_models(qh.load(front), qh.load(behind), {"o": "x"})
    x = RNG.normal(size=(2, 4)).astype(np.float32)
    wanted = next(iter(execute_onnx(theirs, {theirs.graph.input[0].name: x}).values()))
    np.testing.assert_allclose(qh.run(ours, {"i": x})["y"], wanted, rtol=1e-6)
