"""Numpy kernels that treat every element by itself: arithmetic, bits, trigonometry, casts.

Floating-point conditions (division by zero, an invalid operation) follow IEEE 754 and give
inf or NaN. Whether numpy also warns about them is left to the caller (``np.errstate``).
"""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir

from qonnx_hub.executor.kernels._numbers import FLOAT8_LIMITS, SHORT_FLOATS, widened
from qonnx_hub.executor.kernels.spec import Array, Factory, Kernel, KernelSpec, KernelTable

IN_PLACE_SIZE = 8192
"""Elements from which writing into an input saves more time than the checks for it cost."""


def served(factory: Factory, *attributes: str) -> Factory:
    """Return ``factory`` guarded against attributes that it does not know.

    Args:
        factory: Builds the kernel.
        attributes: Names of all attributes that ``factory`` gives their ONNX meaning.
    """
    known = frozenset(attributes)

    def make(spec: KernelSpec) -> Kernel:
        unknown = sorted(spec.attributes.keys() - known)
        if unknown:
            raise spec.unserved(f"has unknown attributes {unknown}")
        return factory(spec)

    return make


def stateless(kernel: Kernel) -> Factory:
    """Return a factory for a kernel that needs to know nothing but its inputs."""
    return served(lambda spec: kernel)


def never_scalar(spec: KernelSpec) -> bool:
    """Return whether a constant input proves that a broadcast result has a dimension."""
    return any(constant is not None and constant.ndim > 0 for constant in spec.constants)


def unary(ufunc: np.ufunc, *, in_place: bool = True) -> Factory:
    """Return a factory of kernels that apply ``ufunc`` to one input.

    Args:
        ufunc: Function of one input and one output.
        in_place: Whether input and output have the same dtype, so that the input's buffer
            may be written to.
    """

    def kernel(x: Array) -> Array:
        y = ufunc(x)
        return y if isinstance(y, np.ndarray) else np.asarray(y)

    def writing(x: Array) -> Array:
        if x.size >= IN_PLACE_SIZE and x.flags.writeable:
            return ufunc(x, out=x)  # type: ignore[no-any-return]
        return kernel(x)

    return served(lambda spec: writing if in_place and 0 in spec.reusable else kernel)


def binary(ufunc: np.ufunc, *, in_place: bool = True) -> Factory:
    """Return a factory of kernels that apply ``ufunc`` to two inputs with broadcasting.

    Args:
        ufunc: Function of two inputs and one output.
        in_place: Whether inputs and output have the same dtype, so that an input's buffer
            may be written to.
    """

    def kernel(a: Array, b: Array) -> Array:
        y = ufunc(a, b)
        return y if isinstance(y, np.ndarray) else np.asarray(y)

    def make(spec: KernelSpec) -> Kernel:
        positions = sorted(spec.reusable & {0, 1}) if in_place else []
        if not positions:
            return ufunc if never_scalar(spec) else kernel

        def writing(*inputs: Array) -> Array:
            for position in positions:
                target, other = inputs[position], inputs[1 - position]
                if target.size < IN_PLACE_SIZE or not target.flags.writeable:
                    continue
                # The result must have the dtype and shape of the target.
                if target.dtype == other.dtype and (
                    target.shape == other.shape
                    or np.broadcast(target, other).shape == target.shape
                ):
                    return ufunc(*inputs, out=target)  # type: ignore[no-any-return]
            return kernel(*inputs)

        return writing

    return served(make)


def variadic(ufunc: np.ufunc) -> Factory:
    """Return a factory of kernels that fold ``ufunc`` over one or more inputs."""
    pairwise = binary(ufunc)

    def kernel(*inputs: Array) -> Array:
        if len(inputs) == 1:
            return np.copy(inputs[0])
        return np.asarray(functools.reduce(ufunc, inputs))

    return served(lambda spec: pairwise(spec) if len(spec.present) == 2 else kernel)


def _mean(*inputs: Array) -> Array:
    total = functools.reduce(np.add, inputs)
    return np.asarray(np.divide(total, np.asarray(len(inputs), dtype=total.dtype)))


