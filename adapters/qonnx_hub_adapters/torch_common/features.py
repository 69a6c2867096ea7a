"""What the quantizers of torch's frameworks have in common."""

from __future__ import annotations

from collections.abc import Mapping

from qonnx_hub_adapters.protocol import Feature, Support

INTEGER_QUANTIZERS: Mapping[Feature, Support] = dict.fromkeys(
    (
        Feature.BITS_2_TO_8,
        Feature.BITS_9_TO_16,
        Feature.BITS_17_TO_32,
        Feature.UNSIGNED_1_BIT,
        Feature.NARROW,
        Feature.PER_CHANNEL,
        Feature.ZERO_POINT,
    ),
    Support.EXACT,
)
"""Static affine quantizers of any width up to 32 bits."""
