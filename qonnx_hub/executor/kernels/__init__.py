"""Numpy kernels by family, merged into one table that refuses duplicates.

A family is a module with a ``KERNELS`` table. Adding an operator is one entry in one family.
"""

from __future__ import annotations

import functools
import importlib

from qonnx_hub.executor.kernels.spec import Factory, KernelTable

FAMILIES = (
    "elementwise",
    "logic",
    "reduce",
    "shape",
    "indexing",
    "generate",
    "matmul",
    "conv",
    "pool",
    "normalization",
    "activation",
    "resize",
    "recurrent",
    "quantize",
    "quantizers",
    "contrib",
    "channels_last",
    "im2col",
)


@functools.cache
def kernel_table() -> KernelTable:
    """Return all kernels, keyed by (domain, op_type).

    Raises:
        ValueError: Two families serve the same operator.
    """
    table: dict[tuple[str, str], Factory] = {}
    for family in FAMILIES:
        module = importlib.import_module(f"{__name__}.{family}")
        kernels: KernelTable = module.KERNELS
        for key, factory in kernels.items():
            if key in table:
                raise ValueError(f"operator {key} has two kernels, one of them in '{family}'")
            table[key] = factory
    return table
