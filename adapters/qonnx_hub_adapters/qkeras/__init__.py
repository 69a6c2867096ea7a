"""QKeras: quantized Keras models, of Keras 2 (``qkeras``) and of Keras 3 (``qkeras-v3``)."""
