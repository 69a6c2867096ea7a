"""Model-local functions that define the quantizers, so that any ONNX runtime runs them.

The functions say what the operator documents say, for the nodes that a file has. On import
they are recognized and dropped: the meaning of the operators is fixed. A function that defines
one of these operators differently is refused, for a runtime would run that, and the tools that
know the operators something else.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import onnx
import onnx.parser
import onnx_ir
from onnx_ir import Function, Model, Node, Value

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.errors import Gap
from qonnx_hub_ir.graph.queries import by_operator, every_quantizer, rank_of
from qonnx_hub_ir.lowering import channels_last
from qonnx_hub_ir.lowering.function_bodies import PORTABLE_ROUNDINGS, text_of
from qonnx_hub_ir.lowering.quantizer_steps import HALF_FLOATS, Variant, variant_of
from qonnx_hub_ir.operators import is_opaque
from qonnx_hub_ir.quantizers import BipolarQuant, FloatQuant, IntQuant, Trunc

_KNOWN_EVERYWHERE = dialect.STANDARD_DOMAINS | {"ai.onnx.ml"}

_NEAR_HALF = 1e-3
"""How near to a half a shift may lie: a logarithm of another runtime could round it away."""


def function_gaps(model: Model) -> list[Gap]:
    """Return every node that no function can say exactly on every runtime.

    Those of :func:`needs_runtime` are none: no function here says what they are.
    """
    quantizers = every_quantizer(model)
    gaps = [Gap(n.name or "", n.op_type, why) for n in quantizers if (why := _refusal(n))]
    for op_type, nodes in by_operator(quantizers).items():
        dtypes = {_dtype(node) for node in nodes}
        if onnx_ir.DataType.DOUBLE in dtypes and dtypes & HALF_FLOATS:
            why = "quantizes 16-bit and 64-bit floats in one file; one function cannot do both"
            gaps.append(Gap(nodes[0].name or "", op_type, why))
    for node in model.graph.all_nodes():
        if node.domain == dialect.CHANNELS_LAST_DOMAIN:
            known = operators.is_known(operators.of(node))
        else:
            known = node.domain in _KNOWN_EVERYWHERE or dialect.is_quantizer(node)
            known = known or node.op_identifier() in model.functions or needs_runtime(node)
        if not known:
            operator = f"{node.domain}::{node.op_type}"
            gaps.append(Gap(node.name or "", operator, "no function here defines it"))
    return gaps + channels_last.function_gaps(model)


def needs_runtime(node: Node) -> bool:
    """Return whether only a runtime that knows the operator runs a node, function or not."""
    return is_opaque(node) or node.domain == dialect.ONNXRUNTIME_DOMAIN


def define_operators(model: Model) -> None:
    """Add functions for all quantizers and channels-last operators that the model uses.

    Attributes that nodes leave to their default are written out, and parameters of one element
    with more axes than their input become scalars, which means the same to a quantizer.

    Args:
        model: A model without gaps (:func:`function_gaps`), with known types and shapes;
            changed in place.
    """
    quantizers = every_quantizer(model)
    for node in quantizers:
        _flatten_parameters(node, model.graph)
    texts = [text_of(_variant(nodes)) for nodes in by_operator(quantizers).values()]
    texts += channels_last.texts_for(model)
    for text in texts:
        function = parse(text)
        function.opset_imports[""] = model.opset_imports[""]
        model.functions[function.identifier()] = function


def parse(text: str) -> Function:
    """Return the function of a text in ONNX's textual syntax."""
    return onnx_ir.serde.deserialize_function(onnx.parser.parse_function(text))


def is_known(function: Function, nodes: Iterable[Node]) -> bool:
    """Return whether a function computes what the operator of its name does, for these nodes.

    Names of values, and the version of the standard operators, may differ from ours.

    Args:
        function: A function of a quantizer or a channels-last operator.
        nodes: The nodes that call it, in canonical dialect.
    """
    signature = _signature(function)
    if function.domain == dialect.CHANNELS_LAST_DOMAIN:
        text = channels_last.text_like(function)
        return text is not None and signature == _signature(parse(text))
    op_type = dialect.OPERATOR_ALIASES.get(function.name, function.name)
    variant = next((v for v in _variants(op_type) if _signature_of(v) == signature), None)
    return variant is not None and all(_covers(variant, node) for node in nodes)


def _covers(variant: Variant, node: Node) -> bool:
    """Return whether the variant has what a node needs."""
    needed = _variant([node])
    fits_narrow = _dtype(node) != onnx_ir.DataType.DOUBLE
    floats_fit = fits_narrow if variant.narrow_floats else not needed.narrow_floats
    return (
        floats_fit
        and set(needed.roundings) <= set(variant.roundings)
        and needed.two_levels <= variant.two_levels
        and needed.overflows <= variant.overflows
        and needed.version == variant.version
    )


