"""What must hold of an IR model."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from typing import Any

import numpy as np
import onnx.defs
from onnx_ir import AttributeType, Graph, Model, Node, Value

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.errors import HubError, InvalidModelError, Issue
from qonnx_hub_ir.graph.process_faults import fatal_rule
from qonnx_hub_ir.graph.queries import element_count
from qonnx_hub_ir.graph.subgraphs import bodies, nodes_within
from qonnx_hub_ir.lowering import im2col, onnxruntime_operators, qonnx_general
from qonnx_hub_ir.lowering.onnxruntime_operators import Signature
from qonnx_hub_ir.quantizers import Array, FloatQuant, IntQuant, Quantizer, is_whole

LARGEST_BITS = 64

_LISTS = frozenset({"shape", "repeats"})
"""Inputs of standard operators that have one axis."""


def verify(model: Model) -> list[Issue]:
    """Return every rule that the model breaks; an empty list for a sound model.

    The rules: an import for each domain used; attributes and numbers of inputs that operator
    documents know, for every operator that has one; every input defined before its use,
    nothing defined twice, no cycles; at least one output; and for the quantizers scales finite
    and above zero, bit widths whole and from 1 to 64, parameters that broadcast to their
    input, which is of a float type.
    """
    issues: list[Issue] = []
    if not model.graph.outputs:
        issues.append(Issue(str(model.graph.name), "the graph has no output"))
    issues.extend(_check_scope(model.graph, frozenset()))
    for node in nodes_within(model.graph):
        issues.extend(_check_node(node, model))
    return issues


def require_valid(model: Model, what: str) -> None:
    """Raise unless the model is sound.

    Args:
        model: The model.
        what: The thing being checked, for the message (a file name, a step).

    Raises:
        InvalidModelError: With every broken rule.
    """
    issues = verify(model)
    if issues:
        raise InvalidModelError(f"{what} is not a valid model:", issues)


def label(node: Node) -> str:
    """Return how messages call a node: operator and name, or its first output."""
    name = node.name or (str(node.outputs[0].name) if node.outputs else "")
    return f"{node.op_type} '{name}'"


def _check_scope(graph: Graph, outer: frozenset[Value]) -> Iterator[Issue]:
    """Check definitions and order; one walk, in the order the nodes are listed."""
    defined: set[Value] = {*outer, *graph.inputs, *graph.initializers.values()}
    names: set[str] = {str(value.name) for value in defined}
    later = {value for node in graph for value in node.outputs}
    for node in graph:
        for value in node.inputs:
            if value is None or value in defined:
                continue
            rule = (
                f"input '{value.name}' is defined after its use, or the graph has a cycle"
                if value in later
                else f"input '{value.name}' is defined nowhere"
            )
            yield Issue(label(node), rule)
        for body in bodies(node):
            yield from _check_scope(body, frozenset(defined))
        for value in node.outputs:
            if value.name and value.name in names:
                yield Issue(label(node), f"output '{value.name}' is defined twice")
            names.add(str(value.name))
            defined.add(value)
    for value in graph.outputs:
        if value not in defined:
            yield Issue(f"graph output '{value.name}'", "nothing computes it")


_BY_TABLE = frozenset({dialect.CHANNELS_LAST_DOMAIN, dialect.TFLITE_DOMAIN})


def _check_node(node: Node, model: Model) -> Iterator[Issue]:
    if (node.domain, node.op_type, node.overload) in model.functions:
        return
    if node.domain not in model.opset_imports:
        yield Issue(label(node), f"domain '{node.domain}' is not imported")
        return
    if dialect.is_quantizer(node):
        yield from _check_quantizer(node)
    elif dialect.is_thresholds(node):
        yield from _check_thresholds(node)
    elif im2col.is_im2col(node):
        yield from _check_signature(node, im2col.SIGNATURE)
        problem = im2col.problem_of(node)
        if problem:
            yield Issue(label(node), problem)
    elif qonnx_general.is_general(node):
        yield from _check_signature(node, qonnx_general.SIGNATURES[node.op_type])
    elif operators.is_opaque(node) or node.domain in _BY_TABLE:
        return  # nothing is known of the one, and the others are operators of the table
    elif node.domain == onnxruntime_operators.DOMAIN:
        yield from _check_signature(node, onnxruntime_operators.OPERATORS[node.op_type])
    else:
        yield from _check_standard(node, model.opset_imports[node.domain])


def _check_signature(node: Node, signature: Signature) -> Iterator[Issue]:
    yield from _check_attributes(node, signature.attributes, sorted(signature.required))
    yield from _check_count(node, signature.lowest, signature.most)


def _check_standard(node: Node, version: int) -> Iterator[Issue]:
    domain = node.domain
    try:
        schema = onnx.defs.get_schema(node.op_type, version, domain)
    except onnx.defs.SchemaError:
        place = f"domain '{domain}'" if domain else f"opset {version}"
        yield Issue(label(node), f"unknown operator '{node.op_type}' in {place}")
        return
    if schema.deprecated:
        yield Issue(label(node), f"operator '{node.op_type}' is removed in opset {version}")
    required = [name for name, attribute in schema.attributes.items() if attribute.required]
    yield from _check_attributes(node, schema.attributes, required)
    for name, attribute in node.attributes.items():
        rule = type_rule(schema, name, attribute.type)
        if rule:
            yield Issue(label(node), rule)
    yield from _check_count(node, schema.min_input, schema.max_input)
    for given, formal in zip(node.inputs, schema.inputs, strict=False):
        if given is None and formal.option == onnx.defs.OpSchema.FormalParameterOption.Single:
            yield Issue(label(node), f"required input '{formal.name}' is left out")
        shape = _known_shape(given) if formal.name in _LISTS else None
        if shape is not None and len(shape) != 1:
            rule = f"input '{formal.name}' is one list of numbers, it has {len(shape)} axes"
            yield Issue(label(node), rule)
    for problem in (fatal_rule(node), operators.is_qdq(node) and _scale_problem(node)):
        if problem:
            yield Issue(label(node), problem)
    if not schema.min_output <= len(node.outputs) <= schema.max_output:
        limits = f"{schema.min_output} to {schema.max_output}"
        yield Issue(label(node), f"has {limits} outputs, {len(node.outputs)} are given")


def _scale_problem(node: Node) -> str:
    """Return why a list of scales does not fit the axis that it is for; empty if it does."""
    x, scale, *zero = (_known_shape(value) for value in node.inputs[:3])
    block = node.attributes.get("block_size")
    sizes = [None if shape is None else element_count(shape) for shape in (scale, *zero)]
    if None not in sizes and len(set(sizes)) > 1:
        return f"{sizes[0]} scales do not fit {sizes[1]} zero points"
    if x is None or scale is None or len(scale) != 1 or scale[0] in (None, 1):
        return ""
    if block is not None and block.as_int():
        return ""
    given = node.attributes.get("axis")
    axis = 1 if given is None else given.as_int()
    if not -len(x) <= axis < len(x):
        return f"axis {axis} is none of an input of {len(x)} axes"
    if x[axis] in (None, scale[0]):
        return ""
    return f"{scale[0]} scales do not fit axis {axis}, which has {x[axis]} elements"


def type_rule(schema: onnx.defs.OpSchema, name: str, kind: AttributeType) -> str:
    """Return in what an attribute's type breaks its operator's document; empty if it fits."""
    known: Any = schema.attributes.get(name)
    if known is None or kind.value == known.type.value:
        return ""
    return f"attribute '{name}' is of type {kind.name}, not {known.type.name}"


def _check_attributes(
    node: Node, known: Container[str], required: Sequence[str] = ()
) -> Iterator[Issue]:
    for name in node.attributes:
        if name not in known:
            yield Issue(label(node), f"unknown attribute '{name}'")
    for name in required:
        if name not in node.attributes:
            yield Issue(label(node), f"required attribute '{name}' is missing")


def _check_count(node: Node, lowest: int, most: int) -> Iterator[Issue]:
    given = len(node.inputs)
    if not lowest <= given <= most:
        yield Issue(label(node), f"takes {lowest} to {most} inputs, {given} are given")


def _check_quantizer(node: Node) -> Iterator[Issue]:
    where = label(node)
    yield from _check_attributes(node, dialect.known_attributes(node))
    problem = dialect.input_problem(node)
    if problem:
        yield Issue(where, problem)
        return
    try:
        quant = dialect.read_quantizer(node)
    except HubError as error:
        yield Issue(where, str(error))
        return
    yield from _check_parameters(node, quant)
    if isinstance(quant, FloatQuant) and not (
        quant.saturation or quant.has_inf or quant.has_nan
    ):
        yield Issue(
            where, "does not saturate and has neither infinities nor NaN to overflow to"
        )
    dtype = node.inputs[0].dtype if node.inputs[0] is not None else None
    if dtype is not None and not dtype.is_floating_point():
        yield Issue(where, f"quantizes float values, its input is {dtype.name}")


def _check_thresholds(node: Node) -> Iterator[Issue]:
    where = label(node)
    yield from _check_attributes(node, dialect.THRESHOLD_ATTRIBUTES, ["out_dtype"])
    if len(node.inputs) != 2 or None in node.inputs:
        yield Issue(where, f"takes the inputs x, thresholds; {len(node.inputs)} are given")
        return
    for name, default in dialect.THRESHOLD_ATTRIBUTES.items():
        given = node.attributes.get(name)
        kinds = (str,) if isinstance(default, str) else (int, float)
        if given is not None and not isinstance(given.value, kinds):
            yield Issue(where, f"attribute '{name}' is of type {given.type.name}")
    known = dialect.constant_value(node.inputs[1])
    if known is not None and known.ndim != 2:
        yield Issue(where, f"thresholds have shape {known.shape}, not (channels, steps)")


def _check_parameters(node: Node, quant: Quantizer) -> Iterator[Issue]:
    where, shape = label(node), _known_shape(node.inputs[0])
    names = dialect.input_names(node)[1:]
    for name, values in zip(names, dialect.parameters(quant), strict=True):
        if values is None:
            continue
        rule = _value_rule(name, values)
        if rule:
            yield Issue(where, rule)
        if shape is not None and not _broadcasts(values, shape):
            yield Issue(
                where, f"{name} of shape {values.shape} does not broadcast to input {shape}"
            )
    if isinstance(quant, IntQuant) and quant.signed and quant.bits is not None:
        one_bit = quant.bits == 1
        if np.any(one_bit) and not np.all(one_bit):
            yield Issue(where, "mixes one signed bit, which means two levels, with more bits")
        if np.any(one_bit) and quant.zero_point_after_rounding:
            yield Issue(where, f"one signed bit is not rounded; remove '{dialect.ORDER}'")
    if isinstance(quant, IntQuant) and quant.zero_point_after_rounding:
        zero = quant.zero_point
        if zero is not None and not is_whole(zero):
            yield Issue(where, f"'{dialect.ORDER}' needs whole zero points")


def _value_rule(name: str, values: Array) -> str:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.size == 0:
        return f"{name} is empty"
    if "scale" in name:
        low = numbers[numbers <= 0]
        if low.size:
            return f"{name} must be above zero, it is {_example(low)}"
        odd = numbers[~np.isfinite(numbers)]
        return f"{name} must be finite, it is {_example(odd)}" if odd.size else ""
    if np.any(np.isinf(numbers)):
        return f"{name} is infinite"
    if name == "zero point" and np.any(np.isnan(numbers)):
        return f"{name} is not a number"
    if name == "exponent bias":
        wrong = numbers[numbers != np.rint(numbers)]
        return f"{name} must be a whole number, it is {_example(wrong)}" if wrong.size else ""
    if "bit width" not in name:
        return ""
    lowest = 0 if "mantissa" in name else 1
    wrong = numbers[
        ~((numbers == np.rint(numbers)) & (numbers >= lowest) & (numbers <= LARGEST_BITS))
    ]
    if wrong.size:
        limit = f"a whole number from {lowest} to {LARGEST_BITS}"
        return f"{name} must be {limit}, it is {_example(wrong)}"
    return ""


def _example(values: Array) -> str:
    return f"{float(values.reshape(-1)[0]):g}"


def _known_shape(value: Value | None) -> tuple[int | None, ...] | None:
    if value is None or value.shape is None:
        return None
    return tuple(dim if isinstance(dim, int) else None for dim in value.shape)


def _broadcasts(values: Array, shape: tuple[int | None, ...]) -> bool:
    """Return whether ``values`` fits into ``shape`` without enlarging it."""
    if values.size == 1:
        return True
    if values.ndim > len(shape):
        return False
    aligned = shape[len(shape) - values.ndim :]
    return all(
        own in (1, dim) or dim is None for own, dim in zip(values.shape, aligned, strict=True)
    )
