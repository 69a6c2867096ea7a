"""From a trace to a verified IR model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnx_ir import Model

from qonnx_hub_adapters.hawq.exact_form import emit_exact
from qonnx_hub_adapters.hawq.graph import BATCH, GraphWriter
from qonnx_hub_adapters.hawq.quant_form import QuantForm
from qonnx_hub_adapters.hawq.trace_data import ForwardTrace, Ref
from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_adapters.torch_common.modules import output_names
from qonnx_hub_adapters.torch_common.options import EXACT


@dataclass(frozen=True, slots=True)
class Assembled:
    """A model, and where in it the values of its trace are.

    Attributes:
        model: The verified IR model.
        names: Traced value -> name of the model's value.
    """

    model: Model
    names: Mapping[Ref, str]


def assemble(
    trace: ForwardTrace, mode: str, *, name: str, open_batch: bool, merge: bool
) -> Assembled:
    """Return the IR model of a trace.

    Args:
        trace: The calls.
        mode: "exact" or "quant".
        name: Name of the graph.
        open_batch: Whether the first axis may have any size.
        merge: As in :class:`QuantForm`.
    """
    emit = emit_exact if mode == EXACT else QuantForm(trace.shapes, merge=merge).emit
    writer = GraphWriter(name, output_names(len(trace.outputs)))
    for index, (given, shape) in enumerate(trace.inputs):
        first = [BATCH] if open_batch else list(shape[:1])
        writer.input(Ref(index), given, [*first, *shape[1:]])
    for call in trace.calls:
        writer.values[call.output] = emit(writer, call)
    written = writer.finish(trace.outputs)
    names = {call.output: str(writer.values[call.output].name) for call in trace.calls}
    return Assembled(read_model(written), names)
