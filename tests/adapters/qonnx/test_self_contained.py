"""Self-contained QONNX computes the operators' numbers on runtimes that do not know them.

The answers of onnxruntime and onnx.reference come from the functions in the file; what is
expected comes from the executor, whose numbers are held against the qonnx package elsewhere.
A zero may have the other sign (the functions add a zero point of 0), hence equality of values.
"""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import qonnx_hub as qh
from qonnx_hub_adapters.protocol import export_options
from qonnx_hub_adapters.qonnx.exporter import QonnxExporter
from qonnx_hub_ir.errors import NotExactError, SourceError, UsageError
from qonnx_hub_ir.lowering.functions import function_gaps, is_known
from tests.adapters.qonnx.kit import (
    on_executor,
    on_onnxruntime,
    on_qonnx,
    on_reference,
    quantizers_model,
    self_contained,
    telling_values,
)
from tests.support import DOMAIN, model_of, quant_node

pytest.importorskip("onnxruntime")

SCALES = (0.25, 0.3, 1.0, 1.7)
MODES = ("ROUND", "CEIL", "FLOOR", "UP", "DOWN", "HALF_UP", "HALF_DOWN")
RUNTIMES = {"onnxruntime": on_onnxruntime, "onnx.reference": on_reference}


def flags(signed: int, narrow: int, mode: str = "ROUND") -> dict[str, object]:
    return {"signed": signed, "narrow": narrow, "rounding_mode": mode}


def assert_same_everywhere(proto: onnx.ModelProto, x: np.ndarray) -> None:
    """Both runtimes answer what the executor answers, for every output and value."""
    file = self_contained(proto)
    expected = on_executor(proto, {"x": x})
    assert expected
    assert all(y.size == x.size for y in expected)
    for run in RUNTIMES.values():
        answers = run(file, {"x": x})
        for node, own, theirs in zip(proto.graph.node, expected, answers, strict=True):
            assert theirs.dtype == own.dtype
            np.testing.assert_array_equal(theirs, own, err_msg=str(node))


@pytest.mark.parametrize("scale", SCALES)
def test_every_width_and_range_is_the_same(scale: float) -> None:
    settings = [
        (flags(signed, narrow), [scale, 0, bits])
        for signed, narrow, bits in itertools.product(
            (0, 1), (0, 1), (*range(1, 18), 24, 25, 31, 32, 48)
        )
    ]
    x = telling_values([scale])
    assert_same_everywhere(quantizers_model("Quant", settings, x.shape), x)


@pytest.mark.parametrize("mode", MODES)
def test_every_rounding_mode_is_the_same(mode: str) -> None:
    settings = [
        (flags(signed, 0, mode), [scale, zero, 5])
        for signed, scale, zero in itertools.product((0, 1), SCALES, (0, 3))
    ]
    x = telling_values(SCALES, (0, 3))
    assert_same_everywhere(quantizers_model("Quant", settings, x.shape), x)


def test_one_file_may_mix_rounding_modes_and_two_levels() -> None:
    settings = [
        (flags(1, narrow, mode), [0.3, 0, bits])
        for mode, narrow, bits in itertools.product(MODES, (0, 1), (1, 4))
    ]
    x = telling_values([0.3])
    file = self_contained(quantizers_model("Quant", settings, x.shape))
    assert len(file.functions) == 1
    assert_same_everywhere(quantizers_model("Quant", settings, x.shape), x)


def test_zero_points_whole_and_fractional_are_the_same() -> None:
    zeros = (1, -5, 7, 128, 0.5, 2.25)
    settings = [
        (flags(signed, 0), [scale, zero, bits])
        for signed, scale, zero, bits in itertools.product((0, 1), SCALES, zeros, (1, 4, 8))
    ]
    x = telling_values(SCALES, zeros)
    assert_same_everywhere(quantizers_model("Quant", settings, x.shape), x)


