"""The importer of Keras models keeps the contract of importers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
from onnx_ir import Model

from qonnx_hub.testing import ImporterContract
from qonnx_hub_adapters.protocol import Feature, Importer
from qonnx_hub_adapters.qkeras.importer import QkerasImporter
from tests.adapters.qkeras.kit import Kit
from tests.adapters.qkeras.quantizer_cases import activation

ACTIVATIONS = {
    Feature.BITS_2_TO_8: "quantized_bits(4,0,alpha=1)",
    Feature.BITS_9_TO_16: "quantized_bits(12,3,alpha=1)",
    Feature.UNSIGNED_1_BIT: "quantized_relu(1)",
    Feature.BIPOLAR: "binary()",
    Feature.NARROW: "quantized_bits(4,0,1,alpha=1)",
}


class TestQkerasImporter(ImporterContract):
    untried: ClassVar[Mapping[Feature, str]] = {
        Feature.PER_CHANNEL: "of weights only, alpha of others follows them: tried on layers",
    }

    @pytest.fixture(autouse=True)
    def _keep_kit(self, kit: Kit) -> None:
        self.kit = kit
        # Keras counts layers: another model made in the same way has other names.
        self.source = activation(ACTIVATIONS[Feature.BITS_2_TO_8]).build(kit)

    def make_importer(self) -> Importer:
        return QkerasImporter()

    def make_source(self) -> Any:
        return self.source

    def feature_sources(self) -> Mapping[Feature, Any]:
        return {
            feature: activation(text).build(self.kit) for feature, text in ACTIVATIONS.items()
        }

    def make_feeds(self, model: Model) -> Mapping[str, Any]:
        # QKeras computes x + (q(x) - x), which rounds unless x lies on a coarse grid.
        feeds = super().make_feeds(model)
        return {name: np.round(value * 64) / np.float32(64) for name, value in feeds.items()}
