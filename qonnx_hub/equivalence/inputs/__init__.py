"""Inputs of a check: generated, given, steered to thresholds."""
