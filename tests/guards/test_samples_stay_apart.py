"""A batch is its samples: what is computed together is what each sample gives alone.

Sessions compute a longer first axis at once where every operator keeps its samples apart, and
piece by piece elsewhere. Either way the answer is that of the pieces behind each other, or
the session says that there is none.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from onnx import helper

import qonnx_hub as qh
from qonnx_hub_ir.errors import ExecutionError, UsageError
from tests.guards.variants import Variant, all_variants, answer, loaded
from tests.support import model_of

Arrays = Mapping[str, np.ndarray]


def others(feeds: Arrays) -> dict[str, np.ndarray]:
    """Return the same numbers at other places."""
    return {n: x.reshape(-1)[::-1].reshape(x.shape).copy() for n, x in feeds.items()}


def behind_each_other(first: Arrays, second: Arrays) -> dict[str, np.ndarray]:
    return {name: np.concatenate([x, second[name]]) for name, x in first.items()}


def choices(variant: Variant) -> Iterator[Variant]:
    """Give the net with all inputs moving, the first one, all floats and each other one."""
    names = list(variant.feeds)
    floats = [n for n in names if variant.feeds[n].dtype.kind == "f"]
    seen: list[list[str]] = []
    for moving in [names[:1], names, floats] + [[name] for name in names[1:]]:
        if moving and moving not in seen and all(variant.feeds[n].ndim for n in moving):
            seen.append(moving)
            yield variant if moving == names else variant.with_constants(moving)


def same(ours: np.ndarray, wanted: np.ndarray) -> bool:
    if ours.shape != wanted.shape or ours.dtype != wanted.dtype:
        return False
    if ours.dtype.kind in "OUSbiu":
        return bool(np.all(ours == wanted))
    a, b = ours.astype(np.complex128), wanted.astype(np.complex128)
    # A product of matrices may add in another order for more rows.
    return bool(np.allclose(a, b, rtol=1e-5, atol=1e-6, equal_nan=True))


def complaint(variant: Variant) -> str | None:
    """Return what a batch gives that its samples do not; ``None`` where nothing is known."""
    second = others(variant.feeds)
    alone = [answer(variant, variant.feeds), answer(variant, second)]
    if alone[0] is None or alone[1] is None:
        return None
    model = loaded(variant)
    assert model is not None
    try:
        together = qh.Session(model).run(behind_each_other(variant.feeds, second))
    except (UsageError, ExecutionError):
        return ""
    for name, ours in together.items():
        parts = [answers[name] for answers in alone if answers is not None]
        if same(parts[0], parts[1]) and same(ours, parts[0]):
            continue
        fits = all(part.ndim for part in parts) and parts[0].shape[1:] == parts[1].shape[1:]
        if not fits or not same(ours, np.concatenate(parts)):
            return f"{name}: {ours.shape} from {[part.shape for part in parts]}"
    return ""


def test_a_batch_gives_what_its_samples_give():
    wrong, compared = {}, 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for whole in all_variants():
            for variant in choices(whole):
                words = complaint(variant)
                compared += words is not None
                if words:
                    wrong[variant.label] = words
    assert compared > 3000
    assert wrong == {}


def two_inputs(x: tuple[Any, ...], y: tuple[Any, ...]) -> qh.Session:
    nodes = [helper.make_node("Add", ["x", "y"], ["z"], "add")]
    return qh.Session(qh.load(model_of(nodes, {"x": x, "y": y}, ["z"])))


def test_inputs_of_different_lengths_are_not_cut_side_by_side():
    # One sample of x to three of y: a cut after each sample of x would lose most of y.
    session = two_inputs((1, 2), (3, 2))
    feeds = {"x": np.ones((2, 2), dtype=np.float32), "y": np.ones((6, 2), dtype=np.float32)}
    with pytest.raises(UsageError, match="different numbers of samples"):
        session.run(feeds)


def test_an_input_of_one_row_is_not_cut_beside_a_batch():
    session = two_inputs(("N", 2), (1, 2))
    feeds = {"x": np.ones((4, 2), dtype=np.float32), "y": np.ones((1, 2), dtype=np.float32)}
    with pytest.raises(UsageError, match="different numbers of samples"):
        session.run(feeds, batch=2)
    assert session.run(feeds)["z"].shape == (4, 2)
