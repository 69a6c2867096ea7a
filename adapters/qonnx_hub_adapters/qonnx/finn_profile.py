"""From any IR model to the QONNX that FINN's conversion takes, with the same numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir
from onnx_ir import Model, Node, Value

from qonnx_hub_adapters.lint import finn
from qonnx_hub_adapters.lint.rules import find, follows, integer_quantizer, is_one_signed_bit
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.annotations import carry
from qonnx_hub_ir.errors import Gap, PassError
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.names import free_name, value_names
from qonnx_hub_ir.graph.queries import (
    array,
    dims,
    input_of,
    is_standard,
    is_weight,
    known,
    only_reader,
    producer,
    quantizers,
    rank_of,
    readers,
)
from qonnx_hub_ir.graph.rewriting import replace_node
from qonnx_hub_ir.passes import (
    ChangeBatch,
    DropUnused,
    FoldWeightLayout,
    GemmToMatmul,
    InferShapes,
    LowerChannelsLast,
    QuantToMultithreshold,
    SinkTransposes,
    run_passes,
)
from qonnx_hub_ir.passes.layout.window_layouts import spell_out_window
from qonnx_hub_ir.quantizers import (
    Array,
    BipolarQuant,
    IntQuant,
    Quantizer,
    bits_of_range,
)
from qonnx_hub_ir.semantics import quantize, quantize_to_integers


def prepare(model: Model, most_bits: int = finn.MOST_BITS) -> list[str]:
    """Change a model into what FINN takes, in place, and return what a user should know.

    Every step keeps every output bit for bit: channels-first operators and batch 1; one weight
    quantizer per reader; a Relu of its own for every quantizer behind one, which FINN deletes;
    MatMul for a Gemm without bias; twice a value for the sum of it and itself; a Relu in front
    of an unsigned quantizer, which clips there itself;
    an unsigned quantizer with one bit less for a signed one behind a Relu; a bipolar quantizer
    of scale 1 and a Mul for one of another scale; a signed one of one bit as a bipolar one;
    constants for quantized biases; a Flatten in front of its quantizer; weights with a zero
    point as wider ones without; activations with a zero point as thresholds, whose codes keep
    their unsigned type, a Sub and a Mul.
    """
    notes: list[str] = []
    run_passes(model, [LowerChannelsLast(), FoldWeightLayout(), SinkTransposes()])
    notes.extend(_fix_batch(model))
    notes.extend(_fold_biases(model))
    plain = [
        str(node.name)
        for node in model.graph
        if is_standard(node, "Gemm") and input_of(node, 2) is None
    ]
    if plain:
        GemmToMatmul(only=tuple(plain))(model)
    for node in model.graph:
        _spell_out_attributes(node)
        _double(node)
    for node in list(quantizers(model)):
        _bipolar_for_one_bit(node)
    for node in list(quantizers(model)):
        if not is_weight(node):
            _flatten_first(node)
    for node in list(quantizers(model)):
        if is_weight(node):
            _one_reader_each(_without_zero_point(node))
        else:
            _mend_activation(node)
    for node in quantizers(model):
        _own_function(node)
    run_passes(model, [DropUnused(), InferShapes()])
    notes.extend(_count_thresholds(model, most_bits))
    return notes


def gaps(prepared: Model, most_bits: int = finn.MOST_BITS) -> list[Gap]:
    """Return what FINN would still refuse or compute wrongly in a prepared model."""
    return [
        Gap(one.node, one.op, f"{one.reason} ({one.effect})", one.remedy)
        for one in find(finn.rules_for(most_bits), prepared)
        if one.is_error
    ]


def _fix_batch(model: Model) -> list[str]:
    try:
        changed = ChangeBatch(1)(model).modified
    except PassError as error:
        return [f"the batch stays as it is: {error}"]
    return ["the batch is 1"] if changed else []


def _fold_biases(model: Model) -> list[str]:
    notes = []
    for node in model.graph:
        made_by = finn.quantized_bias(node)
        if made_by is None:
            continue
        values, *parameters = map(dialect.constant_value, made_by.inputs)
        if values is None or any(parameter is None for parameter in parameters):
            continue
        folded = quantize(values, dialect.read_quantizer(made_by))
        name = f"{node.name}_bias"
        bias = dialect.add_initializer(model.graph, name, folded)
        node.replace_input_with(node.inputs.index(made_by.outputs[0]), bias)
        notes.append(f"the bias of '{node.name}' is the constant that its quantizer gives")
    return notes


def _bipolar_for_one_bit(node: Node) -> None:
    quant = integer_quantizer(node)
    if quant is None or not is_one_signed_bit(node) or not _is_symmetric(quant):
        return
    # A quotient that underflows from below zero is -0.0, which is not below zero.
    tiny = np.nextafter(np.float32(0), np.float32(-1))
    with np.errstate(all="ignore"):
        keeps_sign = np.all(tiny / np.asarray(quant.scale, dtype=np.float32) < 0)
    if keeps_sign:
        _substitute(node, BipolarQuant(quant.scale))


def _is_symmetric(quant: IntQuant) -> bool:
    zero, scale = array(quant.zero_point), array(quant.scale)
    return bool(np.all(zero == 0) and np.all(scale > 0))


def _flatten_first(node: Node) -> None:
    """Let a quantizer with single parameters follow the reshaping that reads it."""
    if not isinstance(known(node), (IntQuant, BipolarQuant)):
        return
    if any(p is None or np.size(p) != 1 for p in map(dialect.constant_value, node.inputs[1:])):
        return
    out = node.outputs[0]
    if not only_reader(out):
        return
    (reader,) = readers(out)
    moved = reader.outputs[0]
    # A graph output would lose its name to what stands behind it.
    is_last = moved.is_graph_output()
    if is_last or not operators.reshapes(reader) or reader.inputs[0] is not out:
        return
    reader.replace_input_with(0, node.inputs[0])
    moved.replace_all_uses_with(out)
    node.replace_input_with(0, moved)
    out.shape, out.type = moved.shape, moved.type
    graph = Emitter(node).graph
    name, moved.name = str(moved.name), free_name(f"{node.name}_in", value_names(graph))
    # What is quantized and reshaped has the name that it had in the source.
    out.name = name
    out.metadata_props.update(moved.metadata_props)
    carry(moved, out)
    moved.metadata_props.pop(dialect.PROVENANCE, None)
    graph.remove(node)
    reader.append(node)


def _spell_out_attributes(node: Node) -> None:
    """Write the attributes of a window that FINN reads without a default."""
    rank = rank_of(node.inputs[0]) if node.inputs else None
    pools = operators.pool_of(node) is not None and not operators.is_global_pool(node)
    if rank is None or not (operators.is_convolution(node) or pools):
        return

    def sizes(index: int) -> list[int]:
        return [size for size in (dims(node.inputs[index]) or ())[2:] if isinstance(size, int)]

    spell_out_window(node, rank, sizes)


def _count_thresholds(model: Model, most_bits: int) -> list[str]:
    """Write activation quantizers with a zero point as thresholds, which FINN takes."""
    run_passes(model, [QuantToMultithreshold(most_bits, only_zero_points=True), InferShapes()])
    tables = [
        tensor
        for node in model.graph
        if dialect.is_thresholds(node)
        and (tensor := dialect.constant_tensor(node.inputs[1])) is not None
    ]
    if not tables:
        return []
    stored = sum(tensor.size for tensor in tables)
    return [
        f"{len(tables)} quantizers with a zero point are counted thresholds: {stored} of "
        "them, with unsigned codes, then a Sub and a Mul each"
    ]


def _without_zero_point(node: Node) -> Node:
    """Return a weight's quantizer, or in its place one of the levels without zero point."""
    quant, weight = integer_quantizer(node), dialect.constant_value(node.inputs[0])
    if quant is None or weight is None or not np.any(array(quant.zero_point)):
        return node
    if not np.all(np.isfinite(weight)):
        return node
    values = quantize(weight, quant)
    levels = quantize_to_integers(weight, quant) - array(quant.zero_point)
    ends = int(levels.min(initial=-1)), int(levels.max(initial=0))
    bits = max(float(np.max(array(quant.bits))), bits_of_range(*ends, least_signed=2)[0])
    plain = IntQuant(quant.scale, np.float32(0), np.float32(bits))
    if not np.array_equal(quantize(values, plain), values):
        return node
    stored = dialect.add_initializer(Emitter(node).graph, f"{node.name}_levels", values)
    twin = _add_twin(node, plain, stored, str(node.name))
    replace_node(node, twin.outputs[0])
    return twin


