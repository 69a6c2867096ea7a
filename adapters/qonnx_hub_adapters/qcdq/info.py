"""What QCDQ is called, and what it can say."""

from __future__ import annotations

from qonnx_hub_adapters.onnx_reader import SUFFIXES
from qonnx_hub_adapters.protocol import QONNX_FEATURES, AdapterInfo, Feature, Support
from qonnx_hub_adapters.qcdq.encoding_options import QcdqOptions

INFO = AdapterInfo(
    name="qcdq",
    summary="standard ONNX with QuantizeLinear, Clip, DequantizeLinear, for any ONNX runtime",
    suffixes=SUFFIXES,
    support=dict.fromkeys((*QONNX_FEATURES, Feature.ZERO_POINT_AFTER_ROUNDING), Support.EXACT),
    options=QcdqOptions,
)
