"""How graphs spell quantizers: names, domains, versions, defaults; node <-> dataclass.

One canonical spelling is used inside: operators ``Quant``, ``BipolarQuant``, ``FloatQuant``
and ``Trunc`` in domain ``qonnx.custom_op.general``. Everything else that files in the wild say
for the same thing is listed here and translated once, by
:mod:`qonnx_hub_ir.passes.cleanup.normalize`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Attr, Graph, Node, Value

from qonnx_hub_ir.errors import SourceError
from qonnx_hub_ir.quantizers import (
    Array,
    BipolarQuant,
    FloatQuant,
    IntQuant,
    Parameter,
    Quantizer,
    Rounding,
    Trunc,
)

DOMAIN = "qonnx.custom_op.general"
"""The canonical domain of the quantizers."""

CHANNELS_LAST_DOMAIN = "qonnx.custom_op.channels_last"
"""Standard operators whose channel axis is the last one."""

ONNXRUNTIME_DOMAIN = "com.microsoft"
"""onnxruntime's own operators."""

TFLITE_DOMAIN = "org.tensorflow.lite"
"""TFLite's own operators, on codes."""

DOMAIN_VERSION = 2
"""Version that is imported for the canonical domain: Trunc has six inputs from 2 on."""

DOMAIN_ALIASES = frozenset(
    {"onnx.brevitas", "finn.custom_op.general", "hawq2qonnx", "qonnx", "qonnx.custom_op"}
)
"""Domains in which files in the wild put the same operators."""

OPERATOR_ALIASES: Mapping[str, str] = {"IntQuant": "Quant"}

_KINDS: Mapping[str, Any] = {
    "Quant": IntQuant,
    "BipolarQuant": BipolarQuant,
    "FloatQuant": FloatQuant,
    "Trunc": Trunc,
}

QUANTIZERS = frozenset(_KINDS)

THRESHOLDS = "MultiThreshold"
"""Operator of the canonical domain that counts thresholds; see
:mod:`qonnx_hub_ir.thresholds`."""

THRESHOLD_ATTRIBUTES: Mapping[str, float | str] = {
    "out_dtype": "",
    "out_scale": 1.0,
    "out_bias": 0.0,
    "data_layout": "",
}
"""Its attributes, with their defaults; ``out_dtype`` must be given."""

STANDARD_DOMAINS = frozenset({"", "ai.onnx"})

DEFAULTS: Mapping[str, Mapping[str, int | str]] = {
    "Quant": {
        "signed": 1,
        "narrow": 0,
        "rounding_mode": "ROUND",
        "zero_point_after_rounding": 0,
    },
    "BipolarQuant": {},
    "FloatQuant": {
        "has_inf": 0,
        "has_nan": 0,
        "has_subnormal": 0,
        "saturation": 1,
        "rounding_mode": "ROUND",
    },
    "Trunc": {"signed": 1, "narrow": 0, "rounding_mode": "FLOOR"},
}
"""Attribute defaults of the operator documents; an attribute not listed here is unknown.
``signed`` and ``narrow`` of Trunc exist from version 2 on."""

ORDER = "zero_point_after_rounding"
"""Attribute of Quant that QONNX does not know: the order of QuantizeLinear. Written only where
it holds, so that a file without it is plain QONNX."""

ROUNDING = "rounding_mode"
"""Attribute of all quantizers but BipolarQuant; every other one is the name of a field."""

_SCALE = {"scale": "scale"}
_UNIFORM = {**_SCALE, "zero_point": "zero point"}

PARAMETERS: Mapping[str, Mapping[str, str]] = {
    "Quant": {**_UNIFORM, "bits": "bit width"},
    "BipolarQuant": _SCALE,
    "FloatQuant": {
        **_SCALE,
        "exponent_bits": "exponent bit width",
        "mantissa_bits": "mantissa bit width",
        "exponent_bias": "exponent bias",
        "max_val": "max_val",
    },
    "Trunc": {
        **_UNIFORM,
        "in_bits": "input bit width",
        "out_scale": "output scale",
        "out_bits": "output bit width",
    },
}
"""Operator -> fields of its dataclass that are inputs, in order, and what messages call them.
Version 1 of Trunc has no output scale."""

_ROUNDING_ALIASES: Mapping[str, Rounding] = {
    **{mode.value: mode for mode in Rounding},
    "HALF_EVEN": Rounding.ROUND,
    "ROUND_TO_ZERO": Rounding.DOWN,
}

_KNOWN_TO_QONNX = frozenset(Rounding) - {Rounding.DPU}

BOUNDED = "qonnx_hub.bounded"
"""Metadata key of a model: why it may differ from its source by steps of its quantizers. A
form was asked for by name that cannot say the source exactly; absent where it is the same."""

