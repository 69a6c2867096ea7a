"""Proofs about whole models: public ones, their conversions, and conversions with a fault."""

from __future__ import annotations

import json

import numpy as np
import onnx_ir
import pytest
from onnx.helper import make_node

from qonnx_hub.equivalence.proof.prove import prove_models
from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_adapters.protocol import ExportOptions, export_options
from qonnx_hub_adapters.qcdq.exporter import QcdqExporter
from qonnx_hub_ir.errors import NotExactError
from tests.support import DOMAIN, SHARED, corpus, model_of, needs_shared, quant_node

FLOAT = np.float32
ZOO = ("TFC_1W1A", "TFC_2W2A", "kwsmlp_w3a3", "qkeras_jettagging")
ENCODINGS = ("auto", "qcdq", "qdq", "float")


def zoo(name):
    return read_model(SHARED / "models" / "zoo" / f"{name}.onnx")


def exported(model, encoding="auto"):
    return QcdqExporter().export(model, export_options(encoding=encoding)).model


def with_constant(model, name, change):
    """Return a copy with one initializer changed."""
    copy = model.clone()
    value = copy.graph.initializers[name]
    array = np.asarray(change(value.const_value.numpy().copy()))
    value.const_value = onnx_ir.tensor(array, name=name)
    return copy


def one_ulp_up(scale):
    return np.nextafter(scale, FLOAT(np.inf), dtype=FLOAT)


def alone(model, value, quantizer):
    """Return what one quantizer node of a model makes of a value, run by itself."""
    node = next(n for n in model.graph if n.name == quantizer)
    numbers = [v.const_value.numpy() for v in node.inputs[1:]]
    names = ["x", *(f"p{i}" for i in range(len(numbers)))]
    flags = {name: attr.value for name, attr in node.attributes.items()}
    single = make_node(node.op_type, names, ["y"], domain=DOMAIN, **flags)
    held = dict(zip(names[1:], numbers, strict=True))
    part = read_model(model_of([single], {"x": (1,)}, ["y"], held))
    return Session(part).run({"x": np.array([value], dtype=FLOAT)})["y"][0]


@needs_shared
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", ZOO)
def test_a_public_model_and_its_conversion_are_proven_equal(name, encoding):
    model = zoo(name)
    certificate = prove_models(model, exported(model, encoding))
    assert certificate.proven, certificate.unmatched
    quantizers = [n for n in model.graph if n.domain == DOMAIN]
    assert len(certificate.quantizers) == len(quantizers)
    assert all(proof.equal for proof in certificate.quantizers)
    assert certificate.counterexample is None


@needs_shared
@pytest.mark.parametrize(
    ("name", "quantizer"),
    [
        *(("TFC_2W2A", f"Quant_{n}") for n in (25, 49)),
        *(("TFC_1W1A", f"BipolarQuant_{n}") for n in (19, 35)),
        *(("kwsmlp_w3a3", f"Quant_{n}") for n in (3, 30)),
        *(("qkeras_jettagging", f"Quant_{n}") for n in (8, 9, 10)),
    ],
)
def test_one_ulp_of_an_activation_scale_is_refuted_where_it_is(name, quantizer):
    model = zoo(name)
    faulty = with_constant(exported(model), f"{quantizer}_scale", one_ulp_up)
    certificate = prove_models(model, faulty)
    assert not certificate.proven
    assert [p.name_a for p in certificate.quantizers if not p.equal] == [quantizer]
    found = certificate.counterexample
    # The reference's own quantizer says what is claimed; with the scale moved, the rest.
    assert alone(model, found.input_value, quantizer) == FLOAT(found.value_a)
    moved = model.clone()
    node = next(n for n in moved.graph if n.name == quantizer)
    scale = node.inputs[1]
    scale.const_value = onnx_ir.tensor(one_ulp_up(scale.const_value.numpy()), name=scale.name)
    assert alone(moved, found.input_value, quantizer) == FLOAT(found.value_b)


@needs_shared
@pytest.mark.parametrize(
    ("name", "quantizer"),
    [
        ("TFC_2W2A", "Quant_49"),
        ("TFC_1W1A", "BipolarQuant_35"),
        ("kwsmlp_w3a3", "Quant_3"),
        ("kwsmlp_w3a3", "Quant_43"),
        ("qkeras_jettagging", "Quant_8"),
        ("qkeras_jettagging", "Quant_10"),
    ],
)
def test_a_feed_that_is_found_shows_the_difference_when_run(name, quantizer):
    model = zoo(name)
    faulty = with_constant(exported(model), f"{quantizer}_scale", one_ulp_up)
    feeds = prove_models(model, faulty).counterexample.feeds
    assert feeds is not None
    first, second = (next(iter(Session(m).run(feeds).values())) for m in (model, faulty))
    assert not np.array_equal(first, second)


