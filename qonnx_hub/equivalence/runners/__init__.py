"""Sides of a check: models that run, and recorded tensors."""