NEAR = "qonnx_hub.near"
"""Metadata key of a node: how the quantizer that it was written from differs. It computes what
any reader of its operator computes; a conversion goes back to its source, and says so."""

NOTE = "qonnx_hub.note"
"""Metadata key of a model: what a user should know about how it was read."""

PROVENANCE = "qonnx_hub.source"
"""Metadata key: name of the source layer that a value stands for."""


def parse_rounding(text: str, where: str) -> Rounding:
    """Return the rounding mode of that name, in any case.

    Args:
        text: The name as the file spells it.
        where: The node, for the message.

    Raises:
        SourceError: No such mode.
    """
    mode = _ROUNDING_ALIASES.get(text.upper())
    if mode is None:
        known = ", ".join(sorted(_ROUNDING_ALIASES))
        # PQuantML's exporter writes this for the mode that cuts what is behind the point.
        hint = "; TRUNCATE of PQuantML is DOWN" if text.upper() == "TRUNCATE" else ""
        raise SourceError(
            f"node '{where}': unknown rounding mode '{text}'; known modes are {known}{hint}"
        )
    return mode


def is_known_to_qonnx(rounding: Rounding) -> bool:
    """Return whether the QONNX operator documents name this mode."""
    return rounding in _KNOWN_TO_QONNX


def is_quantizer(node: Node) -> bool:
    """Return whether the node is one of the four quantizers in canonical spelling."""
    return node.domain == DOMAIN and node.op_type in QUANTIZERS


def is_thresholds(node: Node) -> bool:
    """Return whether the node counts thresholds."""
    return node.domain == DOMAIN and node.op_type == THRESHOLDS


def input_names(node: Node) -> tuple[str, ...]:
    """Return the names of a quantizer's inputs in order, in the version that the node has."""
    names = PARAMETERS[node.op_type]
    return ("x", *(names[field] for field in _fields(node.op_type, len(node.inputs) - 1)))


def input_problem(node: Node) -> str:
    """Return what is wrong with the number of a quantizer's inputs; empty if nothing is."""
    names, given = input_names(node), len(node.inputs)
    connected = sum(value is not None for value in node.inputs)
    if given == len(names) == connected:
        return ""
    remark = " (version 1: without output scale)" if node.op_type == "Trunc" else ""
    return (
        f"takes the inputs {', '.join(names)}{remark}; "
        f"{given} are given, {connected} of them connected"
    )


def known_attributes(node: Node) -> dict[str, int | str]:
    """Return the attributes that a quantizer can have, with their defaults."""
    defaults = dict(DEFAULTS[node.op_type])
    if node.op_type == "Trunc" and len(node.inputs) <= len(PARAMETERS["Trunc"]):
        del defaults["signed"], defaults["narrow"]
    return defaults


def constant_tensor(value: Value | None) -> onnx_ir.TensorProtocol | None:
    """Return the tensor of a value that is known without running, else ``None``.

    Known are initializers that are not graph inputs. (Constant nodes are initializers once
    :mod:`qonnx_hub_ir.passes.cleanup.normalize` has run.)
    """
    return None if value is None or value.is_graph_input() else value.const_value


def constant_value(value: Value | None) -> Parameter:
    """Return the array of a value that is known without running, else ``None``."""
    tensor = constant_tensor(value)
    return None if tensor is None else tensor.numpy()


def read_quantizer(node: Node) -> Quantizer:
    """Return what a canonical quantizer node says; dynamic parameters are ``None``.

    Raises:
        SourceError: An unknown rounding mode.
        ValueError: The node is no quantizer.
    """
    if not is_quantizer(node):
        raise ValueError(f"{node.domain}::{node.op_type} is not a quantizer")
    return quantizer_with(node, [constant_value(value) for value in node.inputs[1:]])


def quantizer_with(node: Node, known: Sequence[Parameter]) -> Quantizer:
    """Return what a canonical quantizer node says, given its parameters.

    Args:
        node: The node.
        known: Parameters in input order, ``None`` where they are not known.

    Raises:
        SourceError: An unknown rounding mode.
    """
    given = {name: attr.value for name, attr in node.attributes.data.items()}
    return make_quantizer(node.op_type, given, known, node.name or "")


def make_quantizer(
    op_type: str, attributes: Mapping[str, Any], known: Sequence[Parameter], where: str
) -> Quantizer:
    """Return the quantizer that an operator with these attributes and parameters is.

    Args:
        op_type: Canonical operator name.
        attributes: Attributes in ONNX spelling; a missing one has its documented default.
        known: Parameters in input order, ``None`` where computed at run time.
        where: The node, for messages.

    Raises:
        SourceError: An unknown rounding mode.
    """
    names, options = _fields(op_type, len(known)), dict(DEFAULTS[op_type])
    values: dict[str, Any] = dict(zip(names, known, strict=True))
    if op_type == "Trunc" and "out_scale" not in names:
        options = {ROUNDING: options[ROUNDING]}
        values.update(out_scale=None, version=1)
    for name, default in options.items():
        given = attributes.get(name, default)
        if name == ROUNDING:
            values["rounding"] = parse_rounding(str(given), where)
        else:
            values[name] = bool(given)
    quantizer: Quantizer = _KINDS[op_type](**values)
    return quantizer


