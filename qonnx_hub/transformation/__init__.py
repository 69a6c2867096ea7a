"""Passes on request: options as text, runs, comparison before and after."""
