"""Draws the staircases of the page on arithmetic, with the executor's own numbers.

    python docs/pictures.py

writes ``docs/pictures/steps.svg``. The picture is committed; a test draws it again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from qonnx_hub_ir.quantizers import IntQuant, Rounding
from qonnx_hub_ir.semantics import quantize

PICTURE = Path(__file__).resolve().parent / "pictures" / "steps.svg"
LOW, HIGH, STEP = -3.0, 3.0, 1 / 64
WIDTH, HEIGHT, GAP = 220, 220, 40


def quantizer(**changes: object) -> IntQuant:
    """Return a signed quantizer of three bits with step 1, but for what is given."""
    one = np.float32(1)
    base = {"scale": one, "zero_point": np.float32(0), "bits": np.float32(3)}
    return IntQuant(**{**base, "signed": True, "narrow": False, **changes})  # type: ignore[arg-type]


SHOWN = (
    ("QONNX, zero point 1", quantizer(zero_point=np.float32(1))),
    (
        "ONNX, zero point 1",
        quantizer(zero_point=np.float32(1), zero_point_after_rounding=True),
    ),
    ("HGQ2, TRN: FLOOR", quantizer(rounding=Rounding.FLOOR)),
)


def picture() -> str:
    """Return the picture: one staircase for each arithmetic, values at ties as dots."""
    wide = len(SHOWN) * (WIDTH + GAP) + GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {HEIGHT + 70}" '
        'role="img" font-family="sans-serif" font-size="13">',
        "<style>svg{color:#222;background:#fff}</style>",
        "<title>Staircases of three arithmetics, step 1, three bits</title>",
    ]
    for index, (title, quant) in enumerate(SHOWN):
        parts += _panel(GAP + index * (WIDTH + GAP), title, quant)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(left: int, title: str, quant: IntQuant) -> list[str]:
    def place(x: float, y: float) -> tuple[float, float]:
        across = left + (x - LOW) / (HIGH - LOW) * WIDTH
        return round(across, 1), round(30 + (HIGH - y) / (HIGH - LOW) * HEIGHT, 1)

    inside = np.arange(LOW, HIGH + STEP / 2, STEP, dtype=np.float32)
    # Beside the ties only: what happens on one is a dot.
    inside = inside[np.abs(inside % 1 - 0.5) > STEP / 2]
    steps = [
        place(float(x), float(y)) for x, y in zip(inside, quantize(inside, quant), strict=True)
    ]
    ties = np.arange(LOW + 0.5, HIGH, 1, dtype=np.float32)
    dots = [
        place(float(x), float(y)) for x, y in zip(ties, quantize(ties, quant), strict=True)
    ]
    lines = [f'<text x="{left}" y="18" fill="currentColor">{title}</text>']
    for whole in range(int(LOW), int(HIGH) + 1):
        (x0, y0), (x1, y1) = place(LOW, whole), place(HIGH, whole)
        lines.append(f'<path d="M{x0} {y0}H{x1}" stroke="#ddd"/>')
        (x0, y0), (x1, y1) = place(whole, LOW), place(whole, HIGH)
        lines.append(f'<path d="M{x0} {y0}V{y1}" stroke="#ddd"/>')
        lines.append(f'<text x="{x0 - 4}" y="{y0 + 16}" fill="#555">{whole}</text>')
    ends = [steps[0], *steps, steps[-1]]
    corners = [
        here
        for before, here, after in zip(ends, ends[1:], ends[2:], strict=False)
        if not before[1] == here[1] == after[1] or here in (steps[0], steps[-1])
    ]
    path = " ".join(f"{x},{y}" for x, y in corners)
    lines.append(f'<polyline points="{path}" fill="none" stroke="#3949ab" stroke-width="2"/>')
    lines += [f'<circle cx="{x}" cy="{y}" r="4" fill="#c62828"/>' for x, y in dots]
    return lines


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
    print(PICTURE)
