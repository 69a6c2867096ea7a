"""What the reference kernels compute, on arrays of codes."""
