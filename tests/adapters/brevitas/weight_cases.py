"""One case per quantizer of weights and biases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import brevitas.nn as qnn
import torch
from brevitas.inject.enum import FloatToIntImplType, QuantType, RestrictValueType
from brevitas.quant import (
    Int4WeightPerTensorFloatDecoupled,
    Int8AccumulatorAwareWeightQuant,
    Int8AccumulatorAwareZeroCenterWeightQuant,
    Int8ActPerTensorFixedPoint,
    Int8Bias,
    Int8BiasPerTensorFloatInternalScaling,
    Int8WeightNormL2PerChannelFixedPoint,
    Int8WeightPerChannelFloat,
    Int8WeightPerChannelFloatDecoupled,
    Int8WeightPerChannelFloatMSE,
    Int8WeightPerTensorFixedPoint,
    Int8WeightPerTensorFloat,
    Int16Bias,
    Int24Bias,
    Int32Bias,
    ShiftedUint8WeightPerChannelFloat,
    ShiftedUint8WeightPerTensorFloat,
    SignedBinaryWeightPerTensorConst,
    SignedTernaryWeightPerTensorConst,
)
from brevitas.quant.fixed_point import Int8WeightPerChannelFixedPoint
from brevitas.quant.float import Fp8e4m3WeightPerTensorFloat, Fp8e5m2WeightPerChannelFloat
from brevitas.quant.float_quant_fnuz import Fp8e4m3FNUZWeightPerTensorFloat
from brevitas.quant.float_quant_ocp import (
    Fp8e4m3OCPWeightPerChannelFloat,
    Fp8e4m3OCPWeightPerTensorFloat,
    Fp8e5m2OCPWeightPerTensorFloat,
    FpOCPWeightPerTensorFloat,
)
from brevitas.quant.mx_quant_ocp import (
    MXFloat8e4m3Weight,
    MXInt8Weight,
    ShiftedMXUInt8Weight,
)
from brevitas.quant.scaled_int import Int8WeightPerChannelFloatHQO
from brevitas.quant.shifted_scaled_int import ShiftedUint8WeightGroupQuantFloat

from tests.adapters.brevitas.kit import Case

PO2 = {"restrict_scaling_type": RestrictValueType.POWER_OF_TWO}


def prefixed(prefix: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {f"{prefix}{name}": value for name, value in arguments.items()}


def weight(name: str, quant: Any = Int8WeightPerTensorFloat, **arguments: Any) -> Case:
    return Case(
        f"weight {name}",
        lambda: torch.nn.Sequential(
            qnn.QuantLinear(16, 8, weight_quant=quant, **prefixed("weight_", arguments))
        ),
        quantizers=1,
    )


def dyadic(module: Any) -> Any:
    """Put float parameters on a grid of 1/64: every product and sum is exact."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim:
                parameter.copy_(torch.round(parameter * 64) / 64)
    return module


def on_ties(name: str, mode: FloatToIntImplType) -> Case:
    """Weights on and between ties of a set scale, inputs of a set scale: exact."""

    def build() -> Any:
        layer = qnn.QuantLinear(
            16,
            8,
            weight_bit_width=4,
            weight_scaling_impl_type="const",
            weight_scaling_init=3.5,
            weight_float_to_int_impl_type=mode,
        )
        identity = qnn.QuantIdentity(bit_width=4, scaling_impl_type="const", scaling_init=2.0)
        with torch.no_grad():
            layer.weight.copy_((torch.arange(128).reshape(8, 16) - 64) / 16)
        return dyadic(torch.nn.Sequential(identity, layer))

    return Case(f"weight {name}", build, quantizers=2, exact=True)


