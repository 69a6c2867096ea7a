"""HGQ2's fixed-point quantizers: their variables, their numbers, their nodes.

A quantizer has, per element or shared along axes, a sign bit k, integer bits i without the
sign and fractional bits f. Values are rounded to multiples of ``2**-f``, and saturate or wrap
at ``2**i``; where no bit is left (``k + i + f <= 0``) the value is 0: a pruned element.

Source: ``quantizers`` 1.2.2 and ``hgq.quantizer`` of HGQ2 0.2.0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx_ir import Value

from qonnx_hub_adapters.keras_files.scope import PlainForm, Scope
from qonnx_hub_adapters.keras_files.variables import LayerWeights, Variables
from qonnx_hub_ir.quantizers import Array, IntQuant, Rounding, signed_bits

_WIDEST = 24
"""Bits up to which float32 holds every code."""


@dataclass(frozen=True, slots=True, eq=False)
class FixedBits:
    """A quantizer with its variables.

    Attributes:
        k: Sign bits, 0 or 1.
        i: Integer bits without sign.
        f: Fractional bits.
        rounding: HGQ's name of the mode, without the mark of a stochastic one.
        overflow: "SAT", "SAT_SYM", "WRAP" or "WRAP_SM".
        scaler: Divided out before, multiplied back after.
        affine: (factor, offset) of the result.
        place: "weight", "bias", "datalane" or "table".
        by_width: Whether the width, and not the fractional bits, is the variable (KBI).
    """

    k: Array
    i: Array
    f: Array
    rounding: str
    overflow: str
    scaler: Array | None
    affine: tuple[float, float] | None
    place: str
    by_width: bool

    @property
    def pruned(self) -> Array:
        """Where no bit is left."""
        return np.asarray(self.k + self.i + self.f <= 0)

    @property
    def whole(self) -> Array:
        """Integer bits, at least as many as there are fractional bits missing."""
        return np.maximum(self.i, -self.f)


def conf_of(spelled: Any) -> Mapping[str, Any]:
    """Return the arguments of a quantizer's configuration."""
    inner = dict(spelled.get("config") or {})
    kind = str(spelled.get("class_name", ""))
    if kind == "HardTanhConfig":
        symmetric = inner.pop("symmetric", False)
        return {"overflow_mode": "SAT_SYM" if symmetric else "SAT", **inner}
    if kind == "HardSigmoidConfig":
        return {"overflow_mode": "SAT", "affine": (0.25, 0.5), **inner}
    return inner


def quantizer_variables(spelled: Any, path: str) -> Variables:
    """Return the variables of a quantizer, in the order in which Keras stores them."""
    conf = conf_of(spelled)
    first = "b" if conf.get("q_type") == "kbi" else "f"
    if conf.get("q_type") not in ("kbi", "kif"):
        return Variables(path=path)
    if str(conf.get("overflow_mode", "")).upper() == "WRAP":
        names = [(first, True), ("k", False), ("i", False), ("i_decay_speed", False)]
    elif first == "b":
        names = [("b", True), ("i", True), ("k", False)]
    else:
        names = [("i", True), ("f", True), ("k", False)]
    return Variables(tuple(names), path=path)


def read_bits(s: Scope, spelled: Any, weights: LayerWeights) -> FixedBits | None:
    """Return a quantizer; ``None`` for one that does nothing.

    Raises:
        SourceError: A kind of quantizer that is not fixed-point.
    """
    conf = conf_of(spelled)
    kind = str(conf.get("q_type"))
    if kind == "dummy":
        return None
    if kind not in ("kbi", "kif"):
        raise s.fail(f"a quantizer of kind '{kind}' is not fixed-point")
    k = weights["k"].astype(np.float32)
    i = np.rint(weights["i"]).astype(np.float32)
    f = np.rint(weights["b"]) - i if kind == "kbi" else np.rint(weights["f"])
    if not (np.all(np.abs(i) < 60) and np.all(np.abs(f) < 60)):
        raise s.fail("a quantizer has bit widths that are not finite or beyond 60")
    scaler, affine = conf.get("scaler"), conf.get("affine")
    if isinstance(scaler, Mapping):
        scaler = scaler["config"]["value"]
    return FixedBits(
        k=k,
        i=i,
        f=f.astype(np.float32),
        rounding=str(conf["round_mode"]).upper().removeprefix("S_"),
        overflow=str(conf["overflow_mode"]).upper(),
        scaler=None if scaler is None else np.asarray(scaler, dtype=np.float32),
        affine=None if affine is None else (float(affine[0]), float(affine[1])),
        place=str(conf.get("place", "datalane")),
        by_width=kind == "kbi",
    )


_HALF = np.float32(0.5)

ROUND: Mapping[str, Callable[[Array], Array]] = {
    "RND": lambda v: np.floor(v + _HALF),
    "TRN": np.floor,
    "RND_CONV": np.rint,
    "TRN_ZERO": np.trunc,
    "RND_ZERO": lambda v: np.sign(v) * np.ceil(np.abs(v) - _HALF),
    "RND_MIN_INF": lambda v: np.ceil(v - _HALF),
    "RND_INF": lambda v: np.sign(v) * np.floor(np.abs(v) + _HALF),
}
"""Rounding mode, by the name of the vendors' types -> what rounds to whole numbers."""


