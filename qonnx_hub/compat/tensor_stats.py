"""``qonnx-tensor-stats``: what recorded tensors hold, channel by channel."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from qonnx_hub.compat.arguments import run_tool
from qonnx_hub.compat.files import open_model
from qonnx_hub.compat.reports import stuck_channels, write_report, zero_channels
from qonnx_hub.io.atomic import replacing
from qonnx_hub_adapters.dependencies import require
from qonnx_hub_ir.errors import UsageError
from qonnx_hub_ir.graph.subgraphs import every_value
from qonnx_hub_ir.quantizers import Array

ReportMode = Literal["range", "stuck_channel", "zerostuck_channel"]

Ends = dict[int, tuple[Array, Array]]
"""Axis -> lowest and highest values along it."""


def tensor_stats(
    modelwrapper_or_filename: Any,
    act_dump_dir: str,
    output_stats_dir: str,
    *,
    axes: str = "1",
    plot: bool = True,
    report_mode: ReportMode = "range",
    output_json: str | None = None,
) -> Any:
    """Return the ends of recorded tensors over all files, along axes.

    Args:
        modelwrapper_or_filename: The model.
        act_dump_dir: Folder of files NAME_batchN.npy, or with a prefix, as the tool ``exec``
            writes them.
        output_stats_dir: Folder for the plots NAME_axisK.png.
        axes: The axes, with commas between.
        plot: Whether to draw; that needs matplotlib.
        report_mode: "range", "stuck_channel", or "zerostuck_channel".
        output_json: File for the result.

    Returns:
        Tensor -> "shape" and "axisK" -> "min" and "max"; or its channels that hold one value.

    Raises:
        UsageError: No file of a tensor of the model; files of other sizes; no such axis.
        MissingDependencyError: matplotlib is not installed.
    """
    wanted = _axes(axes)
    pyplot = _pyplot() if plot else None
    names = {str(value.name) for value in every_value(open_model(modelwrapper_or_filename))}
    files = _files(Path(act_dump_dir), names)
    found: dict[str, Any] = {}
    ends: dict[str, Ends] = {}
    for name, paths in files.items():
        arrays = [np.load(path, allow_pickle=False) for path in paths]
        ends[name] = {axis: _ends(arrays, axis, name) for axis in wanted}
        found[name] = {"shape": list(arrays[0].shape)}
        for axis, (low, high) in ends[name].items():
            found[name][f"axis{axis}"] = {"min": low.tolist(), "max": high.tolist()}
    folder = Path(output_stats_dir)
    folder.mkdir(parents=True, exist_ok=True)
    if pyplot is not None:
        _draw(pyplot, ends, folder)
    if report_mode != "range":
        # As in the qonnx package, the last axis decides.
        found = stuck_channels({name: of_axes[wanted[-1]] for name, of_axes in ends.items()})
    if report_mode == "zerostuck_channel":
        found = zero_channels(found)
    write_report(found, output_json)
    return found


def _axes(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--axes: '{text}' is no list of whole numbers") from None


def _pyplot() -> Any:
    require("matplotlib", needed_by="tensor-stats (or --plot=False)", extra="plot").use("Agg")
    return require("matplotlib.pyplot", needed_by="tensor-stats", extra="plot")


def _files(folder: Path, names: Iterable[str]) -> dict[str, list[Path]]:
    """Return tensor -> its files in order of their batches.

    A file is one tensor's: that with the longest name which its own name ends in.

    Raises:
        UsageError: The folder is missing, or holds no file of any of the tensors.
    """
    if not folder.is_dir():
        raise UsageError(f"'{folder}' is no folder")
    found: dict[str, list[tuple[int, Path]]] = {}
    known = sorted(names, key=len, reverse=True)
    for path in sorted(folder.glob("*.npy")):
        batch = re.search(r"_batch(\d+)$", path.stem)
        stem = path.stem[: batch.start()] if batch else path.stem
        owner = next((n for n in known if stem == n or stem.endswith(f"_{n}")), None)
        if owner is not None:
            found.setdefault(owner, []).append((int(batch[1]) if batch else 0, path))
    if not found:
        raise UsageError(f"'{folder}' holds no file NAME_batchN.npy of a tensor of the model")
    return {name: [path for _, path in sorted(pairs)] for name, pairs in found.items()}


def _ends(arrays: Sequence[Array], axis: int, name: str) -> tuple[Array, Array]:
    """Return the lowest and the highest values along an axis, over all arrays."""
    ranks = {array.ndim for array in arrays}
    if any(not -rank <= axis < rank for rank in ranks):
        raise UsageError(f"the recorded '{name}' has no axis {axis}")
    turned = [np.moveaxis(array, axis, 0) for array in arrays]
    flat = [array.reshape(array.shape[0], -1) for array in turned]
    if len({len(array) for array in flat}) > 1:
        raise UsageError(f"the files of '{name}' have other sizes along axis {axis}")
    joined = np.concatenate(flat, axis=1)
    if joined.shape[1] == 0:
        raise UsageError(f"the files of '{name}' hold no values")
    return joined.min(axis=1), joined.max(axis=1)


def _draw(pyplot: Any, ends: Mapping[str, Ends], folder: Path) -> None:
    for name, of_axes in ends.items():
        for axis, (low, high) in of_axes.items():
            places = range(len(low))
            height = max(2.0, len(low) / 3)
            figure, plot = pyplot.subplots(figsize=(5, height), layout="constrained")
            bars = plot.barh(places, high - low, left=low)
            plot.bar_label(bars, [f"{a:g} to {b:g}" for a, b in zip(low, high, strict=True)])
            plot.set(
                yticks=places, xlabel="range", ylabel="channel", title=f"{name}, axis {axis}"
            )
            path = folder / f"{name.replace('/', '_')}_axis{axis}.png"
            with replacing(path) as temporary:
                figure.savefig(temporary, format="png")
            pyplot.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool."""
    return run_tool(tensor_stats, argv)


if __name__ == "__main__":
    sys.exit(main())
