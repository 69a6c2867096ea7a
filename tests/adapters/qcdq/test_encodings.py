"""Every encoding of a quantizer computes what it computes: bit for bit, ties included.

Expected values come from the numpy definition of the quantizers, which has tests of its own
against the qonnx package; the encodings run on onnxruntime and on our executor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import qonnx_hub as qh
from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.protocol import ExportOptions, export_options
from qonnx_hub_adapters.qcdq.exporter import QcdqExporter
from qonnx_hub_ir.errors import NotExactError, UsageError
from qonnx_hub_ir.quantizers import FloatQuant, IntQuant, Rounding, Trunc, integer_bounds
from qonnx_hub_ir.semantics import quantize
from tests.support import DOMAIN, model_of, quant_node

CHANNELS = 3


def _critical(quant: IntQuant) -> np.ndarray:
    """Return values on ties and codes, four floats to either side, and far out."""
    bits = int(np.max(quant.bits))  # type: ignore[arg-type]
    low, high = integer_bounds(bits, signed=quant.signed, narrow=quant.narrow)
    rng = np.random.default_rng(bits)
    ends = [low - 1, low, low + 1, high - 1, high, high + 1, 0, 1, -1]
    codes = np.unique([*ends, *rng.integers(low, high + 1, 24)]).astype(np.float64)
    halves = np.concatenate([codes, codes + 0.5])
    columns = []
    scale = np.broadcast_to(np.asarray(quant.scale).reshape(-1), (CHANNELS,))
    zero = np.broadcast_to(np.asarray(quant.zero_point).reshape(-1), (CHANNELS,))
    for s, z in zip(scale.astype(np.float64), zero.astype(np.float64), strict=True):
        exact = ((halves - z) * s).astype(np.float32)
        steps = [exact]
        for direction in (np.inf, -np.inf):
            near = exact
            for _ in range(4):
                near = np.nextafter(near, np.float32(direction))
                steps.append(near)
        far = np.array([0.0, -0.0, 1e30, -1e30, np.inf, -np.inf, 1e-42], dtype=np.float32)
        columns.append(np.concatenate([*steps, far]))
    return np.stack(columns, axis=1)


def _model(quant: IntQuant, shape: tuple[Any, ...]) -> Any:
    node = quant_node(
        "x",
        "y",
        signed=int(quant.signed),
        narrow=int(quant.narrow),
        rounding_mode=str(quant.rounding),
    )
    constants = {"s": quant.scale, "z": quant.zero_point, "b": quant.bits}
    return qh.load(model_of([node], {"x": shape}, ["y"], constants))


def _answers(
    model: Any, x: np.ndarray, **options: Any
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the exported file's answers on our executor and on onnxruntime."""
    artifact = QcdqExporter().export(model, export_options(**options))
    assert all(record.exact for record in artifact.quantizers)
    message = artifact.to_proto()
    ours = Session(qh.load(message, "qonnx")).run({"x": x})["y"]
    try:
        import onnxruntime as ort
    except ImportError:
        return ours, None
    session = ort.InferenceSession(message.SerializeToString())
    return ours, session.run(None, {"x": x})[0]


def _assert_same(model: Any, quant: Any, x: np.ndarray, **options: Any) -> None:
    expected = quantize(x, quant)
    ours, theirs = _answers(model, x, **options)
    np.testing.assert_array_equal(ours, expected)
    if theirs is not None:
        np.testing.assert_array_equal(theirs, expected)


scales = st.one_of(
    st.sampled_from([1.0, 0.5, 2.0**-7, 4.0]),
    st.floats(2.0**-13, 50.0, width=32),
)
zeros = st.one_of(
    st.just(0.0),
    st.integers(-6, 6).map(float),
    st.sampled_from([0.5, -1.25, 127.0, 200.0]),
)


