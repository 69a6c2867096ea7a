"""Texts, sequences and optional values run as the operator documents say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from typer.testing import CliRunner

import qonnx_hub as qh
from qonnx_hub.cli import app
from qonnx_hub.equivalence.verdicts import Verdict

HEAD = '<ir_version: 9, opset_import: ["" : 20]>'
X = np.array([[1.5, -2.0], [0.25, 3.0]], dtype=np.float32)
TEXTS = np.array(["a", "b", "ü"])


def parsed(text: str, **constants: Any) -> onnx.ModelProto:
    model = parser.parse_model(HEAD + text)
    for name, array in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return model


def test_texts_of_the_file_are_texts_as_those_of_inputs_are() -> None:
    equal = parsed(
        "g (string[3] x) => (bool[3] y) { y = Equal(x, k) }",
        k=np.array(["a", "x", "ü"], dtype=object),
    )
    assert qh.run(equal, {"x": TEXTS})["y"].tolist() == [True, False, True]
    joined = parsed(
        "g (string[3] x) => (string[3] y) { y = StringConcat(x, k) }",
        k=np.array(["1", "2", "3"], dtype=object),
    )
    assert qh.run(joined, {"x": TEXTS})["y"].tolist() == ["a1", "b2", "ü3"]


def test_bytes_that_are_no_text_are_refused_by_name() -> None:
    model = parsed("g (string[1] x) => (string[1] y) { y = StringConcat(x, k) }")
    spoiled = onnx.TensorProto(name="k", data_type=onnx.TensorProto.STRING, dims=[1])
    spoiled.string_data.append(b"\xff\xfe")
    model.graph.initializer.append(spoiled)
    with pytest.raises(qh.UnsupportedGraphError, match="'k' holds a text that is no UTF-8"):
        qh.run(model, {"x": np.array(["a"])})


def test_an_optional_value_is_the_value() -> None:
    model = parsed(
        "g (float[2,2] x) => (bool b, float[2,2] y) "
        "{ o = Optional(x) b = OptionalHasElement(o) y = OptionalGetElement(o) }"
    )
    found = qh.run(model, {"x": X})
    assert bool(found["b"])
    np.testing.assert_array_equal(found["y"], X)


def test_a_sequence_is_written_element_by_element(tmp_path: Path) -> None:
    model, given, made = (tmp_path / name for name in ("m.onnx", "x.npz", "y.npz"))
    text = "g (float[2,2] x) => (seq(float[2,2]) y) { n = Neg(x) y = SequenceConstruct(x, n) }"
    onnx.save(parsed(text), model)
    np.savez(given, x=X)
    words = ["run", str(model), "--inputs", str(given), "-o", str(made)]
    assert CliRunner().invoke(app, words).exit_code == 0
    with np.load(made) as found:
        assert sorted(found) == ["y.0", "y.1"]
        np.testing.assert_array_equal(found["y.1"], -X)


@pytest.mark.parametrize("to", ["qonnx", "qcdq"])
@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("g (string[3] x) => (string[3] y) { y = Identity(x) }", "not checked"),
        ("g () => (float[2] y) { y = Constant<value = float[2] {1, 2}>() }", "PROVEN"),
    ],
)
def test_models_of_texts_or_without_inputs_are_converted(
    text: str, verdict: str, to: str, tmp_path: Path
) -> None:
    report = qh.convert(parsed(text), tmp_path / "y.onnx", to=to)
    assert report.conclusion().startswith(verdict)


def test_a_sparse_file_is_looked_at_and_converted(tmp_path: Path) -> None:
    model = parsed("g (float[2,2] x) => (float[2,2] y) { y = MatMul(x, w) }")
    values = numpy_helper.from_array(np.array([2.0], dtype=np.float32), "w")
    indices = numpy_helper.from_array(np.array([1], dtype=np.int64), "i")
    model.graph.sparse_initializer.append(
        onnx.helper.make_sparse_tensor(values, indices, [2, 2])
    )
    source = tmp_path / "sparse.onnx"
    onnx.save(model, source)
    assert qh.lint(source, target="ort") is not None
    qh.convert(source, tmp_path / "y.onnx", to="qcdq")
    expected = X @ np.array([[0, 2], [0, 0]], dtype=np.float32)
    np.testing.assert_array_equal(qh.run(tmp_path / "y.onnx", {"x": X})["y"], expected)


def test_outputs_that_differ_on_inputs_that_are_not_all_samples_are_explained() -> None:
    text = (
        "g (float[2,3] x, float[4,3] m) => (float[2,4] y) "
        "{ t = Transpose(m) p = MatMul(x, t) y = Mul(p, k) }"
    )
    first, second = (parsed(text, k=np.float32(k)) for k in (1, 2))
    feeds = {"x": np.ones((2, 3), dtype=np.float32), "m": np.ones((4, 3), dtype=np.float32)}
    result = qh.check(first, second, inputs=feeds, level="output")
    assert result.verdict is Verdict.DIFFERENT
