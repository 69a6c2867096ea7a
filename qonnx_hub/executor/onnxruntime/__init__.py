"""Models on onnxruntime, lowered to what computes the same numbers there fastest."""
