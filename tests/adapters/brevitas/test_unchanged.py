"""The user's module, console and folder are as they were, whatever happened."""

from __future__ import annotations

import os
import warnings
from concurrent.futures import ThreadPoolExecutor

import brevitas.nn as qnn
import numpy as np
import pytest
import torch
from brevitas.quant import Int8AccumulatorAwareWeightQuant
from torch import nn

import qonnx_hub as qh
from qonnx_hub_adapters.brevitas.importer import BrevitasImporter
from qonnx_hub_ir.errors import SourceError, UnsupportedGraphError
from tests.adapters.brevitas.kit import Case, load, make, samples_of, state_of
from tests.adapters.brevitas.layer_cases import LAYERS, Net
from tests.adapters.brevitas.topology_cases import TOPOLOGIES

BY_NAME = {case.name: case for case in (*LAYERS, *TOPOLOGIES)}
NAMES = ["ResNet-8 4W4A", "QuantLSTM fully quantized", "QuantMultiheadAttention packed"]
SAMPLE = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        qnn.QuantIdentity(bit_width=4, return_quant_tensor=True),
        qnn.QuantLinear(16, 8, weight_bit_width=3, bias=True),
        nn.Dropout(0.5),
    )


@pytest.mark.parametrize(
    ("name", "dynamo"), [(NAMES[0], False), (NAMES[1], False), (NAMES[1], True)]
)
def test_a_module_in_training_goes_on_in_training(name, dynamo):
    case = BY_NAME[name]
    module = make(case).train()
    next(module.parameters()).requires_grad_(False)
    before = state_of(module)
    load(module, *samples_of(case), dynamo=dynamo)
    assert state_of(module) == before


def test_what_the_module_answers_with_is_the_same_afterwards():
    for name in NAMES:
        case = BY_NAME[name]
        module, samples = make(case), samples_of(case)
        with torch.no_grad():
            before = module(*samples)
            load(module, *samples)
            after = module(*samples)
        first, second = (one[0] if isinstance(one, tuple) else one for one in (before, after))
        assert torch.equal(first, second)


def test_the_module_is_unchanged_after_a_refusal():
    module = nn.Sequential(qnn.QuantIdentity(float_to_int_impl_type="STOCHASTIC_ROUND"))
    before = state_of(module)
    with pytest.raises(UnsupportedGraphError):
        load(module, SAMPLE)
    assert state_of(module) == before


def test_the_module_is_unchanged_after_a_failure_in_the_exporter(capfd):
    module = Net(lambda net, x: torch.linalg.pinv(net.q(x)), q=qnn.QuantIdentity(bit_width=4))
    module.train()
    before = state_of(module)
    with pytest.raises(SourceError, match="linalg_pinv"):
        load(module, SAMPLE)
    assert state_of(module) == before
    # A second attempt fails for the same reason, not because of what the first left behind.
    with pytest.raises(SourceError, match="linalg_pinv"):
        load(module, SAMPLE)
    assert capfd.readouterr() == ("", "")


def test_the_module_is_unchanged_after_a_failure_in_its_own_forward():
    module = nn.Sequential(qnn.QuantLinear(8, 4, weight_quant=Int8AccumulatorAwareWeightQuant))
    before = state_of(module)
    with pytest.raises(SourceError, match="fails on the sample"):
        load(module, SAMPLE[:, :8])
    assert state_of(module) == before


def test_asking_the_module_itself_does_not_change_it():
    module = small().train()
    before = state_of(module)
    importer = BrevitasImporter()
    first, second = (importer.run_source(module, {"input": SAMPLE.numpy()}) for _ in range(2))
    assert state_of(module) == before
    # In training its dropout would answer differently each time.
    np.testing.assert_array_equal(first["output"], second["output"])


@pytest.mark.parametrize("dynamo", [False, True])
def test_nothing_is_written_to_the_console_or_the_folder(dynamo, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load(small(), SAMPLE, dynamo=dynamo)
    assert caught == []
    assert capfd.readouterr() == ("", "")
    assert os.listdir(tmp_path) == []


def test_a_module_without_quantizers_switched_on_is_silent_too(capfd):
    load(nn.Sequential(qnn.QuantLinear(16, 4, weight_quant=None)), SAMPLE)
    assert capfd.readouterr() == ("", "")


def test_modules_are_read_in_several_threads_at_once():
    def read(width: int) -> bool:
        case = Case(
            str(width), lambda: nn.Sequential(qnn.QuantLinear(16, width, weight_bit_width=3))
        )
        with torch.random.fork_rng():
            module = make(case)
        ir = load(module, SAMPLE)
        answer = qh.run(ir, {"input": SAMPLE.numpy()})["output"]
        with torch.no_grad():
            own = module(SAMPLE).numpy()
        return bool(np.allclose(answer, own, rtol=0, atol=2e-6 * np.abs(own).max()))

    filters = list(warnings.filters)
    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(read, range(3, 15)))
    assert warnings.filters == filters
