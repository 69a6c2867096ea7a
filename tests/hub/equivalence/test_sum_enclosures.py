"""What orders of sums explain: bounds by hand, orders that are tried, and what lies beyond."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir
import pytest
from onnx import helper

import qonnx_hub as qh
from qonnx_hub.equivalence.diagnosis.isolation import SlicedGraph
from qonnx_hub.equivalence.graph_slices import nodes_between
from qonnx_hub.equivalence.noise import explains
from qonnx_hub.equivalence.parameters import compare_parameters
from qonnx_hub.equivalence.proof.intervals import Enclosure
from qonnx_hub.equivalence.sum_enclosures import (
    FOLD_ROUNDINGS,
    FUNCTION_ULPS,
    SumEnclosures,
    UnboundedError,
    holds_all,
    meets,
    unexplained,
)
from qonnx_hub.equivalence.verdicts import Verdict
from qonnx_hub_adapters.onnx_reader import read_model
from tests.support import model_of, quant_node

FLOAT = np.float32
UNIT = 2.0**-24
RNG = np.random.default_rng(5)


def node(op, reads, makes="y", **attributes):
    return helper.make_node(op, reads.split(), [makes], name=makes, **attributes)


def enclosed(nodes, x, constants=None, output="y", **options):
    """Return what orders of sums make of a sample."""
    shape = tuple(x.shape)
    model = read_model(model_of(nodes, {"x": shape}, [output], constants or {}))
    bounds = SumEnclosures(SlicedGraph(model), **options)
    return bounds.enclose(nodes_between(model, (), output), output, {}, {"x": x})


def width(found):
    return found.high.astype(np.float64) - found.low.astype(np.float64)


def sample(*shape):
    return RNG.normal(size=shape).astype(FLOAT)


def test_a_sum_of_n_products_is_off_by_n_roundings_of_its_own_sum_of_magnitudes():
    x, w = sample(3, 40), sample(40, 5)
    found = enclosed([node("MatMul", "x w")], x, {"w": w})
    total = np.abs(x).astype(np.float64) @ np.abs(w).astype(np.float64)
    exact = x.astype(np.float64) @ w.astype(np.float64)
    bound = 40 * UNIT * total
    # Ends are rounded outward to float32.
    assert np.all(width(found) >= 2 * bound)
    assert np.all(width(found) <= 2 * bound * 1.001 + 4 * np.spacing(np.abs(found.high)))
    assert np.all((found.low < exact) & (exact < found.high))


def test_every_order_stays_inside():
    x, w = sample(1, 7), sample(7, 1)
    found = enclosed([node("MatMul", "x w")], x, {"w": w})
    sums = set()
    for order in itertools.permutations(range(7)):
        total = FLOAT(0)
        for k in order:
            total = FLOAT(total + FLOAT(x[0, k] * w[k, 0]))
        sums.add(total)
    assert len(sums) > 1
    assert min(sums) >= found.low[0, 0]
    assert max(sums) <= found.high[0, 0]


@pytest.mark.parametrize(
    ("total", "exact"), [(2**24 - 1, True), (2**24, True), (2**24 + 1, False)]
)
def test_whole_sums_that_the_type_holds_are_exact(total, exact):
    x = np.array([[5592405, 5592404, total - 11184809]], dtype=FLOAT)
    assert float(x.astype(np.float64).sum()) == total
    found = enclosed([node("MatMul", "x w")], x, {"w": np.ones((3, 1), FLOAT)})
    assert bool(width(found)[0, 0] == 0) is exact


def test_a_code_flips_only_where_a_threshold_lies_within_reach():
    # 0.1 * 3 rounds up in float32: at scale 0.2 that is beside a tie.
    constants = {"w": np.full((3, 1), 0.1, FLOAT), "s": 0.2, "z": 0.0, "b": 4.0}
    nodes = [node("MatMul", "x w", "m"), quant_node("m", "y")]
    near = enclosed(nodes, np.ones((1, 3), FLOAT), constants)
    assert (float(near.low[0, 0]), float(near.high[0, 0])) == pytest.approx((0.2, 0.4))
    far = enclosed(nodes, np.full((1, 3), 1.2, FLOAT), constants)
    assert float(far.low[0, 0]) == float(far.high[0, 0]) == pytest.approx(0.4)


def test_differences_are_carried_by_magnitudes_of_weights():
    x, w = sample(2, 30), sample(30, 4)
    v = np.array([[3.0], [-2.0], [0.0], [0.0]], FLOAT)
    first = width(enclosed([node("MatMul", "x w")], x, {"w": w}))
    nodes = [node("MatMul", "x w", "m"), node("MatMul", "m v")]
    second = width(enclosed(nodes, x, {"w": w, "v": v}))
    carried = 3 * first[:, :1] + 2 * first[:, 1:2]
    assert np.all((second >= carried) & (second <= carried * 1.3))


def test_a_mean_is_off_by_its_sum_and_its_division():
    x = sample(1, 1, 4, 4)
    found = enclosed([node("GlobalAveragePool", "x")], x)
    bound = 18 * UNIT * float(np.abs(x).mean())
    assert 2 * bound <= width(found).item() <= 2 * bound + 4 * np.spacing(FLOAT(1))


@pytest.mark.parametrize("axes", [(-1, -2), (2, 3), (-1,), (1,)])
def test_a_mean_runs_over_its_own_axes_however_they_are_counted(axes):
    x = sample(1, 3, 4, 4)
    given = {"axes": np.array(axes, dtype=np.int64)}
    found = enclosed([node("ReduceMean", "x axes", keepdims=1)], x, given)
    count = np.prod([x.shape[axis] for axis in axes])
    total = np.abs(x).astype(np.float64).sum(axis=axes, keepdims=True) / count
    assert found.low.shape == total.shape
    assert np.all(width(found) >= 2 * count * UNIT * total)
    rounded = 4 * np.spacing(np.abs(found.high))
    assert np.all(width(found) <= 2 * (count + 3) * UNIT * total + rounded)


def test_what_lies_between_two_indices_is_not_between_what_they_select():
    x = sample(1, 4)
    nodes = [
        node("MatMul", "x w", "m"),
        node("Cast", "m", "i", to=7),
        node("Gather", "table i"),
    ]
    table = np.array([5, 0, 100, 0, 7], dtype=FLOAT)
    # A sum that another order takes across a whole number.
    given = {"w": np.full((4, 1), FLOAT(1 / x.sum(dtype=np.float64))), "table": table}
    with pytest.raises(UnboundedError):
        enclosed(nodes, x, given)


def test_batch_normalization_is_enclosed_in_both_of_its_formulas():
    x, names = sample(5, 6, 3), "g b m v"
    parameters = {name: np.abs(sample(6)) + FLOAT(0.1) for name in names.split()}
    found = enclosed([node("BatchNormalization", f"x {names}")], x, parameters)
    g, b, m, v = (p.reshape(-1, 1) for p in parameters.values())
    spread = np.sqrt(v + FLOAT(1e-5))
    one = (x - m) / spread * g + b
    other = x * (g / spread) + (b - m * (g / spread))
    assert not np.array_equal(one, other)
    sizes = np.abs(g / spread) * (np.abs(x) + np.abs(m)) + np.abs(b)
    assert np.all(width(found) >= 2 * 6 * UNIT * sizes)  # sums, products, root, quotient
    assert np.all(width(found) <= 2 * 6.01 * UNIT * sizes + 4 * np.spacing(np.abs(one)))
    assert holds_all(found, one).all()
    assert holds_all(found, other).all()


def test_a_sum_over_a_factor_that_is_folded_meets_the_folded_one():
    x, w, factor = sample(64, 30), sample(30, 8), np.abs(sample(8)) + FLOAT(0.1)
    apart = [node("MatMul", "x w", "m"), node("Mul", "m f")]
    a = enclosed(apart, x, {"w": w, "f": factor}, folded=True)
    b = enclosed([node("MatMul", "x w")], x, {"w": w * factor}, folded=True)
    assert meets(a, b).all()
    wrong = enclosed([node("MatMul", "x w")], x, {"w": w * factor * FLOAT(1.001)}, folded=True)
    assert not meets(a, wrong).all()


def test_a_folded_parameter_may_be_off_by_four_roundings():
    x = np.full((1, 1), 1.5, FLOAT)
    found = enclosed([node("Mul", "x c")], x, {"c": 2.0}, folded=True)
    assert FOLD_ROUNDINGS == 4
    assert float(found.high[0, 0]) == pytest.approx(3 * (1 + 4 * UNIT), rel=UNIT)
    assert width(enclosed([node("Mul", "x c")], x, {"c": 2.0})).item() == 0


def test_integers_are_not_moved_apart_by_folding():
    x = FLOAT([[-1.5, 0.0, 2.5]])
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        node("DequantizeLinear", "q t z"),
    ]
    constants = {"s": FLOAT(0.5), "t": FLOAT(0.25), "z": np.array(7, dtype=np.uint8)}
    model = onnx_ir.from_proto(model_of(nodes, {"x": (1, 1, 3)}, ["y"], constants))
    bounds = SumEnclosures(SlicedGraph(model), folded=True)
    found = bounds.enclose(nodes_between(model, (), "y"), "y", {}, {"x": x.reshape(1, 1, 3)})
    assert holds_all(found, FLOAT([[[-0.75, 0.0, 1.25]]])).all()


def test_functions_are_trusted_to_their_units_where_libraries_differ():
    x = sample(4, 8)
    assert width(enclosed([node("Tanh", "x")], x)).max() == 0
    found = enclosed([node("Tanh", "x")], x, live=True)
    true = np.tanh(x.astype(np.float64))
    assert FUNCTION_ULPS == 16  # as the specification that is cited
    reach = FUNCTION_ULPS * 2 * UNIT * np.abs(true)
    assert np.all(width(found) >= 2 * reach)
    assert np.all(width(found) <= 2 * reach + 4 * np.spacing(np.abs(true).astype(FLOAT)))


def test_a_softmax_rises_with_its_own_and_falls_with_the_others():
    x, w = sample(3, 50), sample(50, 6)
    nodes = [node("MatMul", "x w", "m"), node("Softmax", "m", axis=-1)]
    found = enclosed(nodes, x, {"w": w})
    logits = x.astype(np.float64) @ w.astype(np.float64)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    assert np.all((found.low < shares) & (shares < found.high))
    assert width(found).max() < 1e-3


def test_without_a_bound_there_is_no_noise():
    nodes = [node("MatMul", "x w", "m"), node("Sin", "m")]
    with pytest.raises(UnboundedError, match="Sin"):
        enclosed(nodes, sample(1, 9), {"w": sample(9, 3)})


def test_ends_meet_or_they_do_not():
    one = enclosed([node("MatMul", "x w")], np.ones((1, 3), FLOAT), {"w": sample(3, 2)})
    shifted = type(one)(one.high, one.high + 1, one.known)
    assert meets(one, shifted).all()
    beyond = type(one)(np.nextafter(one.high, FLOAT(9)), one.high + 1, one.known)
    assert not meets(one, beyond).any()
    assert not meets(one, type(one)(one.low, one.high, ~one.known)).any()
    same = np.zeros((1, 2), FLOAT)
    assert not unexplained(one, beyond, same, same).any()
    assert unexplained(one, beyond, same, same + 1).all()


def split(bias, split_at):
    """Return a layer that adds its products in one sum, or in two parts."""
    w = np.random.default_rng(0).normal(size=(16, 8)).astype(FLOAT)
    constants = {"b": np.full(8, bias, FLOAT)}
    if not split_at:
        nodes = [node("MatMul", "x w", "m"), node("Add", "m b")]
        return model_of(nodes, {"x": ("N", 16)}, ["y"], constants | {"w": w})
    whole = {f"i{k}": np.array([k], dtype=np.int64) for k in (0, 1, 16)}
    constants |= whole | {"at": np.array([split_at], dtype=np.int64)}
    nodes = [
        node("Slice", "x i0 at i1", "xa"),
        node("Slice", "x at i16 i1", "xb"),
        node("MatMul", "xa wa", "pa"),
        node("MatMul", "xb wb", "pb"),
        node("Add", "pa pb", "m"),
        node("Add", "m b"),
    ]
    constants |= {"wa": w[:split_at], "wb": w[split_at:]}
    return model_of(nodes, {"x": ("N", 16)}, ["y"], constants)


def test_one_element_beyond_its_own_bound_is_no_noise_beside_large_ones():
    # The bias differs by far less than the noise of large samples, on a sample of zeros.
    x = np.random.default_rng(1).normal(size=(200, 16)).astype(FLOAT) * FLOAT(1e6)
    small = np.zeros((1, 16), FLOAT)
    large, both = {"x": x}, {"x": np.concatenate([x, small])}
    a, same, other = split(0.0, 0), split(0.0, 8), split(1e-3, 8)
    assert qh.check(a, same, large, proof_seconds=0).verdict is Verdict.WITHIN
    assert qh.check(a, same, both, proof_seconds=0).verdict is Verdict.WITHIN
    assert qh.check(a, other, both, proof_seconds=0).verdict is Verdict.DIFFERENT


def offset(weights, *, apart):
    """Return a sum and a small number added to it; or only the sum, in two parts."""
    constants = {"w": weights, "c": 1e-3}
    if not apart:
        return model_of(
            [node("MatMul", "x w", "m"), node("Identity", "m")],
            {"x": ("N", 16)},
            ["y"],
            {"w": weights},
        )
    constants |= {f"i{k}": np.array([k], dtype=np.int64) for k in (0, 1, 8, 16)}
    constants |= {"wa": weights[:8], "wb": weights[8:]}
    del constants["w"]
    nodes = [
        node("Slice", "x i0 i8 i1", "xa"),
        node("Slice", "x i8 i16 i1", "xb"),
        node("MatMul", "xa wa", "pa"),
        node("MatMul", "xb wb", "pb"),
        node("Add", "pa pb", "m"),
        node("Add", "m c"),
    ]
    return model_of(nodes, {"x": ("N", 16)}, ["y"], constants)


@pytest.mark.parametrize("level", ["output", "layer"])
def test_every_sample_is_looked_at_and_not_only_those_that_differ_most(level):
    # Beside numbers of 1e8, 1e-3 is nothing; in the last sample it is no order of sums.
    rng = np.random.default_rng(3)
    weights = rng.normal(size=(16, 8)).astype(FLOAT)
    x = rng.normal(size=(201, 16)).astype(FLOAT)
    x[:200] *= FLOAT(1e8)
    x[200] *= FLOAT(1e3)
    a, b = offset(weights, apart=False), offset(weights, apart=True)
    options = {"level": level, "proof_seconds": 0}
    result = qh.check(a, b, {"x": x}, **options)
    assert result.verdict is Verdict.DIFFERENT, result.reason
    assert any("explains layer 'y' at [200," in note for note in result.notes), result.notes


def test_what_a_proof_refutes_is_no_order_of_sums():
    # 0.1 in float32 is no tenth: one function, but for a rounding, and another.
    w = np.random.default_rng(3).normal(size=(16, 8)).astype(FLOAT)
    x = np.random.default_rng(4).normal(size=(50, 16)).astype(FLOAT)
    a = model_of(
        [node("MatMul", "x w", "m"), node("Mul", "m c")],
        {"x": ("N", 16)},
        ["y"],
        {"w": w, "c": 0.1},
    )
    b = model_of(
        [node("MatMul", "x w", "n"), node("Div", "n c")],
        {"x": ("N", 16)},
        ["y"],
        {"w": w, "c": 10.0},
    )
    assert qh.check(a, b, {"x": x}).verdict is Verdict.DIFFERENT


def enclosure(low, high):
    ends = [np.array(end, dtype=FLOAT) for end in (low, high)]
    return Enclosure(*ends, np.ones(ends[0].shape, dtype=np.bool_))


def test_one_element_outside_of_its_ends_is_no_noise():
    ours, theirs = np.array([0, 0], FLOAT), np.array([1, 1], FLOAT)
    wide, narrow = enclosure([0, 0], [1, 1]), enclosure([0, 0], [1, 0])
    other = enclosure([1, 1], [1, 1])
    assert explains([wide, other], ours, theirs)
    assert not explains([narrow, other], ours, theirs)
    assert explains([None, wide], ours, theirs)
    assert explains([wide, None], ours, theirs)
    assert not explains([narrow, None], ours, theirs)


def test_an_attribute_that_is_written_out_is_no_other_parameter():
    def leaky(**given):
        nodes = [node("LeakyRelu", "x", **given)]
        return read_model(model_of(nodes, {"x": (1, 4)}, ["y"], {}))

    assert compare_parameters(leaky(), leaky(alpha=0.01)).changed == ()
    (words,) = compare_parameters(leaky(alpha=0.01), leaky(alpha=0.02)).changed
    assert "alpha" in words


def test_parameters_that_are_computed_are_constants_too():
    x, names = sample(5, 6), "g b m v"
    parameters = {name: np.abs(sample(6)) + FLOAT(0.1) for name in names.split()}
    nodes = [node("Mul", "g g", "gg"), node("BatchNormalization", "x gg b m v")]
    found = enclosed(nodes, x, parameters)
    squared = parameters | {"g": parameters["g"] * parameters["g"]}
    same = enclosed([node("BatchNormalization", f"x {names}")], x, squared)
    assert np.array_equal(width(found), width(same))


def test_the_larger_of_two_sums_lies_between_their_ends():
    x, w = sample(1, 1, 4, 9), sample(9, 4)
    nodes = [node("MatMul", "x w", "m"), node("MaxPool", "m", kernel_shape=[2, 2])]
    found = enclosed(nodes, x, {"w": w})
    exact = (x.astype(np.float64) @ w.astype(np.float64))[0, 0]
    largest = np.max([exact[i : i + 3, j : j + 3] for i in (0, 1) for j in (0, 1)], axis=0)
    assert np.all((found.low[0, 0] < largest) & (largest < found.high[0, 0]))


def test_a_bias_is_one_more_term():
    x = np.full((1, 1), 1.1, FLOAT)
    found = enclosed(
        [node("Gemm", "x w b")],
        x,
        {"w": np.full((1, 1), 1.1, FLOAT), "b": np.array([1.7], FLOAT)},
    )
    total = float(x[0, 0]) ** 2 + float(FLOAT(1.7))
    assert width(found).item() >= 2 * 2 * UNIT * total
    assert width(found).item() <= 2 * 2 * UNIT * total + 2 * np.spacing(FLOAT(total))


def test_what_reaches_a_sum_of_whole_numbers_moves_it_all_the_same():
    # Code 1 or 2 of the inner tie: the sum behind it is exact in itself only.
    constants = {"w": np.full((3, 1), 0.1, FLOAT), "s": 0.2, "z": 0.0, "b": 4.0}
    nodes = [node("MatMul", "x w", "m"), quant_node("m", "q"), node("MatMul", "q v")]
    constants["v"] = np.full((1, 1), 3.0, FLOAT)
    found = enclosed(nodes, np.ones((1, 3), FLOAT), constants)
    assert found.low.item() <= 0.6
    assert found.high.item() >= 1.2


def test_a_softmax_of_another_library_is_off_by_its_functions():
    x = np.zeros((1, 4), FLOAT)
    found = enclosed([node("Softmax", "x", axis=-1)], x, live=True)
    terms = 4 + 4 * FUNCTION_ULPS
    assert width(found).max() == pytest.approx(2 * terms * UNIT / 4, rel=0.1)
    assert width(enclosed([node("Softmax", "x", axis=-1)], x)).max() == 0


def test_a_sum_rounds_what_reaches_it_although_its_middle_is_whole():
    # 2^25 + 2^25 is exact, but floats beside them may be what is added.
    x = np.array([[2.0**24 - 1, 2.0**24 - 1, 2.0]], dtype=FLOAT)
    first = node("MatMul", "x w", "h")
    stored = {"w": np.ones((3, 2), FLOAT), "v": np.ones((2, 1), FLOAT)}
    inner = enclosed([first], x, stored, output="h")
    assert np.all((inner.low + inner.high) / 2 == 2.0**25)
    found = enclosed([first, node("MatMul", "h v")], x, stored)
    reach = float((inner.high - inner.low).sum()) / 2
    assert found.high[0, 0] >= 2.0**26 + reach + 2 * UNIT * 2.0**26
    assert found.low[0, 0] <= 2.0**26 - reach - 2 * UNIT * 2.0**26


CAST = helper.make_node("Cast", ["i"], ["y"], name="y", to=1)


def codes(*shape):
    return RNG.integers(-9, 10, size=shape).astype(np.int8)


def test_a_sum_of_stored_integers_is_exact():
    x, w = sample(3, 40), codes(40, 5)
    nodes = [node("QuantizeLinear", "x s zx", "q"), node("MatMulInteger", "q w zx", "i"), CAST]
    found = enclosed(nodes, x, {"s": 0.5, "zx": np.array(3, np.uint8), "w": w})
    whole = (np.clip(np.rint(x / 0.5) + 3, 0, 255) - 3) @ w.astype(np.float64)
    assert np.array_equal(found.low, whole)
    assert np.array_equal(found.high, whole)


def test_a_code_that_can_flip_moves_an_integer_sum_by_its_weight():
    # 0.1 * 5 is beside the tie of a quantizer of scale 1, and a sum of five terms.
    weights, w = np.full((5, 1), 0.1, FLOAT), np.array([[7, -2]], np.int8)
    nodes = [
        node("MatMul", "x v", "m"),
        node("QuantizeLinear", "m s zx", "q"),
        node("MatMulInteger", "q w zx zw", "i"),
        CAST,
    ]
    constants = {"v": weights, "s": 1.0, "w": w}
    constants |= {"zx": np.array(3, np.uint8), "zw": np.array(1, np.int8)}
    found = enclosed(nodes, np.ones((1, 5), FLOAT), constants)
    assert found.low.tolist() == [[0, -3]]
    assert found.high.tolist() == [[6, 0]]


@pytest.mark.parametrize(("scale", "flips"), [(0.25, False), (0.1, True)])
def test_the_factor_behind_an_integer_sum_rounds_a_code_only_beside_a_tie(scale, flips):
    # 5 * 1.0 * scale / 1.0 with a scale of 0.1 is half a code, up to the factor's roundings.
    byte = {"x_zero": np.uint8, "w_zero": np.int8, "y_zero": np.int8}
    constants = {name: np.array(0, kind) for name, kind in byte.items()}
    constants |= {"x_scale": 1.0, "w_scale": scale, "y_scale": 1.0}
    constants["w"] = np.full((1, 1, 1, 1), 5, np.int8)
    reads = "q x_scale x_zero w w_scale w_zero y_scale y_zero"
    nodes = [node("QuantizeLinear", "x x_scale x_zero", "q")]
    nodes += [node("QLinearConv", reads, "i"), CAST]
    found = enclosed(nodes, np.ones((1, 1, 1, 1), FLOAT), constants)
    assert int(found.low.item()) == (0 if flips else 1)
    assert int(found.high.item()) == 1


def test_a_bias_that_takes_a_sum_out_of_int32_has_no_bound():
    # 2^31 - 50 and a sum of 49 fit; one more does not.
    byte = {"x_zero": np.uint8, "w_zero": np.int8, "y_zero": np.uint8}
    constants = {name: np.array(0, kind) for name, kind in byte.items()}
    constants |= {"x_scale": 1.0, "w_scale": 1.0, "y_scale": 2.0**24}
    constants |= {
        "w": np.full((1, 1, 1, 1), 1, np.int8),
        "b": np.array([2**31 - 50], np.int32),
    }
    reads = "q x_scale x_zero w w_scale w_zero y_scale y_zero b"
    nodes = [node("QuantizeLinear", "x x_scale x_zero", "q")]
    nodes += [node("QLinearConv", reads, "i"), CAST]
    assert enclosed(nodes, np.full((1, 1, 1, 1), 49, FLOAT), constants).low.item() == 128
    with pytest.raises(UnboundedError):
        enclosed(nodes, np.full((1, 1, 1, 1), 50, FLOAT), constants)


def test_a_number_outside_of_its_own_ends_is_no_order_of_sums():
    ours, theirs = np.zeros((1, 2), FLOAT), np.array([[0.5, 2.0]], FLOAT)
    one = Enclosure(ours - 1, ours + 1, np.ones(ours.shape, np.bool_))
    assert unexplained(one, one, ours, theirs).tolist() == [[False, True]]
    assert unexplained(one, one, theirs, ours).tolist() == [[False, True]]


def test_a_bias_of_an_integer_layer_is_in_its_sum():
    byte = {"x_zero": np.uint8, "w_zero": np.int8, "y_zero": np.int8}
    constants = {name: np.array(0, kind) for name, kind in byte.items()}
    constants |= {"x_scale": 1.0, "w_scale": FLOAT([0.5, 0.25]), "y_scale": 1.0}
    constants |= {"w": codes(2, 3, 1, 1), "b": np.array([40, -12], np.int32)}
    reads = "q x_scale x_zero w w_scale w_zero y_scale y_zero b"
    nodes = [node("QuantizeLinear", "x x_scale x_zero", "q")]
    nodes += [node("QLinearConv", reads, "i"), CAST]
    x = np.rint(np.abs(sample(1, 3, 4, 4)) * 5).astype(FLOAT)
    found = enclosed(nodes, x, constants)
    total = np.einsum("oc,nchw->nohw", constants["w"][:, :, 0, 0].astype(np.float64), x)
    factor = np.array([0.5, 0.25], np.float64)[:, None, None]
    real = (total + constants["b"][:, None, None]) * factor
    inside = np.abs(real - np.floor(real) - 0.5) > 0.01
    assert inside.any()
    assert np.array_equal(found.low[inside], np.rint(real)[inside])
    assert np.array_equal(found.high[inside], np.rint(real)[inside])


@pytest.mark.parametrize(("name", "slope"), [("Gelu", 1.13), ("Mish", 1.1)])
def test_a_function_that_turns_reaches_by_its_slope_beyond_its_ends(name, slope):
    """Between two ends of which both lie above, it falls below: no end says so."""
    model = read_model(model_of([node(name, "x")], {"x": (1, 1)}, ["y"], {}, 22))
    bounds = SumEnclosures(SlicedGraph(model), live=True)
    ends = [np.array([[end]], dtype=FLOAT) for end in (-3.0, 0.5)]
    given = Enclosure(*ends, np.ones((1, 1), dtype=np.bool_))
    found = bounds._function(model.graph[0], [given])
    points = np.linspace(-3, 0.5, 101)
    made = (
        points / 2 * (1 + np.tanh(points * 0.8))
        if name == "Gelu"
        else points * np.tanh(np.log1p(np.exp(points)))
    )
    assert found.low.item() < made.min() < 0
    assert found.high.item() > made.max()
    # Each end moves by the slope times the distance of the other one, and no more.
    reach = slope * 3.5
    assert width(found).item() < 2 * reach + 0.5
