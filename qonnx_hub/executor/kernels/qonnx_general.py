"""Numpy kernels of QONNX' general domain: pools of integers, binary products, markers."""

from __future__ import annotations

import numpy as np

from qonnx_hub.executor.kernels import matmul, pool
from qonnx_hub.executor.kernels.channels_last import channels_last_kernel
from qonnx_hub.executor.kernels.elementwise import served
from qonnx_hub.executor.kernels.spec import Array, Kernel, KernelSpec, KernelTable
from qonnx_hub_ir import dialect
from qonnx_hub_ir.lowering.qonnx_general import SIGNATURES, shift_of


def _twin(spec: KernelSpec, op_type: str, **attributes: object) -> KernelSpec:
    """Return a standard node of one output on the same inputs."""
    return KernelSpec(
        op_type=op_type,
        version=22,
        name=spec.name,
        attributes=attributes,
        constants=spec.constants,
        present=spec.present,
    )


def _quant_avg_pool(spec: KernelSpec) -> Kernel:
    kernel, stride = spec.whole("kernel", None), spec.whole("stride", None)
    ibits, obits = spec.whole("ibits", None), spec.whole("obits", None)
    last = spec.choice("data_layout", "NCHW", ("NCHW", "NHWC")) == "NHWC"
    window = {"kernel_shape": (kernel, kernel), "strides": (stride, stride)}
    mean = pool.KERNELS["", "AveragePool"](_twin(spec, "AveragePool", **window))
    shift, taps = shift_of(ibits, kernel, obits), kernel * kernel

    def run(x: Array) -> Array:
        # The mean times its taps, as qonnx computes it: exact for integers of few bits.
        sums = np.round(mean(x) * np.float32(taps)).astype(np.int64)
        return np.asarray(np.right_shift(sums, shift), dtype=np.float32)

    return channels_last_kernel(run) if last else run


def _max_pool(spec: KernelSpec) -> Kernel:
    given = {name: value for name, value in spec.attributes.items() if value != ()}
    return channels_last_kernel(pool.KERNELS["", "MaxPool"](_twin(spec, "MaxPool", **given)))


def _xnor_popcount(spec: KernelSpec) -> Kernel:
    product = matmul.KERNELS["", "MatMul"](
        KernelSpec("MatMul", version=22, name=spec.name, present=(True, True))
    )

    def run(left: Array, weight: Array) -> Array:
        one, two = np.float32(1), np.float32(2)
        found = product(two * left - one, two * weight - one)
        counts = (found + np.float32(left.shape[-1])) * np.float32(0.5)
        return np.asarray(counts, dtype=np.float32)

    return run


def _named(op_type: str) -> tuple[str, ...]:
    return tuple(sorted(SIGNATURES[op_type].attributes))


KERNELS: KernelTable = {
    (dialect.DOMAIN, "DebugMarker"): served(lambda spec: lambda x: x, *_named("DebugMarker")),
    (dialect.DOMAIN, "MaxPoolNHWC"): served(_max_pool, *_named("MaxPoolNHWC")),
    (dialect.DOMAIN, "QuantAvgPool2d"): served(_quant_avg_pool, *_named("QuantAvgPool2d")),
    (dialect.DOMAIN, "XnorPopcountMatMul"): served(_xnor_popcount),
}
