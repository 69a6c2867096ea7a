"""Where a module quantizes: its quantizer proxies, and those that cannot be converted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qonnx_hub_adapters.brevitas.modules import is_of_brevitas
from qonnx_hub_adapters.torch_common.modules import classes_from
from qonnx_hub_ir.errors import Gap

WEIGHT, BIAS, ACTIVATION, TRUNCATION = "weight", "bias", "activation", "truncation"
PARAMETERS = frozenset({WEIGHT, BIAS})
"""Kinds whose values are known without running the model."""

_KINDS: Mapping[str, str] = {
    "WeightQuantProxyFromInjectorBase": WEIGHT,
    "BiasQuantProxyFromInjectorBase": BIAS,
    "ActQuantProxyFromInjectorBase": ACTIVATION,
    "TruncQuantProxyFromInjector": TRUNCATION,
}
"""Base classes of Brevitas' proxies."""

_PROTOCOL = "QuantProxyFromInjector"

_SUFFIXES: Mapping[str, str] = {
    ".weight_quant": ".weight",
    ".bias_quant": ".bias",
    ".act_quant": "",
    ".trunc_quant": "",
}
"""End of a proxy's path -> what its quantized value is called within the layer."""


@dataclass(frozen=True, slots=True)
class QuantizerProxy:
    """One quantizer proxy of a module.

    Attributes:
        path: Its dotted name.
        proxy: The Brevitas module.
        kind: "weight", "bias", "activation" or "truncation".
    """

    path: str
    proxy: Any
    kind: str

    @property
    def layer(self) -> str:
        """What the quantized value is called: the layer's path, or that of its parameter."""
        for suffix, replacement in _SUFFIXES.items():
            if self.path.endswith(suffix):
                return self.path.removesuffix(suffix) + replacement
        return self.path

    def gap(self, reason: str) -> Gap:
        """Return why the quantizer cannot be converted, as an entry of an error's list."""
        return Gap(self.path, type(self.proxy).__name__, reason)


def find_sites(module: Any) -> list[QuantizerProxy]:
    """Return the quantizers of a module that are switched on, in the module's order.

    A quantizer that several layers share is listed once, under its first name.
    """
    sites = []
    for path, part in module.named_modules():
        kind = _kind(part)
        if kind and part.is_quant_enabled:
            sites.append(QuantizerProxy(path or kind, part, kind))
    return sites


def _kind(part: object) -> str:
    names = classes_from(part, "brevitas")
    return next((kind for name, kind in _KINDS.items() if name in names), "")


def find_gaps(module: Any) -> list[Gap]:
    """Return the quantizers that cannot be converted, without running the module."""
    gaps = []
    for path, part in module.named_modules():
        if not is_of_brevitas(part) or not getattr(part, "is_quant_enabled", False):
            continue
        op = type(part).__name__
        kind = _kind(part)
        if not kind:
            if _PROTOCOL in classes_from(part, "brevitas"):
                gaps.append(Gap(path, op, "no quantizer of a kind that is known here"))
        elif kind == ACTIVATION and "Dynamic" in op:
            reason = "its scale is computed from each input anew"
            remedy = "give the layer a quantizer with static scales and calibrate it"
            gaps.append(Gap(path, op, reason, remedy))
        elif kind == ACTIVATION and getattr(part, "is_groupwise", False):
            reason = "its scales are computed for each group of each input anew"
            gaps.append(Gap(path, op, reason, "quantize activations per tensor or channel"))
        elif getattr(part, "skip_create_quant_tensor", False):
            reason = "is set to hide what it quantizes to (skip_create_quant_tensor)"
            gaps.append(Gap(path, op, reason, "leave Brevitas' inference mode first"))
    return gaps
