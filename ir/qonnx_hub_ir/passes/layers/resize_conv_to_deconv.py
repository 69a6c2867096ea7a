"""An image repeated and convolved, as a transposed convolution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx_ir import Model, Node, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.effects import Effect
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.queries import attribute, dims, input_of, only_reader, producer
from qonnx_hub_ir.graph.rewriting import rewrite_nodes
from qonnx_hub_ir.graph.unused import drop_unused
from qonnx_hub_ir.passes.layers.deconvolutions import image_size, plain_conv
from qonnx_hub_ir.quantizers import Array, IntQuant, single_value
from qonnx_hub_ir.semantics import quantize


@dataclass(frozen=True)
class ResizeConvToDeconv(InPlacePass):
    """Replace a Resize that repeats pixels, and the Conv behind it, by one ConvTranspose.

    Before -> after (twice the size)::

        y = Conv(Resize{nearest}(x, 2), Quant(w[O, C, 3, 3], s, 0, 4))
        y = ConvTranspose{strides=2}(x, Quant(sums[C, O, 4, 4], s, 0, 6))

    Taps that read the same pixel are added, after quantizing: the sums lie on the same grid,
    and the quantizer that says so has as many bits more as they need. Sums over channels are
    added in another order. Does not fire on a Resize that does not repeat each pixel as often
    along both axes, on a Conv with groups, steps or dilations, on zero points, or where the
    resized image has another reader.
    """

    effect = Effect.ROUNDING

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        modified = rewrite_nodes(model.graph, _rewrite, bodies=False)
        if modified:
            drop_unused(model)
        return PassResult(model, modified=modified)


def _rewrite(node: Node) -> bool:
    source = node.inputs[0] if node.inputs and node.op_type == "Conv" else None
    resize = producer(source)
    factor = None if resize is None else _repeats(resize)
    size, weight = image_size(node), input_of(node, 1)
    plain = None if size is None else plain_conv(node, size)
    if resize is None or factor is None or plain is None or weight is None:
        return False
    if source is None or not only_reader(source):
        return False
    emit = Emitter(node)
    kernel = _summed(emit, weight, factor)
    if kernel is None:
        return False
    pads = [plain.kernel[axis % 2] - 1 - pad for axis, pad in enumerate(plain.pads)]
    taps = [size + factor - 1 for size in plain.kernel]
    made = emit.add(
        "ConvTranspose",
        [resize.inputs[0], kernel, *node.inputs[2:]],
        node.outputs[0],
        kernel_shape=taps,
        strides=[factor, factor],
        pads=pads,
        dilations=[1, 1],
        group=1,
    )
    maker, name, graph = made.producer(), node.name, resize.graph
    emit.replace_with(made)
    if graph is not None:
        graph.remove(resize, safe=True)
    if maker is not None:
        maker.name = name
    return True


def _repeats(node: Node) -> int | None:
    """Return how often a node repeats each pixel along both axes; ``None`` for other nodes."""
    if not operators.resizes(node) or attribute(node, "mode", "nearest") != "nearest":
        return None
    before, after = dims(node.inputs[0]), dims(node.outputs[0])
    if before is None or after is None or len(before) != 4 or len(after) != 4:
        return None
    if before[:2] != after[:2] or not all(
        isinstance(n, int) for n in (*before[2:], *after[2:])
    ):
        return None
    # Which pixel is nearest depends on two attributes: it is asked, not derived.
    (h, w), (tall, wide) = before[2:], after[2:]
    assert isinstance(h, int), "asked above"
    assert isinstance(tall, int), "asked above"
    factor = tall // h
    if factor < 2 or (tall, wide) != (h * factor, w * factor):  # type: ignore[operator]
        return None
    sized = node.op_type == "Resize" and input_of(node, 3) is not None
    if not sized:
        # Sizes are rounded down: the scales themselves decide which pixel is taken.
        place = 2 if len(node.inputs) > 2 else 1
        scales = dialect.constant_value(input_of(node, place))
        given = attribute(node, "scales", None) if scales is None else scales
        if given is None or not set(np.ravel(given).tolist()) <= {1, factor}:
            return None
    return factor if _takes_the_pixel_before(node) else None


def _takes_the_pixel_before(node: Node) -> bool:
    """Return whether pixel ``i`` comes from pixel ``i // factor``."""
    if node.op_type == "Upsample":
        return True
    transform = attribute(node, "coordinate_transformation_mode", "half_pixel")
    nearest = attribute(node, "nearest_mode", "round_prefer_floor")
    if transform == "asymmetric":
        return bool(nearest == "floor")
    # (i + 0.5) / f - 0.5 lies within half a pixel of i // f, and never on the border.
    return transform == "half_pixel" and nearest in ("round_prefer_floor", "round_prefer_ceil")


def _summed(emit: Emitter, weight: Value, factor: int) -> Value | None:
    """Return the kernel of the transposed convolution, with its quantizer if it had one."""
    known = dialect.constant_value(weight)
    if known is not None:
        return emit.constant("kernel", _sums(known, factor))
    node = producer(weight)
    held = None if node is None else dialect.constant_value(node.inputs[0])
    if node is None or held is None or not dialect.is_quantizer(node):
        return None
    quant = dialect.read_quantizer(node)
    if not isinstance(quant, IntQuant) or quant.scale is None or quant.zero_point is None:
        return None
    bits, scale = single_value(quant.bits), np.asarray(quant.scale, dtype=np.float32)
    per_output = scale.size == 1 or (scale.ndim == 4 and scale.shape[0] == scale.size)
    if bits is None or np.any(quant.zero_point != 0) or not per_output:
        return None
    turned = scale if scale.size == 1 else scale.reshape(-1, 1, 1, 1).transpose(1, 0, 2, 3)
    wide = bits + int(np.ceil(np.log2(factor * factor)))
    fresh = IntQuant(
        scale=turned,
        zero_point=np.zeros((), dtype=np.float32),
        bits=np.asarray(wide, dtype=np.float32),
        signed=quant.signed,
        narrow=False,
        rounding=quant.rounding,
    )
    sums = _sums(quantize(held, quant), factor)
    if not np.array_equal(quantize(sums, fresh), sums):
        return None
    return emit.quantizer(emit.constant("kernel", sums), fresh)


def _sums(weight: Array, factor: int) -> Array:
    """Return the weight (O, C, k, l) as (C, O, k + f - 1, l + f - 1): sums of taps."""
    flipped = weight[..., ::-1, ::-1].transpose(1, 0, 2, 3)
    inner, outputs, height, width = flipped.shape
    shape = (inner, outputs, height + factor - 1, width + factor - 1)
    sums = np.zeros(shape, dtype=np.float64)
    for down in range(factor):
        for right in range(factor):
            sums[:, :, down : down + height, right : right + width] += flipped
    return sums.astype(np.float32)
