"""The user's module, unchanged afterwards: its attributes, buffers and flags."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from qonnx_hub_adapters.hawq.layers import ACT, BN_CONV, WITH_WEIGHTS, kind_of

_TABLES = ("_parameters", "_buffers", "_modules")


class _Saved:
    """One module's attributes, and the numbers in its buffers.

    Buffers are both replaced (HAWQ's scales) and written into (its ranges), so the tensors are
    remembered as well as what they hold. Nothing is deep-copied: HAWQ's buffers may hang on an
    autograd graph, which refuses that.
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        self.attributes = dict(module.__dict__)
        self.tables = {name: dict(module.__dict__[name]) for name in _TABLES}
        buffers = [value for value in self.tables["_buffers"].values() if value is not None]
        self.numbers = [(value, value.detach().clone()) for value in buffers]

    def restore(self) -> None:
        self.module.__dict__.clear()
        self.module.__dict__.update(self.attributes)
        for name, entries in self.tables.items():
            table = self.module.__dict__[name]
            table.clear()
            table.update(entries)
        for value, numbers in self.numbers:
            value.detach().copy_(numbers)


@contextlib.contextmanager
def preserved(model: Any) -> Iterator[None]:
    """Put back every attribute and buffer of the module and its children at the end."""
    saved = [_Saved(module) for module in model.modules()]
    try:
        yield
    finally:
        for one in saved:
            one.restore()


@contextlib.contextmanager
def frozen(model: Any, torch: Any) -> Iterator[None]:
    """Keep the module from learning: evaluation mode, ranges and batch norms fixed.

    HAWQ's own ``freeze_model`` misses children of a ModuleList, attributes with "norm" in
    their name, and subclasses; this goes through all modules.
    """
    with preserved(model), torch.no_grad():
        model.eval()
        for module in model.modules():
            kind = kind_of(module)
            if kind == ACT:
                module.running_stat = False
            if kind == ACT or kind in WITH_WEIGHTS:
                module.fix_flag = True
            if kind == BN_CONV:
                module.fix_BN = True
        yield
