"""What a planted pair computes, by onnx's reference evaluator and formulas written here.

Nothing of the project is used: the inputs that tell two models apart are found by code of its
own, so that what the checker cannot see is seen here.
"""

from __future__ import annotations

import warnings

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

Feeds = dict[str, np.ndarray]

_ROUND = {
    "ROUND": np.rint,
    "CEIL": np.ceil,
    "FLOOR": np.floor,
    "UP": lambda t: np.copysign(np.ceil(np.abs(t)), t),
    "DOWN": np.trunc,
    "HALF_UP": lambda t: np.copysign(np.floor(np.abs(t) + np.float32(0.5)), t),
    "HALF_DOWN": lambda t: np.copysign(np.ceil(np.abs(t) - np.float32(0.5)), t),
}


class Quant(OpRun):
    """IntQuant of QONNX, from its document: scale, shift, clamp, round, and back."""

    op_domain = "qonnx.custom_op.general"

    def _run(self, x, s, z, b, signed=1, narrow=0, rounding_mode="ROUND"):
        bits = float(b)
        if signed:
            low, high = -(2 ** (bits - 1)) + narrow, 2 ** (bits - 1) - 1
        else:
            low, high = 0, 2**bits - 1 - narrow
        t = np.clip(x / s + z, np.float32(low), np.float32(high))
        return (((_ROUND[rounding_mode](t) - z) * s).astype(x.dtype),)


class BipolarQuant(OpRun):
    """BipolarQuant of QONNX: the sign, zero counted as positive, times the scale."""

    op_domain = "qonnx.custom_op.general"

    def _run(self, x, s):
        return (np.where(x >= 0, s, -s).astype(x.dtype),)


def _windows(x: np.ndarray, kernel: list[int], pads: list[int], fill: float) -> np.ndarray:
    """Return the windows of step 1 along the last axis of the result."""
    width = [(0, 0), (0, 0), (pads[0], pads[2]), (pads[1], pads[3])]
    padded = np.pad(x, width, constant_values=fill)
    views = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=(2, 3))
    return views.reshape(*views.shape[:4], -1)


class MaxPool(OpRun):
    """MaxPool with strides of 1; the evaluator's own mixes up pads that differ by side."""

    op_domain = ""

    def _run(self, x, kernel_shape=None, pads=None, strides=None, **_):
        assert list(strides) == [1, 1]
        return (_windows(x, kernel_shape, pads, -np.inf).max(axis=-1).astype(x.dtype),)


class AveragePool(OpRun):
    """AveragePool with strides of 1: a float32 sum over a window, over its elements."""

    op_domain = ""

    def _run(self, x, kernel_shape=None, pads=None, strides=None, count_include_pad=0, **_):
        assert list(strides) == [1, 1]
        counted = _windows(np.ones_like(x), kernel_shape, pads, float(count_include_pad))
        sums = _windows(x, kernel_shape, pads, 0).sum(axis=-1)
        return ((sums / counted.sum(axis=-1)).astype(x.dtype),)


def _along_channels(array: np.ndarray, rank: int) -> np.ndarray:
    return array.reshape(-1, *[1] * (rank - 2)) if array.ndim else array


class MultiThreshold(OpRun):
    """MultiThreshold of QONNX: how many thresholds of its channel a value reaches."""

    op_domain = "qonnx.custom_op.general"

    def _run(self, x, thresholds, out_scale=1.0, out_bias=0.0, out_dtype=""):
        spread = thresholds.reshape(len(thresholds), *[1] * (x.ndim - 2), -1)
        counts = (x[..., np.newaxis] >= spread).sum(axis=-1).astype(x.dtype)
        return ((np.float32(out_scale) * counts + np.float32(out_bias)).astype(x.dtype),)


class QuantizeLinear(OpRun):
    """QuantizeLinear: the quotient rounded to even, the zero point, the ends of the type.

    Attributes:
        met_nan: Whether some run met a NaN, of which ONNX leaves open what becomes of it.
    """

    op_domain = ""
    met_nan = False

    def _run(self, x, scale, zero, **_):
        QuantizeLinear.met_nan |= bool(np.isnan(x).any())
        limits = np.iinfo(zero.dtype)
        scale, zero = _along_channels(scale, x.ndim), _along_channels(zero, x.ndim)
        codes = np.rint(x / scale).astype(np.float64) + zero
        return (np.clip(codes, limits.min, limits.max).astype(zero.dtype),)


class DequantizeLinear(OpRun):
    """DequantizeLinear: the distance to the zero point times the scale."""

    op_domain = ""

    def _run(self, q, scale, zero, **_):
        scale, zero = _along_channels(scale, q.ndim), _along_channels(zero, q.ndim)
        return ((q.astype(np.int32) - zero.astype(np.int32)).astype(np.float32) * scale,)


def _per_channel(array: np.ndarray, rank: int) -> np.ndarray:
    return array.reshape(-1, *[1] * (rank - 2))


