"""The user's module, unchanged afterwards: its attributes, buffers and flags."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from qonnx_hub_adapters.hawq.layers import ACT, BN_CONV, WITH_WEIGHTS, kind_of

_TABLES = ("_parameters", "_buffers", "_modules")


@contextlib.contextmanager
def preserved(model: Any) -> Iterator[None]:
    """Put back every attribute and buffer of the module and its children at the end.

    Buffers are both replaced (HAWQ's scales) and written into (its ranges), so the tensors are
    remembered as well as what they hold. Nothing is deep-copied: HAWQ's buffers may hang on an
    autograd graph, which refuses that.
    """
    saved = []
    for module in model.modules():
        tables = {name: dict(module.__dict__[name]) for name in _TABLES}
        buffers = [value for value in tables["_buffers"].values() if value is not None]
        numbers = [(value, value.detach().clone()) for value in buffers]
        saved.append((module.__dict__, dict(module.__dict__), tables, numbers))
    try:
        yield
    finally:
        for own, attributes, tables, numbers in saved:
            own.clear()
            own.update(attributes)
            for name, entries in tables.items():
                own[name].clear()
                own[name].update(entries)
            for value, kept in numbers:
                value.detach().copy_(kept)


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
