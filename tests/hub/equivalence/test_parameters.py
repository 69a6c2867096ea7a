"""Parameters against their counterparts: by value where a form stores them anew."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import qonnx_hub as qh
from qonnx_hub.equivalence.parameters import compare_parameters
from qonnx_hub.equivalence.verdicts import Verdict
from tests.support import model_of, quant_node

FLOAT = np.float32
RNG = np.random.default_rng(11)
WEIGHTS = RNG.integers(-7, 8, size=(6, 40)).astype(FLOAT) * FLOAT(0.0371)


def node(op, reads, makes="y", **attributes):
    return helper.make_node(op, reads.split(), [makes], name=makes, **attributes)


def layer(*behind, bits="b", **constants):
    """Return a quantized convolution with what follows it, which begins at 'c'."""
    known = {"s": 0.0173, "z": 0.0, "b": 8.0, "b4": 4.0, "ws": 0.0371, "w": WEIGHTS}
    known["w"] = WEIGHTS.reshape(6, 40, 1, 1)
    nodes = [
        quant_node("x", "q", bits=bits, signed=0),
        quant_node("w", "wq", "ws", "z", "b4", narrow=1),
        node("Conv", "q wq", "c"),
        *behind,
    ]
    return model_of(nodes, {"x": (1, 40, 8, 8)}, ["y"], known | constants)


def nudged(message, name, places=slice(None)):
    """Return a copy in which floats of a constant are one larger in the last place."""
    copy = onnx.ModelProto.FromString(message.SerializeToString())
    (tensor,) = [t for t in copy.graph.initializer if t.name == name]
    array = numpy_helper.to_array(tensor).copy()
    flat = array.reshape(-1)
    flat[places] = np.nextafter(flat[places], FLOAT(np.inf))
    tensor.CopyFrom(numpy_helper.from_array(array, name))
    return copy


def changed(message, name, factor):
    """Return a copy in which a constant is multiplied."""
    copy = onnx.ModelProto.FromString(message.SerializeToString())
    (tensor,) = [t for t in copy.graph.initializer if t.name == name]
    array = (numpy_helper.to_array(tensor).astype(np.float64) * factor).astype(FLOAT)
    tensor.CopyFrom(numpy_helper.from_array(array, name))
    return copy


def norm(seed=3):
    rng = np.random.default_rng(seed)
    return {
        "g": rng.uniform(0.5, 2, 6).astype(FLOAT),
        "sh": rng.normal(size=6).astype(FLOAT),
        "m": rng.normal(size=6).astype(FLOAT),
        "v": rng.uniform(0.5, 2, 6).astype(FLOAT),
    }


def with_norm(**constants):
    behind = [
        node("BatchNormalization", "c g sh m v", "n"),
        node("Relu", "n", "r"),
        quant_node("r", "y", "os", bits="b4", signed=0),
    ]
    return layer(*behind, bits="b4", os=0.131, **norm(), **constants)


def as_qlinear(source, tmp_path):
    path = tmp_path / "made.onnx"
    qh.convert(source, path, to="qlinear")
    return onnx.load(path)


def floats_of(message):
    return [t.name for t in message.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]


def test_an_integer_layer_with_a_float_factor_is_right_by_value(tmp_path):
    source = layer(node("Relu", "c"))
    made = as_qlinear(source, tmp_path)
    assert "ConvInteger" in {n.op_type for n in made.graph.node}
    result = qh.check(source, made)
    assert result.verdict in {Verdict.WITHIN, Verdict.PROVEN_WITHIN, Verdict.PROVEN}, (
        result.table()
    )
    names = floats_of(made)
    assert names
    for name in names:
        assert qh.check(source, nudged(made, name)).verdict is Verdict.DIFFERENT, name


def test_an_integer_layer_that_gives_every_code_is_right_by_value(tmp_path):
    source = with_norm()
    made = as_qlinear(source, tmp_path)
    assert "QLinearConv" in {n.op_type for n in made.graph.node}
    right = compare_parameters(qh.load(source), qh.load(made))
    assert (right.changed, right.unmatched) == ((), ())
    assert right.folded
    assert qh.check(source, made)
    # Of a quantizer in another form too: what it reads is no sum of this layer.
    (first,) = [n.input[1] for n in made.graph.node if n.op_type == "QuantizeLinear"]
    moved = qh.check(source, nudged(made, first))
    assert moved.verdict is Verdict.DIFFERENT, moved.reason
    # 1 % of a scale moves codes of some whole sum.
    (scale,) = [n.input[4] for n in made.graph.node if n.op_type == "QLinearConv"]
    wrong = compare_parameters(qh.load(source), qh.load(changed(made, scale, 1.01)))
    assert wrong.changed


def folded(gain):
    """Return a matrix product with a factor behind it, and with the factor in its weights."""
    rng = np.random.default_rng(5)
    w, b = rng.normal(size=(16, 6)).astype(FLOAT), rng.normal(size=6).astype(FLOAT)
    behind = [node("MatMul", "x w", "p"), node("Mul", "p f", "q"), node("Add", "q b")]
    inside = [node("MatMul", "x w", "t"), node("Add", "t b")]
    apart = model_of(behind, {"x": ("N", 16)}, ["y"], {"w": w, "f": gain, "b": b})
    return apart, model_of(inside, {"x": ("N", 16)}, ["y"], {"w": w * gain, "b": b})


def test_a_factor_in_the_weights_is_folded():
    gain = RNG.uniform(0.5, 2, 6).astype(FLOAT)
    apart, inside = folded(gain)
    found = compare_parameters(qh.load(apart), qh.load(inside))
    assert (found.changed, found.unmatched) == ((), ())
    assert len(found.folded) == 1
    result = qh.check(apart, inside, proof_seconds=0)
    assert result.verdict is Verdict.WITHIN, result.reason
    assert "are folded into others" in result.reason
    # Ten units in the last place are no rounding of a product.
    wrong = changed(inside, "w", 1 + 10 * 2.0**-23)
    assert qh.check(apart, wrong, proof_seconds=0).verdict is Verdict.DIFFERENT


@pytest.mark.parametrize("place", ["x", "p"])
def test_a_factor_that_nothing_took_up_is_no_noise(place):
    # 1 + 2^-22 is less than what the order of 16 products can make.
    rng = np.random.default_rng(5)
    constants = {"w": rng.normal(size=(16, 6)).astype(FLOAT)}
    plain = model_of([node("MatMul", "x w")], {"x": ("N", 16)}, ["y"], constants)
    nodes = [node("Mul", "x f", "t"), node("MatMul", "t w")]
    if place == "p":
        nodes = [node("MatMul", "x w", "p"), node("Mul", "p f")]
    constants["f"] = 1 + 2.0**-22
    other = model_of(nodes, {"x": ("N", 16)}, ["y"], constants)
    result = qh.check(plain, other, proof_seconds=0)
    assert result.verdict is Verdict.DIFFERENT, result.reason
    assert any("has no counterpart" in note for note in result.notes), result.notes


def test_an_attribute_of_a_layer_is_compared_beside_its_weights():
    def normed(epsilon):
        nodes = [node("BatchNormalization", "c g sh m v", epsilon=epsilon)]
        return qh.load(layer(*nodes, **norm()))

    def grown(alpha):
        w, nodes = WEIGHTS[:, :6], [node("Gemm", "x w", alpha=alpha)]
        return qh.load(model_of(nodes, {"x": ("N", 6)}, ["y"], {"w": w}))

    assert not compare_parameters(normed(1e-3), normed(1e-3)).changed
    assert compare_parameters(normed(1e-3), normed(2e-3)).changed
    assert compare_parameters(grown(1.0), grown(1.0 + 2.0**-20)).changed


@pytest.mark.parametrize(
    ("op", "name", "default", "other"),
    [
        ("Gemm", "alpha", 1.0, 1 + 2.0**-23),
        ("Gemm", "beta", 1.0, 1 + 2.0**-23),
        ("BatchNormalization", "epsilon", 1e-5, 1.02e-5),
    ],
)
def test_an_attribute_left_out_is_compared_as_its_default(op, name, default, other):
    # Less than what the order of 16 products can make.
    rng = np.random.default_rng(5)
    constants = {"w": rng.normal(size=(16, 6)).astype(FLOAT), "b": rng.normal(size=6)}
    constants = {k: np.asarray(x, FLOAT) for k, x in (constants | norm()).items()}

    def net(**attributes):
        nodes = [node("Gemm", "x w b", **attributes)]
        if op != "Gemm":
            nodes = [node("MatMul", "x w", "t"), node(op, "t g sh m v", **attributes)]
        return model_of(nodes, {"x": ("N", 16)}, ["y"], constants)

    assert not qh.diff(net(), net(**{name: default}))
    for pair in ((net(), net(**{name: other})), (net(**{name: other}), net())):
        assert compare_parameters(*map(qh.load, pair)).changed
        result = qh.check(*pair, proof_seconds=0)
        assert result.verdict is Verdict.DIFFERENT, result.reason


def test_names_of_the_other_model_excuse_no_weight():
    first, second = RNG.normal(size=(2, 16, 16)).astype(FLOAT)

    def net(one, other):
        nodes = [node("MatMul", f"x {one}", "t"), node("Relu", "t", "r")]
        nodes.append(node("MatMul", f"r {other}"))
        return model_of(nodes, {"x": ("N", 16)}, ["y"], {one: first, other: second})

    source = net("w1", "w2")
    wrong = nudged(net("w2", "w3"), "w3", 0)
    assert qh.check(source, wrong, proof_seconds=0).verdict is Verdict.DIFFERENT


def test_an_offset_that_no_folding_reaches_is_compared_bit_by_bit():
    apart, inside = folded(RNG.uniform(0.5, 2, 6).astype(FLOAT))
    wrong = nudged(inside, "b", 2)
    assert compare_parameters(qh.load(apart), qh.load(wrong)).changed
    assert qh.check(apart, wrong, proof_seconds=0).verdict is Verdict.DIFFERENT
