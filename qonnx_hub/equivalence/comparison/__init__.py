"""Tensors of two sides: paired, compared, batch by batch."""
