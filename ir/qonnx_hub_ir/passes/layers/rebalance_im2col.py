"""Columns of one-channel images as channels, in front of Im2Col."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir
from onnx_ir import Model, Node
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.queries import attribute, dims
from qonnx_hub_ir.graph.rewriting import rewrite_nodes
from qonnx_hub_ir.lowering.im2col import Windows, is_im2col, problem_of


@dataclass(frozen=True)
class RebalanceIm2col(InPlacePass):
    """Take neighbouring columns of an image of one channel as channels.

    Before -> after (``channels=7``)::

        y = Im2Col{kernel_size=[4, 28], stride=[4, 28]}(x[1, 28, 28, 1])
        y = Im2Col{kernel_size=[4, 4], stride=[4, 4]}(Reshape(x, [0, 0, 4, 7]))

    The same numbers come out, in the same order. Fires on windows that lie side by side
    (stride and kernel are one size), without pads, dilations or ``depthwise``, where the
    columns of the image and of the window are multiples of the number.

    Attributes:
        channels: How many columns become channels.

    Raises:
        PassError: A number below 2.
    """

    channels: int

    def requires(self, model: Model) -> None:
        """Refuse numbers that change nothing."""
        if self.channels < 2:
            raise PassError(f"channels is {self.channels}; it must be 2 or more")

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        return PassResult(model, modified=rewrite_nodes(model.graph, self._rewrite))

    def _rewrite(self, node: Node) -> bool:
        sizes = dims(node.inputs[0]) if is_im2col(node) and not problem_of(node) else None
        if sizes is None or len(sizes) != 4 or sizes[3] != 1:
            return False
        windows = Windows.of({name: attr.value for name, attr in node.attributes.items()})
        height, width = sizes[1:3]
        if not isinstance(width, int) or not isinstance(height, int):
            return False
        rows, columns = windows.kernel
        plain = Windows((rows, columns), (rows, columns), pad_value=windows.pad_value)
        if windows != plain or attribute(node, "depthwise", 0):
            return False
        if width % self.channels or columns % self.channels:
            return False
        emit, wide = Emitter(node), width // self.channels
        shape = emit.integers("shape", [0, 0, wide, self.channels])
        image = emit.add("Reshape", [node.inputs[0], shape])
        batch = sizes[0] if isinstance(sizes[0], int) else 1
        image.shape = onnx_ir.Shape([sizes[0], height, wide, self.channels])
        image.type = None if node.inputs[0] is None else node.inputs[0].type
        node.replace_input_with(0, image)
        for name in ("kernel_size", "stride"):
            node.attributes[name] = onnx_ir.AttrInt64s(name, [rows, columns // self.channels])
        told = f"({batch},{height},{wide},{self.channels})"
        node.attributes["input_shape"] = onnx_ir.AttrString("input_shape", told)
        return True
