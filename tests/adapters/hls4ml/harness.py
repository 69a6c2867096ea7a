"""Export, convert with hls4ml, compile, predict, and compare with the executor."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import qonnx_hub as qh
from qonnx_hub.equivalence.inputs.generate import generate_inputs

Arrays = dict[str, np.ndarray]


def export(source: Any, folder: Path, **options: Any) -> Path:
    """Write the hls4ml folder of a source with the public API, its own check included."""
    qh.convert(source, folder, to="hls4ml", target_options=options)
    return folder


def stored(port: dict[str, Any], values: np.ndarray) -> np.ndarray:
    """Return values of the source in the layout of the folder: flat, or channels last."""
    if port["axes"] is not None:
        values = np.transpose(values, np.argsort(port["axes"]))
    return np.ascontiguousarray(values.reshape(len(values), *port["shape"][1:]))


def build(folder: Path) -> Any:
    """Return the folder's model as hls4ml converts and compiles it."""
    import hls4ml

    config = hls4ml.converters.parse_yaml_config(str(folder / "hls4ml_config.yml"))
    here = Path.cwd()
    os.chdir(folder)
    try:
        model = hls4ml.converters.convert_from_config(config)
        model.compile()
    finally:
        os.chdir(here)
    return model


def predict(model: Any, folder: Path, feeds: Arrays) -> list[np.ndarray]:
    """Return hls4ml's outputs in the source's order, one row per sample."""
    report = json.loads((folder / "report.json").read_text())
    inputs = [stored(port, feeds[port["source"]]) for port in report["inputs"]]
    rows = []
    for index in range(len(inputs[0])):
        # One sample a call: hls4ml flattens a batch of one, but not of several inputs.
        given = [np.ascontiguousarray(array[index : index + 1]) for array in inputs]
        found = model.predict(given[0][0] if len(given) == 1 else given)
        answers = found if isinstance(found, list) else [found]
        rows.append([np.asarray(answer).reshape(-1) for answer in answers])
    columns = [np.stack(column).astype(np.float64) for column in zip(*rows, strict=True)]
    return [columns[port["result"]] for port in report["outputs"]]


def expected(source: Any, folder: Path, feeds: Arrays) -> list[np.ndarray]:
    """Return the executor's outputs, in the folder's layout; before a Softmax, its input."""
    model = qh.load(source)
    report = json.loads((folder / "report.json").read_text())
    session = qh.Session(model)
    last = [node for node in model.graph if node.op_type == "Softmax"]
    if last:
        return [session.run(feeds, all_tensors=True)[last[0].inputs[0].name]]
    found = session.run(feeds)
    ports = report["outputs"]
    return [
        stored(port, found[port["source"]]).reshape(len(found[port["source"]]), -1)
        for port in ports
    ]


def compare(source: Any, folder: Path, feeds: Arrays, **options: Any) -> list[float]:
    """Return the largest difference of each output between the executor and hls4ml."""
    export(source, folder, **options)
    answers = predict(build(folder), folder, feeds)
    wanted = expected(source, folder, feeds)
    assert len(answers) == len(wanted)
    assert all(y.size and y.shape == a.shape for y, a in zip(wanted, answers, strict=True))
    assert any(np.ptp(y) > 0 for y in wanted)
    return [float(np.abs(a - y).max()) for a, y in zip(answers, wanted, strict=True)]


def samples(source: Any, count: int, seed: int = 0) -> Arrays:
    """Return random values, ties and limits of the first quantizers."""
    return generate_inputs(qh.load(source), count, seed)


def lattice(source: Any, count: int, reach: float, seed: int = 0) -> Arrays:
    """Return multiples of 2^-10 within a reach, on which ties of powers of two lie."""
    rng = np.random.default_rng(seed)
    return {
        str(value.name): (
            np.round(rng.uniform(-reach, reach, (count, *value.shape[1:])) * 2**10) / 2**10
        ).astype(np.float32)
        for value in qh.load(source).graph.inputs
    }


def anything(source: Any, count: int, reach: float, seed: int = 0) -> Arrays:
    """Return random numbers of all bits within a reach."""
    rng = np.random.default_rng(seed)
    return {
        str(value.name): rng.uniform(-reach, reach, (count, *value.shape[1:])).astype(
            np.float32
        )
        for value in qh.load(source).graph.inputs
    }


def merged(models: dict[str, onnx.ModelProto]) -> onnx.ModelProto:
    """Return one model of several side by side: hls4ml compiles them in one go."""
    whole = onnx.ModelProto()
    for name, model in models.items():
        part = onnx.compose.add_prefix(model, f"{name}_")
        if not whole.graph.node:
            whole.CopyFrom(part)
            continue
        for kind in ("node", "input", "output", "initializer", "value_info"):
            getattr(whole.graph, kind).extend(getattr(part.graph, kind))
    return whole
