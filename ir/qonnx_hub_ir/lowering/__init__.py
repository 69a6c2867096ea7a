"""Quantizers and custom operators in standard ONNX: as nodes, or as model-local functions."""