def perturbed(name: str, quant: Any, **arguments: Any) -> Case:
    """Parameters of the quantizer moved as training moves them: both scales differ."""

    def build() -> Any:
        layer = qnn.QuantLinear(16, 8, weight_quant=quant, **prefixed("weight_", arguments))
        with torch.no_grad():
            for parameter in layer.weight_quant.parameters():
                parameter.mul_(1.0 + 0.3 * torch.rand_like(parameter))
        return torch.nn.Sequential(layer)

    return Case(f"weight {name}", build, quantizers=1)


def accumulator_aware(name: str, quant: Any, signed: bool = True) -> Case:
    def build() -> Any:
        first = qnn.QuantIdentity(bit_width=4, signed=signed, return_quant_tensor=True)
        layer = qnn.QuantLinear(
            16, 8, weight_quant=quant, weight_bit_width=4, weight_accumulator_bit_width=8
        )
        return torch.nn.Sequential(first, layer)

    return Case(f"weight {name}", build, quantizers=2)


def bias(name: str, quant: Any, exact: bool = False, **arguments: Any) -> Case:
    input_quant = {"restrict_scaling_type": RestrictValueType.POWER_OF_TWO} if exact else {}
    weights = Int8WeightPerTensorFixedPoint if exact else Int8WeightPerTensorFloat
    weights = arguments.pop("weights", weights)

    def build() -> Any:
        first = qnn.QuantIdentity(bit_width=4, return_quant_tensor=True, **input_quant)
        layer = qnn.QuantLinear(
            16,
            8,
            bias=True,
            weight_quant=weights,
            bias_quant=quant,
            return_quant_tensor=quant is not None,
            **arguments,
        )
        return torch.nn.Sequential(first, layer)

    return Case(f"bias {name}", build, quantizers=3, exact=exact)


INTEGERS = [
    *(weight(f"{bits} bits", bit_width=bits) for bits in (2, 3, 4, 5, 6, 7, 8, 10, 16)),
    # Levels minus one and zero: no quantizer of one signed bit has them, so they are stored.
    replace(weight("1 bit, not narrow", bit_width=1, narrow_range=False), quantizers=0),
    weight("not narrow", bit_width=4, narrow_range=False),
    weight("power of two", bit_width=4, **PO2),
    weight("fixed point", Int8WeightPerTensorFixedPoint, bit_width=5),
    weight("per channel", Int8WeightPerChannelFloat, bit_width=4),
    weight("per channel, 2 bits", Int8WeightPerChannelFloat, bit_width=2),
    weight("per channel, fixed point", Int8WeightPerChannelFixedPoint, bit_width=4),
    weight("least squares", Int8WeightPerChannelFloatMSE, bit_width=4),
    weight("half-quadratic", Int8WeightPerChannelFloatHQO, bit_width=4),
    weight("zero point", ShiftedUint8WeightPerTensorFloat, bit_width=4),
    weight("zero points per channel", ShiftedUint8WeightPerChannelFloat, bit_width=4),
    weight("binary", SignedBinaryWeightPerTensorConst),
    weight("binary, tenth", SignedBinaryWeightPerTensorConst, scaling_init=0.1),
    weight("ternary", SignedTernaryWeightPerTensorConst),
    weight(
        "ternary, threshold 0.8",
        SignedTernaryWeightPerTensorConst,
        quant_type=QuantType.TERNARY,
        threshold=0.8,
        scaling_init=0.3,
    ),
    weight("learned scale", scaling_impl_type="parameter_from_stats", bit_width=4),
    weight("learned bit width", bit_width_impl_type="parameter", bit_width=5),
]

ROUNDINGS = [
    *(
        weight(f"4 bits {mode.name}", bit_width=4, float_to_int_impl_type=mode)
        for mode in (
            FloatToIntImplType.FLOOR,
            FloatToIntImplType.CEIL,
            FloatToIntImplType.ROUND_TO_ZERO,
            FloatToIntImplType.DPU,
        )
    ),
    *(
        on_ties(f"on ties, {mode.name}", mode)
        for mode in (
            FloatToIntImplType.ROUND,
            FloatToIntImplType.FLOOR,
            FloatToIntImplType.CEIL,
            FloatToIntImplType.ROUND_TO_ZERO,
            FloatToIntImplType.DPU,
        )
    ),
]

