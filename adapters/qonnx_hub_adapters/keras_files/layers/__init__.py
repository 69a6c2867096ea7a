"""What each layer class holds and computes; a module per family."""