def applied(q: FixedBits, x: Array) -> Array:
    """Return the values of a weight or bias, in float32."""
    t = np.asarray(x if q.scaler is None else x / q.scaler, dtype=np.float32)
    step, top = np.exp2(-q.f), np.exp2(q.whole)
    # A weight that wraps is only rounded, and not pruned, in the way that HGQ2 evaluates it.
    free = q.overflow == "WRAP" and q.place == "weight"
    free &= not q.by_width or q.rounding == "RND"
    if q.overflow in ("SAT", "SAT_SYM"):
        low = -q.k * (top - step) if q.overflow == "SAT_SYM" else -q.k * top
        t = np.clip(t, low, top - step)
    y = ROUND[q.rounding](t / step) * step
    if q.overflow == "WRAP" and not free:
        span, offset = np.exp2(q.whole + q.k), q.k * np.exp2(q.whole + q.k - 1)
        y = np.mod(y + offset, span) - offset
    if not free:
        y = np.where(q.pruned, 0, y)
    if q.scaler is not None:
        y = y * q.scaler
    if q.affine is not None:
        y = y * np.float32(q.affine[0]) + np.float32(q.affine[1])
    return np.asarray(y, dtype=np.float32)


def grid_of(q: FixedBits, values: Array) -> IntQuant | None:
    """Return the quantizer of the finest grid of a tensor, which leaves its values alone."""
    if q.scaler is not None or q.affine is not None or not values.size:
        return None
    scale = np.exp2(
        -np.max(np.broadcast_to(q.f, np.broadcast_shapes(q.f.shape, values.shape)))
    )
    codes = np.asarray(values, dtype=np.float64) / float(scale)
    if np.any(codes != np.rint(codes)):
        return None
    bits = max(signed_bits(int(codes.min()), int(codes.max())), 2)
    if bits > _WIDEST:
        return None
    return _quant(np.asarray(scale, np.float32), np.asarray(bits, np.float32))


def _quant(
    scale: Array,
    bits: Array,
    *,
    signed: bool = True,
    narrow: bool = False,
    rounding: Rounding = Rounding.ROUND,
) -> IntQuant:
    zero = np.zeros((), dtype=np.float32)
    return IntQuant(
        scale.astype(np.float32), zero, bits.astype(np.float32), signed, narrow, rounding
    )


_MODES: Mapping[str, tuple[float, Rounding]] = {
    "TRN": (0.0, Rounding.FLOOR),
    "RND": (0.5, Rounding.FLOOR),
    "RND_CONV": (0.0, Rounding.ROUND),
    "RND_INF": (0.0, Rounding.HALF_UP),
    "RND_ZERO": (0.0, Rounding.HALF_DOWN),
    "TRN_ZERO": (0.0, Rounding.DOWN),
    "RND_MIN_INF": (-0.5, Rounding.CEIL),
}
"""Mode -> what is added before, in steps, and the rounding mode of a Quant."""


def quantized(s: Scope, x: Value, q: FixedBits | None) -> Value:
    """Return an activation quantized: a Quant with arrays, and what else it needs."""
    if q is None:
        return x
    if q.rounding not in _MODES:
        raise s.fail(f"rounds by '{q.rounding}'")
    q = _ranked(q, s.rank(x))
    y = x if q.scaler is None else s.op("Div", x, q.scaler)
    if q.overflow in ("SAT", "SAT_SYM"):
        y = _saturated(s, y, q)
    elif q.overflow == "WRAP":
        read, y = y, _wrapped(s, y, q)
        s.net.plain_forms.append(_without_wrapping(s, q, read, y))
    elif q.overflow == "WRAP_SM":
        y = _reflected(s, y, q)
    else:
        raise s.fail(f"overflows by '{q.overflow}'")
    if q.scaler is not None:
        y = s.op("Mul", y, q.scaler)
    if q.affine is not None:
        y = s.op("Add", s.op("Mul", y, q.affine[0]), q.affine[1])
    return y


def _ranked(q: FixedBits, rank: int) -> FixedBits:
    """Return the quantizer with single numbers where all elements share them."""
    changes = {}
    for name in ("k", "i", "f"):
        values = getattr(q, name)
        flat = values.reshape(-1)
        if values.size and np.all(flat == flat[0]):
            changes[name] = flat[0].reshape(())
        elif values.ndim > rank:
            changes[name] = values.reshape(values.shape[values.ndim - rank :])
    return dataclasses.replace(q, **changes)


