"""What the adapters of torch's frameworks share: Brevitas, HAWQ and plain PyTorch.

Nothing here imports torch by itself: :func:`~.framework.require_torch` does, when a source is
read, and hands the framework on as an argument.
"""
