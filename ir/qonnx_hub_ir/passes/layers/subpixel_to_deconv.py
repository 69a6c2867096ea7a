"""A convolution whose channels become pixels, as a transposed convolution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx_ir import Model, Node
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir.effects import Effect
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.constants import shape_of_constant, squeezed
from qonnx_hub_ir.graph.queries import attribute, input_of, is_standard, only_reader
from qonnx_hub_ir.graph.rearrange import Rearranger, rearrange_at
from qonnx_hub_ir.passes.layers.deconvolutions import PlainConv, image_size, plain_conv
from qonnx_hub_ir.quantizers import Array


@dataclass(frozen=True)
class SubpixelToDeconv(InPlacePass):
    """Replace a Conv and the DepthToSpace behind it by one ConvTranspose.

    Before -> after (blocks of 2)::

        y = DepthToSpace{2}(Conv(x, w[4 * O, C, 3, 3]))
        y = ConvTranspose{strides=2}(x, w[C, O, 6, 6])

    Each weight keeps its value and changes its place, scales of its quantizer with it, in
    either order of channels (DCR, CRD); sums are added in another order. Does not fire on a
    Conv with a bias, groups, steps or dilations, of open sizes, or with another reader.
    """

    effect = Effect.ROUNDING

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        found = [node for node in model.graph if _plan(node) is not None]
        return PassResult(model, modified=rearrange_at(model.graph, found, _rewrite))


def _plan(node: Node) -> tuple[Node, PlainConv, int] | None:
    """Return the Conv before a DepthToSpace, what it does, and the size of blocks."""
    source = node.inputs[0] if is_standard(node, "DepthToSpace") else None
    conv = None if source is None else source.producer()
    if source is None or conv is None or not only_reader(source):
        return None
    size, block = image_size(conv), int(attribute(node, "blocksize", 1))
    plain = None if size is None else plain_conv(conv, size)
    if plain is None or input_of(conv, 2) is not None or block < 2:
        return None
    channels = shape_of_constant(conv.inputs[1])[0]  # type: ignore[arg-type]
    return (conv, plain, block) if channels % (block * block) == 0 else None


def _rewrite(node: Node, rearranger: Rearranger) -> None:
    found = _plan(node)
    assert found is not None, "it was chosen so"
    conv, plain, block = found
    weight, is_crd = conv.inputs[1], attribute(node, "mode", "DCR") == "CRD"
    assert weight is not None, "it is constant"
    full = shape_of_constant(weight)

    def turn(array: Array) -> Array:
        whole = np.broadcast_to(array, full)
        made = _spread(whole, block, is_crd=is_crd)
        return made if array.shape == full else squeezed(made)

    kernel = rearranger(weight, turn, ("subpixel", block, is_crd), conv, 4)
    emit = Emitter(node)
    taps = [block * size for size in plain.kernel]
    pads = [block * (plain.kernel[axis % 2] - 1 - pad) for axis, pad in enumerate(plain.pads)]
    made = emit.add(
        "ConvTranspose",
        [conv.inputs[0], kernel],
        node.outputs[0],
        kernel_shape=taps,
        strides=[block, block],
        pads=pads,
        dilations=[1, 1],
        group=1,
    )
    maker, graph = made.producer(), conv.graph
    emit.replace_with(made)
    if maker is not None and graph is not None:
        name = conv.name
        graph.remove(conv, safe=True)
        maker.name = name


def _spread(weight: Array, block: int, *, is_crd: bool) -> Array:
    """Return the weight (O * b * b, C, k, l) as (C, O, k * b, l * b)."""
    total, inner, height, width = weight.shape
    outputs = total // (block * block)
    split = (outputs, block, block) if is_crd else (block, block, outputs)
    parts = weight.reshape(*split, inner, height, width)
    if not is_crd:
        parts = np.moveaxis(parts, 2, 0)
    # (O, p, q, C, k, l): tap t lies at p + b * (k - 1 - t).
    flipped = parts[..., ::-1, ::-1]
    ordered = flipped.transpose(3, 0, 4, 1, 5, 2)
    shape = (inner, outputs, height * block, width * block)
    return np.ascontiguousarray(ordered.reshape(shape))
