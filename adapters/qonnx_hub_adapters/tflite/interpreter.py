"""A net run code for code, as TFLite's reference kernels do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from qonnx_hub_adapters.tflite.net import TfliteNet
from qonnx_hub_adapters.tflite.operators import OPERATORS
from qonnx_hub_ir.errors import ExecutionError
from qonnx_hub_ir.quantizers import Array


def run_net(net: TfliteNet, feeds: Mapping[str, Array]) -> dict[int, Array]:
    """Return every tensor of one run, by its number; variables start at the code of zero.

    Args:
        net: The net.
        feeds: Name of an input -> its numbers.

    Raises:
        ExecutionError: An operation cannot take what it is given.

    Example:
        >>> run_net(net, {"x": codes})[net.outputs[0]]
    """
    values: dict[int, Array] = {
        i: t.data for i, t in enumerate(net.tensors) if t.data is not None
    }
    for i, tensor in enumerate(net.tensors):
        if tensor.is_variable:
            values[i] = np.full(tensor.shape, tensor.zero, dtype=tensor.dtype)
    values |= {
        i: np.asarray(feeds[n]) for i, n in zip(net.inputs, net.input_names, strict=True)
    }
    for index, operation in enumerate(net.operations):
        call = net.call(operation)
        given: list[Any] = [None if i < 0 else values[i] for i in operation.inputs]
        kernel = OPERATORS[operation.name].kernel(call)
        try:
            made = () if kernel is None else kernel(call, *given)
        except (IndexError, ValueError, TypeError) as error:
            shapes = [None if x is None else x.shape for x in given]
            raise ExecutionError(
                f"operation {index}, {operation.name} (tensor '{call.output.name}'): inputs "
                f"of shapes {shapes}: {error}"
            ) from error
        results = made if isinstance(made, tuple) else (made,)
        values |= dict(zip(operation.outputs, results, strict=True))
    return values
