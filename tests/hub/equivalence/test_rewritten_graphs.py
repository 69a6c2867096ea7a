"""Two forms of one function: never called different, and what was not taken up never equal."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

import qonnx_hub as qh
from qonnx_hub.equivalence.normalizing import RULES
from qonnx_hub.equivalence.parameters import compare_parameters
from qonnx_hub.equivalence.rewriting import Rewriting
from qonnx_hub.equivalence.verdicts import Verdict
from tests.support import model_of, quant_node

FLOAT = np.float32
RNG = np.random.default_rng(7)
W = RNG.normal(size=(10, 6)).astype(FLOAT)
B = RNG.normal(size=6).astype(FLOAT)
W2 = RNG.normal(size=(6, 5)).astype(FLOAT)
F = FLOAT(0.37)
NORM = {
    "g": RNG.uniform(0.5, 2, 6).astype(FLOAT),
    "sh": RNG.normal(size=6).astype(FLOAT),
    "m": RNG.normal(size=6).astype(FLOAT),
    "v": RNG.uniform(0.5, 2, 6).astype(FLOAT),
}
GAIN = NORM["g"] / np.sqrt(NORM["v"] + FLOAT(1e-5))


def node(op, reads, makes="y", **attributes):
    return helper.make_node(op, reads.split(), [makes], name=makes, **attributes)


def net(*nodes, **constants):
    return model_of(list(nodes), {"x": ("N", 10)}, ["y"], constants)


def plain(w=W, b=B, w2=W2):
    return net(
        *(node("Gemm", "x w b", "h"), node("Relu", "h", "r"), node("MatMul", "r w2")),
        w=w,
        b=b,
        w2=w2,
    )


def with_factor(factor=F):
    return net(
        node("Gemm", "x w b", "h"),
        node("Relu", "h", "r"),
        node("Mul", "r f", "s"),
        node("MatMul", "s w2"),
        w=W,
        b=B,
        f=factor,
        w2=W2,
    )


def normalized():
    norm = node("BatchNormalization", "h g sh m v", "n")
    return net(node("MatMul", "x w", "h"), norm, node("Relu", "n"), w=W, **NORM)


def respelled(gain=1.0, *, named="n"):
    """Return the normalization as a product and a sum."""
    factor, added = GAIN * FLOAT(gain), NORM["sh"] - NORM["m"] * GAIN
    nodes = [node("MatMul", "x w", "h"), node("Mul", "h f", "t"), node("Add", "t o", named)]
    return net(*nodes, node("Relu", named), w=W, f=factor, o=added)


PER_CHANNEL = RNG.uniform(0.2, 3, 6).astype(FLOAT)

FORMS = {
    "through a Relu into the layer before": (with_factor(), plain(W * F, B * F)),
    "into the layer behind": (with_factor(), plain(w2=W2 * F)),
    "from one layer to the next": (
        plain(),
        plain(W * PER_CHANNEL, B * PER_CHANNEL, W2 / PER_CHANNEL[:, None]),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_factor_that_another_layer_took_up_is_not_called_different(form):
    assert qh.check(*FORMS[form]).verdict is not Verdict.DIFFERENT


def test_a_factor_that_was_taken_up_wrong_is_different():
    assert qh.check(with_factor(), plain(w2=W2 * F * FLOAT(1.01))).verdict is Verdict.DIFFERENT


def test_a_factor_that_nothing_took_up_is_different():
    nearly = with_factor(FLOAT(1 + 2.0**-22))
    assert qh.check(plain(), nearly).verdict is Verdict.DIFFERENT


def test_one_weight_off_by_one_float_is_different():
    other = W.copy()
    other[3, 2] = np.nextafter(other[3, 2], FLOAT(np.inf))
    assert qh.check(plain(), plain(other)).verdict is Verdict.DIFFERENT


def test_a_normalization_as_product_and_sum_is_within_rounding():
    result = qh.check(normalized(), respelled())
    assert result.verdict is Verdict.WITHIN, result.reason
    assert "are folded into others" in result.reason
    assert qh.check(normalized(), respelled(1 + 1e-4)).verdict is Verdict.DIFFERENT


def test_names_that_stand_for_other_layers_make_no_difference():
    # 'h' is the product on the one side and the sum behind it on the other.
    apart = net(
        node("MatMul", "x w", "h"), node("Add", "h b", "a"), node("Relu", "a"), w=W, b=B
    )
    one = net(node("Gemm", "x w b", "h"), node("Relu", "h"), w=W, b=B)
    assert qh.check(apart, one).verdict is Verdict.PROVEN
    pytest.importorskip("onnxruntime")
    found = qh.check(apart, one, backend="ort")
    assert found.verdict in {Verdict.PROVEN, Verdict.EQUAL, Verdict.WITHIN, Verdict.UNDECIDED}


def test_turned_weights_are_within_rounding_on_onnxruntime():
    pytest.importorskip("onnxruntime")
    one = net(node("Gemm", "x w b", "h"), node("Relu", "h"), w=W, b=B)
    turned = node("Gemm", "x w b", "k", transB=1)
    other = net(turned, node("Relu", "k"), w=np.ascontiguousarray(W.T), b=B)
    assert qh.check(one, other, backend="ort")


@pytest.mark.parametrize("name", ["Sigmoid", "Elu", "Selu", "Softplus", "LogSoftmax"])
def test_a_function_of_onnxruntime_is_within_its_units(name):
    pytest.importorskip("onnxruntime")
    one = net(node("MatMul", "x w", "h"), node(name, "h"), w=W)
    assert qh.check(one, one, backend="ort")


def enclosed(op, low, high, parameters=(), *, more=0, **attributes):
    rule = RULES[op]
    return rule(helper_node(op, **attributes), 17, (low, high), parameters, 2.0**-24, more)


def helper_node(op, **attributes):
    import onnx_ir

    made = [onnx_ir.AttrInt64(name, value) for name, value in attributes.items()]
    return onnx_ir.Node("", op, [onnx_ir.Value(name="x")], made)


def numpy_logarithms(x):
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def numpy_shares(x):
    return np.exp(numpy_logarithms(x))


def numpy_layer(x):
    apart = x - x.mean(axis=-1, keepdims=True)
    return apart / np.sqrt(np.square(apart).mean(axis=-1, keepdims=True) + 1e-5)


@pytest.mark.parametrize(
    ("op", "compute"),
    [
        ("Softmax", numpy_shares),
        ("LogSoftmax", numpy_logarithms),
        ("LayerNormalization", numpy_layer),
    ],
)
def test_what_normalizes_lies_between_its_ends_whatever_lies_between_those_of_its_input(
    op, compute
):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 7)) * rng.choice([0.1, 1, 30], size=(40, 1))
    reach = 1e-3 * np.abs(x)
    low, high = enclosed(op, x - reach, x + reach, axis=-1)
    for _ in range(50):
        inside = x + reach * rng.choice([-1, 0, 1, 0.3], size=x.shape)
        made = compute(inside)
        assert np.all(low <= made)
        assert np.all(made <= high)
    # Not far apart either: what reaches it moves it, and little more.
    exact = enclosed(op, x, x, axis=-1)
    assert np.all(exact[1] - exact[0] <= 2e-3 * np.maximum(np.abs(compute(x)), 1))


def lowest_level_behind_a_choice(narrow):
    nodes = [
        quant_node("x", "q", narrow=narrow),
        node("Elu", "q", "e", alpha=0.5),
        node("Mul", "e k", "p"),
        node("Where", "c x q", "t"),
        node("Where", "c p t"),
    ]
    mask = np.array([[True, False] * 5])
    constants = {"s": 98.6, "z": 0.0, "b": 5.0, "k": 0.0385, "c": mask}
    return model_of(nodes, {"x": ("N", 10)}, ["y"], constants)


def test_a_level_that_one_side_lacks_is_not_proven_away_behind_a_choice():
    one, other = (lowest_level_behind_a_choice(narrow) for narrow in (1, 0))
    x = np.full((1, 10), -3000, dtype=FLOAT)
    made = [qh.run(model, {"x": x})["y"] for model in (one, other)]
    assert np.any(made[0] != made[1])
    assert not qh.check(one, other)


def test_codes_of_another_type_are_no_other_quantizer(tmp_path):
    """An integer layer holds both scales in one factor, rounded once; its codes are uint8."""
    nodes = [
        quant_node("x", "q", signed=1),
        quant_node("w", "wq", "ws", "z", signed=1),
        node("MatMul", "q wq", "p"),
        node("BatchNormalization", "p g sh m v", "n"),
        node("Relu", "n", "r"),
        quant_node("r", "y", "os", signed=0),
    ]
    constants = {"s": 0.05, "z": 0.0, "b": 8.0, "ws": 0.013, "os": 0.03, "w": W, **NORM}
    source = model_of(nodes, {"x": ("N", 10)}, ["y"], constants)
    qh.convert(source, tmp_path / "made.onnx", to="qlinear")
    assert qh.check(source, tmp_path / "made.onnx")


def quantized_layer(codes, *, apart):
    """Return a layer of whole numbers, its scale in the weights or behind the product."""
    scale = FLOAT(0.013)
    known = {"s": 0.05, "z": 0.0, "b": 8.0, "os": 0.1}
    known |= (
        {"w": codes, "ws": 1.0, "f": scale} if apart else {"w": codes * scale, "ws": scale}
    )
    weights = "codes" if apart else "weights"
    made = "c" if apart else "p"
    nodes = [
        quant_node("x", "q", signed=1),
        quant_node("w", weights, "ws", "z", signed=1),
        node("MatMul", f"q {weights}", made),
        *([node("Mul", "c f", "p")] if apart else []),
        node("Relu", "p", "r"),
        quant_node("r", "y", "os", signed=0),
    ]
    return model_of(nodes, {"x": ("N", 10)}, ["y"], known)


def test_a_factor_between_weights_and_product_is_within_rounding():
    codes = RNG.integers(-126, 126, (10, 6)).astype(FLOAT)
    inside = quantized_layer(codes, apart=False)
    result = qh.check(inside, quantized_layer(codes, apart=True))
    assert result.verdict in {Verdict.WITHIN, Verdict.PROVEN}, result.reason
    codes[2, 3] += 1
    assert not qh.check(inside, quantized_layer(codes, apart=True))


def looked_up(entries=None):
    """Return a LeakyRelu between 8-bit quantizers, or the table of its 256 answers."""
    first = [node("QuantizeLinear", "x s z", "c")]
    known = {"s": 0.05, "os": 0.07}
    known |= {"z": np.array(136, dtype=np.uint8), "oz": np.array(200, dtype=np.uint8)}
    last = [node("QuantizeLinear", "r os oz", "d"), node("DequantizeLinear", "d os oz")]
    if entries is None:
        between = [
            node("DequantizeLinear", "c s z", "v"),
            node("LeakyRelu", "v", "r", alpha=0.3),
        ]
    else:
        between = [node("Cast", "c", "i", to=6), node("Gather", "t i", "r")]
        known["t"] = entries
    return model_of([*first, *between, *last], {"x": ("N", 10)}, ["y"], known)


def test_a_table_of_codes_is_proven_to_be_the_function_that_it_lists():
    values = (np.arange(256) - 136).astype(FLOAT) * FLOAT(0.05)
    entries = np.where(values < 0, values * FLOAT(0.3), values).astype(FLOAT)
    assert qh.check(looked_up(), looked_up(entries)).verdict is Verdict.PROVEN
    entries[77] += FLOAT(0.07)
    result = qh.check(looked_up(), looked_up(entries))
    assert result.verdict is Verdict.DIFFERENT, result.reason


UNIT = 2.0**-24


@pytest.mark.parametrize("more", [0, 4])
def test_ends_of_equal_shares_are_those_of_a_hand_calculation(more):
    # Four sums, four exponentials of 16 units each; equal elements reach nowhere.
    low, high = enclosed("Softmax", *2 * [np.zeros((1, 4))], more=more)
    assert high == pytest.approx(0.25 * (1 + (4 + 64 + more) * UNIT), abs=1e-12)
    assert low == pytest.approx(0.25 * (1 - (4 + 64 + more) * UNIT), abs=1e-12)
    # A sum of four ones, and the logarithm of four, which is rounded 36 times.
    low, high = enclosed("LogSoftmax", *2 * [np.zeros((1, 4))], more=more)
    error = 68 * UNIT + (4 + 32 + more) * UNIT * np.log(4)
    assert high == pytest.approx(-np.log(4) + error, abs=1e-12)
    assert low == pytest.approx(-np.log(4) - error, abs=1e-12)


def test_an_element_far_below_the_largest_has_a_wider_share():
    low, high = enclosed("Softmax", *2 * [np.array([[0.0, -10.0]])])
    share = 1 / (1 + np.exp(10.0))
    assert high[0, 1] == pytest.approx(share * (1 + (2 + 64 + 20) * UNIT), rel=1e-12)
    assert low[0, 1] == pytest.approx(share * (1 - (2 + 64 + 20) * UNIT), rel=1e-12)
    low, high = enclosed("LogSoftmax", *2 * [np.array([[0.0, -10.0]])])
    size = 10 + 0 + np.log(2) + 10
    error = (2 + 64 + 20 + 36 * size) * UNIT
    assert (high - low)[0, 1] == pytest.approx(2 * error, rel=1e-6)


@pytest.mark.parametrize(("more", "error"), [(0, 145), (4, 173)])
def test_ends_of_a_layer_normalization_are_those_of_a_hand_calculation(more, error):
    """Of 1 and -1: the mean is off by 4 units, the difference by one more than it is folded.

    The mean of squares moves by 25 units and the root by half of that; the gain of 2 doubles
    both, and 22 roundings of 5 are added. Folded four times: 4 more units twice in the
    difference and, by its square, half of that in the root, and 4 more roundings of 5.
    """
    x = np.array([[1.0, -1.0]])
    parameters = [np.array([2.0, 2.0]), np.array([3.0, 3.0])]
    low, high = enclosed("LayerNormalization", x, x, parameters, more=more)
    exact = 2 / np.sqrt(1 + 1e-5) + 3
    wide = error + (8 if more else 0)
    assert (high[0, 0] - exact) / UNIT == pytest.approx(wide, rel=0.01)
    assert (exact - low[0, 0]) / UNIT == pytest.approx(wide, rel=0.01)


@pytest.mark.parametrize(
    ("places", "moved", "may_be"), [(1, True, False), (2, True, True), (2, False, False)]
)
def test_a_number_that_was_folded_changes_two_places(places, moved, may_be):
    assert Rewriting(places, 0, moved).may_be_equal is may_be


def quantized_input(zero):
    nodes = [
        node("QuantizeLinear", "x s z", "c"),
        node("DequantizeLinear", "c s z", "v"),
        node("MatMul", "v w"),
    ]
    return model_of(nodes, {"x": ("N", 10)}, ["y"], {"s": 0.05, "z": zero, "w": W})


@pytest.mark.parametrize(("zero", "same"), [(128, True), (127, False), (129, False)])
def test_int8_and_uint8_are_one_quantizer_where_their_levels_are(zero, same):
    one, other = (
        qh.load(quantized_input(np.array(value, dtype=dtype)))
        for value, dtype in ((0, np.int8), (zero, np.uint8))
    )
    assert (compare_parameters(one, other).changed == ()) is same
