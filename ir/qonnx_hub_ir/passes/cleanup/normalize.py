"""Foreign spellings become the canonical dialect, once, on import."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir
from onnx_ir import Attr, Graph, Model, Node
from onnx_ir.passes import InPlacePass, PassResult
from onnx_ir.passes.common import (
    LiftConstantsToInitializersPass,
    RemoveInitializersFromInputsPass,
)

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.errors import SourceError
from qonnx_hub_ir.graph.subgraphs import every_node
from qonnx_hub_ir.lowering.functions import is_known

_LOWEST_IR_VERSION = 4
"""From here on an initializer need not be a graph input as well."""


_OURS = {
    *((dialect.DOMAIN, name) for name in dialect.QUANTIZERS),
    *operators.assign(True, domain=dialect.CHANNELS_LAST_DOMAIN),
}
"""Operators whose meaning no file may change by a function."""


@dataclass(frozen=True)
class NormalizeDialect(InPlacePass):
    """Translate every alias of the dialect into its canonical spelling.

    Before -> after::

        onnx.brevitas::Quant, ...::IntQuant      -> qonnx.custom_op.general::Quant
        Quant, QGemm in the standard domain      -> in the domain that defines them
        rounding_mode missing, "round", HALF_EVEN -> "ROUND"; ROUND_TO_ZERO -> "DOWN"
        signed, narrow ... missing               -> the documented default, written out
        zero_point_after_rounding without effect -> dropped
        Constant nodes                           -> initializers
        initializers listed as graph inputs      -> initializers only
        scalar graph outputs that are constants  -> dropped, while a real output remains
        missing or wrong opset imports           -> the canonical ones
        IR version below 4                       -> 4: initializers that are no inputs need it
        functions that define a quantizer        -> dropped where they say what it means

    A model in canonical spelling is left alone.

    Raises:
        SourceError: An attribute or a rounding mode that no operator document knows, a
            quantizer with a number of inputs that none of its versions has, or a function
            that defines a quantizer in another way.
    """

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        ours = [key for key in model.functions if _canonical(key[0], key[1]) in _OURS]
        defined = [model.functions.pop(key) for key in ours]
        modified = bool(defined)
        for node in every_node(model):
            if node.op_identifier() not in model.functions:
                modified |= _normalize_node(node)
        _check_meaning(model, defined)
        modified |= _normalize_imports(model)
        modified |= RemoveInitializersFromInputsPass()(model).modified
        lift = LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)
        modified |= lift(model).modified
        modified |= _drop_constant_outputs(model.graph)
        if model.ir_version < _LOWEST_IR_VERSION:
            model.ir_version = _LOWEST_IR_VERSION
            modified = True
        return PassResult(model, modified=modified)


def _check_meaning(model: Model, defined: list[onnx_ir.Function]) -> None:
    """Refuse functions that give operators of the dialect another meaning."""
    for function in defined:
        key = _canonical(function.domain, function.name)
        nodes = [n for n in every_node(model) if (n.domain, n.op_type) == key]
        if not is_known(function, nodes):
            raise SourceError(
                f"the file defines {function.domain}::{function.name} by a function of its "
                "own, in a way that is not known to be what the operator document says: "
                "runtimes would run the function, other tools the operator. Remove the "
                "function if the operator is meant; rename it and its nodes if it is not"
            )


def _canonical(domain: str, op_type: str) -> tuple[str, str]:
    """Return the canonical domain and name of an operator; those given where it has none.

    Quantizers and onnxruntime's operators are known in the standard domain as well, where
    some files put them: it has no operators of these names.
    """
    if domain in dialect.STANDARD_DOMAINS:
        domain = ""
        if not operators.is_opaque_name(domain, op_type):
            return domain, op_type
    name = dialect.OPERATOR_ALIASES.get(op_type, op_type)
    own = domain in {"", dialect.DOMAIN, *dialect.DOMAIN_ALIASES}
    if own and not operators.is_opaque_name(dialect.DOMAIN, name):
        return dialect.DOMAIN, name
    if not domain and not operators.is_opaque_name(dialect.ONNXRUNTIME_DOMAIN, op_type):
        return dialect.ONNXRUNTIME_DOMAIN, op_type
    return domain, op_type


def _normalize_node(node: Node) -> bool:
    before = node.domain, node.op_type
    domain, op_type = _canonical(*before)
    modified = (domain, op_type) != before
    node.domain, node.op_type = domain, op_type
    if domain != dialect.DOMAIN:
        return modified
    # An overload names a function variant; without the function it has no meaning.
    modified |= node.overload != ""
    node.overload = ""
    if op_type not in dialect.QUANTIZERS:
        return modified
    problem = dialect.input_problem(node)
    if problem:
        raise SourceError(f"{node.op_type} '{node.name}': {problem}")
    return _normalize_attributes(node) or modified


def _normalize_attributes(node: Node) -> bool:
    defaults = dialect.known_attributes(node)
    unknown = sorted(set(node.attributes) - set(defaults))
    if unknown:
        raise SourceError(
            f"{node.op_type} '{node.name}': unknown attribute {', '.join(unknown)}; "
            f"known are {', '.join(sorted(defaults)) or 'none'}"
        )
    modified = False
    for name, default in defaults.items():
        given = node.attributes.get(name)
        if (name == dialect.ORDER and given is None) or (given is not None and given.is_ref()):
            continue  # a reference in a function: the caller says what it is
        value = default if given is None else given.value
        if isinstance(default, str):
            value = str(dialect.parse_rounding(str(value), node.name or ""))
            attr = onnx_ir.AttrString(name, value)
        elif given is not None and value not in (0, 1):
            raise SourceError(
                f"{node.op_type} '{node.name}': attribute {name} is {value!r}, must be 0 or 1"
            )
        else:
            attr = Attr(name, onnx_ir.AttributeType.INT, int(value))
        if given is None or (given.type, given.value) != (attr.type, attr.value):
            node.attributes[name] = attr
            modified = True
    return _drop_order(node) or modified


def _drop_order(node: Node) -> bool:
    """Drop the order of zero point and rounding where it is QONNX's, or changes nothing."""
    given = node.attributes.get(dialect.ORDER)
    if given is None or given.is_ref():
        return False
    zero = dialect.constant_value(node.inputs[2])
    has_none = zero is not None and not np.any(zero)
    if given.value and not has_none:
        return False
    del node.attributes[dialect.ORDER]
    return True