class BatchNormalization(OpRun):
    """BatchNormalization as its document writes it."""

    op_domain = ""

    def _run(self, x, gain, shift, mean, variance, epsilon=1e-5, **_):
        a, b, m, v = (_per_channel(p, x.ndim) for p in (gain, shift, mean, variance))
        return (((x - m) / np.sqrt(v + np.float32(epsilon)) * a + b).astype(x.dtype),)


class _Folded(OpRun):
    """BatchNormalization as onnxruntime adds and multiplies it without optimizations."""

    op_domain = ""

    def _run(self, x, gain, shift, mean, variance, epsilon=1e-5, **_):
        a, b, m, v = (_per_channel(p, x.ndim) for p in (gain, shift, mean, variance))
        factor = np.reciprocal(np.sqrt(v + np.float32(epsilon))) * a
        return ((x * factor + (b - m * factor)).astype(x.dtype),)


_Folded.__name__ = "BatchNormalization"


class OldSoftmax(OpRun):
    """Softmax before opset 13: over all axes from the given one on; 1 where none is given."""

    op_domain = "tests.oracle"

    def _run(self, x, axis=1):
        rows = x.reshape(int(np.prod(x.shape[:axis])), -1)
        shares = np.exp(rows - rows.max(axis=1, keepdims=True))
        return ((shares / shares.sum(axis=1, keepdims=True)).reshape(x.shape),)


_OPERATORS = (
    *(Quant, BipolarQuant, MultiThreshold, QuantizeLinear, DequantizeLinear),
    *(MaxPool, AveragePool, OldSoftmax),
)


