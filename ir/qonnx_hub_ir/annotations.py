"""What a file says of a tensor beside its type and shape: quantization annotations.

The qonnx package keeps a datatype, a layout and a sparsity there, others keep what they like.
An entry is data of the tensor: it travels wherever the tensor does, is rearranged with it, and
goes where it is not true any more.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence

from onnx_ir import Value

DATATYPE = "finn_datatype"
"""Key of the datatype of the values, such as "INT4"."""

LAYOUT = "tensor_layout"
"""Key of the layout: the list of the axes' letters, as text."""

SPARSITY = "tensor_sparsity"
"""Key of where a weight of a layer is zero by construction."""

_PLACE = "quant_parameter_tensor_names"
"""Where :mod:`onnx_ir` keeps a value's annotation."""


def annotations_of(value: Value) -> Mapping[str, str]:
    """Return the entries of a value, by key; empty without any."""
    found = value.meta.get(_PLACE)
    return found if isinstance(found, Mapping) else {}


def annotate(value: Value, entries: Mapping[str, str]) -> None:
    """Set entries of a value; the others stay."""
    if entries:
        value.meta[_PLACE] = {**annotations_of(value), **entries}


def retract(value: Value, *keys: str) -> dict[str, str]:
    """Take entries from a value, and return those that it had."""
    have = annotations_of(value)
    taken = {key: have[key] for key in keys if key in have}
    if taken:
        value.meta[_PLACE] = {key: text for key, text in have.items() if key not in taken}
    return taken


def carry(old: Value, new: Value, *, own_first: bool = False) -> None:
    """Give a value the entries of another one with the same values.

    Args:
        old: Whose entries they are.
        new: Who gets them.
        own_first: Whether entries that the new value has already win.
    """
    entries = dict(annotations_of(old))
    annotate(new, {**entries, **annotations_of(new)} if own_first else entries)


def layout_of(value: Value) -> list[str] | None:
    """Return the letters of a value's axes; ``None`` where nothing readable says them."""
    text = annotations_of(value).get(LAYOUT)
    if text is None:
        return None
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None
    is_layout = isinstance(found, list) and all(isinstance(axis, str) for axis in found)
    return found if is_layout else None


def set_layout(value: Value, axes: Sequence[str]) -> None:
    """Annotate the letters of a value's axes, as the qonnx package writes them."""
    annotate(value, {LAYOUT: str(list(axes))})


def permute_layout(value: Value, perm: Sequence[int]) -> None:
    """Rearrange the annotated layout of a value that was transposed by a permutation.

    A layout that does not have as many axes is dropped: it says nothing of this value.
    """
    axes = layout_of(value)
    if axes is not None and len(axes) == len(perm):
        set_layout(value, [axes[axis] for axis in perm])
    else:
        retract(value, LAYOUT)


def forget_shape(value: Value) -> None:
    """Drop what was said of axes that the value does not have any more."""
    retract(value, LAYOUT, SPARSITY)
