"""The user's module is unchanged afterwards, whatever happened."""

from __future__ import annotations

import pytest
import torch

from qonnx_hub_ir.errors import SourceError, UnsupportedGraphError
from tests.adapters.hawq import hawq_standin as standin
from tests.adapters.hawq.conversion import load, snapshot
from tests.adapters.hawq.nets import (
    Branches,
    ConvNet,
    JetTagger,
    Residual,
    calibrated,
    sample,
)

NETS = [JetTagger, ConvNet, Residual, Branches]


@pytest.mark.parametrize("mode", ["exact", "quant"])
@pytest.mark.parametrize("net", NETS)
def test_the_module_is_unchanged_afterwards(net, mode, layers):
    module = calibrated(net, layers)
    module.train()
    for part in module.modules():
        if hasattr(part, "running_stat"):
            part.unfix()
    before = snapshot(module)
    load(module, sample(net), mode=mode)
    assert snapshot(module) == before
    # Nothing is left that would see the next call.
    assert all("forward" not in part.__dict__ for part in module.modules())


def test_the_module_is_unchanged_after_a_failure_in_its_forward():
    class Failing(ConvNet):
        def forward(self, x):
            super().forward(x)
            raise RuntimeError("out of luck")

    module = calibrated(ConvNet, standin)
    module.__class__ = Failing
    module.train()
    before = snapshot(module)
    with pytest.raises(SourceError, match="fails on the sample: out of luck"):
        load(module, sample(ConvNet))
    assert snapshot(module) == before


def test_the_module_is_unchanged_after_a_refusal():
    class Sorting(JetTagger):
        def forward(self, x):
            return torch.sort(super().forward(x))[0]

    module = calibrated(JetTagger, standin)
    module.__class__ = Sorting
    before = snapshot(module)
    with pytest.raises(UnsupportedGraphError, match="sort"):
        load(module, sample(JetTagger))
    assert snapshot(module) == before


def test_what_a_forward_leaves_behind_is_taken_away():
    class Counting(JetTagger):
        def forward(self, x):
            self.calls += 1
            self.last = x
            self.register_buffer("fresh", torch.zeros(1))
            return super().forward(x)

    module = calibrated(JetTagger, standin)
    module.__class__ = Counting
    module.register_buffer("calls", torch.zeros(1))
    before = snapshot(module)
    load(module, sample(JetTagger))
    assert snapshot(module) == before
    assert module.calls.item() == 0


def test_a_forward_of_the_users_own_is_put_back():
    module = calibrated(JetTagger, standin)
    own = module.act.forward
    module.act.__dict__["forward"] = own
    load(module, sample(JetTagger))
    assert module.act.__dict__["forward"] is own
