"""Numpy kernels by family, merged into one table that refuses duplicates.

A family is a module with a ``KERNELS`` table, found by being here. Adding an operator is one
entry in one family.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil

from qonnx_hub.executor.kernels.spec import Factory, KernelTable


@functools.cache
def kernel_table() -> KernelTable:
    """Return all kernels, keyed by (domain, op_type).

    Raises:
        ValueError: Two families serve the same operator.
    """
    table: dict[tuple[str, str], Factory] = {}
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        kernels: KernelTable = getattr(importlib.import_module(module.name), "KERNELS", {})
        for key, factory in kernels.items():
            if key in table:
                raise ValueError(f"operator {key} has two kernels, one in {module.name}")
            table[key] = factory
    return table
