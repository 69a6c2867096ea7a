"""Costs: the published table, the qonnx tool's figures, and layers counted by hand."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import helper, numpy_helper

import qonnx_hub as qh
from benchmarks import nets
from qonnx_hub_ir.errors import UnsupportedGraphError, UsageError
from tests.support import DOMAIN, SHARED, model_of, needs_shared, quant_node

CONSTANTS = {"s": 0.25, "one": 1.0, "z": 0.0, "b": 4.0, "w8": 8.0}


@cache
def published_mobilenet() -> onnx_ir.Model:
    """MobileNet v1 as in the zoo: no padding in the first layer, a truncating average pool."""
    proto = nets.mobilenet_v1()
    graph = proto.graph
    nodes = {node.name: node for node in graph.node}
    graph.node.remove(nodes["input_quant"])
    stem = nodes["stem"]
    stem.input[0] = "x"
    (pads,) = [a for a in stem.attribute if a.name == "pads"]
    pads.ints[:] = [0, 0, 0, 0]
    old = nodes["pool_quant"]
    step = nodes["pw_act13"].input[1]
    (scale,) = [numpy_helper.to_array(t) for t in graph.initializer if t.name == step]
    numbers = {"places": 49.0, "in_bits": 10.0, "wide": 64 * scale, "out_bits": 4.0}
    for name, value in numbers.items():
        array = np.asarray(value, dtype=np.float32)
        graph.initializer.append(numpy_helper.from_array(array, f"pool.{name}"))
    inputs = ["pool_sum", step, "pool_quant.zero_point"]
    inputs += ["pool.in_bits", "pool.wide", "pool.out_bits"]
    new = [
        helper.make_node("Mul", [old.input[0], "pool.places"], ["pool_sum"], name="pool_sum"),
        helper.make_node(
            "Trunc", inputs, ["pool_quant"], name="pool_quant", domain=DOMAIN, signed=0
        ),
    ]
    place = list(graph.node).index(old)
    graph.node.remove(old)
    for node in reversed(new):
        graph.node.insert(place, node)
    for opset in proto.opset_import:
        if opset.domain == DOMAIN:
            opset.version = 2
    return qh.load(proto)


@cache
def network(name: str, weight_bits: int, act_bits: int) -> onnx_ir.Model:
    if name == "mobilenet":
        return published_mobilenet()
    build = nets.tfc if name == "tfc" else nets.cnv
    return qh.load(build(weight_bits, act_bits))


# The model-zoo table of arXiv:2206.07527: MACs, BOPs, weights, total weight bits.
PUBLISHED = {
    ("mobilenet", 4, 4): (557_381_408, 74_070_028_288, 4_208_224, 16_839_808),
    ("cnv", 1, 1): (57_906_176, 107_672_576, 1_542_848, 1_542_848),
    ("cnv", 1, 2): (57_906_176, 165_578_752, 1_542_848, 1_542_848),
    ("cnv", 2, 2): (57_906_176, 331_157_504, 1_542_848, 3_085_696),
    ("tfc", 1, 1): (59_008, 59_008, 59_008, 59_008),
    ("tfc", 1, 2): (59_008, 118_016, 59_008, 59_008),
    ("tfc", 2, 2): (59_008, 236_032, 59_008, 118_016),
}


@pytest.mark.parametrize("key", list(PUBLISHED), ids=str)
def test_the_convention_of_the_paper_gives_the_published_row(key):
    found = qh.cost(network(*key), "paper")
    assert (found.macs, found.bops, found.weights, found.weight_bits) == PUBLISHED[key]


# Figures of qonnx 1.0.0's inference_cost without discount, on Brevitas' models: total MACs,
# BOPs, weight bits.
OF_THE_TOOL = {
    ("mobilenet", 4, 4): (568_026_752, 11_757_998_592, 16_839_808),
    ("cnv", 1, 1): (59_461_376, 70_347_776, 1_542_848),
    ("cnv", 1, 2): (59_461_376, 128_253_952, 1_542_848),
    ("cnv", 2, 2): (59_461_376, 256_507_904, 3_085_696),
    ("tfc", 1, 1): (59_008, 59_008, 59_008),
    ("tfc", 1, 2): (59_008, 118_016, 59_008),
    ("tfc", 2, 2): (59_008, 236_032, 118_016),
}


@pytest.mark.parametrize("key", list(OF_THE_TOOL), ids=str)
def test_the_convention_of_the_tool_gives_its_figures(key):
    found = qh.cost(network(*key), "qonnx")
    assert (found.macs, found.bops, found.weight_bits) == OF_THE_TOOL[key]


def test_the_tool_counts_the_results_of_all_layers():
    found = qh.cost(network("cnv", 1, 2), "qonnx")
    assert (found.activations, found.activation_bits) == (142_602, 4_563_264)


def test_the_exact_types_of_mobilenet_follow_from_its_input():
    # 10,645,344 * 8 * 8, then 556,357,408 * 4 * 4, and 1,024,000 * 4 * 4 after the pool.
    found = qh.cost(published_mobilenet(), input_types={"x": "INT8"})
    assert found.bops == 681_302_016 + 8_901_718_528 + 16_384_000
    assert found.layers[-1].input_type == "UINT4"


def tool_cost(proto: onnx.ModelProto, *, sparsity: bool) -> dict[str, Any]:
    """What the qonnx package itself counts."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("qonnx")
        from qonnx.core.modelwrapper import ModelWrapper
        from qonnx.util.cleanup import cleanup_model
        from qonnx.util.inference_cost import inference_cost

        cleaned = cleanup_model(ModelWrapper(proto))
        counted = inference_cost(cleaned, discount_sparsity=sparsity)
    return dict(counted["total_cost"])


