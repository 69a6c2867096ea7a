"""FINN's own files: what a build keeps after each of its steps."""
