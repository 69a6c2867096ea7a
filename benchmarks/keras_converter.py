"""Times our QKeras importer against the converter that ``qonnx`` had until version 0.4.

    TF_USE_LEGACY_KERAS=1 python benchmarks/keras_converter.py [--json PATH]

Needs qkeras; where ``qonnx.converters`` is not installed, only our own time is shown. The
model is the jet tagger of the examples: three quantized dense layers and a softmax.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def best_of(call: Callable[[], object], times: int = 3) -> float:
    """Return the shortest of some calls in seconds, after one that is not counted."""
    call()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return min(taken)


def figures() -> dict[str, Any] | None:
    """Return the times in seconds; ``None`` where qkeras is not installed."""
    from qonnx_hub.compat import from_keras
    from qonnx_hub_adapters.dependencies import is_installed

    if not (is_installed("qkeras") and is_installed("tensorflow")):
        return None
    from examples.qkeras_jet_tagger import make_model

    model = make_model()
    found: dict[str, Any] = {"ours": best_of(lambda: from_keras(model)), "qonnx": None}
    try:
        from qonnx.converters import from_keras as peer
    except ImportError:
        return found
    found["qonnx"] = best_of(lambda: peer(model))
    return found


def show(found: dict[str, Any] | None) -> None:
    if found is None:
        print("qkeras is not installed: conversion from Keras is not timed")
        return
    peer = found["qonnx"]
    beside = "not installed" if peer is None else f"{peer:.2f} s, {peer / found['ours']:.1f}x"
    print(f"jet tagger from QKeras: {found['ours']:.2f} s; qonnx.converters: {beside}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures as JSON")
    args = parser.parse_args()
    found = figures()
    show(found)
    if args.json:
        args.json.write_text(json.dumps(found, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
