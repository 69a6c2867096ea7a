"""Inputs of many magnitudes, of which those are kept that lead somewhere new.

Where quantizers lie behind other layers, nothing tells from the graph alone which inputs lead
between their limits. So magnitudes over many powers of two are tried, and a sample is kept
where it meets a band, a side of a bend, or a value of an output that no other met.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qonnx_hub.equivalence.inputs.watch import Watcher, rows_of
from qonnx_hub_adapters.protocol import Feeds
from qonnx_hub_ir.errors import HubError
from qonnx_hub_ir.quantizers import Array

MAGNITUDES = 24
"""Magnitudes that are tried."""

_SPREAD = 10
"""Binary orders below the smallest and above the largest magnitude met: about 1000 times."""

_FARTHEST = 40
_FEATURES = 4096
_MOST_ELEMENTS = 64
_BINS = 16

Ranges = Mapping[str, tuple[float, float]]


def sweep_magnitudes(
    watcher: Watcher, feeds: Feeds, names: list[str], rows: int, most: int, seed: int
) -> dict[str, Array] | None:
    """Return samples that lead to what the given ones do not; ``None`` without any.

    Args:
        watcher: Runs the model.
        feeds: The inputs so far, the first axis over tries.
        names: The inputs that may have any value: floats without a range.
        rows: Samples to try.
        most: Samples to return at most.
        seed: Seed of the random values.
    """
    tried = try_magnitudes(watcher, feeds, names, rows, seed)
    samples = len(next(iter(feeds.values())))
    joined = {n: np.concatenate([x, tried[n]]) for n, x in feeds.items()}
    try:
        found = _features(watcher, joined, samples + rows)
    except HubError:
        return None
    if found is None:
        return None
    met, own = found[:samples].any(axis=0), found[samples:]
    chosen: list[int] = []
    while len(chosen) < most:
        gains = np.count_nonzero(own & ~met, axis=1)
        best = int(gains.argmax())
        if not gains[best]:
            break
        chosen.append(best)
        met |= own[best]
    if not chosen:
        return None
    return {n: x[chosen] for n, x in tried.items()}


def try_magnitudes(
    watcher: Watcher, feeds: Feeds, names: list[str], rows: int, seed: int
) -> dict[str, Array]:
    """Return samples of all magnitudes that the scales of a model suggest.

    Args:
        watcher: Knows the quantizers of the model.
        feeds: The inputs so far, for types, shapes, and the values of other inputs.
        names: The inputs whose values are drawn.
        rows: How many samples.
        seed: Seed of the random values.
    """
    rng = np.random.default_rng([seed, rows])
    sizes = [np.ones(1, dtype=np.float64), *(one.sizes for one in watcher.steps)]
    met = np.concatenate([*sizes, *(np.abs(bend.points) for bend in watcher.bends)])
    orders = np.log2(met[np.isfinite(met) & (met > 0)])
    # The binary orders of the smallest and the largest magnitude to try.
    low = max(float(orders.min()) - _SPREAD, -_FARTHEST)
    high = min(float(orders.max()) + _SPREAD, _FARTHEST)
    exponents = np.linspace(low, high, MAGNITUDES)[np.arange(rows) % MAGNITUDES]
    found = {}
    for position, (name, x) in enumerate(feeds.items()):
        if name not in names:
            found[name] = x[rng.integers(len(x), size=rows)]
        else:
            own = exponents.copy()
            if position:
                # Inputs need not have one magnitude: every other sample has two.
                own[::2] = rng.permutation(own[::2])
            drawn = _draw(rng, own, x.shape[1:], (low, high))
            found[name] = drawn.astype(x.dtype)
    return found


def _draw(
    rng: np.random.Generator,
    exponents: Array,
    shape: tuple[int, ...],
    orders: tuple[float, float],
) -> Array:
    """Return a sample per exponent: normal, of one sign, whole multiples, one value alone.

    Others have a magnitude for each element, between the ends given.
    """
    rows, size = len(exponents), int(np.prod(shape, dtype=np.int64))
    unit = (2.0**exponents).reshape(-1, 1)
    kind = (np.arange(rows) // MAGNITUDES % 6).reshape(-1, 1)
    sign = rng.choice([-1.0, 1.0], size=(rows, 1))
    normal = rng.normal(size=(rows, size))
    alone = np.arange(size) == rng.integers(max(size, 1), size=(rows, 1))
    whole = rng.integers(-8, 9, size=(rows, size)) / 2
    each = normal * 2.0 ** rng.uniform(*orders, size=(rows, size)) / unit
    drawn = np.select(
        [kind == 0, kind == 1, kind == 2, kind == 3, kind == 4],
        [normal, np.abs(normal) * sign, whole, alone * sign, each],
        default=sign,
    )
    return np.asarray(drawn * unit).reshape(rows, *shape)


def _features(watcher: Watcher, feeds: Feeds, samples: int) -> Array | None:
    """Return which sample leads where, shape (samples, places); ``None`` if they mix."""
    values = watcher.run(feeds, watcher.names)
    if not rows_of(values, watcher.names, samples):
        return None
    share = _FEATURES // max(len(watcher.names), 1)
    parts = [np.zeros((samples, 0), dtype=np.bool_)]
    for one in watcher.steps:
        bands = one.bands(one.codes(values[one.source]))
        # 0 at the lowest band, 2 at the highest, 1 between them.
        ends = np.where(bands <= 0, 0, np.where(bands >= one.total, 2, 1))
        parts += [_met(bands, one.total + 1), _placed(ends, 3, share)]
    for bend in watcher.bends:
        pieces = bend.pieces(values[bend.source]).reshape(samples, -1) + 1
        count = len(bend.points) + 2
        parts += [_met(pieces, count), _placed(pieces, count, share)]
    for name in watcher.judged.values():
        parts.append(_placed(_ranks(values[name].reshape(samples, -1)), _BINS, share))
    return np.concatenate(parts, axis=1)


def _met(places: Array, count: int) -> Array:
    """Return for each sample at which of the places some element is."""
    found = np.zeros((len(places), count), dtype=np.bool_)
    found[np.arange(len(places)).reshape(-1, 1), places] = True
    return found


def _placed(places: Array, count: int, share: int) -> Array:
    """Return for each sample at which place each element is, of as many as fit the share."""
    most = min(max(share // count, 1), _MOST_ELEMENTS)
    kept = places[:, :: -(-places.shape[1] // most)] if places.shape[1] > most else places
    spread = kept[:, :, np.newaxis] == np.arange(count)
    return np.asarray(spread.reshape(len(places), -1))


def _ranks(x: Array) -> Array:
    """Return in which of a few bins each value lies among the values of its element."""
    some = x[:, :: max(x.shape[1] // _MOST_ELEMENTS, 1)]
    found = np.zeros(some.shape, dtype=np.int64)
    for k in range(some.shape[1]):
        distinct, rank = np.unique(some[:, k], return_inverse=True)
        found[:, k] = rank.reshape(-1) * _BINS // max(len(distinct), 1)
    return found
