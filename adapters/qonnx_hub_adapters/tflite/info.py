"""What is known of the form before anything is read."""

from __future__ import annotations

from qonnx_hub_adapters.protocol import AdapterInfo, Feature, Support

SUFFIX = ".tflite"

INFO = AdapterInfo(
    name="tflite",
    summary="TFLite (LiteRT): 8-bit, 16x8, 4-bit nets, code for code on the reference kernels",
    suffixes=(SUFFIX,),
    support={
        Feature.BITS_2_TO_8: Support.BOUNDED,
        Feature.BITS_9_TO_16: Support.BOUNDED,
        Feature.BITS_17_TO_32: Support.BOUNDED,
        Feature.NARROW: Support.BOUNDED,
        Feature.PER_CHANNEL: Support.BOUNDED,
        Feature.ZERO_POINT: Support.BOUNDED,
        Feature.ZERO_POINT_AFTER_ROUNDING: Support.BOUNDED,
    },
)
