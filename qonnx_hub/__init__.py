"""qonnx_hub: convert quantized neural networks between forms, run them, and check them.

    import qonnx_hub as qh
    report = qh.convert("model.onnx", "model_qcdq.onnx", to="qcdq")
    result = qh.check("model.onnx", "model_qcdq.onnx")
    print(result.verdict)

Everything is imported on first use, so that ``import qonnx_hub`` is fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from qonnx_hub._version import __version__

if TYPE_CHECKING:
    import qonnx_hub_ir as ir
    from qonnx_hub import passes, testing, zoo
    from qonnx_hub.api import (
        bench,
        check,
        check_many,
        convert,
        cost,
        diff,
        inspect,
        lint,
        load,
        reduce,
        routes,
        run,
        save,
        transform,
    )
    from qonnx_hub.equivalence.build_stages import check_stages
    from qonnx_hub.executor.session import Session
    from qonnx_hub_ir.errors import (
        AdapterConflictError,
        ConversionError,
        ExecutionError,
        HubError,
        InvalidExportError,
        InvalidModelError,
        MissingDependencyError,
        NotExactError,
        NotProvenError,
        PassError,
        SourceError,
        TooManyLevelsError,
        UnknownAdapterError,
        UnknownNameError,
        UnsupportedGraphError,
        UsageError,
    )

_MODULES = {
    "ir": "qonnx_hub_ir",
    "passes": "qonnx_hub.passes",
    "testing": "qonnx_hub.testing",
    "zoo": "qonnx_hub.zoo",
}
_HOMES = {"Session": "executor.session", "check_stages": "equivalence.build_stages"}

__all__ = [
    "AdapterConflictError",
    "ConversionError",
    "ExecutionError",
    "HubError",
    "InvalidExportError",
    "InvalidModelError",
    "MissingDependencyError",
    "NotExactError",
    "NotProvenError",
    "PassError",
    "Session",
    "SourceError",
    "TooManyLevelsError",
    "UnknownAdapterError",
    "UnknownNameError",
    "UnsupportedGraphError",
    "UsageError",
    "__version__",
    "bench",
    "check",
    "check_many",
    "check_stages",
    "convert",
    "cost",
    "diff",
    "inspect",
    "ir",
    "lint",
    "load",
    "passes",
    "reduce",
    "routes",
    "run",
    "save",
    "testing",
    "transform",
    "zoo",
]


def __getattr__(name: str) -> Any:
    """Return a public name, importing its home on first use."""
    if name not in __all__:
        raise AttributeError(f"module 'qonnx_hub' has no attribute '{name}'")
    if name in _MODULES:
        value: Any = importlib.import_module(_MODULES[name])
    elif name.endswith("Error"):
        value = getattr(importlib.import_module("qonnx_hub_ir.errors"), name)
    else:
        home = _HOMES.get(name, "api")
        value = getattr(importlib.import_module(f"qonnx_hub.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return sorted(__all__)
