"""One case per quantizer and option: as an activation, and on the weights of a dense layer."""

from __future__ import annotations

import ast
from typing import Any

import numpy as np

from tests.adapters.qkeras.kit import Case, Kit


def make(kit: Kit, text: str) -> Any:
    """The quantizer that a constructor call says; arrays are written as ``array([...])``."""
    names = {name: getattr(kit.q, name) for name in dir(kit.q) if not name.startswith("_")}
    names["array"] = lambda values: np.array(values, dtype=np.float32)
    ast.parse(text, mode="eval")
    return eval(text, {"__builtins__": {}}, names)


def activation(
    text: str, quantizers: int = 1, *, string: bool = False, tag: str = "", **options: Any
) -> Case:
    """A model that is one QActivation."""

    def build(kit: Kit) -> Any:
        given = text if string else make(kit, text)
        return kit.model((8,), kit.q.QActivation(given, name="act"))

    spelled = "string " if string else ""
    options.setdefault("grid", 64)
    return Case(f"activation {spelled}{text}{tag}", build, quantizers, **options)


def weight(text: str, quantizers: int = 1, *, string: bool = False, **options: Any) -> Case:
    """A model that is one QDense without bias."""

    def build(kit: Kit) -> Any:
        given = text if string else make(kit, text)
        return kit.model((6,), kit.q.QDense(5, kernel_quantizer=given, use_bias=False))

    spelled = "string " if string else ""
    return Case(f"kernel {spelled}{text}", build, quantizers, **options)


def bias(text: str, quantizers: int = 1, **options: Any) -> Case:
    """A model that is one QDense with a quantized bias only."""

    def build(kit: Kit) -> Any:
        return kit.model((6,), kit.q.QDense(5, bias_quantizer=make(kit, text)))

    return Case(f"bias {text}", build, quantizers, **options)


def sigmoid_mode(mode: str, text: str, **options: Any) -> Case:
    """An activation under another process-wide sigmoid (the test sets it back)."""

    def build(kit: Kit) -> Any:
        kit.q.set_internal_sigmoid(mode)
        return kit.model((8,), kit.q.QActivation(make(kit, text), name="act"))

    options.setdefault("grid", 64)
    return Case(f"activation {text} with {mode} sigmoid", build, 1, **options)


# QKeras returns x + (q - x): off its grid by half an ulp of x where alpha is no power of 2.
ROUNDED = {"tolerance": 1e-5, "extreme": 64.0}
CURVED = {"tolerance": 1e-5, "flips": 0.01}

