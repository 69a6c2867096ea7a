"""Convolutions as matrix products of windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Model, Node, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect
from qonnx_hub_ir.effects import Effect
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.constants import constant_shape, shape_of_constant
from qonnx_hub_ir.graph.permutations import to_first, to_last
from qonnx_hub_ir.graph.queries import attribute, dims
from qonnx_hub_ir.graph.rearrange import Rearranger, rearrange_at
from qonnx_hub_ir.graph.unused import import_used
from qonnx_hub_ir.lowering.im2col import IM2COL, Windows
from qonnx_hub_ir.passes.layers.extract_bias import ExtractBias
from qonnx_hub_ir.passes.layers.window_pads import explicit_pads
from qonnx_hub_ir.quantizers import (
    Array,
    FloatQuant,
    IntQuant,
    integer_bounds,
    is_bipolar,
    single_value,
)


@dataclass(frozen=True)
class LowerConvToMatmul(InPlacePass):
    """Replace two-dimensional convolutions by MatMul, with Im2Col where windows need it.

    Before -> after::

        y = Conv(x[N, C, H, W], Quant(w[O, C, k, k]), b)
        y = Add(Transpose(MatMul(Im2Col(Transpose(x)), Quant(w[k * k * C, O]))), b)

    The form is that of the qonnx package, which FINN reads: Im2Col of domain
    ``qonnx.custom_op.general`` on (N, H, W, C). A 1x1 convolution without pads needs none: it
    is Transpose, MatMul, Transpose in standard operators, with a Slice before where it has
    strides. Channels-last convolutions need no Transpose. Weights of groups become a matrix
    with zeros between the blocks; ``depthwise`` of Im2Col notes where each channel is its own
    group. The bias goes behind, as :class:`ExtractBias` writes it.

    The same products are added in another order: outputs are bit for bit the same where sums
    are exact (integers times power-of-two scales, below 2^24), else they differ by the
    rounding of a float sum.

    Does not fire on convolutions of other ranks, of unknown sizes, of weights that are not
    constant, nor with groups where the weight's quantizer cannot say zero (BipolarQuant, a
    zero point that is fractional or out of range).
    """

    effect = Effect.ROUNDING

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        graph = model.graph
        plans = {node: plan for node in graph if (plan := _plan(node)) is not None}
        if not plans:
            return PassResult(model, modified=False)
        ExtractBias(only=tuple(str(node.name) for node in plans))(model)
        rearrange_at(graph, list(plans), lambda node, r: _lower(node, plans[node], r))
        import_used(model)
        return PassResult(model, modified=True)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is known about a convolution.

    Attributes:
        windows: Where its windows lie.
        size: Height, width and channels of its input.
        outputs: Channels of its output.
        group: Its groups.
        last: Whether its channels are last.
    """

    windows: Windows
    size: tuple[int, int, int]
    outputs: int
    group: int
    last: bool

    @property
    def pointwise(self) -> bool:
        """Return whether a window is one pixel, and all lie on the image."""
        return self.windows.kernel == (1, 1) and not any(self.windows.pads)


def _plan(node: Node) -> _Plan | None:
    """Return what a convolution does, if it can be lowered."""
    last = node.domain == dialect.CHANNELS_LAST_DOMAIN
    if node.op_type != "Conv" or (node.domain != "" and not last):
        return None
    shape, weight = dims(node.inputs[0]), node.inputs[1]
    known = constant_shape(weight)
    if shape is None or len(shape) != 4 or weight is None or known is None:
        return None
    sizes = shape[1:] if last else (*shape[2:], shape[1])
    height, width, channels = sizes
    if not (isinstance(height, int) and isinstance(width, int) and isinstance(channels, int)):
        return None
    outputs, kernel = known[0], known[1:3] if last else known[2:]
    group = int(attribute(node, "group", 1))
    pads = explicit_pads(node, (height, width), kernel)
    if group != 1 and not _can_say_zero(weight):
        return None
    windows = Windows(
        (kernel[0], kernel[1]),
        _pair(node, "strides"),
        _pair(node, "dilations"),
        (pads[0], pads[1], pads[2], pads[3]),
    )
    return _Plan(windows, (height, width, channels), outputs, group, last)


def _pair(node: Node, name: str) -> tuple[int, int]:
    first, second = attribute(node, name, (1, 1))
    return int(first), int(second)


