"""What holds where neither TensorFlow nor qkeras is installed."""

from __future__ import annotations

import numpy as np
import pytest

import qonnx_hub as qh
from qonnx_hub.io.python_sources import resolve
from qonnx_hub_adapters.qkeras import framework
from qonnx_hub_adapters.qkeras.importer import QkerasImporter
from qonnx_hub_adapters.qkeras.quantizers import (
    Binary,
    FixedPoint,
    PowerOfTwo,
    Ternary,
    UnreadableQuantizerError,
    describe,
)
from qonnx_hub_adapters.qkeras.weights import OffGridError, power_of_two_grid, store
from qonnx_hub_ir.errors import MissingDependencyError, SourceError
from qonnx_hub_ir.quantizers import BipolarQuant, FloatQuant, IntQuant
from qonnx_hub_ir.semantics import quantize


def f32(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


ONE = np.array(1.0, dtype=np.float32)
ZERO = np.array(0.0, dtype=np.float32)


def test_a_missing_framework_says_what_to_install(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(framework, "is_installed", lambda name: name == "qkeras")
    (tmp_path / "m.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(MissingDependencyError) as caught:
        qh.load(tmp_path / "m.h5", from_="qkeras")
    assert "tensorflow and tf2onnx, which are not installed" in str(caught.value)
    assert "pip install 'qonnx-hub[qkeras]'" in str(caught.value)
    assert "pip install 'qonnx-hub[qkeras3]'" in str(caught.value)


@pytest.mark.parametrize("name", ["m.h5", "m.keras", "m.hdf5", "M.H5"])
def test_files_of_keras_are_taken_by_their_suffix(name) -> None:
    assert QkerasImporter().accepts(name)


def test_a_json_file_is_taken_only_if_it_is_an_architecture(tmp_path) -> None:
    path = tmp_path / "m.json"
    path.write_text('{"class_name": "Functional", "config": {}}')
    assert QkerasImporter().accepts(str(path))
    path.write_text('{"config": {}}')
    assert not QkerasImporter().accepts(str(path))
    assert not QkerasImporter().accepts(str(tmp_path / "missing.json"))


@pytest.mark.parametrize("source", ["m.onnx", "module:function", 3, None, "folder"])
def test_other_sources_are_left_to_others(source) -> None:
    assert not QkerasImporter().accepts(source)


def test_what_is_no_quantizer_of_qkeras_is_not_described() -> None:
    with pytest.raises(UnreadableQuantizerError, match="not a quantizer of QKeras"):
        describe(object(), "hard")


def bits(**changes) -> FixedPoint:
    given = {
        "bits": 3,
        "integer": ZERO,
        "symmetric": False,
        "keep_negative": True,
        "alpha": ONE,
        **changes,
    }
    return FixedPoint(**given)


def test_a_stored_weight_is_on_its_grid_and_stays_as_it_is() -> None:
    values = f32(-1.0, -0.25, 0.0, 0.75)
    stored, quant = store(bits(), values, values, None)
    assert np.array_equal(stored, values)
    assert isinstance(quant, IntQuant)
    assert np.array_equal(quantize(stored, quant), stored)


def test_the_residue_of_the_straight_through_form_is_taken_off() -> None:
    given = f32(0.7)
    off = np.nextafter(f32(0.75), f32(1.0))
    stored, _ = store(bits(), given, off, None)
    assert stored.tolist() == [0.75]


def test_a_weight_beside_its_grid_is_refused() -> None:
    with pytest.raises(OffGridError, match="not on its grid"):
        store(bits(), f32(0.7), f32(0.7), None)


def test_a_weight_that_is_not_finite_is_refused() -> None:
    with pytest.raises(OffGridError, match="not finite"):
        store(bits(), f32(0.7), f32(np.nan), None)


def test_a_channel_of_zeros_has_a_usable_scale() -> None:
    values = np.array([[0.5, 0.0], [-0.5, 0.0]], dtype=np.float32)
    scale = np.array([[2.0, 0.0]], dtype=np.float32)
    stored, quant = store(bits(alpha="auto"), values, values, scale)
    assert np.array_equal(stored, values)
    assert isinstance(quant, IntQuant)
    assert np.all(quant.scale > 0)


def test_binary_weights_are_bipolar_unless_a_channel_is_zero() -> None:
    q = Binary(use_01=False, alpha="auto")
    ones = f32(-1.0, 1.0)
    assert isinstance(store(q, ones, ones, ONE)[1], BipolarQuant)
    zeros = f32(0.0, 0.0)
    assert isinstance(store(q, zeros, zeros, ZERO)[1], IntQuant)


def test_ternary_weights_are_two_bits_without_the_lowest_code() -> None:
    values = f32(-0.5, 0.0, 0.5)
    _, quant = store(Ternary(0.33, np.array(0.5, dtype=np.float32)), values, values, None)
    assert isinstance(quant, IntQuant)
    assert (float(quant.bits), quant.narrow, float(quant.scale)) == (2.0, True, 0.5)


@pytest.mark.parametrize(("lowest", "highest"), [(-4, 3), (-8, 7), (-16, 15), (-64, 63)])
def test_the_grid_of_powers_of_two_holds_all_of_them(lowest, highest) -> None:
    quant = power_of_two_grid(PowerOfTwo(lowest, highest, None, False, False))
    powers = np.exp2(np.arange(lowest, highest + 1, dtype=np.float32))
    values = np.concatenate([-powers, powers])
    assert np.array_equal(quantize(values, quant), values)
    assert isinstance(quant, FloatQuant if highest > 7 else IntQuant)


def test_a_callable_is_found_in_the_current_folder(tmp_path, monkeypatch) -> None:
    (tmp_path / "my_models_of_this_test.py").write_text("def net():\n    return [1, 2]\n")
    monkeypatch.chdir(tmp_path)
    assert resolve("my_models_of_this_test:net") == [1, 2]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no_such_module_here:net", "no module 'no_such_module_here'"),
        ("json:no_such_name", "no 'no_such_name'"),
        ("os:getlogin.nothing", "no 'getlogin.nothing'"),
    ],
)
def test_a_reference_that_leads_nowhere_says_so(text, words) -> None:
    with pytest.raises(SourceError, match=words):
        resolve(text)


def test_a_callable_that_fails_is_named(tmp_path, monkeypatch) -> None:
    (tmp_path / "failing_models_of_this_test.py").write_text(
        "def net():\n    raise ValueError('no data')\ndef nothing():\n    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match="ValueError: no data"):
        resolve("failing_models_of_this_test:net")
    with pytest.raises(SourceError, match="returns nothing"):
        resolve("failing_models_of_this_test:nothing")


@pytest.mark.parametrize("source", ["model.onnx", "C:/models/m.onnx", "a:b:c", "1:x", 5])
def test_what_is_no_reference_stays_as_it_is(source) -> None:
    assert resolve(source) == source
