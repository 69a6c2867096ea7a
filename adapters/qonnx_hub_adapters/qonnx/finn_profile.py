"""From any IR model to the QONNX that FINN's conversion takes, with the same numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir
from onnx_ir import Model, Node, Value

from qonnx_hub_adapters.lint import finn
from qonnx_hub_adapters.lint.rules import find
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.errors import Gap, PassError
from qonnx_hub_ir.graph.queries import (
    array,
    input_of,
    is_weight,
    known,
    producer,
    quantizers,
    readers,
)
from qonnx_hub_ir.graph.rewriting import replace_node
from qonnx_hub_ir.passes import (
    ChangeBatch,
    DropUnused,
    FoldWeightLayout,
    InferShapes,
    LowerChannelsLast,
    SinkTransposes,
    run_passes,
)
from qonnx_hub_ir.quantizers import BipolarQuant, IntQuant, Quantizer
from qonnx_hub_ir.semantics import quantize


def prepare(model: Model) -> list[str]:
    """Change a model into what FINN takes, in place, and return what a user should know.

    Every step keeps every output bit for bit: channels-first operators and batch 1; one weight
    quantizer per reader; a Relu in front of an unsigned quantizer, which clips there itself;
    an unsigned quantizer with one bit less for a signed one behind a Relu; a bipolar quantizer
    of scale 1 and a Mul for one of another scale; a signed one of one bit as a bipolar one;
    constants for quantized biases; a Flatten in front of its quantizer.
    """
    notes: list[str] = []
    run_passes(model, [LowerChannelsLast(), FoldWeightLayout(), SinkTransposes()])
    notes.extend(_fix_batch(model))
    notes.extend(_fold_biases(model))
    for node in list(quantizers(model)):
        _bipolar_for_one_bit(model, node)
    for node in list(quantizers(model)):
        if not is_weight(node):
            _flatten_first(node)
    for node in list(quantizers(model)):
        if is_weight(node):
            _one_reader_each(model, node)
        else:
            _mend_activation(model, node)
    run_passes(model, [DropUnused(), InferShapes()])
    return notes


def gaps(prepared: Model) -> list[Gap]:
    """Return what FINN would still refuse or compute wrongly in a prepared model."""
    return [
        Gap(one.node, one.op, f"{one.reason} ({one.effect})", one.remedy)
        for one in find(finn.TARGET.rules, prepared)
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
        position = operators.bias_input(node)
        made_by = None if position is None else producer(input_of(node, position))
        if position is None or made_by is None or not dialect.is_quantizer(made_by):
            continue
        values, *parameters = map(dialect.constant_value, made_by.inputs)
        if values is None or any(parameter is None for parameter in parameters):
            continue
        folded = quantize(values, dialect.read_quantizer(made_by))
        name = f"{node.name}_bias"
        node.replace_input_with(position, dialect.add_initializer(model.graph, name, folded))
        notes.append(f"the bias of '{node.name}' is the constant that its quantizer gives")
    return notes


def _bipolar_for_one_bit(model: Model, node: Node) -> None:
    quant = known(node)
    if not isinstance(quant, IntQuant) or not quant.signed or np.any(array(quant.bits) != 1):
        return
    if np.any(array(quant.zero_point) != 0) or np.any(array(quant.scale) <= 0):
        return
    if _keeps_the_sign(quant):
        _substitute(model, node, BipolarQuant(quant.scale))


def _keeps_the_sign(quant: IntQuant) -> bool:
    """Return whether ``x / scale >= 0`` says the same as ``x >= 0`` for every float32.

    A quotient that underflows from below zero is -0.0, which is not below zero.
    """
    tiny = np.nextafter(np.float32(0), np.float32(-1))
    with np.errstate(all="ignore"):
        return bool(np.all(tiny / np.asarray(quant.scale, dtype=np.float32) < 0))


def _flatten_first(node: Node) -> None:
    """Let a quantizer with single parameters follow the reshaping that reads it."""
    if not isinstance(known(node), (IntQuant, BipolarQuant)):
        return
    if any(p is None or np.size(p) != 1 for p in map(dialect.constant_value, node.inputs[1:])):
        return
    out = node.outputs[0]
    after = readers(out)
    source = node.inputs[0]
    if len(after) != 1 or out.is_graph_output() or source is None:
        return
    reader = after[0]
    moved = reader.outputs[0]
    # A graph output would lose its name to what stands behind it.
    if (
        not operators.reshapes(reader)
        or reader.inputs[0] is not out
        or moved.is_graph_output()
    ):
        return
    reader.replace_input_with(0, source)
    moved.replace_all_uses_with(out)
    node.replace_input_with(0, moved)
    out.shape, out.type = moved.shape, moved.type
    graph = node.graph
    assert graph is not None
    graph.remove(node)
    reader.append(node)


def _one_reader_each(model: Model, node: Node) -> None:
    """Give every further use of a weight a quantizer and a weight of its own."""
    uses = list(node.outputs[0].uses())
    for number, use in enumerate(uses[1:], start=1):
        weight = node.inputs[0]
        tensor = dialect.constant_tensor(weight)
        if weight is None or tensor is None:
            return
        name = f"{node.name}_copy{number}"
        own = dialect.register_tensor(model.graph, f"{weight.name}_copy{number}", tensor)
        twin = _twin(model, node, dialect.read_quantizer(node), own, name)
        node.append(twin)
        use.node.replace_input_with(use.idx, twin.outputs[0])


def _mend_activation(model: Model, node: Node) -> None:
    quant = known(node)
    if isinstance(quant, BipolarQuant):
        _split_bipolar_scale(model, node, quant)
        return
    if quant is None:
        return
    relu = finn.follows_relu(node)
    symmetric = bool(np.all(array(quant.zero_point) == 0) and np.all(array(quant.scale) > 0))
    bits = array(quant.bits)
    if relu and quant.signed and symmetric and np.all(bits > 1):
        # What is not below zero never meets the lower half of the range.
        fewer = np.asarray(quant.bits, dtype=np.float32) - np.float32(1)
        _substitute(model, node, replace(quant, bits=fewer, signed=False, narrow=False))
    elif not relu and not quant.signed and symmetric:
        _insert_relu(node)


def _insert_relu(node: Node) -> None:
    source = node.inputs[0]
    assert source is not None
    relu = onnx_ir.node("Relu", [source], name=f"{node.name}_Relu")
    out = relu.outputs[0]
    out.name, out.type, out.shape = f"{node.name}_Relu_out", source.type, source.shape
    node.prepend(relu)
    node.replace_input_with(0, out)


def _split_bipolar_scale(model: Model, node: Node, quant: BipolarQuant) -> None:
    scale = np.asarray(quant.scale, dtype=np.float32)
    if np.all(scale == 1):
        return
    one = BipolarQuant(np.ones((), dtype=np.float32))
    sign = _twin(model, node, one, node.inputs[0], f"{node.name}_sign")
    factor = dialect.add_initializer(model.graph, f"{node.name}_factor", scale)
    mul = onnx_ir.node("Mul", [sign.outputs[0], factor], name=f"{node.name}_Mul")
    node.append([sign, mul])
    replace_node(node, mul.outputs[0])


def _substitute(model: Model, node: Node, quant: IntQuant | BipolarQuant) -> None:
    """Put another quantizer in the place of one, under its name."""
    twin = _twin(model, node, quant, node.inputs[0], str(node.name))
    node.append(twin)
    replace_node(node, twin.outputs[0])


def _twin(model: Model, node: Node, quant: Quantizer, source: Value | None, name: str) -> Node:
    """Return a quantizer node beside another, not yet in the graph."""
    assert source is not None
    twin = dialect.quantizer_node(source, quant, name, model.graph)
    out, old = twin.outputs[0], node.outputs[0]
    out.type, out.shape = old.type, old.shape
    twin.metadata_props.update(node.metadata_props)
    out.metadata_props.update(old.metadata_props)
    return twin
