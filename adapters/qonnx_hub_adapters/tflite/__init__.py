"""TFLite files: read without TensorFlow, run code for code, written."""