@needs_shared
def test_a_changed_weight_is_refuted_by_its_value():
    model = zoo("qkeras_jettagging")

    def one_code_up(codes):
        codes[3, 2] += 1
        return codes

    certificate = prove_models(
        model, with_constant(exported(model), "Quant_0_integers", one_code_up)
    )
    found = certificate.counterexample
    assert not certificate.proven
    assert found.layer == "Quant_0_out0"
    assert found.input_value is None
    # One code of this weight is 2**-5.
    assert found.value_b - found.value_a == 2.0**-5
    assert "[3, 2]" in certificate.unmatched[0]


def shared_paths():
    return [path / "model.onnx" for path in corpus("qonnx")]


@needs_shared
@pytest.mark.parametrize("path", shared_paths()[::9], ids=lambda path: path.parent.name)
def test_an_export_of_brevitas_and_its_conversions_are_proven_equal(path):
    model = read_model(path)
    for encoding in ENCODINGS:
        try:
            converted = exported(model, encoding)
        except NotExactError:
            continue
        certificate = prove_models(model, converted)
        assert certificate.proven, (encoding, certificate.unmatched)


@needs_shared
@pytest.mark.parametrize("stem", ["ident_i4", "relu_u4", "linear_w4", "tfc_2w2a"])
def test_two_exporters_of_one_network_are_proven_equal(stem):
    # Brevitas wrote both files: QONNX, and its own QuantizeLinear and DequantizeLinear.
    folder = SHARED / "corpus" / "brevitas"
    pair = [
        read_model(folder / f"{stem}__{form}_ts" / "model.onnx") for form in ("qonnx", "qcdq")
    ]
    certificate = prove_models(*pair)
    assert certificate.proven, certificate.unmatched


@needs_shared
def test_an_odd_zero_point_is_the_difference_between_two_exporters():
    folder = SHARED / "corpus" / "brevitas"
    pair = [
        read_model(folder / f"ident_shifted_u8__{form}_ts" / "model.onnx")
        for form in ("qonnx", "qcdq")
    ]
    certificate = prove_models(*pair)
    assert not certificate.proven
    feeds = certificate.counterexample.feeds
    first = next(iter(Session(pair[0]).run(feeds).values()))
    other = dict(zip(Session(pair[1]).input_names, feeds.values(), strict=True))
    second = next(iter(Session(pair[1]).run(other).values()))
    assert not np.array_equal(first, second)


@needs_shared
def test_channels_last_operators_are_compared_as_exporters_write_them():
    model = read_model(
        SHARED / "models" / "hls4ml_examples" / "separable_conv_model_ch_last.onnx"
    )
    assert prove_models(model, exported(model)).proven


CONSTANTS = {
    "one": 1.0,
    "s": 0.25,
    "z": 0.0,
    "b": 4.0,
    "w": np.array([[0.3, -0.2], [0.1, 0.7]], dtype=FLOAT),
    "c": np.array([0.1, -0.4], dtype=FLOAT),
}


def small(nodes, **changes):
    held = {**CONSTANTS, **changes}
    used = {name for node in nodes for name in node.input}
    constants = {name: value for name, value in held.items() if name in used}
    return read_model(model_of(nodes, {"x": (1, 2)}, ["y"], constants))


def residual(**changes):
    """Return two layers whose input is added to their output, quantized in between."""
    nodes = [
        quant_node("x", "q0"),
        make_node("MatMul", ["q0", "w"], ["m0"], name="first"),
        make_node("Add", ["m0", "c"], ["a0"], name="bias"),
        make_node("Relu", ["a0"], ["r0"]),
        quant_node("r0", "q1", signed=0),
        make_node("MatMul", ["q1", "w"], ["m1"], name="second"),
        quant_node("m1", "q2"),
        make_node("Add", ["q2", "q0"], ["y"], name="sum"),
    ]
    return small(nodes, **changes)


@pytest.mark.parametrize("encoding", ["auto", "float"])
def test_a_residual_network_is_proven(encoding):
    model = residual()
    certificate = prove_models(model, exported(model, encoding))
    assert certificate.proven
    assert len(certificate.quantizers) == 3


def test_a_bias_that_differs_is_named_and_not_the_quantizer_behind_it():
    certificate = prove_models(
        residual(), exported(residual(c=np.array([0.1, -0.5], dtype=FLOAT)))
    )
    found = certificate.counterexample
    assert (found.layer, found.value_a, found.value_b) == ("c", FLOAT(-0.4), FLOAT(-0.5))
    assert all(proof.equal for proof in certificate.quantizers)