@st.composite
def quantizers(draw: st.DrawFn) -> IntQuant:
    """Draw any integer quantizer: per tensor, per channel, any mode, any zero point."""
    bits = draw(st.integers(1, 32))
    signed = draw(st.booleans())
    narrow = draw(st.booleans()) and bits > 1
    granular = draw(st.sampled_from(["tensor", "one", "channel"]))
    count = CHANNELS if granular == "channel" else 1
    scale = np.array([draw(scales) for _ in range(count)], dtype=np.float32)
    zero = np.array([draw(zeros) for _ in range(count)], dtype=np.float32)
    if granular == "tensor":
        scale, zero = scale.reshape(()), zero.reshape(())
    mode = draw(st.sampled_from(list(Rounding)))
    return IntQuant(scale, zero, np.array(bits, dtype=np.float32), signed, narrow, mode)


def _plain(bits: int, zero: float = 0.0, **flags: Any) -> IntQuant:
    scale = np.array(0.1, dtype=np.float32)
    return IntQuant(scale, np.array(zero, np.float32), np.array(bits, np.float32), **flags)


@settings(max_examples=150)
@given(quantizers())
@example(_plain(8))
@example(_plain(8, zero=3.0))
@example(_plain(4, narrow=True))
@example(_plain(1))
@example(_plain(1, signed=False))
@example(_plain(16))
@example(_plain(32))
@example(_plain(3, rounding=Rounding.DPU))
def test_the_exporters_choice_is_exact(quant: IntQuant) -> None:
    _assert_same(_model(quant, ("N", CHANNELS)), quant, _critical(quant))


@settings(max_examples=40)
@given(quantizers())
@example(_plain(8))
def test_float_operators_are_exact_and_keep_nan(quant: IntQuant) -> None:
    x = _critical(quant)
    if not (quant.signed and np.max(np.asarray(quant.bits)) == 1):
        x = np.concatenate([x, np.full((1, CHANNELS), np.nan, dtype=np.float32)])
    _assert_same(_model(quant, ("N", CHANNELS)), quant, x, encoding="float")


@settings(max_examples=60)
@given(quantizers(), st.sampled_from(["qcdq", "qdq"]))
@example(_plain(4), "qdq")
@example(_plain(2, narrow=True), "qdq")
def test_a_forced_encoding_is_exact_or_refused(quant: IntQuant, encoding: str) -> None:
    model = _model(quant, ("N", CHANNELS))
    if QcdqExporter().gaps(model):
        raise AssertionError("the exporter's own choice has no gaps")
    try:
        QcdqExporter().export(model, export_options(encoding=encoding))
    except NotExactError as error:
        assume(not error.gaps)
        raise
    _assert_same(model, quant, _critical(quant), encoding=encoding)


@settings(max_examples=40)
@given(quantizers(), st.sampled_from(["int8", "int4", "int2", "float"]))
def test_a_weight_keeps_its_values(quant: IntQuant, stored: str) -> None:
    weight = _critical(quant)
    node = quant_node(
        "w",
        "y",
        signed=int(quant.signed),
        narrow=int(quant.narrow),
        rounding_mode=str(quant.rounding),
    )
    nodes = [node, helper.make_node("Add", ["y", "x"], ["sum"])]
    constants = {"s": quant.scale, "z": quant.zero_point, "b": quant.bits, "w": weight}
    model = qh.load(model_of(nodes, {"x": (1, CHANNELS)}, ["sum"], constants))
    message = QcdqExporter().export(model, export_options(stored_weights=stored)).to_proto()
    feeds = {"x": np.zeros((1, CHANNELS), dtype=np.float32)}
    expected = quantize(weight, quant)
    np.testing.assert_array_equal(
        Session(qh.load(message, "qonnx")).run(feeds)["sum"], expected
    )
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(message.SerializeToString())
    np.testing.assert_array_equal(session.run(None, feeds)[0], expected)


@pytest.mark.parametrize("shape", [(4, 1, 5), (1, 3, 5), (4, 3, 1), (4, 3, 5)])
@pytest.mark.parametrize("encoding", ["auto", "qdq"])
def test_a_scale_along_several_axes_is_exact(shape: tuple[int, ...], encoding: str) -> None:
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.01, 2, shape).astype(np.float32)
    quant = IntQuant(scale, np.array(0, np.float32), np.array(5, np.float32))
    x = rng.normal(0, 4, (4, 3, 5)).astype(np.float32)
    x.reshape(-1)[:20] = (np.broadcast_to(scale, x.shape).reshape(-1)[:20]) * np.float32(2.5)
    _assert_same(_model(quant, (4, 3, 5)), quant, x, encoding=encoding)