def require_as_the_tool(proto: onnx.ModelProto, *, sparsity: bool) -> None:
    expected = tool_cost(proto, sparsity=sparsity)
    found = qh.cost(qh.load(proto), "qonnx", sparsity=sparsity)
    assert found.macs == expected["total_macs"] > 0
    assert found.bops == expected["total_bops"]
    assert found.weights == expected["total_mem_w_elems"]
    assert found.weight_bits == expected["total_mem_w_bits"]
    assert found.activations == expected["total_mem_o_elems"]
    assert found.activation_bits == expected["total_mem_o_bits"]
    buckets = {f"op_mac_{k.replace(' x ', '_')}": v for k, v in found.mac_buckets.items()}
    assert buckets == {k: v for k, v in expected.items() if k.startswith("op_mac")}


@pytest.mark.parametrize("sparsity", [False, True])
@pytest.mark.parametrize(
    "build", [nets.tfc, nets.resnet8, lambda: nets.cnv(1, 2)], ids=["tfc", "resnet8", "cnv"]
)
def test_the_qonnx_package_counts_the_same(build, sparsity):
    require_as_the_tool(nets.fix_batch(build(), 1), sparsity=sparsity)


ZOO = sorted((SHARED / "models" / "zoo").glob("*.onnx"))


@needs_shared
@pytest.mark.parametrize("sparsity", [False, True])
@pytest.mark.parametrize("path", ZOO, ids=[path.stem for path in ZOO])
def test_the_qonnx_package_counts_the_same_on_the_zoo(path: Path, sparsity: bool):
    require_as_the_tool(onnx.load(path), sparsity=sparsity)


# Layers by hand


def layer_model(
    node: Any, shape: tuple[Any, ...], weights: dict[str, Any], **more: Any
) -> onnx_ir.Model:
    """x -> Quant (4 bits, scale 1/4) -> the layer, whose weights are quantized to 8 bits."""
    nodes = [
        quant_node("x", "qx"),
        quant_node("w", "qw", scale="one", bits="w8"),
        node,
    ]
    return qh.load(model_of(nodes, {"x": shape}, ["y"], {**CONSTANTS, **weights}, **more))


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, dtype=np.float32)


@pytest.mark.parametrize(
    ("node", "shape", "weight", "macs"),
    [
        # 3 * 5 weights, each used once per row.
        (helper.make_node("MatMul", ["qx", "qw"], ["y"]), (2, 3), ones(3, 5), 30),
        (helper.make_node("Gemm", ["qx", "qw"], ["y"], transB=1), (2, 3), ones(5, 3), 30),
        (
            helper.make_node("Gemm", ["qx", "qw"], ["y"], transA=1),
            (3, 2),
            ones(3, 5),
            30,
        ),
        # 4 * 3 * 9 weights at 4 * 4 places.
        (helper.make_node("Conv", ["qx", "qw"], ["y"]), (1, 3, 6, 6), ones(4, 3, 3, 3), 1728),
        # One input channel per output: 6 * 1 * 9 weights at 36 places.
        (
            helper.make_node("Conv", ["qx", "qw"], ["y"], group=6, pads=[1, 1, 1, 1]),
            (1, 6, 6, 6),
            ones(6, 1, 3, 3),
            1944,
        ),
        # Every input is multiplied by all 2 * 4 taps of its channel: 3 * 5 inputs.
        (
            helper.make_node("ConvTranspose", ["qx", "qw"], ["y"], strides=[2]),
            (1, 3, 5),
            ones(3, 2, 4),
            120,
        ),
        (helper.make_node("MatMul", ["qw", "qx"], ["y"]), (3, 2), ones(5, 3), 30),
    ],
)
def test_a_layer_multiplies_each_weight_with_all_that_it_meets(node, shape, weight, macs):
    found = qh.cost(layer_model(node, shape, {"w": weight}))
    (layer,) = found.layers
    assert (layer.macs, layer.weights) == (macs, weight.size)
    assert (layer.input_type, layer.weight_type) == ("INT4", "INT8")
    assert layer.bops == macs * 4 * 8
    assert layer.weight_bits == weight.size * 8