ACTIVATIONS = [
    activation("quantized_bits(4,0,alpha=1)"),
    activation("quantized_bits(4,0)"),
    activation("quantized_bits(8,3,1)"),
    activation("quantized_bits(6,2,1,keep_negative=False)"),
    activation("quantized_bits(6,2,keep_negative=False)"),
    activation("quantized_bits(1,0)"),
    activation("quantized_bits(1,1,keep_negative=False)"),
    activation("quantized_bits(2,0)"),
    activation("quantized_bits(3,3)"),
    activation("quantized_bits(2,5)"),
    activation("quantized_bits(16,6)"),
    activation("quantized_bits(4,1,alpha=0.5)"),
    activation("quantized_bits(4,1,alpha=0.3)", **ROUNDED),
    activation("quantized_bits(4,1,alpha=[1,2,4,0.5,1,1,0.25,8])"),
    activation("quantized_bits(4,1,alpha=array([1,2,4,0.5,1,1,0.25,8]))", generations=(2,)),
    activation("quantized_bits(1,0,alpha=0.5)"),
    activation("quantized_bits(1,0,alpha=-0.5)"),
    activation("quantized_bits(4,0,alpha=-1.0)"),
    activation("quantized_bits(4,1,qnoise_factor=0.5)"),
    activation("quantized_bits(4,1,qnoise_factor=0.0)", 0),
    activation("quantized_bits(4,1,use_stochastic_rounding=True)"),
    activation("quantized_bits(5,2,use_variables=True)", generations=(2,)),
    activation("quantized_bits(4,0,1)", string=True),
    activation("quantized_bits(4,0,alpha=1.0)", string=True),
    activation("quantized_relu(4)"),
    activation("quantized_relu(4,2)"),
    activation("quantized_relu(1)"),
    activation("quantized_relu(8,8)"),
    activation("quantized_relu(3,5)"),
    activation("quantized_relu(4,1,negative_slope=0.25)"),
    activation("quantized_relu(3,1,negative_slope=0.015625)"),
    activation("quantized_relu(4,1,negative_slope=1.0)"),
    activation("quantized_relu(4,1,negative_slope=2.0)"),
    activation("quantized_relu(4,1,use_sigmoid=1)"),
    activation("quantized_relu(4,1,use_sigmoid=1,negative_slope=0.25)", 2),
    activation("quantized_relu(4,3,relu_upper_bound=1.3)"),
    activation("quantized_relu(4,3,relu_upper_bound=1.3,is_quantized_clip=False)"),
    activation("quantized_relu(4,3,is_quantized_clip=False)"),
    activation("quantized_relu(4,1,qnoise_factor=0.5)"),
    activation("quantized_relu(4,1,qnoise_factor=0.0)", 0),
    activation(
        "quantized_relu(4,1,relu_upper_bound=1.5,is_quantized_clip=False,qnoise_factor=0.0)", 0
    ),
    activation("quantized_relu(4,1,negative_slope=0.5,qnoise_factor=0.25)"),
    activation("quantized_relu(6,2)", string=True),
    activation("quantized_ulaw(4)", **ROUNDED),
    activation("quantized_ulaw(6,1,1,31.0)", **ROUNDED),
    activation("quantized_tanh(4)"),
    activation("quantized_tanh(4,symmetric=True)"),
    activation("quantized_tanh(1)"),
    activation("quantized_tanh(2)"),
    activation("quantized_tanh(6,use_real_tanh=True)", **CURVED),
    activation("quantized_tanh(5)", string=True),
    activation("quantized_sigmoid(4)"),
    activation("quantized_sigmoid(4,symmetric=True)"),
    activation("quantized_sigmoid(1)"),
    activation("quantized_sigmoid(6,use_real_sigmoid=True)", **CURVED),
    activation("quantized_sigmoid(6,symmetric=True,use_real_sigmoid=True)", **CURVED),
    activation("binary()"),
    activation("binary(alpha=0.5)"),
    activation("binary(alpha=array([1,2,4,0.5,1,1,0.25,8]))"),
    activation("binary(use_01=True)"),
    activation("binary(use_01=True,alpha=0.25)"),
    activation("stochastic_binary(alpha=1.0)"),
    activation("ternary()"),
    activation("ternary(threshold=0.5)"),
    activation("ternary(alpha=0.5,threshold=0.75)"),
    activation("ternary(alpha=0.3,threshold=0.1)", **ROUNDED),
    activation("stochastic_ternary(alpha=1.0,threshold=0.5)"),
    activation("quantized_po2(4)"),
    activation("quantized_po2(4,2)"),
    activation("quantized_po2(4,0.5)"),
    activation("quantized_po2(4,3)"),
    activation("quantized_po2(6)"),
    activation("quantized_po2(4,quadratic_approximation=True)"),
    activation("quantized_po2(4,log2_rounding='floor')"),
    activation("quantized_po2(4,qnoise_factor=0.5)", **ROUNDED),
    activation("quantized_relu_po2(4)"),
    activation("quantized_relu_po2(4,4)"),
    activation("quantized_relu_po2(4,negative_slope=0.25)"),
    activation("quantized_relu_po2(4,quadratic_approximation=True)"),
    activation("quantized_relu_po2(4,log2_rounding='floor')"),
    activation("quantized_hswish(6,2)"),
    activation("quantized_hswish(6,2,relu_shift=4,relu_upper_bound=8)"),
    activation("hard_sigmoid", 0, string=True),
    activation("smooth_sigmoid", 0, string=True, **ROUNDED),
    activation("hard_tanh", 0, string=True),
    activation("smooth_tanh", 0, string=True, **ROUNDED),
    activation("binary_sigmoid", 1, string=True),
    activation("binary_tanh", 1, string=True),
    activation("relu", 0, string=True),
    activation("tanh", 0, string=True, **ROUNDED),
    activation("softmax", 0, string=True, **ROUNDED),
    sigmoid_mode("smooth", "quantized_sigmoid(4)"),
    sigmoid_mode("smooth", "quantized_tanh(4)"),
    sigmoid_mode("smooth", "quantized_relu(4,1,use_sigmoid=1)"),
    sigmoid_mode("real", "quantized_tanh(4)", **CURVED),
    sigmoid_mode("real", "quantized_ulaw(4)", **CURVED),
    activation("quantized_linear(4,1)", generations=(3,)),
    activation("quantized_linear(4,1,symmetric=0)", generations=(3,)),
    activation("quantized_linear(4,1,keep_negative=False)", generations=(3,)),
    activation("quantized_linear(1,0)", generations=(3,)),
    activation("quantized_linear(4,1,alpha=0.5)", generations=(3,)),
    activation("quantized_linear(4,1,alpha=0.3)", generations=(3,), **ROUNDED),
]

