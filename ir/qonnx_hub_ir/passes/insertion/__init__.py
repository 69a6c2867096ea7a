"""Nodes added to a graph: at its ends, or between others."""
