"""Names of nodes and tensors."""
