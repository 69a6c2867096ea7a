"""Random valid graphs against other programs that run them, and against their conversions.

    python -m tests.fuzz differential --graphs 5000 --seed 1 [--save FOLDER]

Oracles are onnxruntime without optimizations and the ``qonnx`` package, where installed, and
the evaluator of ``onnx``. Numbers are wrong where they agree with no oracle that answered;
then the first node is named that computes something else from inputs equal to ours. Where
oracles disagree and one of them says what is said here, the node is disputed. A graph is made
from the seed and its number alone: ``--only 17`` repeats one.
"""

from __future__ import annotations

import argparse
import collections
import functools
import json
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
from onnx import helper

from qonnx_hub.executor import control_flow, planner
from qonnx_hub.executor.plan import execute
from tests.fuzz.oracles import (
    LOOSE,
    OFTEN_WRONG,
    Answers,
    alike,
    answers_of,
    feeds_for,
    operators_in,
)
from tests.fuzz.planted_graphs import draw_graph
from tests.fuzz.wide_graphs import Feeds, as_model, draw_wide, entry, numbers, reads

LONGEST = 30
"""Seconds of processor time that one graph may take with all its conversions."""

KINDS = ("wrong", "crash", "hang", "refused", "disputed")

FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "qcdq": ("qcdq", {}),
    "qonnx": ("qonnx", {}),
    "qlinear": ("qlinear", {}),
    "self-contained": ("qonnx", {"self_contained": True}),
}


@dataclass
class Find:
    """What one graph showed.

    Attributes:
        kind: One of ``KINDS``.
        stage: "run", a form of conversion, or a pass.
        operator: The operator that shows it, as far as known.
        detail: One line.
    """

    kind: str
    stage: str
    operator: str
    detail: str = ""