def _saturated(s: Scope, x: Value, q: FixedBits) -> Value:
    """Round within bounds: rounding keeps order, so that either may come first."""
    added, mode = _MODES[q.rounding]
    step, top = np.exp2(-q.f), np.exp2(q.whole)
    if added:
        x = s.op("Add", x, (np.float32(added) * step).astype(np.float32))
    symmetric = q.overflow == "SAT_SYM"
    signed = bool(np.any(q.k))
    bits = q.whole + q.f + (1 if signed else 0)
    plain = (np.all(q.k == 1) or not signed) and not np.any(q.pruned)
    if plain and np.all(bits >= (2 if signed else 1)):
        narrow = symmetric and signed
        return _noted(s, x, _quant(step, bits, signed=signed, narrow=narrow, rounding=mode))
    y = _noted(s, x, _quant(step, np.maximum(q.whole + q.f + 1, 2), rounding=mode))
    low = np.where(q.pruned, 0, -q.k * (top - step * symmetric))
    high = np.where(q.pruned, 0, top - step)
    y = s.op("Max", y, low.astype(np.float32))
    return s.op("Min", y, high.astype(np.float32))


def _noted(s: Scope, x: Value, quant: IntQuant) -> Value:
    y = s.emit.quantizer(x, quant)
    y.type, y.shape = x.type, x.shape
    return y


def _rounded(s: Scope, x: Value, q: FixedBits) -> Value:
    """Return multiples of the step, without bounds."""
    added, _ = _MODES[q.rounding]
    step = np.exp2(-q.f).astype(np.float32)
    t = s.op("Div", x, step)
    if added:
        t = s.op("Add", t, added)
    mode = q.rounding
    if mode in ("RND", "TRN", "RND_CONV", "RND_MIN_INF"):
        names = {"RND_CONV": "Round", "RND_MIN_INF": "Ceil"}
        t = s.op(names.get(mode, "Floor"), t)
    else:
        size = s.op("Abs", t)
        if mode == "RND_INF":
            size = s.op("Floor", s.op("Add", size, 0.5))
        elif mode == "RND_ZERO":
            size = s.op("Ceil", s.op("Sub", size, 0.5))
        else:
            size = s.op("Floor", size)
        t = s.op("Mul", size, s.op("Sign", t))
    return s.op("Mul", t, step)


def _modulo(s: Scope, x: Value, span: Array) -> Value:
    span = span.astype(np.float32)
    return s.op("Sub", x, s.op("Mul", s.op("Floor", s.op("Div", x, span)), span))


def _wrapped(s: Scope, x: Value, q: FixedBits) -> Value:
    """Round, then wrap around the range, which the Quant behind states unchanged."""
    span, offset = np.exp2(q.whole + q.k), q.k * np.exp2(q.whole + q.k - 1)
    y = _rounded(s, x, q)
    if np.any(offset):
        y = s.op("Add", y, offset.astype(np.float32))
    y = _modulo(s, y, span)
    if np.any(offset):
        y = s.op("Sub", y, offset.astype(np.float32))
    return _saturated(s, y, dataclasses.replace(q, rounding="RND_CONV", overflow="SAT"))


def _without_wrapping(s: Scope, q: FixedBits, read: Value, made: Value) -> PlainForm:
    """Return what a quantizer is between values that it does not wrap."""
    saturating = dataclasses.replace(q, overflow="SAT")

    def holds(low: Array, high: Array) -> bool:
        step, top = np.exp2(-q.f), np.exp2(q.whole)
        # In float32, as the values are rounded; rounding keeps order.
        first, last = (ROUND[q.rounding](_f32(end) / step) * step for end in (low, high))
        inside = (first >= -q.k * top) & (last <= top - step)
        return bool(np.all(inside | q.pruned))

    def write(scope: Scope, x: Value) -> Value:
        return _saturated(scope, x, saturating)

    return PlainForm(s, read, made, holds, write)


def _reflected(s: Scope, x: Value, q: FixedBits) -> Value:
    """Round, and reflect at the ends of the range."""
    step = np.exp2(-q.f)
    high = np.exp2(q.whole) - step
    low = -(high + step) * q.k
    span = np.exp2(q.whole + q.k)
    far = _at_least_one(s, s.op("Div", x, span.astype(np.float32)))
    big = s.op("Greater", s.op("Abs", x), (step / 2).astype(np.float32))
    first = s.op("And", far, big)
    moved = s.op("Add", x, (step / 2).astype(np.float32))
    second = _at_least_one(s, s.op("Div", moved, (span / 2).astype(np.float32)))
    y = s.op("Sub", s.op("Sub", _rounded(s, x, q), high.astype(np.float32)), _f32(step))
    y = s.op("Add", _modulo(s, y, span), low.astype(np.float32))
    for flips in (second, first):
        turned = s.op("Sub", s.op("Neg", y), _f32(step))
        y = s.op("Where", flips, turned, y)
    if np.any(q.pruned):
        y = s.op("Mul", y, np.where(q.pruned, 0, 1).astype(np.float32))
    return y


def _f32(values: Array) -> Array:
    return np.asarray(values, dtype=np.float32)


def _at_least_one(s: Scope, x: Value) -> Value:
    return s.op("GreaterOrEqual", _modulo(s, x, np.asarray(2.0)), 1.0)