def test_outputs_of_another_shape_differ():
    nodes = [make_node("Expand", ["x", "n"], ["y"])]
    pair = [small(nodes, n=np.array([rows, 2], dtype=np.int64)) for rows in (2, 3)]
    found = prove_models(*pair).counterexample
    assert (found.layer, found.value_a, found.value_b) == ("n", 2.0, 3.0)
    assert found.feeds is not None


def test_one_difference_does_not_hide_the_next():
    model = residual()
    faulty = exported(model)
    for name in ("q0_scale", "q2_scale"):
        faulty = with_constant(faulty, name, one_ulp_up)
    wrong = [p.name_a for p in prove_models(model, faulty).quantizers if not p.equal]
    assert wrong == ["q0", "q2"]


def test_what_follows_a_difference_does_not_count_as_matched():
    model = residual()
    faulty = with_constant(exported(model), "q0_scale", one_ulp_up)
    assert prove_models(model, faulty).matched == 0
    assert prove_models(model, exported(model)).matched == 8


def test_a_quantizer_left_out_is_refuted():
    a = small([quant_node("x", "q"), make_node("MatMul", ["q", "w"], ["y"])])
    b = small([make_node("MatMul", ["x", "w"], ["y"])])
    certificate = prove_models(a, b)
    found = certificate.counterexample
    assert not certificate.proven
    assert found.value_b == found.input_value != found.value_a


def test_a_quantizer_applied_twice_is_proven_to_be_applied_once():
    twice = [
        quant_node("x", "q"),
        quant_node("q", "p"),
        make_node("MatMul", ["p", "w"], ["y"]),
    ]
    once = [quant_node("x", "q"), make_node("MatMul", ["q", "w"], ["y"])]
    assert prove_models(small(twice), exported(small(once))).proven
    assert prove_models(small(once), exported(small(twice))).proven


def test_a_relu_in_front_of_an_unsigned_quantizer_is_proven_superfluous():
    with_relu = [
        make_node("Relu", ["x"], ["r"]),
        quant_node("r", "q", signed=0),
        make_node("MatMul", ["q", "w"], ["y"]),
    ]
    without = [quant_node("x", "q", signed=0), make_node("MatMul", ["q", "w"], ["y"])]
    assert prove_models(small(with_relu), exported(small(without))).proven


def test_a_relu_in_front_of_a_signed_quantizer_is_not():
    with_relu = [
        make_node("Relu", ["x"], ["r"]),
        quant_node("r", "q"),
        make_node("MatMul", ["q", "w"], ["y"]),
    ]
    without = [quant_node("x", "q"), make_node("MatMul", ["q", "w"], ["y"])]
    certificate = prove_models(small(with_relu), exported(small(without)))
    assert not certificate.proven
    assert certificate.counterexample.input_value < 0


def test_swapped_summands_are_the_same_sum():
    one = [make_node("MatMul", ["x", "w"], ["m"]), make_node("Add", ["m", "x"], ["y"])]
    other = [make_node("MatMul", ["x", "w"], ["m"]), make_node("Add", ["x", "m"], ["y"])]
    assert prove_models(small(one), small(other)).proven


def test_a_swapped_difference_is_another_one():
    one = [make_node("MatMul", ["x", "w"], ["m"]), make_node("Sub", ["m", "x"], ["y"])]
    other = [make_node("MatMul", ["x", "w"], ["m"]), make_node("Sub", ["x", "m"], ["y"])]
    certificate = prove_models(small(one), small(other))
    assert not certificate.proven
    assert certificate.unmatched == ("Sub 'Sub_0' has no counterpart",)


def test_a_gemm_is_a_product_and_a_sum_and_that_is_assumed():
    gemm = [make_node("Gemm", ["x", "w", "c"], ["y"], transB=1)]
    parts = [
        make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
        make_node("MatMul", ["x", "t"], ["m"]),
        make_node("Add", ["m", "c"], ["y"]),
    ]
    certificate = prove_models(small(gemm), small(parts))
    assert certificate.proven
    assert any("Gemm as Add" in line for line in certificate.assumptions)


def test_the_transposed_weight_is_another_weight():
    gemm = [make_node("Gemm", ["x", "w", "c"], ["y"], transB=1)]
    plain = [make_node("Gemm", ["x", "w", "c"], ["y"])]
    assert not prove_models(small(gemm), small(plain)).proven


@pytest.mark.parametrize(
    ("op_type", "one", "other"),
    [
        ("LeakyRelu", {"alpha": 0.01}, {"alpha": 0.02}),
        ("Softmax", {"axis": 0}, {"axis": 1}),
    ],
)
def test_another_attribute_is_another_operator(op_type, one, other):
    pair = [small([make_node(op_type, ["x"], ["y"], **given)]) for given in (one, other)]
    assert not prove_models(*pair).proven


