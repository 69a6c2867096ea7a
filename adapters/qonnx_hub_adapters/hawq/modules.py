"""Live modules to IR models."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from onnx_ir import Model

from qonnx_hub_adapters.dependencies import require
from qonnx_hub_adapters.hawq.assembly import EXACT, QUANT, Assembled, assemble, output_names
from qonnx_hub_adapters.hawq.comparison import (
    LayerDifference,
    attach,
    compare,
    require_faithful,
)
from qonnx_hub_adapters.hawq.layers import find_gaps, unwrapped
from qonnx_hub_adapters.hawq.options import Settings
from qonnx_hub_adapters.hawq.state_guard import frozen
from qonnx_hub_adapters.hawq.trace_data import Ref, Trace
from qonnx_hub_adapters.hawq.tracing import input_names, trace
from qonnx_hub_adapters.protocol import Feeds, Outputs
from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import HubError, SourceError, UnsupportedGraphError
from qonnx_hub_ir.quantizers import Array


def torch_module() -> Any:
    """Return torch.

    Raises:
        MissingDependencyError: It is not installed.
    """
    return require("torch", needed_by="adapter 'hawq'", extra="hawq")


def import_module(source: Any, args: Sequence[Any], settings: Settings) -> Model:
    """Return a live module as a verified IR model. The module is not changed.

    Args:
        source: A torch module with HAWQ layers.
        args: Sample inputs, whose first axis is the batch.
        settings: The adapter's options.

    Raises:
        SourceError: No sample, or the module fails on it.
        UnsupportedGraphError: Layers or calls without a form here; all of them are listed.
    """
    module, torch = unwrapped(source), torch_module()
    _require_convertible(module, settings)
    tensors = _tensors(module, args, torch)
    traced, open_batch = _traced(module, tensors, torch)
    feeds = _feeds(traced, tensors)
    name = type(module).__name__
    exact = assemble(traced, EXACT, name=name, open_batch=open_batch, merge=False)
    found = compare(exact, traced, feeds, open_batch=open_batch)
    require_faithful(found)
    chosen = exact
    if settings.mode == QUANT:
        chosen, found = _in_quant_form(traced, feeds, name, open_batch, settings)
        chosen.model.metadata_props[dialect.BOUNDED] = _bounded(found)
    attach(chosen.model, found)
    for note in traced.notes:
        warnings.warn(note, stacklevel=4)
    return chosen.model


def _bounded(found: Sequence[LayerDifference]) -> str:
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


def compare_modes(
    source: Any, args: Sequence[Any], **options: Any
) -> tuple[LayerDifference, ...]:
    """Return which layers differ between the two modes on a sample, and by how much.

    Args:
        source: A torch module with HAWQ layers.
        args: Sample inputs.
        **options: Fields of :class:`Settings`.
    """
    from qonnx_hub_adapters.hawq.comparison import read_differences

    return read_differences(import_module(source, args, Settings(mode=QUANT, **options)))


def _in_quant_form(
    traced: Trace, feeds: dict[str, Array], name: str, open_batch: bool, settings: Settings
) -> tuple[Assembled, tuple[LayerDifference, ...]]:
    merge = settings.merge_requant
    chosen = assemble(traced, QUANT, name=name, open_batch=open_batch, merge=merge)
    return chosen, compare(chosen, traced, feeds, open_batch=open_batch)


def run_module(source: Any, feeds: Feeds) -> Outputs:
    """Return the frozen module's own answer, under the names that its IR model uses."""
    module, torch = unwrapped(source), torch_module()
    given = [feeds[name] for name in input_names(module, len(feeds))]
    tensors = _tensors(module, given, torch)
    with frozen(module, torch):
        traced = trace(module, tensors, torch)
    names = output_names(len(traced.outputs))
    answers = [traced.recorded[ref.index] for ref in traced.outputs]
    return dict(zip(names, answers, strict=True))


def _require_convertible(module: Any, settings: Settings) -> None:
    gaps = find_gaps(module, freeze_bn=settings.freeze_bn)
    if gaps:
        raise UnsupportedGraphError(
            f"module {type(module).__name__} has layers that cannot be converted:", gaps
        )


def _tensors(module: Any, args: Sequence[Any], torch: Any) -> list[Any]:
    if not args:
        raise SourceError(
            "a HAWQ module is traced on a sample: give one with args=(x,), its first axis "
            "being the batch"
        )
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    tensors = []
    for index, value in enumerate(args):
        tensor = torch.as_tensor(value, device=device)
        if tensor.dtype != torch.float32 or tensor.ndim == 0 or tensor.shape[0] == 0:
            raise SourceError(
                f"sample input {index} must be float32 with a batch axis, it is "
                f"{tensor.dtype} of shape {list(tensor.shape)}"
            )
        tensors.append(tensor)
    return tensors


def _feeds(traced: Trace, tensors: Sequence[Any]) -> dict[str, Array]:
    arrays = [np.array(tensor.cpu().numpy(), dtype=np.float32) for tensor in tensors]
    return {name: array for (name, _), array in zip(traced.inputs, arrays, strict=True)}


def _traced(module: Any, tensors: Sequence[Any], torch: Any) -> tuple[Trace, bool]:
    """Return the trace, and whether it holds for every batch.

    It does where a sample of twice the size makes the same calls, and outputs of twice the
    size.
    """
    with frozen(module, torch):
        first = trace(module, tensors, torch)
        try:
            doubled = [torch.cat((tensor, tensor)) for tensor in tensors]
            second = trace(module, doubled, torch)
        except HubError:
            return first, False
    return first, _described(first) == _described(second) and all(
        _is_doubled(first.shapes[a.index], second.shapes[b.index])
        for a, b in zip(first.outputs, second.outputs, strict=True)
    )


def _is_doubled(one: tuple[int, ...], two: tuple[int, ...]) -> bool:
    return one != () and two == (2 * one[0], *one[1:])


def _described(traced: Trace) -> list[Any]:
    """Return the calls as plain data that can be compared."""
    return [_plain(call) for call in traced.calls]


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, Ref):
        return value.index
    if isinstance(value, (tuple, list)):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if hasattr(value, "__dataclass_fields__"):
        own = [_plain(getattr(value, field.name)) for field in fields(value)]
        return [type(value).__name__, *own]
    return value
