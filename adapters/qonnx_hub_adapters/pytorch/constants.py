"""Which tensors of an exported program depend on no input; torch itself computes them."""

from __future__ import annotations

from typing import Any

_NO_WRITERS = frozenset({"aten::detach_"})
"""Spelled as if they changed their argument; its values stay."""


def schema_of(node: Any) -> Any:
    """Return the schema of the operator that a node calls, ``None`` for other nodes."""
    return getattr(node.target, "_schema", None) if node.op == "call_function" else None


def _changes(schema: Any) -> bool:
    return bool(schema.is_mutable) and schema.name not in _NO_WRITERS


def writes_into(node: Any) -> Any:
    """Return the node that an operator writes its result into, ``None`` for most."""
    schema = schema_of(node)
    if schema is None or not _changes(schema) or not node.args:
        return None
    formal = schema.arguments[0].alias_info
    return node.args[0] if formal is not None and formal.is_write else None


class Constants:
    """Parameters, buffers, and what is computed from them alone."""

    def __init__(self, program: Any, torch: Any) -> None:
        self._torch = torch
        self._module = program.graph_module
        tensors = {**program.constants, **program.state_dict}
        self._given = {
            name: tensors[target]
            for name, target in parameter_names(program).items()
            if target in tensors
        }
        written = [writes_into(node) for node in program.graph.nodes]
        self._written = {node for node in written if node is not None}
        self._known: dict[Any, Any] = {}

    def tensor(self, node: Any) -> Any:
        """Return the tensor of a node, computed at its first use; ``None`` for others."""
        if not hasattr(node, "op"):
            return None
        if node not in self._known:
            self._known[node] = None if node in self._written else self._compute(node)
        return self._known[node]

    def _compute(self, node: Any) -> Any:
        if node.op == "placeholder":
            return self._given.get(node.name)
        if node.op == "get_attr":
            found = getattr(self._module, str(node.target), None)
            return found if isinstance(found, self._torch.Tensor) else None
        if node.op != "call_function" or not self._is_pure(node):
            return None
        operands = node.all_input_nodes
        if any(self.tensor(one) is None for one in operands):
            return None
        args, kwargs = self._torch.fx.node.map_arg((node.args, node.kwargs), self.tensor)
        with self._torch.no_grad():
            result = node.target(*args, **kwargs)
        return result if isinstance(result, (self._torch.Tensor, tuple, list)) else None

    def _is_pure(self, node: Any) -> bool:
        schema = schema_of(node)
        if schema is None:
            return getattr(node.target, "__name__", "") == "getitem"
        random = self._torch.Tag.nondeterministic_seeded in node.target.tags
        return not _changes(schema) and not random


def parameter_names(program: Any) -> dict[str, str]:
    """Return placeholder -> dotted name of the parameter, buffer or constant it stands for."""
    return {
        spec.arg.name: str(spec.target)
        for spec in program.graph_signature.input_specs
        if spec.target is not None and hasattr(spec.arg, "name")
    }
