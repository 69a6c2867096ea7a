"""Functions of one value, applied to each element: activations, roundings, conversions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Node

from qonnx_hub_ir.operators.row import (
    FALLING,
    RISING,
    UNORDERED,
    Batch,
    Buffer,
    Directions,
    Family,
    Moves,
    Operator,
    attribute,
    holds_floats,
    is_inference,
    row,
)

_EXACT: dict[str, Any] = {"monotone": (RISING,), "order_is_exact": True}
_FRESH: dict[str, Any] = {"buffer": Buffer.FRESH}
_WHOLE: dict[str, Any] = {**_EXACT, "is_whole": True, "piecewise_constant": True}
_POSITIVE, _UNIT, _SIGNED = (0.0, math.inf), (0.0, 1.0), (-1.0, 1.0)
_QUARTER = (-math.pi / 2, math.pi / 2)


def _function(name: str, inputs: str = "data", **traits: Any) -> Operator:
    known: dict[str, Any] = {"elementwise": True, "batch": Batch.BROADCAST, **traits}
    return row("", Family.FUNCTION, name, inputs, **known)


def _rising(
    names: str, bounds: tuple[float, float] | None = None, **traits: Any
) -> list[Operator]:
    """Return rows of functions that rise, but perhaps for the rounding of their values."""
    return [
        _function(name, monotone=(RISING,), bounds=bounds, **traits) for name in names.split()
    ]


def _if(
    holds: Callable[[Node], bool], met: int = RISING, otherwise: int = UNORDERED
) -> Directions:
    """Return the rule of a function whose direction a condition on the node decides."""
    return lambda node: (met if holds(node) else otherwise,)


def _rises_if(name: str, default: float, above: float = -math.ulp(0.0)) -> Directions:
    """Return the rule of a function that rises while an attribute lies above a limit."""
    return _if(lambda node: float(attribute(node, name, default)) > above)


def _alpha(node: Node) -> float:
    # Of alpha (exp(x) - 1).
    return abs(float(attribute(node, "alpha", 1.0)))


def _target(node: Node) -> onnx_ir.DataType:
    return onnx_ir.DataType(int(attribute(node, "to", 0)))


def _casts_numbers_to_floats(node: Node) -> bool:
    # A conversion to integers wraps what does not fit.
    data = node.inputs[0]
    known = data is not None and data.dtype is not None and not data.dtype.is_string()
    return known and _target(node).is_floating_point()


OPERATORS: tuple[Operator, ...] = (
    _function("Identity", moves=Moves.NOTHING, is_identity=True, buffer=Buffer.MAY_VIEW),
    _function(
        *("Dropout", "data -ratio -training_mode"),
        elementwise=is_inference,
        moves=lambda node: Moves.NOTHING if is_inference(node) else None,
        is_identity=is_inference,
        random=lambda node: not is_inference(node),
        without_effect=frozenset({"seed"}),
        buffer=Buffer.MAY_VIEW,
        changed=(7, 12),
    ),
    _function(
        *("Abs",), **_FRESH, in_numpy=np.abs, keeps_step=True, slope=1.0, idempotent=True
    ),
    _function(
        *("Neg",),
        **_FRESH,
        in_numpy=np.negative,
        monotone=_if(holds_floats, FALLING),
        order_is_exact=True,
        keeps_step=True,
        slope=1.0,
    ),
    _function(
        *("Relu",),
        **_EXACT | _FRESH,
        keeps_step=True,
        clamps=True,
        bounds=_POSITIVE,
        idempotent=True,
    ),
    _function("Clip", "data +lowest +highest", **_FRESH, **_EXACT, clamps=True),
    _function("Sign", **_WHOLE, bounds=_SIGNED, idempotent=True),
    *(
        _function(name, **_FRESH, **_WHOLE, in_numpy=function, idempotent=True)
        for name, function in (("Ceil", np.ceil), ("Floor", np.floor), ("Round", np.rint))
    ),
    _function("Sqrt", **_FRESH, **_EXACT, bounds=_POSITIVE),
    _function("Exp", **_FRESH, monotone=(RISING,), bounds=_POSITIVE),
    _function("Reciprocal", tells_zeros_apart=True),
    _function(
        "HardSigmoid",
        monotone=_if(lambda node: attribute(node, "alpha", 0.2) >= 0, RISING, FALLING),
        order_is_exact=True,
        bounds=_UNIT,
    ),
    _function("LeakyRelu", monotone=_rises_if("alpha", 0.01), order_is_exact=True),
    _function("ThresholdedRelu", monotone=_rises_if("alpha", 1.0), order_is_exact=True),
    _function(
        "Shrink",
        monotone=_if(
            lambda node: 0 <= attribute(node, "lambd", 0.5) >= attribute(node, "bias", 0.0)
        ),
        order_is_exact=True,
    ),
    _function("Elu", monotone=_rises_if("alpha", 1.0), formula_size=_alpha),
    _function("Celu", monotone=_rises_if("alpha", 1.0, above=0.0), formula_size=_alpha),
    _function(
        "Selu",
        formula_size=lambda node: abs(
            attribute(node, "alpha", 1.67326) * attribute(node, "gamma", 1.0507)
        ),
        monotone=_if(
            lambda node: (
                attribute(node, "alpha", 1.67326) >= 0
                and attribute(node, "gamma", 1.0507) >= 0
            )
        ),
    ),
    *_rising("Log Sinh Asinh Atanh"),
    *_rising("Softsign Tanh", _SIGNED, slope=1.0),
    *_rising("Erf", _SIGNED, slope=2 / math.sqrt(math.pi)),
    *_rising("Sigmoid", _UNIT, slope=0.25, formula_size=lambda node: 1.0),
    *_rising("Softplus", _POSITIVE, slope=1.0, formula_size=lambda node: 1.0),
    *_rising("Acosh", _POSITIVE),
    *_rising("Asin Atan", _QUARTER),
    _function("Acos", monotone=(FALLING,), bounds=(0.0, math.pi)),
    *(_function(name, bounds=_SIGNED) for name in ("Sin", "Cos")),
    _function("Cosh", bounds=(1.0, math.inf)),
    *(_function(name) for name in ("Tan", "HardSwish")),
    # The steepest place of each, rounded up; whatever the factor in Swish is.
    *(
        _function(name, slope=slope)
        for name, slope in (("Gelu", 1.13), ("Mish", 1.09), ("Swish", 1.1))
    ),
    _function(
        "Cast",
        monotone=_if(_casts_numbers_to_floats),
        order_is_exact=True,
        piecewise_constant=lambda node: (
            not (_target(node).is_floating_point() or _target(node).is_string())
        ),
        tells_zeros_apart=lambda node: _target(node).is_string(),
        buffer=Buffer.MAY_VIEW,
    ),
    _function("CastLike", "data -like", buffer=Buffer.MAY_VIEW),
    _function("BitCast", tells_zeros_apart=True, buffer=Buffer.MAY_VIEW),
)
"""Their rows."""