def test_parameters_per_channel_and_of_other_types_are_the_same() -> None:
    scales = np.array([0.25, 0.3, 1.0, 1.7], dtype=np.float32)
    settings = [
        (flags(1, 0), [scales, 0, 4]),
        (flags(1, 1), [scales, np.array([0, 1, 2, -3], dtype=np.float32), 4]),
        (flags(0, 0), [scales, 0, np.array([2, 3, 4, 8], dtype=np.float32)]),
        (flags(1, 0), [scales.astype(np.float64), np.int64(1), np.int64(3)]),
        (flags(1, 0), [scales.reshape(1, 4), np.zeros((1, 1), dtype=np.int8), 6]),
    ]
    settings = [(a, [np.asarray(v) if np.ndim(v) else v for v in p]) for a, p in settings]
    settings[3] = (flags(1, 0), [scales.astype(np.float64), np.array(1), np.array(3)])
    x = telling_values(SCALES).reshape(-1, 4)
    assert_same_everywhere(quantizers_model("Quant", settings, x.shape), x)


def test_a_single_parameter_with_more_axes_than_the_input_adds_none() -> None:
    settings = [(flags(1, 0), [np.full((1, 1, 1, 1), 0.3, dtype=np.float32), 0, 4])]
    x = telling_values([0.3])
    assert_same_everywhere(quantizers_model("Quant", settings, x.shape), x)


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_other_float_types_are_the_same(dtype: int) -> None:
    modes = [
        (flags(signed, 0, m), [0.3, z, 4])
        for signed, m, z in itertools.product((0, 1), MODES, (0, 2))
    ]
    x = telling_values([0.3], (0, 2))
    x = x[~np.isfinite(x) | (np.abs(x) < 60000)]
    x = x.astype(helper.tensor_dtype_to_np_dtype(dtype))
    with np.errstate(all="ignore"):
        assert_same_everywhere(quantizers_model("Quant", modes, x.shape, dtype), x)


def test_bipolar_quantizers_are_the_same() -> None:
    settings = [({}, [scale]) for scale in SCALES]
    settings.append(({}, [np.array([0.25, 0.3, 1.0, 1.7], dtype=np.float32)]))
    x = telling_values(SCALES).reshape(-1, 4)
    assert_same_everywhere(quantizers_model("BipolarQuant", settings, x.shape), x)


def test_truncations_of_version_1_are_the_same() -> None:
    settings = [
        ({"rounding_mode": mode}, [scale, zero, bits_in, bits_out])
        for mode, scale, zero, (bits_in, bits_out) in itertools.product(
            MODES, (0.25, 0.3), (0, 3), ((8, 4), (16, 8), (6, 6), (10, 1))
        )
    ]
    x = telling_values((0.25, 0.3), (0, 3))
    assert_same_everywhere(quantizers_model("Trunc", settings, x.shape, version=1), x)


def test_truncations_of_version_2_are_the_same() -> None:
    settings = [
        (flags(signed, narrow, mode), [scale, zero, 8, scale * growth, bits])
        for mode, signed, narrow, scale, zero, growth, bits in itertools.product(
            ("FLOOR", "ROUND", "HALF_UP"), (0, 1), (0, 1), (0.25, 0.3), (0, 4), (4, 5), (1, 4)
        )
    ]
    x = telling_values((0.25, 0.3), (0, 4))
    assert_same_everywhere(quantizers_model("Trunc", settings, x.shape), x)


FORMATS = {
    "e4m3": [4, 3, 7, 448],
    "e5m2": [5, 2, 15, 57344],
    "e3m2": [3, 2, 3, 28],
    "e2m1": [2, 1, 1, 6],
    "e8m0": [8, 0, 127, 3e38],
    "e8m7": [8, 7, 127, 3.3e38],
    "wider than its limit": [4, 3, 7, 100],
}


def float_flags(**given: object) -> dict[str, object]:
    flags = {"has_inf": 0, "has_nan": 0, "has_subnormal": 1, "saturation": 1}
    return {**flags, "rounding_mode": "ROUND", **given}


