"""Counts what is proven: conversions of a folder of models, or passes over them.

    python benchmarks/proofs.py conversions FOLDER... [--json FILE] [--against FILE]
    python benchmarks/proofs.py passes FOLDER... [--json FILE] [--table docs/passes.csv]

``conversions`` takes every quantized .onnx below the folders to qonnx, qcdq and qlinear and
proves the result against the source. ``passes`` runs every pass that promises exact values and
proves the model behind it against the one before, where the pass fired. ``--against`` names
what an earlier run proved and this one did not.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx_ir
from onnx_ir import Model

from qonnx_hub import passes
from qonnx_hub.api import load
from qonnx_hub.equivalence.proof.prove import prove_models
from qonnx_hub_adapters.protocol import export_options
from qonnx_hub_adapters.qcdq.exporter import QcdqExporter
from qonnx_hub_adapters.qlinear.exporter import QlinearExporter
from qonnx_hub_adapters.qonnx.exporter import QonnxExporter
from qonnx_hub_ir.effects import Effect, effect_of
from qonnx_hub_ir.errors import HubError
from qonnx_hub_ir.graph.queries import quantizers

EXPORTERS = {"qonnx": QonnxExporter, "qcdq": QcdqExporter, "qlinear": QlinearExporter}
MOST_SECONDS = 120
Row = tuple[str, str, float]
"""Key, verdict, seconds."""


def read(path: Path) -> Model | None:
    """Return a model that has quantizers, or None."""
    try:
        model = load(path)
    except HubError:
        return None
    return model if any(True for _ in quantizers(model)) else None


def _late(*_: Any) -> None:
    raise TimeoutError


def proven(key: str, a: Model, b: Model) -> Row:
    """Return the row of one proof."""
    began = time.perf_counter()
    signal.signal(signal.SIGALRM, _late)
    signal.alarm(MOST_SECONDS)
    try:
        found = prove_models(a, b)
        verdict = "PROVEN" if found.proven else "not proven: " + "; ".join(found.unmatched[:2])
    except TimeoutError:
        verdict = "out of time"
    except Exception as error:
        verdict = f"{type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
    return key, verdict, round(time.perf_counter() - began, 2)


def conversions(path: Path) -> Iterator[Row]:
    """Yield a proof for each form that can say the model."""
    for form, exporter in EXPORTERS.items():
        model = read(path)
        if model is None:
            return
        try:
            made = exporter().export(model.clone(), export_options()).model
            # As a reader finds it: through a message.
            back = load(onnx_ir.to_proto(made))
        except HubError as error:
            yield f"{path} {form}", f"not converted: {error}"[:150], 0.0
            continue
        yield proven(f"{path} {form}", model, back)


def _exact_passes() -> Iterator[str]:
    for name in passes.names():
        with contextlib.suppress(HubError, TypeError):
            if effect_of(passes.make(name)) is Effect.EXACT:
                yield name


def fired(path: Path) -> Iterator[Row]:
    """Yield a proof for each exact pass that changes the model."""
    model = read(path)
    if model is None:
        return
    for name in _exact_passes():
        after = model.clone()
        try:
            modified = passes.make(name)(after).modified
        except HubError:
            continue
        if modified:
            yield proven(f"{path} {name}", model, after)


def main() -> None:
    """Count, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["conversions", "passes"])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument(
        "--table", type=Path, help="write counts as CSV, a row for each pass or form"
    )
    given = parser.parse_args()
    work = {"conversions": conversions, "passes": fired}[given.what]
    rows: dict[str, tuple[str, float]] = {}
    for path in sorted(p for folder in given.folders for p in folder.rglob("*.onnx")):
        for key, verdict, seconds in work(path):
            rows[key] = verdict, seconds
            if verdict != "PROVEN":
                print(key, verdict[:200], seconds, flush=True)
    yes = sum(verdict == "PROVEN" for verdict, _ in rows.values())
    tried = sum(not verdict.startswith("not converted") for verdict, _ in rows.values())
    print(f"{yes} of {tried} proven, {sum(s for _, s in rows.values()):.0f} s")
    if given.table:
        counts: dict[str, list[int]] = {}
        for key, (verdict, _) in sorted(
            rows.items(), key=lambda row: row[0].rpartition(" ")[2]
        ):
            if not verdict.startswith("not converted"):
                count = counts.setdefault(key.rpartition(" ")[2], [0, 0])
                count[0] += verdict == "PROVEN"
                count[1] += 1
        with given.table.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["what", "proven", "of"])
            table.writerows([name, *count] for name, count in counts.items())
            table.writerow(["all", yes, tried])
    if given.json:
        given.json.write_text(json.dumps(rows, indent=0))
    if given.against:
        before = json.loads(given.against.read_text())
        now = {key for key, (verdict, _) in rows.items() if verdict == "PROVEN"}
        lost = [key for key, row in before.items() if row[0] == "PROVEN" and key not in now]
        print("lost:", *lost, sep="\n  ")
        sys.exit(bool(lost))


if __name__ == "__main__":
    main()
