"""Finds made small: as much is taken away as leaves the same kind of fault."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
from onnx import ModelProto

from tests.fuzz.judgement import faults_of
from tests.fuzz.mutated_calls import MODEL, VERBS, put_files
from tests.fuzz.seeds import seed_of
from tests.fuzz.worker import Worker

Shows = Callable[[bytes], bool]
MOST_TRIES = 2000
_BIG = 64
"""Bytes of a weight above which it is worth making shorter."""


def minimise(data: bytes, shows: Shows, tries: int = MOST_TRIES) -> bytes:
    """Return a smaller model that still shows a fault.

    Args:
        data: A model that shows it.
        shows: Whether a model does.
        tries: How often it is asked at most.
    """
    try:
        model = ModelProto.FromString(data)
    except Exception:  # spoiled bytes stay as they are
        return data
    left = tries
    smaller = True
    while smaller and left > 0:
        smaller = False
        for candidate in _candidates(model):
            if left <= 0:
                break
            left -= 1
            if shows(candidate.SerializeToString()):
                model, smaller = candidate, True
                break
    return model.SerializeToString()


def _candidates(model: ModelProto) -> Iterator[ModelProto]:
    """Give copies with one thing less, the largest first."""
    for field in ("node", "initializer", "value_info", "output", "input"):
        step = count = len(getattr(model.graph, field))
        while step:
            for start in range(0, count, step):
                copy = _copy(model)
                del getattr(copy.graph, field)[start : start + step]
                yield copy
            step //= 2
    for field in ("functions", "opset_import", "metadata_props"):
        for k in range(len(getattr(model, field))):
            copy = _copy(model)
            del getattr(copy, field)[k]
            yield copy
    for k, node in enumerate(model.graph.node):
        for i in range(len(node.attribute)):
            copy = _copy(model)
            del copy.graph.node[k].attribute[i]
            yield copy
    for k, tensor in enumerate(model.graph.initializer):
        if len(tensor.raw_data) > _BIG and any(tensor.raw_data):
            copy = _copy(model)
            copy.graph.initializer[k].raw_data = bytes(len(tensor.raw_data))
            yield copy


def _copy(model: ModelProto) -> ModelProto:
    return ModelProto.FromString(model.SerializeToString())


def minimise_file(path: Path, folder: Path) -> int:
    """Write a find made small, with its record, and return 0 where the fault shows at all."""
    record = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as name, Worker(Path(name)) as worker:
        place = Path(name)

        def shows(data: bytes) -> bool:
            put_files(place, seed_of(path.stem, _parsed(data)), data)
            found = faults_of(worker.run(record["words"]), record["words"][0], data, MODEL)
            return record["faults"][0] in found

        data = path.read_bytes()
        if not shows(data):
            print(f"{path.name}: the fault does not show any more")
            return 1
        small = minimise(data, shows)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / path.name).write_bytes(small)
    (folder / path.with_suffix(".json").name).write_text(
        json.dumps(record, indent=1), encoding="utf-8"
    )
    print(f"{path.name}: {len(data)} -> {len(small)} bytes")
    return 0


def _parsed(data: bytes) -> ModelProto:
    try:
        return ModelProto.FromString(data)
    except Exception:  # spoiled bytes have no inputs
        return onnx.ModelProto()


def replay(folder: Path, seconds: float = 20.0) -> list[str]:
    """Return what is wrong with the files of a folder, every verb tried on each."""
    import numpy as np

    wrong = []
    with tempfile.TemporaryDirectory() as name, Worker(Path(name), seconds) as worker:
        for path in sorted(folder.glob("*.onnx")):
            data = path.read_bytes()
            for verb, (_, words_of) in VERBS.items():
                words = words_of(np.random.default_rng(0))
                put_files(Path(name), seed_of(path.stem, _parsed(data)), data)
                outcome = worker.run(words)
                faults = faults_of(outcome, words[0], data, MODEL)
                wrong += [
                    f"{path.name}: {verb}: {fault}: {outcome.err[-300:]}" for fault in faults
                ]
    return wrong
