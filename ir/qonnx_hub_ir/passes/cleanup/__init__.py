"""Cleanup: what changes no value and leaves less to read."""
