"""What a module's quantizers do on a sample: every call, in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qonnx_hub_adapters.brevitas.modules import (
    flat_tensors,
    is_of_brevitas,
    is_quant_tensor,
    plain,
    run_forward,
)
from qonnx_hub_adapters.brevitas.quantizer_sites import PARAMETERS, Site
from qonnx_hub_adapters.brevitas.quantizers import (
    Form,
    constant_form,
    read_quantizer,
    verified_form,
)
from qonnx_hub_ir.describe import describe_quantizer
from qonnx_hub_ir.errors import Gap, SourceError, UnsupportedGraphError
from qonnx_hub_ir.quantizers import Array


@dataclass(frozen=True, slots=True)
class Call:
    """One use of a quantizer in a forward pass.

    Attributes:
        site: The quantizer.
        number: How often it was used before.
        given: What it was given.
        output: What it made: one of Brevitas' quantized tensors.
    """

    site: Site
    number: int
    given: Any
    output: Any

    @property
    def name(self) -> str:
        """What the quantized value is called; later uses of one quantizer are numbered."""
        return self.site.layer if not self.number else f"{self.site.layer}:{self.number + 1}"

    @property
    def values(self) -> Array:
        """The quantized values."""
        return np.array(plain(self.output).detach().numpy())


@dataclass(slots=True)
class Recording:
    """A forward pass.

    Attributes:
        calls: Uses of quantizers, in order.
        outputs: What the module answered, flat.
    """

    calls: list[Call] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)

    def of(self, site: Site) -> list[Call]:
        """Return the uses of one quantizer, in order."""
        return [call for call in self.calls if call.site is site]


def record(module: Any, sites: Sequence[Site], args: Sequence[Any], torch: Any) -> Recording:
    """Return what a forward pass of a private copy does.

    Args:
        module: A copy that nobody else uses, for inference.
        sites: Its quantizers.
        args: The sample.
        torch: The framework.

    Raises:
        SourceError: The module fails on the sample, or answers with other things than tensors.
    """
    recording = Recording()
    handles = [_watch(site, recording) for site in sites]
    try:
        recording.outputs = flat_tensors(run_forward(module, args, torch))
    finally:
        for handle in handles:
            handle.remove()
    return recording


def _watch(site: Site, recording: Recording) -> Any:
    def note(_module: Any, given: tuple[Any, ...], output: Any) -> None:
        number = sum(call.site is site for call in recording.calls)
        kept = output.detach() if is_quant_tensor(output) else output
        recording.calls.append(Call(site, number, _activated(site, given[0]), kept))

    return site.proxy.register_forward_hook(note)


def _activated(site: Site, given: Any) -> Any:
    """Return what reaches the quantizer itself, behind the activation fused with it."""
    fused = getattr(site.proxy, "fused_activation_quant_proxy", None)
    if fused is None:
        return given.detach()
    return fused.activation_impl(plain(given)).detach()


def read_forms(recording: Recording, torch: Any) -> list[Form]:
    """Return how the IR says each use of a quantizer.

    Raises:
        UnsupportedGraphError: Quantizers that it cannot say; all of them are listed.
        SourceError: A quantizer that fails on the values it is tried with.
    """
    forms: list[Form] = []
    gaps: dict[str, Gap] = {}
    known: dict[tuple[int, Any], Form | Gap] = {}
    for call in recording.calls:
        found = _form(call, known, torch)
        if isinstance(found, Gap):
            gaps.setdefault(found.node, found)
            found = Form(None)
        forms.append(found)
    if gaps:
        raise UnsupportedGraphError(
            "the module has quantizers that cannot be converted:", [*gaps.values()]
        )
    return forms


def _form(call: Call, known: dict[tuple[int, Any], Form | Gap], torch: Any) -> Form | Gap:
    site = call.site
    if not is_quant_tensor(call.output):
        reason = f"answers with a {type(call.output).__name__}, not with a quantized tensor"
        return Gap(site.path, type(site.proxy).__name__, reason)
    try:
        quantizer = read_quantizer(site, call.output, call.given)
    except SourceError:
        reason = f"rounds in a way that is unknown here ({site.proxy.rounding_mode})"
        return Gap(site.path, type(site.proxy).__name__, reason)
    if site.kind in PARAMETERS:
        values = call.values
        if not np.all(np.isfinite(values)):
            reason = f"makes values that are not finite ({describe_quantizer(quantizer)})"
            return Gap(site.path, type(site.proxy).__name__, reason)
        return constant_form(values, quantizer)
    key = (id(site), quantizer)
    if key not in known:
        known[key] = verified_form(site, quantizer, call.given, torch)
    return known[key]


def layer_values(
    module: Any, sites: Sequence[Site], args: Sequence[Any], torch: Any
) -> dict[str, Array]:
    """Return what the layers of a private copy compute, by the names that its graph uses.

    Shown are the uses of quantizers, and the modules without parts of their own that are
    called once.

    Raises:
        SourceError: The module fails on these inputs.
    """
    found: dict[str, list[Array]] = {}
    handles = [
        part.register_forward_hook(_keep(path, found))
        for path, part in module.named_modules()
        if path and not is_of_brevitas(part) and not list(part.children())
    ]
    try:
        recording = record(module, sites, args, torch)
    finally:
        for handle in handles:
            handle.remove()
    shown = {path: values[0] for path, values in found.items() if len(values) == 1}
    return shown | {call.name: call.values for call in recording.calls}


def _keep(path: str, found: dict[str, list[Array]]) -> Any:
    def keep(_module: Any, _given: Any, output: Any) -> None:
        value = plain(output)
        if hasattr(value, "detach"):
            found.setdefault(path, []).append(np.array(value.detach().numpy()))

    return keep