def graph_of(seed: int, number: int) -> tuple[onnx.ModelProto, Feeds]:
    """Return a graph and a sample: one in four is one of the planted faults' graphs."""
    if number % 4:
        return draw_wide(seed, number)
    rng = np.random.default_rng([seed, number, 8])
    model = draw_graph(rng, ("qonnx", "qdq", "float")[number // 4 % 3])
    feeds = {}
    for value in model.graph.input:
        sizes = [d.dim_value or 3 for d in value.type.tensor_type.shape.dim]
        feeds[value.name] = numbers(rng, sizes)
    return model, feeds


class _Late(BaseException):
    """A graph took too long; nothing may catch it on the way."""


def _late(*_: object) -> None:
    raise _Late


def judge(
    model: onnx.ModelProto, feeds: Feeds, forms: Sequence[str] = (), passes: Sequence[str] = ()
) -> list[Find]:
    """Return what is wrong with a graph, by itself and with its conversions.

    Args:
        model: The graph.
        feeds: A sample for it.
        forms: The conversions that are tried.
        passes: The passes that are tried.
    """
    finds: list[Find] = []
    ours = _attempt(finds, "run", "", lambda: _run(model, feeds))
    if ours is None:
        answered = answers_of(model, feeds)
        if not any(answered.values()):
            # No one runs it: nothing says that it is right to.
            return [f for f in finds if f.kind != "refused"]
        return finds
    finds += _compared(model, feeds, ours, "run")
    if not (forms or passes):
        return finds
    # Files of integer operators run in integers, and are read as layers, which may round.
    ours = _attempt(finds, "load", "", lambda: _run(_loaded(model), feeds)) or ours
    for form in forms:
        finds += _converted(model, feeds, ours, form)
    return [*finds, *_passed(model, feeds, ours, passes)]


def _attempt(finds: list[Find], stage: str, operator: str, run: Callable[[], Any]) -> Any:
    """Return a result; ``None`` where it was refused in a line, or broke."""
    from qonnx_hub_ir.errors import HubError

    try:
        return run()
    except HubError as error:
        finds.append(Find("refused", stage, operator, str(error).replace("\n", " | ")[:200]))
    except Exception as error:  # what is tested must not end the test
        at = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(at.filename).name}:{at.lineno}"
        finds.append(
            Find("crash", stage, operator, f"{type(error).__name__} at {place}: {error}"[:200])
        )
    return None


def _loaded(model: onnx.ModelProto) -> Any:
    import qonnx_hub as qh

    return qh.load(model)


def _run(model: Any, feeds: Feeds, all_tensors: bool = False) -> Answers:
    import qonnx_hub as qh

    return dict(qh.run(model, feeds, all_tensors=all_tensors))


def _compared(model: onnx.ModelProto, feeds: Feeds, ours: Answers, stage: str) -> list[Find]:
    """Return where our numbers are not those of the oracles."""
    verdicts = {n: _agree(a, ours) for n, a in answers_of(model, feeds).items() if a}
    if not verdicts or all(verdicts.values()):
        return []
    every = _run(model, feeds, all_tensors=True)
    if not _agree(every, ours):
        return [Find("wrong", stage, "plan", "other outputs where all tensors are kept")]
    disputed = []
    for node in model.graph.node:
        found = _of_node(model, node, {**every, **feeds}, stage)
        if found is not None and found.kind == "wrong":
            return [found]
        disputed += [found] if found is not None else []
    return disputed[:1]


def _agree(theirs: Answers, ours: Answers, least: float = 0.0) -> bool:
    return all(n in theirs and alike(theirs[n], a, least) for n, a in ours.items())


def _meets_nan(model: onnx.ModelProto, feeds: Feeds) -> bool:
    """Return whether some value is no number: what quantizers make of it, forms leave open.

    Values in bodies count: their plans keep all of them while this looks.
    """
    seen: list[bool] = []

    class Keeping(planner._Planner):
        def __init__(self, graph: Any, imports: Any, keep_all: bool, outer: Any = ()) -> None:
            super().__init__(graph, imports, True, outer)

    def watched(plan: Any, given: Any) -> Answers:
        found = execute(plan, given)
        seen.append(_has_nan(found.values()))
        return found

    with (
        mock.patch.object(planner, "_Planner", Keeping),
        mock.patch.object(control_flow, "execute", watched),
    ):
        found = _run(model, feeds, all_tensors=True)
    return any(seen) or _has_nan(found.values())


def _has_nan(arrays: Iterable[np.ndarray]) -> bool:
    return any(a.dtype.kind == "f" and bool(np.isnan(a).any()) for a in arrays)


def _of_node(
    model: onnx.ModelProto, node: onnx.NodeProto, values: Feeds, stage: str
) -> Find | None:
    """Ask the oracles about one node, given inputs as we have them."""
    constants = {t.name for t in model.graph.initializer}
    names = [n for n in reads(node) if n in values and n not in constants]
    kept = [t for t in model.graph.initializer if t.name in reads(node)]
    outputs = [n for n in node.output if n in values]
    if not outputs or node.op_type == "Constant":
        return None
    graph = helper.make_graph(
        [node],
        "one",
        [entry(n, values[n]) for n in names],
        [entry(n, values[n], "open") for n in outputs],
        kept,
    )
    one = as_model(graph, next(o.version for o in model.opset_import if not o.domain))
    ours = {n: values[n] for n in outputs}
    answered = {n: a for n, a in answers_of(one, {n: values[n] for n in names}).items() if a}
    least = LOOSE.get(node.op_type, 0.0)
    verdicts = {n: _agree(a, ours, least) for n, a in answered.items()}
    if not verdicts or all(verdicts.values()):
        return None
    alone = set(verdicts) == {"onnx.reference"} and operators_in([node]) & OFTEN_WRONG
    # QuantizeLinear leaves open what becomes of what is no number.
    opened = is_qdq(node) and _has_nan(ours.values())
    kind = "disputed" if any(verdicts.values()) or alone or opened else "wrong"
    against = ", ".join(n for n, same in verdicts.items() if not same)
    return Find(kind, stage, node.op_type, f"not as {against}")


def is_qdq(node: onnx.NodeProto) -> bool:
    """Return whether a node makes numbers of codes, or codes of numbers."""
    return node.op_type in ("QuantizeLinear", "DequantizeLinear")


def _converted(model: onnx.ModelProto, feeds: Feeds, ours: Answers, form: str) -> list[Find]:
    import onnx_ir

    import qonnx_hub as qh
    from qonnx_hub.io.registry import find_exporter
    from qonnx_hub_adapters.protocol import export_options

    finds: list[Find] = []
    name, options = FORMS[form]

    def export() -> Any:
        loaded = qh.load(model)
        return onnx_ir.to_proto(
            find_exporter(name).export(loaded, export_options(**options)).model
        )

    made = _attempt(finds, form, "", export)
    if made is None:
        return finds
    found = _attempt(finds, form, "", lambda: _run(made, feeds))
    if found is None:
        for find in finds:
            find.kind = "crash" if find.kind == "refused" else find.kind
        return finds
    if not _agree(found, ours):
        if _meets_nan(model, feeds):
            return []
        return [Find("wrong", form, "conversion", "other numbers on the executor")]
    return _compared(made, feeds, found, form)


def _passed(
    model: onnx.ModelProto, feeds: Feeds, ours: Answers, passes: Sequence[str]
) -> Iterator[Find]:
    """Run passes that promise equal outputs."""
    import qonnx_hub as qh

    for name in passes:
        finds: list[Find] = []

        def transformed(name: str = name) -> Answers:
            loaded = qh.load(model)
            qh.passes.run(loaded, [qh.passes.make(name)])
            return _run(loaded, feeds)

        found = _attempt(finds, name, "", transformed)
        yield from finds
        if (
            found is not None
            and not all(
                n in found and np.array_equal(found[n], a, equal_nan=a.dtype.kind == "f")
                for n, a in ours.items()
            )
            and not _meets_nan(model, feeds)
        ):
            yield Find("wrong", name, "pass", "other numbers on the executor")


@functools.cache
def exact_passes() -> list[str]:
    """Return the passes that need no options and promise equal outputs."""
    import qonnx_hub as qh

    found = []
    for name in qh.passes.names():
        try:
            step = qh.passes.make(name)
        except Exception:  # it needs options
            continue
        if qh.passes.effect_of(step) is qh.passes.Effect.EXACT:
            found.append(name)
    return found


PASSES_AT_ONCE = 3
"""So many of all passes are tried on one graph, others on the next."""


def more_of(number: int, every: int) -> dict[str, list[str]]:
    """Return which conversions and passes are tried on a graph: on one in so many."""
    if number % every:
        return {}
    passes, at = exact_passes(), number // every
    chosen = [passes[(at * PASSES_AT_ONCE + k) % len(passes)] for k in range(PASSES_AT_ONCE)]
    return {"forms": list(FORMS), "passes": chosen}


@dataclass
class Tally:
    """Finds over graphs, by kind, stage and operator."""

    graphs: int = 0
    operators: collections.Counter = field(default_factory=collections.Counter)
    finds: list[tuple[int, Find]] = field(default_factory=list)

    def count(self, *kinds: str) -> int:
        """Return how many finds are of some kinds."""
        return sum(find.kind in kinds for _, find in self.finds)

    def report(self) -> str:
        """Return the table."""
        rows: dict[tuple[str, str, str], list[int]] = collections.defaultdict(list)
        for number, find in self.finds:
            rows[find.kind, find.stage, find.operator].append(number)
        lines = [
            f"{kind:<9} {stage:<24} {operator:<24} {len(seen):>5}  {seen[:4]}"
            for (kind, stage, operator), seen in sorted(rows.items())
        ]
        heads = ", ".join(f"{self.count(kind)} {kind}" for kind in KINDS)
        used = sum(self.operators.values())
        lines.append(
            f"{self.graphs} graphs of {used} nodes, {len(self.operators)} operators: {heads}"
        )
        return "\n".join(lines)


def run_graphs(
    graphs: int,
    seed: int,
    start: int = 0,
    tell: Callable[[int, Find], None] = lambda number, find: None,
    every: int = 1,
) -> Tally:
    """Judge graphs by number and return the counts.

    Args:
        graphs: How many.
        seed: Of all.
        start: Number of the first.
        tell: What is told of each find.
        every: Of one in so many graphs the conversions and some passes are tried.
    """
    tally = Tally()
    if hasattr(signal, "SIGPROF"):
        signal.signal(signal.SIGPROF, _late)
    for number in range(start, start + graphs):
        model, feeds = graph_of(seed, number)
        tally.graphs += 1
        tally.operators.update(node.op_type for node in model.graph.node)
        try:
            if hasattr(signal, "SIGPROF"):
                signal.setitimer(signal.ITIMER_PROF, LONGEST)
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                finds = judge(model, feeds, **more_of(number, every))
        except _Late:
            finds = [Find("hang", "", "")]
        finally:
            if hasattr(signal, "SIGPROF"):
                signal.setitimer(signal.ITIMER_PROF, 0)
        for find in finds:
            tally.finds.append((number, find))
            tell(number, find)
    return tally


def _minimised(seed: int, number: int, find: Find) -> onnx.ModelProto:
    from tests.fuzz.minimise import minimise

    model, feeds = graph_of(seed, number)
    which = {
        "forms": [find.stage] if find.stage in FORMS else [],
        "passes": [find.stage] if find.stage in exact_passes() else [],
    }

    def shows(data: bytes) -> bool:
        try:
            smaller = onnx.ModelProto.FromString(data)
            onnx.checker.check_model(smaller)
            found = judge(smaller, feeds_for(smaller, feeds), **which)
        except Exception:  # what is made smaller need not be valid
            return False
        return any((f.kind, f.stage) == (find.kind, find.stage) for f in found)

    return onnx.ModelProto.FromString(minimise(model.SerializeToString(), shows, 300))


def main() -> int:
    """Judge as many graphs as asked for; the exit code is 1 where one was wrong or broke."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--graphs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--only", type=int)
    parser.add_argument("--every", type=int, default=1, help="conversions of one in so many")
    parser.add_argument("--save", type=Path, help="folder of finds, made small")
    parser.add_argument("--verbose", action="store_true", help="refusals and disputes as well")
    options = parser.parse_args()
    start, graphs = options.start, options.graphs
    if options.only is not None:
        start, graphs = options.only, 1
    seen: set[tuple[str, str, str]] = set()

    def tell(number: int, find: Find) -> None:
        if options.verbose or find.kind in ("wrong", "crash", "hang"):
            line = f"{number} {find.kind} {find.stage} {find.operator}: {find.detail}"
            print(line, flush=True)
        key = (find.kind, find.stage, find.operator)
        if options.save is not None and find.kind in ("wrong", "crash") and key not in seen:
            seen.add(key)
            options.save.mkdir(parents=True, exist_ok=True)
            stem = options.save / f"{find.kind}_{find.stage}_{options.seed}_{number}"
            small = _minimised(options.seed, number, find)
            onnx.save(small, stem.with_suffix(".onnx"))
            stem.with_suffix(".json").write_text(json.dumps(find.__dict__), encoding="utf-8")

    began = time.process_time()
    tally = run_graphs(graphs, options.seed, start, tell, options.every)
    print(tally.report())
    print(f"{time.process_time() - began:.0f} s of processor time")
    return int(bool(tally.count("wrong", "crash", "hang")))


if __name__ == "__main__":
    sys.exit(main())
