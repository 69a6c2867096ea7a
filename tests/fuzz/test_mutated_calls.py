"""Whatever a file holds, every verb ends in a documented code, in time, with a place.

Set ``QONNX_HUB_FUZZ_CALLS`` for more calls than fit a usual run, ``QONNX_HUB_FUZZ_SEED`` for
others.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.fuzz.judgement import faults_of
from tests.fuzz.minimise import minimise
from tests.fuzz.mutations import MUTATIONS, mutate
from tests.fuzz.worker import Outcome
from tests.support import model_of, quant_node

USUAL = 2000 if importlib.util.find_spec("onnxruntime") else 200
"""Calls of a usual run: many where onnxruntime is asked as well, which happens once."""

CALLS = int(os.environ.get("QONNX_HUB_FUZZ_CALLS", USUAL))
PROCESSES = 1 if CALLS <= USUAL else 2
SEED = os.environ.get("QONNX_HUB_FUZZ_SEED", "0")
CORPUS = Path(__file__).with_name("corpus")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="children are forked")


def _fuzz(*words: str) -> subprocess.Popen[str]:
    # A process of its own: one that has no threads yet can be forked.
    return subprocess.Popen(
        [sys.executable, "-m", "tests.fuzz", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )


def test_no_spoiled_model_ends_in_a_fault() -> None:
    seeds = ("--seed", SEED, "--house", "--nodes", "60")
    share = CALLS // PROCESSES
    chosen = (*seeds, "--verbose", "--calls", str(share))
    parts = [_fuzz("mutate", *chosen, "--start", str(k * share)) for k in range(PROCESSES)]
    answers = [part.communicate()[0] for part in parts]
    for part, told in zip(parts, answers, strict=True):
        assert part.returncode == 0, told
        (total,) = [line.split()[1:2] for line in told.splitlines() if line.startswith("all ")]
        assert total == [str(share)], told


def test_no_file_of_the_corpus_ends_in_a_fault() -> None:
    assert len(list(CORPUS.glob("*.onnx"))) > 10
    done = _fuzz("replay", str(CORPUS))
    told, _ = done.communicate()
    assert done.returncode == 0, told


def _net() -> onnx.ModelProto:
    constants = {"s": 0.25, "z": 0.0, "b": 4.0, "w": np.ones((4, 3), dtype=np.float32)}
    nodes = [quant_node("x", "q"), helper.make_node("MatMul", ["q", "w"], ["y"], "product")]
    return model_of(nodes, {"x": (2, 4)}, ["y"], constants)


def test_the_same_seed_gives_the_same_bytes() -> None:
    first, second = (mutate(_net(), np.random.default_rng(5)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_every_mutation_changes_a_model_that_stays_parseable(mutation: object) -> None:
    assert callable(mutation)
    changed = 0
    for seed in range(40):
        model = _net()
        model.graph.value_info.append(
            helper.make_tensor_value_info("q", TensorProto.FLOAT, [2])
        )
        whole = onnx.numpy_helper.from_array(np.arange(3, dtype=np.int64), "i")
        model.graph.initializer.append(whole)
        model.graph.node[0].attribute.append(helper.make_attribute("list", [1, 2]))
        before = model.SerializeToString()
        mutation(model, np.random.default_rng(seed))
        changed += onnx.ModelProto.FromString(model.SerializeToString()) is not None and (
            model.SerializeToString() != before
        )
    assert changed > 10


@pytest.mark.parametrize(
    ("outcome", "faults"),
    [
        (Outcome(0, "", "", 0.1), []),
        (Outcome(3, "", "'m.onnx': MatMul 'product': shapes differ", 0.1), []),
        (Outcome(3, "", "'m.onnx': it cannot be read", 0.1), ["no place"]),
        (Outcome(3, "", "", 0.1), ["no message"]),
        (Outcome(None, "", "", 20.0), ["hang"]),
        (Outcome(-11, "", "", 0.1), ["signal 11"]),
        (Outcome(1, "", "Traceback (most recent call last)", 0.1), ["traceback"]),
        (Outcome(70, "", "a defect", 0.1), ["70"]),
        (Outcome(9, "", "'m.onnx': Quant 'q': why", 0.1), ["undocumented exit"]),
        (Outcome(0, "\x1b[2J", "", 0.1), ["control characters"]),
        (Outcome(3, "", "Quant 'q': 'NoneType' object", 0.1), ["foreign words"]),
        (Outcome(3, "", "Quant 'q': no\n" * 40, 0.1), ["long"]),
    ],
)
def test_an_outcome_is_judged_by_code_and_message(outcome: Outcome, faults: list[str]) -> None:
    assert faults_of(outcome, "inspect", _net().SerializeToString(), "m.onnx") == faults


def test_what_does_not_matter_is_taken_away() -> None:
    def shows(data: bytes) -> bool:
        return any(n.op_type == "MatMul" for n in onnx.ModelProto.FromString(data).graph.node)

    small = onnx.ModelProto.FromString(minimise(_net().SerializeToString(), shows))
    assert [node.op_type for node in small.graph.node] == ["MatMul"]
    assert not small.graph.initializer
