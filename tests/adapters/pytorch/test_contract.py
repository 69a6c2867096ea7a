"""The importer of PyTorch modules keeps the contract of importers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from qonnx_hub.testing import ImporterContract
from qonnx_hub_adapters.protocol import Feature, Importer, ImportOptions
from qonnx_hub_adapters.pytorch.importer import PyTorchImporter
from tests.adapters.pytorch.kit import Calls

SHAPE = (1, 4)


def fake_quantizer(low: int, high: int, zero: int = 0) -> Any:
    """A module that is one quantizer per tensor, its scale a power of two."""
    return Calls(lambda x: torch.fake_quantize_per_tensor_affine(x, 0.5, zero, low, high))


def per_channel() -> Any:
    """A module that is one quantizer with a scale for each channel."""
    scale, zero = torch.tensor([0.5, 0.25, 1.0, 0.125]), torch.zeros(4, dtype=torch.int32)
    return Calls(lambda x: torch.fake_quantize_per_channel_affine(x, scale, zero, 1, -8, 7))


class TestPyTorchImporter(ImporterContract):
    def make_importer(self) -> Importer:
        return PyTorchImporter()

    def make_source(self) -> Any:
        return fake_quantizer(-8, 7)

    def make_options(self) -> ImportOptions:
        return ImportOptions(args=(torch.zeros(SHAPE),))

    def feature_sources(self) -> Mapping[Feature, Any]:
        return {
            Feature.BITS_2_TO_8: fake_quantizer(-8, 7),
            Feature.BITS_9_TO_16: fake_quantizer(-(2**11), 2**11 - 1),
            Feature.BITS_17_TO_32: fake_quantizer(-(2**19), 2**19 - 1),
            Feature.UNSIGNED_1_BIT: fake_quantizer(0, 1),
            Feature.NARROW: fake_quantizer(-7, 7),
            Feature.PER_CHANNEL: per_channel(),
            Feature.ZERO_POINT: fake_quantizer(0, 15, 4),
        }
