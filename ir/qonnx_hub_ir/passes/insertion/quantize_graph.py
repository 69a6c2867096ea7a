"""Quantizers put at inputs and outputs of chosen nodes."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx_ir import Graph, Model, Node, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect
from qonnx_hub_ir.effects import Effect
from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.graph.names import free_name, node_names
from qonnx_hub_ir.graph.queries import producer
from qonnx_hub_ir.graph.rewriting import read_behind
from qonnx_hub_ir.graph.unused import import_used
from qonnx_hub_ir.quantizers import IntQuant


@dataclass(frozen=True)
class QuantizeGraph(InPlacePass):
    """Put a Quant at inputs and outputs of nodes, chosen by their names or operators.

    Before -> after::

        y = Conv(x, w)
        y = Conv(Quant(x, 0.25, 0, 4), w)

    A Quant behind an output serves all of its readers. Does not fire where a quantizer is
    already. What is said of a node's name wins over what is said of its operator.

    Attributes:
        map: ``{"name" or "op_type": {key: [(("input" or "output", index), (scale, zero point,
            bits, narrow, signed, rounding mode))]}}``, as a mapping or as text of Python.

    Raises:
        PassError: A map of another form, a name or operator that no node has, an input or
            output that a node does not have.
    """

    effect = Effect.VALUES

    map: Any

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        chosen = _chosen(model.graph, _read(self.map))
        modified = False
        for node, wanted in chosen:
            for place, parameters in wanted:
                modified |= _insert(model.graph, node, place, _quantizer(node, parameters))
        if modified:
            import_used(model)
        return PassResult(model, modified=modified)


def _read(given: Any) -> Mapping[str, Mapping[str, Any]]:
    found = given
    if isinstance(given, str):
        try:
            found = ast.literal_eval(given)
        except (ValueError, SyntaxError):
            raise PassError(f"the map '{given}' is no Python dict") from None
    kinds = ("name", "op_type")
    if not isinstance(found, Mapping) or not all(
        kind in kinds and isinstance(held, Mapping) for kind, held in found.items()
    ):
        raise PassError('the map has the keys "name" and "op_type", each with a dict')
    return found


def _chosen(
    graph: Graph, wanted: Mapping[str, Mapping[str, Any]]
) -> list[tuple[Node, list[Any]]]:
    by_name, by_operator = wanted.get("name", {}), wanted.get("op_type", {})
    nodes = list(graph)
    missing = [name for name in by_name if all(node.name != name for node in nodes)]
    missing += [op for op in by_operator if all(node.op_type != op for node in nodes)]
    if missing:
        raise PassError(f"no node is or is called {', '.join(map(str, missing))}")
    found: Iterator[tuple[Node, Any]] = (
        (node, by_name.get(str(node.name), by_operator.get(node.op_type))) for node in nodes
    )
    return [(node, list(entries)) for node, entries in found if entries]


def _quantizer(node: Node, given: Any) -> IntQuant:
    try:
        scale, zero_point, bits, narrow, signed, rounding = given
        numbers = [np.asarray(n, dtype=np.float32) for n in (scale, zero_point, bits)]
    except (TypeError, ValueError):
        raise PassError(
            f"'{node.name}': {given} is not (scale, zero point, bits, narrow, signed, mode)"
        ) from None
    return IntQuant(
        scale=numbers[0],
        zero_point=numbers[1],
        bits=numbers[2],
        narrow=bool(narrow),
        signed=bool(signed),
        rounding=dialect.parse_rounding(str(rounding), str(node.name)),
    )


def _insert(graph: Graph, node: Node, place: Any, quant: IntQuant) -> bool:
    kind, index = place
    held = node.inputs if kind == "input" else node.outputs
    if kind not in ("input", "output") or not 0 <= index < len(held) or held[index] is None:
        raise PassError(f"'{node.name}' has no {kind} {index}")
    value: Value = held[index]
    readers = (use.node for use in value.uses())
    made = [producer(value)] if kind == "input" else list(readers)
    if any(one is not None and dialect.is_quantizer(one) for one in made):
        return False
    name = free_name(f"{node.name}_{kind}{index}_quant", node_names(graph))
    fresh = dialect.quantizer_node(value, quant, name, graph)
    if kind == "input":
        node.prepend(fresh)
        node.replace_input_with(index, fresh.outputs[0])
    else:
        node.append(fresh)
        read_behind(fresh, f"{name}_in")
    return True
