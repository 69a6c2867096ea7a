"""What a module's quantizers do on a sample: every call, in order."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from qonnx_hub_adapters.brevitas.modules import (
    is_of_brevitas,
    is_quant_tensor,
    plain,
    run_forward,
)
from qonnx_hub_adapters.brevitas.quantizer_sites import QuantizerProxy
from qonnx_hub_adapters.torch_common.modules import array_of
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

    site: QuantizerProxy
    number: int
    given: Any
    output: Any

    @property
    def name(self) -> str:
        """Name of the quantized value."""
        return self.numbered(self.site.layer)

    def numbered(self, name: str) -> str:
        """Return a name for this use: later uses of one quantizer are numbered."""
        return f"{name}:{self.number + 1}" if self.number else name

    @property
    def values(self) -> Array:
        """The quantized values."""
        return array_of(plain(self.output))


@dataclass(slots=True)
class Recording:
    """A forward pass.

    Attributes:
        calls: Uses of quantizers, in order.
        outputs: What the module answered, flat.
    """

    calls: list[Call] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)


def record(
    module: Any, sites: Sequence[QuantizerProxy], args: Sequence[Any], torch: Any
) -> Recording:
    """Return what a forward pass of a private copy does.

    Args:
        module: A private copy, in evaluation mode.
        sites: Its quantizers.
        args: The sample.
        torch: The framework.

    Raises:
        SourceError: The module fails on the sample, or answers with other things than tensors.
    """
    recording = Recording()
    with ExitStack() as hooks:
        for site in sites:
            hooks.enter_context(site.proxy.register_forward_hook(_recorder(site, recording)))
        recording.outputs = run_forward(module, args, torch)
    return recording


def _recorder(site: QuantizerProxy, recording: Recording) -> Any:
    fused = getattr(site.proxy, "fused_activation_quant_proxy", None)

    def note(_module: Any, given: tuple[Any, ...], output: Any) -> None:
        # What reaches the quantizer itself is behind the activation fused with it.
        x = given[0] if fused is None else fused.activation_impl(plain(given[0]))
        kept = output.detach() if is_quant_tensor(output) else output
        number = sum(call.site is site for call in recording.calls)
        recording.calls.append(Call(site, number, x.detach(), kept))

    return note


def layer_values(
    module: Any, sites: Sequence[QuantizerProxy], args: Sequence[Any], torch: Any
) -> dict[str, Array]:
    """Return what the layers of a private copy compute, by the names that its graph uses.

    Shown are the uses of quantizers, and the modules without parts of their own that are
    called once.

    Raises:
        SourceError: The module fails on these inputs.
    """
    found: dict[str, list[Array]] = {}
    with ExitStack() as hooks:
        for path, part in module.named_modules():
            if not path or is_of_brevitas(part) or list(part.children()):
                continue

            def keep(_module: Any, _given: Any, output: Any, path: str = path) -> None:
                value = plain(output)
                if hasattr(value, "detach"):
                    found.setdefault(path, []).append(array_of(value))

            hooks.enter_context(part.register_forward_hook(keep))
        recording = record(module, sites, args, torch)
    shown = {path: values[0] for path, values in found.items() if len(values) == 1}
    return shown | {call.name: call.values for call in recording.calls}
