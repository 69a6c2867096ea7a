"""Numpy kernel of QONNX's Im2Col: windows of (N, H, W, C) images as rows."""

from __future__ import annotations

import numpy as np

from qonnx_hub.executor.kernels.elementwise import served
from qonnx_hub.executor.kernels.spec import Array, Kernel, KernelSpec, KernelTable
from qonnx_hub_ir import dialect
from qonnx_hub_ir.lowering.im2col import IM2COL, SIGNATURE, Windows


def _im2col(spec: KernelSpec) -> Kernel:
    try:
        windows = Windows.of(spec.attributes)
    except ValueError as error:
        raise spec.unserved(f"{error}") from error
    top, left, bottom, right = windows.pads

    def kernel(x: Array) -> Array:
        if x.ndim != 4:
            raise ValueError(f"Im2Col '{spec.name}' reads (N, H, W, C), not {x.shape}")
        rows, columns = windows.size(x.shape[1], 0), windows.size(x.shape[2], 1)
        if any(windows.pads):
            around = ((0, 0), (top, bottom), (left, right), (0, 0))
            x = np.pad(x, around, constant_values=windows.pad_value)
        shape = (len(x), rows, columns, *windows.kernel, x.shape[3])
        along = (1, 2)
        steps = [x.strides[axis] * windows.stride[axis - 1] for axis in along]
        taps = [x.strides[axis] * windows.dilations[axis - 1] for axis in along]
        strides = (x.strides[0], *steps, *taps, x.strides[3])
        view = np.lib.stride_tricks.as_strided(x, shape, strides, writeable=False)
        return view.reshape(len(x), rows, columns, -1)

    return kernel


KERNELS: KernelTable = {
    (dialect.DOMAIN, IM2COL): served(_im2col, *sorted(SIGNATURE.attributes)),
}
