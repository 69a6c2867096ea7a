"""Batches run in pieces on several threads, with the same numbers as sample by sample."""

from __future__ import annotations

import os
import signal
import threading
import time

import numpy as np
import pytest

import qonnx_hub as qh
from benchmarks import nets
from qonnx_hub.executor import blas, tiles
from qonnx_hub.executor import threads as pool
from qonnx_hub_ir.errors import UsageError


@pytest.fixture
def session_of(monkeypatch):
    """A session whose pieces are small enough for a test."""
    monkeypatch.setattr(tiles, "PIECE_PRODUCTS", 60_000_000)
    monkeypatch.setattr(tiles, "PIECE_BYTES", 1 << 18)
    model = qh.load(nets.fix_batch(nets.cnv(1, 1), 1))
    return lambda threads: qh.Session(model, threads=threads)


def _images(count: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    # Pixels as the net's first quantizer has them: whole steps of 1/128.
    return {
        "global_in": (rng.integers(-128, 128, (count, 3, 32, 32)) / 128).astype(np.float32)
    }


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_pieces_give_what_single_samples_give(session_of, threads) -> None:
    session = session_of(threads)
    feeds = {session.input_names[0]: _images(5)["global_in"]}
    name = session.output_names[0]
    together = session.run(feeds)[name]
    alone = [session.run({k: v[i : i + 1] for k, v in feeds.items()})[name] for i in range(5)]
    # Sums of weights and activations of one bit are whole numbers: exact in any order.
    np.testing.assert_array_equal(together, np.concatenate(alone))


def test_every_tensor_comes_joined_as_well(session_of) -> None:
    session = session_of(2)
    feeds = {session.input_names[0]: _images(4)["global_in"]}
    outputs, tensors = session.run(feeds), session.run(feeds, all_tensors=True)
    np.testing.assert_array_equal(
        tensors[session.output_names[0]], outputs[session.output_names[0]]
    )
    images = [tensor for tensor in tensors.values() if tensor.ndim == 4]
    assert sum(len(tensor) == 4 for tensor in images) > 20


def test_the_matrix_library_is_set_back_after_a_run(session_of) -> None:
    before = blas.blas_threads()
    session = session_of(1)
    session.run({session.input_names[0]: _images(4)["global_in"]})
    with pytest.raises(ValueError, match="on purpose"), blas.limited_to(1):
        raise ValueError("on purpose")
    assert blas.blas_threads() == before


def test_nested_limits_restore_the_first_setting() -> None:
    before = blas.blas_threads()
    if before is None:
        pytest.skip("numpy's matrix library cannot be asked")
    with blas.limited_to(before + 1):
        assert blas.blas_threads() == before + 1
        with blas.limited_to(1):
            assert blas.blas_threads() == before + 1
    assert blas.blas_threads() == before


def test_no_thread_at_all_is_a_usage_error(session_of) -> None:
    with pytest.raises(UsageError, match="1 thread or more, not on 0"):
        session_of(0)


def test_all_parts_are_done_once_and_by_whoever_is_free() -> None:
    done: list[int] = []
    with pool.use_threads(3):
        pool.parallel_for(lambda: done.append, range(50))
    assert sorted(done) == list(range(50))


def test_a_failure_in_another_thread_is_raised_here() -> None:
    barrier = threading.Barrier(2, timeout=30)

    def make():
        def work(part: int) -> None:
            # Both threads hold one part: neither can do the other's.
            barrier.wait()
            if threading.current_thread() is not threading.main_thread():
                raise ValueError(f"part {part}")

        return work

    with pool.use_threads(2), pytest.raises(ValueError, match="part"):
        pool.parallel_for(make, range(2))


def test_parts_inside_a_part_stay_on_its_thread() -> None:
    def inner() -> set[int]:
        threads: set[int] = set()
        pool.parallel_for(lambda: lambda _: threads.add(threading.get_ident()), range(20))
        return threads

    assert all(len(t) == 1 for t in pool.parallel_map(lambda _: inner(), range(6), 2))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_makes_threads_of_its_own() -> None:
    with pool.use_threads(2):
        pool.parallel_for(lambda: lambda _: None, range(4))
    child = os.fork()
    if child == 0:
        with pool.use_threads(2):
            pool.parallel_for(lambda: lambda _: None, range(4))
        os._exit(0)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            assert status == 0
            return
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pytest.fail("the child waits for threads that it does not have")


def test_pieces_are_even_but_worth_a_thread_and_fit_the_cache(monkeypatch) -> None:
    monkeypatch.setattr(tiles.os, "cpu_count", lambda: 4)
    plan = tiles.Pieces(unit=1, most=10, least=3)
    # 16 in four parts; 8 in parts of three at least; 100 in parts of ten at most.
    assert [plan.size(n) for n in (16, 8, 100, 3, 2)] == [4, 3, 10, None, None]
    assert tiles.Pieces(unit=5, most=10, least=1).size(40) == 10
