"""Files that Brevitas wrote itself, read as files; and where they say something else."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings

import brevitas.nn as qnn
import numpy as np
import pytest
import torch
from brevitas.export import export_onnx_qcdq, export_qonnx
from brevitas.inject.enum import FloatToIntImplType
from brevitas.quant import Uint8ActPerTensorFixedPoint
from torch import nn

import qonnx_hub as qh
from tests.adapters.brevitas.kit import load, state_of
from tests.adapters.brevitas.layer_cases import CONV, grid

IMAGE = (
    torch.round(torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 16) / 16
)
ROW = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))


def convolutions() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        grid(return_quant_tensor=True),
        qnn.QuantConv2d(3, 4, 3, bias=False, **CONV),
        qnn.QuantReLU(Uint8ActPerTensorFixedPoint, bit_width=4),
        nn.Flatten(),
        qnn.QuantLinear(4 * 36, 5, bias=False, **CONV),
    ).eval()


@contextlib.contextmanager
def quiet():
    """Brevitas' exporters, the one of torch.export above all, write to the console."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    nowhere = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere):
            warnings.simplefilter("ignore")
            with contextlib.redirect_stderr(nowhere):
                yield
    finally:
        logging.disable(disabled)


@pytest.mark.parametrize("dynamo", [False, True], ids=["TorchScript", "torch.export"])
@pytest.mark.parametrize("export", [export_qonnx, export_onnx_qcdq], ids=["qonnx", "qcdq"])
def test_a_file_of_brevitas_computes_what_the_module_computes(export, dynamo, tmp_path):
    module, path = convolutions(), str(tmp_path / "own.onnx")
    with torch.no_grad():
        expected = module(IMAGE).numpy()
    with quiet():
        export(module, args=IMAGE, export_path=path, dynamo=dynamo)
    ir = qh.load(path)
    (name,) = (str(value.name) for value in ir.graph.inputs)
    (answer,) = qh.run(ir, {name: IMAGE.numpy()}).values()
    # Scales are powers of two, and so few bits add up exactly in any order.
    np.testing.assert_array_equal(answer, expected)


WRONG = {
    "rounding of weights": lambda: qnn.QuantLinear(
        16, 8, bias=False, weight_bit_width=4,
        weight_float_to_int_impl_type=FloatToIntImplType.FLOOR
    ),
    "one unsigned bit": lambda: qnn.QuantReLU(bit_width=1),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_where_its_own_file_is_wrong_the_imported_module_is_right(what, tmp_path):
    torch.manual_seed(0)
    module, path = nn.Sequential(WRONG[what]()).eval(), str(tmp_path / "own.onnx")
    with torch.no_grad():
        expected = module(ROW).numpy()
    with quiet():
        export_qonnx(module, args=ROW, export_path=path, dynamo=False)
    (name,) = (str(value.name) for value in qh.load(path).graph.inputs)
    (own,) = qh.run(path, {name: ROW.numpy()}).values()
    assert np.abs(own - expected).max() > 0.1 * np.abs(expected).max()
    answer = qh.run(load(module, ROW), {"input": ROW.numpy()})["output"]
    assert np.abs(answer - expected).max() <= 2e-6 * np.abs(expected).max()


def test_a_module_that_its_exporter_left_broken_is_read_as_if_it_were_not(tmp_path):
    module = nn.Sequential(qnn.QuantIdentity(bit_width=10)).eval()
    with torch.no_grad():
        expected = module(ROW).numpy()
    with quiet(), pytest.raises(Exception, match=r"Bit width 10.* is not supported"):
        export_onnx_qcdq(module, args=ROW, export_path=str(tmp_path / "x"), dynamo=False)
    broken = state_of(module)
    answer = qh.run(load(module, ROW), {"input": ROW.numpy()})["output"]
    np.testing.assert_array_equal(answer, expected)
    assert state_of(module) == broken
    assert "x" not in os.listdir(tmp_path)
