"""Conversions, and what they must pass before anything is written."""
