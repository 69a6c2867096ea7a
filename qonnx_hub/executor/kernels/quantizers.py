"""Kernels of the quantizers, and of thresholds.

The formulas are in :mod:`qonnx_hub_ir.semantics` and :mod:`qonnx_hub_ir.thresholds`.
"""

from __future__ import annotations

import numpy as np

from qonnx_hub.executor.kernels.elementwise import served
from qonnx_hub.executor.kernels.spec import Array, Kernel, KernelSpec, KernelTable
from qonnx_hub_ir import dialect, thresholds
from qonnx_hub_ir.semantics import compile_quantizer


def _quantizer(spec: KernelSpec) -> Kernel:
    known = [spec.constant(index) for index in range(1, len(spec.present))]
    quant = dialect.make_quantizer(spec.op_type, spec.attributes, known, spec.name)
    if any(value is None for value in known):

        def dynamic(x: Array, *values: Array) -> Array:
            # Constants arrive as arguments as well, so that all parameters are at hand.
            complete = dialect.with_parameters(quant, values)
            return np.asarray(compile_quantizer(complete)(x, None))

        return dynamic
    apply = compile_quantizer(quant)
    if 0 in spec.reusable:
        return lambda x, *_: apply(x, x if x.ndim else None)
    return lambda x, *_: np.asarray(apply(x, None))


def _multi_threshold(spec: KernelSpec) -> Kernel:
    scale, bias = float(spec.attr("out_scale", 1.0)), float(spec.attr("out_bias", 0.0))
    layout = str(spec.attr("data_layout", ""))
    return lambda x, steps: thresholds.apply(
        x, steps, thresholds.channel_axis(layout, x.ndim), scale, bias
    )


KERNELS: KernelTable = {
    **{(dialect.DOMAIN, name): _quantizer for name in dialect.QUANTIZERS},
    (dialect.DOMAIN, dialect.THRESHOLDS): served(
        _multi_threshold, *dialect.THRESHOLD_ATTRIBUTES
    ),
}
