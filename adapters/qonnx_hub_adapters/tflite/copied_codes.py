"""Operators that copy codes from one grid to another, as float layers see them."""

from __future__ import annotations

from dataclasses import replace

from qonnx_hub_adapters.tflite.float_form import FloatForm
from qonnx_hub_adapters.tflite.net import CodeGrid, Operation, TfliteNet
from qonnx_hub_adapters.tflite.operators import OPERATORS

COPY = "COPY_CODES"
"""Codes taken as those of another grid: what kernels do that never look at one."""


def copy_codes(form: FloatForm, operation: Operation) -> None:
    """Write :data:`COPY`: the same codes, under another tensor."""
    layout = form.layout_of(operation)
    codes = form.writer.codes(operation.inputs[0], layout)
    form.writer.put(operation.outputs[0], "codes", codes, layout)


def with_copied_codes(net: TfliteNet) -> TfliteNet:
    """Return a net whose kernels that copy codes find them on one grid.

    What such a kernel reads or makes on another grid is not rescaled by it: the same codes
    stand for other values.
    """
    tensors, kept = list(net.tensors), []

    def taken(tensor: int, grid: CodeGrid) -> int:
        tensors.append(replace(tensors[tensor], grid=grid))
        return len(tensors) - 1

    def is_other(tensor: int, grid: CodeGrid) -> bool:
        own = tensors[tensor].grid if tensor >= 0 else None
        return own is not None and not own.same(grid)

    for operation in net.operations:
        grid = tensors[operation.outputs[0]].grid
        row, type_ = OPERATORS[operation.name], tensors[operation.outputs[0]].type
        if grid is None or type_ not in row.copies:
            kept.append(operation)
            continue
        given, made = list(operation.inputs), list(operation.outputs)
        for i, tensor in enumerate(given):
            if is_other(tensor, grid):
                given[i] = taken(tensor, grid)
                if tensors[tensor].data is None:
                    kept.append(Operation(COPY, 1, (tensor,), (given[i],)))
        behind = []
        for i, tensor in enumerate(made):
            if is_other(tensor, grid):
                made[i] = taken(tensor, grid)
                behind.append(Operation(COPY, 1, (made[i],), (tensor,)))
        changed = replace(operation, inputs=tuple(given), outputs=tuple(made))
        kept += [changed, *behind]
    return replace(net, tensors=tuple(tensors), operations=tuple(kept))