def test_a_default_that_is_written_out_is_the_same_operator():
    pair = [
        small([make_node("Softmax", ["x"], ["y"])]),
        small([make_node("Softmax", ["x"], ["y"], axis=-1)]),
    ]
    assert prove_models(*pair).proven


def test_random_operators_are_never_proven():
    nodes = [make_node("RandomNormalLike", ["x"], ["n"]), make_node("Add", ["n", "x"], ["y"])]
    model = small(nodes)
    assert not prove_models(model, model.clone()).proven


def test_masks_of_dropouts_are_not_taken_for_other_outputs():
    nodes = [
        make_node("Split", ["x"], ["l", "r"], axis=1, num_outputs=2),
        make_node("Concat", ["l", "r"], ["y"], axis=1),
    ]
    swapped = [nodes[0], make_node("Concat", ["r", "l"], ["y"], axis=1)]
    assert prove_models(small(nodes), small(nodes)).proven
    assert not prove_models(small(nodes), small(swapped)).proven


def test_a_division_by_a_quantized_value_rests_on_no_zero_of_another_sign():
    nodes = [quant_node("x", "q"), make_node("Div", ["one", "q"], ["y"])]
    model = small(nodes)
    certificate = prove_models(model, exported(model))
    assert certificate.proven
    assert any("zero" in line and "Div" in line for line in certificate.assumptions)


def test_two_opsets_of_one_operator_are_assumed_to_agree():
    nodes = [quant_node("x", "q"), make_node("Transpose", ["q"], ["y"], perm=[1, 0])]
    model = small(nodes)
    newer = QcdqExporter().export(model, ExportOptions(opset=21)).model
    certificate = prove_models(model, newer)
    assert certificate.proven
    assert any("Transpose" in line for line in certificate.assumptions)


def test_outputs_that_change_places_are_not_proven():
    nodes = [make_node("Neg", ["x"], ["n"]), make_node("Relu", ["x"], ["r"])]
    a = read_model(model_of(nodes, {"x": (1, 2)}, ["n", "r"]))
    b = read_model(model_of(nodes, {"x": (1, 2)}, ["r", "n"]))
    assert prove_models(a, b).proven  # matched by name
    renamed = [make_node("Neg", ["x"], ["p"]), make_node("Relu", ["x"], ["q"])]
    c = read_model(model_of(renamed, {"x": (1, 2)}, ["q", "p"]))
    assert not prove_models(a, c).proven


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [({"x": (1, 2), "u": (1, 2)}, ["y"]), ({"x": (1, 2)}, ["y", "v"]), ({"x": (2, 2)}, ["y"])],
    ids=["one input more", "one output more", "another shape"],
)
def test_models_of_another_interface_are_not_compared(inputs, outputs):
    nodes = [make_node("Neg", ["x"], ["y"])]
    if "u" in inputs:
        nodes = [make_node("Add", ["x", "u"], ["y"])]
    if "v" in outputs:
        nodes.append(make_node("Abs", ["x"], ["v"]))
    a = small([make_node("Neg", ["x"], ["y"])])
    certificate = prove_models(a, read_model(model_of(nodes, inputs, outputs)))
    assert not certificate.proven
    assert len(certificate.unmatched) == 1


def test_a_certificate_is_plain_data():
    model = residual()
    faulty = with_constant(exported(model), "q2_scale", one_ulp_up)
    for certificate in (prove_models(model, exported(model)), prove_models(model, faulty)):
        data = json.loads(json.dumps(certificate.to_dict(), allow_nan=False))
        assert data["proven"] is certificate.proven
        assert len(data["quantizers"]) == 3
    assert data["counterexample"]["feeds"]["x"]["shape"] == [1, 2]
    assert len(data["counterexample"]["feeds"]["x"]["values"]) == 2


def test_a_quantizer_in_both_models_needs_no_table():
    certificate = prove_models(residual(), residual())
    assert certificate.proven
    assert [proof.thresholds for proof in certificate.quantizers] == [0, 0, 0]


def test_a_proven_certificate_counts_as_true():
    model = residual()
    assert prove_models(model, model.clone())


@pytest.mark.parametrize(
    ("op_type", "count", "proven"),
    [
        ("Sum", 2, True),
        ("Sum", 3, False),
        ("Max", 3, True),
        ("Add", 2, True),
        ("Sub", 2, False),
    ],
)
def test_operands_that_change_places_are_equal_where_no_rounding_can_differ(
    op_type, count, proven
):
    # 1 + 1e8 - 1e8 is 0 from the left and 1 from the right: three terms have an order.
    names = [f"x{index}" for index in range(count)]
    inputs = dict.fromkeys(names, (1,))
    pair = [
        read_model(model_of([make_node(op_type, order, ["y"])], inputs, ["y"], {}))
        for order in (names, names[::-1])
    ]
    assert prove_models(*pair).proven is proven
