"""Names: the module that a node belongs to, and what its tensors are called there."""

from __future__ import annotations

import re
from typing import Any

from qonnx_hub_adapters.pytorch.constants import parameter_names
from qonnx_hub_ir.graph.names import free_name

FROZEN = "FrozenQuantizer"

_SELF = re.compile(r"^L(\['self'\]|__self__)\.?")
_NO_MODULE = "_empty_nn_module_stack"
_QUANTIZERS = (FROZEN, "FakeQuantize")
_PARTS = {1: "weight", 2: "bias"}
_LAYERS = frozenset({"conv1d", "conv2d", "conv3d", "convolution", "linear", "addmm"})


def module_path(node: Any) -> tuple[str, str]:
    """Return (dotted path, class) of the innermost module that a node belongs to."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if not stack:
        return "", ""
    path, kind = stack[-1][0], stack[-1][1]
    name = kind if isinstance(kind, str) else getattr(kind, "__qualname__", "")
    return clean_path(str(path)), str(name).rpartition(".")[2]


def clean_path(path: str) -> str:
    """Return a module's path as its user writes it."""
    return "" if path.startswith(_NO_MODULE) else _SELF.sub("", path)


class Names:
    """Names for the quantizers of one program; no two are the same."""

    def __init__(self, program: Any) -> None:
        self._tensors = parameter_names(program)
        self._taken: set[str] = set()

    def tensor(self, node: Any) -> str:
        """Return the dotted name of a parameter or buffer, "" for other nodes."""
        return self._tensors.get(node.name, "")

    def node(self, node: Any) -> str:
        """Return how messages call a node: by its module, where it has one."""
        path, kind = module_path(node)
        if kind.endswith(_QUANTIZERS):
            return path
        return ".".join(part for part in (path, str(node.name)) if part)

    def quantizer(self, node: Any, x: Any, source: Any, *, constant: bool) -> str:
        """Return a new name for a quantizer.

        Args:
            node: What gives the quantized values.
            x: What is quantized.
            source: The node whose name to take otherwise.
            constant: Whether the values are the same for all inputs, such as weights.
        """
        name = (self._weight(node, x) if constant else "") or self.node(source)
        return free_name(name, self._taken)

    def _weight(self, node: Any, x: Any) -> str:
        """Return the parameter's own name, or what the layer that reads it calls it."""
        own = self.tensor(x)
        if own and not own.startswith("_frozen_param"):
            return own
        for user in node.users:
            part = _PARTS.get(list(user.args).index(node)) if node in user.args else None
            path, kind = module_path(user)
            layer = str(getattr(user.target, "__name__", "")).partition(".")[0]
            if part and path and layer in _LAYERS and kind != FROZEN:
                return f"{path}.{part}"
        return ""
