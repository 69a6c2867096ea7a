"""Costs as pictures: bars per layer for one model, bits against operations for several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qonnx_hub.analysis.cost.cost import Cost
from qonnx_hub.io.atomic import replacing
from qonnx_hub_adapters.dependencies import require
from qonnx_hub_ir.errors import UsageError

_STAMPS = {"png": "Software", "svg": "Date", "pdf": "CreationDate"}
"""Format -> the entry by which two pictures of the same model would differ."""

_BARS = (
    ("macs", "MACs"),
    ("bops", "bit operations"),
    ("weight_bits", "weight bits"),
    ("activation_bits", "activation bits"),
)


def write_plot(costs: Sequence[Cost], path: str | Path) -> None:
    """Write a picture of the costs.

    Args:
        costs: One cost: a bar chart per layer. Several: a scatter of bits and operations.
        path: The file, .png, .svg or .pdf.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        UsageError: Another kind of file, or one that cannot be written.
    """
    target = Path(path)
    kind = target.suffix.lower().lstrip(".")
    if kind not in _STAMPS:
        raise UsageError(f"'{target}': a plot is a file named .png, .svg or .pdf")
    figures = require("matplotlib.figure", needed_by="a plot", extra="plot")
    figure = figures.Figure(figsize=(10, 8 if len(costs) == 1 else 6), layout="constrained")
    if len(costs) == 1:
        _draw_layers(figure, costs[0])
    else:
        _draw_models(figure, costs)
    matplotlib = require("matplotlib", needed_by="a plot", extra="plot")
    with replacing(target) as temporary, matplotlib.rc_context({"svg.hashsalt": "cost"}):
        figure.savefig(temporary, format=kind, metadata={_STAMPS[kind]: None})


def _draw_layers(figure: Any, cost: Cost) -> None:
    axes = figure.subplots(len(_BARS), 1, sharex=True)
    places = range(len(cost.layers))
    for area, (field, title) in zip(axes, _BARS, strict=True):
        area.bar(places, [getattr(layer, field) for layer in cost.layers], color="tab:blue")
        area.set_ylabel(title)
        area.grid(axis="y", alpha=0.3)
    names = [layer.name for layer in cost.layers]
    axes[-1].set_xticks(list(places), names, rotation=90, fontsize=7)
    figure.suptitle(f"{Path(cost.source).name}: cost by layer, convention {cost.convention}")


def _draw_models(figure: Any, costs: Sequence[Cost]) -> None:
    area = figure.subplots()
    for cost in costs:
        area.scatter(max(cost.weight_bits, 1), max(cost.bops, 1), color="tab:blue")
        area.annotate(
            Path(cost.source).stem,
            (max(cost.weight_bits, 1), max(cost.bops, 1)),
            xytext=(5, 4),
            textcoords="offset points",
            fontsize=8,
        )
    # Names stand to the right of their points.
    area.margins(x=0.2, y=0.1)
    area.set_xscale("log")
    area.set_yscale("log")
    area.set_xlabel("weight bits")
    area.set_ylabel("bit operations of one inference")
    area.grid(which="both", alpha=0.3)
    figure.suptitle(f"Bits and operations, convention {costs[0].convention}")
