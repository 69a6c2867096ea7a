"""What one inference costs: products, bits, weights, activations, by stated conventions."""
