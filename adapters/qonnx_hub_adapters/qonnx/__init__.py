"""QONNX: ONNX with Quant, BipolarQuant, FloatQuant and Trunc nodes."""
