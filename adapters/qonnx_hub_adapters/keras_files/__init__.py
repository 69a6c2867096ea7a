"""Keras files of every generation, read without TensorFlow and Keras."""
