"""One case per quantizer of activations."""

from __future__ import annotations

from typing import Any

import brevitas.nn as qnn
import torch
from brevitas.inject.enum import FloatToIntImplType, QuantType, RestrictValueType
from brevitas.quant import (
    Int8ActPerTensorFixedPoint,
    Int8ActPerTensorFloat,
    Int8ActPerTensorFloatMinMaxInit,
    Int8ActPerTensorFloatMSE,
    ShiftedUint8ActPerTensorFixedPoint,
    ShiftedUint8ActPerTensorFloat,
    SignedBinaryActPerTensorConst,
    SignedTernaryActPerTensorConst,
    Uint8ActPerTensorFixedPoint,
    Uint8ActPerTensorFloat,
    Uint8ActPerTensorFloatBatchQuant2d,
    Uint8ActPerTensorFloatMaxInit,
)
from brevitas.quant.float import (
    Fp8e4m3ActPerChannelFloat2d,
    Fp8e4m3ActPerTensorFloat,
    Fp8e5m2Act,
    Fp8e5m2ActPerTensorFloat,
)
from brevitas.quant.float_quant_fnuz import (
    Fp8e4m3FNUZActPerTensorFloat,
    Fp8e5m2FNUZActPerTensorFloat,
)
from brevitas.quant.float_quant_ocp import (
    Fp8e4m3OCPAct,
    Fp8e4m3OCPActPerTensorFloat,
    Fp8e5m2OCPActPerTensorFloat,
    FpOCPActPerTensorFloat,
)

from tests.adapters.brevitas.kit import Case

PO2 = {"restrict_scaling_type": RestrictValueType.POWER_OF_TWO}
IMAGE = ((2, 4, 5, 5),)


def const(limit: float) -> dict[str, Any]:
    """A scale that is set, not learned: the largest value that is not clipped."""
    return {"scaling_impl_type": "const", "scaling_init": limit}


def one(name: str, kind: Any, quant: Any, exact: bool = True, **arguments: Any) -> Case:
    shapes = arguments.pop("shapes", ((2, 16),))
    return Case(
        f"{kind.__name__} {name}",
        lambda: torch.nn.Sequential(kind(act_quant=quant, **arguments)),
        shapes=shapes,
        quantizers=1,
        exact=exact,
    )


def identity(name: str, quant: Any = Int8ActPerTensorFloat, **arguments: Any) -> Case:
    # A quantizer alone adds nothing up: its answers are the framework's, bit for bit.
    return one(name, qnn.QuantIdentity, quant, **arguments)


def relu(name: str, quant: Any = Uint8ActPerTensorFloat, **arguments: Any) -> Case:
    return one(name, qnn.QuantReLU, quant, **arguments)


WIDTHS = [
    identity(f"{bits} bits", bit_width=bits) for bits in (2, 3, 4, 5, 6, 7, 8, 10, 12, 16)
]

ROUNDINGS = [
    identity(f"4 bits {mode.name}{words}", bit_width=4, float_to_int_impl_type=mode, **scale)
    for mode in (
        FloatToIntImplType.ROUND,
        FloatToIntImplType.FLOOR,
        FloatToIntImplType.CEIL,
        FloatToIntImplType.ROUND_TO_ZERO,
        FloatToIntImplType.DPU,
    )
    for words, scale in (("", {}), (", ties on a grid", const(2.0)))
]

