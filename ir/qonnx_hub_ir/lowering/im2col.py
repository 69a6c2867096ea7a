"""The operator ``Im2Col`` of QONNX: the windows of an image, one row of a matrix each.

``y[n, i, j] = x[n, i * s + p * d - pad, j * s + q * d - pad, c]`` for p, q of the kernel and
all channels c, flattened in the order (p, q, c): (N, H, W, C) -> (N, rows, columns, taps * C).

Source: qonnx 1.0.0, ``custom_op/general/im2col.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Node

from qonnx_hub_ir.dialect import DOMAIN
from qonnx_hub_ir.lowering.onnxruntime_operators import Signature

IM2COL = "Im2Col"

_REQUIRED = frozenset({"input_shape", "kernel_size", "stride"})

SIGNATURE = Signature(
    1, 1, _REQUIRED | {"depthwise", "dilations", "pad_amount", "pad_value"}, _REQUIRED
)
"""What a node may have."""


def is_im2col(node: Node) -> bool:
    """Return whether the node lays out windows."""
    return node.domain == DOMAIN and node.op_type == IM2COL


@dataclass(frozen=True, slots=True)
class Windows:
    """Where the windows lie.

    Attributes:
        kernel: Taps along height and width.
        stride: From one window to the next, along both.
        dilations: From one tap to the next, along both.
        pads: Pixels added at the top, left, bottom and right.
        pad_value: What they hold.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    pad_value: int = 0

    @classmethod
    def of(cls, attributes: Mapping[str, Any]) -> Windows:
        """Return what the attributes of a node say.

        Raises:
            ValueError: An attribute is missing or has another number of entries.
        """
        if "kernel_size" not in attributes or "stride" not in attributes:
            raise ValueError("needs kernel_size and stride")
        given = {"dilations": (1, 1), "pad_amount": (0, 0, 0, 0), **attributes}
        k, s, d, p = (
            tuple(int(number) for number in given[name])
            for name in ("kernel_size", "stride", "dilations", "pad_amount")
        )
        if (len(k), len(s), len(d), len(p)) != (2, 2, 2, 4):
            raise ValueError(
                "kernel_size, stride and dilations have two entries, pad_amount has four"
            )
        if min(*k, *s, *d) < 1 or min(p) < 0:
            raise ValueError("sizes and steps are at least 1, pads at least 0")
        value = int(given.get("pad_value", 0))
        return cls((k[0], k[1]), (s[0], s[1]), (d[0], d[1]), (p[0], p[1], p[2], p[3]), value)

    def size(self, length: int, axis: int) -> int:
        """Return how many windows lie along an axis, 0 or 1, of that many pixels."""
        padded = length + self.pads[axis] + self.pads[axis + 2]
        reach = self.dilations[axis] * (self.kernel[axis] - 1) + 1
        return (padded - reach) // self.stride[axis] + 1


def problem_of(node: Node) -> str:
    """Return why it cannot be told where a node's windows lie, or an empty string."""
    try:
        Windows.of({name: attr.value for name, attr in node.attributes.items()})
    except ValueError as error:
        return str(error)
    return ""


def stand_in(node: Node) -> None:
    """Replace a node, in a copy made for shape inference, by operators of the same shapes.

    They are a convolution with one output channel per tap and channel, between Transposes; its
    weight is a graph input. A node that breaks a rule, or whose number of channels is not
    known, is left as it is.
    """
    graph, source = node.graph, node.inputs[0] if node.inputs else None
    channels = channels_of(node)
    if not is_im2col(node) or channels is None or source is None:
        return
    if not isinstance(graph, onnx_ir.Graph) or len(node.inputs) != 1 or problem_of(node):
        return
    windows = Windows.of({name: attr.value for name, attr in node.attributes.items()})
    taps = int(np.prod(windows.kernel, dtype=np.int64)) * channels
    weight = onnx_ir.Value(
        name=f"{node.outputs[0].name}_windows",
        type=source.type or onnx_ir.TensorType(onnx_ir.DataType.FLOAT),
        shape=onnx_ir.Shape([taps, channels, *windows.kernel]),
    )
    graph.inputs.append(weight)
    first = _inserted(node, "Transpose", [source], perm=[0, 3, 1, 2])
    conv = _inserted(
        node,
        "Conv",
        [first, weight],
        kernel_shape=list(windows.kernel),
        strides=list(windows.stride),
        dilations=list(windows.dilations),
        pads=list(windows.pads),
    )
    node.attributes.clear()
    node.domain, node.op_type = "", "Transpose"
    node.attributes["perm"] = onnx_ir.AttrInt64s("perm", [0, 2, 3, 1])
    node.replace_input_with(0, conv)


def channels_of(node: Node) -> int | None:
    """Return the channels of what an Im2Col reads, as its attribute states them."""
    stated = node.attributes.get("input_shape")
    if stated is None:
        return None
    last = str(stated.value).strip("() ").rstrip(",").rpartition(",")[2].strip()
    return int(last) if last.isdecimal() else None


def _inserted(
    node: Node, op_type: str, inputs: list[onnx_ir.Value | None], **attributes: Any
) -> onnx_ir.Value:
    fresh = onnx_ir.node(op_type, inputs, attributes)
    fresh.outputs[0].name = f"{node.outputs[0].name}_{op_type}"
    node.prepend(fresh)
    return fresh.outputs[0]
