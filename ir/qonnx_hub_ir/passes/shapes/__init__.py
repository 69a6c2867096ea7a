"""Shapes: inferred, or given another batch."""