def float_values() -> np.ndarray:
    """Every tie of e4m3 and finer, powers of two with their neighbours, and the extremes."""
    grid = np.arange(16, 33, dtype=np.float64) / 32
    magnitudes = np.concatenate([grid * 2.0**k for k in range(-20, 20)])
    magnitudes = np.append(magnitudes, [2.0**k for k in range(-149, 128)])
    values = np.concatenate([magnitudes, -magnitudes]).astype(np.float32)
    with np.errstate(all="ignore"):
        beside = [np.nextafter(values, np.float32(end)) for end in (np.inf, -np.inf)]
    extremes = np.array([0, -0.0, np.inf, -np.inf, np.nan], dtype=np.float32)
    return np.concatenate([values, *beside, extremes]).astype(np.float32)


@pytest.mark.parametrize("mode", ["ROUND", "FLOOR", "HALF_UP"])
def test_minifloats_are_the_same(mode: str) -> None:
    settings = [
        (float_flags(rounding_mode=mode), [scale, *numbers])
        for scale, numbers in itertools.product((1.0, 0.3), FORMATS.values())
    ]
    x = float_values()
    assert_same_everywhere(quantizers_model("FloatQuant", settings, x.shape), x)


def test_minifloats_that_overflow_are_the_same() -> None:
    ways = (
        {"saturation": 0, "has_inf": 1},
        {"saturation": 0, "has_nan": 1},
        {"saturation": 0, "has_inf": 1, "has_nan": 1},
        {"saturation": 1, "has_inf": 1},
    )
    settings = [
        (float_flags(**way), [1.0, *numbers])
        for way, numbers in itertools.product(ways, FORMATS.values())
    ]
    x = float_values()
    assert_same_everywhere(quantizers_model("FloatQuant", settings, x.shape), x)


def test_parameters_computed_at_run_time_are_the_same() -> None:
    names = ("s", "z", "b")
    nodes = [
        helper.make_node(
            "Quant", ["x", *names], [f"y{signed}"], domain=DOMAIN, **flags(signed, 0)
        )
        for signed in (0, 1)
    ]
    x = telling_values([0.3], (0, 3))
    inputs = {"x": x.shape, "s": (1,), "z": (), "b": ()}
    proto = model_of(nodes, inputs, ["y0", "y1"])
    file = self_contained(proto)
    for bits, zero in itertools.product((1, 2, 4, 8), (0, 3)):
        feeds = {
            "x": x,
            "s": np.array([0.3], dtype=np.float32),
            "z": np.array(zero, dtype=np.float32),
            "b": np.array(bits, dtype=np.float32),
        }
        expected = on_executor(proto, feeds)
        for run in RUNTIMES.values():
            for own, theirs in zip(expected, run(file, feeds), strict=True):
                np.testing.assert_array_equal(theirs, own)


def layered(rank: int, bias: tuple[bool, ...], **attributes: object) -> onnx.ModelProto:
    """Return channels-last Convs, one after another, with a pool and a normalization."""
    rng = np.random.default_rng(0)
    spatial = rank - 2
    tensors, nodes, x = {}, [], "x"
    for index, with_bias in enumerate(bias):
        shape = (4, *(3,) * spatial, 4)
        tensors[f"w{index}"] = rng.integers(-3, 4, shape).astype(np.float32)
        tensors[f"b{index}"] = rng.integers(-9, 9, 4).astype(np.float32)
        inputs = [x, f"w{index}", *([f"b{index}"] if with_bias else [])]
        given = {"kernel_shape": [3] * spatial} if index == 0 else attributes
        nodes.append(helper.make_node("Conv", inputs, [f"c{index}"], **given))
        x = f"c{index}"
    nodes.append(helper.make_node("MaxPool", [x], ["m"], kernel_shape=[2] * spatial))
    nodes.append(helper.make_node("AveragePool", ["m"], ["a"], kernel_shape=[2] * spatial))
    for name in ("g", "h", "i", "j"):
        tensors[name] = np.array([1, 2, 4, 8], dtype=np.float32)
    nodes.append(helper.make_node("BatchNormalization", ["a", "g", "h", "i", "j"], ["y"]))
    for node in nodes:
        node.domain = "qonnx.custom_op.channels_last"
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, [2, *[12] * spatial, 4])],
        [helper.make_tensor_value_info("y", 1, [None] * rank)],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    imports = [helper.make_opsetid("", 19)]
    imports.append(helper.make_opsetid("qonnx.custom_op.channels_last", 1))
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


