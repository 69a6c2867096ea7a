"""Numpy kernels that fold, rank or accumulate along axes."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from qonnx_hub.executor.kernels._numbers import widened
from qonnx_hub.executor.kernels.elementwise import is_integer, served, truncating_divide
from qonnx_hub.executor.kernels.shape import along, element_index, with_axes
from qonnx_hub.executor.kernels.spec import Array, Factory, Kernel, KernelSpec, KernelTable

Axes = tuple[int, ...] | None
"""Axes to fold; ``None`` for all of them, empty for none."""

Fold = Callable[[Array, Axes, bool], Any]
"""(data, axes, keepdims) -> result, possibly a numpy scalar."""


def reduction(fold: Fold, *, widen: bool) -> Factory:
    """Return a factory of Reduce kernels.

    Args:
        fold: Computes the reduction for given axes.
        widen: Whether float16 and bfloat16 are computed in float32 and rounded once at the
            end, because a sum in so few bits loses most of its terms.
    """

    def fold_array(x: Array, axes: Axes, keepdims: bool) -> Array:
        dtype = x.dtype
        y = np.asarray(fold(widened(x) if widen else x, axes, keepdims))
        return y if y.dtype == dtype else y.astype(dtype)

    def make(spec: KernelSpec) -> Kernel:
        keepdims = bool(spec.attr("keepdims", 1))
        empty: Axes = () if spec.attr("noop_with_empty_axes", 0) else None
        return with_axes(spec, lambda x, axes: fold_array(x, axes or empty, keepdims))

    return served(make, "axes", "keepdims", "noop_with_empty_axes")


def _total(reduce: Callable[..., Any]) -> Fold:
    """Return the fold with a ufunc's ``reduce``, in the dtype of the data."""
    return lambda x, axes, keepdims: reduce(x, axis=axes, keepdims=keepdims, dtype=x.dtype)


_sum = _total(np.add.reduce)


def _mean(x: Array, axes: Axes, keepdims: bool) -> Any:
    total = np.asarray(_sum(x, axes, keepdims))
    count = np.asarray(x.size // total.size if total.size else 1, dtype=x.dtype)
    return truncating_divide(total, count) if is_integer(x) else np.divide(total, count)


def _log_sum_exp(x: Array, axes: Axes, keepdims: bool) -> Any:
    x = _as_real(x)
    peak = np.asarray(np.maximum.reduce(x, axis=axes, keepdims=True, initial=-np.inf))
    # inf - inf would be NaN; without a finite peak there is nothing to keep from overflowing
    peak = np.where(np.isfinite(peak), peak, np.zeros((), dtype=x.dtype))
    result = np.log(_sum(np.exp(x - peak), axes, True)) + peak
    return result if keepdims or axes == () else result.squeeze(axes)


def _as_real(x: Array) -> Array:
    return x.astype(np.float64) if is_integer(x) else x


def _best(reduce: Callable[..., Any], sign: int) -> Fold:
    """Return the fold to the smallest (``sign`` 1) or largest (``sign`` -1) value.

    Nothing folds to the value of that sign that is farthest from zero.
    """

    def fold(x: Array, axes: Axes, keepdims: bool) -> Any:
        if x.size:
            return reduce(x, axis=axes, keepdims=keepdims)
        farthest: Any = x.dtype.type(sign * np.inf) if x.dtype.kind not in "biu" else sign > 0
        if is_integer(x):
            farthest = np.iinfo(x.dtype).max if sign > 0 else np.iinfo(x.dtype).min
        return reduce(x, axis=axes, keepdims=keepdims, initial=farthest)

    return fold


def _arg(method: str) -> Factory:
    def make(spec: KernelSpec) -> Kernel:
        axis, keepdims = spec.attr("axis", 0), bool(spec.attr("keepdims", 1))
        find = operator.methodcaller(method, axis=axis, keepdims=keepdims)
        if not spec.attr("select_last_index", 0):
            return lambda x: np.asarray(find(x), dtype=np.int64)

        def kernel(x: Array) -> Array:
            from_end = find(np.flip(x, axis))
            return np.asarray(x.shape[axis] - 1 - from_end, dtype=np.int64)

        return kernel

    return served(make, "axis", "keepdims", "select_last_index")


def _accumulation(ufunc: np.ufunc, start: int) -> Factory:
    def make(spec: KernelSpec) -> Kernel:
        exclusive = bool(spec.attr("exclusive", 0))
        step = -1 if spec.attr("reverse", 0) else 1

        def kernel(x: Array, axis_input: Array) -> Array:
            axis = range(x.ndim)[int(axis_input.item())]
            direction = along(axis, slice(None, None, step))
            wide = widened(x)[direction]
            running = ufunc.accumulate(wide, axis=axis, dtype=wide.dtype)
            if exclusive:
                shifted = np.full_like(running, start)
                shifted[along(axis, slice(1, None))] = running[along(axis, slice(None, -1))]
                running = shifted
            return running[direction].astype(x.dtype, copy=False)

        return kernel

    return served(make, "exclusive", "reverse")


def _top_k(spec: KernelSpec) -> Kernel:
    axis = spec.attr("axis", -1)
    largest = bool(spec.attr("largest", 1))
    single = spec.num_outputs == 1

    def kernel(x: Array, count: Array) -> Any:
        k, size = int(count.item()), x.shape[axis]
        if not 0 <= k <= size:
            raise ValueError(f"TopK asks for {k} of {size} elements")
        # ties go to the lower index: stable order, for the largest of the mirrored array
        mirrored = np.flip(x, axis) if largest else x
        order = np.argsort(mirrored, axis=axis, kind="stable")
        if largest:
            order = size - 1 - np.flip(order, axis)
        index = order.take(np.arange(k, dtype=np.intp), axis=axis).astype(np.int64, copy=False)
        values = x[element_index(axis, index)]
        return values if single else (values, index)

    return kernel


_FOLDS: Mapping[str, Fold] = {
    "ReduceL1": lambda x, axes, keepdims: _sum(np.absolute(x), axes, keepdims),
    "ReduceL2": lambda x, axes, keepdims: np.sqrt(
        _sum(np.square(_as_real(x)), axes, keepdims)
    ),
    "ReduceLogSum": lambda x, axes, keepdims: np.log(_sum(_as_real(x), axes, keepdims)),
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceMean": _mean,
    "ReduceProd": _total(np.multiply.reduce),
    "ReduceSum": _sum,
    "ReduceSumSquare": lambda x, axes, keepdims: _sum(np.square(x), axes, keepdims),
}
"""Folds that short floats are widened for."""

KERNELS: KernelTable = {
    **{("", op): reduction(fold, widen=True) for op, fold in _FOLDS.items()},
    ("", "ArgMax"): _arg("argmax"),
    ("", "ArgMin"): _arg("argmin"),
    ("", "CumProd"): _accumulation(np.multiply, 1),
    ("", "CumSum"): _accumulation(np.add, 0),
    ("", "ReduceMax"): reduction(_best(np.maximum.reduce, -1), widen=False),
    ("", "ReduceMin"): reduction(_best(np.minimum.reduce, 1), widen=False),
    ("", "TopK"): served(_top_k, "axis", "largest", "sorted"),
}
