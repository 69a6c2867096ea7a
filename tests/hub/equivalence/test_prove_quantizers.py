"""Proofs about one quantizer: agreement with brute force, and wrong siblings told apart."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.helper import make_node

from qonnx_hub.equivalence.proof.prove import prove_models
from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_adapters.protocol import export_options
from qonnx_hub_adapters.qcdq.exporter import QcdqExporter
from qonnx_hub_adapters.qonnx.exporter import QonnxExporter
from qonnx_hub_ir.thresholds import key_range, keys_of, values_of
from tests.support import DOMAIN, model_of, quant_node

FLOAT = np.float32
STRETCH = 1 << 20
MODES = ["ROUND", "CEIL", "FLOOR", "UP", "DOWN", "HALF_UP", "HALF_DOWN"]


def quant_model(scale, zero=0.0, bits=4.0, shape=(1, 4), **attributes):
    constants = {"s": np.asarray(scale, dtype=FLOAT), "z": zero, "b": bits}
    return read_model(
        model_of([quant_node("x", "y", **attributes)], {"x": shape}, ["y"], constants)
    )


def qcdq_model(scale, zero, low, high, shape=(1, 4)):
    """Return QuantizeLinear, Clip, DequantizeLinear: the zero point comes after rounding."""
    nodes = [
        make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        make_node("Clip", ["q", "low", "high"], ["c"]),
        make_node("DequantizeLinear", ["c", "s", "z"], ["y"], name="dq"),
    ]
    kind = np.int8 if low < 0 else np.uint8
    constants = {
        "s": scale,
        "z": np.asarray(zero, dtype=kind),
        "low": np.asarray(low, dtype=kind),
        "high": np.asarray(high, dtype=kind),
    }
    return read_model(model_of(nodes, {"x": shape}, ["y"], constants))


def exported(model, encoding="auto", **options):
    return QcdqExporter().export(model, export_options(encoding=encoding, **options)).model


def run(model, values, shape=(1, 4)):
    """Return what a model with one elementwise output makes of one value in every place."""
    x = np.broadcast_to(
        np.asarray(values, dtype=FLOAT).reshape(-1, 1), (len(values), shape[1])
    )
    return Session(model).run({"x": np.ascontiguousarray(x)})["y"]


def stretch_around(value):
    lowest, highest = key_range()
    centre = int(keys_of(np.array([value], dtype=FLOAT))[0])
    start = min(max(centre - STRETCH // 2, lowest), highest - STRETCH)
    return values_of(np.arange(start, start + STRETCH, dtype=np.int64))


def require_real(certificate, a, b):
    """Fail unless both counterexamples show what they say, when the models are run."""
    found = certificate.counterexample
    assert found is not None
    assert run(a, [found.input_value])[0, 0] == FLOAT(found.value_a)
    assert run(b, [found.input_value])[0, 0] == FLOAT(found.value_b)
    assert found.value_a != found.value_b
    assert found.feeds is not None
    assert not np.array_equal(*(Session(m).run(found.feeds)["y"] for m in (a, b)))


def bounds(bits, signed, narrow):
    # By the operator document, for whole bit widths.
    if signed:
        return -(2 ** (bits - 1)) + narrow, 2 ** (bits - 1) - 1
    return 0, 2**bits - 1 - narrow


plain = st.fixed_dictionaries(
    {
        "scale": st.floats(2.0**-8, 4.0, width=32),
        "bits": st.integers(2, 8),
        "signed": st.integers(0, 1),
        "narrow": st.integers(0, 1),
    }
)


@settings(max_examples=15)
@given(plain, st.data())
def test_a_plain_encoding_is_proven_and_brute_force_agrees(form, data):
    low, high = bounds(form["bits"], form["signed"], form["narrow"])
    flags = {name: form[name] for name in ("signed", "narrow")}
    a = quant_model(form["scale"], bits=form["bits"], shape=("N", 1), **flags)
    b = qcdq_model(form["scale"], 0, low, high, shape=("N", 1))
    certificate = prove_models(a, b)
    assert certificate.proven
    assert certificate.quantizers[0].thresholds == high - low
    tie = FLOAT(form["scale"]) * FLOAT(data.draw(st.integers(low, high)) + 0.5)
    values = stretch_around(tie)
    assert np.array_equal(run(a, values, (1, 1)), run(b, values, (1, 1)))


@settings(max_examples=25)
@given(
    scale=st.floats(2.0**-8, 4.0, width=32),
    zero=st.sampled_from([0.0, 0.0, 1.0, 3.0, 6.0, 0.5]),
    bits=st.integers(1, 8),
    signed=st.booleans(),
    mode=st.sampled_from(MODES),
    encoding=st.sampled_from(["auto", "float"]),
)
def test_every_exact_encoding_is_proven(scale, zero, bits, signed, mode, encoding):
    a = quant_model(scale, zero, bits, signed=int(signed), rounding_mode=mode)
    certificate = prove_models(a, exported(a, encoding))
    assert certificate.proven, certificate.unmatched


@settings(max_examples=15)
@given(plain.filter(lambda f: f["bits"] > 2), st.sampled_from([1, 3, 4, 2]))
def test_a_zero_point_added_after_rounding_is_refuted_exactly_when_it_matters(form, zero):
    low, high = bounds(form["bits"], 0, form["narrow"])
    a = quant_model(form["scale"], zero, form["bits"], signed=0, narrow=form["narrow"])
    b = qcdq_model(form["scale"], zero, low, high)
    certificate = prove_models(a, b)
    ties = (np.arange(low - zero, high - zero, dtype=FLOAT) + FLOAT(0.5)) * FLOAT(
        form["scale"]
    )
    near = np.concatenate([values_of(keys_of(ties) + step) for step in (-1, 0, 1)])
    differ = bool(np.any(run(a, near) != run(b, near)))
    assert certificate.proven is not differ
    if differ:
        require_real(certificate, a, b)


@pytest.mark.parametrize(
    "sibling",
    [
        {"narrow": 1},
        {"rounding_mode": "HALF_UP"},
        {"rounding_mode": "HALF_DOWN"},
        {"bits": 5.0},
        {"signed": 0},
        {"scale": np.nextafter(FLOAT(0.37), FLOAT(1))},
        {"scale": np.nextafter(FLOAT(0.37), FLOAT(0))},
        {"zero": 1.0},
        {"zero": 2.0**-24},
    ],
    ids=lambda sibling: str(next(iter(sibling.items()))),
)
@pytest.mark.parametrize("encoding", ["auto", "float"])
def test_a_wrong_sibling_is_refuted_with_an_input_that_shows_it(sibling, encoding):
    form = {"scale": FLOAT(0.37), "zero": 0.0, "bits": 4.0}
    a = quant_model(**form)
    b = exported(quant_model(**{**form, **sibling}), encoding)
    certificate = prove_models(a, b)
    assert not certificate.proven
    if sibling.get("zero") != 2.0**-24:
        require_real(certificate, a, b)
        return
    # Such a shift moves a threshold by a float or two, which no random sample meets.
    found = certificate.counterexample
    assert run(a, [found.input_value])[0, 0] != run(b, [found.input_value])[0, 0]


def test_the_channel_with_the_moved_scale_is_named():
    scale = np.array([[0.1, 0.2, 0.3, 0.4]], dtype=FLOAT)
    moved = scale.copy()
    moved[0, 2] = np.nextafter(moved[0, 2], FLOAT(1))
    certificate = prove_models(quant_model(scale), exported(quant_model(moved)))
    proof = certificate.quantizers[0]
    assert not proof.equal
    assert proof.channels == 4
    assert proof.counterexample is not None
    assert proof.counterexample.channel == 2


def test_channels_are_proven_one_by_one():
    a = quant_model(np.array([[0.1, 0.2, 0.3, 0.4]], dtype=FLOAT), bits=8.0)
    proof = prove_models(a, exported(a)).quantizers[0]
    assert (proof.equal, proof.channels, proof.thresholds) == (True, 4, 4 * 255)


def test_a_scale_of_several_axes_is_proven_place_by_place():
    scale = np.linspace(0.1, 0.9, 8, dtype=FLOAT).reshape(2, 4)
    a = quant_model(scale, shape=(2, 4))
    certificate = prove_models(a, exported(a, "qdq"))
    assert certificate.proven
    assert certificate.quantizers[0].channels == 8


def test_another_answer_to_nan_is_an_assumption_not_a_difference():
    a = quant_model(0.37)
    certificate = prove_models(a, qcdq_model(0.37, 0, -8, 7))
    assert certificate.proven
    assert not certificate.quantizers[0].nan_equal
    assert any("NaN" in line and "'dq'" in line for line in certificate.assumptions)
    assert not any("NaN" in line for line in prove_models(a, exported(a, "float")).assumptions)


def test_a_bipolar_quantizer_is_proven():
    nodes = [make_node("BipolarQuant", ["x", "s"], ["y"], domain=DOMAIN)]
    a = read_model(model_of(nodes, {"x": (1, 4)}, ["y"], {"s": 0.3}))
    assert prove_models(a, exported(a)).proven


def test_the_sign_operator_is_no_bipolar_quantizer():
    nodes = [make_node("BipolarQuant", ["x", "s"], ["y"], domain=DOMAIN)]
    a = read_model(model_of(nodes, {"x": (1, 4)}, ["y"], {"s": 1.0}))
    b = read_model(model_of([make_node("Sign", ["x"], ["y"])], {"x": (1, 4)}, ["y"]))
    certificate = prove_models(a, b)
    found = certificate.counterexample
    assert not certificate.proven
    assert (found.input_value, found.value_a, found.value_b) == (0.0, 1.0, 0.0)


@pytest.mark.parametrize("encoding", ["auto", "float"])
@pytest.mark.parametrize(("bits", "limit"), [((4, 3, 7), 448.0), ((2, 1, 1), 6.0)])
def test_a_minifloat_is_proven_against_float_operators(encoding, bits, limit):
    names = ["x", "s", "e", "m", "bias", "max"]
    node = make_node("FloatQuant", names, ["y"], domain=DOMAIN, rounding_mode="ROUND")
    constants = dict(zip(names[1:], [0.75, *bits, limit], strict=True))
    a = read_model(model_of([node], {"x": (1, 4)}, ["y"], constants))
    assert prove_models(a, exported(a, encoding)).proven


def test_a_truncation_is_proven_against_float_operators():
    names = ["x", "s", "z", "ib", "os", "ob"]
    node = make_node("Trunc", names, ["y"], domain=DOMAIN, rounding_mode="FLOOR")
    constants = {"s": 0.25, "z": 0.0, "ib": 8.0, "os": 2.0, "ob": 4.0}
    a = read_model(model_of([node], {"x": (1, 4)}, ["y"], constants))
    certificate = prove_models(a, exported(a))
    assert certificate.proven
    assert certificate.quantizers[0].thresholds == 15


def test_half_floats_are_proven_on_all_of_them():
    nodes = [
        make_node("Cast", ["x"], ["half"], to=10),
        quant_node("half", "q"),
        make_node("Cast", ["q"], ["y"], to=1),
    ]
    constants = {"s": 0.3, "z": 1.0, "b": 4.0}
    a = read_model(model_of(nodes, {"x": (1, 4)}, ["y"], constants))
    assert prove_models(a, exported(a)).proven


@pytest.mark.parametrize("bits", [24.0, 32.0])
def test_levels_beyond_counting_are_proven_by_the_formula(bits):
    a = quant_model(0.37, bits=bits)
    certificate = prove_models(a, exported(a))
    assert certificate.proven
    assert certificate.quantizers[0].thresholds == 0


@pytest.mark.parametrize("mode", ["ROUND", "CEIL", "HALF_UP"])
@pytest.mark.parametrize("size", [(), (1,), (4,)])
def test_a_scale_computed_at_run_time_is_proven_by_the_formula(mode, size):
    nodes = [quant_node("x", "y", rounding_mode=mode)]
    model = model_of(nodes, {"x": (1, 4), "s": size}, ["y"], {"z": 0.0, "b": 4.0})
    a = read_model(model)
    certificate = prove_models(a, exported(a))
    assert certificate.proven, certificate.unmatched
    assert certificate.quantizers


def test_a_run_time_scale_with_other_bounds_is_not_proven():
    nodes = [quant_node("x", "y")]
    a, b = (
        read_model(model_of(nodes, {"x": (1, 4), "s": (1,)}, ["y"], {"z": 0.0, "b": bits}))
        for bits in (4.0, 5.0)
    )
    assert not prove_models(a, exported(b)).proven


def test_more_channels_than_can_be_listed_are_not_called_proven():
    scale = np.linspace(0.1, 0.9, 64, dtype=FLOAT).reshape(1, 64)
    a = quant_model(scale, bits=16.0, shape=(1, 64))
    certificate = prove_models(a, exported(a))
    assert not certificate.proven
    assert certificate.counterexample is None
    assert "not enumerated" in certificate.unmatched[0]


def test_a_rounding_that_is_chosen_by_a_condition_is_proven():
    """No plain QONNX reader knows DPU: Where takes Ceil at the ties below zero, else Round."""
    source = quant_model(0.367, rounding_mode="DPU")
    written = QonnxExporter().export(source, export_options()).model
    assert "Where" in {node.op_type for node in written.graph}
    assert prove_models(quant_model(0.367, rounding_mode="DPU"), written).proven
    assert not prove_models(quant_model(0.367, rounding_mode="ROUND"), written).proven
