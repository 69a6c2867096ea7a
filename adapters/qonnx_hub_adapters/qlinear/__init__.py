"""QLinear with Clip: integer-only ONNX, with Clip for every width below 8 bits."""