WEIGHTS = [
    weight("quantized_bits(4,0,alpha=1)"),
    weight("quantized_bits(4,0,1,alpha=1)"),
    weight("quantized_bits(4,0)"),
    weight("quantized_bits(2,0)"),
    weight("quantized_bits(8,2,alpha='auto_po2')"),
    weight("quantized_bits(4,0,alpha='auto')", **ROUNDED),
    weight("quantized_bits(3,1,alpha='auto')", **ROUNDED),
    weight("quantized_bits(4,0,alpha='auto_po2',scale_axis=0)"),
    weight("quantized_bits(4,0,keep_negative=False,alpha='auto_po2')"),
    weight("quantized_bits(4,0,keep_negative=False,alpha=1)"),
    weight("quantized_bits(1,0,alpha=1)"),
    weight("quantized_bits(1,0)"),
    weight("quantized_bits(4,4,alpha=1)"),
    weight("quantized_bits(4,0,alpha=0.3)", **ROUNDED),
    weight("quantized_bits(4,0,alpha=-0.5)"),
    weight("quantized_bits(4,0,alpha=[1,2,0.5,4,1])"),
    weight("quantized_bits(4,0,alpha=1,qnoise_factor=0.5)", 0),
    weight("quantized_bits(4,0,alpha=1)", string=True),
    weight("quantized_bits(4,0)", string=True),
    weight("quantized_linear(4,0)", generations=(3,)),
    weight("quantized_linear(4,0,alpha='auto')", generations=(3,), **ROUNDED),
    weight("quantized_linear(1,0,alpha=1.0)", generations=(3,)),
    weight("binary()"),
    weight("binary(alpha=1)"),
    weight("binary(alpha='auto')", **ROUNDED),
    weight("binary(alpha='auto_po2')"),
    weight("binary(use_01=True,alpha=1)"),
    weight("binary(use_01=True,alpha='auto_po2')"),
    weight("ternary()"),
    weight("ternary(alpha=1)"),
    weight("ternary(alpha=1,threshold=0.5)"),
    weight("ternary(alpha='auto')", **ROUNDED),
    weight("ternary(alpha='auto_po2')"),
    weight("stochastic_binary()"),
    weight("stochastic_ternary()"),
    weight("stochastic_ternary(alpha='auto')", **ROUNDED),
    weight("quantized_po2(4)"),
    weight("quantized_po2(4,1)"),
    weight("quantized_po2(6)"),
    weight("quantized_po2(8)"),
    weight("quantized_po2(4,quadratic_approximation=True)"),
    weight("quantized_relu_po2(4)"),
    weight("quantized_tanh(4)"),
    weight("quantized_sigmoid(4)"),
    weight("quantized_ulaw(4)", 0, **ROUNDED),
    weight("quantized_relu(4,1)"),
    weight("quantized_hswish(6,2,alpha=1)"),
    bias("quantized_bits(6,2)"),
    bias("quantized_bits(6,2,alpha='auto_po2')"),
    bias("quantized_bits(6,2,alpha='auto')", **ROUNDED),
    bias("quantized_po2(4)"),
    bias("ternary()"),
    bias("binary(alpha='auto_po2')", **ROUNDED),
]