def _one_reader_each(node: Node) -> None:
    """Give every further use of a weight a quantizer and a weight of its own."""
    weight, quant = node.inputs[0], dialect.read_quantizer(node)
    tensor = dialect.constant_tensor(weight)
    if weight is None or tensor is None:
        return
    graph = Emitter(node).graph
    for number, use in enumerate(list(node.outputs[0].uses())[1:], start=1):
        own = dialect.register_tensor(graph, f"{weight.name}_copy{number}", tensor)
        twin = _add_twin(node, quant, own, f"{node.name}_copy{number}")
        use.node.replace_input_with(use.idx, twin.outputs[0])


def _mend_activation(node: Node) -> None:
    quant = known(node)
    if isinstance(quant, BipolarQuant):
        _split_bipolar_scale(node, np.asarray(quant.scale, dtype=np.float32))
        return
    if quant is None or not _is_symmetric(quant):
        return
    relu = follows(node, "Relu")
    if relu and quant.signed and np.all(array(quant.bits) > 1):
        # What is not below zero never meets the lower half of the range.
        fewer = np.asarray(quant.bits, dtype=np.float32) - np.float32(1)
        _substitute(node, replace(quant, bits=fewer, signed=False, narrow=False))
    elif not relu and not quant.signed:
        _insert_relu(node)