def _can_say_zero(weight: Value) -> bool:
    """Return whether a weight of zero stays zero behind the quantizer, if there is one.

    Parameters that differ inside a filter are not looked into: they have no value for a zero
    that is put between the groups.
    """
    node = weight.producer()
    if node is None:
        return True
    quant = dialect.read_quantizer(node)
    rank = len(shape_of_constant(weight))
    for values in dialect.parameters(quant):
        if values is None or (values.size > 1 and values.ndim < rank):
            return False
        if values.size > 1 and any(size != 1 for size in values.shape[1:]):
            return False
    if isinstance(quant, FloatQuant):
        return True
    if not isinstance(quant, IntQuant):
        return False
    zero, bits = quant.zero_point, single_value(quant.bits)
    if zero is None or bits is None or is_bipolar(quant):
        return False
    low, high = integer_bounds(bits, signed=quant.signed, narrow=quant.narrow)
    whole = np.asarray(zero == np.rint(zero), dtype=np.bool_)
    return bool(np.all(whole) and np.all(zero >= low) and np.all(zero <= high))


def _matrix(plan: _Plan, array: Array, *, blocks: bool) -> Array:
    """Return a weight, or a parameter of its rank, as (taps * channels, outputs).

    Args:
        plan: The convolution.
        array: Of the weight's axes, each of full length or of length 1.
        blocks: Whether groups become blocks with zeros between them; else a value that all
            elements of a filter share stays one per output.
    """
    if not plan.last:
        array = np.moveaxis(array, 1, 3)
    if plan.group == 1 or not blocks:
        return np.transpose(array.reshape(array.shape[0], -1))
    outputs, kernel, inner = plan.outputs, array.shape[1:3], array.shape[3]
    wide = np.zeros((outputs, *kernel, plan.size[2]), dtype=array.dtype)
    per_group = outputs // plan.group
    for group in range(plan.group):
        rows = slice(group * per_group, (group + 1) * per_group)
        wide[rows, ..., group * inner : (group + 1) * inner] = array[rows]
    return np.transpose(wide.reshape(outputs, -1))


def _weight(node: Node, plan: _Plan, rearranger: Rearranger) -> Value:
    value = node.inputs[1]
    if value is None:
        raise ValueError(f"'{node.name}' has no weight")
    full = shape_of_constant(value)

    def to_matrix(array: Array) -> Array:
        if array.shape[1:] != (1, 1, 1):
            array = np.broadcast_to(array, full)
        return _matrix(plan, array, blocks=array.shape == full)

    return rearranger(value, to_matrix, ("matrix", plan), node, len(full))


def _lower(node: Node, plan: _Plan, rearranger: Rearranger) -> None:
    output = node.outputs[0]
    weight = _weight(node, plan, rearranger)
    emit = Emitter(node)
    shape = dims(node.inputs[0]) or (None,)
    rows, columns = (plan.windows.size(plan.size[axis], axis) for axis in (0, 1))
    value = node.inputs[0]
    if not plan.last:
        value = _typed(
            emit.add("Transpose", [value], perm=to_last(4)), output, shape[0], plan.size
        )
    if not plan.pointwise:
        value = _windows(emit, value, plan)
        depth = plan.size[2] * plan.windows.kernel[0] * plan.windows.kernel[1]
        _typed(value, output, shape[0], (rows, columns, depth))
    elif plan.windows.stride != (1, 1):
        largest = int(np.iinfo(np.int64).max)
        bounds = {"starts": (0, 0), "ends": (largest, largest), "axes": (1, 2)}
        bounds["steps"] = plan.windows.stride
        limits = [emit.integers(name, numbers) for name, numbers in bounds.items()]
        value = emit.add("Slice", [value, *limits])
        _typed(value, output, shape[0], (rows, columns, plan.size[2]))
    product = emit.add("MatMul", [value, weight])
    maker = product.producer()
    if not plan.last:
        _typed(product, output, shape[0], (rows, columns, plan.outputs))
        product = emit.add("Transpose", [product], perm=to_first(4))
    name = node.name
    emit.replace_with(product)
    if maker is not None:
        maker.name = name


def _typed(
    value: Value, like: Value, batch: int | str | None, sizes: tuple[int, int, int]
) -> Value:
    value.type = like.type
    value.shape = onnx_ir.Shape([batch, *sizes])
    return value


def _windows(emit: Emitter, value: Value | None, plan: _Plan) -> Value:
    (height, width, channels), windows = plan.size, plan.windows
    attributes: dict[str, Any] = {
        "stride": list(windows.stride),
        "kernel_size": list(windows.kernel),
        "input_shape": f"(1,{height},{width},{channels})",
        "pad_amount": list(windows.pads),
        "pad_value": 0,
        "depthwise": int(plan.group == channels == plan.outputs),
        "dilations": list(windows.dilations),
    }
    return emit.custom(IM2COL, [value], attributes)
