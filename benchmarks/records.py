"""Records what the product answers for real models, and compares two such records.

    python -m benchmarks.records OUT.json [--quick] [--shared DIR]
    python -m benchmarks.records --compare A.json B.json

A record is the answer of one verb for one model (and one form, target or pass): its values,
its texts and the digests of the files it wrote, kept apart, so that a comparison tells another
wording from another result. Errors are answers as well; one that is no HubError is recorded
as a "traceback". Seconds, folders, addresses and the environment are left out: two runs of one
version write the same bytes. Only public calls are used, so that versions with different inner
modules compare.

The models are the ONNX files below ``DIR/models`` and ``DIR/corpus`` (``../shared`` by
default), the Keras files there where QKeras and tf2onnx are installed, and networks of
:mod:`benchmarks.nets`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, TypeAlias

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # sums depend on how many threads share them

import numpy as np
import onnx

import qonnx_hub as qh
from benchmarks import records_plan as plan
from benchmarks.records_plan import Source
from qonnx_hub_ir.errors import HubError

Files: TypeAlias = dict[str, dict[str, str]]
Answer: TypeAlias = tuple[Any, Files]
"""What a verb says, as plain data, and what it wrote."""

SHARED = Path(__file__).resolve().parents[1].parent / "shared"
BETWEEN = " | "

# What is said in sentences, wherever it occurs; in an error, its message.
_TEXT_KEYS = frozenset(
    {"assumptions", "effect", "inputs", "message", "notes", "quantizer", "reason"}
    | {"remedy", "rule", "summary", "unmatched", "words"}
)
_LEFT_OUT = frozenset({"seconds", "environment"})
_LAYERS = ("Conv", "Gemm", "MatMul", "ConvTranspose")


@dataclass(slots=True)
class Recorder:
    """Collects answers; ``folder`` is for files that are written on the way."""

    folder: Path
    shared: Path
    records: dict[str, dict[str, Any]] = field(default_factory=dict)

    def take(self, key: tuple[str, ...], ask: Callable[[Path], Answer]) -> Path | None:
        """Record one answer; return the folder of what was written, ``None`` after errors."""
        name = BETWEEN.join(key)
        if name in self.records:
            raise ValueError(f"recorded twice: {name}")
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        target = self.folder / digest
        target.mkdir()
        failed = False
        try:
            data, files = ask(target)
        except HubError as error:
            data, files, failed = _refusal(error), {}, True
        except Exception as error:  # a defect is an answer, too: that is what is recorded
            fault = {"type": type(error).__name__, "message": str(error)}
            data, files, failed = {"traceback": fault}, {}, True
        texts: dict[str, str] = {}
        values = self._split(data, "", False, texts)
        record = {"values": values, "texts": texts, "files": files}
        self.records[name] = {part: what for part, what in record.items() if what}
        return None if failed else target

    def _split(self, data: Any, place: str, words: bool, texts: dict[str, str]) -> Any:
        """Return the values of plain data; its texts go, by their places, into ``texts``."""
        if isinstance(data, Mapping):
            found = {
                str(key): self._split(item, f"{place}/{key}", key in _TEXT_KEYS, texts)
                for key, item in data.items()
                if key not in _LEFT_OUT
            }
            return {key: item for key, item in found.items() if item is not _TEXT}
        if isinstance(data, (list, tuple)):
            items = [self._split(x, f"{place}[{i}]", words, texts) for i, x in enumerate(data)]
            return _TEXT if words and all(x is _TEXT for x in items) else items
        if isinstance(data, Enum):
            return data.value
        if isinstance(data, np.generic):
            data = data.item()
        if isinstance(data, float) and not np.isfinite(data):
            return str(data)
        if not isinstance(data, str):
            return data
        if words:
            texts[place] = self._scrubbed(data)
            return _TEXT
        return self._scrubbed(data)

    def _scrubbed(self, text: str) -> str:
        """Return a text without what differs from run to run."""
        text = re.sub(re.escape(str(self.folder)) + r"/[0-9a-f]{16}\b", "TEMPORARY", text)
        for folder, word in ((self.folder, "TEMPORARY"), (self.shared, "SHARED")):
            text = text.replace(str(folder), word)
        text = re.sub(r"\b0x[0-9a-f]{6,}\b", "0x", text)
        return re.sub(rf"(?<![\w.]){re.escape(qh.__version__)}(?![\w.])", "VERSION", text)


_TEXT = object()


def _refusal(error: HubError) -> dict[str, Any]:
    """Return an error as data: its kind and nodes are values, its sentences texts."""
    data: dict[str, Any] = {"error": type(error).__name__, "message": str(error)}
    gaps, issues = getattr(error, "gaps", ()), getattr(error, "issues", ())
    keys = ("node", "op", "reason", "remedy")
    data["gaps"] = [{key: getattr(gap, key) for key in keys} for gap in gaps]
    data["issues"] = [{"where": issue.where, "rule": issue.rule} for issue in issues]
    return data


def digests(folder: Path) -> tuple[dict[str, Any], Files]:
    """Return what lies in a folder: the content of JSON files, and digests of all files.

    The digest "graph" of an ONNX file leaves out metadata and descriptions.
    """
    contents: dict[str, Any] = {}
    found: Files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name, data = path.relative_to(folder).as_posix(), path.read_bytes()
        found[name] = {"sha256": hashlib.sha256(data).hexdigest()}
        if path.suffix == ".json":
            contents[name] = json.loads(data)
        elif path.suffix == ".onnx":
            found[name]["graph"] = _graph_digest(onnx.load_from_string(data))
    return contents, found


def _graph_digest(model: onnx.ModelProto) -> str:
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()


def record_model(recorder: Recorder, source: Source, loaded: Any) -> None:
    """Record what the verbs that write nothing say of a model."""
    name, path = source.name, source.path
    asked = path if loaded is None else loaded

    def run(_: Path) -> Answer:
        answers = qh.run(asked, plan.random_feeds(asked))
        shown = {
            key: {
                "dtype": array.dtype.name,
                "shape": array.shape,
                "sha256": hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest(),
            }
            for key, array in answers.items()
        }
        return shown, {}

    if loaded is not None:
        recorder.take(("run", name), run)
    recorder.take(("inspect", name), lambda _: (qh.inspect(asked).to_dict(), {}))
    recorder.take(
        ("inspect", name, "ranges"), lambda _: (qh.inspect(asked, ranges=True).to_dict(), {})
    )
    for convention in plan.CONVENTIONS:
        recorder.take(
            ("cost", name, convention),
            lambda _, c=convention: (qh.cost(asked, c).to_dict(), {}),
        )
    whole = loaded if source.options else path
    for target in plan.TARGETS:
        recorder.take(
            ("lint", name, target), lambda _, t=target: (qh.lint(whole, t).to_dict(), {})
        )


def record_conversion(
    recorder: Recorder,
    source: Source,
    label: str,
    options: Mapping[str, Any],
    kind: str = "convert",
    check: bool = False,
) -> Path | None:
    """Record a conversion, and where it is refused, that to a near form; return the file."""
    folder = options["to"] == "hls4ml"

    def ask(target: Path, **more: Any) -> Answer:
        path = target / ("project" if folder else "model.onnx")
        given = {**options, **source.options, **more}
        report = qh.convert(source.path, path, check=check, **given)
        contents, files = digests(target)
        return {"report": report.to_dict(), "contents": contents}, files

    written = recorder.take((kind, source.name, label), ask)
    if written is None:
        written = recorder.take(
            (kind, source.name, label, "lossy"), lambda target: ask(target, allow_lossy=True)
        )
    if written is None:
        return None
    return written / "project" / "model.onnx" if folder else written / "model.onnx"


def record_check(
    recorder: Recorder, key: tuple[str, ...], a: Any, b: Any, level: str = "layer"
) -> None:
    """Record whether two models agree, and the cause where they do not."""

    def ask(_: Path) -> Answer:
        result = qh.check(a, b, level=level)
        cause = None if result.cause is None else str(result.cause)
        return {"agrees": bool(result), "cause": cause, **result.to_dict()}, {}

    recorder.take(("check", *key, level), ask)


def record_pairs(recorder: Recorder, source: Source, levels: tuple[str, ...]) -> None:
    """Record the checked conversions of a model, and checks of the files by themselves."""
    for form in plan.PAIRS[source.name]:
        options = plan.FORMS[form]
        path = record_conversion(recorder, source, form, options, "convert-checked", True)
        if path is not None:
            for level in levels:
                record_check(recorder, (source.name, form), source.path, str(path), level)


def record_faults(recorder: Recorder, source: Source, levels: tuple[str, ...]) -> None:
    """Record checks of a model against itself with one fault."""
    for fault, model in plan.faults(onnx.load(source.path)):
        for level in levels:
            record_check(recorder, (source.name, f"fault: {fault}"), source.path, model, level)


def record_passes(recorder: Recorder, source: Source, loaded: Any) -> None:
    """Record what each pass by itself makes of a model, compared and written."""
    words = {"input": "", "layer": "", "mask": ""}
    if loaded is not None:
        words = {"input": loaded.graph.inputs[0].name, **_mask(recorder.folder, loaded)}
    steps = [text for name in qh.passes.names() for text in plan.STEPS.get(name, (name,))]
    for step in (*steps, *plan.PIPELINES):
        text = step.format(**words) if "{" in step else step

        def ask(target: Path, text: str = text) -> Answer:
            report = qh.transform(source.path, [text], target / "model.onnx", check=True)
            _, files = digests(target)
            return report.to_dict(), files

        recorder.take(("transform", source.name, step), ask)


def _mask(folder: Path, loaded: Any) -> dict[str, str]:
    """Return the name of the first layer and a file with a mask for its channels."""
    for node in loaded.graph:
        if node.op_type in _LAYERS:
            shape = node.outputs[0].shape
            channels = shape[-1 if node.op_type in {"Gemm", "MatMul"} else 1]
            path = folder / "mask.json"
            path.write_text(json.dumps([int(i % 3 > 0) for i in range(channels)]))
            return {"layer": node.name, "mask": str(path)}
    raise ValueError("a model without layers")


def record_all(recorder: Recorder, quick: bool) -> None:
    """Record everything; what was written for one model is removed before the next."""
    found = list(plan.sources(recorder.shared, recorder.folder, quick))
    missing = {*plan.PAIRS, *plan.FAULTY, *plan.TRANSFORMED} - {
        source.name for source in found
    }
    if missing:
        raise SystemExit(f"no such models in {recorder.shared}: {', '.join(sorted(missing))}")
    pairs = [*plan.PAIRS][: plan.QUICK_PAIRS if quick else None]
    faulty, transformed = (
        names[: plan.QUICK_OF_EACH if quick else None]
        for names in (plan.FAULTY, plan.TRANSFORMED)
    )
    levels = ("layer",) if quick else ("layer", "proof")
    for name in qh.passes.names():
        recorder.take(("pass", name), lambda _, n=name: (_described(n), {}))
    for source in found:
        loaded = record_load(recorder, source)
        record_model(recorder, source, loaded)
        for form, options in plan.FORMS.items():
            path = record_conversion(recorder, source, form, options)
            if path is not None and loaded is not None:
                recorder.take(
                    ("diff", source.name, form),
                    lambda _, a=loaded, b=path: (qh.diff(a, str(b)).to_dict(), {}),
                )
        if source.name in pairs:
            record_pairs(recorder, source, levels)
        if source.name in faulty:
            record_faults(recorder, source, levels)
        if source.name in transformed:
            record_passes(recorder, source, loaded)
            for label, options in plan.OPTIONS.items():
                record_conversion(recorder, source, label, options)
        for path in recorder.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)


def _described(name: str) -> dict[str, Any]:
    about = qh.passes.describe(name)
    return {
        "effect of values": about.effect,
        "options": about.options,
        "summary": about.summary,
    }


def record_load(recorder: Recorder, source: Source) -> Any:
    """Record how a source is read and return it; after errors ``None``."""
    found: list[Any] = []

    def ask(_: Path) -> Answer:
        found.append(qh.load(source.path, **source.options))
        return {v.name: f"{v.dtype}{v.shape}" for v in found[0].graph.inputs}, {}

    recorder.take(("load", source.name), ask)
    return found[0] if found else None


def write(path: Path, shared: Path, quick: bool) -> None:
    """Record everything into a file, one line per record, and print how many of each kind."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(Path(folder).resolve(), shared.resolve())
        record_all(recorder, quick)
    lines = (
        f"{json.dumps(name)}: {json.dumps(record, sort_keys=True, allow_nan=False)}"
        for name, record in sorted(recorder.records.items())
    )
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    kinds = Counter(name.split(BETWEEN)[0] for name in recorder.records)
    for kind, count in sorted(kinds.items()):
        print(f"{kind:16}{count:6}")
    refused = sum("error" in r.get("values", {}) for r in recorder.records.values())
    broken = [n for n, r in recorder.records.items() if "traceback" in r.get("values", {})]
    files = sum(len(record.get("files", {})) for record in recorder.records.values())
    print(f"{len(recorder.records)} records, {files} files, {refused} refusals")
    print(f"{len(broken)} tracebacks", *broken, sep="\n  ")
    print(f"{time.perf_counter() - start:.0f} s")


