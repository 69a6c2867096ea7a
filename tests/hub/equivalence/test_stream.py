"""Batches, processes, threads and machines: the same numbers every time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import qonnx_hub as qh
from qonnx_hub.equivalence.verdicts import Verdict
from qonnx_hub_ir.errors import UsageError


@pytest.fixture
def pair(nets, surgery):
    model = nets["mlp"]()
    other = surgery.copied(model)
    surgery.change_constant(other, "act2.scale", lambda s: s * np.float32(1.01))
    return model, other


def numbers(result):
    return [row.to_dict()["accumulated"] for row in result.layer_rows]


def options(**more):
    return {"samples": 2500, "boundary": False, **more}


def test_threads_give_the_same_numbers_as_one_process(pair):
    alone = qh.check(*pair, **options())
    with ThreadPoolExecutor(2) as pool:
        spread = qh.check(*pair, **options(executor=pool))
    assert numbers(spread) == numbers(alone)
    assert not spread
    assert spread.findings == alone.findings


def test_processes_give_the_same_numbers_as_one(pair):
    alone, spread = qh.check(*pair, **options()), qh.check(*pair, **options(workers=2))
    assert numbers(spread) == numbers(alone)


def test_a_local_dask_cluster_gives_the_same_numbers(pair):
    distributed = pytest.importorskip("distributed")
    alone = qh.check(*pair, **options())
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    )
    with cluster, distributed.Client(cluster) as client:
        spread = qh.check(*pair, **options(executor=client.get_executor()))
    assert numbers(spread) == numbers(alone)


def test_progress_ends_with_all_samples(pair):
    seen = []
    result = qh.check(
        *pair, **options(progress=lambda done, total: seen.append((done, total)))
    )
    assert len(seen) > 1
    assert seen == sorted(seen)
    assert seen[-1] == (result.samples, result.samples)
    assert result.samples >= 2500


def test_no_batch_is_ever_larger_than_its_share(pair, monkeypatch):
    from qonnx_hub.executor.session import Session

    sizes = []
    run = Session.run

    def spy(self, feeds, **more):
        sizes.extend(len(x) for x in feeds.values() if np.ndim(x))
        return run(self, feeds, **more)

    monkeypatch.setattr(Session, "run", spy)
    qh.check(pair[0], pair[0], **options(samples=10_000))
    assert max(sizes) <= 1024


def test_accuracy_of_both_sides_is_counted(pair):
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (300, 12)).astype(np.float32)
    outputs = [qh.run(m, {"x": x})["y"].argmax(axis=1) for m in pair]
    labels = rng.integers(0, 5, 300)
    result = qh.check(*pair, {"x": x}, labels=labels, level="output")
    assert result.score.samples == 300
    assert result.score.changed == int((outputs[0] != outputs[1]).sum())
    assert result.score.correct == tuple(int((o == labels).sum()) for o in outputs)


def test_one_hot_labels_are_classes(pair):
    x = np.random.default_rng(0).uniform(-2, 2, (20, 12)).astype(np.float32)
    classes = qh.run(pair[0], {"x": x})["y"].argmax(axis=1)
    result = qh.check(*pair, {"x": x}, labels=np.eye(5, dtype=np.float32)[classes])
    assert result.score.correct[0] == 20


def test_other_numbers_of_labels_are_refused(pair):
    x = np.zeros((3, 12), dtype=np.float32)
    with pytest.raises(UsageError, match="2 labels for 3 samples"):
        qh.check(*pair, {"x": x}, labels=np.array([0, 1]))


def test_records_do_not_travel_to_workers(pair):
    x = np.zeros((3, 12), dtype=np.float32)
    recorded = qh.run(pair[0], {"x": x})
    with pytest.raises(UsageError, match="cannot be sent to workers"):
        qh.check(pair[0], recorded, {"x": x}, workers=2)


def test_outputs_of_other_shapes_differ(pair):
    x = np.zeros((3, 12), dtype=np.float32)
    other = {"y": np.zeros((3, 4), dtype=np.float32)}
    result = qh.check(pair[0], other, {"x": x})
    assert result.verdict is Verdict.DIFFERENT
    assert "output 'y' has shape [3, 5] in the reference, [3, 4] in the other side" in (
        result.notes
    )
