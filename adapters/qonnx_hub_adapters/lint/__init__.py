"""Lint: what other tools refuse or compute wrongly in a model given to them as it is."""
