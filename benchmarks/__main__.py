"""Prints the table of speeds, and writes it as JSON.

    python -m benchmarks [--models DIR] [--json PATH] [--quick] [--against OLD.json]
                         [--history]

Inference beside qonnx, onnxruntime, onnx.reference and a floor, conversion beside
qonnx-convert and the QKeras converter of old, all in one run on one machine; peers that are
not installed are left out. ``--against`` compares with the JSON of an earlier run on the same
machine. ``--history`` keeps the figures under their commit in ``benchmarks/history``, of which
``python -m benchmarks.page`` makes the tables of ``docs/speed.md``. With
``OPENBLAS_NUM_THREADS=1`` all sides compute on one thread: other work on the machine then
disturbs the ratios least.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import warnings
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks import convert, executor, keras_converter
from benchmarks.page import HISTORY
from qonnx_hub.executor.threads import default_threads


def machine() -> dict[str, str]:
    """Return what a reader must know to place the figures."""
    return {
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip(),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "python": platform.python_version(),
        "cores": str(os.cpu_count()),
        "threads": str(default_threads()),
        "machine": f"{platform.machine()} {platform.system()}",
    }


def inference(models: Path | None, quick: bool) -> list[dict[str, Any]]:
    """Print and return the figures of every net."""
    print(executor.HEADER)
    found = []
    for name, source, batch in executor.plan(models, quick):
        found.append(executor.row(name, source, batch))
        print(executor.shown(found[-1]), flush=True)
    return found


def compare(new: list[dict[str, Any]], old: list[dict[str, Any]]) -> None:
    """Print how long each net took before, relative to now."""
    before = {(row["net"], row["batch"]): row["ours"] for row in old}
    for row in new:
        key = (row["net"], row["batch"])
        if key in before:
            times = before[key]["best"] / row["ours"]["best"]
            print(f"{key[0]:22}{key[1]:6}{times:8.2f}x as fast as before")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, help="folder with public ONNX files")
    parser.add_argument("--json", type=Path, help="write the figures as JSON")
    parser.add_argument("--quick", action="store_true", help="batch 1 and short chains only")
    parser.add_argument("--against", type=Path, help="JSON of an earlier run")
    parser.add_argument(
        "--history", action="store_true", help="keep the figures under benchmarks/history"
    )
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    found: dict[str, Any] = {**machine(), "inference": inference(args.models, args.quick)}
    with tempfile.TemporaryDirectory() as folder:
        found["conversion"] = convert.growth(Path(folder), 50 if args.quick else 100)
    found["keras"] = keras_converter.figures()
    keras_converter.show(found["keras"])
    if args.history:
        HISTORY.mkdir(exist_ok=True)
        args.json = args.json or HISTORY / f"{found['date']}-{found['commit']}.json"
    if args.json:
        args.json.write_text(json.dumps(found, indent=2), encoding="utf-8")
    if args.against:
        compare(found["inference"], json.loads(args.against.read_text())["inference"])


if __name__ == "__main__":
    sys.exit(main())
