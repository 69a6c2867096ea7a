"""TFLite's operators on codes, as its reference kernels compute them.

What they compute is in :mod:`qonnx_hub_adapters.tflite.kernels`; here a node becomes a call.
"""

from __future__ import annotations

from qonnx_hub.executor.kernels.spec import Kernel, KernelSpec, KernelTable
from qonnx_hub_adapters.tflite.nodes import call_of
from qonnx_hub_adapters.tflite.operators import OPERATORS
from qonnx_hub_ir import dialect


def _kernel(spec: KernelSpec) -> Kernel:
    if "tensor_types" not in spec.attributes:
        raise spec.unserved("does not say the types of its tensors")
    call = call_of(spec.op_type, spec.attributes, spec.constants)
    kernel = OPERATORS[spec.op_type].kernel(call)
    if kernel is None:
        raise spec.unserved(f"makes {call.output.type}")
    # graphs drop inputs at the end that are left out
    absent = (None,) * (len(call.inputs) - len(spec.present))
    return lambda *given: kernel(call, *given, *absent)


KERNELS: KernelTable = {(dialect.TFLITE_DOMAIN, name): _kernel for name in OPERATORS}