def is_integer(x: Array) -> bool:
    """Return whether ``x`` holds integers of a numpy dtype, signed or not."""
    return x.dtype.kind in "iu"


def _refuse_zero(divisor: Array) -> None:
    if not divisor.all():
        raise ZeroDivisionError("an integer is divided by zero, which ONNX does not define")


def truncating_divide(a: Array, b: Array) -> Any:
    """Return integer ``a / b`` rounded toward zero, as ONNX Div does, unlike ``//``.

    Args:
        a: Dividends of an integer dtype.
        b: Divisors of the same dtype, broadcast with ``a``.

    Raises:
        ZeroDivisionError: A divisor is zero.
    """
    _refuse_zero(b)
    if a.dtype.kind == "u":
        return np.floor_divide(a, b)
    # a - fmod(a, b) is a multiple of b and no larger than a, so floor has nothing to round
    return np.floor_divide(np.subtract(a, np.fmod(a, b)), b)


def _div(spec: KernelSpec) -> Kernel:
    divide = binary(np.divide)(spec)

    def kernel(a: Array, b: Array) -> Array:
        if is_integer(a):
            return np.asarray(truncating_divide(a, b))
        return divide(a, b)  # type: ignore[no-any-return]

    return kernel


def _mod(spec: KernelSpec) -> Kernel:
    ufunc = np.fmod if spec.choice("fmod", 0, (0, 1)) else np.remainder
    remainder = binary(ufunc)(replace(spec, attributes={}))

    def kernel(a: Array, b: Array) -> Array:
        if is_integer(b):
            _refuse_zero(b)
        return remainder(a, b)  # type: ignore[no-any-return]

    return kernel


def _pow(spec: KernelSpec) -> Kernel:
    exponent = spec.constant(1)
    if exponent is not None and exponent.ndim == 0 and exponent == 2:
        square = unary(np.square)(spec)
        return lambda x, _: square(x)

    def kernel(x: Array, y: Array) -> Array:
        if is_integer(x) and is_integer(y):
            if y.size and y.min() < 0:
                raise ValueError(
                    "an integer is raised to a negative power, which has no integer result"
                )
            # numpy has no common integer dtype for uint64 and signed ones: it takes float64
            common = np.uint64 if x.dtype == np.uint64 else np.int64
            return np.asarray(np.power(x, y.astype(common)).astype(x.dtype, copy=False))
        if x.dtype in SHORT_FLOATS:
            y = y.astype(np.float32)
        return np.asarray(np.power(widened(x), y).astype(x.dtype, copy=False))

    return kernel


def _clip(spec: KernelSpec) -> Kernel:
    has_low, has_high = spec.has_input(1), spec.has_input(2)
    if not has_low and not has_high:
        return lambda x, *_: x.copy()
    reuse = 0 in spec.reusable
    if not (has_low and has_high):
        # The bound loses its shape, which may not tell that of the result.
        bounded = binary(np.maximum if has_low else np.minimum)(replace(spec, constants=()))
        return lambda x, *bounds: bounded(x, _scalar(bounds[0 if has_low else 1]))

    def kernel(x: Array, low: Array, high: Array) -> Array:
        if x.ndim == 0:
            return np.asarray(np.minimum(np.maximum(x, _scalar(low)), _scalar(high)))
        out = x if reuse and x.flags.writeable else np.empty_like(x)
        if x.size >= IN_PLACE_SIZE:
            # slower to call, but one pass over memory instead of two
            return np.clip(x, _scalar(low), _scalar(high), out=out)
        np.maximum(x, low if low.ndim == 0 else _scalar(low), out=out)
        # the upper bound last: it wins where the bounds are crossed
        np.minimum(out, high if high.ndim == 0 else _scalar(high), out=out)
        return out

    return kernel


def _scalar(bound: Array) -> Array:
    return bound.reshape(())


