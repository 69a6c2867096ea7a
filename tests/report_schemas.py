"""The schemas of all reports: ``python -m tests.report_schemas`` writes them.

Reports say which keys there are, and the types of their classes what each may hold, also where
no report fills it. A key that goes, or changes its type, needs a new version, and a test
refuses what the published schema does not allow.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import tempfile
import types
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

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
    if key == "required_tolerance":
        found["additionalProperties"] = {"type": ["number", "string"]}
    if objects and key not in MAPS:
        names_ = list(dict.fromkeys(name for one in objects for name in one))
        found["required"] = [n for n in names_ if all(n in one for one in objects)]
        found["properties"] = {
            n: schema_of([one[n] for one in objects if n in one], n) for n in names_
        }
    if lists and (items := [item for one in lists for item in one]):
        found["items"] = schema_of(items, f"{key}[]")
    return found


def typed_schema(kind: Any, known: Mapping[Any, dict[str, Any]]) -> dict[str, Any]:
    """Return what a type allows in JSON; {} where the type does not say.

    Args:
        kind: A type, or what an annotation names.
        known: Classes whose schemas are known.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if kind in known:
        return {"$ref": f"#/$defs/{kind.__name__}"}
    if kind in _SIMPLE:
        return {"type": _SIMPLE[kind]}
    if origin is Literal:
        return {"enum": [*inner]}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"enum": [str(one.value) for one in kind]}
    if origin in (Union, types.UnionType):
        found: dict[str, Any] = {}
        for one in inner:
            found = united(found, typed_schema(one, known))
        return found
    if origin in (tuple, list, Sequence):
        items: dict[str, Any] = {}
        for one in inner:
            items = items if one is Ellipsis else united(items, typed_schema(one, known))
        return {"type": "array"} | ({"items": items} if items else {})
    if origin in (dict, Mapping):
        values = typed_schema(inner[1], known)
        return {"type": "object"} | ({"additionalProperties": values} if values else {})
    if not dataclasses.is_dataclass(kind) or not isinstance(kind, type):
        return {}
    hints = get_type_hints(kind, localns=_names())
    fields = [field.name for field in dataclasses.fields(kind)]
    properties = {name: typed_schema(hints[name], known) for name in fields}
    return {"type": "object", "required": fields, "properties": properties}


_SIMPLE: dict[Any, Any] = {
    int: "integer",
    str: "string",
    bool: "boolean",
    type(None): "null",
    # Infinities and NaN are texts.
    float: ["number", "string"],
}


@functools.cache
def _names() -> dict[str, Any]:
    """Return the classes that annotations name, those imported for types only as well."""
    modules = [m for name, m in sys.modules.items() if name.startswith("qonnx_hub")]
    return {
        name: one for m in modules for name, one in vars(m).items() if isinstance(one, type)
    }


def united(a: dict[str, Any], b: dict[str, Any]) -> dict[str, Any]:
    """Return what allows everything that one of two schemas does; {} says nothing."""
    if not a or not b:
        return a or b
    named = [one for one in (a, b) if "$ref" in one or "anyOf" in one]
    if named:
        # A schema by its name says all, beside that there may be none.
        is_optional = any("null" in _kinds(one) for one in (a, b)) or "anyOf" in named[0]
        ref = named[0].get("anyOf", [named[0]])[0]
        return {"anyOf": [ref, {"type": "null"}]} if is_optional else ref
    null: dict[str, Any] = {"type": "null"}
    if "enum" in a or "enum" in b:
        words = [a.get("enum", [None]), b.get("enum", [None])]
        if any("enum" not in one and one != null for one in (a, b)):
            return a if "enum" in a else b
        return {"enum": list(dict.fromkeys([*words[0], *words[1]]))}
    kinds = {kind for one in (a, b) for kind in _kinds(one)}
    if "number" in kinds:
        kinds.discard("integer")
    found = {**a, **b, "type": min(kinds) if len(kinds) == 1 else sorted(kinds)}
    if "items" in a and "items" in b:
        found["items"] = united(a["items"], b["items"])
    if "properties" in a and "properties" in b:
        # The keys are those of reports; classes that say theirs themselves have others.
        found["required"], found["properties"] = (
            a["required"],
            {
                name: united(one, b["properties"].get(ALIASES.get(name, name), {}))
                for name, one in a["properties"].items()
            },
        )
    elif "additionalProperties" in found:
        # A mapping of the user's names, or of numbers.
        found.pop("properties", None)
        found.pop("required", None)
    return found


def _kinds(schema: dict[str, Any]) -> list[str]:
    kinds = schema.get("type", [])
    return [kinds] if isinstance(kinds, str) else list(kinds)


ALIASES = {
    "source_itself": "own",
    "onnxruntime": "ort",
    "onnxruntime_executor": "ort_executor",
    "accumulated": "comparison",
}
"""Key of a report's JSON -> the field that it is of, where that is called otherwise."""


def schemas() -> dict[str, str]:
    """Return file name -> text of the schema, of every kind of report."""
    documents: dict[str, list[dict[str, Any]]] = {}
    classes: dict[str, type] = {}
    with tempfile.TemporaryDirectory() as folder:
        for report in sample_reports(Path(folder)):
            documents.setdefault(report.schema, []).append(json.loads(report.to_json()))
            classes[report.schema] = type(report)
    error = {"kind": "UsageError", "message": "", "exit_code": 2, "reasons": [""]}
    documents["error/1"] = [{"schema": "qonnx-hub/error/1", "error": error}]
    found = {}
    known: dict[Any, dict[str, Any]] = {}
    # Other reports hold checks.
    for name, values in sorted(documents.items(), key=lambda item: item[0] != "check/1"):
        body = schema_of(values)
        if name in classes:
            body = united(body, typed_schema(classes[name], known))
            inner = {k: v for k, v in body["properties"].items() if k != "schema"}
            required = [k for k in body["required"] if k != "schema"]
            known[classes[name]] = {**body, "properties": inner, "required": required}
        schema = {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": f"https://github.com/fastmachinelearning/qonnx_hub/schemas/{name}",
            "title": f"qonnx-hub: JSON of a report, {name.replace('/', ', version ')}",
            **body,
        }
        schema["properties"]["schema"] = {"const": f"qonnx-hub/{name}"}
        used = {k.__name__: v for k, v in known.items() if k is not classes.get(name)}
        text = json.dumps(schema, indent=1)
        defined = {k: v for k, v in used.items() if f'"#/$defs/{k}"' in text}
        if defined:
            text = json.dumps({**schema, "$defs": defined}, indent=1)
        found[f"{name.replace('/', '-')}.json"] = text + "\n"
    return found


if __name__ == "__main__":
    for file, text in schemas().items():
        (FOLDER / file).write_text(text, encoding="utf-8")
        print(file)
