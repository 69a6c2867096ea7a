"""From the source to the graph for hls4ml, operator by operator."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from onnx_ir import Model, Node, Value

from qonnx_hub_adapters.hls4ml import (
    channel_widths,
    data_movement,
    pointwise,
    pooling,
    products,
    resizing,
)
from qonnx_hub_adapters.hls4ml.builder import Builder, give_cleanup_names, order_by_depth
from qonnx_hub_adapters.hls4ml.context import Context
from qonnx_hub_adapters.hls4ml.options import Hls4mlOptions
from qonnx_hub_adapters.hls4ml.pending_affine import Term
from qonnx_hub_adapters.hls4ml.ranges import MERGED, TABLES, folded_norm
from qonnx_hub_adapters.hls4ml.refusals import RefusedError, refuse
from qonnx_hub_adapters.hls4ml.tensor_map import StoredTensor, stored_tensors
from qonnx_hub_adapters.hls4ml.weights import constant_of
from qonnx_hub_adapters.protocol import QuantizerRecord
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.analysis import image_layout
from qonnx_hub_ir.errors import Gap
from qonnx_hub_ir.graph import permutations
from qonnx_hub_ir.graph.queries import attribute, dims, quantizers
from qonnx_hub_ir.operators import Pool
from qonnx_hub_ir.passes import (
    DropUnused,
    FoldWeightLayout,
    InferShapes,
    LowerChannelsLast,
    run_passes,
)

Rule = Callable[[Context, Node], Term]

RULES: Mapping[str, Rule] = {
    **dict.fromkeys(operators.names(lambda row: row.arithmetic), pointwise.lower_arithmetic),
    **dict.fromkeys(
        operators.names(moves=operators.Moves.NOTHING, is_identity=False),
        data_movement.lower_reshape,
    ),
    **dict.fromkeys(TABLES, pointwise.lower_table),
    **dict.fromkeys(operators.names(lambda row: row.is_identity), Context.data),
    **dict.fromkeys(dialect.QUANTIZERS, pointwise.lower_quantizer),
    **dict.fromkeys(
        operators.names(lambda row: row.pool in (Pool.MAX, Pool.AVERAGE)), pooling.lower_pool
    ),
    **dict.fromkeys(
        operators.names(lambda row: row.is_whole and row.elementwise and not row.bounds),
        channel_widths.lower_whole,
    ),
    "BatchNormalization": pointwise.lower_normalization,
    "Concat": data_movement.lower_concat,
    "Conv": products.lower_conv,
    "Gemm": products.lower_gemm,
    "LeakyRelu": pointwise.lower_leaky_relu,
    "MatMul": products.lower_matmul,
    "Max": pointwise.lower_extreme,
    "Min": pointwise.lower_extreme,
    "Neg": pointwise.lower_negation,
    "Pad": data_movement.lower_pad,
    "ReduceMean": pooling.lower_reduce_mean,
    "Relu": pointwise.lower_relu,
    "Resize": resizing.lower_resize,
    "Softmax": pointwise.lower_softmax,
    "Transpose": data_movement.lower_transpose,
}
"""Operator -> what writes it."""


@dataclass(frozen=True, slots=True)
class Lowered:
    """The new graph, or why there is none.

    Attributes:
        model: The new graph, without inferred shapes.
        gaps: Everything that cannot be said; the graph is of no use then.
        records: What became of each quantizer.
        notes: Sentences for the user.
        inputs: The source's inputs, in order: name -> how it is stored.
        outputs: Its outputs, likewise.
        reordered: Whether float32 rounds somewhere else than in the source.
        tensors: Where values of the source are found in the new graph.
    """

    model: Model
    gaps: tuple[Gap, ...]
    records: tuple[QuantizerRecord, ...]
    notes: tuple[str, ...]
    inputs: Mapping[str, Term]
    outputs: Mapping[str, Term]
    reordered: bool
    tensors: tuple[StoredTensor, ...] = ()


def lower(model: Model, options: Hls4mlOptions, *, allow_lossy: bool = False) -> Lowered:
    """Return the model as hls4ml takes it. The model given is not changed.

    Args:
        model: An IR model.
        options: What the caller asked for; back end and streams matter here.
        allow_lossy: Whether to write operators that hls4ml computes from tables.
    """
    source = model.clone()
    run_passes(
        source,
        [LowerChannelsLast(), InferShapes(), FoldWeightLayout(), DropUnused(), InferShapes()],
    )
    context = Context(Builder(source.opset_imports[""]), allow_lossy, options.has_ac_types())
    gaps: list[Gap] = []
    inputs = {str(v.name): _take_input(context, v, gaps) for v in source.graph.inputs}
    for node in _data_nodes(source):
        if any(value in context.unknown for value in node.inputs if value is not None):
            context.unknown.update(node.outputs)
            continue
        try:
            term = _lowered(context, node)
        except RefusedError as refused:
            gaps.append(refused.gap)
            stand_in = _stand_in(node.outputs[0])
            if stand_in is None:
                context.unknown.update(node.outputs)
                continue
            term = stand_in
        context.terms[node.outputs[0]] = term
        known = node.outputs[0].metadata_props.get(dialect.PROVENANCE)
        if known and term.is_plain() and term.is_as_in_source():
            term.value.metadata_props.setdefault(dialect.PROVENANCE, known)
    outputs = _give_outputs(context, source, gaps)
    made = context.builder.finish([] if gaps else [term.value for term in outputs.values()])
    DropUnused()(made)
    order_by_depth(made.graph)
    give_cleanup_names(made.graph)
    gaps.extend(_gaps_of_constants(made))
    if options.io_type == "io_stream":
        gaps.extend(
            Gap(str(node.name), node.op_type, reason, "io_type=io_parallel takes it")
            for node in made.graph
            if (reason := _stream_problem(node))
        )
    return Lowered(
        made,
        tuple(gaps),
        _records(context, source),
        tuple(context.notes),
        inputs,
        outputs,
        context.builder.is_inexact,
        stored_tensors(context.terms, context.builder, made),
    )


def _stand_in(value: Value) -> Term | None:
    """Return what stands for a refused value, for the rules behind to go on.

    There is none where its shape is not known: nothing can be said behind it.
    """
    sizes = dims(value)
    if not sizes or not all(isinstance(size, int) for size in sizes[1:]):
        return None
    shape = (1, *(int(size) for size in sizes[1:] if size is not None))
    return Term(Value(shape=value.shape), shape, permutations.identity(len(shape)))


def _records(context: Context, source: Model) -> tuple[QuantizerRecord, ...]:
    """Return what became of the quantizers, those of constants among them."""
    names = []
    for node in quantizers(source):
        name = node.name or ""
        if name not in context.records and constant_of(node.outputs[0]) is not None:
            quant = dialect.read_quantizer(node)
            context.record(name, quant, "constants of a fixed-point type")
        names.append(name)
    return tuple(context.records[name] for name in names if name in context.records)


def _gaps_of_constants(model: Model) -> list[Gap]:
    """Return the nodes of the new graph with constants that no fixed-point type holds."""
    reason = "its constants or scales are not finite: no fixed-point type holds them"
    bad = [
        value
        for value in model.graph.initializers.values()
        if value.const_value is not None and not np.all(np.isfinite(value.const_value.numpy()))
    ]
    readers = {usage.node: None for value in bad for usage in value.uses()}
    norms = [n for n in model.graph if n.op_type in MERGED and n not in readers]
    told = [(node, reason) for node in readers]
    told += [(node, problem) for node in norms if (problem := _norm_problem(node))]
    return [Gap(str(node.name), node.op_type, why) for node, why in told]


def _norm_problem(node: Node) -> str:
    """Return why factor or offset of a normalization are not finite; empty where they are."""
    with np.errstate(all="ignore"):
        if all(np.all(np.isfinite(numbers)) for numbers in folded_norm(node)):
            return ""
    if node.op_type == "Div":
        divisor = constant_of(node.inputs[1])
        assert divisor is not None, "folded above"
        least = float(divisor.flat[np.argmin(np.abs(divisor))])
        return f"it divides by {least:g}, whose inverse no float32 number holds"
    return "its scale over the root of its variance is not finite, or its offset is not"


def _stream_problem(node: Node) -> str:
    """Return why a node of the new graph cannot be written for streams; empty if it can."""
    kernel = list(attribute(node, "kernel_shape", ()))
    apart = kernel == list(attribute(node, "strides", ()))
    if node.op_type == "MaxPool" and (not apart or any(attribute(node, "pads", ()))):
        return "in streams hls4ml pools only over windows side by side, without padding"
    if node.op_type == "Conv" and len(set(kernel)) > 1:
        return "in streams hls4ml asserts that windows are as high as wide"
    if node.op_type != "Reshape":
        return ""
    out = node.outputs[0]
    if out.is_graph_output() or (out.shape is not None and len(out.shape) != 2):
        return "in streams hls4ml ends with a KeyError where it repacks an image"
    if any(usage.node.op_type != "MatMul" for usage in out.uses()):
        return "in streams hls4ml loses data between a flattened image and such a layer"
    return ""


def _lowered(context: Context, node: Node) -> Term:
    rule = RULES.get(node.op_type)
    if rule is None or (node.domain not in dialect.STANDARD_DOMAINS | {dialect.DOMAIN}):
        raise refuse(node, f"hls4ml ends with 'Unsupported operation type: {node.op_type}'")
    if any(value is not None and value.uses() for value in node.outputs[1:]):
        raise refuse(node, "its second result is read; hls4ml knows one result per layer")
    if 0 in (dims(node.outputs[0]) or ()):
        raise refuse(node, "its result has no elements; hls4ml has no empty arrays")
    return rule(context, node)


def _data_nodes(model: Model) -> list[Node]:
    """Return the nodes that compute data of the outputs, in order."""
    needed: set[Node] = set()
    pending = [value.producer() for value in model.graph.outputs]
    while pending:
        node = pending.pop()
        if node is None or node in needed or constant_of(node.outputs[0]) is not None:
            continue
        needed.add(node)
        sizes = operators.setting_inputs(node)
        data = [value for k, value in enumerate(node.inputs) if k not in sizes]
        pending.extend(value.producer() for value in data if value is not None)
    return [node for node in model.graph if node in needed]


def _take_input(context: Context, value: Value, gaps: list[Gap]) -> Term:
    name = str(value.name)
    sizes = [] if value.shape is None else list(value.shape)
    if not sizes or not all(isinstance(size, int) for size in sizes[1:]):
        gaps.append(Gap(name, "input", "its size is open", "hls4ml needs fixed sizes"))
    if value.type is not None and value.dtype is not None and value.dtype.name != "FLOAT":
        gaps.append(Gap(name, "input", f"of type {value.dtype}; hls4ml takes float32 inputs"))
    shape = (1, *(size if isinstance(size, int) else 1 for size in sizes[1:]))
    rank, first = len(shape), permutations.to_first(len(shape))
    flat = rank > 2 and _ends_in_rows(value)
    is_image = (
        rank in (3, 4) and not flat and image_layout.layout_read(value) != image_layout.LAST
    )
    axes = first if is_image else tuple(range(rank))
    term = Term(Value(), shape, axes, flat=flat)
    stored = context.builder.add_input(name, term.stored_shape())
    context.terms[value] = replace(term, value=stored)
    return context.terms[value]


def _ends_in_rows(value: Value) -> bool:
    """Return whether all that is done to an image before it is a row works on any shape."""
    if value.is_graph_output():
        return False
    for usage in value.uses():
        node, out = usage.node, usage.node.outputs[0]
        if operators.reshapes(node) and usage.idx == 0:
            if out.shape is None or len(out.shape) != 2:
                return False
            continue
        data = [v for v in node.inputs if v is not None and constant_of(v) is None]
        free = data_movement.has_free_order(node)
        if not free or len(data) != 1 or not _ends_in_rows(out):
            return operators.reads_shape_only(node)
    return bool(value.uses())


def _computed(value: Value) -> Value:
    """Return the value that hls4ml computes, before what it takes for another name of it."""
    maker = value.producer()
    read = None if maker is None else maker.inputs[0]
    if maker is None or read is None:
        return value
    # The quantizer of an input is the input's own type.
    is_type = dialect.is_quantizer(maker) and read.is_graph_input()
    return _computed(read) if maker.op_type == "Reshape" or is_type else value


def _give_outputs(context: Context, source: Model, gaps: list[Gap]) -> dict[str, Term]:
    given: dict[str, Term] = {}
    for output in source.graph.outputs:
        term = context.terms.get(output)
        name = str(output.name)
        if term is None and output in context.unknown:
            continue  # refused before
        if term is None:
            gaps.append(Gap(name, "output", "a constant; hls4ml has no layer for it"))
            continue
        settled = context.settle(term)
        taken = [_computed(other.value) for other in given.values()]
        if _computed(settled.value).is_graph_input() or _computed(settled.value) in taken:
            # Every output is the result of a layer of its own.
            gaps.append(Gap(name, "output", "the same as an input or another output"))
            continue
        given[name] = settled
    return given
