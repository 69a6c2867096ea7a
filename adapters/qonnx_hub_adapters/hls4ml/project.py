"""The files beside the model: config, report, and the script that builds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from qonnx_hub_adapters.hls4ml.builder import result_places
from qonnx_hub_adapters.hls4ml.lowering import Lowered, Port, stored_sizes
from qonnx_hub_adapters.hls4ml.options import Hls4mlOptions
from qonnx_hub_adapters.hls4ml.yaml_text import to_yaml

MODEL = "model.onnx"
CONFIG = "hls4ml_config.yml"
REPORT = "report.json"
SCRIPT = "build.py"

_SCRIPT = '''\
"""Convert, compile and build: python build.py [--synthesize]. Needs hls4ml 1.3 and g++."""

import os, sys

os.chdir(os.path.dirname(os.path.abspath(__file__)))
import hls4ml

model = hls4ml.converters.convert_from_config("hls4ml_config.yml")
model.compile()  # model.predict(x) is bit-accurate from here on
if "--synthesize" in sys.argv:
    model.build()
'''


def project_config(options: Hls4mlOptions, hls: Mapping[str, Any]) -> dict[str, Any]:
    """Return the whole config: what hls4ml's command line and Python API both read."""
    config: dict[str, Any] = {
        "OnnxModel": MODEL,
        "OutputDir": "hls4ml_prj",
        "ProjectName": options.project,
        "Backend": options.backend,
        "IOType": options.io_type,
        "ClockPeriod": options.clock_period,
    }
    if options.device():
        config["Part"] = options.device()
    config["HLSConfig"] = hls
    return config


def _port(port: Port, stored: str, kind: str) -> dict[str, Any]:
    return {
        "source": port.name,
        "source_shape": list(port.shape),
        "name": stored,
        "shape": list(stored_sizes(port)),
        "axes": None if port.flat else list(port.axes),
        "type": kind,
    }


def report(
    lowered: Lowered,
    names: tuple[Sequence[str], Sequence[str]],
    types: tuple[Sequence[str], Sequence[str]],
    notes: Sequence[str],
) -> dict[str, Any]:
    """Return what was written, as data.

    The axes of an input or output say where each axis of the source is stored; there are none
    where the source's elements are stored in one row. The result of an output is its place
    among what hls4ml's ``predict`` returns.

    Args:
        lowered: The lowered graph and what became of the source.
        names: Of inputs and of outputs in the file.
        types: Of inputs and of outputs in the config.
        notes: Sentences for the user.
    """
    inputs, outputs = (
        [_port(*given) for given in zip(ports, called, kinds, strict=True)]
        for ports, called, kinds in zip(
            (lowered.inputs, lowered.outputs), names, types, strict=True
        )
    )
    for output, place in zip(outputs, result_places(lowered.model.graph), strict=True):
        output["result"] = place
    return {
        "inputs": inputs,
        "outputs": outputs,
        "reordered": lowered.reordered,
        "quantizers": [asdict(record) for record in lowered.records],
        "notes": list(notes),
    }


def files(config: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the files beside the model by name."""
    return {
        CONFIG: to_yaml(config).encode(),
        REPORT: (json.dumps(told, indent=2) + "\n").encode(),
        SCRIPT: _SCRIPT.encode(),
    }