def _refusal(node: Node) -> str:
    quant = dialect.read_quantizer(node)
    if not isinstance(quant, BipolarQuant) and quant.rounding not in PORTABLE_ROUNDINGS:
        return f"rounds by {quant.rounding}, which is no mode of the operator documents"
    if isinstance(quant, IntQuant) and quant.zero_point_after_rounding:
        return "adds its zero point after rounding, which no Quant of QONNX does"
    for name, value in zip(dialect.input_names(node)[1:], node.inputs[1:], strict=True):
        if _adds_axes(value, node.inputs[0]):
            return f"has a {name} that may have more axes than the input"
    if isinstance(quant, FloatQuant):
        wide = _dtype(node) == onnx_ir.DataType.DOUBLE
        return "quantizes 64-bit floats; the function computes in float32" if wide else ""
    if isinstance(quant, Trunc) and quant.version == 2:
        if quant.scale is None or quant.out_scale is None:
            return "has scales that are computed at run time; their ratio needs a logarithm"
        ratio = np.asarray(quant.out_scale, dtype=np.float64) / quant.scale
        if np.any(np.abs(np.log2(ratio) % 1.0 - 0.5) < _NEAR_HALF):
            return "has scales whose ratio is halfway between powers of two"
    return ""


def _adds_axes(value: Value | None, x: Value | None) -> bool:
    """Return whether a parameter could give the result more axes than the input has."""
    tensor = dialect.constant_tensor(value)
    if value is None or (tensor is not None and tensor.size == 1):
        return False
    rank, most = rank_of(value), rank_of(x)
    return rank is None or (rank > 0 and (most is None or rank > most))


def _flatten_parameters(node: Node, graph: onnx_ir.Graph) -> None:
    rank = rank_of(node.inputs[0]) or 0
    for index, value in enumerate(node.inputs[1:], start=1):
        known = dialect.constant_tensor(value)
        if value is None or known is None or known.size != 1 or len(known.shape) <= rank:
            continue
        flat = known.numpy().reshape(())
        fresh = dialect.add_initializer(graph, f"{value.name}_scalar", flat)
        node.replace_input_with(index, fresh)


def _variant(nodes: Sequence[Node]) -> Variant:
    quants = [dialect.read_quantizer(node) for node in nodes]
    return variant_of(quants, [_dtype(node) for node in nodes])


def _dtype(node: Node) -> onnx_ir.DataType | None:
    return None if node.inputs[0] is None else node.inputs[0].dtype


def _variants(op_type: str) -> Iterator[Variant]:
    """Give all variants of an operator, the usual ones first."""
    most = 1 if op_type == "BipolarQuant" else len(PORTABLE_ROUNDINGS)
    choices = [
        modes
        for count in range(1, most + 1)
        for modes in itertools.combinations(PORTABLE_ROUNDINGS, count)
    ]
    booleans = (False, True)
    levels = booleans if op_type == "Quant" else (False,)
    overflows = booleans if op_type == "FloatQuant" else (False,)
    versions = (1, 2) if op_type == "Trunc" else (1,)
    for chosen in itertools.product(choices, levels, overflows, booleans, versions):
        yield Variant(op_type, *chosen)


@functools.lru_cache(maxsize=1024)
def _signature_of(variant: Variant) -> object:
    return _signature(parse(text_of(variant)))


def _signature(function: Function) -> object:
    """Return what a function computes: its nodes, inputs first, with values numbered."""
    numbers: dict[Value | None, int] = {None: -1}
    nodes: list[object] = []

    def number(value: Value | None) -> int:
        node = None if value is None or value in numbers else value.producer()
        if node is not None:
            inputs = tuple(number(one) for one in node.inputs)
            attributes = tuple(sorted(map(_attribute, node.attributes.values())))
            domain = "" if node.domain in dialect.STANDARD_DOMAINS else node.domain
            outputs = tuple(numbers.setdefault(out, len(numbers)) for out in node.outputs)
            nodes.append((domain, node.op_type, inputs, attributes, outputs))
        return numbers.setdefault(value, len(numbers))

    ends = [number(value) for value in (*function.inputs, *function.outputs)]
    attributes = sorted((name, repr(a.value)) for name, a in function.attributes.items())
    return len(function.inputs), ends, nodes, attributes


def _attribute(attr: onnx_ir.Attr) -> tuple[str, str, str]:
    value: object = attr.value
    if attr.ref_attr_name:
        value = f"@{attr.ref_attr_name}"
    elif attr.type == onnx_ir.AttributeType.TENSOR:
        value = (attr.value.dtype, attr.value.numpy().tolist())
    return attr.name, attr.type.name, repr(value)