def parameter_fields(quant: Quantizer) -> tuple[str, ...]:
    """Return the names of the quantizer's parameters, in input order."""
    is_old = isinstance(quant, Trunc) and quant.version == 1
    return _fields(operator_of(quant), 4 if is_old else None)


def _fields(op_type: str, count: int | None) -> tuple[str, ...]:
    """Return the parameters of an operator; version 1 of Trunc is told by its count."""
    is_old = op_type == "Trunc" and count == 4
    return tuple(n for n in PARAMETERS[op_type] if not (is_old and n == "out_scale"))


def with_parameters(quant: Quantizer, values: Sequence[Array]) -> Quantizer:
    """Return the quantizer with its parameters set to ``values``, in input order."""
    changes: dict[str, Any] = dict(zip(parameter_fields(quant), values, strict=True))
    return dataclasses.replace(quant, **changes)


def parameters(quant: Quantizer) -> list[Parameter]:
    """Return the quantizer's parameters in input order."""
    return [getattr(quant, name) for name in parameter_fields(quant)]


def operator_of(quant: Quantizer) -> str:
    """Return the canonical operator name of a quantizer."""
    return "Quant" if isinstance(quant, IntQuant) else type(quant).__name__


def attributes_of(quant: Quantizer) -> dict[str, int | str]:
    """Return the quantizer's attributes in ONNX spelling, but :data:`ORDER` where false."""
    names = tuple(DEFAULTS[operator_of(quant)])
    if isinstance(quant, Trunc) and quant.version == 1:
        names = (ROUNDING,)
    values = {n: getattr(quant, "rounding" if n == ROUNDING else n) for n in names}
    return {
        name: str(value) if name == ROUNDING else int(value)
        for name, value in values.items()
        if value or name != ORDER
    }


def quantizer_node(
    x: Value, quant: Quantizer, name: str, graph: Graph, dynamic: Mapping[int, Value] = {}
) -> Node:
    """Return a new canonical quantizer node on ``x``, with its parameters as initializers.

    The node is not inserted; its output is ``name + "_out0"``, typed and shaped like ``x``.

    Args:
        x: The value to quantize.
        quant: What the node says.
        name: Name of the node, and prefix of its parameters' names.
        graph: The graph that gets the parameters.
        dynamic: Input position -> value, for parameters computed at run time.

    Raises:
        ValueError: A parameter is neither known nor given in ``dynamic``.
    """
    inputs, kind = [x], operator_of(quant)
    for position, field in enumerate(parameter_fields(quant), start=1):
        known, label = getattr(quant, field), PARAMETERS[kind][field]
        if position in dynamic:
            inputs.append(dynamic[position])
            continue
        if known is None:
            raise ValueError(f"{label} of '{name}' is not known")
        inputs.append(add_initializer(graph, f"{name}_{label.replace(' ', '_')}", known))
    attributes = [
        onnx_ir.AttrString(key, value)
        if isinstance(value, str)
        else Attr(key, onnx_ir.AttributeType.INT, value)
        for key, value in attributes_of(quant).items()
    ]
    node = Node(DOMAIN, kind, inputs, attributes, num_outputs=1, name=name)
    out = node.outputs[0]
    out.name, out.type, out.shape = f"{name}_out0", x.type, x.shape
    return node


def known_shape(tensor: onnx_ir.TensorProtocol) -> onnx_ir.Shape:
    """Return the shape of a tensor as a shape of a value."""
    return onnx_ir.Shape([int(size) for size in tensor.shape if isinstance(size, int)])


def add_initializer(graph: Graph, name: str, array: Array) -> Value:
    """Return a new initializer of the graph that holds ``array`` under a free name."""
    plain = np.ascontiguousarray(array).reshape(array.shape)
    # The constructor is much faster than the function, which asks what kind of thing it gets.
    is_text = plain.dtype.kind in "OSU"
    tensor = onnx_ir.tensor(plain) if is_text else onnx_ir.Tensor(plain)
    return register_tensor(graph, name, tensor)


def register_tensor(graph: Graph, name: str, tensor: onnx_ir.TensorProtocol) -> Value:
    """Return a new initializer of the graph that holds ``tensor`` under a free name."""
    free, count = name, 0
    while free in graph.initializers:
        count += 1
        free = f"{name}_{count}"
    tensor.name = free
    value = Value(
        name=free,
        shape=known_shape(tensor),
        type=onnx_ir.TensorType(tensor.dtype),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value
