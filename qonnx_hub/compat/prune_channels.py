"""``qonnx-prune-channels``: channels taken out of tensors, and of all that depends on them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx_ir import Model, Node, Value

from qonnx_hub.compat.arguments import run_tool
from qonnx_hub.compat.files import literal, open_model, output_path, write
from qonnx_hub.passes import run
from qonnx_hub_ir import operators
from qonnx_hub_ir.errors import UsageError
from qonnx_hub_ir.graph.queries import dims, is_constant, readers, weight_axes
from qonnx_hub_ir.graph.subgraphs import every_value
from qonnx_hub_ir.passes import PruneChannels
from qonnx_hub_ir.quantizers import Array


def prune_channels(
    input_filename: str,
    prunespec_filename: str,
    *,
    lossy: bool = True,
    output_filename: str = "",
) -> None:
    """Write a model without some of its channels.

    Args:
        input_filename: The model; it is never overwritten.
        prunespec_filename: A file with a Python dict ``{tensor: {axis: {channels}}}``.
        lossy: Must be true: what a removed channel held is lost.
        output_filename: The file to write; the input's name with ``_pruned`` by default.

    Raises:
        UsageError: The output is the input; a specification that does not fit the model.
        PassError: Channels that cannot be taken out.
    """
    path = Path(prunespec_filename)
    text = path.read_text(encoding="utf-8").strip()
    wanted = literal(text, str(path))
    if not isinstance(wanted, dict):
        raise UsageError(f"{path}: not a Python dict of tensors")
    if not lossy:
        raise UsageError("--lossy=False: channels that hold values cannot go without loss")
    model = open_model(input_filename)
    target = output_path(input_filename, output_filename, "_pruned")
    run(model, [PruneChannels(masks_of(model, wanted))])
    write(model, target)


def masks_of(model: Model, wanted: Mapping[str, Any]) -> dict[str, Array]:
    """Return layer -> one truth value per output channel, false for those that go.

    Args:
        model: An IR model.
        wanted: Tensor -> axis -> channels to take out. A weight's channels are those of its
            layer, or those that its layer reads; a value's are those of the layer before it.

    Raises:
        UsageError: A tensor, axis or channel that is not there, or without a layer.
    """
    values = {str(value.name): value for value in every_value(model)}
    masks: dict[str, Array] = {}
    for name, axes in wanted.items():
        if name not in values or not isinstance(axes, Mapping):
            raise UsageError(f"the model has no tensor '{name}', or no axes are given for it")
        for axis, channels in axes.items():
            node, count = _layer(values[name], int(axis))
            kept = masks.setdefault(str(node.name), np.ones(count, dtype=np.bool_))
            chosen = sorted(int(channel) for channel in channels)
            if any(not 0 <= channel < count for channel in chosen):
                raise UsageError(f"'{name}' has {count} channels, not those of {chosen}")
            kept[chosen] = False
    return masks


def _layer(value: Value, axis: int) -> tuple[Node, int]:
    """Return the layer whose output channels lie along an axis, and their number."""
    where = f"axis {axis} of '{value.name}'"
    sizes = dims(value) or ()
    if not -len(sizes) <= axis < len(sizes):
        raise UsageError(f"there is no {where}")
    position = axis % len(sizes)
    for reader in readers(value) if is_constant(value) else ():
        axes = weight_axes(reader)
        if axes is not None and reader.inputs[1] is value:
            if axes[0] % len(sizes) == position:
                return reader, _number(sizes[position], where)
            return _maker(reader.inputs[0], where)
    if position != 1:
        raise UsageError(f"{where} holds no channels")
    return _maker(value, where)


def _maker(value: Value | None, where: str) -> tuple[Node, int]:
    """Return the layer before a value, through operators that keep channels where they are."""
    found = value
    while found is not None:
        node = found.producer()
        if node is None:
            break
        if weight_axes(node) is not None:
            return node, _number((dims(found) or (None, None))[1], where)
        keeps = operators.is_elementwise(node) or operators.pool_of(node) is not None
        dynamic = [one for one in node.inputs if one is not None and not is_constant(one)]
        if not (keeps or node.op_type == "BatchNormalization") or len(dynamic) != 1:
            break
        found = dynamic[0]
    raise UsageError(f"{where}: no layer makes these channels")


def _number(size: int | str | None, where: str) -> int:
    if not isinstance(size, int):
        raise UsageError(f"{where} has an open size")
    return size


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool."""
    return run_tool(prune_channels, argv)


if __name__ == "__main__":
    sys.exit(main())
