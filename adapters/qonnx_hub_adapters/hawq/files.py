"""ONNX files that HAWQ's own exporter wrote.

Their operators are read literally. What they leave out is not guessed: the exporter writes no
quantizer for a QuantAct, so that only the division by its scale, before the next layer, is
left of it. The bit widths can be given; the scale of each is that division's.
"""

from __future__ import annotations

import mmap
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx_ir import Graph, Model, Node, Value

from qonnx_hub_adapters.hawq.folding import FoldScales
from qonnx_hub_adapters.onnx_reader import describe, is_onnx, read_model
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.errors import UsageError
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.queries import input_of, is_standard, is_weight, producer, quantizers
from qonnx_hub_ir.passes import DropUnused, InferShapes, NameNodes, run_passes
from qonnx_hub_ir.quantizers import IntQuant
from qonnx_hub_ir.validity import require_valid

DOMAIN = "hawq2qonnx"
LOST = (
    "has no activation quantizer: HAWQ's exporter leaves them out; the file computes "
    "other values than the trained network. Convert the live module or its "
    "checkpoint, or give the bit widths with the option act_bits (layers: {layers})"
)


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
            with (
                Path(source).open("rb") as stream,
                mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content,
            ):
                if content.find(DOMAIN.encode()) < 0:
                    return False
            proto = onnx.load(source, load_external_data=False)
        except Exception:  # reading the file reports what is wrong
            return False
    if not isinstance(proto, onnx.ModelProto):
        return False
    domains = {node.domain for node in proto.graph.node}
    return DOMAIN in domains | {entry.domain for entry in proto.opset_import}


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
    model = read_model(source, keep_versions=True)
    places = _places(model.graph)
    if act_bits is not None:
        _insert(model.graph, places, act_bits)
        run_passes(model, [DropUnused(), NameNodes(), InferShapes()])
    elif places and all(
        node.op_type == "Trunc" or is_weight(node) for node in quantizers(model)
    ):
        names = ", ".join(name for name, _ in places)
        warnings.warn(f"{describe(source)} {LOST.format(layers=names)}", stacklevel=4)
    if fold:
        run_passes(model, [FoldScales(), DropUnused(), NameNodes(), InferShapes()])
    require_valid(model, describe(source))
    return model


Places = list[tuple[str, Node]]
"""Name of each layer with quantized weights, and the node whose first input its QuantAct made:
the division by the scale of that QuantAct, or the product itself where the exporter merged the
division into the layer before."""


def _places(graph: Graph) -> Places:
    found = []
    for node in graph:
        weight = input_of(node, 1) if operators.is_product(node) else None
        quant = producer(weight)
        if quant is None or not dialect.is_quantizer(quant) or not is_weight(quant):
            continue
        before = producer(node.inputs[0])
        if (
            before is None
            or not is_standard(before, "Div")
            or dialect.constant_value(before.inputs[1]) is None
        ):
            before = node
        found.append((str(node.name), before))
    return found


def _insert(graph: Graph, places: Places, bits: Mapping[str, int] | int) -> None:
    """Put a quantizer before each layer; negative widths are unsigned ones.

    Raises:
        UsageError: An unknown layer, or one without a bit width.
    """
    names = [name for name, _ in places]
    widths = dict.fromkeys(names, bits) if isinstance(bits, int) else dict(bits)
    unknown = sorted(set(widths) - set(names))
    missing = sorted(set(names) - set(widths))
    if unknown or missing:
        raise UsageError(
            f"act_bits must name every layer with weights ({', '.join(names)}); "
            f"unknown: {', '.join(unknown) or 'none'}; missing: {', '.join(missing) or 'none'}"
        )
    done: dict[Value, Value] = {}
    for name, node in places:
        x = node.inputs[0]
        if x is not None and x not in done:
            done[x] = _quantized(f"{name}_act", x, node, widths[name])
        if x is not None:
            node.replace_input_with(0, done[x])
    graph.opset_imports.setdefault(dialect.DOMAIN, dialect.DOMAIN_VERSION)


def _quantized(name: str, x: Value, node: Node, width: int) -> Value:
    signed = width > 0
    if not (2 if signed else 1) <= abs(width) <= 32:
        raise UsageError(f"act_bits of '{name.removesuffix('_act')}' is {width}")
    step = dialect.constant_value(node.inputs[1]) if is_standard(node, "Div") else None
    quantizer = IntQuant(
        np.asarray(1 if step is None else step, dtype=np.float32),
        np.zeros((), dtype=np.float32),
        np.asarray(abs(width), dtype=np.float32),
        signed=signed,
    )
    value = Emitter(node).quantizer(x, quantizer, name=name)
    value.metadata_props[dialect.PROVENANCE] = name
    return value