def differences(a: Any, b: Any, place: str = "") -> Iterator[str]:
    """Yield in what two pieces of plain data differ, a line for each place."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted({*a, *b}):
            yield from differences(
                a.get(key, _NOTHING), b.get(key, _NOTHING), f"{place}/{key.lstrip('/')}"
            )
    elif isinstance(a, list) and isinstance(b, list):
        for number in range(max(len(a), len(b))):
            one, other = (x[number] if number < len(x) else _NOTHING for x in (a, b))
            yield from differences(one, other, f"{place}[{number}]")
    elif type(a) is not type(b) or a != b:
        yield f"{place}: {_shown(a)} -> {_shown(b)}"


def file_differences(
    a: Mapping[str, Any], b: Mapping[str, Any]
) -> tuple[list[str], list[str]]:
    """Return which files of two records differ, and which in nothing but recorded texts.

    "sha256" alone means an ONNX file whose graph is the same: metadata or descriptions differ.
    """
    files, wording = [], []
    before, after = a.get("files", {}), b.get("files", {})
    for name in sorted({*before, *after}):
        one, other = before.get(name), after.get(name)
        if one is None or other is None:
            files.append(f"{name}: only in {'B' if one is None else 'A'}")
        elif one != other:
            # The content of a JSON file lies among values and texts.
            told = name.endswith(".json") and a.get("texts") != b.get("texts")
            same = a["values"].get("contents") == b["values"].get("contents")
            parts = ", ".join(part for part in one if one[part] != other.get(part))
            (wording if told and same else files).append(f"{name}: {parts}")
    return files, wording


_NOTHING = object()


def _shown(value: Any) -> str:
    if value is _NOTHING:
        return "(nothing)"
    text = json.dumps(value)
    return text if len(text) <= 300 else f"{text[:300]}... ({len(text)} characters)"


def compare(a: Mapping[str, Any], b: Mapping[str, Any]) -> int:
    """Print how two records differ; return 1 where a value or a file does, else 0."""
    found: dict[str, list[str]] = {"files": [], "values": [], "texts": []}
    for name in sorted({*a, *b}):
        if name not in a or name not in b:
            found["values"].append(f"{name}: only in {'B' if name not in a else 'A'}")
            continue
        one, other = a[name], b[name]
        files, wording = file_differences(one, other)
        found["files"] += [f"{name}: {line}" for line in files]
        found["texts"] += [f"{name}: {line}" for line in wording]
        for part in ("values", "texts"):
            lines = differences(one.get(part, {}), other.get(part, {}))
            found[part] += [f"{name}: {line}" for line in lines]
    for part, lines in found.items():
        print(f"\n{part}: {len(lines)} differ")
        print(*(f"  {line}" for line in lines), sep="\n")
    counts = ", ".join(f"{len(lines)} {part}" for part, lines in reversed(found.items()))
    print(f"\n{counts} differ in {len({*a} & {*b})} common records")
    return int(bool(found["files"] or found["values"]))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, nargs="?", help="JSON to write")
    parser.add_argument("--quick", action="store_true", help="a part of the models")
    parser.add_argument("--shared", type=Path, default=SHARED, help="folder of public models")
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("A", "B"))
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    if args.compare:
        return compare(*(json.loads(p.read_text(encoding="utf-8")) for p in args.compare))
    if args.out is None:
        parser.error("name a file to write, or two to compare")
    write(args.out, args.shared, args.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