def erf(x: Array) -> Array:
    """Return the error function of ``x`` in the dtype of ``x``.

    Computed in float64 to within 4e-16 relative: the Taylor polynomial of degree 7 about the
    nearest multiple of 1/64, whose derivatives are the Hermite polynomials times the Gaussian.

    Args:
        x: Array of a floating-point dtype.
    """
    coefficients = _erf_coefficients()
    flat = x.reshape(-1)
    y = np.empty(flat.shape, dtype=x.dtype)
    block = 16384  # the block's temporaries stay in the cache
    for start in range(0, flat.size, block):
        part = flat[start : start + block].astype(np.float64)
        magnitude = np.fmin(np.abs(part), _ERF_LIMIT)
        index = np.rint(magnitude * _ERF_DENSITY).astype(np.intp)
        offset = magnitude - index * (1.0 / _ERF_DENSITY)
        value = coefficients[-1].take(index)
        for row in coefficients[-2::-1]:
            np.multiply(value, offset, out=value)
            np.add(value, row.take(index), out=value)
        np.copysign(value, part, out=value)
        np.copyto(value, part, where=np.isnan(part))
        y[start : start + block] = value
    return y.reshape(x.shape)


_ERF_DENSITY = 64
_ERF_LIMIT = 6.0  # erf(6) is 1 in float64


@functools.cache
def _erf_coefficients() -> Array:
    """Return Taylor coefficients of erf, one row per power, one column per centre."""
    degree = 7
    centres = np.arange(int(_ERF_LIMIT) * _ERF_DENSITY + 1, dtype=np.float64) / _ERF_DENSITY
    hermite = [np.ones_like(centres), 2.0 * centres]
    for n in range(1, degree - 1):
        hermite.append(2.0 * centres * hermite[n] - 2.0 * n * hermite[n - 1])
    slope = 2.0 / math.sqrt(math.pi) * np.exp(-centres * centres)
    rows = [np.array([math.erf(c) for c in centres.tolist()], dtype=np.float64)]
    rows.extend(
        (-1.0) ** n * slope * hermite[n] / math.factorial(n + 1) for n in range(degree)
    )
    return np.stack(rows)


def onnx_dtype(spec: KernelSpec, code: int) -> np.dtype[Any]:
    """Return the numpy dtype of an ONNX element type.

    Args:
        spec: The node that names the type, for the message.
        code: A ``TensorProto.DataType``.

    Raises:
        Unserved: The type is text, or unknown.
    """
    try:
        dtype = np.dtype(onnx_ir.DataType(code).numpy())
    except (ValueError, TypeError) as error:
        raise spec.unserved(f"names unknown type {code}") from error
    if dtype.kind in "OSU":
        raise spec.unserved("makes text")
    return dtype


def _castable(dtype: np.dtype[Any]) -> bool:
    # numpy offers only one of the roundings that ONNX knows for float8e8m0
    return dtype.kind not in "OSU" and dtype != np.dtype(ml_dtypes.float8_e8m0fnu)


def _cast_array(x: Array, dtype: np.dtype[Any], saturates: bool) -> Array:
    if x.dtype.kind in "OSU":
        raise TypeError(f"text cannot be cast to {dtype}")
    if not saturates:
        return x.astype(dtype, copy=False)
    wide = x if x.dtype in (np.float16, np.float32, np.float64) else x.astype(np.float64)
    bound = np.asarray(FLOAT8_LIMITS[dtype], dtype=wide.dtype)
    return np.asarray(np.minimum(np.maximum(wide, -bound), bound)).astype(dtype)


def _cast_to(dtype: np.dtype[Any], spec: KernelSpec) -> Kernel:
    if not _castable(dtype):
        raise spec.unserved(f"makes {dtype}")
    saturates = bool(spec.attr("saturate", 1)) and dtype in FLOAT8_LIMITS
    return lambda x, *_: _cast_array(x, dtype, saturates)


def _cast_like(spec: KernelSpec) -> Kernel:
    like = spec.constant(1)
    if like is not None:
        return _cast_to(like.dtype, spec)
    saturate = bool(spec.attr("saturate", 1))

    def kernel(x: Array, target: Array) -> Array:
        dtype = target.dtype
        if not _castable(dtype):
            raise TypeError(f"a cast to {dtype} is not implemented")
        return _cast_array(x, dtype, saturate and dtype in FLOAT8_LIMITS)

    return kernel


