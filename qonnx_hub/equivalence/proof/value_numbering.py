"""Numbers for values: two values with one number are equal, whatever the models are fed with.

A number stands for an expression: an operator, its attributes and the numbers of its inputs;
or for an array, or for an input of both models. One table serves both models, so that whatever
they share gets one number without being searched for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx.defs
import onnx_ir
from onnx import helper
from onnx_ir import Node

from qonnx_hub.equivalence.proof.body_forms import body_form
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.subgraphs import captured_values
from qonnx_hub_ir.operators import Moves
from qonnx_hub_ir.quantizers import Array

_OLDEST = 20
"""Models are raised to opset 19: an operator is as it was if no later opset changed it."""

_NEUTRAL: Mapping[str, Any] = {"auto_pad": "NOTSET", "dilations": 1, "pads": 0, "strides": 1}
"""Attributes that may be left out when they hold this, or only this."""

Signature = tuple[Hashable, ...]


class Numbering:
    """Numbers of expressions, the same for both models."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}
        self._expressions: dict[int, tuple[Signature, Sequence[int]]] = {}
        self._scalars: set[int] = set()

    def of_expression(self, signature: Signature, inputs: Sequence[int]) -> int:
        """Return the number of an operator's first output.

        Functions of each element do not mind where elements lie: what only moves them counts
        as done behind. Of functions that change nothing the second time, one counts.

        Args:
            signature: From :func:`signature_of`.
            inputs: Numbers of its inputs, 0 for one that is left out.
        """
        row = _row(signature)
        data = [number for number in inputs if number and number not in self._scalars]
        if row.elementwise is True and len(data) == 1:
            before, sources = self._expressions.get(data[0], ((), ()))
            if row.idempotent and before == signature:
                return data[0]
            if len(sources) == 1 and _row(before).moves in (Moves.NOTHING, Moves.PERMUTES):
                earlier = [sources[0] if n == data[0] else n for n in inputs]
                return self.of_expression(before, [self.of_expression(signature, earlier)])
        # Of operators that add any number of values, two may change places.
        commutes = row.commutative is True or (row.commutative and len(inputs) == 2)
        number = self._number((signature, *(sorted(inputs) if commutes else inputs)))
        self._expressions[number] = (signature, inputs)
        return number

    def of_output(self, operator: str, first: int, index: int) -> int:
        """Return the number of an operator's further output, by that of its first one."""
        return first if index == 0 else self._number(("output", operator, first, index))

    def of_constant(self, array: Array, *, signed: bool = False) -> int:
        """Return the number of an array: by type, shape and values.

        Args:
            array: The array.
            signed: Tell zeros of either sign apart.
        """
        plain = np.ascontiguousarray(array)
        if plain.dtype.kind == "f":
            numbers = plain if signed else plain + 0
            plain = np.where(np.isnan(plain), plain.dtype.type(np.nan), numbers)
        text = plain.tolist() if plain.dtype.kind in "OSU" else None
        data = repr(text).encode() if text is not None else plain.tobytes()
        digest = hashlib.sha256(data).digest()
        number = self._number(("constant", array.dtype.name, array.shape, digest))
        if not array.shape:
            self._scalars.add(number)
        return number

    def of_input(self, position: int) -> int:
        """Return the number of a graph input."""
        return self._number(("input", position))

    def new(self) -> int:
        """Return a number that nothing else has."""
        return self._number(("only", len(self._numbers)))

    def _number(self, key: Hashable) -> int:
        return self._numbers.setdefault(key, len(self._numbers) + 1)


def _row(signature: Signature) -> operators.Operator:
    return operators.find(*map(str, signature[:2]))


def plain_signature(op_type: str, **attributes: Hashable) -> Signature:
    """Return the signature of a standard operator with one output."""
    return ("", op_type, 0, frozenset(attributes.items()), 1)


def _schema(node: Node, imports: Mapping[str, int]) -> onnx.defs.OpSchema | None:
    """Return ONNX's schema, which channels-last operators share; ``None`` for others."""
    if node.domain not in dialect.STANDARD_DOMAINS | {dialect.CHANNELS_LAST_DOMAIN}:
        return None
    try:
        return onnx.defs.get_schema(node.op_type, imports.get("", 1), "")
    except onnx.defs.SchemaError:
        return None


def since_version(node: Node, imports: Mapping[str, int]) -> int:
    """Return the opset version that defined the operator as the model uses it, or 0."""
    if node.domain not in dialect.STANDARD_DOMAINS:
        return imports.get(node.domain, 0)
    schema = _schema(node, imports)
    return 0 if schema is None else int(schema.since_version)


def signature_of(node: Node, imports: Mapping[str, int]) -> Signature | None:
    """Return what the node computes, apart from its inputs.

    Attributes left out and attributes written out with their default are the same.

    Returns:
        ``None`` for an operator that cannot be compared: it is random, or holds a graph of
        such operators. An unknown operator is taken for a function of what it reads.
    """
    opaque = operators.is_opaque(node)
    if _draws(node) if opaque else operators.is_random(node):
        return None
    attributes: dict[str, Hashable] = {}
    for name, attr in node.attributes.items():
        if attr.type is onnx_ir.AttributeType.GRAPH and not opaque:
            outer = {value: at for at, value in enumerate(captured_values(node))}
            form = body_form(attr.value, outer, lambda inner: signature_of(inner, imports))
            if form is None:
                return None
            attributes[name] = form
        elif attr.type in (onnx_ir.AttributeType.GRAPH, onnx_ir.AttributeType.GRAPHS):
            return None
        elif name not in operators.without_effect(node):
            attributes[name] = _plain(attr.value)
    defaults = defaults_of(node, imports)
    spoken = set(attributes.items()) - set(defaults.items())
    for name, neutral in {} if opaque else _NEUTRAL.items():
        value = attributes.get(name, neutral)
        if set(value if isinstance(value, tuple) else (value,)) <= {neutral}:
            spoken.discard((name, value))
    version = since_version(node, imports) if operators.changed_since(node, _OLDEST) else 0
    outputs = sum(bool(value.name) for value in node.outputs)
    domain = "" if node.domain in dialect.STANDARD_DOMAINS else node.domain
    return (domain, node.op_type, version, frozenset(spoken), outputs)


def _draws(node: Node) -> bool:
    """Return whether an unknown operator draws numbers, by its name."""
    name = node.op_type.lower()
    return any(word in name for word in ("random", "dropout", "multinomial", "sampl"))


def defaults_of(node: Node, imports: Mapping[str, int]) -> Mapping[str, Hashable]:
    """Return what a node's attributes are where they are left out, for those that may be."""
    if dialect.is_quantizer(node):
        return dialect.DEFAULTS[node.op_type]
    schema = _schema(node, imports)
    return {
        name: _plain(helper.get_attribute_value(attribute.default_value))
        for name, attribute in ({} if schema is None else schema.attributes).items()
        if attribute.default_value.type
    }


def _plain(value: Any) -> Hashable:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, (list, tuple)):
        return tuple(_plain(item) for item in value)
    if hasattr(value, "numpy"):
        array = value.numpy()
        return (array.dtype.name, array.shape, array.tobytes())
    if isinstance(value, (int, str)):
        return value
    # ONNX keeps floats of attributes in 32 bits.
    return float(np.float32(value)) if isinstance(value, float) else repr(value)
