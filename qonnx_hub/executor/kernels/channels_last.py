"""Numpy kernels of the channels-last operators of QONNX, on top of the standard ones.

Inputs and outputs are (N, *size, C); attributes are those of standard ONNX. Arrays are handed
on as transposed views: in a run of channels-last nodes, no copy is made to change the layout.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np

from qonnx_hub.executor.kernels import conv, normalization, pool
from qonnx_hub.executor.kernels.elementwise import served
from qonnx_hub.executor.kernels.spec import (
    Array,
    Factory,
    Kernel,
    KernelSpec,
    KernelTable,
    Unserved,
)

DOMAIN = "qonnx.custom_op.channels_last"


def _first(x: Array) -> Array:
    """Return a view of ``x`` with its last axis moved to position 1."""
    return np.transpose(x, (0, x.ndim - 1, *range(1, x.ndim - 1)))


def _last(y: Array) -> Array:
    """Return a view of ``y`` with its axis 1 moved to the end."""
    return np.transpose(y, (0, *range(2, y.ndim), 1))


def channels_last_kernel(kernel: Kernel) -> Kernel:
    """Return a kernel of one channels-last input from one that takes channels first."""
    return lambda x: _last(kernel(_first(x)))


def _standard(spec: KernelSpec) -> KernelSpec:
    """Return the standard node that computes the same on channels-first arrays.

    Raises:
        Unserved: The node has more than one output.
    """
    if spec.num_outputs != 1:
        raise Unserved(f"channels-last {spec.op_type} '{spec.name}' has several outputs")
    # The domain counts its own versions; all of them mean the operators of current ONNX.
    return replace(spec, domain="", version=22, reusable=frozenset())


def _conv(spec: KernelSpec) -> Kernel:
    weight = spec.constant(1)
    constants = list(spec.constants)
    if weight is not None:
        constants[1] = np.ascontiguousarray(_first(weight))
    kernel = conv.KERNELS["", "Conv"](replace(_standard(spec), constants=tuple(constants)))

    def run(x: Array, w: Array, b: Array | None = None) -> Array:
        return _last(kernel(_first(x), _first(w), b))

    return run


def _pool(op_type: str) -> Factory:
    factory = pool.KERNELS["", op_type]

    return lambda spec: channels_last_kernel(factory(_standard(spec)))


KERNELS: KernelTable = {
    (DOMAIN, "AveragePool"): _pool("AveragePool"),
    (DOMAIN, "BatchNormalization"): served(
        functools.partial(normalization.batch_norm, axis=-1),
        *("epsilon", "momentum", "training_mode"),
    ),
    (DOMAIN, "Conv"): _conv,
    (DOMAIN, "MaxPool"): _pool("MaxPool"),
}
