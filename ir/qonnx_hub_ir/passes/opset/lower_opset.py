"""Graphs are lowered to an older opset, for readers that know no newer one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx.defs
import onnx_ir
from onnx_ir import Model, Node
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import Gap, NotExactError, UsageError
from qonnx_hub_ir.graph.subgraphs import every_node
from qonnx_hub_ir.passes.opset.older_forms import NEUTRAL, RULES, Row, hard_swish

LOWEST = 9
"""Lowest opset that can be written: that of the oldest files in use."""

_VARIADIC = onnx.defs.OpSchema.FormalParameterOption.Variadic
_DOMAINS = dialect.STANDARD_DOMAINS | {dialect.CHANNELS_LAST_DOMAIN}


@dataclass(frozen=True)
class LowerOpset(InPlacePass):
    """Write standard operators in the form that they had at an older opset.

    Attributes:
        opset: The standard opset to reach, from 9 on.

    Before -> after (opset 19 -> 13)::

        ReduceMean(x, axes)              -> ReduceMean(x){axes}
        Split(x){num_outputs=2}          -> Split(x)
        Reshape(x, shape){allowzero=0}   -> Reshape(x, shape)
        HardSwish(x)                     -> Mul(x, HardSigmoid(x){alpha=1/6, beta=1/2})

    and so on for every standard operator, in bodies of If, Loop and Scan as well. Exact: only
    the spelling changes. A model at or below the opset is left alone, and one that cannot be
    lowered stays as it was.

    Raises:
        NotExactError: Operators, attributes or types that the opset does not know; all of
            them are listed.
        UsageError: An opset below 9.
    """

    opset: int = 13

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        if self.opset < LOWEST:
            raise UsageError(f"opset {self.opset}: the lowest that can be written is {LOWEST}")
        own = model.opset_imports.get("", self.opset)
        if own <= self.opset:
            return PassResult(model, modified=False)
        every = every_node(model, functions=False)
        nodes = [node for node in every if node.domain in _DOMAINS]
        gaps = [
            Gap(node.name or "", node.op_type, reason)
            for node in nodes
            for reason in _problems(node, own, self.opset)
        ]
        if gaps:
            raise NotExactError(f"opset {self.opset} cannot say these nodes:", gaps)
        for node in nodes:
            _lower(node, own, self.opset)
        for domain in ("", dialect.CHANNELS_LAST_DOMAIN):
            if domain in model.opset_imports:
                model.opset_imports[domain] = self.opset
        return PassResult(model, modified=True)


def _rows(node: Node, own: int, target: int) -> list[Row]:
    """Return what changed at a node's operator in between, the newest change first."""
    return [row for row in RULES.get(node.op_type, ()) if target < row[0] <= own]


def _lower(node: Node, own: int, target: int) -> None:
    given, graph = [value for value in node.inputs if value is not None], node.graph
    for _, rule, _ in _rows(node, own, target):
        edit = rule(node)
        assert not isinstance(edit, str), "refused before anything is changed"
        edit()
    for value in given:  # constants that became attributes
        unread = (
            not value.uses() and not value.is_graph_input() and not value.is_graph_output()
        )
        if unread and value.name and graph is not None:
            graph.initializers.pop(value.name, None)
    schema = _schema(node, target)
    if schema is not None:
        for name in set(node.attributes) - set(schema.attributes):
            del node.attributes[name]


def _problems(node: Node, own: int, target: int) -> Iterator[str]:
    """Give what stands against writing a node at an older opset."""
    rows, handled = _rows(node, own, target), set[str]()
    for _, rule, attributes in rows:
        step = rule(node)
        handled.update(attributes)
        if isinstance(step, str):
            yield step
    schema = _schema(node, target)
    if schema is None:
        if not any(rule is hard_swish for _, rule, _ in rows):
            yield "the operator does not exist there"
        return
    for name in sorted(set(node.attributes) - set(schema.attributes) - handled):
        neutral = NEUTRAL.get((node.op_type, name), ())
        if node.attributes[name].value not in neutral:
            yield f"its attribute {name} is not known there"
    if not rows:
        given = [value for value in node.inputs if value is not None]
        if not schema.min_input <= len(given) <= len(node.inputs) <= schema.max_input:
            yield f"it takes {schema.min_input} to {schema.max_input} inputs there"
    yield from _type_problems(node, schema)


def _schema(node: Node, opset: int) -> onnx.defs.OpSchema | None:
    try:
        return onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError:
        return None


def _type_problems(node: Node, schema: onnx.defs.OpSchema) -> Iterator[str]:
    """Give the types of inputs and outputs that the opset's operator does not take."""
    allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}
    bound: dict[str, onnx_ir.DataType] = {}
    for values, formals in ((node.inputs, schema.inputs), (node.outputs, schema.outputs)):
        rest = [f for f in formals[-1:] if f.option == _VARIADIC] * len(values)
        for value, formal in zip(values, [*formals, *rest], strict=False):
            if value is None or not isinstance(value.type, onnx_ir.TensorType):
                continue
            name, dtype = formal.type_str, value.type.dtype
            if f"tensor({dtype.name.lower()})" not in allowed.get(name, (name,)):
                yield f"it knows no {dtype.name} there ('{value.name}')"
            elif formal.is_homogeneous and bound.setdefault(name, dtype) != dtype:
                yield f"it takes no {dtype.name} beside {bound[name].name} there"