@pytest.mark.parametrize("rank", [3, 4])
@pytest.mark.parametrize("bias", [(True, True), (False, False), (True, False)])
def test_channels_last_operators_are_the_same(rank: int, bias: tuple[bool, ...]) -> None:
    proto = layered(rank, bias, strides=[2] * (rank - 2), pads=[1] * 2 * (rank - 2))
    file = self_contained(proto)
    x = np.random.default_rng(1).integers(-8, 8, (2, *(12,) * (rank - 2), 4))
    feeds = {"x": x.astype(np.float32)}
    (expected,) = on_executor(proto, feeds)
    assert np.unique(expected).size > 10
    for run in RUNTIMES.values():
        (answer,) = run(file, feeds)
        # Sums of small integers are exact; a normalization rounds by its own formula.
        np.testing.assert_allclose(answer, expected, rtol=1e-6, atol=1e-5)


def test_channels_last_operators_of_different_ranks_are_refused() -> None:
    proto = layered(4, (True,))
    flat = layered(3, (True,))
    for value in (*flat.graph.input, *flat.graph.output, *flat.graph.initializer):
        value.name = f"flat_{value.name}"
    for node in flat.graph.node:
        node.input[:] = [f"flat_{name}" for name in node.input]
        node.output[:] = [f"flat_{name}" for name in node.output]
    proto.graph.node.extend(flat.graph.node)
    proto.graph.initializer.extend(flat.graph.initializer)
    proto.graph.input.extend(flat.graph.input)
    proto.graph.output.extend(flat.graph.output)
    with pytest.raises(NotExactError, match="another rank than"):
        self_contained(proto)


def test_a_truncation_halfway_between_powers_of_two_is_refused() -> None:
    settings = [(flags(1, 0, "FLOOR"), [1.0, 0, 8, 2**0.5, 4])]
    with pytest.raises(NotExactError, match="halfway between powers of two"):
        self_contained(quantizers_model("Trunc", settings, (4,)))


def test_half_and_double_precision_in_one_file_are_refused() -> None:
    proto = quantizers_model("Quant", [(flags(1, 0), [0.5, 0, 4])], (4,), TensorProto.DOUBLE)
    proto.graph.node.append(quant_node("h", "yh", "p0_0", "p0_1", "p0_2"))
    proto.graph.input.append(helper.make_tensor_value_info("h", TensorProto.FLOAT16, (4,)))
    proto.graph.output.append(helper.make_tensor_value_info("yh", TensorProto.FLOAT16, (4,)))
    with pytest.raises(NotExactError, match="16-bit and 64-bit floats in one file"):
        self_contained(proto)


def test_an_operator_that_only_one_runtime_knows_goes_through_and_is_noted() -> None:
    nodes = [
        quant_node("x", "q"),
        helper.make_node("Gelu", ["q"], ["y"], name="gelu", domain="com.microsoft"),
    ]
    constants = {"s": 0.5, "z": 0.0, "b": 4.0}
    proto = model_of(nodes, {"x": (4,)}, ["y"], constants, domains=(DOMAIN, "com.microsoft"))
    model = onnx_ir.from_proto(proto)
    assert function_gaps(model) == []
    notes = QonnxExporter().export(model, export_options(self_contained=True)).notes
    assert any("Gelu 'gelu'" in note for note in notes)


