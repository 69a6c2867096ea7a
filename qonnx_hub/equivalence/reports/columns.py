"""What the tables of a report show, the same as text and in HTML."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qonnx_hub.equivalence.comparison.compare import TensorComparison

if TYPE_CHECKING:
    from qonnx_hub.equivalence.reports.report import LayerRow

OUTPUT_COLUMNS = ("output", "verdict", "", "max abs", "max rel", "max LSB")
LAYER_COLUMNS = ("layer", "accumulated", "max abs", "LSB", "isolated", "max abs", "LSB")


def format_steps(comparison: TensorComparison | None) -> str:
    """Return the largest difference in steps, "-" where there is none to tell."""
    steps = None if comparison is None else comparison.max_lsb
    return "-" if steps is None else f"{steps:.6g}"


def output_cells(output: TensorComparison) -> list[str]:
    """Return the cells of :data:`OUTPUT_COLUMNS` for an output."""
    return [
        output.name if output.name == output.other else f"{output.name} / {output.other}",
        str(output.verdict),
        output.words(),
        f"{output.max_abs:.6g}",
        f"{output.max_rel:.3g}",
        format_steps(output),
    ]


def layer_cells(row: LayerRow) -> list[str]:
    """Return the cells of :data:`LAYER_COLUMNS` for a layer."""
    cells = [row.source]
    for error in (row.comparison, row.isolated):
        if error is None:
            cells += ["-", "-", "-"]
        else:
            counts = f"{error.differing} of {error.count}"
            cells += [counts, f"{error.max_abs:.3g}", format_steps(error)]
    return cells
