"""``qonnx-range-analysis``: what tensors can hold, and channels that hold one value only."""

from __future__ import annotations

import pprint
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from onnx_ir import Model, Value

from qonnx_hub.compat.arguments import run_tool
from qonnx_hub.compat.cleanup import clean
from qonnx_hub.compat.files import literal, open_model
from qonnx_hub.compat.reports import stuck_channels, write_report, zero_channels
from qonnx_hub_ir.analysis import InputRange, infer_values
from qonnx_hub_ir.analysis.value_info import ValueInfo, axis_shape, between
from qonnx_hub_ir.annotations import DATATYPE, annotations_of
from qonnx_hub_ir.errors import UsageError
from qonnx_hub_ir.facts import facts_of
from qonnx_hub_ir.graph.queries import dims
from qonnx_hub_ir.quantizers import Array

ReportMode = Literal["range", "stuck_channel", "zerostuck_channel"]

_CHANNELS = 1
"""Channels lie along this axis, as in the qonnx package."""


def range_analysis(
    model_filename_or_wrapper: Any,
    *,
    irange: str | tuple[Any, Any] = "",
    key_filter: str = "",
    report_mode: ReportMode = "stuck_channel",
    prettyprint: bool = False,
    do_cleanup: bool = False,
    output_json: str | None = None,
) -> Any:
    """Return what each tensor can hold, or which of its channels hold one value only.

    Args:
        model_filename_or_wrapper: The model.
        irange: The range of the inputs, such as "(0,1)" or "([0,0,0],[1,2,1])" with an entry
            per channel; by default what each input's annotated datatype says.
        key_filter: Report the tensors whose names hold this text.
        report_mode: "range", "stuck_channel", or "zerostuck_channel".
        prettyprint: Return a text of several lines.
        do_cleanup: Clean the model before, as the tool ``cleanup`` does.
        output_json: File for the result.

    Returns:
        Tensor -> (lowest, highest), numbers or lists with one per channel; or tensor -> pairs
        of a channel and its value; or tensor -> channels that are always zero.

    Raises:
        UsageError: A range that is none.
        HubError: The model cannot be read.
    """
    model = open_model(model_filename_or_wrapper)
    if do_cleanup:
        clean(model, True, None, False)
    known = infer_values(model, {str(v.name): _given(v, irange) for v in model.graph.inputs})
    ranges = _ranges(model, known)
    ranges = {name: ends for name, ends in ranges.items() if key_filter in name}
    found: Any = {name: (low.tolist(), high.tolist()) for name, (low, high) in ranges.items()}
    if report_mode != "range":
        inputs = {str(value.name) for value in model.graph.inputs}
        found = stuck_channels({n: ends for n, ends in ranges.items() if n not in inputs})
    if report_mode == "zerostuck_channel":
        found = zero_channels(found)
    write_report(found, output_json)
    return pprint.pformat(found, sort_dicts=False) if prettyprint else found


def _given(value: Value, irange: str | tuple[Any, Any]) -> InputRange:
    """Return what is said of an input; without a range, what its annotation says."""
    ends = literal(irange, "--irange") if isinstance(irange, str) and irange else irange
    if not ends:
        return annotations_of(value).get(DATATYPE) or "FLOAT32"
    if not isinstance(ends, tuple) or len(ends) != 2:
        raise UsageError(f"--irange: '{irange}' is no pair of lowest and highest")
    low, high = (np.asarray(end, dtype=np.float64) for end in ends)
    if low.ndim == 0 and high.ndim == 0:
        return float(low), float(high)
    sizes = dims(value) or ()
    count = sizes[_CHANNELS] if len(sizes) > _CHANNELS else None
    if any(end.ndim > 1 or end.size not in (1, count) for end in (low, high)):
        raise UsageError(f"--irange: '{value.name}' has {count} channels, '{irange}' others")
    shape = axis_shape(_CHANNELS, len(sizes))
    if not np.all(low <= high):
        raise UsageError(f"--irange: '{irange}' holds an empty range")
    low, high = (end.reshape(shape) if end.ndim else end for end in (low, high))
    return between(low, high)


def _ranges(model: Model, known: Mapping[str, ValueInfo]) -> dict[str, tuple[Array, Array]]:
    """Return the ends of every tensor that depends on the inputs, one per channel or one."""
    dynamic = facts_of(model).dynamic
    values = (*model.graph.inputs, *(v for node in model.graph for v in node.outputs))
    found = {}
    for value in values:
        name = str(value.name)
        if name in dynamic and name in known:
            ends = _per_channel(known[name], value)
            if ends is not None:
                found[name] = ends
    return found


def _per_channel(info: ValueInfo, value: Value) -> tuple[Array, Array] | None:
    """Return the ends along the channels, or over all of the tensor; ``None`` without any."""
    low, high = info.low, info.high
    if not (np.all(np.isfinite(low)) and np.all(np.isfinite(high))):
        return None
    longest = max((low, high), key=lambda end: end.size)
    if longest.size == 1:
        return low.reshape(()), high.reshape(())
    axes = [axis for axis, size in enumerate(longest.shape) if size > 1]
    rank = len(dims(value) or ())
    if rank != longest.ndim or axes != [_CHANNELS]:
        return low.min(), high.max()
    count = longest.size
    return np.broadcast_to(low.reshape(-1), count), np.broadcast_to(high.reshape(-1), count)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool."""
    return run_tool(range_analysis, argv)


if __name__ == "__main__":
    sys.exit(main())
