"""Which modules are HAWQ's layers, and which of them cannot be converted.

HAWQ is not a package that could be imported: its classes are recognized by their names, their
attributes and the type of their ``quant_mode``. I-BERT and Brevitas use the same names for
layers that compute something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qonnx_hub_adapters.torch_common.modules import classes_from, unwrapped
from qonnx_hub_ir.errors import Gap

ACT, LINEAR, CONV, BN_CONV = "QuantAct", "QuantLinear", "QuantConv2d", "QuantBnConv2d"
AVERAGE_POOL = "QuantAveragePool2d"

SCALE_BUFFERS: Mapping[str, str] = {
    LINEAR: "fc_scaling_factor",
    CONV: "conv_scaling_factor",
    BN_CONV: "convbn_scaling_factor",
}
WITH_WEIGHTS = frozenset(SCALE_BUFFERS)

_WEIGHTED = frozenset(
    {"weight_bit", "bias_bit", "quant_mode", "per_channel", "fix_flag", "weight_percentile"}
)
_NEEDED: Mapping[str, frozenset[str]] = {
    ACT: frozenset(
        {"activation_bit", "quant_mode", "running_stat", "full_precision_flag"}
        | {"fixed_point_quantization", "x_min", "x_max", "act_scaling_factor"}
    ),
    LINEAR: _WEIGHTED | {"weight", SCALE_BUFFERS[LINEAR]},
    CONV: _WEIGHTED | {"weight", SCALE_BUFFERS[CONV]},
    BN_CONV: _WEIGHTED | {"conv", "bn", "fix_BN", SCALE_BUFFERS[BN_CONV]},
    "QuantMaxPool2d": frozenset({"pool"}),
    AVERAGE_POOL: frozenset({"final_pool"}),
    "QuantDropout": frozenset({"dropout"}),
}

_LARGEST_BITS = 32


def named_kind(module: object) -> str:
    """Return the HAWQ class whose name the module's class or a base of it has, or ""."""
    names = (kind.__name__ for kind in type(module).__mro__)
    return next((name for name in names if name in _NEEDED), "")


def look_alike(module: object) -> str:
    """Return why a module with the name of a HAWQ layer is none; "" where it is one."""
    if classes_from(module, "brevitas"):
        return "is a Brevitas layer"
    mode = getattr(module, "quant_mode", "")
    if not isinstance(mode, str):
        return f"has quant_mode {mode!r}, as I-BERT's layer of that name"
    needed = _NEEDED[named_kind(module)]
    missing = sorted(name for name in needed if not hasattr(module, name))
    return f"lacks {', '.join(missing)}" if missing else ""


def kind_of(module: object) -> str:
    """Return which HAWQ class the module is an instance of, or ""."""
    kind = named_kind(module)
    return kind if kind and not look_alike(module) else ""


def find_layers(model: Any) -> dict[str, Any]:
    """Return the HAWQ layers of a module by their dotted names, in order."""
    return {name: m for name, m in unwrapped(model).named_modules() if kind_of(m)}


def find_gaps(model: Any, *, freeze_bn: bool) -> list[Gap]:
    """Return everything that keeps a module from being converted.

    Args:
        model: A torch module.
        freeze_bn: Whether layers with live batch statistics may be folded.
    """
    gaps = []
    for name, module in unwrapped(model).named_modules():
        kind = named_kind(module)
        if not kind:
            continue
        if alike := look_alike(module):
            gaps.append(Gap(name, kind, f"named like HAWQ's layer, but {alike}"))
        elif kind == ACT:
            gaps.extend(_act_gaps(name, module))
        elif kind in WITH_WEIGHTS:
            gaps.extend(_weight_gaps(name, kind, module, freeze_bn))
    return gaps


def _bits_reason(bits: object, lowest: int) -> str:
    if not isinstance(bits, int) or isinstance(bits, bool):
        return f"a bit width of {bits!r}"
    if not lowest <= bits <= _LARGEST_BITS:
        why = "; one symmetric bit makes HAWQ's scales infinite" if bits == 1 else ""
        return f"a bit width of {bits}, outside of {lowest} to {_LARGEST_BITS}{why}"
    return ""


def _act_gaps(name: str, module: Any) -> list[Gap]:
    if module.full_precision_flag:
        return []
    if module.quant_mode not in {"symmetric", "asymmetric"}:
        return [Gap(name, ACT, f"unknown quant_mode '{module.quant_mode}'")]
    symmetric = module.quant_mode == "symmetric"
    reason = _bits_reason(module.activation_bit, 2 if symmetric else 1)
    gaps = [Gap(name, ACT, reason)] if reason else []
    low, high = float(module.x_min), float(module.x_max)
    if low == high and (low == 0 or not symmetric):
        reason = f"not calibrated: its range is {low:g} to {high:g}"
        gaps.append(Gap(name, ACT, reason, "run data through the model before converting it"))
    elif not (abs(low) < float("inf") and abs(high) < float("inf")):
        gaps.append(Gap(name, ACT, f"its range is {low:g} to {high:g}"))
    return gaps


def _weight_gaps(name: str, kind: str, module: Any, freeze_bn: bool) -> list[Gap]:
    reasons = [_bits_reason(module.weight_bit, 2)]
    if module.quant_mode != "symmetric":
        reasons.append("HAWQ quantizes weights symmetrically only")
    if kind != CONV and getattr(module, "full_precision_flag", False):
        reasons.append("full precision: HAWQ itself fails on such a layer")
    if module.bias_bit is not None:
        reasons.append(_bits_reason(module.bias_bit, 2).replace("a bit", "a bias bit"))
    elif kind != CONV:
        reasons.append("bias_bit is None: HAWQ itself fails on such a layer")
    gaps = [Gap(name, kind, reason) for reason in reasons if reason]
    if kind == BN_CONV and not module.fix_BN and not freeze_bn:
        reason = "uses the statistics of each batch, also in eval(): no function of one sample"
        remedy = "call its fix(), or convert with the option freeze_bn=True"
        gaps.append(Gap(name, kind, reason, remedy))
    return gaps
