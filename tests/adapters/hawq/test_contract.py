"""The importer of HAWQ modules keeps the contract of importers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from qonnx_hub.testing import ImporterContract
from qonnx_hub_adapters.hawq.importer import HawqImporter
from qonnx_hub_adapters.protocol import Feature, Importer, ImportOptions
from tests.adapters.hawq import hawq_standin
from tests.adapters.hawq.nets import calibrate

SHAPE = (8, 16)


class Quantizes(nn.Module):
    """A module that is one quantizer of activations."""

    def __init__(self, bits: int, mode: str = "symmetric") -> None:
        super().__init__()
        self.act = hawq_standin.QuantAct(bits, quant_mode=mode)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(x)[0]


def seen(module: nn.Module) -> nn.Module:
    """The module with the ranges of data."""
    torch.manual_seed(0)
    return calibrate(module, torch.randn(SHAPE))


class TestHawqImporter(ImporterContract):
    untried: ClassVar[Mapping[Feature, str]] = {
        Feature.PER_CHANNEL: "of weights only, whose sums mode 'quant' rounds: tried on nets"
    }

    def make_importer(self) -> Importer:
        return HawqImporter()

    def make_source(self) -> Any:
        return seen(Quantizes(4))

    def make_options(self) -> ImportOptions:
        return ImportOptions(args=(torch.zeros(SHAPE),))

    def feature_sources(self) -> Mapping[Feature, Any]:
        return {
            Feature.BITS_2_TO_8: seen(Quantizes(4)),
            Feature.BITS_9_TO_16: seen(Quantizes(12)),
            Feature.UNSIGNED_1_BIT: seen(Quantizes(1, "asymmetric")),
        }