INTEGERS = [
    identity("narrow", bit_width=4, narrow_range=True),
    identity("unsigned", bit_width=4, signed=False),
    identity("power of two", bit_width=4, **PO2),
    identity("fixed point", Int8ActPerTensorFixedPoint, bit_width=6),
    identity("set limits", Int8ActPerTensorFloatMinMaxInit, min_val=-1.5, max_val=1.5),
    identity("set scale", bit_width=3, **const(4.0)),
    identity("scale of the least squares", Int8ActPerTensorFloatMSE, bit_width=4),
    identity("zero point", ShiftedUint8ActPerTensorFloat),
    identity("zero point, 4 bits", ShiftedUint8ActPerTensorFloat, bit_width=4),
    identity("zero point, fixed point", ShiftedUint8ActPerTensorFixedPoint, bit_width=5),
    identity(
        "per channel",
        bit_width=4,
        scaling_per_output_channel=True,
        per_channel_broadcastable_shape=(1, 4, 1, 1),
        scaling_stats_permute_dims=(1, 0, 2, 3),
        shapes=IMAGE,
    ),
    identity("binary", SignedBinaryActPerTensorConst, **const(1.0)),
    identity("binary, half", SignedBinaryActPerTensorConst, scaling_init=0.5),
    identity("ternary", SignedTernaryActPerTensorConst, scaling_init=0.7),
    identity(
        "ternary, threshold 0.5",
        SignedTernaryActPerTensorConst,
        quant_type=QuantType.TERNARY,
        threshold=0.5,
        scaling_init=0.7,
    ),
    identity(
        "ternary, threshold 0.2",
        SignedTernaryActPerTensorConst,
        quant_type=QuantType.TERNARY,
        threshold=0.2,
        scaling_init=0.7,
    ),
    relu("batch statistics", Uint8ActPerTensorFloatBatchQuant2d, shapes=IMAGE),
    identity("learned bit width", bit_width=4, bit_width_impl_type="parameter"),
    relu("1 bit", bit_width=1),
    relu("2 bits", bit_width=2),
    relu("4 bits", bit_width=4),
    relu("8 bits", bit_width=8),
    relu("16 bits", bit_width=16),
    relu("4 bits, power of two", bit_width=4, **PO2),
    relu("fixed point", Uint8ActPerTensorFixedPoint, bit_width=5),
    relu("set limit", Uint8ActPerTensorFloatMaxInit, bit_width=3, max_val=6.0),
    relu("4 bits FLOOR", bit_width=4, float_to_int_impl_type=FloatToIntImplType.FLOOR),
]

FUNCTIONS = [
    one("4 bits", qnn.QuantHardTanh, Int8ActPerTensorFloatMinMaxInit, bit_width=4,
        min_val=-1.0, max_val=1.0),
    # Exponentials differ in the last bit from one library to another.
    Case("QuantSigmoid", lambda: torch.nn.Sequential(qnn.QuantSigmoid(bit_width=8)),
         quantizers=1, flips=0.01),
    Case("QuantTanh", lambda: torch.nn.Sequential(qnn.QuantTanh(bit_width=8)),
         quantizers=1, flips=0.01),
    Case("QuantHardSwish", lambda: torch.nn.Sequential(
        torch.nn.Hardswish(), qnn.QuantIdentity(bit_width=4)), quantizers=1),
    Case("quantizer without an activation", lambda: torch.nn.Sequential(
        qnn.QuantReLU(act_quant=None), qnn.QuantIdentity(bit_width=4)), quantizers=1,
        exact=True),
]  # fmt: skip

FLOATS = [
    identity("e4m3 OCP", Fp8e4m3OCPActPerTensorFloat),
    identity("e5m2 OCP", Fp8e5m2OCPActPerTensorFloat),
    identity("e4m3 OCP, no scale", Fp8e4m3OCPAct),
    identity("e4m3 OCP, overflow is NaN", Fp8e4m3OCPAct, saturating=False),
    identity("e5m2 OCP, overflow is infinite", Fp8e5m2OCPActPerTensorFloat, saturating=False),
    identity("e3m2 OCP", FpOCPActPerTensorFloat, bit_width=6, exponent_bit_width=3,
             mantissa_bit_width=2),
    identity("e2m1 OCP", FpOCPActPerTensorFloat, bit_width=4, exponent_bit_width=2,
             mantissa_bit_width=1),
    identity("e4m3", Fp8e4m3ActPerTensorFloat),
    identity("e5m2", Fp8e5m2ActPerTensorFloat),
    identity("e5m2, no scale", Fp8e5m2Act),
    identity("e4m3 FNUZ", Fp8e4m3FNUZActPerTensorFloat),
    identity("e5m2 FNUZ", Fp8e5m2FNUZActPerTensorFloat),
    identity("e4m3 per channel", Fp8e4m3ActPerChannelFloat2d, shapes=IMAGE,
             scaling_stats_permute_dims=(1, 0, 2, 3),
             per_channel_broadcastable_shape=(1, 4, 1, 1)),
    identity("e4m3 OCP, unsigned", Fp8e4m3OCPActPerTensorFloat, signed=False),
    relu("e4m3 OCP", Fp8e4m3OCPActPerTensorFloat),
]  # fmt: skip

ACTIVATIONS = [*WIDTHS, *ROUNDINGS, *INTEGERS, *FUNCTIONS, *FLOATS]
