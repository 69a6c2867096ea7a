"""Operators that move elements, in standard ONNX: the same nodes for floats and for codes."""

from __future__ import annotations

from typing import Any

import numpy as np

from qonnx_hub_adapters.tflite.graph_writer import StandardGraph
from qonnx_hub_adapters.tflite.kernels.movement import new_shape, slices
from qonnx_hub_adapters.tflite.kernels.pools import nearest
from qonnx_hub_adapters.tflite.net import KernelCall
from qonnx_hub_ir.errors import SourceError
from qonnx_hub_ir.quantizers import Array


def constant_of(call: KernelCall, index: int) -> Array:
    """Return an input that must be constant.

    Raises:
        SourceError: It is computed.
    """
    record = call.tensor(index)
    if record.data is None:
        raise SourceError(
            f"{call.name} (tensor '{call.output.name}'): '{record.name}' must be constant"
        )
    return record.data


def transposed(writer: StandardGraph, x: str, call: KernelCall) -> list[str]:
    """Write TRANSPOSE."""
    return [writer.emit("Transpose", x, perm=[int(i) for i in constant_of(call, 1)])]


def reshaped(writer: StandardGraph, x: str, call: KernelCall) -> list[str]:
    """Write RESHAPE, SQUEEZE, EXPAND_DIMS."""
    shape = list(call.output.shape)
    if call.name == "RESHAPE" and call.has(1) and call.tensor(1).data is not None:
        shape = new_shape(call, call.tensor(1).data)
    return [
        writer.emit("Reshape", x, writer.constant(np.array(shape, dtype=np.int64), "shape"))
    ]


def parts_of(writer: StandardGraph, x: str, call: KernelCall) -> list[str]:
    """Write SPLIT and SPLIT_V."""
    given = constant_of(call, 0 if call.name == "SPLIT" else 2)
    data = call.tensor(1 if call.name == "SPLIT" else 0)
    axis = int(given.reshape(-1)[0]) % len(data.shape)
    sizes = [made.shape[axis] for made in call.outputs]
    count = writer.constant(np.array(sizes, dtype=np.int64), "sizes")
    return writer.emit_many("Split", len(sizes), x, count, axis=axis)


def sliced(writer: StandardGraph, x: str, call: KernelCall) -> list[str]:
    """Write SLICE and STRIDED_SLICE."""
    shape = call.tensor(0).shape
    if call.name == "SLICE":
        begin, size = constant_of(call, 1).tolist(), constant_of(call, 2).tolist()
        spans = [
            slice(b, n if s < 0 else b + s) for b, s, n in zip(begin, size, shape, strict=True)
        ]
    else:
        index = slices(call, *(constant_of(call, i) for i in (1, 2, 3)))
        if any(part is None for part in index):
            raise SourceError(
                f"STRIDED_SLICE (tensor '{call.output.name}'): new axes are not read"
            )
        spans = [
            slice(p, p + 1 if p != -1 else None) if isinstance(p, int) else p for p in index
        ]
    steps = [span.step or 1 for span in spans]
    bounds = [span.indices(n) for span, n in zip(spans, shape, strict=False)]
    ends = [-(2**31) if end < 0 else end for _, end, _ in bounds]
    given = [[b for b, _, _ in bounds], ends, list(range(len(spans))), steps]
    settings = [writer.constant(np.array(n, dtype=np.int64), "slice") for n in given]
    value = writer.emit("Slice", x, *settings)
    if call.name == "STRIDED_SLICE" and call.options.get("shrink_axis_mask"):
        return reshaped(writer, value, call)
    return [value]


def packed(writer: StandardGraph, x: str, call: KernelCall) -> list[str]:
    """Write UNPACK."""
    axis = call.options["axis"] % len(call.tensor(0).shape)
    parts = writer.emit_many(
        "Split",
        len(call.outputs),
        x,
        writer.constant(np.ones(len(call.outputs), dtype=np.int64), "sizes"),
        axis=axis,
    )
    shape = writer.constant(np.array(call.output.shape, dtype=np.int64), "shape")
    return [writer.emit("Reshape", part, shape) for part in parts]


def gathered(writer: StandardGraph, x: str, call: KernelCall) -> list[str]:
    """Write GATHER."""
    index = writer.constant(constant_of(call, 1).astype(np.int64), "index")
    return [writer.emit("Gather", x, index, axis=call.options.get("axis", 0))]


def nearest_rows(writer: StandardGraph, x: str, call: KernelCall) -> list[str]:
    """Write RESIZE_NEAREST_NEIGHBOR: every index is known."""
    size = constant_of(call, 1)
    for i in (0, 1):
        index = nearest(call, call.tensor(0).shape[i + 1], int(size[i]))
        x = writer.emit("Gather", x, writer.constant(index, "index"), axis=i + 1)
    return [x]


def mirrored(writer: StandardGraph, x: str, call: KernelCall) -> str:
    """Write MIRROR_PAD: every index is known."""
    mode: Any = "symmetric" if call.options["mode"] == 1 else "reflect"
    for axis, (before, after) in enumerate(constant_of(call, 1).tolist()):
        if before or after:
            index = np.pad(
                np.arange(call.tensor(0).shape[axis], dtype=np.int64),
                (before, after),
                mode=mode,
            )
            x = writer.emit("Gather", x, writer.constant(index, "index"), axis=axis)
    return x