def _double(node: Node) -> None:
    """Write the sum of a float and itself as a product, which is the same number."""
    if not is_standard(node, "Add") or node.inputs[0] is not node.inputs[1]:
        return
    if node.outputs[0].dtype is not onnx_ir.DataType.FLOAT:
        return
    emit = Emitter(node)
    two = emit.constant("two", np.float32(2))
    emit.replace_with(emit.add("Mul", [node.inputs[0], two], node.outputs[0]))


def _own_function(node: Node) -> None:
    """Give a quantizer a Relu or Selu of its own where others read the one in front."""
    before = producer(node.inputs[0])
    if before is None or not is_standard(before, *finn.FINN["deleted"]) or is_weight(node):
        return
    out = before.outputs[0]
    if len(out.uses()) + out.is_graph_output() < 2:
        return
    own = onnx_ir.node(
        before.op_type,
        before.inputs,
        {name: one.value for name, one in before.attributes.items()},
        name=f"{node.name}_{before.op_type}",
    )
    made = own.outputs[0]
    made.name, made.type, made.shape = f"{own.name}_out", out.type, out.shape
    node.prepend(own)
    node.replace_input_with(0, made)


def _insert_relu(node: Node) -> None:
    source = node.inputs[0]
    assert source is not None
    relu = onnx_ir.node("Relu", [source], name=f"{node.name}_Relu")
    out = relu.outputs[0]
    out.name, out.type, out.shape = f"{node.name}_Relu_out", source.type, source.shape
    node.prepend(relu)
    node.replace_input_with(0, out)


def _split_bipolar_scale(node: Node, scale: Array) -> None:
    if np.all(scale == 1):
        return
    one = BipolarQuant(np.ones((), dtype=np.float32))
    sign = _add_twin(node, one, node.inputs[0], f"{node.name}_sign")
    factor = dialect.add_initializer(Emitter(node).graph, f"{node.name}_factor", scale)
    mul = onnx_ir.node("Mul", [sign.outputs[0], factor], name=f"{node.name}_Mul")
    sign.append(mul)
    replace_node(node, mul.outputs[0])


def _substitute(node: Node, quant: IntQuant | BipolarQuant) -> None:
    """Put another quantizer in the place of one, under its name."""
    replace_node(node, _add_twin(node, quant, node.inputs[0], str(node.name)).outputs[0])


def _add_twin(node: Node, quant: Quantizer, source: Value | None, name: str) -> Node:
    """Return a new quantizer behind another."""
    assert source is not None
    twin = dialect.quantizer_node(source, quant, name, Emitter(node).graph)
    out, old = twin.outputs[0], node.outputs[0]
    out.type, out.shape = old.type, old.shape
    twin.metadata_props.update(node.metadata_props)
    out.metadata_props.update(old.metadata_props)
    carry(old, out)
    node.append(twin)
    return twin
