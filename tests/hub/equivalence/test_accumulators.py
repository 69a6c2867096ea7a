"""Accumulator ranges, against every input that small layers can have."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.helper import make_node

import qonnx_hub as qh
from benchmarks import nets
from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_adapters.protocol import export_options
from qonnx_hub_adapters.qcdq.exporter import QcdqExporter
from qonnx_hub_ir.analysis import accumulators
from tests.support import DOMAIN, SHARED, model_of, needs_shared, quant_node

FLOAT = np.float32

SMALL = {
    "mobilenet_v1": lambda: nets.mobilenet_v1(0.25, 32),
    "cnv": nets.cnv,
    "tfc": nets.tfc,
}


def layer(
    op_type="MatMul",
    weights=((1.0, -2.0), (3.0, 0.0)),
    shape=(1, 2),
    *,
    bits=2.0,
    signed=1,
    zero=0.0,
    scale=1.0,
    weight_scale=1.0,
    weight_bits=4.0,
    before=(),
    **attributes,
):
    """Return a model of one layer between an input's quantizer and an output."""
    nodes = [quant_node("x", "q", "sx", "zx", "bx", signed=signed)]
    value = "q"
    for index, step in enumerate(before):
        nodes.append(make_node(step[0], [value, *step[1:]], [f"v{index}"]))
        value = f"v{index}"
    nodes += [
        quant_node("w", "wq", "sw", "zw", "bw"),
        make_node(op_type, [value, "wq"], ["y"], name="layer", **attributes),
    ]
    constants = {
        "sx": scale,
        "zx": zero,
        "bx": bits,
        "w": np.asarray(weights, dtype=FLOAT) * np.asarray(weight_scale, dtype=FLOAT),
        "sw": np.asarray(weight_scale, dtype=FLOAT),
        "zw": 0.0,
        "bw": weight_bits,
        "flat": np.array([1, -1], dtype=np.int64),
    }
    used = {name for node in nodes for name in node.input}
    held = {name: value for name, value in constants.items() if name in used}
    return read_model(model_of(nodes, {"x": shape}, ["y"], held))


def single(model):
    (found,) = accumulators(model)
    return found.summary()


def signed_bits(*numbers):
    """Return the fewest bits of two's complement, by trying."""
    return next(b for b in range(1, 99) if all(-(2**b) <= 2 * n <= 2**b - 2 for n in numbers))


def test_a_product_ranges_over_the_ends_of_its_input():
    # Inputs -2 to 1, columns (1, 3) and (-2, 0): -2*1-2*3 = -8, 1*-2 = -2 to 4.
    found = single(layer())
    assert (found.node, found.low, found.high) == ("MatMul 'layer'", -8, 4)
    assert (found.bits, found.input_type, found.weight_type) == (4, "INT2", "INT4")
    assert found.magnitude == 8


@pytest.mark.parametrize(
    ("weight", "bits"), [(0.0, 1), (1.0, 2), (3.0, 3), (4.0, 4), (-4.0, 4), (7.0, 4)]
)
def test_bits_are_those_of_twos_complement(weight, bits):
    # An input of -1 or +1 gives plus and minus the weight; +4 is one too many for 3 bits.
    assert single(layer(weights=[[weight]], shape=(1, 1), bits=1.0)).bits == bits


small_weights = st.integers(1, 4).flatmap(
    lambda rows: st.lists(
        st.lists(st.integers(-7, 7), min_size=2, max_size=2), min_size=rows, max_size=rows
    )
)


@settings(max_examples=30)
@given(
    weights=small_weights,
    signed=st.integers(0, 1),
    zero=st.sampled_from([0, 0, 1, 2]),
    narrow_bits=st.integers(1, 2),
)
def test_the_range_is_that_of_all_inputs_and_the_bits_those_of_all_partial_sums(
    weights, signed, zero, narrow_bits
):
    matrix = np.asarray(weights, dtype=np.int64)
    rows = len(matrix)
    model = layer(
        weights=matrix, shape=(1, rows), bits=narrow_bits, signed=signed, zero=float(zero)
    )
    if narrow_bits == 1 and signed:
        codes = np.array([-1, 1])
    else:
        codes = np.arange(2**narrow_bits) - signed * 2 ** (narrow_bits - 1)
    held, finished = [0], []
    for inputs in itertools.product(codes - zero, repeat=rows):
        terms = np.asarray(inputs, dtype=np.int64)[:, np.newaxis] * matrix
        for order in itertools.permutations(range(rows)):
            held.extend(np.cumsum(terms[list(order)], axis=0).reshape(-1).tolist())
        finished.extend(terms.sum(axis=0).tolist())
    found = single(model)
    assert (found.low, found.high) == (min(finished), max(finished))
    assert found.bits == signed_bits(min(finished), max(finished))
    assert found.partial_bits == signed_bits(min(held), max(held))


