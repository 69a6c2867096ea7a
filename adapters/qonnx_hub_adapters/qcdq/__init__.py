"""QCDQ: quantizers said in standard ONNX, as QuantizeLinear, Clip, DequantizeLinear."""
