"""Outputs that cannot be compared end a check with one sentence."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

import qonnx_hub as qh
from qonnx_hub_ir.errors import UsageError
from tests.support import model_of


def _sliced(stop: int):
    """``y = x[:, :stop]`` of a 2x3 input."""
    node = helper.make_node("Slice", ["x", "starts", "ends", "axes"], ["y"], name="slice")
    constants = {
        name: np.array([value], dtype=np.int64)
        for name, value in (("starts", 0), ("ends", stop), ("axes", 1))
    }
    return model_of([node], {"x": (2, 3)}, ["y"], constants)


def test_outputs_of_other_shapes_are_refused():
    with pytest.raises(UsageError, match=r"has shape .*, 3\].* has .*, 2\]: they cannot be"):
        qh.check(_sliced(3), _sliced(2))


def test_an_empty_output_is_refused_since_nothing_would_be_compared():
    with pytest.raises(UsageError, match="'y' is empty: nothing would be compared"):
        qh.check(_sliced(0), _sliced(0))