def _in_float64(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy that stores its float32 numbers as float64; what it casts stays."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    for stored in copy.graph.initializer:
        if stored.data_type == onnx.TensorProto.FLOAT:
            wide = numpy_helper.to_array(stored).astype(np.float64)
            stored.CopyFrom(numpy_helper.from_array(wide, stored.name))
    return copy


class Oracle:
    """A model as the reference evaluator computes it, in float32 or in float64."""

    def __init__(
        self, model: onnx.ModelProto, *, folded: bool = False, wide: bool = False
    ) -> None:
        norm = _Folded if folded else BatchNormalization
        model = _in_float64(model) if wide else model
        opset = next(o.version for o in model.opset_import if not o.domain)
        if opset < 13:
            # The evaluator knows the meaning of today only.
            model = onnx.ModelProto.FromString(model.SerializeToString())
            for node in model.graph.node:
                if node.op_type == "Softmax":
                    node.op_type, node.domain = "OldSoftmax", OldSoftmax.op_domain
            model.opset_import.append(helper.make_opsetid(OldSoftmax.op_domain, 1))
        self._session = ReferenceEvaluator(model, new_ops=[*_OPERATORS, norm])
        first = model.graph.input[0].type.tensor_type.shape.dim[0]
        self.batch = max(first.dim_value, 1)
        self.shapes = {
            i.name: tuple(d.dim_value for d in i.type.tensor_type.shape.dim)[1:]
            for i in model.graph.input
        }

    def __call__(self, feeds: Feeds) -> list[np.ndarray]:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return [np.asarray(y) for y in self._session.run(None, feeds)]


def differing_rows(ours: list[np.ndarray], theirs: list[np.ndarray]) -> np.ndarray:
    """Return the samples on which some output differs; -0.0 equals 0.0, NaN equals NaN."""
    rows = np.zeros(len(ours[0]), dtype=bool)
    for a, b in zip(ours, theirs, strict=True):
        if a.shape != b.shape:
            return np.ones(len(ours[0]), dtype=bool)
        unequal = (a != b) & ~(np.isnan(a) & np.isnan(b))
        rows |= unequal.reshape(len(a), -1).any(axis=1)
    return rows


def _constants(model: onnx.ModelProto) -> np.ndarray:
    arrays = [numpy_helper.to_array(t).reshape(-1) for t in model.graph.initializer]
    found = np.unique(
        np.abs(np.concatenate([a.astype(np.float64) for a in arrays] or [[1.0]]))
    )
    found = found[(found > 1e-6) & (found < 1e6)]
    return found if found.size else np.ones(1)


def draw_inputs(
    models: list[onnx.ModelProto], shapes: dict[str, tuple[int, ...]], rng
) -> Feeds:
    """Return inputs of all kinds: every magnitude, one value alone, multiples of constants."""
    pool = np.unique(np.concatenate([_constants(m) for m in models]))
    feeds = {}
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        rows = []
        for exponent in range(-10, 19):
            scale = 2.0**exponent
            rows.append(rng.normal(size=(6, size)) * scale)
            rows.append(rng.uniform(-1, 1, size=(2, 1)) * scale * np.ones((2, size)))
            alone = np.zeros((4, size))
            alone[np.arange(4), rng.integers(size, size=4)] = rng.choice([-1, 1], 4) * scale
            rows.append(alone)
        halves = rng.integers(-40, 41, size=(96, size)) / 2
        rows.append(halves * rng.choice(pool, size=(96, 1)))
        rows.append(halves * rng.choice(pool, size=(96, size)))
        rows.append(rng.choice(pool, (48, size)) / rng.choice(pool, (48, size)) * halves[:48])
        rows.append(np.zeros((1, size)))
        x = np.concatenate(rows).astype(np.float32)
        side = rng.integers(0, 6, size=x.shape)
        x = np.where(side == 0, np.nextafter(x, np.float32(np.inf)), x)
        x = np.where(side == 1, np.nextafter(x, np.float32(-np.inf)), x)
        feeds[name] = x.astype(np.float32).reshape(-1, *shape)
    # Inputs of one model need not have one magnitude.
    for name in list(feeds)[1:]:
        mixed = rng.permutation(len(feeds[name]))
        mixed[::2] = np.arange(len(mixed))[::2]
        feeds[name] = feeds[name][mixed]
    return feeds


def _changes(a: Oracle, feeds: Feeds, rng, lines: int, halvings: int = 26) -> Feeds:
    """Return inputs on both sides of places where outputs of the first model jump."""
    count = len(next(iter(feeds.values())))
    start, stop = rng.integers(count, size=lines), rng.integers(count, size=lines)

    def at(t: np.ndarray) -> Feeds:
        found = {}
        for name, x in feeds.items():
            step = x[stop].astype(np.float64) - x[start]
            moved = x[start] + t.reshape(-1, *[1] * (x.ndim - 1)) * step
            found[name] = moved.astype(np.float32)
        return found

    low, high = np.zeros(lines), np.ones(lines)
    first = a(at(low))
    # One element of one output is followed on each line.
    flat = np.concatenate([y.reshape(lines, -1) for y in first], axis=1)
    last = np.concatenate([y.reshape(lines, -1) for y in a(at(high))], axis=1)
    moved = flat != last
    pick = np.array([rng.choice(np.flatnonzero(m)) if m.any() else 0 for m in moved])
    own = flat[np.arange(lines), pick]
    for _ in range(halvings):
        middle = (low + high) / 2
        now = np.concatenate([y.reshape(lines, -1) for y in a(at(middle))], axis=1)
        same = now[np.arange(lines), pick] == own
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    both = [at(low), at(high)]
    return {n: np.concatenate([part[n] for part in both]) for n in feeds}


def sides_of(first: onnx.ModelProto, second: onnx.ModelProto) -> list[tuple[Oracle, Oracle]]:
    """Return both models, once for each order in which BatchNormalization may compute."""
    has_norm = any(n.op_type == "BatchNormalization" for n in first.graph.node)
    orders = (False, True) if has_norm else (False,)
    return [(Oracle(first, folded=o), Oracle(second, folded=o)) for o in orders]


def differs_in_all(sides: list[tuple[Oracle, Oracle]], feeds: Feeds) -> np.ndarray:
    """Return the samples on which outputs differ, whatever the order of operations."""
    rows = [
        differing_rows(a({n: feeds[n] for n in a.shapes}), b({n: feeds[n] for n in b.shapes}))
        for a, b in sides
    ]
    return np.logical_and.reduce(rows)


def differs_without_rounding(
    first: onnx.ModelProto, second: onnx.ModelProto, feeds: Feeds
) -> bool:
    """Return whether outputs differ by more than orders of sums explain in float64."""
    wide = {n: x.astype(np.float64) for n, x in feeds.items()}
    a, b = Oracle(first, wide=True), Oracle(second, wide=True)
    answers = [side({n: wide[n] for n in side.shapes}) for side in (a, b)]
    for x, y in zip(*answers, strict=True):
        if x.shape != y.shape:
            return True
        size = max(float(np.abs(v[np.isfinite(v)]).max(initial=0)) for v in (x, y))
        same = (x == y) | (np.isnan(x) & np.isnan(y)) | (np.abs(x - y) <= 2.0**-40 * size)
        if not same.all():
            return True
    return False


def telling_input(
    first: onnx.ModelProto, second: onnx.ModelProto, rng: np.random.Generator
) -> Feeds | None:
    """Return one sample on which the outputs differ; ``None`` where none was found."""
    both = sides_of(first, second)
    a, b = both[0]
    shapes = {**a.shapes, **b.shapes}
    feeds = draw_inputs([first, second], shapes, rng)

    def found(x: Feeds) -> Feeds | None:
        rows = differs_in_all(both, x)
        for row in np.flatnonzero(rows)[:16]:
            alone = {n: np.repeat(v[row : row + 1], a.batch, axis=0) for n, v in x.items()}
            # By itself as well: a sum may round otherwise in a longer batch.
            if differs_in_all(both, alone).any():
                return alone
        return None

    seen = found(feeds)
    if seen is None:
        plain = {n: np.clip(x, -1e4, 1e4) for n, x in feeds.items()}
        seen = found(_changes(a, {n: plain[n] for n in a.shapes}, rng, lines=96))
    if seen is None and set(b.shapes) == set(a.shapes):
        seen = found(_changes(b, feeds, rng, lines=48))
    return seen
