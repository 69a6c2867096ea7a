"""Reads QCDQ and QDQ: QuantizeLinear, Clip, DequantizeLinear become quantizers of the IR."""

from __future__ import annotations

from collections.abc import Callable

from onnx_ir import Model, Node

from qonnx_hub_adapters.onnx_border import reading
from qonnx_hub_adapters.onnx_reader import describe, is_onnx, operators_in, read_model
from qonnx_hub_adapters.protocol import Feeds, ImportOptions, Outputs
from qonnx_hub_adapters.qcdq.chains import trace
from qonnx_hub_adapters.qcdq.dialects import KEPT, is_foreign_quantizer, translate
from qonnx_hub_adapters.qcdq.info import INFO
from qonnx_hub_adapters.qcdq.origins import CLIP_KEY, DOMAIN_KEY
from qonnx_hub_adapters.qcdq.parameters import NoMatchError
from qonnx_hub_adapters.qcdq.rewriter import LINEAR_OPERATORS, ChainRewriter, note_kept
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.names import node_names
from qonnx_hub_ir.graph.queries import input_of, is_standard
from qonnx_hub_ir.graph.subgraphs import every_node, nested_graphs, nodes_within
from qonnx_hub_ir.lowering.onnxruntime_operators import DOMAIN as CONTRIB
from qonnx_hub_ir.operators.row import Arithmetic
from qonnx_hub_ir.passes import DropUnused, InferShapes, NameNodes, RaiseOpset, run_passes
from qonnx_hub_ir.validity import require_valid

_OPSET_OF_ALL_TYPES = 21
"""The first standard opset with 16-bit and 4-bit integers, and with blocks."""

_TYPES_OF_19 = frozenset(
    {"INT8", "UINT8", "INT32", "FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2"}
    | {"FLOAT8E5M2FNUZ"}
)

_ROUND = operators.names(is_whole=True, elementwise=True, bounds=None)
_FACTORS = operators.names(arithmetic=Arithmetic.MULTIPLIES)
_CLAMP = operators.names(clamps=True) - {"Relu"}
"""Operators of which float forms of quantizers are made."""


class QcdqImporter:
    """QCDQ -> IR."""

    info = INFO

    def accepts(self, source: object) -> bool:
        """Return whether the source is ONNX with QuantizeLinear but without quantizers.

        So is one with quantizers of other tools, or with what they write in standard
        operators: something rounds or divides integers, and something clips; or signs are
        taken.

        A file is parsed for that; its external data is not read.
        """
        if not is_onnx(source):
            return False
        found, kinds = False, operators_in(source)
        standard = {name for domain, name in kinds if domain in dialect.STANDARD_DOMAINS}
        for domain, op_type in kinds:
            if op_type in dialect.QUANTIZERS or op_type in dialect.OPERATOR_ALIASES:
                if domain == dialect.DOMAIN or domain in dialect.DOMAIN_ALIASES:
                    return False
            elif op_type in LINEAR_OPERATORS:
                found |= domain in dialect.STANDARD_DOMAINS or domain == CONTRIB
            else:
                found |= is_foreign_quantizer(domain, op_type)
        rounds = standard & _ROUND or ("Cast" in standard and standard >= _FACTORS)
        return found or "Sign" in standard or bool(rounds and standard & _CLAMP)

    def load(self, source: object, options: ImportOptions) -> Model:
        """Return the source as a verified IR model.

        What is not one quantizer stays in standard operators, which run as they are; see
        :func:`kept_reasons`.

        Raises:
            SourceError: It cannot be read.
            InvalidModelError: It breaks rules of the IR; all of them are listed.
        """
        return read_quantizers(source)

    def run_source(self, source: object, feeds: Feeds) -> Outputs | None:
        """Return ``None``: a QCDQ file has no framework of its own beside the IR."""
        return None


def read_quantizers(source: object, expand: Callable[[Model], None] | None = None) -> Model:
    """Return an ONNX source as a verified IR model with quantizers for its QDQ pairs.

    Args:
        source: As in :func:`~qonnx_hub_adapters.onnx_reader.read_model`.
        expand: Rewrites integer operators in QDQ form first, in place.

    Raises:
        SourceError: It cannot be read.
        InvalidModelError: It breaks rules of the IR; all of them are listed.
    """
    limits: dict[str, tuple[int, int]] = {}

    def prepare(model: Model) -> None:
        translate(model)
        if expand is not None:
            expand(model)
        _standardize(model)
        limits.update(_limits_of_constants(model))

    with reading(describe(source)) as border:
        model = border.model = read_model(source, prepare, keep_versions=True)
        names = node_names(model.graph)
        rewriters = [ChainRewriter(graph, names) for graph in nested_graphs(model.graph)]
        for rewriter in rewriters:
            rewriter.rewrite_chains(limits)
        DropUnused()(model)
        for rewriter in rewriters:
            rewriter.rewrite_float_forms()
        if any(dialect.is_quantizer(node) for node in nodes_within(model.graph)):
            model.opset_imports[dialect.DOMAIN] = dialect.DOMAIN_VERSION
        run_passes(model, [DropUnused(), NameNodes(), InferShapes()])
        note_kept(model)
        require_valid(model, describe(source))
    return model


def kept_reasons(model: Model) -> dict[str, str]:
    """Return why nodes of an imported model are still QuantizeLinear and the like.

    Returns:
        Node name -> reason, in the graph's order; empty where all became quantizers.
    """
    return {
        str(node.name): node.metadata_props[KEPT]
        for node in nodes_within(model.graph)
        if KEPT in node.metadata_props
    }


def _standardize(model: Model) -> None:
    """Give onnxruntime's QuantizeLinear and DequantizeLinear their standard names.

    They took 16 and 4 bits before the standard ones did, and mean the same.
    """
    if any(_is_contrib(node) and _needs_newer_opset(node) for node in every_node(model)):
        # Before they are standard nodes, which the older opset would not know.
        RaiseOpset(_OPSET_OF_ALL_TYPES)(model)
    for node in filter(_is_contrib, every_node(model)):
        node.metadata_props[DOMAIN_KEY] = node.domain
        node.domain = ""


def _is_contrib(node: Node) -> bool:
    return node.domain == CONTRIB and operators.is_qdq(node)


def _needs_newer_opset(node: Node) -> bool:
    if "block_size" in node.attributes:
        return True
    zero = input_of(node, 2)
    known = zero if zero is not None else node.inputs[0]
    if zero is None and node.op_type == "QuantizeLinear":
        return False
    return known is None or known.dtype is None or known.dtype.name not in _TYPES_OF_19


def _limits_of_constants(model: Model) -> dict[str, tuple[int, int]]:
    """Return the ranges that Clips leave to constants, before these are folded away."""
    limits: dict[str, tuple[int, int]] = {}
    for node in nodes_within(model.graph):
        if not is_standard(node, "DequantizeLinear"):
            continue
        try:
            chain = trace(node)
        except NoMatchError:
            continue
        if chain.source is None:
            limits[str(node.outputs[0].name)] = (chain.low, chain.high)
            if len(chain.clips) == 1:
                node.metadata_props[CLIP_KEY] = chain.clips[0]
    return limits


__all__ = ["QcdqImporter", "kept_reasons", "read_quantizers"]
