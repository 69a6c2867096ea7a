"""The schemas of all reports, from reports: ``python -m tests.report_schemas`` writes them.

What a report holds today is what its schema says; a key that goes, or changes its type, needs
a new version, and a test refuses what the published schema does not allow.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

import qonnx_hub as qh
from qonnx_hub.equivalence.build_stages import StageResult, StagesReport
from qonnx_hub.equivalence.verdicts import Verdict
from qonnx_hub.reporting.report import Report
from tests.support import model_of, quant_node

FOLDER = Path(qh.__file__).with_name("schemas")
MAPS = {
    *("environment", "sizes", "feeds", "nonzero", "required_tolerance", "options", "counts"),
    *(
        "inputs",
        "outputs",
        "values",
        "operators",
        "metadata",
        "totals",
        "certificate",
        "assumptions",
        "accuracy",
    ),
}
"""Keys of objects whose keys are names of the user's, or that say themselves what they are."""


def net(step: float = 0.25, name: str = "y") -> onnx.ModelProto:
    """A quantized layer with a bias, a bend and an output quantizer."""
    weight = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    nodes = [
        quant_node("x", "xq", scale="t"),
        quant_node("w", "wq", narrow=1),
        helper.make_node("MatMul", ["xq", "wq"], ["m"], "product"),
        helper.make_node("Relu", ["m"], ["r"], "act"),
        quant_node("r", name, signed=0),
    ]
    constants = {"s": 0.25, "t": step, "z": 0.0, "b": 4.0, "w": weight}
    return model_of(nodes, {"x": ("N", 3)}, [name], constants)


def sample_reports(folder: Path) -> Iterable[Report]:
    """Give reports of every kind, of models that agree and of models that do not."""
    a, b, x = net(), net(0.5), np.linspace(-1, 1, 24, dtype=np.float32).reshape(8, 3)
    labels = np.arange(8) % 4
    w = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    product = [helper.make_node("MatMul", ["x", "w"], ["y"], "product")]
    plain, other = (
        model_of(product, {"x": ("N", 3)}, ["y"], {"w": weight}) for weight in (w, -w)
    )
    for one, two in ((plain, plain), (plain, other), (plain, a)):
        yield qh.check(one, two, samples=8)
    yield qh.check(plain, {"y": x @ w}, x)
    yield qh.inspect(plain, ranges=True, weights=True)
    yield qh.inspect(plain)
    yield qh.convert(plain, to="qcdq", samples=4)
    yield qh.cost(plain)
    yield qh.lint(plain, "finn")
    yield qh.diff(plain, a)
    yield qh.check(a, a, samples=16)
    yield qh.check(a, b, samples=16)
    yield qh.check(a, b, samples=16, level="proof")
    yield qh.check(a, b, x, labels=labels, max_accuracy_drop=0.5, top_k=2)
    yield qh.check(a, b, x, labels=labels * 1.0, metric="auc", level="output")
    yield qh.check(a, b, x, metric="r2", score=True, level="output")
    yield qh.check_many(a, [a, b], samples=8)
    yield qh.reduce(a, b, samples=16)
    yield qh.reduce(a, b, samples=16, folder=folder / "bug")
    for to in ("qonnx", "qcdq"):
        yield qh.convert(a, folder / f"{to}.onnx", to=to, samples=8)
    yield qh.convert(a, to="qcdq", check=False)
    yield qh.inspect(a, ranges=True, weights=True)
    yield qh.lint(a, "ort")
    yield qh.lint(a, "hls4ml")
    yield qh.cost(a)
    yield qh.diff(a, b)
    yield qh.diff(a, a)
    yield qh.transform(a, ["cleanup"])
    yield qh.transform(a, ["change_batch:batch=4"])
    yield qh.routes(a, samples=4)
    words = ("EQUAL", "TIES", "DIFFERENT", "UNDECIDED", "NOT RUN")
    stages = tuple(StageResult("step_tidy_up", word) for word in words)
    yield StagesReport("model.onnx", "intermediate_models", 32, stages)
    yield qh.bench(a, batches=(1, 3), backends=["numpy"], seconds=0)


def schema_of(values: list[Any], key: str = "") -> dict[str, Any]:
    """Return what allows all values: their types, and what objects and lists hold."""
    if key == "verdict":
        named = [str(value) for value in values if value is not None]
        words = list(dict.fromkeys([*map(str, Verdict), *named]))
        return {"enum": [*words, None] if None in values else words}
    kinds: set[str] = set()
    found: dict[str, Any] = {}
    objects = [value for value in values if isinstance(value, dict)]
    lists = [value for value in values if isinstance(value, list)]
    for value in values:
        if isinstance(value, float):
            # Infinities and NaN are texts.
            kinds |= {"number", "string"}
        names = {bool: "boolean", int: "integer", str: "string", dict: "object", list: "array"}
        kinds.add("null" if value is None else names.get(type(value), "number"))
    if "number" in kinds:
        kinds.discard("integer")
    if not kinds - {"null"}:
        return {}
    found["type"] = min(kinds) if len(kinds) == 1 else sorted(kinds)
    if objects and key not in MAPS:
        names_ = list(dict.fromkeys(name for one in objects for name in one))
        found["required"] = [n for n in names_ if all(n in one for one in objects)]
        found["properties"] = {
            n: schema_of([one[n] for one in objects if n in one], n) for n in names_
        }
    if lists and (items := [item for one in lists for item in one]):
        found["items"] = schema_of(items, f"{key}[]")
    return found


def schemas() -> dict[str, str]:
    """Return file name -> text of the schema, of every kind of report."""
    documents: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for report in sample_reports(Path(folder)):
            documents.setdefault(report.schema, []).append(json.loads(report.to_json()))
    error = {"kind": "UsageError", "message": "", "exit_code": 2, "reasons": [""]}
    documents["error/1"] = [{"schema": "qonnx-hub/error/1", "error": error}]
    found = {}
    for name, values in documents.items():
        schema = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": f"https://github.com/fastmachinelearning/qonnx_hub/schemas/{name}",
            "title": f"qonnx-hub: JSON of a report, {name.replace('/', ', version ')}",
            **schema_of(values),
        }
        schema["properties"]["schema"] = {"const": f"qonnx-hub/{name}"}
        text = json.dumps(schema, indent=1)
        found[f"{name.replace('/', '-')}.json"] = text + "\n"
    return found


if __name__ == "__main__":
    for file, text in schemas().items():
        (FOLDER / file).write_text(text, encoding="utf-8")
        print(file)
