"""Elements of bit width 0, which pruning leaves: their value is 0."""

import numpy as np
import onnx
import pytest

import qonnx_hub as qh
from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_ir.errors import InvalidModelError
from tests.support import model_of, quant_node

BITS = np.array([0, 3, 4, 8], dtype=np.float32)
X = np.array([[0.7, 0.7, 0.7, 0.7], [-9.0, -9.0, -9.0, -9.0]], dtype=np.float32)


def by_hand(x: np.ndarray, rounding: str) -> np.ndarray:
    """Return the values of a signed quantizer of step 0.25, column by column."""
    whole = {"ROUND": np.rint, "FLOOR": np.floor}[rounding](x / 0.25)
    columns = [
        np.zeros(len(x))
        if not bits
        else np.clip(column, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        for column, bits in zip(whole.T, BITS, strict=True)
    ]
    return (np.stack(columns, axis=1) * 0.25).astype(np.float32)


def model(rounding: str, bits: object, *, weight: bool) -> onnx.ModelProto:
    node = quant_node("w" if weight else "x", "q", rounding_mode=rounding)
    nodes = [node, onnx.helper.make_node("Add", ["q", "x" if weight else "nil"], ["y"], "add")]
    constants = {"s": 0.25, "z": 0.0, "b": bits, "w": X, "nil": 0.0}
    return model_of(nodes, {"x": (2, 4)}, ["y"], constants)


@pytest.mark.parametrize("rounding", ["ROUND", "FLOOR"])
@pytest.mark.parametrize("weight", [True, False])
@pytest.mark.parametrize("to", ["qonnx", "qcdq", "qlinear", None])
def test_an_element_of_no_bits_is_zero_wherever_it_goes(rounding, weight, to, tmp_path):
    source = model(rounding, BITS, weight=weight)
    if to is not None:
        qh.convert(source, tmp_path / "y.onnx", to=to)
        source = tmp_path / "y.onnx"
    x = np.zeros_like(X) if weight else X
    np.testing.assert_array_equal(qh.run(source, {"x": x})["y"], by_hand(X, rounding))


def test_a_bit_width_of_0_for_all_is_a_mistake():
    with pytest.raises(InvalidModelError, match="bit width must be a whole number"):
        read_model(model("ROUND", 0.0, weight=True))


def test_no_bits_with_a_zero_point_are_refused():
    source = model("ROUND", BITS, weight=True)
    source.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(np.float32(2), "z"))
    with pytest.raises(InvalidModelError, match="bit width must be a whole number"):
        read_model(source)
