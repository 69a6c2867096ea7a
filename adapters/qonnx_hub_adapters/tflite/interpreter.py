"""A net run code for code, as TFLite's reference kernels do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
        except (ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:
            shapes = [None if x is None else x.shape for x in given]
            raise ExecutionError(
                f"operation {index}, {operation.name} (tensor '{call.output.name}'): inputs "
                f"of shapes {shapes}: {error}"
            ) from error
        results = made if isinstance(made, tuple) else (made,)
        values |= dict(zip(operation.outputs, results, strict=True))
    return values


def run_samples(net: TfliteNet, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Return the outputs by name for samples behind each other, one file batch at a time.

    Args:
        net: The net.
        feeds: Name of an input -> its numbers, for any number of the file's own batch.

    Raises:
        ExecutionError: As in :func:`run_net`.
    """
    runs = [run_net(net, part) for part in parts_of_runs(net, feeds)]
    named = zip(net.outputs, net.output_names, strict=True)
    return {name: joined([run[i] for run in runs]) for i, name in named}


def parts_of_runs(net: TfliteNet, feeds: Mapping[str, Array]) -> Iterator[Mapping[str, Array]]:
    """Yield the feeds of each run: samples one file batch at a time, where all share it."""
    shapes = [net.tensors[i].shape for i in net.inputs]
    units = {shape[0] if shape else 0 for shape in shapes}
    counts = {np.shape(feeds[n])[0] if np.ndim(feeds[n]) else 0 for n in net.input_names}
    unit, count = min(units, default=0), min(counts, default=0)
    if len(units) > 1 or len(counts) > 1 or unit < 1 or count <= unit or count % unit:
        yield feeds
        return
    for start in range(0, count, unit):
        yield {name: x[start : start + unit] for name, x in feeds.items()}


def joined(parts: Sequence[Array]) -> Array:
    """Return the outputs of runs behind each other."""
    if len(parts) == 1 or not parts[0].ndim:
        return parts[0]
    return np.concatenate(parts)
