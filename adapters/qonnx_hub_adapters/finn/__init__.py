"""FINN: what it takes, and how a model becomes what it takes."""