def test_zero_weights_are_left_out_on_request():
    weight = np.array([[1, 0], [0, 0], [2, 3]], dtype=np.float32)
    node = helper.make_node("MatMul", ["qx", "qw"], ["y"])
    model = layer_model(node, (4, 3), {"w": weight})
    dense, sparse = qh.cost(model), qh.cost(model, sparsity=True)
    assert (dense.macs, dense.weights) == (24, 6)
    assert (sparse.macs, sparse.weights, sparse.bops) == (12, 3, 12 * 32)


def test_an_open_batch_counts_as_one_sample():
    node = helper.make_node("MatMul", ["qx", "qw"], ["y"])
    assert qh.cost(layer_model(node, ("N", 3), {"w": ones(3, 5)})).macs == 15


def test_an_unknown_size_is_refused_by_name():
    node = helper.make_node("Conv", ["qx", "qw"], ["y"], name="first")
    model = layer_model(node, (1, 3, "H", 6), {"w": ones(4, 3, 3, 3)})
    with pytest.raises(UnsupportedGraphError, match=r"Conv 'first'.*fixed sizes"):
        qh.cost(model)


def test_two_moving_matrices_have_no_weights():
    node = helper.make_node("MatMul", ["qx", "t"], ["y"])
    proto = model_of(
        [quant_node("x", "qx"), node], {"x": (2, 3), "t": (3, 5)}, ["y"], CONSTANTS
    )
    found = qh.cost(proto, input_types={"t": "UINT2"})
    (layer,) = found.layers
    assert (layer.macs, layer.weights, found.weight_buckets) == (30, 0, {})
    assert (layer.input_type, layer.weight_type) == ("INT4", "UINT2")


def test_the_result_has_the_type_that_holds_every_sum():
    node = helper.make_node("MatMul", ["qx", "qw"], ["y"])
    found = qh.cost(layer_model(node, (1, 3), {"w": ones(3, 5)}))
    # Three inputs from -8 to 7 with weights of 1: -24 to 21 fit into six bits.
    assert found.layers[0].output_type == "INT6"
    assert (found.activations, found.activation_bits) == (5, 30)


def test_the_same_layer_in_three_conventions():
    node = helper.make_node("MatMul", ["qx", "qw"], ["y"])
    model = layer_model(node, (1, 3), {"w": ones(3, 5)})
    types = {c: qh.cost(model, c).layers[0] for c in ("true", "qonnx", "paper")}
    assert {c: layer.input_type for c, layer in types.items()} == {
        "true": "INT4",
        "qonnx": "SCALEDINT<4>",
        "paper": "FLOAT32",
    }
    assert [layer.bops for layer in types.values()] == [15 * 4 * 8, 15 * 4 * 8, 15 * 32 * 8]


def test_minifloats_count_their_bits():
    constants = {"s": 1.0, "e": 4.0, "m": 3.0, "bias": 7.0, "top": 448.0, "w": ones(3, 5)}
    nodes = [
        helper.make_node(
            "FloatQuant", ["x", "s", "e", "m", "bias", "top"], ["q"], domain=DOMAIN
        ),
        helper.make_node("Relu", ["q"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"]),
    ]
    found = qh.cost(model_of(nodes, {"x": (1, 3)}, ["y"], constants))
    assert found.layers[0].input_type == "FLOAT<4,3>"
    # Weights of 1 are whole numbers of one bit, quantizer or not.
    assert found.layers[0].bops == 15 * 8 * 1


def test_operators_that_are_not_counted_are_named():
    nodes = [helper.make_node("Einsum", ["x", "w"], ["y"], "sum", equation="ij,jk->ik")]
    found = qh.cost(model_of(nodes, {"x": (1, 3)}, ["y"], {"w": ones(3, 5)}))
    assert (found.macs, found.layers) == (0, ())
    assert found.notes == ("not counted: Einsum 'sum'",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"convention": "mine"}, "unknown convention 'mine'; there are: true, qonnx, paper"),
        ({"input_types": {"z": "INT8"}}, "'z' is no input"),
        ({"input_types": {"": "INT0"}}, "'INT0' is no type"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        qh.cost(network("tfc", 2, 2), **options)


def test_counting_does_not_change_the_model():
    model = qh.load(nets.tfc())
    before = onnx_ir.to_proto(model).SerializeToString(deterministic=True)
    qh.cost(model)
    assert onnx_ir.to_proto(model).SerializeToString(deterministic=True) == before