def _normalize_imports(model: Model) -> bool:
    imports = model.opset_imports
    before = dict(imports)
    if "ai.onnx" in imports:
        imports.setdefault("", imports.pop("ai.onnx"))
    used = {node.domain for node in every_node(model)}
    for alias in dialect.DOMAIN_ALIASES - used:
        imports.pop(alias, None)
    if dialect.DOMAIN in used:
        imports[dialect.DOMAIN] = dialect.DOMAIN_VERSION
        for function in model.functions.values():
            # The number of inputs tells the versions of an operator apart.
            if dialect.DOMAIN in function.opset_imports:
                function.opset_imports[dialect.DOMAIN] = dialect.DOMAIN_VERSION
    if dialect.ONNXRUNTIME_DOMAIN in used:
        imports.setdefault(dialect.ONNXRUNTIME_DOMAIN, 1)  # onnxruntime asks for none
    if dialect.CHANNELS_LAST_DOMAIN in used:
        # Its operators follow the standard operators of the same name and version.
        imports[dialect.CHANNELS_LAST_DOMAIN] = imports.get("", 1)
    return dict(imports) != before


def _drop_constant_outputs(graph: Graph) -> bool:
    real = [v for v in graph.outputs if not v.is_initializer()]
    kept = [
        v
        for v in graph.outputs
        if v in real or v.const_value is None or v.const_value.size != 1
    ]
    if not real or len(kept) == len(graph.outputs):
        return False
    graph.outputs[:] = kept
    return True
