"""The importer of Brevitas modules keeps the contract of importers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from brevitas.inject.enum import FloatToIntImplType
from brevitas.quant import (
    ShiftedUint8ActPerTensorFloat,
    SignedBinaryActPerTensorConst,
)
from brevitas.quant.float import Fp8e4m3ActPerTensorFloat

from qonnx_hub.testing import ImporterContract
from qonnx_hub_adapters.brevitas.importer import BrevitasImporter
from qonnx_hub_adapters.protocol import Feature, Importer, ImportOptions
from tests.adapters.brevitas.activation_cases import identity, relu
from tests.adapters.brevitas.kit import make

SHAPE = (2, 4, 5, 5)
CHANNELS = {
    "scaling_per_output_channel": True,
    "per_channel_broadcastable_shape": (1, 4, 1, 1),
    "scaling_stats_permute_dims": (1, 0, 2, 3),
}
CASES = {
    Feature.BITS_2_TO_8: identity("4 bits", bit_width=4, shapes=(SHAPE,)),
    Feature.BITS_9_TO_16: identity("12 bits", bit_width=12, shapes=(SHAPE,)),
    Feature.BITS_17_TO_32: identity("20 bits", bit_width=20, shapes=(SHAPE,)),
    Feature.UNSIGNED_1_BIT: relu("1 bit", bit_width=1, shapes=(SHAPE,)),
    Feature.NARROW: identity("narrow", bit_width=4, narrow_range=True, shapes=(SHAPE,)),
    Feature.PER_CHANNEL: identity("channels", bit_width=4, shapes=(SHAPE,), **CHANNELS),
    Feature.ZERO_POINT: identity(
        "zero point", ShiftedUint8ActPerTensorFloat, bit_width=4, shapes=(SHAPE,)
    ),
    Feature.BIPOLAR: identity(
        "binary", SignedBinaryActPerTensorConst, scaling_init=0.5, shapes=(SHAPE,)
    ),
    Feature.ROUNDING_MODES: identity(
        "up", bit_width=4, float_to_int_impl_type=FloatToIntImplType.CEIL, shapes=(SHAPE,)
    ),
    Feature.MINIFLOAT: identity("float", Fp8e4m3ActPerTensorFloat, shapes=(SHAPE,)),
}


class TestBrevitasImporter(ImporterContract):
    untried: ClassVar[Mapping[Feature, str]] = {
        Feature.TRUNC: "needs a pooling before it: tried among the topologies"
    }

    def make_importer(self) -> Importer:
        return BrevitasImporter()

    def make_source(self) -> Any:
        return make(CASES[Feature.BITS_2_TO_8])

    def make_options(self) -> ImportOptions:
        return ImportOptions(args=(torch.zeros(SHAPE),))

    def feature_sources(self) -> Mapping[Feature, Any]:
        return {feature: make(case) for feature, case in CASES.items()}