def small_net() -> onnx.ModelProto:
    weights = {"w": np.arange(-8, 8, dtype=np.float32).reshape(4, 4), "s": 0.25}
    nodes = [
        quant_node("x", "xq"),
        quant_node("w", "wq", narrow=1),
        helper.make_node("MatMul", ["xq", "wq"], ["m"]),
        helper.make_node("BipolarQuant", ["m", "s"], ["y"], domain=DOMAIN),
    ]
    return model_of(nodes, {"x": (3, 4)}, ["y"], {**weights, "z": 0.0, "b": 4.0})


def test_the_file_reads_as_ordinary_qonnx() -> None:
    file = self_contained(small_net())
    assert {f.name for f in file.functions} == {"Quant", "BipolarQuant"}
    model = qh.load(file)
    assert not model.functions
    plain = qh.convert(small_net(), None, "qonnx", check=False).model
    assert plain is not None
    kinds = [(n.domain, n.op_type, n.name) for n in model.graph]
    assert kinds == [(n.domain, n.op_type, n.name) for n in plain.graph]


def test_the_format_of_a_self_contained_file_is_found_by_itself() -> None:
    from qonnx_hub.io.registry import find_importer

    assert find_importer(self_contained(small_net())).info.name == "qonnx"


def test_writing_without_the_option_adds_no_functions() -> None:
    model = qh.convert(small_net(), None, "qonnx", check=False).model
    assert model is not None
    assert not model.functions


def test_the_conversion_check_runs_the_file_on_onnxruntime() -> None:
    report = qh.convert(small_net(), None, "qonnx", self_contained=True)
    assert report.check
    assert report.ort is not None
    assert report.ort


def test_a_function_with_renamed_values_is_still_known() -> None:
    file = self_contained(small_net())
    for function in file.functions:
        inner = {name: f"renamed_{name}" for node in function.node for name in node.output}
        inner.update({name: f"renamed_{name}" for name in function.input})
        function.input[:] = [inner[name] for name in function.input]
        function.output[:] = [inner[name] for name in function.output]
        for node in function.node:
            node.input[:] = [inner[name] for name in node.input]
            node.output[:] = [inner[name] for name in node.output]
    assert not qh.load(file).functions


def test_a_function_that_says_something_else_is_refused() -> None:
    file = self_contained(small_net())
    (function,) = [f for f in file.functions if f.name == "Quant"]
    (rounding,) = [node for node in function.node if node.op_type == "Round"]
    rounding.op_type = "Floor"
    # Another known variant, FLOOR: but its nodes say ROUND.
    with pytest.raises(SourceError, match=r"defines qonnx\.custom_op\.general::Quant"):
        qh.load(file)


def test_a_function_with_another_constant_is_refused() -> None:
    file = self_contained(small_net())
    (function,) = [f for f in file.functions if f.name == "Quant"]
    (two,) = [n for n in function.node if n.op_type == "Constant" and n.output[0] == "two_f"]
    two.attribute[0].f = 3.0
    with pytest.raises(SourceError, match="Remove the function if the operator is meant"):
        qh.load(file)


def test_a_function_is_looked_at_anew_each_time() -> None:
    model = onnx_ir.from_proto(self_contained(small_net()))
    (function,) = [f for f in model.functions.values() if f.name == "Quant"]
    (rounding,) = [node for node in function if node.op_type == "Round"]
    nodes = [node for node in model.graph if node.op_type == "Quant"]
    assert is_known(function, nodes)
    rounding.op_type = "Sin"
    assert not is_known(function, nodes)


def test_other_forms_have_no_such_option() -> None:
    with pytest.raises(UsageError, match="no option self_contained"):
        qh.convert(small_net(), None, "qcdq", self_contained=True, check=False)


def test_the_qonnx_package_executes_the_file_after_its_cleanup() -> None:
    pytest.importorskip("qonnx")
    x = telling_values([0.25])[:12].reshape(3, 4)
    x = np.where(np.isfinite(x), x, 1.0).astype(np.float32)
    (answer,) = on_qonnx(self_contained(small_net()), {"x": x})
    (expected,) = on_executor(small_net(), {"x": x})
    np.testing.assert_array_equal(answer, expected)
