"""Windows of a graph's nodes as TFLite pads them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx_ir import Node

from qonnx_hub_adapters.tflite.graph_reader import GraphReader, Unsaid, attributes_of
from qonnx_hub_adapters.tflite.kernels.windows import padding
from qonnx_hub_adapters.tflite.net import SAME, VALID


@dataclass(frozen=True, slots=True)
class _Window:
    """A window as TFLite has it: padded by kind, after a PAD where no kind fits."""

    tensor: int
    padding: int
    stride: tuple[int, int]
    dilation: tuple[int, int]


def window(
    reader: GraphReader,
    node: Node,
    tensor: int,
    size: Sequence[int],
    fill: float | None = None,
) -> _Window:
    """Return the window of a node over a tensor with channels last.

    Args:
        reader: Where to write.
        node: A convolution or pool of two dimensions.
        tensor: What it reads.
        size: Height and width of the window.
        fill: The code that lies outside; that of zero by default.
    """
    given = attributes_of(node)
    if given.get("ceil_mode", 0):
        raise Unsaid("rounds its size up", "pad the input instead")
    stride = tuple(given.get("strides", (1, 1)))
    dilation = tuple(given.get("dilations", (1, 1)))
    shape = reader.net.tensors[tensor].shape
    plans = [padding(SAME, shape[i + 1], size[i], stride[i], dilation[i]) for i in (0, 1)]
    same = (plans[0][1], plans[1][1], plans[0][2], plans[1][2])
    auto = given.get("auto_pad", "NOTSET")
    pads = tuple(given.get("pads", (0, 0, 0, 0)))
    if auto == "SAME_UPPER":
        pads = same
    elif auto not in ("NOTSET", "VALID"):
        raise Unsaid(f"pads by {auto}", "give pads as numbers")
    kind = SAME if pads == same and any(pads) else VALID
    if any(pads) and kind == VALID:
        tensor = padded(
            reader, tensor, ((0, 0), (pads[0], pads[2]), (pads[1], pads[3]), (0, 0)), fill
        )
    return _Window(tensor, kind, (stride[0], stride[1]), (dilation[0], dilation[1]))


def padded(reader: GraphReader, tensor: int, wide: Any, fill: float | None = None) -> int:
    """Return a tensor with codes around it: those of zero by default."""
    net, record = reader.net, reader.net.tensors[tensor]
    shape = [n + a + b for n, (a, b) in zip(record.shape, wide, strict=True)]
    pads = net.constant(np.array(wide, dtype=np.int32))
    if fill is None:
        return net.moved("PAD", tensor, shape, (pads,))
    data = np.array([fill], dtype=record.dtype)
    value = net.tensor(f"{record.name}/outside", record.type, (1,), record.grid, data)
    return net.moved("PADV2", tensor, shape, (pads, value))
