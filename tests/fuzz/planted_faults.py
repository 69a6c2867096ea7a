"""Plants one fault in a random graph and asks the checker, who must not say EQUAL.

Usage: ``python -m tests.fuzz.planted_faults --pairs 5000 --seed 1 [--save FOLDER]``. A pair is
made from the seed and its number alone: ``--only 17`` repeats one. What is true is decided by
:mod:`tests.fuzz.planted_oracle`, never by the project.
"""

from __future__ import annotations

import argparse
import collections
import sys
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx

from tests.fuzz.planted_equalities import EQUALITIES
from tests.fuzz.planted_graphs import FORMS, draw_graph
from tests.fuzz.planted_kinds import KINDS, Model, Rng
from tests.fuzz.planted_oracle import (
    Feeds,
    Oracle,
    QuantizeLinear,
    differing_rows,
    differs_in_all,
    differs_without_rounding,
    sides_of,
    telling_input,
)

EVERY = 12
"""One of so many pairs is an equality: nothing is planted, only spelled otherwise."""


WIDTH = 15
"""Of a column of the table."""


@dataclass
class Pair:
    """Two models, and what was done to the second."""

    kind: str
    first: Model
    second: Model
    equal: bool


def make_pair(seed: int, number: int) -> Pair | None:
    """Return a pair; ``None`` where no graph took the fault."""
    rng = np.random.default_rng([seed, number])
    if number % EVERY == EVERY - 1:
        kind = list(EQUALITIES)[number // EVERY % len(EQUALITIES)]
        first = draw_graph(
            rng, str(rng.choice(FORMS)), "relu" if kind == "relu_twice" else None
        )
        second = onnx.ModelProto.FromString(first.SerializeToString())
        EQUALITIES[kind](second, rng)
        return Pair(kind, first, second, equal=True)
    name = list(KINDS)[(number - number // EVERY) % len(KINDS)]
    kind = KINDS[name]
    for _ in range(60):
        first = draw_graph(rng, str(rng.choice(kind.forms)), kind.step, kind.opset)
        if not first.graph.input:
            continue
        second = onnx.ModelProto.FromString(first.SerializeToString())
        try:
            planted = kind.plant(second, rng)
        except (AttributeError, TypeError, IndexError, KeyError):
            # The graph has no place for it: the step did not fit its shapes.
            planted = False
        if planted and second.graph.input and _valid(first) and _valid(second):
            return Pair(name, first, second, equal=False)
    return None


def _valid(model: Model) -> bool:
    try:
        oracle = Oracle(model)
        feeds = {n: np.ones((2, *shape), np.float32) for n, shape in oracle.shapes.items()}
        return all(len(y) == 2 for y in oracle(feeds))
    except (RuntimeError, ValueError, IndexError, TypeError):
        return False


@dataclass
class Judged:
    """What the checker said of a pair, and what is true.

    Attributes:
        pair: The pair.
        verdict: The checker's, or the name of an exception.
        true: Whether the checker's answer counts as "equal".
        telling: A sample on which the outputs differ by the oracle; ``None`` without one.
        fails: Whether the checker's failing input makes a difference; ``None`` without one.
        error: Message of the exception.
    """

    pair: Pair
    verdict: str
    true: bool
    telling: Feeds | None
    fails: bool | None = None
    error: str = ""


def judge(pair: Pair, rng: Rng, level: str = "proof") -> Judged:
    """Ask the checker about a pair, and the oracle whether it is right."""
    import qonnx_hub as qh

    telling = None if pair.equal else telling_input(pair.first, pair.second, rng)
    try:
        result = qh.check(pair.first, pair.second, level=level)
    except Exception as error:  # what is tested must not end the test
        return Judged(pair, type(error).__name__, False, telling, error=str(error)[:300])
    verdict = getattr(result.verdict, "name", str(result.verdict)).upper()
    fails = None
    if result.failing is not None and verdict == "DIFFERENT":
        fails = _shows(pair, result.failing.feeds)
    return Judged(pair, verdict, bool(result), telling, fails)


def _shows(pair: Pair, feeds: Feeds) -> bool | None:
    """Return whether inputs make a difference; ``None`` where ONNX leaves that open."""
    QuantizeLinear.met_nan = False
    sides = sides_of(pair.first, pair.second)
    if any(name not in feeds for a, _ in sides for name in a.shapes):
        return False
    shown = any(bool(differs_in_all([side], feeds).any()) for side in sides)
    if not shown and _executor_differs(pair, feeds):
        # Of one float in a parameter, one order of sums shows what another rounds away: then
        # arithmetic that hardly rounds has to show it.
        shown = differs_without_rounding(pair.first, pair.second, feeds)
    return None if QuantizeLinear.met_nan and not shown else shown


def confirmed(found: Judged) -> bool:
    """Return whether the project's executor shows the oracle's difference as well."""
    assert found.telling is not None
    return _executor_differs(found.pair, found.telling)


def _executor_differs(pair: Pair, feeds: Feeds) -> bool:
    import qonnx_hub as qh

    answers = []
    for model in (pair.first, pair.second):
        names = {i.name for i in model.graph.input}
        answers.append(list(qh.run(model, {n: feeds[n] for n in names}).values()))
    return bool(differing_rows(*answers).any())


@dataclass
class Tally:
    """Counts over pairs, kind by kind."""

    counts: dict[str, collections.Counter] = field(
        default_factory=lambda: collections.defaultdict(collections.Counter)
    )
    bad: list[tuple[int, str, Judged]] = field(default_factory=list)

    def add(self, number: int, found: Judged) -> None:
        """Count one pair, and keep it where the checker was wrong."""
        row, differs = self.counts[found.pair.kind], found.telling is not None
        row["pairs"] += 1
        row["differ"] += differs
        row["shown equal"] += found.true
        row["undecided"] += differs and found.verdict in ("UNDECIDED", "INCOMPLETE")
        wrong = {
            "false equal": differs and found.true and "PROVEN" not in found.verdict,
            "false proven": differs and found.true and "PROVEN" in found.verdict,
            "does not fail": found.fails is False,
            "equal undecided": found.pair.equal and found.verdict == "UNDECIDED",
            "equal called different": found.pair.equal and found.verdict == "DIFFERENT",
            "error": bool(found.error),
        }
        for what, is_so in wrong.items():
            row[what] += is_so
            if is_so:
                self.bad.append((number, what, found))
        if differs and found.verdict in ("UNDECIDED", "INCOMPLETE"):
            self.bad.append((number, "undecided", found))

    def total(self, column: str) -> int:
        """Return a column's sum over all kinds."""
        return sum(row[column] for row in self.counts.values())

    def report(self) -> str:
        """Return the table."""
        columns = (
            *("pairs", "differ", "shown equal", "undecided", "false equal", "false proven"),
            *("does not fail", "equal undecided", "equal called different", "error"),
        )
        lines = [f"{'kind':<16}" + "".join(f"{c:>{WIDTH}.{WIDTH}}" for c in columns)]
        for kind, row in self.counts.items():
            lines.append(f"{kind:<16}" + "".join(f"{row[c]:>{WIDTH}}" for c in columns))
        lines.append(f"{'all':<16}" + "".join(f"{self.total(c):>{WIDTH}}" for c in columns))
        differ = max(self.total("differ"), 1)
        kinds = sum(
            bool(row["false equal"] + row["false proven"]) for row in self.counts.values()
        )
        lines.append(
            f"false EQUAL {self.total('false equal') / differ:.2%} of {differ} that differ, "
            f"in {kinds} kinds; false PROVEN {self.total('false proven')}; "
            f"UNDECIDED {self.total('undecided') / differ:.2%}"
        )
        return "\n".join(lines)


def run_pairs(pairs: int, seed: int, level: str = "proof", start: int = 0) -> Tally:
    """Judge pairs by number and return the counts."""
    tally = Tally()
    for number in range(start, start + pairs):
        pair = make_pair(seed, number)
        if pair is not None:
            tally.add(number, judge(pair, np.random.default_rng([seed, number, 1]), level))
    return tally


def _save(folder: Path, number: int, what: str, found: Judged) -> None:
    stem = f"{what.replace(' ', '_')}_{found.pair.kind}_{number}"
    onnx.save(found.pair.first, folder / f"{stem}_a.onnx")
    onnx.save(found.pair.second, folder / f"{stem}_b.onnx")
    if found.telling is not None:
        np.savez(folder / f"{stem}_x.npz", **found.telling)


def main() -> int:
    """Judge as many pairs as asked for; the exit code is 1 where one was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--only", type=int)
    parser.add_argument("--level", default="proof")
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    start, pairs = options.start, options.pairs
    if options.only is not None:
        start, pairs = options.only, 1
    began, tally = time.process_time(), Tally()
    warnings.simplefilter("ignore")
    for at in range(start, start + pairs, 50):
        part = run_pairs(min(50, start + pairs - at), options.seed, options.level, at)
        for kind, row in part.counts.items():
            tally.counts[kind].update(row)
        tally.bad += part.bad
        if options.save is not None:
            options.save.mkdir(parents=True, exist_ok=True)
            for number, what, found in part.bad:
                _save(options.save, number, what, found)
        for number, what, found in part.bad:
            sure = ""
            if what.startswith("false"):
                sure = ", the executor agrees" if confirmed(found) else ", not on the executor"
            print(f"{number} {found.pair.kind}: {what}{sure} ({found.verdict}) {found.error}")
            sys.stdout.flush()
    print(tally.report())
    print(f"{time.process_time() - began:.0f} s of processor time")
    return int(any("undecided" not in what for _, what, _ in tally.bad))


if __name__ == "__main__":
    sys.exit(main())
