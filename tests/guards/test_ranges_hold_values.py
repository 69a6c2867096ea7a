"""No operator leaves its range: with every sign and axis, on any value inside of its inputs'.

Inputs are bounded by what they hold, all elements alike or channel by channel; values drawn
between these ends go through the executor, and whatever comes out lies inside.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping

import numpy as np
import onnx_ir

import qonnx_hub as qh
from qonnx_hub_ir.analysis import ValueInfo, infer_values
from qonnx_hub_ir.errors import HubError, PassError
from tests.guards.variants import all_variants, loaded, with_constants

Arrays = Mapping[str, np.ndarray]

_DRAWS = 3


def is_real(array: np.ndarray) -> bool:
    plain = array.dtype in (np.float16, np.float32, np.float64)
    return plain and array.size > 0 and bool(np.all(np.isfinite(array)))


def ends_of(array: np.ndarray, axis: int | None) -> ValueInfo:
    """Return the lowest and highest element, of all or of each place of an axis."""
    others = tuple(k for k in range(array.ndim) if k != axis)
    kept = axis is not None
    ends = (how(array, axis=others, keepdims=kept) for how in (np.min, np.max))
    low, high = (np.asarray(end, dtype=np.float64) for end in ends)
    # Zero is where signs and slopes change.
    return ValueInfo(np.minimum(low, 0.0), np.maximum(high, 0.25))


def drawn(info: ValueInfo, like: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return values between the ends, the ends themselves and zero often among them."""
    low, high = (np.broadcast_to(end, like.shape) for end in (info.low, info.high))
    between = low + (high - low) * rng.random(like.shape)
    picked = np.choose(
        rng.integers(0, 5, like.shape), [low, high, 0.0 * low, between, between]
    )
    return np.clip(picked.astype(like.dtype), low, high).astype(like.dtype)


def outside(found: ValueInfo, answer: np.ndarray) -> str:
    """Return what of the answer lies outside of a range or off its grid."""
    if answer.dtype.kind not in "iufb" or np.isnan(answer.astype(np.float64)).any():
        return ""
    values = answer.astype(np.float64)
    try:
        low, high = (np.broadcast_to(end, values.shape) for end in (found.low, found.high))
    except ValueError:
        return f"ends of shape {found.low.shape} for values of shape {values.shape}"
    if not bool(np.all((values >= low) & (values <= high))):
        return f"{values.min()}..{values.max()} in {found.low.min()}..{found.high.max()}"
    grid = found.grid
    if grid is None:
        return ""
    steps = (values - grid.offset) / grid.scale
    whole = np.rint(steps)
    if grid.exact and not bool(np.all(steps == whole)):
        return "off the grid"
    # A grid that is not exact is left by roundings of floats, not by steps.
    near = np.abs(steps - whole) <= 1e-4 * np.maximum(1.0, np.abs(whole))
    if not bool(np.all(near & (whole >= grid.low) & (whole <= grid.high))):
        return f"steps {steps.min()}..{steps.max()} in {grid.low.min()}..{grid.high.max()}"
    return ""


def settings_of(feeds: Arrays) -> Iterator[tuple[int, int | None]]:
    """Give how many inputs move, and the axis whose places have ends of their own."""
    first = next(iter(feeds.values()))
    for moving in sorted({1, len(feeds)}):
        yield moving, None
        yield from ((moving, axis) for axis in range(first.ndim) if first.shape[axis] > 1)


def complaint(model: onnx_ir.Model, feeds: Arrays, axis: int | None) -> tuple[str, int]:
    """Return what lies outside, and how many outputs are bounded."""
    infos = {
        name: ends_of(x, axis if axis is not None and axis < x.ndim else None)
        for name, x in feeds.items()
        if is_real(x)
    }
    try:
        found = infer_values(model, infos)
    except PassError:
        # What the suite leaves to run time does not fit as constants.
        return "", 0
    session, rng = qh.Session(model), np.random.default_rng(3)
    bounded = sum(found[name].is_bounded for name in session.output_names)
    for _ in range(_DRAWS):
        given = {n: drawn(infos[n], x, rng) if n in infos else x for n, x in feeds.items()}
        try:
            answers = session.run(given)
        except HubError:
            continue
        for name, answer in answers.items():
            if isinstance(answer, np.ndarray) and (words := outside(found[name], answer)):
                return f"{name}: {words}", bounded
    return "", bounded


def test_every_operator_stays_inside_its_range():
    wrong, tried, bounded = {}, 0, 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for variant in all_variants():
            if not variant.feeds or not is_real(next(iter(variant.feeds.values()))):
                continue
            model = loaded(variant)
            assert model is not None
            for moving, axis in settings_of(variant.feeds):
                fixed, feeds = with_constants(model, variant.feeds, moving)
                words, known = complaint(fixed, feeds, axis)
                tried, bounded = tried + 1, bounded + known
                if words:
                    wrong[f"{variant.label}, {moving} moving, axis {axis}"] = words
    assert wrong == {}
    assert tried > 3000
    assert bounded > 1000