@pytest.mark.parametrize("kind", ["scale", "zero point", "bits", "all"])
def test_parameters_computed_at_run_time_are_exact(kind: str) -> None:
    names = {"s": "scale", "z": "zero point", "b": "bits"}
    values = {"s": 0.3, "z": -2.0, "b": 3.0}
    fed = [n for n, label in names.items() if kind in (label, "all")]
    constants = {n: v for n, v in values.items() if n not in fed}
    inputs: dict[str, tuple[Any, ...]] = {"x": ("N",), **dict.fromkeys(fed, ())}
    model = qh.load(model_of([quant_node("x", "y")], inputs, ["y"], constants))
    quant = IntQuant(*(np.array(v, dtype=np.float32) for v in values.values()))
    x = np.unique(_critical(quant)[:, 0])
    message = QcdqExporter().export(model, ExportOptions()).to_proto()
    feeds = {"x": x, **{n: np.array(values[n], dtype=np.float32) for n in fed}}
    expected = quantize(x, quant)
    np.testing.assert_array_equal(Session(qh.load(message, "qonnx")).run(feeds)["y"], expected)
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(message.SerializeToString())
    np.testing.assert_array_equal(session.run(None, feeds)[0], expected)


@pytest.mark.parametrize("rounding", list(Rounding))
@pytest.mark.parametrize("version", [1, 2])
def test_a_truncation_is_exact(version: int, rounding: Rounding) -> None:
    def array(value: float) -> np.ndarray:
        return np.array(value, dtype=np.float32)

    names = ["s", "z", "i", "r", "o"]
    constants = {"s": 0.25, "z": 3.0, "i": 8.0, "r": 4.0, "o": 3.0}
    if version == 1:
        names.remove("r")
    attributes: dict[str, Any] = {"rounding_mode": str(rounding)}
    if version == 2:
        attributes.update(signed=1, narrow=0)
    node = helper.make_node("Trunc", ["x", *names], ["y"], "t", domain=DOMAIN, **attributes)
    model = qh.load(model_of([node], {"x": ("N",)}, ["y"], constants))
    quant = Trunc(
        *(array(constants[n]) for n in "sz"),
        array(8.0),
        array(4.0) if version == 2 else None,
        array(3.0),
        rounding=rounding,
        version=version,
    )
    x = (np.arange(-300, 300, dtype=np.float32) * np.float32(0.125)).astype(np.float32)
    _assert_same(model, quant, x)


FORMATS = {
    "e4m3": (4, 3, 7, 448.0, {}),
    "e5m2": (5, 2, 15, 57344.0, {}),
    "e4m3fnuz": (4, 3, 8, 240.0, {}),
    "e3m2": (3, 2, 3, 28.0, {}),
    "e2m1": (2, 1, 1, 6.0, {}),
    "e4m3 overflowing to NaN": (4, 3, 7, 448.0, {"saturation": False, "has_nan": True}),
    "e5m2 to infinity": (5, 2, 15, 57344.0, {"saturation": False, "has_inf": True}),
    "e4m3 down": (4, 3, 7, 448.0, {"rounding": Rounding.DOWN}),
}