@pytest.mark.parametrize(
    ("group", "shape", "weight_shape"),
    [
        (1, (1, 2, 4, 4), (3, 2, 2, 2)),
        (2, (1, 4, 4, 4), (6, 2, 2, 2)),
        (4, (1, 4, 4, 4), (4, 1, 2, 2)),
    ],
    ids=["dense", "grouped", "depthwise"],
)
def test_a_convolution_reaches_its_range_and_never_leaves_it(group, shape, weight_shape):
    rng = np.random.default_rng(0)
    weights = rng.integers(-7, 8, weight_shape)
    model = layer("Conv", weights, shape, bits=3.0, group=group, pads=[1, 1, 1, 1])
    found = single(model)
    session = Session(model)
    reached = [
        session.run({"x": rng.choice(np.array([-4, 3], dtype=FLOAT), shape)})["y"]
        for _ in range(50)
    ]
    extremes = []
    per_output = weights.reshape(weight_shape[0], -1)
    for kernel in per_output:
        extremes += [
            np.where(kernel > 0, -4, 3) @ kernel,
            np.where(kernel > 0, 3, -4) @ kernel,
        ]
    assert min(np.min(y) for y in reached) >= found.low
    assert max(np.max(y) for y in reached) <= found.high
    assert (found.low, found.high) == (min(extremes), max(extremes))


@pytest.mark.parametrize(
    ("op_type", "attributes"),
    [("Gemm", {"transB": 1}), ("Gemm", {"transB": 0}), ("MatMul", {})],
)
def test_every_layout_of_a_dense_layer_adds_over_its_inputs(op_type, attributes):
    weights = np.array([[1, -2, 3], [4, 5, -6]])
    turned = attributes.get("transB", 0)
    model = layer(op_type, weights.T if turned else weights, (1, 2), **attributes)
    # Inputs -2 to 1: columns (1, 4), (-2, 5), (3, -6).
    found = single(model)
    assert (found.low, found.high) == (-12, 15)


def test_weights_on_the_left_are_added_over_their_columns():
    nodes = [
        quant_node("x", "q", "one", "nil", "two"),
        quant_node("w", "wq", "one", "nil", "four"),
        make_node("MatMul", ["wq", "q"], ["y"]),
    ]
    constants = {"one": 1.0, "nil": 0.0, "two": 2.0, "four": 4.0}
    constants["w"] = np.array([[1, 3], [-2, 0]], dtype=FLOAT)
    found = single(read_model(model_of(nodes, {"x": (2, 1)}, ["y"], constants)))
    assert (found.low, found.high) == (-8, 4)


def test_relu_and_pooling_between_are_seen_through():
    model = layer(before=[("Relu",), ("Reshape", "flat")])
    assert (single(model).low, single(model).high) == (-2, 4)


def test_a_bipolar_input_is_plus_or_minus_one():
    nodes = [
        make_node("BipolarQuant", ["x", "half"], ["q"], domain=DOMAIN),
        make_node("BipolarQuant", ["w", "half"], ["wq"], domain=DOMAIN),
        make_node("MatMul", ["q", "wq"], ["y"]),
    ]
    constants = {"half": 0.5, "w": np.array([[1.0], [-1.0], [1.0]], dtype=FLOAT)}
    found = single(read_model(model_of(nodes, {"x": (1, 3)}, ["y"], constants)))
    assert (found.low, found.high, found.bits) == (-3, 3, 3)
    assert (found.input_type, found.weight_type) == ("BIPOLAR", "BIPOLAR")


def test_float32_is_exact_up_to_two_to_the_24():
    weights = np.full((256, 1), 2**8)
    fits = layer(weights=weights, shape=(1, 256), bits=9.0, weight_bits=12.0)
    # 256 products of 256 * 256.
    assert single(fits).magnitude == 2**24
    assert single(fits).float32_exact
    beyond = layer(weights=np.full((257, 1), 2**8), shape=(1, 257), bits=9.0, weight_bits=12.0)
    assert not single(beyond).float32_exact


def test_float32_loses_a_unit_where_it_is_not_called_exact():
    weights = np.array([[2**14 + 1], [1]])
    model = layer(weights=weights, shape=(1, 2), bits=14.0, weight_bits=16.0)
    assert not single(model).float32_exact
    x = np.array([[2**13 - 1, 2**13 - 1]], dtype=np.int64)
    y = Session(model).run({"x": x.astype(FLOAT)})["y"]
    assert int(y[0, 0]) != int((x @ weights)[0, 0])


@pytest.mark.parametrize(("scale", "exact"), [(0.25, True), (0.3, False)])
def test_scales_that_are_no_powers_of_two_are_not_exact(scale, exact):
    found = single(layer(scale=scale))
    assert found.float32_exact == exact
    assert found.magnitude == 8


