"""Cost of one inference: products, bits, weights, activations, by a chosen convention."""
