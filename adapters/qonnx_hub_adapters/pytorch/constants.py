"""Which tensors of an exported program depend on no input; torch itself computes them."""

from __future__ import annotations

from typing import Any

_NO_WRITERS = frozenset({"aten::detach_"})
"""Spelled as if they changed their argument; its values stay."""


def writes_into(node: Any) -> Any:
    """Return the node that an operator writes its result into, ``None`` for most."""
    schema = getattr(node.target, "_schema", None)
    if node.op != "call_function" or schema is None or not schema.is_mutable or not node.args:
        return None
    if schema.name in _NO_WRITERS:
        return None
    formal = schema.arguments[0].alias_info
    return node.args[0] if formal is not None and formal.is_write else None


class Constants:
    """Parameters, buffers, and what is computed from them alone."""

    def __init__(self, program: Any, torch: Any) -> None:
        self._torch = torch
        self._module = program.graph_module
        self._given = _given_tensors(program)
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
        schema = getattr(node.target, "_schema", None)
        if schema is None:
            return getattr(node.target, "__name__", "") == "getitem"
        random = self._torch.Tag.nondeterministic_seeded in node.target.tags
        changes = schema.is_mutable and schema.name not in _NO_WRITERS
        return not changes and not random


def _given_tensors(program: Any) -> dict[str, Any]:
    """Return placeholder name -> tensor, for those that are no inputs of the user's."""
    signature = program.graph_signature
    found = {}
    for spec in signature.input_specs:
        target = spec.target
        if target is None or not hasattr(spec.arg, "name"):
            continue
        if target in program.state_dict:
            found[spec.arg.name] = program.state_dict[target]
        elif target in program.constants:
            found[spec.arg.name] = program.constants[target]
    return found
