"""Old graphs compute after RaiseOpset what they computed before."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper

import qonnx_hub as qh
from qonnx_hub_ir.dialect import PROVENANCE
from qonnx_hub_ir.errors import SourceError
from qonnx_hub_ir.passes import NormalizeDialect, RaiseOpset, run_passes
from qonnx_hub_ir.validity import verify
from tests.ir.graphs import (
    CHANNELS_LAST,
    DOMAIN,
    attributes,
    evaluate,
    f32,
    i64,
    info,
    model,
    node_of,
    operators,
    proto,
    quant,
)

RANDOM = np.random.default_rng(11)
IMAGE = RANDOM.normal(size=(2, 3, 4, 4)).astype(np.float32)
STATISTICS = {
    name: (RANDOM.random(3) + 0.5).astype(np.float32)
    for name in ("gamma", "beta", "mean", "var")
}
ROW = f32([[[[0, 10, 30]]]])


def old_proto(op, x, opset, weights=None, **changes) -> onnx.ModelProto:
    """One node as files of that time hold it: below opset 9, weights are graph inputs."""
    weights = weights or {}
    nodes = [helper.make_node(op, ["x", *weights], ["y"], name="n", **changes)]
    inputs = [info("x", x.shape)]
    if opset < 9:
        inputs += [
            info(name, array.shape, helper.np_dtype_to_tensor_dtype(array.dtype))
            for name, array in weights.items()
        ]
    ir_version = 3 if opset < 9 else 4
    return proto(nodes, inputs, [info("y", None)], weights, {"": opset}, ir_version=ir_version)


def raised(found: onnx.ModelProto) -> onnx_ir.Model:
    """The model at opset 19, which must be sound and valid ONNX."""
    result = onnx_ir.from_proto(found)
    assert run_passes(result, [NormalizeDialect(), RaiseOpset(), NormalizeDialect()])
    assert result.opset_imports[""] == 19
    assert verify(result) == []
    onnx.checker.check_model(onnx_ir.to_proto(result))
    assert not RaiseOpset()(result).modified
    return result


def normalized_image(epsilon: float) -> np.ndarray:
    gamma, beta, mean, var = (s.reshape(3, 1, 1) for s in STATISTICS.values())
    return (IMAGE - mean) / np.sqrt(var + np.float32(epsilon)) * gamma + beta


def flat_hardmax(x: np.ndarray, axis: int) -> np.ndarray:
    rows = x.reshape(int(np.prod(x.shape[:axis])), -1)
    found = np.zeros_like(rows)
    found[np.arange(len(rows)), rows.argmax(axis=1)] = 1
    return found.reshape(x.shape)


def flat_softmax(x: np.ndarray) -> np.ndarray:
    """Softmax below opset 13: over all axes from the first on."""
    flat = x.reshape(len(x), -1)
    powers = np.exp(flat - flat.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).reshape(x.shape)


BIAS = f32([1, 2, 3])
BN = {"op": "BatchNormalization", "x": IMAGE, "weights": STATISTICS}
CASES = {
    # BatchNormalization, with the attributes that files of its time carry.
    "bn_6": (6, BN | {"is_test": 1, "epsilon": 1e-3}, normalized_image(1e-3)),
    "bn_6_spatial": (6, BN | {"is_test": 1, "spatial": 1}, normalized_image(1e-5)),
    "bn_6_consumed": (
        6,
        BN | {"is_test": 1, "consumed_inputs": [0, 0, 0, 1, 1]},
        normalized_image(1e-5),
    ),
    "bn_7": (7, BN | {"epsilon": 1e-3, "spatial": 1}, normalized_image(1e-3)),
    "bn_7_is_test": (
        7,
        BN | {"is_test": 1, "consumed_inputs": [0, 0, 0, 1, 1]},
        normalized_image(1e-5),
    ),
    "bn_9": (9, BN | {"epsilon": 1e-3}, normalized_image(1e-3)),
    "bn_13": (13, BN | {"momentum": 0.5}, normalized_image(1e-5)),
    # Axes that became an input.
    **{
        f"unsqueeze_{opset}": (
            opset,
            {"op": "Unsqueeze", "x": IMAGE[0, 0], "axes": [0, 2]},
            IMAGE[0, 0].reshape(1, 4, 1, 4),
        )
        for opset in (6, 7, 9, 11)
    },
    **{
        f"reduce_sum_{opset}": (
            opset,
            {"op": "ReduceSum", "x": IMAGE, "axes": [1, 3], "keepdims": 0},
            IMAGE.sum(axis=(1, 3)),
        )
        for opset in (6, 7, 9, 11)
    },
    **{
        f"reduce_mean_{opset}": (
            opset,
            {"op": "ReduceMean", "x": IMAGE, "axes": [2], "keepdims": 1},
            IMAGE.mean(axis=2, keepdims=True),
        )
        for opset in (11, 13, 17)
    },
    "squeeze_11": (11, {"op": "Squeeze", "x": IMAGE[:1], "axes": [0]}, IMAGE[0]),
    # Limits that became inputs.
    **{
        f"clip_{opset}": (
            opset,
            {"op": "Clip", "x": IMAGE, "min": -0.5, "max": 0.25},
            IMAGE.clip(-0.5, 0.25),
        )
        for opset in (6, 7, 9)
    },
    "clip_6_one_sided": (6, {"op": "Clip", "x": IMAGE, "max": 0.25}, IMAGE.clip(None, 0.25)),
    "clip_6_open": (6, {"op": "Clip", "x": IMAGE}, IMAGE),
    "pad_9": (
        9,
        {"op": "Pad", "x": IMAGE, "pads": [0, 0, 1, 0, 0, 0, 0, 2], "value": 0.5},
        np.pad(IMAGE, [(0, 0), (0, 0), (1, 0), (0, 2)], constant_values=0.5),
    ),
    "slice_9": (
        9,
        {"op": "Slice", "x": IMAGE, "axes": [2], "starts": [1], "ends": [3]},
        IMAGE[:, :, 1:3],
    ),
    # Dropout does nothing outside training.
    "dropout_6": (6, {"op": "Dropout", "x": IMAGE, "is_test": 1, "ratio": 0.3}, IMAGE),
    **{
        f"dropout_{opset}": (opset, {"op": "Dropout", "x": IMAGE, "ratio": 0.3}, IMAGE)
        for opset in (7, 9, 11)
    },
    # Resampling: element floor(i / scale).
    "upsample_7": (
        7,
        {"op": "Upsample", "x": IMAGE, "scales": [1.0, 1.0, 2.0, 3.0]},
        IMAGE.repeat(2, axis=2).repeat(3, axis=3),
    ),
    "upsample_9": (
        9,
        {"op": "Upsample", "x": IMAGE, "weights": {"scales": f32([1, 1, 2, 2])}},
        IMAGE.repeat(2, axis=2).repeat(2, axis=3),
    ),
    "upsample_9_fraction": (
        9,
        {"op": "Upsample", "x": ROW, "weights": {"scales": f32([1, 1, 1, 2.5])}},
        f32([[[[0, 0, 0, 10, 10, 30, 30]]]]),
    ),
    "upsample_9_linear": (
        9,
        {"op": "Upsample", "x": ROW, "weights": {"s": f32([1, 1, 1, 2])}, "mode": "linear"},
        f32([[[[0, 5, 10, 20, 30, 30]]]]),
    ),
    "resize_10": (
        10,
        {"op": "Resize", "x": IMAGE, "weights": {"scales": f32([1, 1, 2, 2])}},
        IMAGE.repeat(2, axis=2).repeat(2, axis=3),
    ),
    "resize_10_half": (
        10,
        {"op": "Resize", "x": IMAGE, "weights": {"scales": f32([1, 1, 0.5, 0.5])}},
        IMAGE[:, :, ::2, ::2],
    ),
    "resize_10_linear": (
        10,
        {"op": "Resize", "x": ROW, "weights": {"s": f32([1, 1, 1, 2])}, "mode": "linear"},
        f32([[[[0, 5, 10, 20, 30, 30]]]]),
    ),
    # Broadcasting of opset 6, with and without an axis.
    "add_6_axis": (
        6,
        {"op": "Add", "x": IMAGE, "weights": {"b": BIAS}, "broadcast": 1, "axis": 1},
        IMAGE + BIAS.reshape(3, 1, 1),
    ),
    "add_6_axis_of_batch_size": (
        6,
        {
            "op": "Add",
            "x": IMAGE[:, :2],
            "weights": {"b": BIAS[:2]},
            "broadcast": 1,
            "axis": 1,
        },
        IMAGE[:, :2] + BIAS[:2].reshape(2, 1, 1),
    ),
    "mul_6_negative_axis": (
        6,
        {"op": "Mul", "x": IMAGE, "weights": {"b": BIAS}, "broadcast": 1, "axis": -3},
        IMAGE * BIAS.reshape(3, 1, 1),
    ),
    "sub_6_last_axis": (
        6,
        {"op": "Sub", "x": IMAGE, "weights": {"b": IMAGE[0, 0, 0]}, "broadcast": 1, "axis": 3},
        IMAGE - IMAGE[0, 0, 0],
    ),
    "div_6": (
        6,
        {"op": "Div", "x": IMAGE, "weights": {"b": IMAGE[0, 0, 0]}, "broadcast": 1},
        IMAGE / IMAGE[0, 0, 0],
    ),
    "prelu_6": (
        6,
        {"op": "PRelu", "x": IMAGE, "weights": {"slope": BIAS}},
        np.where(IMAGE < 0, IMAGE * BIAS.reshape(3, 1, 1), IMAGE),
    ),
    "prelu_6_shared": (
        6,
        {"op": "PRelu", "x": IMAGE, "weights": {"slope": BIAS[1:2]}},
        np.where(IMAGE < 0, IMAGE * 2, IMAGE),
    ),
    "gemm_6": (
        6,
        {
            "op": "Gemm",
            "x": IMAGE[0, 0],
            "weights": {"w": np.eye(4, 3, dtype=np.float32), "b": BIAS},
            "broadcast": 1,
        },
        IMAGE[0, 0] @ np.eye(4, 3, dtype=np.float32) + BIAS,
    ),
    # Axes that are flattened below opset 13.
    "softmax_11": (11, {"op": "Softmax", "x": IMAGE, "axis": 1}, flat_softmax(IMAGE)),
    "softmax_9_default": (9, {"op": "Softmax", "x": IMAGE}, flat_softmax(IMAGE)),
    "hardmax_11_last": (
        11,
        {"op": "Hardmax", "x": IMAGE, "axis": 3},
        (IMAGE.max(axis=3, keepdims=True) == IMAGE).astype(np.float32),
    ),
    **{
        f"hardmax_{opset}_{axis}": (
            opset,
            {"op": "Hardmax", "x": IMAGE, "axis": axis},
            flat_hardmax(IMAGE, axis),
        )
        for opset, axis in ((7, 1), (9, 2), (11, 0), (12, 1), (12, -2))
    },
    "reshape_7": (
        7,
        {"op": "Reshape", "x": IMAGE, "weights": {"shape": i64([2, -1])}},
        IMAGE.reshape(2, -1),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_raised_graph_computes_the_same(case):
    opset, node, expected = CASES[case]
    (y,) = evaluate(raised(old_proto(**node, opset=opset)), x=node["x"])
    assert y.shape == expected.shape
    # Sums and exponentials may differ in their last bits; everything else is exact.
    inexact = case.startswith(("bn", "reduce", "softmax", "gemm"))
    np.testing.assert_allclose(y, expected, rtol=2e-6 if inexact else 0, atol=1e-6 * inexact)


@pytest.mark.parametrize(
    "case",
    [name for name, (opset, *_) in CASES.items() if opset >= 7 and "is_test" not in name],
)
def test_a_raised_graph_computes_what_onnxruntime_computed_before(case):
    ort = pytest.importorskip("onnxruntime")
    opset, node, _ = CASES[case]
    before = old_proto(**node, opset=opset)
    after = onnx_ir.to_proto(raised(old_proto(**node, opset=opset)))
    answers = [
        ort.InferenceSession(
            found.SerializeToString(), providers=["CPUExecutionProvider"]
        ).run(["y"], {"x": node["x"]})[0]
        for found in (before, after)
    ]
    assert np.array_equal(*answers)


@pytest.mark.parametrize(
    ("opset", "node", "reason"),
    [
        (7, BN | {"spatial": 0}, "from opset 7 to 19: .*spatial must have value 1"),
        (6, BN | {"is_test": 0}, "from opset 6 to 19: .*is_test must not have value 0"),
        (
            10,
            {"op": "Resize", "x": IMAGE, "weights": {"scales": f32([1, 1, 0.6, 1])}},
            "Resize 'n' shrinks by a factor that is no whole number",
        ),
        (
            6,
            {"op": "Greater", "x": IMAGE, "weights": {"b": BIAS}, "broadcast": 1, "axis": 1},
            "from opset 6 to 19: .*No Adapter.*Greater",
        ),
    ],
)
def test_what_cannot_be_raised_with_its_meaning_is_refused(opset, node, reason):
    found = onnx_ir.from_proto(old_proto(**node, opset=opset))
    NormalizeDialect()(found)
    with pytest.raises(SourceError, match=reason):
        RaiseOpset()(found)
    assert found.opset_imports[""] == opset


def test_an_axis_without_known_ranks_is_refused():
    nodes = [helper.make_node("Add", ["x", "b"], ["y"], name="n", broadcast=1, axis=1)]
    unknown = [info("x", None)], [info("y", None)]
    found = model(nodes, *unknown, {"b": BIAS}, {"": 6})
    with pytest.raises(
        SourceError, match="Add 'n' aligns its inputs at axis 1, but their ran"
    ):
        RaiseOpset()(found)


def test_ranks_are_found_behind_quantizers():
    nodes = [
        quant("x", "t"),
        helper.make_node("Add", ["t", "w"], ["y"], name="n", broadcast=1, axis=1),
    ]
    weights = {"s": f32(0.5), "z": f32(0), "b": f32(4), "w": BIAS}
    inputs = [info("x", IMAGE.shape)]
    found = model(nodes, inputs, [info("y", None)], weights, {"": 6, DOMAIN: 2})
    RaiseOpset()(found)
    kept = [name for name in operators(found) if name != "Constant"]
    assert kept == ["Quant", "Unsqueeze", "Add"]
    (y,) = evaluate(found, x=IMAGE)
    steps = np.round(np.clip(IMAGE / 0.5, -8, 7)) * f32(0.5)
    assert np.array_equal(y, steps + BIAS.reshape(3, 1, 1))


@pytest.mark.parametrize("opset", [19, 20, 21, 23])
def test_a_graph_that_is_new_enough_keeps_its_opset(opset):
    found = model([quant()], imports={"": opset, DOMAIN: 2})
    assert not RaiseOpset()(found).modified
    assert found.opset_imports[""] == opset


def test_another_opset_can_be_asked_for():
    found = model([helper.make_node("Relu", ["x"], ["y"])], weights={})
    assert RaiseOpset(21)(found).modified
    assert (found.opset_imports[""], found.ir_version) == (21, 10)
    assert not RaiseOpset(21)(found).modified
    assert not RaiseOpset(20)(found).modified


def test_a_graph_of_quantizers_alone_gets_the_opset():
    for imports in ({"": 9, DOMAIN: 2}, {DOMAIN: 2}):
        found = model([quant()], imports=imports)
        assert RaiseOpset()(found).modified
        assert dict(found.opset_imports) == {"": 19, DOMAIN: 2}
        assert not RaiseOpset()(found).modified


@pytest.mark.parametrize("opset", [6, 7, 9, 11, 13, 17])
def test_quantizers_pass_through_unchanged(opset):
    nodes = [
        helper.make_node("Relu", ["x"], ["t"]),
        quant("t", "y", signed=0, rounding_mode="DPU"),
    ]
    found = model(nodes, imports={"": opset, DOMAIN: 2})
    RaiseOpset()(found)
    node = node_of(found, "Quant")
    assert (node.name, node.domain) == ("q", DOMAIN)
    assert attributes(node) == {"signed": 0, "narrow": 0, "rounding_mode": "DPU"}
    values = [value.const_value.numpy().tolist() for value in node.inputs[1:]]
    assert values == [0.5, 0.0, 4.0]


def test_channels_last_operators_follow_the_opset():
    nodes = [
        helper.make_node("MaxPool", ["x"], ["t"], domain=CHANNELS_LAST, kernel_shape=[2, 2]),
        helper.make_node("Relu", ["t"], ["y"]),
    ]
    found = model(nodes, imports={"": 9, CHANNELS_LAST: 9}, weights={})
    RaiseOpset()(found)
    assert dict(found.opset_imports) == {"": 19, CHANNELS_LAST: 19}


def test_metadata_stays_with_its_values_and_nodes():
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="r"),
        helper.make_node("Upsample", ["a", "scales"], ["b"], name="u"),
        helper.make_node("Add", ["b", "c"], ["y"], name="add"),
    ]
    weights = {"scales": f32([1, 1, 2, 2]), "c": f32(1)}
    shapes = [info("x", [1, 1, 2, 2])], [info("y", [1, 1, 4, 4])]
    found = model(nodes, *shapes, weights, {"": 9})
    found.metadata_props["m"] = "model"
    found.graph.metadata_props["g"] = "graph"
    for value in (found.graph.inputs[0], found.graph.initializers["c"]):
        value.metadata_props[PROVENANCE] = str(value.name)
    for node in found.graph:
        node.metadata_props["n"] = str(node.name)
        node.outputs[0].metadata_props[PROVENANCE] = str(node.name)
    RaiseOpset()(found)
    assert found.metadata_props["m"] == "model"
    assert found.graph.metadata_props["g"] == "graph"
    assert found.graph.inputs[0].metadata_props[PROVENANCE] == "x"
    assert found.graph.initializers["c"].metadata_props[PROVENANCE] == "c"
    kept = [node for node in found.graph if node.op_type != "Constant"]
    assert [node.metadata_props["n"] for node in kept] == ["r", "u", "add"]
    assert [node.outputs[0].name for node in kept] == ["a", "b", "y"]
    assert [node.outputs[0].metadata_props[PROVENANCE] for node in kept] == ["r", "u", "add"]


def test_weights_are_not_copied():
    weight = RANDOM.normal(size=(64, 64)).astype(np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    shapes = [info("x", ["N", 64])], [info("y", ["N", 64])]
    found = model([node], *shapes, {"w": weight}, {"": 11})
    tensor = found.graph.initializers["w"].const_value
    RaiseOpset()(found)
    assert found.graph.initializers["w"].const_value is tensor
    assert [value.name for value in found.graph.inputs] == ["x"]
    assert [
        dim if isinstance(dim, int) else dim.value for dim in found.graph.inputs[0].shape
    ] == [
        "N",
        64,
    ]


def test_weights_in_other_files_survive_large_and_small(tmp_path):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["t"]),
        helper.make_node("Add", ["t", "b"], ["y"]),
    ]
    weights = {"w": RANDOM.normal(size=(32, 32)).astype(np.float32), "b": f32(range(32))}
    shapes = [info("x", [1, 32])], [info("y", [1, 32])]
    path = tmp_path / "net.onnx"
    onnx.save(
        proto(nodes, *shapes, weights, {"": 11}),
        path,
        save_as_external_data=True,
        size_threshold=0,
        location="net.data",
    )
    found = onnx_ir.load(path)
    assert all(
        isinstance(value.const_value, onnx_ir.ExternalTensor)
        for value in found.graph.initializers.values()
    )
    RaiseOpset()(found)
    for name, array in weights.items():
        assert np.array_equal(found.graph.initializers[name].const_value.numpy(), array)


def test_branches_are_raised_as_well():
    graphs = {
        name: helper.make_graph(
            [helper.make_node("Unsqueeze", ["x"], [f"{name}_y"], axes=[0])],
            name,
            [],
            [info(f"{name}_y", [1, 2, 3])],
        )
        for name in ("then_branch", "else_branch")
    }
    inputs = [info("x", [2, 3]), info("c", [], TensorProto.BOOL)]
    nodes = [helper.make_node("If", ["c"], ["y"], **graphs)]
    found = model(nodes, inputs, [info("y", [1, 2, 3])], {}, {"": 11})
    run_passes(found, [RaiseOpset(), NormalizeDialect()])
    assert verify(found) == []
    x = np.ones((2, 3), dtype=np.float32)
    assert evaluate(found, x=x, c=np.array(True))[0].shape == (1, 2, 3)


@pytest.mark.parametrize("kind", ["float16", "float64"])
def test_limits_that_became_inputs_have_the_type_of_what_is_clipped(kind):
    x = IMAGE.astype(kind)
    code = helper.np_dtype_to_tensor_dtype(x.dtype)
    node = helper.make_node("Clip", ["x"], ["y"], "n", min=-0.5, max=0.25)
    ends = [helper.make_tensor_value_info(name, code, x.shape) for name in "xy"]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:])
    imports = [helper.make_opsetid("", 9)]
    found = qh.run(helper.make_model(graph, opset_imports=imports, ir_version=8), {"x": x})
    assert found["y"].dtype == x.dtype
    np.testing.assert_array_equal(found["y"], x.clip(-0.5, 0.25))