_NARROW = frozenset({"int2", "uint2", "int4", "uint4", "float4_e2m1fn"})
"""Types that numpy keeps in a whole byte each, so that a view shows more than their bits."""


def _bit_cast(spec: KernelSpec) -> Kernel:
    dtype = onnx_dtype(spec, spec.attr("to", 0))
    if dtype.name in _NARROW:
        raise spec.unserved(f"makes {dtype}")

    def kernel(x: Array) -> Array:
        if x.dtype.itemsize != dtype.itemsize or x.dtype.name in _NARROW:
            raise TypeError(f"the bits of {x.dtype} do not make {dtype}")
        return x.view(dtype)

    return kernel


def _dropout(spec: KernelSpec) -> Kernel:
    training = spec.constant(2)
    if spec.has_input(2) and (training is None or bool(training.any())):
        raise spec.unserved("may run in training mode, which is random")
    if spec.num_outputs == 1:
        return lambda x, *_: x
    return lambda x, *_: (x, np.ones(x.shape, dtype=np.bool_))


def _is_inf(spec: KernelSpec) -> Kernel:
    negative = bool(spec.attr("detect_negative", 1))
    positive = bool(spec.attr("detect_positive", 1))
    if negative and positive:
        return unary(np.isinf, in_place=False)(replace(spec, attributes={}))
    if not negative and not positive:
        return lambda x: np.zeros(x.shape, dtype=np.bool_)
    side = np.less if negative else np.greater
    return lambda x: np.asarray(np.isinf(x) & side(x, np.zeros((), dtype=x.dtype)))


_SHIFTS = {"LEFT": np.left_shift, "RIGHT": np.right_shift}

_UNARY = {
    "Abs": np.absolute,
    "Acos": np.arccos,
    "Acosh": np.arccosh,
    "Asin": np.arcsin,
    "Asinh": np.arcsinh,
    "Atan": np.arctan,
    "Atanh": np.arctanh,
    "BitwiseNot": np.bitwise_not,
    "Ceil": np.ceil,
    "Cos": np.cos,
    "Cosh": np.cosh,
    "Exp": np.exp,
    "Floor": np.floor,
    "Log": np.log,
    "Neg": np.negative,
    "Reciprocal": np.reciprocal,
    "Round": np.rint,
    "Sign": np.sign,
    "Sin": np.sin,
    "Sinh": np.sinh,
    "Sqrt": np.sqrt,
    "Tan": np.tan,
}

_BINARY = {
    "Add": np.add,
    "BitwiseAnd": np.bitwise_and,
    "BitwiseOr": np.bitwise_or,
    "BitwiseXor": np.bitwise_xor,
    "Mul": np.multiply,
    "Sub": np.subtract,
}

KERNELS: KernelTable = {
    **{("", op): unary(ufunc) for op, ufunc in _UNARY.items()},
    **{("", op): binary(ufunc) for op, ufunc in _BINARY.items()},
    ("", "BitCast"): served(_bit_cast, "to"),
    ("", "BitShift"): served(
        lambda spec: binary(_SHIFTS[spec.choice("direction", None, _SHIFTS)])(
            replace(spec, attributes={})
        ),
        "direction",
    ),
    ("", "Cast"): served(
        lambda spec: _cast_to(onnx_dtype(spec, spec.attr("to", 0)), spec),
        *("to", "saturate", "round_mode"),
    ),
    ("", "CastLike"): served(_cast_like, "saturate", "round_mode"),
    ("", "Clip"): served(_clip),
    ("", "Div"): served(_div),
    ("", "Dropout"): served(_dropout, "seed"),
    ("", "Erf"): stateless(erf),
    ("", "Identity"): stateless(lambda x: x),
    ("", "IsInf"): served(_is_inf, "detect_negative", "detect_positive"),
    ("", "IsNaN"): unary(np.isnan, in_place=False),
    ("", "Max"): variadic(np.maximum),
    ("", "Mean"): stateless(_mean),
    ("", "Min"): variadic(np.minimum),
    ("", "Mod"): served(_mod, "fmod"),
    ("", "Pow"): served(_pow),
    ("", "Sum"): variadic(np.add),
}