@settings(max_examples=20)
@given(
    seed=st.integers(0, 10**6), exponent=st.integers(-6, 2), weight_exponent=st.integers(-6, 2)
)
def test_what_is_called_exact_is_exact_when_run(seed, exponent, weight_exponent):
    rng = np.random.default_rng(seed)
    weights = rng.integers(-127, 128, (64, 3))
    scale, weight_scale = 2.0**exponent, 2.0**weight_exponent
    model = layer(
        weights=weights,
        shape=(1, 64),
        bits=8.0,
        scale=scale,
        weight_scale=weight_scale,
        weight_bits=8.0,
    )
    assert single(model).float32_exact
    x = rng.integers(-128, 128, (1, 64))
    y = Session(model).run({"x": (x * scale).astype(FLOAT)})["y"]
    assert np.array_equal(y.astype(np.float64) / (scale * weight_scale), (x @ weights))


def test_a_scale_per_output_is_one_accumulator():
    model = layer(weight_scale=np.array([[0.5, 0.25]], dtype=FLOAT))
    assert (single(model).low, single(model).high) == (-8, 4)


@pytest.mark.parametrize(
    "model",
    [
        layer(weight_scale=np.array([[0.5], [0.3]], dtype=FLOAT)),
        layer(scale=np.array([[0.5, 0.3]], dtype=FLOAT)),
        layer(before=[("Sigmoid",)]),
    ],
    ids=["scale per input of weights", "scale per input", "sigmoid"],
)
def test_what_is_on_no_integer_grid_is_left_out(model):
    assert accumulators(model) == []


@pytest.mark.parametrize(
    "model",
    [
        layer(weight_scale=np.array([[0.5], [0.25]], dtype=FLOAT)),
        layer(scale=np.array([[0.5, 0.25]], dtype=FLOAT)),
    ],
    ids=["of weights", "of the input"],
)
def test_scales_per_input_with_a_common_one_are_summed_in_that(model):
    # The first of both inputs counts double: columns (2, 3) and (-4, 0) times -2 to 1.
    found = single(model)
    assert (found.scale, found.low, found.high) == ("0.25", -10, 8)


def test_integers_beyond_62_bits_are_left_out_and_do_not_wrap():
    weights = np.full((4, 1), 2.0**28)
    fits = layer(weights=weights, shape=(1, 4), bits=31.0, weight_bits=30.0)
    assert (single(fits).low, single(fits).bits) == (-(2**60), 61)
    beyond = layer(weights=4 * weights, shape=(1, 4), bits=33.0, weight_bits=32.0)
    assert accumulators(beyond) == []


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_the_same_layer_in_qcdq_has_the_same_accumulator(weights):
    model = layer(
        "Conv",
        np.arange(-8, 8).reshape(4, 1, 2, 2),
        (1, 4, 4, 4),
        bits=3.0,
        group=4,
        weight_scale=np.array([0.5, 1, 2, 4], dtype=FLOAT).reshape(4, 1, 1, 1),
    )
    encoded = QcdqExporter().export(model, export_options(stored_weights=weights)).model
    one, other = single(model), single(encoded)
    assert (one.low, one.high, one.bits) == (other.low, other.high, other.bits)
    assert one.float32_exact == other.float32_exact


@needs_shared
def test_the_first_layer_of_a_known_network():
    # 784 ternary inputs; the sum of magnitudes per output is counted from the file's weights.
    path = SHARED / "models" / "zoo" / "TFC_2W2A.onnx"
    model = read_model(path)
    weights = model.graph.initializers["41"].const_value.numpy()
    ternary = np.clip(np.rint(weights), -1, 1)
    largest = int(np.abs(ternary).sum(axis=1).max())
    first = accumulators(model)[0].summary()
    assert (first.low, first.high) == (-largest, largest)
    assert first.float32_exact


@pytest.mark.parametrize("name", ["mobilenet_v1", "cnv", "tfc"])
def test_an_inspection_and_a_proof_report_the_same(name):
    model = qh.load(nets.fix_batch(SMALL[name](), 1))
    proof = qh.check(model, model, level="proof", samples=1).to_dict()
    inspected = qh.inspect(model, ranges=True).to_dict()
    assert len(proof["accumulators"]) == {"mobilenet_v1": 28, "cnv": 9, "tfc": 4}[name]
    assert proof["accumulators"] == inspected["accumulators"]


def test_the_range_of_each_channel_of_the_input_counts():
    # Depthwise sums reach the next layer through a Relu: no channel reaches the largest code.
    model = qh.load(nets.fix_batch(SMALL["mobilenet_v1"](), 1))
    found = {one.node: one.summary() for one in accumulators(model)}["Conv 'pw4'"]
    assert (found.low, found.bits, found.partial_bits) == (-847, 11, 11)
