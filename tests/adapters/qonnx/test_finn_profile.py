"""Files for FINN: what its conversion asks of them, held on the files themselves."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import qonnx_hub as qh
from benchmarks import nets
from qonnx_hub_adapters.lint import finn
from qonnx_hub_adapters.lint.rules import find
from qonnx_hub_adapters.qonnx import finn_profile
from qonnx_hub_ir.errors import NotExactError, UsageError
from tests.support import DOMAIN, model_of, needs_shared, quant_node, shared_models

GRID = np.arange(-24, 24, dtype=np.float32).reshape(2, 3, 8) / 8

CONSTANTS = {"s": 0.25, "z": 0.0, "b": 4.0, "one": 1.0, "eight": 8.0}


def _bipolar(x: str, y: str, scale: str) -> onnx.NodeProto:
    return helper.make_node("BipolarQuant", [x, scale], [y], y, domain=DOMAIN)


def _written(model: onnx.ModelProto, tmp_path) -> onnx.ModelProto:
    path = tmp_path / "finn.onnx"
    report = qh.convert(model, path, profile="finn")
    assert report.check is not None
    assert report.check.verdict in ("EQUAL", "PROVEN")
    assert all(output.count and not output.differing for output in report.check.outputs)
    return onnx.load(path)


def _ops(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def _quants(model: onnx.ModelProto) -> list[dict[str, object]]:
    arrays = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    return [
        {
            "bits": float(arrays[node.input[3]]),
            **{a.name: helper.get_attribute_value(a) for a in node.attribute},
        }
        for node in model.graph.node
        if node.op_type == "Quant"
    ]


def test_an_unsigned_quantizer_gets_a_relu_in_front(tmp_path) -> None:
    nodes = [quant_node("x", "y", "s", "z", "b", signed=0)]
    model = _written(model_of(nodes, {"x": (1, 8)}, ["y"], CONSTANTS), tmp_path)
    assert _ops(model) == ["Relu", "Quant"]


def test_a_signed_quantizer_behind_a_relu_loses_the_bit_it_never_used(tmp_path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], "r"),
        quant_node("r", "y", "s", "z", "b", signed=1, narrow=1),
    ]
    model = _written(model_of(nodes, {"x": (1, 8)}, ["y"], CONSTANTS), tmp_path)
    (quant,) = _quants(model)
    assert (quant["bits"], quant["signed"], quant["narrow"]) == (3.0, 0, 0)


def test_a_bipolar_scale_becomes_a_factor(tmp_path) -> None:
    model = model_of([_bipolar("x", "y", "s")], {"x": (1, 8)}, ["y"], CONSTANTS)
    written = _written(model, tmp_path)
    assert _ops(written) == ["BipolarQuant", "Mul"]
    arrays = {t.name: numpy_helper.to_array(t) for t in written.graph.initializer}
    assert arrays[written.graph.node[0].input[1]] == 1
    assert 0.25 in [float(a) for a in arrays.values() if a.size == 1]


def test_one_signed_bit_becomes_bipolar(tmp_path) -> None:
    nodes = [quant_node("x", "y", "one", "z", "one", signed=1)]
    model = _written(model_of(nodes, {"x": (1, 8)}, ["y"], CONSTANTS), tmp_path)
    assert _ops(model) == ["BipolarQuant"]


def test_a_shared_weight_is_given_to_each_layer(tmp_path) -> None:
    weight = (np.arange(16, dtype=np.float32).reshape(4, 4) - 8) / 4
    nodes = [
        quant_node("w", "wq", "s", "z", "b"),
        helper.make_node("MatMul", ["x", "wq"], ["h"], "first"),
        quant_node("h", "hq", "s", "z", "b"),
        helper.make_node("MatMul", ["hq", "wq"], ["y"], "second"),
    ]
    model = _written(
        model_of(nodes, {"x": (1, 4)}, ["y"], {**CONSTANTS, "w": weight}), tmp_path
    )
    read = [node.input[1] for node in model.graph.node if node.op_type == "MatMul"]
    assert len(set(read)) == 2
    stored = [numpy_helper.to_array(t) for t in model.graph.initializer]
    assert sum(np.array_equal(array, weight) for array in stored) == 2


def test_a_quantized_bias_is_a_constant(tmp_path) -> None:
    rng = np.random.default_rng(0)
    constants = {
        **CONSTANTS,
        "w": rng.integers(-4, 4, (2, 3, 1)).astype(np.float32) / 4,
        "bias": np.array([0.3, -0.8], dtype=np.float32),
    }
    nodes = [
        quant_node("w", "wq", "s", "z", "b"),
        quant_node("bias", "bq", "s", "z", "b"),
        helper.make_node("Conv", ["x", "wq", "bq"], ["y"], "conv", kernel_shape=[1]),
    ]
    model = _written(model_of(nodes, {"x": (1, 3, 8)}, ["y"], constants), tmp_path)
    (conv,) = [node for node in model.graph.node if node.op_type == "Conv"]
    arrays = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    # 0.3 and -0.8 on a grid of 1/4: 1.2 and -3.2 steps.
    np.testing.assert_array_equal(arrays[conv.input[2]], np.float32([0.25, -0.75]))


def test_a_flatten_moves_in_front_of_its_quantizer(tmp_path) -> None:
    nodes = [
        quant_node("x", "q", "s", "z", "b"),
        helper.make_node("Flatten", ["q"], ["f"], "flat", axis=1),
        helper.make_node("Mul", ["f", "s"], ["y"], "scaled"),
    ]
    model = _written(model_of(nodes, {"x": (1, 3, 8)}, ["y"], CONSTANTS), tmp_path)
    assert _ops(model) == ["Flatten", "Quant", "Mul"]


@pytest.mark.parametrize("order", [{}, {"zero_point_after_rounding": 1}])
def test_an_activation_with_a_zero_point_counts_thresholds(tmp_path, order) -> None:
    nodes = [quant_node("x", "y", "s", "three", "b", signed=0, **order)]
    model = _written(
        model_of(nodes, {"x": (1, 8)}, ["y"], {**CONSTANTS, "three": 3.0}), tmp_path
    )
    assert _ops(model) == ["MultiThreshold", "Sub", "Mul"]
    attributes = {a.name: helper.get_attribute_value(a) for a in model.graph.node[0].attribute}
    assert attributes["out_dtype"] == b"UINT4"
    assert attributes["out_bias"] == 0


def test_a_weight_with_a_zero_point_becomes_a_wider_one_without(tmp_path) -> None:
    weight = np.array([[-3.0, -2.75], [0.25, 0.75]], dtype=np.float32)
    nodes = [
        quant_node("x", "q", "s", "z", "b"),
        quant_node("w", "wq", "s", "twelve", "b", signed=0, zero_point_after_rounding=1),
        helper.make_node("MatMul", ["q", "wq"], ["y"], "product"),
    ]
    constants = {**CONSTANTS, "twelve": 12.0, "w": weight}
    model = _written(model_of(nodes, {"x": (1, 2)}, ["y"], constants), tmp_path)
    # The levels go from -12 to 3.
    assert [one["bits"] for one in _quants(model)] == [4.0, 5.0]


def test_an_open_batch_becomes_one(tmp_path) -> None:
    model = _written(nets.resnet8(), tmp_path)
    dim = model.graph.input[0].type.tensor_type.shape.dim[0]
    assert dim.dim_value == 1


@pytest.mark.parametrize(
    ("nodes", "node", "words"),
    [
        # Nine bits are more thresholds than FINN makes, and a Quant there has no zero point.
        ([quant_node("x", "y", "s", "one", "nine")], "y", "zero-point == 0"),
        (
            [quant_node("x", "y", "s", "z", "b", rounding_mode="FLOOR")],
            "y",
            "never reads rounding_mode",
        ),
        ([quant_node("x", "y", "s", "z", "nine")], "y", "more than 8 bits"),
        # FINN makes 0 and 1 of it.
        (
            [helper.make_node("Relu", ["x"], ["r"], "r"), _bipolar("r", "y", "one")],
            "y",
            "not -1 and +1",
        ),
        # Names of both are lost where qonnx cleans up.
        ([helper.make_node("Concat", ["x", "x"], ["y"], "both", axis=1)], "both", "x twice"),
        # Integers have no product with 2.0.
        (
            [
                helper.make_node("Cast", ["x"], ["i"], "i", to=onnx.TensorProto.INT32),
                helper.make_node("Add", ["i", "i"], ["d"], "whole"),
                helper.make_node("Cast", ["d"], ["y"], "y", to=onnx.TensorProto.FLOAT),
            ],
            "whole",
            "i twice",
        ),
        (
            [
                helper.make_node("Unsqueeze", ["x", "axes"], ["u"], "u"),
                helper.make_node("Relu", ["u"], ["r"], "five"),
                quant_node("r", "y", "s", "z", "b", signed=0),
            ],
            "five",
            "Unknown number of dims",
        ),
        # Streamline moves the scale past it, and does not divide the number by it.
        (
            [
                quant_node("x", "q", "s", "z", "b"),
                helper.make_node("Pad", ["q", "edges", "one"], ["y"], "frame"),
            ],
            "frame",
            "pads with another number than 0",
        ),
        # Streamline looks for a constant where no node makes an operand.
        (
            [
                quant_node("x", "q", "s", "z", "b"),
                helper.make_node("Add", ["q", "x"], ["a"], "sum"),
                helper.make_node("Relu", ["a"], ["r"], "r"),
                quant_node("r", "y", "s", "z", "b", signed=0),
            ],
            "sum",
            "Initializer for add weights is not set",
        ),
    ],
)
def test_what_cannot_be_rewritten_is_refused(nodes, node, words, tmp_path) -> None:
    constants = {**CONSTANTS, "nine": 9.0, "axes": np.array([0, 1, 2], dtype=np.int64)}
    constants["edges"] = np.array([0, 1, 0, 1], dtype=np.int64)
    model = model_of(nodes, {"x": (8, 8)}, ["y"], constants)
    path = tmp_path / "finn.onnx"
    with pytest.raises(NotExactError) as caught:
        qh.convert(model, path, profile="finn")
    assert any(node in gap.node and words in gap.reason for gap in caught.value.gaps)
    assert not path.exists()


def test_a_model_without_nodes_is_refused() -> None:
    empty = model_of([], {"x": (1, 4)}, ["x"])
    with pytest.raises(NotExactError, match="holds no node"):
        qh.convert(empty, None, profile="finn", check=False)


@pytest.mark.parametrize("function", ["Relu", "Selu"])
@pytest.mark.parametrize("second", ["quantizer", "other reader", "output"])
def test_each_quantizer_gets_a_function_of_its_own(function, second, tmp_path) -> None:
    nodes = [
        helper.make_node(function, ["x"], ["r"], "r"),
        quant_node("r", "y", "s", "z", "b", signed=int(function == "Selu")),
    ]
    outputs = ["y", "r"]
    if second != "output":
        quant = quant_node("r", "t", "one", "z", "b", signed=int(function == "Selu"))
        plain = helper.make_node("Mul", ["r", "s"], ["t"], "t")
        nodes.append(quant if second == "quantizer" else plain)
        outputs = ["y", "t"]
    model = _written(model_of(nodes, {"x": (1, 8)}, outputs, CONSTANTS), tmp_path)
    made = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type == "Quant":
            before = made[node.input[0]]
            assert (before.op_type, list(before.input)) == (function, ["x"])
            readers = [one for one in model.graph.node if before.output[0] in one.input]
            assert readers == [node]
            assert before.output[0] not in {value.name for value in model.graph.output}


def test_a_gemm_without_bias_is_a_matrix_product(tmp_path) -> None:
    weight = (np.arange(12, dtype=np.float32).reshape(3, 4) - 6) / 4
    nodes = [
        quant_node("x", "q", "s", "z", "b"),
        quant_node("w", "wq", "s", "z", "b"),
        helper.make_node("Gemm", ["q", "wq"], ["y"], "gemm", transB=1),
    ]
    model = _written(
        model_of(nodes, {"x": (1, 4)}, ["y"], {**CONSTANTS, "w": weight}), tmp_path
    )
    assert sorted(_ops(model)) == ["MatMul", "Quant", "Quant"]


def test_a_value_added_to_itself_is_doubled(tmp_path) -> None:
    nodes = [
        quant_node("x", "q", "s", "z", "b"),
        helper.make_node("Add", ["q", "q"], ["y"], "twice"),
    ]
    model = _written(model_of(nodes, {"x": (1, 4)}, ["y"], CONSTANTS), tmp_path)
    assert _ops(model) == ["Quant", "Mul"]


def _pool_trunc(in_bits: float, out_bits: float, **changes: float) -> onnx.ModelProto:
    numbers = {"first": 0.25, "scale": 0.0625, "out": 0.25, **changes}
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], "r"),
        quant_node("r", "q", "first", "z", "b", signed=0),
        helper.make_node(
            "AveragePool", ["q"], ["p"], "p", kernel_shape=[2, 2], strides=[2, 2]
        ),
        helper.make_node(
            *("Trunc", ["p", "scale", "z", "ib", "out", "ob"], ["y"], "trunc"),
            domain=DOMAIN,
            rounding_mode="FLOOR",
            signed=0,
            narrow=0,
        ),
    ]
    constants = {**CONSTANTS, **numbers, "ib": in_bits, "ob": out_bits}
    model = model_of(nodes, {"x": (1, 2, 4, 4)}, ["y"], constants)
    next(one for one in model.opset_import if one.domain == DOMAIN).version = 2
    return model


def test_a_trunc_that_drops_low_bits_of_pooled_sums_is_written(tmp_path) -> None:
    # Sums of four codes of four bits have six; two are dropped.
    assert _ops(_written(_pool_trunc(6.0, 4.0), tmp_path))[-1] == "Trunc"


@pytest.mark.parametrize(
    "model",
    [
        _pool_trunc(6.0, 8.0, out=0.015625),  # a shift to the left
        _pool_trunc(6.0, 5.0),  # one bit dropped, and a scale of two
        _pool_trunc(7.0, 5.0),  # sums have six bits
        _pool_trunc(6.0, 4.0, first=0.5),  # codes of another scale
    ],
    ids=["left", "scale", "bits", "codes"],
)
def test_other_truncs_behind_a_pool_are_refused(model, tmp_path) -> None:
    with pytest.raises(NotExactError, match="no Trunc of the sums"):
        qh.convert(model, tmp_path / "finn.onnx", profile="finn")


@pytest.mark.parametrize(
    "change", [{"ceil_mode": 1}, {"dilations": [2, 2]}, {"auto_pad": "SAME_UPPER"}], ids=str
)
def test_pools_with_windows_of_other_sizes_give_no_sums(change, tmp_path) -> None:
    model = _pool_trunc(6.0, 4.0)
    model.opset_import[0].version = 19
    pool = next(node for node in model.graph.node if node.op_type == "AveragePool")
    pool.attribute.extend(helper.make_attribute(*one) for one in change.items())
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = 5
    with pytest.raises(NotExactError, match="no Trunc of the sums"):
        qh.convert(model, tmp_path / "finn.onnx", profile="finn")


def test_a_foreign_relu_is_left_alone() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], "r", domain="mine"),
        quant_node("r", "y", "s", "z", "b"),
        quant_node("r", "t", "one", "z", "b"),
    ]
    model = model_of(nodes, {"x": (1, 8)}, ["y", "t"], CONSTANTS)
    model.opset_import.append(helper.make_opsetid("mine", 1))
    loaded = qh.load(model)
    finn_profile.prepare(loaded)
    assert [n.domain for n in loaded.graph if n.op_type == "Relu"] == ["mine"]


def test_more_bits_are_written_for_a_conversion_that_is_told_of_them(tmp_path) -> None:
    nodes = [quant_node("x", "y", "s", "z", "ten")]
    model = model_of(nodes, {"x": (1, 8)}, ["y"], {**CONSTANTS, "ten": 10.0})
    path = tmp_path / "finn.onnx"
    with pytest.raises(NotExactError, match="max_bits=16"):
        qh.convert(model, path, profile="finn")
    qh.convert(model, path, profile="finn", target_options={"max_bits": 16})
    assert [one["bits"] for one in _quants(onnx.load(path))] == [10.0]


def test_products_that_stay_in_the_graph_are_a_note(tmp_path) -> None:
    nodes = [
        quant_node("x", "q", "s", "z", "b"),
        quant_node("x", "t", "one", "z", "b"),
        helper.make_node("MatMul", ["q", "t"], ["y"], "square"),
    ]
    model = _written(model_of(nodes, {"x": (1, 8, 8)}, ["y"], CONSTANTS), tmp_path)
    found = find(finn.TARGET.rules, qh.load(model))
    words = [one.reason for one in found if one.node == "square"]
    assert "multiplies two activations" in words
    assert "multiplies data of rank 3" in words
    assert not any(one.is_error for one in found)


def test_images_that_are_channels_last_are_fed_channels_first(tmp_path) -> None:
    weight = np.ones((3, 2, 1, 1), dtype=np.float32)
    nodes = [
        quant_node("x", "q", "s", "z", "b"),
        quant_node("w", "wq", "one", "z", "b"),
        helper.make_node("Transpose", ["q"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "wq"], ["y"], "conv", kernel_shape=[1, 1]),
    ]
    model = model_of(nodes, {"x": (1, 4, 5, 2)}, ["y"], {**CONSTANTS, "w": weight})
    path = tmp_path / "finn.onnx"
    report = qh.convert(model, path, profile="finn")
    assert report.check.verdict in ("EQUAL", "PROVEN")
    assert "input 'x' is fed channels first" in report.notes
    written = onnx.load(path)
    assert "Transpose" not in _ops(written)
    x = np.random.default_rng(0).normal(size=(1, 4, 5, 2)).astype(np.float32)
    answer = qh.run(written, {"x": x.transpose(0, 3, 1, 2)})["y"]
    np.testing.assert_array_equal(answer, qh.run(model, {"x": x})["y"])


def test_an_unknown_profile_is_a_usage_error(tmp_path) -> None:
    model = model_of([quant_node("x", "y", "s", "z", "b")], {"x": (1, 8)}, ["y"], CONSTANTS)
    with pytest.raises(UsageError, match="unknown profile 'vitis'; there are: finn"):
        qh.convert(model, tmp_path / "o.onnx", profile="vitis")


NETS: dict[str, Callable[[], onnx.ModelProto]] = {
    "tfc_w1a1": lambda: nets.tfc(1, 1),
    "tfc_w2a2": nets.tfc,
    "cnv_w2a2": nets.cnv,
    "resnet8": nets.resnet8,
    "mobilenet": lambda: nets.mobilenet_v1(width=0.25, resolution=32),
}


@pytest.mark.parametrize("name", sorted(NETS))
def test_nets_become_files_without_a_finding(name, tmp_path) -> None:
    path = tmp_path / "finn.onnx"
    report = qh.convert(NETS[name](), path, profile="finn")
    assert report.check is not None
    assert report.check.outputs[0].differing == 0
    assert [f for f in find(finn.TARGET.rules, qh.load(path)) if f.is_error] == []


# Minifloats; a bipolar quantizer behind Relu; products of rank 3: FINN takes none of them.
REFUSED = {"floatquant_fp8", "bnn_model_fc_1layer", "deepquant_transformer"}


@needs_shared
@pytest.mark.parametrize(
    "path",
    [p for p in shared_models() if p.stem not in REFUSED],
    ids=lambda p: p.stem,
)
def test_public_models_become_files_that_qonnx_executes(path, tmp_path) -> None:
    modelwrapper = pytest.importorskip("qonnx.core.modelwrapper")
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.util.cleanup import cleanup_model

    written = tmp_path / "finn.onnx"
    report = qh.convert(str(path), written, profile="finn", samples=2)
    assert report.check is not None
    assert report.check.outputs[0].differing == 0
    model = qh.load(written)
    assert [f for f in find(finn.TARGET.rules, model) if f.is_error] == []
    value = model.graph.inputs[0]
    rng = np.random.default_rng(0)
    cleaned = cleanup_model(modelwrapper.ModelWrapper(str(written)))
    # An input that is said to hold integers is rounded there.
    said = cleaned.get_tensor_datatype(cleaned.graph.input[0].name)
    low, high, step = (0, 128, 1) if said.is_integer() else (-64, 64, 64)
    sizes = [int(d) for d in value.shape or ()]
    x = (rng.integers(low, high, sizes) / step).astype(np.float32)
    name = cleaned.graph.input[0].name
    (answer,) = execute_onnx(cleaned, {name: x}).values()
    ours = qh.run(model, {str(value.name): x})[str(model.graph.outputs[0].name)]
    # Sums of products with odd scales are rounded in another order there; a sum within the
    # last bits of a tie of the last quantizer lands one step away.
    apart = np.abs(answer - ours) > 1e-5 * max(1, np.abs(ours).max())
    assert apart.mean() <= 2e-5