@pytest.mark.parametrize("encoding", ["auto", "float"])
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("scale", [1.0, 0.37])
def test_a_minifloat_is_exact(name: str, scale: float, encoding: str) -> None:
    exponent, mantissa, bias, top, flags = FORMATS[name]
    quant = FloatQuant(
        *(np.array(v, dtype=np.float32) for v in (scale, exponent, mantissa, bias, top)),
        **flags,
    )
    attributes = {
        "has_inf": int(quant.has_inf),
        "has_nan": int(quant.has_nan),
        "has_subnormal": 1,
        "saturation": int(quant.saturation),
        "rounding_mode": str(quant.rounding),
    }
    names = ["s", "e", "m", "c", "t"]
    constants = dict(zip(names, (scale, exponent, mantissa, bias, top), strict=True))
    inputs = ["x", *names]
    node = helper.make_node("FloatQuant", inputs, ["y"], "f", domain=DOMAIN, **attributes)
    model = qh.load(model_of([node], {"x": ("N",)}, ["y"], constants))
    rng = np.random.default_rng(0)
    wide = np.exp2(rng.uniform(-20, 18, 4000)) * rng.choice([-1, 1], 4000) * scale
    powers = np.exp2(np.arange(-12.0, 17.0)) * scale
    edges = np.concatenate([powers, powers * 1.5, powers * 1.25, [top * scale, 0.0, 1e30]])
    exact = np.concatenate([wide, edges, -edges]).astype(np.float32)
    x = np.concatenate([exact, np.nextafter(exact, np.float32(np.inf))])
    x = np.concatenate([x, np.array([np.inf, -np.inf, np.nan], dtype=np.float32)])
    _assert_same(model, quant, x, encoding=encoding)


@pytest.mark.parametrize("opset", [19, 20, 21, 22, 23])
@pytest.mark.parametrize("follower", ["MaxPool", "Transpose", "Relu"])
def test_onnxruntime_loads_signed_codes_before_layout_steps(opset: int, follower: str) -> None:
    ort = pytest.importorskip("onnxruntime")
    attributes: dict[str, Any] = {
        "MaxPool": {"kernel_shape": [2, 2], "strides": [2, 2]},
        "Transpose": {"perm": [0, 2, 3, 1]},
    }.get(follower, {})
    nodes = [quant_node("x", "q"), helper.make_node(follower, ["q"], ["y"], "f", **attributes)]
    constants = {"s": 0.1, "z": 0.0, "b": 4.0}
    model = qh.load(model_of(nodes, {"x": (1, 2, 4, 4)}, ["y"], constants))
    artifact = QcdqExporter().export(model, ExportOptions(opset=opset))
    assert artifact.model.opset_imports[""] == opset
    message = artifact.to_proto().SerializeToString()
    x = np.random.default_rng(0).normal(size=(1, 2, 4, 4)).astype(np.float32)
    (answer,) = ort.InferenceSession(message).run(None, {"x": x})
    np.testing.assert_array_equal(answer, Session(model).run({"x": x})["y"])


def test_an_odd_zero_point_in_near_form_flips_every_tie_and_says_so() -> None:
    quant = _plain(4, zero=3.0)
    model = _model(quant, ("N", CHANNELS))
    options = ExportOptions(allow_lossy=True)
    artifact = QcdqExporter().export(model, options)
    (record,) = artifact.quantizers
    assert not record.exact
    assert "each of the 15 ties" in record.reason
    power = IntQuant(np.array(0.5, np.float32), quant.zero_point, quant.bits)
    artifact = QcdqExporter().export(_model(power, ("N", 1)), options)
    ties = ((np.arange(-8, 7) + 0.5 - 3) * 0.5).astype(np.float32).reshape(-1, 1)
    answer = Session(qh.load(artifact.to_proto(), "qonnx")).run({"x": ties})["y"]
    # Half to even before or after adding an odd number: the other neighbour at every tie.
    assert np.all(np.abs(answer - quantize(ties, power)) == 0.5)


def test_four_bit_weights_are_packed() -> None:
    weight = np.arange(-8, 8, dtype=np.float32).repeat(64).reshape(32, 32)
    nodes = [quant_node("w", "q"), helper.make_node("MatMul", ["x", "q"], ["y"])]
    constants = {"s": 1.0, "z": 0.0, "b": 4.0, "w": weight}
    model = qh.load(model_of(nodes, {"x": ("N", 32)}, ["y"], constants))
    small = QcdqExporter().export(model, export_options(stored_weights="int4"))
    (stored,) = [
        v
        for v in small.model.graph.initializers.values()
        if v.const_value is not None and v.const_value.size == 1024
    ]
    assert stored.dtype == onnx_ir.DataType.INT4
    assert small.notes == ("weights stored as integers: 4096 bytes of float32 -> 512 bytes",)
    assert small.model.opset_imports[""] == 21
    tensor = next(t for t in small.to_proto().graph.initializer if t.name == stored.name)
    assert tensor.data_type == TensorProto.INT4
    assert len(tensor.raw_data) == 512


