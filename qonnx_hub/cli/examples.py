"""An example or two of verbs that run without a tool: shown below help, and run by a test."""

from __future__ import annotations

from collections.abc import Mapping

EXAMPLES: Mapping[str, tuple[str, ...]] = {
    "convert": (
        "qonnx-hub convert model.onnx -o model_qcdq.onnx --to qcdq",
        "qonnx-hub convert model.onnx project --to hls4ml",
        "qonnx-hub convert model.onnx -o for_finn.onnx --profile finn",
    ),
    "transform": (
        "qonnx-hub transform model.onnx -o clean.onnx -p cleanup",
        "qonnx-hub transform model.onnx -o batch8.onnx -p change_batch:batch=8",
    ),
    "check": (
        "qonnx-hub check model.onnx model_qcdq.onnx",
        "qonnx-hub check model.onnx model_qcdq.onnx --level proof --report page.html",
        "qonnx-hub check model.onnx model_qcdq.onnx for_finn.onnx --junit checks.xml",
        "qonnx-hub check model.onnx changed.onnx --data pixels.npy --labels labels.npy "
        "--preprocess scale=1/255 --max-accuracy-drop 0.5",
    ),
    "diff": (
        "qonnx-hub diff model.onnx model_qcdq.onnx",
        "qonnx-hub diff model.onnx changed.onnx --gen-script compare.py",
    ),
    "reduce": ("qonnx-hub reduce model.onnx changed.onnx -o bug_report",),
    "report": ("qonnx-hub report bug.zip check model.onnx changed.onnx",),
    "certify": ("qonnx-hub certify model.onnx model_qcdq.onnx -o certificate.json",),
    "verify": ("qonnx-hub verify certificate.json model.onnx model_qcdq.onnx",),
    "run": (
        "qonnx-hub run model.onnx --inputs inputs.npz -o outputs.npz",
        "qonnx-hub run model.onnx --samples 8 --save-inputs x.npz -o y.npz",
    ),
    "inspect": (
        "qonnx-hub inspect model.onnx --ranges",
        "qonnx-hub inspect model.onnx --export-ints weights.h",
    ),
    "lint": (
        "qonnx-hub lint model_qcdq.onnx --target ort --sarif lint.sarif",
        "qonnx-hub lint model.onnx --target ort --write-baseline known.json",
        "qonnx-hub lint model.onnx --target ort --baseline known.json",
    ),
    "cost": ("qonnx-hub cost model.onnx model_qcdq.onnx",),
    "merge": ("qonnx-hub merge first.onnx second.onnx -o both.onnx",),
    "extract": ("qonnx-hub extract model.onnx -o head.onnx --to TENSOR",),
    "split": ("qonnx-hub split model.onnx first_part.onnx second_part.onnx --at TENSOR",),
    "view": ("qonnx-hub view model.onnx",),
    "routes": ("qonnx-hub routes model.onnx",),
    "bench": ("qonnx-hub bench model.onnx --batch 1 --batch 8 --seconds 0.1",),
    "formats": ("qonnx-hub formats --json formats.json", "qonnx-hub formats qcdq"),
}
"""Verb -> commands."""


def epilog(verb: str) -> str | None:
    """Return the examples as the help of a verb shows them, one to a line; if it has any."""
    # An empty line keeps rich from joining two.
    return "\n\n".join(("Examples:", *EXAMPLES[verb])) if verb in EXAMPLES else None
