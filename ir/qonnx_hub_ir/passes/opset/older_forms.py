"""How standard operators were spelled at older opsets: a table, and its rules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import onnx_ir
from onnx_ir import Node

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.queries import attribute, dims, input_of, rank_of
from qonnx_hub_ir.operators import Family
from qonnx_hub_ir.quantizers import Array

Edit: TypeAlias = Callable[[], None]
Rule: TypeAlias = Callable[[Node], "Edit | str"]
"""What must be done at a node, or why it cannot be done. Nothing is changed by asking."""
Row: TypeAlias = tuple[int, Rule, tuple[str, ...]]

NEUTRAL: Mapping[tuple[str, str], tuple[Any, ...]] = {
    ("Reshape", "allowzero"): (0,),
    ("Shape", "start"): (0,),
    ("BatchNormalization", "training_mode"): (0,),
    ("Cast", "saturate"): (1,),
    ("CastLike", "saturate"): (1,),
    ("Cast", "round_mode"): ("up",),
    ("Resize", "antialias"): (0,),
    ("Resize", "keep_aspect_ratio_policy"): ("stretch",),
    ("ScatterElements", "reduction"): ("none",),
    ("ScatterND", "reduction"): ("none",),
    ("ArgMax", "select_last_index"): (0,),
    ("ArgMin", "select_last_index"): (0,),
    ("GatherND", "batch_dims"): (0,),
    ("DepthToSpace", "mode"): ("DCR",),
    ("TopK", "largest"): (1,),
    ("TopK", "sorted"): (1,),
    ("LSTM", "layout"): (0,),
    ("GRU", "layout"): (0,),
    ("RNN", "layout"): (0,),
    ("LpPool", "ceil_mode"): (0,),
    ("QuantizeLinear", "saturate"): (1,),
    ("QuantizeLinear", "block_size"): (0,),
    ("DequantizeLinear", "block_size"): (0,),
}
"""(Operator, attribute) -> values that mean what the operator did without the attribute."""


def _dropping(node: Node, *names: str) -> Edit:
    def edit() -> None:
        for name in names:
            node.attributes.pop(name, None)

    return edit


def _constant(node: Node, index: int) -> Array | None:
    return dialect.constant_value(input_of(node, index))


def _set_integers(node: Node, name: str, numbers: Any) -> None:
    node.attributes[name] = onnx_ir.AttrInt64s(name, [int(n) for n in numbers])


def _input_to_attribute(name: str) -> Rule:
    """Return the rule of an input that was an attribute: axes, or the sizes of a Split."""

    def rule(node: Node) -> Edit | str:
        given = input_of(node, 1)
        values = _constant(node, 1)
        if given is not None and values is None:
            return f"its {name} are computed at run time"
        keeps_all = attribute(node, "noop_with_empty_axes", 0)
        if keeps_all and (values is None or not values.size):
            return "it leaves its input alone (noop_with_empty_axes)"

        def edit() -> None:
            if len(node.inputs) > 1:
                node.resize_inputs(1)
            if values is not None and values.size:
                # Negative axes came with opset 11.
                rank = None if name == "split" else rank_of(node.inputs[0])
                rank = rank and rank + (values.size if node.op_type == "Unsqueeze" else 0)
                _set_integers(node, name, (values % rank if rank else values).reshape(-1))
            node.attributes.pop("noop_with_empty_axes", None)

        return edit

    return rule


def _split(node: Node) -> Edit | str:
    """Drop the count of parts: equal parts are what a Split without sizes makes."""
    count, sizes = len(node.outputs), dims(node.inputs[0])
    axis = attribute(node, "axis", 0)
    size = None if sizes is None else sizes[axis]
    if input_of(node, 1) is not None:
        return _dropping(node, "num_outputs")
    if not isinstance(size, int) or size % count == 0:
        return (
            _dropping(node, "num_outputs")
            if isinstance(size, int)
            else "the size that it splits is not known, and its parts may be unequal"
        )
    part = -(-size // count)

    def edit() -> None:
        node.attributes.pop("num_outputs", None)
        node.resize_inputs(2)
        parts = [part] * (count - 1) + [size - part * (count - 1)]
        node.replace_input_with(1, Emitter(node).integers("split", parts))

    return edit


def _spread(axes: Array, values: Array, rank: int, rest: float) -> Array:
    full = np.full(rank, rest, dtype=values.dtype)
    full[np.asarray(axes) % rank] = values
    return full


def _pad(node: Node) -> Edit | str:
    """Spread pads of some axes over all."""
    if input_of(node, 3) is None:
        return _nothing
    axes, pads, rank = _constant(node, 3), _constant(node, 1), rank_of(node.inputs[0])
    if axes is None or pads is None or rank is None:
        return "its axes or pads are computed at run time"
    both = [_spread(axes, half, rank, 0) for half in np.split(pads, 2)]

    def edit() -> None:
        node.replace_input_with(1, Emitter(node).integers("pads", np.concatenate(both)))
        node.resize_inputs(3)

    return edit


def _pad_10(node: Node) -> Edit | str:
    pads, value = _constant(node, 1), _constant(node, 2)
    if pads is None or (value is None and input_of(node, 2) is not None):
        return "its pads are computed at run time"
    if value is not None and not _fits_attribute(value):
        return "its value is no float32 number, as an attribute is"

    def edit() -> None:
        node.resize_inputs(1)
        _set_integers(node, "pads", pads)
        if value is not None:
            node.attributes["value"] = onnx_ir.AttrFloat32("value", float(value.reshape(())))

    return edit


def _fits_attribute(value: Array | None) -> bool:
    """Return whether a number stays what it is as an attribute, which is a float32."""
    return value is None or np.array_equal(value.astype(np.float32), value, equal_nan=True)


def _clip_10(node: Node) -> Edit | str:
    ends = {"min": 1, "max": 2}
    given = {name: i for name, i in ends.items() if input_of(node, i) is not None}
    known = {name: _constant(node, i) for name, i in given.items()}
    if any(value is None for value in known.values()):
        return "its bounds are computed at run time"
    if not all(map(_fits_attribute, known.values())):
        return "its bounds are no float32 numbers, as attributes are"

    def edit() -> None:
        node.resize_inputs(1)
        for name, value in known.items():
            assert value is not None, "asked above"
            node.attributes[name] = onnx_ir.AttrFloat32(name, float(value.reshape(())))

    return edit


def _resize(node: Node) -> Edit | str:
    """Spread scales or sizes of some axes over all."""
    axes = node.attributes.get("axes")
    if axes is None:
        return _nothing
    if input_of(node, 1) is not None:
        return "it names the axes of a region"
    rank, sizes = rank_of(node.inputs[0]), dims(node.inputs[0])
    index = 2 if input_of(node, 2) is not None and _constant(node, 2) is not None else 3
    values = _constant(node, index)
    if values is None or rank is None:
        return "its scales or sizes are computed at run time"
    if index == 2:
        full = _spread(np.asarray(axes.value), values, rank, 1)
    elif sizes is None or not all(isinstance(size, int) for size in sizes):
        return "it names axes, and the sizes of the others are not known"
    else:
        full = np.asarray(sizes, dtype=np.int64)
        full[np.asarray(axes.value) % rank] = values

    def edit() -> None:
        label = "scales" if index == 2 else "sizes"
        node.replace_input_with(index, Emitter(node).constant(label, full))
        node.attributes.pop("axes", None)

    return edit


def _resize_12(node: Node) -> Edit | str:
    """Write out the inputs that opset 11 does not let go: an empty region, empty scales."""

    def edit() -> None:
        node.resize_inputs(max(len(node.inputs), 3))
        empty = np.zeros(0, dtype=np.float32)
        for index, label in ((1, "roi"), (2, "scales")):
            if node.inputs[index] is None:
                node.replace_input_with(index, Emitter(node).constant(label, empty))

    return edit


def _pool(node: Node) -> Edit | str:
    if any(step != 1 for step in attribute(node, "dilations", ())):
        return "its windows are dilated"
    return _dropping(node, "dilations")


def hard_swish(node: Node) -> Edit | str:
    """Write a HardSwish as its product; onnxruntime gives equal bits for both."""

    def edit() -> None:
        emit, x = Emitter(node), node.inputs[0]
        gate = emit.add("HardSigmoid", [x], x, alpha=1 / 6, beta=0.5)
        emit.replace_with(emit.add("Mul", [x, gate], node.outputs[0]))

    return edit


def _quantize(node: Node) -> Edit | str:
    """Say by a zero point what ``output_dtype`` says."""
    kind = attribute(node, "output_dtype", 0)
    if not kind or input_of(node, 2) is not None or kind == onnx_ir.DataType.UINT8:
        return _dropping(node, "output_dtype")
    scale = dims(node.inputs[1])
    if scale is None or not all(isinstance(size, int) for size in scale):
        return "its output_dtype needs a zero point, and the shape of its scale is not known"

    def edit() -> None:
        dtype = onnx_ir.DataType(kind)
        zeros = np.zeros([int(str(size)) for size in scale], dtype=dtype.numpy())
        tensor = onnx_ir.Tensor(zeros, dtype=dtype)
        node.resize_inputs(3)
        node.replace_input_with(2, Emitter(node).tensor("zero_point", tensor))
        node.attributes.pop("output_dtype", None)

    return edit


def _type_of_scale(name: str) -> Rule:
    """Return the rule of a type that was always that of the scale."""

    def rule(node: Node) -> Edit | str:
        scale = node.inputs[1]
        if attribute(node, name, 0) in (0, None if scale is None else scale.dtype):
            return _dropping(node, name)
        return f"its {name} is another type than that of its scale"

    return rule


def _one_scale(node: Node) -> Edit | str:
    """Quantizers had one scale below opset 13, and no axis."""
    scale = dims(node.inputs[1])
    if scale is None or any(size != 1 for size in scale):
        return "its scale has several elements"
    return _dropping(node, "axis")


def _last_axis(node: Node) -> Edit | str:
    """Softmax and its kin flattened the axes from ``axis`` on; the last one means the same."""
    rank, axis = rank_of(node.inputs[0]), attribute(node, "axis", -1)
    if not rank or axis % rank != rank - 1:
        return "it works along another axis than the last"

    def edit() -> None:
        node.attributes["axis"] = onnx_ir.AttrInt64("axis", rank - 1)

    return edit


def _positive_axes(node: Node) -> Edit | str:
    """Axes counted from the front below opset 11."""
    named = ((name, attribute(node, name, ())) for name in ("axis", "axes"))
    negative = [name for name, axes in named if np.any(np.asarray(axes, dtype=np.int64) < 0)]
    if not negative:
        return _nothing
    rank = rank_of(node.inputs[0])
    if rank is None:
        return "it counts axes from the end, and its rank is not known"

    def edit() -> None:
        for name in negative:
            value = node.attributes[name].value
            if isinstance(value, int):
                node.attributes[name] = onnx_ir.AttrInt64(name, value % rank)
            else:
                _set_integers(node, name, [axis % rank for axis in value])

    return edit


def _region(node: Node) -> Edit | str:
    mode = attribute(node, "coordinate_transformation_mode", "half_pixel")
    if mode != "output_half_pixel":
        return f"its coordinates are those of '{mode}'"
    return _dropping(node, "coordinate_transformation_mode")


def _only(name: str, *values: str) -> Rule:
    """Return the rule of an attribute with values that older opsets do not know."""

    def rule(node: Node) -> Edit | str:
        value = attribute(node, name, values[0])
        return _nothing if value in values else f"its {name} '{value}' is not known there"

    return rule


def _never(reason: str) -> Rule:
    return lambda node: reason


def _grid_sample(node: Node) -> Edit | str:
    names = {"linear": "bilinear", "cubic": "bicubic"}
    mode, rank = attribute(node, "mode", "linear"), rank_of(node.inputs[0])
    if rank != 4:
        return "it samples another number of axes than two"

    def edit() -> None:
        node.attributes["mode"] = onnx_ir.AttrString("mode", names.get(mode, mode))

    return edit


def _nothing() -> None:
    """Change nothing: the node says the same at both opsets."""


_REDUCTIONS = [n for n in operators.names(family=Family.REDUCTION) if n.startswith("Reduce")]

_AXES, _SIZES = _input_to_attribute("axes"), _input_to_attribute("split")
_SCATTER = _only("reduction", "none", "add", "mul")
_COORDINATES = _only(
    "coordinate_transformation_mode",
    *("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_crop_and_resize"),
)

RULES: Mapping[str, tuple[Row, ...]] = {
    **dict.fromkeys(_REDUCTIONS, ((18, _AXES, ("noop_with_empty_axes",)),)),
    "ReduceSum": ((13, _AXES, ("noop_with_empty_axes",)),),
    "Squeeze": ((13, _AXES, ()),),
    "Unsqueeze": ((13, _AXES, ()),),
    "Split": ((18, _split, ("num_outputs",)), (13, _SIZES, ())),
    "Pad": (
        (19, _only("mode", "constant", "reflect", "edge"), ()),
        (18, _pad, ()),
        (11, _pad_10, ()),
    ),
    "Clip": ((11, _clip_10, ()),),
    "Resize": (
        (19, _COORDINATES, ()),
        (18, _resize, ("axes",)),
        (13, _resize_12, ()),
        (11, _never("it takes elements by another rule there"), ()),
    ),
    "AveragePool": ((19, _pool, ("dilations",)),),
    "LpPool": ((18, _pool, ("dilations",)),),
    "HardSwish": ((14, hard_swish, ()),),
    "QuantizeLinear": (
        (23, _type_of_scale("precision"), ("precision",)),
        (21, _quantize, ("output_dtype",)),
        (13, _one_scale, ("axis",)),
    ),
    "DequantizeLinear": (
        (23, _type_of_scale("output_dtype"), ("output_dtype",)),
        (13, _one_scale, ("axis",)),
    ),
    **dict.fromkeys(operators.names(family=Family.SOFTMAX), ((13, _last_axis, ()),)),
    **dict.fromkeys(("Concat", "Flatten", "ArgMax", "ArgMin"), ((11, _positive_axes, ()),)),
    "RoiAlign": ((16, _region, ("coordinate_transformation_mode",)),),
    "GridSample": ((20, _grid_sample, ()),),
    "ScatterElements": ((18, _SCATTER, ()),),
    "ScatterND": ((18, _SCATTER, ()),),
    "GroupNormalization": ((21, _never("its scale is one per group there"), ()),),
    "DFT": ((20, _never("its axis has another default there"), ()),),
}
"""Operator -> (first opset of today's form, how to write the older one, attributes that this
takes care of), the newest change first. Source: the schemas of ONNX, compared one by one."""
