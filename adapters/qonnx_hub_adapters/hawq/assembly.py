"""From a trace to a verified IR model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from onnx_ir import Model

from qonnx_hub_adapters.hawq.exact_form import emit_exact
from qonnx_hub_adapters.hawq.graph import BATCH, GraphWriter
from qonnx_hub_adapters.hawq.quant_form import QuantForm
from qonnx_hub_adapters.hawq.trace_data import Call, Ref, Trace
from qonnx_hub_adapters.onnx_reader import read_model

Emit = Callable[[GraphWriter, Call], None]

EXACT, QUANT = "exact", "quant"
MODES = (EXACT, QUANT)


def output_names(count: int) -> list[str]:
    """Return the names of a model's outputs."""
    return ["output"] if count == 1 else [f"output_{index}" for index in range(count)]


@dataclass(frozen=True, slots=True)
class Assembled:
    """A model, and where in it the values of its trace are.

    Attributes:
        model: The verified IR model.
        names: Number of a traced value -> name of the model's value.
    """

    model: Model
    names: Mapping[int, str]


def assemble(
    trace: Trace, mode: str, *, name: str, open_batch: bool, merge: bool
) -> Assembled:
    """Return the IR model of a trace.

    Args:
        trace: The calls.
        mode: "exact" or "quant".
        name: Name of the graph.
        open_batch: Whether the first axis may have any size.
        merge: As in :class:`QuantForm`.
    """
    emit: Emit = emit_exact if mode == EXACT else QuantForm(trace.shapes, merge=merge).emit
    writer = GraphWriter(name)
    outputs = output_names(len(trace.outputs))
    for own in outputs:
        writer.name(own)
    for index, (given, shape) in enumerate(trace.inputs):
        first = [BATCH] if open_batch else list(shape[:1])
        writer.input(Ref(index), given, [*first, *shape[1:]])
    for call in trace.calls:
        emit(writer, call)
    written = writer.finish([writer.get(ref) for ref in trace.outputs], outputs)
    names = {call.output.index: str(writer.get(call.output).name) for call in trace.calls}
    return Assembled(read_model(written), names)
