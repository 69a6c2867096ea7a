"""Operators that copy elements: their shape changes, their order, which of them are taken."""

from __future__ import annotations

from typing import Any

from onnx_ir import Node

from qonnx_hub_ir.operators.row import (
    Batch,
    Buffer,
    Family,
    Moves,
    Operator,
    attribute,
    constant,
    is_given,
    row,
    rows,
)

_VIEW: dict[str, Any] = {"buffer": Buffer.MAY_VIEW}
_CHANNELS: dict[str, Any] = {"channel_axis": 1, "batch": Batch.FIRST_INPUT}
_PICKS = Moves.PERMUTES | Moves.SELECTS | Moves.REPEATS


def _pad_moves(node: Node) -> Moves | None:
    mode = attribute(node, "mode", "constant")
    if mode == "constant":
        pads = constant(node, 1) if is_given(node, 1) else attribute(node, "pads", None)
        adds_only = pads is not None and min(pads, default=0) >= 0
        return Moves.INSERTS if adds_only else Moves.INSERTS | Moves.SELECTS
    return _PICKS


def _resize_moves(node: Node) -> Moves | None:
    """Return what a resize of whole pixels does; other modes compute."""
    if attribute(node, "mode", "nearest") != "nearest":
        return None
    crops = attribute(node, "coordinate_transformation_mode", "") == "tf_crop_and_resize"
    return Moves.SELECTS | Moves.REPEATS | (Moves.INSERTS if crops else Moves.NOTHING)


def _movement(name: str, inputs: str, moves: Any, **traits: Any) -> Operator:
    return row("", Family.MOVEMENT, name, inputs, moves=moves, **traits)


OPERATORS: tuple[Operator, ...] = (
    _movement("Flatten", "data", Moves.NOTHING, **_VIEW, axis=((1, 1),), batch=Batch.UNKNOWN),
    _movement("Reshape", "data -shape", Moves.NOTHING, **_VIEW),
    *rows(
        *("", Family.MOVEMENT, "Squeeze Unsqueeze", "data -axes"),
        **_VIEW,
        moves=Moves.NOTHING,
        axes_input=(1, 13),
        batch=Batch.OTHER_AXES,
    ),
    _movement("Transpose", "data", Moves.PERMUTES, **_VIEW),
    _movement("DepthToSpace", "data", Moves.PERMUTES, **_CHANNELS),
    _movement("SpaceToDepth", "data", Moves.PERMUTES, **_CHANNELS),
    _movement(
        *("ReverseSequence", "data -lengths"),
        # The document requires two axes and does not define one axis for both.
        lambda node: (
            Moves.PERMUTES
            if attribute(node, "time_axis", 0) != attribute(node, "batch_axis", 1)
            else None
        ),
    ),
    _movement("Concat", "data*", Moves.PERMUTES, buffer=Buffer.FRESH, changed=(4,)),
    _movement(
        *("Split", "data -split", Moves.SELECTS),
        **_VIEW,
        axis=((2, 0),),
        batch=Batch.OTHER_AXIS,
        all_outputs=True,
    ),
    _movement(
        *("Slice", "data -starts -ends -axes -steps", Moves.PERMUTES | Moves.SELECTS),
        **_VIEW,
        axes_input=(3, 10),
        batch=Batch.OTHER_AXES,
    ),
    _movement("Gather", "data -indices", _PICKS, **_VIEW, axis=((1, 0),)),
    _movement("GatherElements", "data -indices", _PICKS, axis=((11, 0),)),
    _movement("GatherND", "data -indices", _PICKS),
    _movement("Compress", "data -condition", Moves.SELECTS),
    _movement("Expand", "data -shape", Moves.REPEATS, **_VIEW),
    _movement("Tile", "data -repeats", Moves.PERMUTES | Moves.REPEATS, changed=(6,)),
    _movement(
        *("Pad", "data -pads +value -axes", _pad_moves),
        inserted=2,
        axes_input=(3, 18),
    ),
    _movement("CenterCropPad", "data -shape", Moves.SELECTS | Moves.INSERTS),
    _movement("Trilu", "data -diagonal", Moves.SELECTS | Moves.INSERTS),
    _movement(
        *("Resize", "data -roi -scales -sizes", _resize_moves),
        **_VIEW,
        resizes=True,
        changed=(11,),
    ),
    _movement("Upsample", "data -scales", _resize_moves, resizes=True),
    *(
        _movement(
            *(name, "data -indices updates"),
            lambda node: (
                Moves.PERMUTES | Moves.SELECTS
                if attribute(node, "reduction", "none") == "none"
                else None
            ),
        )
        for name in ("Scatter", "ScatterElements", "ScatterND")
    ),
    _movement(
        *("TensorScatter", "data updates -indices", Moves.PERMUTES | Moves.SELECTS),
        axis=((24, -2),),
    ),
    _movement(
        *("MaxUnpool", "data -indices -shape", Moves.PERMUTES | Moves.INSERTS),
        channel_axis=1,
        is_windowed=True,
    ),
    *rows("", Family.OTHER, "Shape Size", "data", shape_only=True, is_whole=True),
    *rows("", Family.OTHER, "NonZero", "data", is_whole=True),
    # Which elements Unique keeps, and where, depends on all of them.
    row("", Family.OTHER, "Unique", "data"),
    row(
        *("", Family.OTHER, "TopK", "data -k"),
        selects_by_order=True,
        axis=((1, -1),),
        batch=Batch.OTHER_AXIS,
    ),
    row("", Family.OTHER, "OneHot", "-indices -depth values", axis=((9, -1),)),
    row("", Family.OTHER, "Col2Im", "data -image_shape -block_shape", channel_axis=1),
    row("", Family.OTHER, "GridSample", "data grid", channel_axis=1, changed=(20,)),
    row("", Family.OTHER, "AffineGrid", "theta -size"),
)
"""Their rows."""