def test_an_opset_below_the_need_of_a_node_names_it() -> None:
    quant = _plain(4)
    with pytest.raises(NotExactError, match=r"opset 21"):
        QcdqExporter().export(
            _model(quant, ("N", CHANNELS)), export_options(opset=19, encoding="qdq")
        )


def test_unknown_options_are_a_usage_error() -> None:
    model = _model(_plain(4), ("N", CHANNELS))
    with pytest.raises(UsageError, match="unknown encoding 'best'"):
        QcdqExporter().export(model, export_options(encoding="best"))
    with pytest.raises(UsageError, match="unknown storage of weights 'int3'"):
        QcdqExporter().export(model, export_options(stored_weights="int3"))


@pytest.mark.parametrize("rounding", [Rounding.ROUND, Rounding.FLOOR, Rounding.CEIL])
@pytest.mark.parametrize("saturation", [True, False])
def test_a_minifloat_that_reaches_the_end_of_float32_keeps_its_limit(rounding, saturation):
    """Twice the limit is no float32 here, and the limit is on no step of the format."""
    rt = pytest.importorskip("onnxruntime")
    flags = {
        "has_inf": int(not saturation),
        "has_nan": 0,
        "has_subnormal": 1,
        "saturation": int(saturation),
        "rounding_mode": rounding.value,
    }
    node = helper.make_node(
        "FloatQuant", ["x", "s", "e", "m", "eb", "mv"], ["y"], "f", domain=DOMAIN, **flags
    )
    constants = {"s": 1.0, "e": 8.0, "m": 7.0, "eb": 127.0, "mv": 3.3e38}
    model = qh.load(model_of([node], {"x": (1, 10)}, ["y"], constants))
    big = np.finfo(np.float32).max
    x = np.array([[np.inf, 3.3e38, 3.35e38, 3.29e38, big]], dtype=np.float32)
    x = np.concatenate([x, -x], axis=1)
    written = qh.convert(model, None, "qcdq", encoding="float", check=False).model
    assert written is not None
    session = rt.InferenceSession(onnx_ir.to_proto(written).SerializeToString())
    (got,) = session.run(None, {"x": x})
    # By hand: steps of 2^120 here, then the limit, or infinity where nothing saturates.
    steps = {"ROUND": np.rint, "FLOOR": np.floor, "CEIL": np.ceil}[rounding.value](
        x.astype(np.float64) / 2.0**120
    )
    q = steps * 2.0**120
    limit = float(np.float32(3.3e38))
    beyond = limit if saturation else np.inf
    expected = np.where(q > limit, beyond, np.where(q < -limit, -beyond, q))
    np.testing.assert_array_equal(got, expected.astype(np.float32))


@pytest.mark.parametrize("mode", [str(mode) for mode in Rounding])
def test_a_quantizer_of_doubles_rounds_as_its_definition(mode: str) -> None:
    proto = model_of(
        [quant_node("x", "y", rounding_mode=mode)],
        {"x": (1, 9)},
        ["y"],
        {"s": np.array(0.5), "z": np.array(1.0), "b": np.array(5.0)},
    )
    for value in (proto.graph.input[0], proto.graph.output[0]):
        value.type.tensor_type.elem_type = TensorProto.DOUBLE
    x = np.linspace(-1, 1, 9)[np.newaxis]
    written = QcdqExporter().export(qh.load(proto), ExportOptions()).model
    quant = IntQuant(np.array(0.5), np.array(1.0), np.array(5.0), rounding=Rounding(mode))
    np.testing.assert_array_equal(Session(written).run({"x": x})["y"], quantize(x, quant))
