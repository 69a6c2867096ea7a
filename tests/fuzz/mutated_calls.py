"""Mutated models against every verb: a documented exit code, in time, and a place, or a fault.

Usage: ``python -m tests.fuzz mutate --calls 20000 --seed 1 [--seeds FOLDER] [--save FOLDER]``.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tests.fuzz.judgement import faults_of
from tests.fuzz.mutations import Rng, mutate
from tests.fuzz.seeds import Seed
from tests.fuzz.worker import Outcome, Worker, emptied

MODEL = "m.onnx"
ORIGINAL = "seed.onnx"
INPUTS = "x.npz"
OUT = "o"

VERBS: dict[str, tuple[int, Callable[[Rng], list[str]]]] = {
    "run": (4, lambda rng: ["run", MODEL, "--inputs", INPUTS, "-o", f"{OUT}/y.npz"]),
    "check": (3, lambda rng: ["check", MODEL, MODEL, *_check_options(rng)]),
    "check seed": (1, lambda rng: ["check", ORIGINAL, MODEL, "--samples", "4"]),
    "inspect": (4, lambda rng: ["inspect", MODEL, *_inspect_options(rng)]),
    "lint": (3, lambda rng: ["lint", MODEL, "--target", _target(rng)]),
    "transform": (
        3,
        lambda rng: ["transform", MODEL, "-o", f"{OUT}/t.onnx", "-p", _pass(rng)],
    ),
    "diff": (2, lambda rng: ["diff", ORIGINAL, MODEL]),
    "cost": (2, lambda rng: ["cost", MODEL]),
    "qcdq": (2, lambda rng: _convert("--to", "qcdq")),
    "qlinear": (2, lambda rng: _convert("--to", "qlinear")),
    "qonnx": (1, lambda rng: _convert("--to", "qonnx")),
    "hls4ml": (1, lambda rng: _convert("--to", "hls4ml")),
    "finn": (1, lambda rng: _convert("--profile", "finn")),
    "self-contained": (1, lambda rng: _convert("--self-contained")),
}
"""Verb -> how often it is drawn, and its words."""


def _convert(*words: str) -> list[str]:
    return ["convert", MODEL, "-o", f"{OUT}/c.onnx", "--samples", "4", *words]


def _check_options(rng: Rng) -> list[str]:
    return ["--samples", "4", "--level", str(rng.choice(("output", "layer", "proof")))]


def _inspect_options(rng: Rng) -> list[str]:
    return ["--ranges", "--weights"] if rng.random() < 0.5 else []


def _target(rng: Rng) -> str:
    return str(rng.choice(("ort", "finn", "hls4ml", "qonnx")))


def _pass(rng: Rng) -> str:
    from qonnx_hub import passes

    names = [*passes.names(), *passes.PIPELINES]
    return str(rng.choice(names))


@dataclass
class Find:
    """A call that went wrong.

    Attributes:
        number: The call's number; with the seed, it makes the same model again.
        verb: The verb, as in ``VERBS``.
        words: The call.
        faults: What is wrong.
        mutations: What was done to the seed model.
        seed: Its name.
        told: The end of what was printed.
        data: The mutated model.
    """

    number: int
    verb: str
    words: list[str]
    faults: list[str]
    mutations: tuple[str, ...]
    seed: str
    told: str
    data: bytes = b""


@dataclass
class Figures:
    """Counts of a campaign, by verb."""

    calls: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    faults: Counter[tuple[str, str]] = field(default_factory=Counter)
    finds: list[Find] = field(default_factory=list)
    slowest: float = 0.0

    def table(self) -> str:
        kinds = sorted({kind for _, kind in self.faults})
        lines = ["  ".join(["verb".ljust(15), "calls", *kinds])]
        for verb in [*VERBS, "all"]:
            chosen = [v for v in VERBS if verb in (v, "all")]
            cells = [str(sum(self.calls[v] for v in chosen)).rjust(5)]
            cells += [
                str(sum(self.faults[v, kind] for v in chosen)).rjust(len(kind))
                for kind in kinds
            ]
            lines.append("  ".join([verb.ljust(15), *cells]))
        codes = ", ".join(f"{code}: {count}" for code, count in sorted(self.codes.items()))
        return "\n".join([*lines, f"exit codes {codes}; slowest {self.slowest:.1f} s"])


def run_calls(
    seeds: Sequence[Seed],
    calls: int,
    seed: int,
    *,
    start: int = 0,
    save: Path | None = None,
    seconds: float = 20.0,
    tell: Callable[[str], None] | None = None,
) -> Figures:
    """Return the figures of so many calls; the same arguments give the same calls."""
    figures = Figures()
    with tempfile.TemporaryDirectory() as name, Worker(Path(name), seconds) as worker:
        folder = Path(name)
        for number in range(start, start + calls):
            find = one_call(seeds, seed, number, folder, worker, figures)
            if find is None:
                continue
            figures.finds.append(find)
            if save is not None:
                _save(save, seed, find)
            if tell is not None:
                tell(f"{number} {find.verb}: {', '.join(find.faults)}: {find.told[-300:]}")
    return figures


def one_call(
    seeds: Sequence[Seed],
    seed: int,
    number: int,
    folder: Path,
    worker: Worker,
    figures: Figures,
) -> Find | None:
    """Make one model, run one verb on it, and count what came out."""
    rng = np.random.default_rng([seed, number])
    chosen = seeds[int(rng.integers(len(seeds)))]
    data, done = mutate(chosen.model, rng)
    weights = np.array([weight for weight, _ in VERBS.values()], dtype=np.float64)
    verb = str(rng.choice(list(VERBS), p=weights / weights.sum()))
    words = VERBS[verb][1](rng)
    put_files(folder, chosen, data)
    outcome = worker.run(words)
    figures.calls[verb] += 1
    figures.codes[str(outcome.code)] += 1
    figures.slowest = max(figures.slowest, outcome.seconds)
    faults = [*faults_of(outcome, words[0], data, MODEL), *_file_faults(folder, data, outcome)]
    for kind in faults:
        figures.faults[verb, kind] += 1
    if not faults:
        return None
    return Find(number, verb, words, faults, done, chosen.name, _end_of(outcome), data)


def put_files(folder: Path, seed: Seed, data: bytes) -> None:
    """Write what a call reads, and empty what it writes into."""
    (folder / MODEL).write_bytes(data)
    (folder / ORIGINAL).write_bytes(seed.model.SerializeToString())
    np.savez(folder / INPUTS, **seed.inputs)
    emptied(folder / OUT)


def _file_faults(folder: Path, data: bytes, outcome: Outcome) -> list[str]:
    found = []
    if (folder / MODEL).read_bytes() != data:
        found.append("source changed")
    if outcome.code is not None and outcome.code >= 0:
        if any(path.suffix == ".tmp" for path in (folder / OUT).iterdir()):
            found.append("left over")
        if outcome.code > 1 and any((folder / OUT).iterdir()):
            found.append("written and failed")
    return found


def _end_of(outcome: Outcome) -> str:
    return (outcome.err or outcome.out)[-2000:]


def _save(folder: Path, seed: int, find: Find) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"{seed}_{find.number}_{find.faults[0].replace(' ', '_')}"
    stem.with_suffix(".onnx").write_bytes(find.data)
    record: dict[str, Any] = {**find.__dict__, "data": None}
    stem.with_suffix(".json").write_text(json.dumps(record, indent=1), encoding="utf-8")


def load_model(path: Path) -> onnx.ModelProto:
    """Return a model without its external data."""
    return onnx.load(path, load_external_data=False)
