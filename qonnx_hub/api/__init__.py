"""The verbs, by what they do: read, convert, compare, analyse."""

from qonnx_hub.api.analysing import cost, diff, inspect, lint
from qonnx_hub.api.comparing import bench, check, check_many, reduce, run
from qonnx_hub.api.converting import convert, routes, transform
from qonnx_hub.api.reading import load, load_to_run, save
from qonnx_hub.conversion.report import ConversionReport
from qonnx_hub.equivalence.verdicts import Verdict
from qonnx_hub_ir.errors import ConversionError

__all__ = [
    "ConversionError",
    "ConversionReport",
    "Verdict",
    "bench",
    "check",
    "check_many",
    "convert",
    "cost",
    "diff",
    "inspect",
    "lint",
    "load",
    "load_to_run",
    "reduce",
    "routes",
    "run",
    "save",
    "transform",
]
