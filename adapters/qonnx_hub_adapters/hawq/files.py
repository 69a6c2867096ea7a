"""ONNX files that HAWQ's own exporter wrote.

What they say is read literally. What they leave out is not guessed: the exporter writes no
quantizer for a QuantAct, so that only the division by its scale, before the next layer, is
left of it. The bit widths can be given; the scale of each is that division's.
"""

from __future__ import annotations

import mmap
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx_ir import Graph, Model, Node, Value

from qonnx_hub_adapters.hawq.folding import FoldScales
from qonnx_hub_adapters.onnx_reader import describe, is_onnx, read_model
from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import UsageError
from qonnx_hub_ir.passes import DropUnused, InferShapes, NameNodes, run_passes
from qonnx_hub_ir.quantizers import Array, IntQuant
from qonnx_hub_ir.verify import require_valid

DOMAIN = "hawq2qonnx"
LOST = (
    "has no activation quantizer: HAWQ's exporter leaves them out, so that the file computes "
    "something else than the network that was trained. Convert the live module or its "
    "checkpoint, or give the bit widths with the option act_bits (layers: {layers})"
)
_PRODUCTS = frozenset({"MatMul", "Gemm", "Conv"})


def is_hawq_file(source: object) -> bool:
    """Return whether the source is an ONNX file or model with HAWQ's domain.

    A file is parsed only where the domain's name is found among its bytes.
    """
    if not is_onnx(source):
        return False
    if isinstance(source, Model):
        nodes = (node.domain for node in source.graph.all_nodes())
        return DOMAIN in source.opset_imports or DOMAIN in nodes
    proto = source
    if isinstance(source, (str, Path)):
        try:
            if not _contains(Path(source), DOMAIN.encode()):
                return False
            proto = onnx.load(source, load_external_data=False)
        except Exception:  # whatever is wrong with the file, reading it will say so
            return False
    if not isinstance(proto, onnx.ModelProto):
        return False
    domains = {node.domain for node in proto.graph.node}
    return DOMAIN in domains | {entry.domain for entry in proto.opset_import}


def _contains(path: Path, text: bytes) -> bool:
    with (
        path.open("rb") as stream,
        mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as m,
    ):
        return m.find(text) >= 0


def import_file(
    source: object, act_bits: Mapping[str, int] | int | None, *, fold: bool
) -> Model:
    """Return an ONNX file of HAWQ's exporter as a verified IR model.

    Args:
        source: The file, or its model.
        act_bits: Bit widths of the lost activation quantizers, by layer or for all.
        fold: Pull Div and Mul into the scales of the quantizers.

    Raises:
        SourceError: It cannot be read.
        UsageError: ``act_bits`` names a layer that does not exist, or leaves one out.
    """
    model = read_model(source)
    layers = list(_layers(model.graph))
    if act_bits is not None:
        _insert(model.graph, layers, act_bits)
        run_passes(model, [DropUnused(), NameNodes(), InferShapes()])
    elif layers and not any(_quantizes_activations(node) for node in model.graph):
        names = ", ".join(layer.name for layer in layers)
        warnings.warn(f"{describe(source)} {LOST.format(layers=names)}", stacklevel=4)
    if fold:
        run_passes(model, [FoldScales(), DropUnused(), NameNodes(), InferShapes()])
    require_valid(model, describe(source))
    return model


@dataclass(frozen=True, slots=True)
class _Layer:
    """A product with quantized weights.

    Attributes:
        name: Name of the product's node.
        product: That node.
        division: The division by the scale of the QuantAct before; ``None`` where the exporter
            merged it into the layer before.
    """

    name: str
    product: Node
    division: Node | None

    @property
    def scale(self) -> Array:
        """The step of the layer's input, before the division."""
        step = (
            None if self.division is None else dialect.constant_value(self.division.inputs[1])
        )
        return np.ones((), dtype=np.float32) if step is None else step


def _layers(graph: Graph) -> Iterator[_Layer]:
    for node in graph:
        if node.op_type not in _PRODUCTS or len(node.inputs) < 2:
            continue
        if not _is_quantized_constant(node.inputs[1]):
            continue
        before = None if node.inputs[0] is None else node.inputs[0].producer()
        is_division = before is not None and before.op_type == "Div"
        if is_division and before is not None and _is_constant(before.inputs[1]):
            yield _Layer(str(node.name), node, before)
        else:
            yield _Layer(str(node.name), node, None)


def _is_constant(value: Value | None) -> bool:
    return dialect.constant_value(value) is not None


def _is_quantized_constant(value: Value | None) -> bool:
    node = None if value is None else value.producer()
    return node is not None and dialect.is_quantizer(node) and _is_constant(node.inputs[0])


def _quantizes_activations(node: Node) -> bool:
    return (
        dialect.is_quantizer(node)
        and node.op_type != "Trunc"
        and not _is_constant(node.inputs[0])
    )


def _insert(graph: Graph, layers: list[_Layer], bits: Mapping[str, int] | int) -> None:
    """Put a quantizer before each layer; negative widths are unsigned ones.

    Raises:
        UsageError: An unknown layer, or one without a bit width.
    """
    names = [layer.name for layer in layers]
    widths = dict.fromkeys(names, bits) if isinstance(bits, int) else dict(bits)
    unknown = sorted(set(widths) - set(names))
    missing = sorted(set(names) - set(widths))
    if unknown or missing:
        raise UsageError(
            f"act_bits must name every layer with weights ({', '.join(names)}); "
            f"unknown: {', '.join(unknown) or 'none'}; missing: {', '.join(missing) or 'none'}"
        )
    done: dict[Value, Value] = {}
    for layer in layers:
        target = layer.product if layer.division is None else layer.division
        x = target.inputs[0]
        if x is None:
            continue
        if x not in done:
            done[x] = _quantized(graph, layer, x, target, widths[layer.name])
        target.replace_input_with(0, done[x])


def _quantized(graph: Graph, layer: _Layer, x: Value, target: Node, width: int) -> Value:
    signed = width > 0
    lowest = 2 if signed else 1
    if not lowest <= abs(width) <= 32:
        raise UsageError(f"act_bits of '{layer.name}' is {width}")
    quantizer = IntQuant(
        np.asarray(layer.scale, dtype=np.float32),
        np.zeros((), dtype=np.float32),
        np.asarray(abs(width), dtype=np.float32),
        signed=signed,
    )
    node = dialect.quantizer_node(x, quantizer, f"{layer.name}_act", graph)
    target.prepend(node)
    node.outputs[0].metadata_props[dialect.PROVENANCE] = f"{layer.name}_act"
    if dialect.DOMAIN not in graph.opset_imports:
        graph.opset_imports[dialect.DOMAIN] = dialect.DOMAIN_VERSION
    return node.outputs[0]
