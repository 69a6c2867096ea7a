"""Live modules to IR models."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from onnx_ir import Model

from qonnx_hub_adapters.hawq import comparison
from qonnx_hub_adapters.hawq.forms import assemble
from qonnx_hub_adapters.hawq.layers import find_gaps
from qonnx_hub_adapters.hawq.options import HawqOptions
from qonnx_hub_adapters.hawq.trace_data import ForwardTrace
from qonnx_hub_adapters.hawq.tracing import trace
from qonnx_hub_adapters.protocol import Feeds, Outputs
from qonnx_hub_adapters.torch_common.framework import EXACT, QUANT, require_torch
from qonnx_hub_adapters.torch_common.modules import (
    floats_of,
    input_names,
    output_names,
    unwrapped,
)
from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import HubError, SourceError, UnsupportedGraphError


def import_module(source: Any, args: Sequence[Any], options: HawqOptions) -> Model:
    """Return a live module as a verified IR model. The module is not changed.

    Args:
        source: A torch module with HAWQ layers.
        args: Sample inputs, whose first axis is the batch.
        options: The adapter's options.

    Raises:
        SourceError: No sample, or the module fails on it.
        UnsupportedGraphError: Layers or calls without a form here; all of them are listed.
    """
    module, torch = unwrapped(source), require_torch("hawq")
    gaps = find_gaps(module, freeze_bn=options.freeze_bn)
    if gaps:
        name = type(module).__name__
        raise UnsupportedGraphError(
            f"module {name} has layers that cannot be converted:", gaps
        )
    tensors = _tensors(module, args, torch)
    traced = _traced(module, tensors, torch)
    names = [given for given, _ in traced.inputs]
    feeds = dict(zip(names, map(floats_of, tensors), strict=True))
    chosen = assemble(traced, EXACT, merge=False)
    found = comparison.compare(chosen, traced, feeds)
    comparison.require_faithful(found)
    if options.mode == QUANT:
        chosen = assemble(traced, QUANT, merge=options.merge_requant)
        found = comparison.compare(chosen, traced, feeds)
        chosen.model.metadata_props[dialect.BOUNDED] = _bounded(found)
    comparison.attach(chosen.model, found)
    for note in traced.notes:
        warnings.warn(note, stacklevel=4)
    return chosen.model


def _bounded(found: Sequence[comparison.LayerDifference]) -> str:
    """Return why the quant form may differ from HAWQ, and where it does on the sample."""
    differing = ", ".join(
        f"{one.layer} ({one.differing} of {one.elements} integers, by up to {one.steps:g})"
        for one in found
        if one.differing
    )
    return (
        "HAWQ multiplies by rounded dyadic numbers where a quantizer divides by its scale: "
        "integers on a rounding tie can be a step apart; on the sample, layers that differ: "
        f"{differing or 'none'}"
    )


def run_module(source: Any, feeds: Feeds) -> Outputs:
    """Return the frozen module's own answer, under the names that its IR model uses."""
    module, torch = unwrapped(source), require_torch("hawq")
    given = [feeds[name] for name in input_names(module, len(feeds))]
    tensors = _tensors(module, given, torch)
    traced = trace(module, tensors, torch)
    answers = [traced.recorded[ref] for ref in traced.outputs]
    return dict(zip(output_names(len(answers)), answers, strict=True))


def _tensors(module: Any, args: Sequence[Any], torch: Any) -> list[Any]:
    if not args:
        raise SourceError(
            "a HAWQ module is traced on a sample: give one with args=(x,), its first axis "
            "being the batch"
        )
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    tensors = [torch.as_tensor(value, device=device) for value in args]
    for index, tensor in enumerate(tensors):
        if tensor.dtype != torch.float32 or tensor.ndim == 0 or tensor.shape[0] == 0:
            raise SourceError(
                f"sample input {index} must be float32 with a batch axis, it is "
                f"{tensor.dtype} of shape {list(tensor.shape)}"
            )
    return tensors


def _traced(module: Any, tensors: Sequence[Any], torch: Any) -> ForwardTrace:
    """Return the trace; it holds for every batch where a doubled sample does the same.

    That is: it makes the same calls, and outputs of twice the size.
    """
    first = trace(module, tensors, torch)
    try:
        doubled = [torch.cat((tensor, tensor)) for tensor in tensors]
        second = trace(module, doubled, torch)
    except HubError:
        return first
    open_batch = first.calls == second.calls and all(
        first.shapes[a] != ()
        and second.shapes[b] == (2 * first.shapes[a][0], *first.shapes[a][1:])
        for a, b in zip(first.outputs, second.outputs, strict=True)
    )
    return replace(first, open_batch=open_batch)
