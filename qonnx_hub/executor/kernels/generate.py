"""Numpy kernels that make tensors out of attributes, shapes and bounds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qonnx_hub.executor.kernels.elementwise import onnx_dtype, served
from qonnx_hub.executor.kernels.spec import Array, Kernel, KernelSpec, KernelTable

_CONSTANT_FORMS: dict[str, Any] = {
    "value": None,  # a tensor carries its own dtype
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
    "value_string": np.object_,
    "value_strings": np.object_,
}


def _constant(spec: KernelSpec) -> Kernel:
    if len(spec.attributes) != 1:
        raise spec.unserved(f"has {sorted(spec.attributes)}, not one value")
    ((form, given),) = spec.attributes.items()
    value = np.asarray(given, dtype=_CONSTANT_FORMS[form]).view()
    # every run returns this array: nobody may write into it
    value.flags.writeable = False
    return lambda: value


def _constant_of_shape(spec: KernelSpec) -> Kernel:
    fill = np.asarray(spec.attr("value", np.zeros(1, dtype=np.float32)))
    if fill.size != 1:
        raise spec.unserved(f"has {fill.size} values")
    value = fill.reshape(())
    return lambda shape: np.full(tuple(shape.tolist()), value, dtype=value.dtype)


def _range(spec: KernelSpec) -> Kernel:
    spec.choice("stash_type", 1, (1,))

    def kernel(start: Array, limit: Array, delta: Array) -> Array:
        dtype = start.dtype
        first, last, step = start.item(), limit.item(), delta.item()
        if dtype.kind in "iu":
            count = max(-((first - last) // step), 0)
            values = np.arange(count, dtype=np.int64) * step + first
            return np.asarray(values, dtype=dtype)
        # ml_dtypes scalars stay as they are in item(); the count is exact in float64
        count = max(math.ceil((float(last) - float(first)) / float(step)), 0)
        wide = np.float64 if dtype == np.float64 else np.float32
        index = np.arange(count, dtype=wide)
        return (start.astype(wide) + index * delta.astype(wide)).astype(dtype, copy=False)

    return kernel


def _eye_like(spec: KernelSpec) -> Kernel:
    code, diagonal = spec.attr("dtype"), spec.attr("k", 0)
    fixed = None if code is None else onnx_dtype(spec, code)

    def kernel(x: Array) -> Array:
        rows, columns = x.shape
        return np.eye(rows, columns, k=diagonal, dtype=fixed or x.dtype)

    return kernel


KERNELS: KernelTable = {
    ("", "Constant"): served(_constant, *_CONSTANT_FORMS),
    ("", "ConstantOfShape"): served(_constant_of_shape, "value"),
    ("", "EyeLike"): served(_eye_like, "dtype", "k"),
    ("", "Range"): served(_range, "stash_type"),
}