DECOUPLED = [
    weight("decoupled", Int4WeightPerTensorFloatDecoupled),
    weight("decoupled per channel", Int8WeightPerChannelFloatDecoupled, bit_width=4),
    perturbed("decoupled, trained", Int4WeightPerTensorFloatDecoupled),
    perturbed("decoupled per channel, trained", Int8WeightPerChannelFloatDecoupled),
    weight("normalized", Int8WeightNormL2PerChannelFixedPoint, bit_width=4),
    perturbed("normalized, trained", Int8WeightNormL2PerChannelFixedPoint, bit_width=4),
    accumulator_aware("accumulator-aware", Int8AccumulatorAwareWeightQuant),
    accumulator_aware("accumulator-aware, unsigned", Int8AccumulatorAwareWeightQuant, False),
    accumulator_aware("accumulator-aware, centred", Int8AccumulatorAwareZeroCenterWeightQuant),
]

FLOATS = [
    weight("e4m3 OCP", Fp8e4m3OCPWeightPerTensorFloat),
    weight("e5m2 OCP", Fp8e5m2OCPWeightPerTensorFloat),
    weight("e4m3 OCP per channel", Fp8e4m3OCPWeightPerChannelFloat),
    weight("e4m3", Fp8e4m3WeightPerTensorFloat),
    weight("e5m2 per channel", Fp8e5m2WeightPerChannelFloat),
    weight("e4m3 FNUZ", Fp8e4m3FNUZWeightPerTensorFloat),
    weight(
        "e3m2 OCP",
        FpOCPWeightPerTensorFloat,
        bit_width=6,
        exponent_bit_width=3,
        mantissa_bit_width=2,
    ),
]

GROUPS = [
    weight("MX int8", MXInt8Weight, group_size=8),
    weight("MX int4", MXInt8Weight, group_size=8, bit_width=4),
    weight("MX uint8 with zero points", ShiftedMXUInt8Weight, group_size=8),
    weight("MX e4m3", MXFloat8e4m3Weight, group_size=8),
    Case(
        "weight MX int8 of a convolution, groups padded",
        lambda: torch.nn.Sequential(
            qnn.QuantConv2d(6, 4, 3, weight_quant=MXInt8Weight, weight_group_size=4)
        ),
        ((2, 6, 5, 5),),
        quantizers=1,
    ),
    Case(
        "weight MX int8 behind a quantized tensor",
        lambda: torch.nn.Sequential(
            qnn.QuantIdentity(bit_width=4, return_quant_tensor=True),
            qnn.QuantLinear(16, 4, weight_quant=MXInt8Weight, weight_group_size=8),
        ),
        quantizers=2,
    ),
    weight("groups", ShiftedUint8WeightGroupQuantFloat, group_size=4, bit_width=4),
]

BIASES = [
    bias("32 bits", Int32Bias),
    bias("24 bits", Int24Bias),
    bias("16 bits", Int16Bias),
    bias("8 bits", Int8Bias),
    bias("32 bits, per channel", Int32Bias, weights=Int8WeightPerChannelFloat),
    bias("16 bits, power of two", Int16Bias, exact=True),
    bias("8 bits with a scale of its own", Int8BiasPerTensorFloatInternalScaling),
    Case(
        "bias in float",
        lambda: torch.nn.Sequential(
            qnn.QuantIdentity(Int8ActPerTensorFixedPoint, bit_width=4),
            qnn.QuantLinear(16, 8, bias=True, weight_bit_width=3),
        ),
        quantizers=2,
    ),
]

WEIGHTS = [*INTEGERS, *ROUNDINGS, *DECOUPLED, *FLOATS, *GROUPS, *BIASES]
