"""QCDQ: quantizers in standard ONNX, as QuantizeLinear, Clip, DequantizeLinear."""
