"""Equality on every input: matched graphs, step functions, certificates."""
