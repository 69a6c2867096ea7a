"""What any order of its float sums can make of one sample, value by value.

Each value is enclosed: between two ends lie the result in exact arithmetic and what every
order of adding computes, with or without fused multiply-add. A sum of ``n`` terms moves its
ends by :func:`~qonnx_hub_ir.analysis.float_error.sum_error` of the sample's own sum of
``|w x|``; one of whole numbers that the float type holds moves none. A quantizer makes of two
ends the codes between them: a flipped code is inside only where a threshold lies within reach.

Two sides that compute one function of real numbers have enclosures that meet, everywhere.
Rising and falling functions such as Tanh and Exp are trusted to
:data:`~qonnx_hub.equivalence.normalizing.FUNCTION_ULPS`. Other
algorithms are not covered (a Winograd convolution, an FFT): without a bound for a node, what
lies behind it is never called noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Attr, Graph, Model, Node, Value

from qonnx_hub.equivalence.comparison.compare import aligned, differs
from qonnx_hub.equivalence.diagnosis.isolation import SlicedGraph
from qonnx_hub.equivalence.integer_sums import enclose_integer_product, plain_product
from qonnx_hub.equivalence.normalizing import FUNCTION_ULPS, RULES
from qonnx_hub.equivalence.proof.intervals import (
    POINTWISE,
    Argument,
    Enclosure,
    enclose_step,
)
from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.protocol import Feeds
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.analysis.float_error import sum_error
from qonnx_hub_ir.analysis.grids import digits_of, lowest_bit
from qonnx_hub_ir.analysis.rule_context import rounded_outward
from qonnx_hub_ir.analysis.sum_orders import products_per_sum
from qonnx_hub_ir.errors import HubError
from qonnx_hub_ir.graph.affine import batchnorm_affine
from qonnx_hub_ir.graph.queries import attribute
from qonnx_hub_ir.quantizers import Array
from qonnx_hub_ir.validity import label

FOLD_ROUNDINGS = 4
"""Roundings of a parameter that was folded: a BatchNormalization's factor takes a sum, a root,
a quotient and the product with the weight."""

_NORMALIZING = 6
"""Roundings of a BatchNormalization in any formula: of sums, products, a root, a quotient."""


_ROUNDED_BESIDE = 4
"""Roundings of numbers of an operator's ``formula_size`` in any formula of it."""


class UnboundedError(Exception):
    """No bound is known for a node."""


class SumEnclosures:
    """Encloses values of one graph.

    Attributes:
        graph: The graph.
        live: Whether another library runs it: functions of equal numbers may differ then.
        folded: Whether parameters were rounded anew, up to :data:`FOLD_ROUNDINGS` times each.
    """

    def __init__(
        self, graph: SlicedGraph, *, live: bool = False, folded: bool = False
    ) -> None:
        """Start with nothing planned."""
        self.graph = graph
        self.live = live
        self.folded = folded
        self._imports = dict(graph.model.opset_imports)
        self._sessions: dict[tuple[Node, bool, bool], Session] = {}
        self._plain: dict[Node, Node] = {}

    def enclose(
        self, nodes: Sequence[Node], wanted: str, known: Mapping[str, Array], feeds: Feeds
    ) -> Enclosure:
        """Return between which ends every order of sums keeps a value.

        Args:
            nodes: What computes it, in order.
            wanted: Name of the value.
            known: Name -> value that the nodes start from.
            feeds: The graph's own inputs.

        Raises:
            UnboundedError: A node of whose rounding nothing is known, in words.
        """
        made: dict[Value, Argument] = {}
        with np.errstate(all="ignore"):
            for node in nodes:
                if not self.graph.dynamic & {str(value.name) for value in node.outputs}:
                    continue  # The graph knows its constants.
                given = [self._argument(v, made, known, feeds) for v in node.inputs]
                try:
                    made.update(zip(node.outputs, self._outputs(node, given), strict=False))
                except (HubError, ValueError, TypeError, IndexError) as error:
                    raise UnboundedError(label(node)) from error
        value = self.graph.values.get(wanted)  # an input that is an output as well has none
        found = None if value is None else made.get(value)
        if not isinstance(found, Enclosure):
            raise UnboundedError(f"'{wanted}'")
        return found

    def _argument(
        self,
        value: Value | None,
        made: Mapping[Value, Argument],
        known: Mapping[str, Array],
        feeds: Feeds,
    ) -> Argument:
        if value is None:
            return None
        name = str(value.name)
        array = known.get(name)
        if array is None and value in made:
            return made[value]
        if array is None and value.is_graph_input():
            array = feeds.get(name)
        if array is not None and name in self.graph.dynamic:
            return _point(array)
        constant = array if array is not None else self.graph.constant(value)
        if constant is None:
            raise UnboundedError(f"'{name}'")
        return constant

    def _outputs(self, node: Node, given: Sequence[Argument]) -> Sequence[Argument]:
        if not any(isinstance(one, Enclosure) for one in given):
            return [_point(x) for x in self._run(node, [_ends(a)[0] for a in given])]
        is_sum = operators.is_product(node, any_layout=True) or operators.sums_elements(node)
        if is_sum and _is_float(given[0]):
            return [self._sum(node, given)]
        if operators.is_integer_product(node) and all(map(_is_known, given)):
            plain = self._plain.setdefault(node, plain_product(node))
            more = FOLD_ROUNDINGS * self.folded
            return [enclose_integer_product(node, plain, given, self._wide_run, more=more)]
        if node.op_type == "BatchNormalization" and not attribute(node, "training_mode", 0):
            return [self._normalized(node, given)]
        is_standard = node.domain in dialect.STANDARD_DOMAINS
        if is_function(node) and (self.live or not all(map(_is_point, given))):
            return [self._function(node, given)]
        if (is_standard and node.op_type in POINTWISE) or _is_quantizer(node):
            return [self._pointwise(node, given)]
        if node.op_type in RULES and is_standard and len(node.outputs) == 1:
            return [self._normalizing(node, given)]
        if all(_is_point(one) for one in given):
            return [_point(x) for x in self._run(node, [_ends(a)[0] for a in given])]
        # What lies between two indices is not between what they select.
        places = operators.setting_inputs(node)
        fixed = all(_is_point(one) for k, one in enumerate(given) if k in places)
        if fixed and _keeps_order(node) and all(_is_known(one) for one in given):
            lows, highs = (
                self._run(node, [_ends(one)[end] for one in given]) for end in (0, 1)
            )
            return [
                Enclosure(x, y, np.ones(x.shape, np.bool_))
                for x, y in zip(lows, highs, strict=True)
            ]
        raise UnboundedError(label(node))

    def _sum(self, node: Node, given: Sequence[Argument]) -> Enclosure:
        """Return a sum, moved by its rounding and by how far its inputs reach."""
        if not all(_is_known(one) for one in given):
            raise UnboundedError(label(node))
        dtype = _ends(given[0])[0].dtype
        ends = [tuple(_wide(end) for end in _ends(one)) for one in given]
        middle = [
            low if low is None or low.dtype.kind != "f" else (low + high) / 2
            for low, high in ends
        ]
        reach = [None if low is None else (high - low) / 2 for low, high in ends]
        # Axes are no terms: the magnitude of -1 is another one.
        size = [x if x is None or x.dtype.kind != "f" else np.abs(x) for x in middle]
        centre = self._wide_run(node, middle)
        terms = self._terms(node, given, centre)
        total = self._wide_run(node, size, magnitude=True)
        grown = self._wide_run(
            node, [_added(x, r) for x, r in zip(size, reach, strict=True)], magnitude=True
        )
        spread, unit = grown - total, 2.0 ** -digits_of(dtype)
        exact = _is_exact(node, middle, total, unit) & (spread == 0) & (not self.folded)
        error = sum_error(terms + FOLD_ROUNDINGS * self.folded, grown, unit)
        # The centre itself is a sum of float64: its error is 2^-29 of that.
        spread = spread + np.where(exact, 0.0, error * (1 + 1e-6))
        return _between(centre - spread, centre + spread, dtype)

    def _terms(self, node: Node, given: Sequence[Argument], made: Array) -> int:
        """Return how often a term of a sum is rounded at most."""
        shapes = [None if one is None else _ends(one)[0].shape for one in given]
        if operators.sums_elements(node):
            kernel = attribute(node, "kernel_shape", ())
            size = int(np.prod(shapes[0] or (), dtype=np.int64))
            count = math.prod(kernel) if kernel else -(-size // max(made.size, 1))
            return count + 2
        products = products_per_sum(node, shapes)
        if products is None:
            raise UnboundedError(label(node))
        return products + (len(given) > 2) + 2 * (not _is_plain(node))

    def _normalized(self, node: Node, given: Sequence[Argument]) -> Enclosure:
        """Return a BatchNormalization in exact arithmetic, moved by any formula's rounding."""
        x, *parameters = given
        if not isinstance(x, Enclosure) or any(isinstance(p, Enclosure) for p in parameters):
            raise UnboundedError(label(node))
        gain, shift, mean, variance = (np.asarray(p, np.float64) for p in parameters)
        epsilon = float(attribute(node, "epsilon", 1e-5))
        factor, added = batchnorm_affine(gain, shift, mean, variance, epsilon)
        behind = 0 if node.domain == dialect.CHANNELS_LAST_DOMAIN else max(x.low.ndim - 2, 0)
        sizes = [-1, *[1] * behind]
        factor, added, shift, mean = (
            np.asarray(p, np.float64).reshape(sizes) for p in (factor, added, shift, mean)
        )
        ends = [end.astype(np.float64) for end in (x.low, x.high)]
        made = [end * factor + added for end in ends]
        peak = np.maximum(*map(np.abs, ends)) + np.abs(mean)
        magnitude = np.abs(factor) * peak + np.abs(shift)
        unit = 2.0 ** -digits_of(x.low.dtype)
        error = sum_error(_NORMALIZING + FOLD_ROUNDINGS * self.folded, magnitude, unit)
        found = _between(np.minimum(*made) - error, np.maximum(*made) + error, x.low.dtype)
        return Enclosure(found.low, found.high, x.known & found.known)

    def _pointwise(self, node: Node, given: Sequence[Argument]) -> Enclosure:
        given = _spread(given)
        if self.folded and _is_quantizer(node) and isinstance(given[0], Enclosure):
            given = [_widened(given[0], 0.0) if _is_float(given[0]) else given[0], *given[1:]]
        own = enclose_step(node, lambda *args: self._run(node, args)[0], given)
        if not _is_float(own) or _is_quantizer(node):
            return _widened(own, 0.0) if self.folded and _is_float(own) else own
        wide = [_wide_argument(one) for one in given]
        if not operators.rounds(node) and all(
            _is_float(one) for one in given if one is not None
        ):
            # In exact arithmetic as well: another order rounds elsewhere.
            real = enclose_step(node, lambda *args: self._wide_run(node, args), wide)
            outside = rounded_outward(real.low, real.high, own.low.dtype)
            low, high = np.minimum(own.low, outside[0]), np.maximum(own.high, outside[1])
            own = Enclosure(low, high, own.known & real.known & np.isfinite(low + high))
        if not self.folded:
            return own
        # What is multiplied moves with the result; what is added, by its own size.
        added = [] if operators.multiplies(node) else [c for c in given if c is not None]
        sizes = [np.max(np.abs(c), initial=0) for c in added if isinstance(c, np.ndarray)]
        return _widened(own, float(max(sizes, default=0.0)))

    def _function(self, node: Node, given: Sequence[Argument]) -> Enclosure:
        """Return what any library makes of a function that rises or falls."""
        x = given[0]
        if not isinstance(x, Enclosure) or len([one for one in given if one is not None]) > 1:
            raise UnboundedError(label(node))
        wide = [end.astype(np.float64) for end in (x.low, x.high)]
        ends = [self._wide_run(node, [end]) for end in wide]
        low, high = np.minimum(*ends), np.maximum(*ends)
        beside: Array | float = 0.0
        if not operators.is_monotone(node):
            # It moves by no more than its slope, from the one end to the other.
            reach = (operators.slope(node) or math.inf) * (wide[1] - wide[0])
            low, high = high - reach, low + reach
            beside = np.maximum(*map(np.abs, wide))
        elif self.live:
            beside = operators.of(node).formula_size(node) * _ROUNDED_BESIDE / FUNCTION_ULPS
        unit = 2.0 * 2.0 ** -digits_of(x.low.dtype) * FUNCTION_ULPS
        size = [np.abs(end) + beside for end in (low, high)]
        found = _between(low - unit * size[0], high + unit * size[1], x.low.dtype)
        return Enclosure(found.low, found.high, found.known & x.known)

    def _normalizing(self, node: Node, given: Sequence[Argument]) -> Enclosure:
        """Return a Softmax, LogSoftmax or LayerNormalization, in any formula."""
        x, *others = given
        parameters = [one for one in others if isinstance(one, np.ndarray)]
        is_plain = len(parameters) == len([one for one in others if one is not None])
        if not isinstance(x, Enclosure) or not _is_known(x) or not is_plain:
            raise UnboundedError(label(node))
        if is_of_library(node) and _is_point(x) and not (self.live or self.folded):
            return enclose_step(node, lambda *args: self._run(node, args)[0], given)
        ends = x.low.astype(np.float64), x.high.astype(np.float64)
        unit, more = 2.0 ** -digits_of(x.low.dtype), FOLD_ROUNDINGS * self.folded
        wide = [one.astype(np.float64) for one in parameters]
        rule = RULES[node.op_type]
        made = rule(node, self._imports.get("", 0), ends, wide, unit, more)
        return _between(*made, x.low.dtype)

    def _wide_run(
        self, node: Node, given: Sequence[Array | None], *, magnitude: bool = False
    ) -> Array:
        """Return what a node makes in float64; of magnitudes, with its own factors' too."""
        return self._run(node, given, wide=True, magnitude=magnitude)[0]

    def _run(
        self,
        node: Node,
        given: Sequence[Array | None],
        *,
        wide: bool = False,
        magnitude: bool = False,
    ) -> list[Array]:
        key = (node, wide, magnitude)
        if key not in self._sessions:
            self._sessions[key] = self._session(node, given, wide=wide, magnitude=magnitude)
        session = self._sessions[key]
        feeds = {f"i{k}": x for k, x in enumerate(given) if f"i{k}" in session.input_names}
        return list(session.run(feeds).values())

    def _session(
        self, node: Node, given: Sequence[Any], *, wide: bool, magnitude: bool
    ) -> Session:
        """Return a session of one node; constants stay, in float64 none does."""
        inputs: list[Value | None] = []
        stored: list[Value] = []
        entries: list[Value] = []
        for k, (value, array) in enumerate(zip(node.inputs, given, strict=True)):
            if value is None:
                inputs.append(None)
                continue
            entry = Value(name=f"i{k}")
            moves = str(value.name) in self.graph.dynamic
            if moves or (wide and array.dtype.kind == "f"):
                entries.append(entry)
            else:
                entry.const_value = onnx_ir.tensor(np.asarray(array), name=entry.name)
                stored.append(entry)
            inputs.append(entry)
        attributes = [_positive(a) if magnitude else a for a in node.attributes.values()]
        outputs = [Value(name=f"o{k}") for k, _ in enumerate(node.outputs)]
        one = Node(node.domain, node.op_type, inputs, attributes, outputs=outputs, name="n")
        graph = Graph(
            entries, outputs, nodes=[one], initializers=stored, opset_imports=self._imports
        )
        return Session(Model(graph, ir_version=10))


def meets(a: Enclosure, b: Enclosure) -> Array:
    """Return where two enclosures have a value in common, both being known."""
    low, high = aligned(a.low, b.low), aligned(a.low, b.high)
    known = aligned(a.low, b.known)
    if low is None or high is None or known is None:
        return np.zeros(a.low.shape, dtype=np.bool_)
    return np.asarray(a.known & known & (low <= a.high) & (high >= a.low))


def unexplained(a: Enclosure, b: Enclosure, ours: Array, theirs: Array) -> Array:
    """Return where two sides differ, and no order of sums explains it.

    Both ends must meet, and each side's number must lie in its own: one that does not was
    made in another way than by sums of reals, as by an integer that wrapped.

    Args:
        a: What encloses the one side.
        b: What encloses the other.
        ours: What the one computed.
        theirs: What the other did, in its shape.
    """
    own = aligned(b.low, theirs)
    held = None if own is None else aligned(ours, holds_all(b, own))
    if held is None:
        return np.asarray(differs(ours, theirs))
    return np.asarray(differs(ours, theirs) & ~(meets(a, b) & holds_all(a, ours) & held))


def holds_all(found: Enclosure, values: Array) -> Array:
    """Return where values lie inside of an enclosure."""
    inside = found.known & (values >= found.low) & (values <= found.high)
    same = (found.low == found.high) & ~differs(values, found.low)
    return np.asarray(inside | same)


def _is_quantizer(node: Node) -> bool:
    is_qdq = node.domain in dialect.STANDARD_DOMAINS and operators.is_qdq(node)
    return is_qdq or dialect.is_quantizer(node) or dialect.is_thresholds(node)


def is_function(node: Node) -> bool:
    """Return whether each library computes a node's function of one number in its own way."""
    is_smooth = operators.is_elementwise(node) and not operators.order_is_exact(node)
    has_slope = operators.slope(node) is not None and node.op_type not in POINTWISE
    is_bounded = operators.is_monotone(node) or has_slope
    return is_smooth and node.domain in dialect.STANDARD_DOMAINS and is_bounded


def is_of_library(node: Node) -> bool:
    """Return whether a node's numbers depend on the library that computes its functions."""
    return is_function(node) or (
        operators.of(node).family is operators.Family.SOFTMAX
        and node.domain in dialect.STANDARD_DOMAINS
    )


def _keeps_order(node: Node) -> bool:
    """Return whether larger elements never make a smaller one, and nothing is rounded."""
    if operators.setting_inputs(node) and not operators.moves_or_inserts(node):
        return False
    return operators.moves_or_inserts(node) or operators.is_max_pool(node, any_layout=True)


def _ends(given: Argument) -> tuple[Any, Any]:
    if isinstance(given, Enclosure):
        return given.low, given.high
    return given, given


def _point(array: Any) -> Argument:
    if not isinstance(array, np.ndarray):
        raise TypeError("no array")
    return Enclosure(array, array, np.ones(array.shape, dtype=np.bool_))


def _is_point(given: Argument) -> bool:
    return not isinstance(given, Enclosure) or (
        bool(given.known.all()) and bool((~differs(given.low, given.high)).all())
    )


def _is_known(given: Argument) -> bool:
    return not isinstance(given, Enclosure) or bool(given.known.all())


def _is_float(given: Argument) -> bool:
    return given is not None and digits_of(_ends(given)[0].dtype) > 0


def _wide(array: Array | None) -> Array | None:
    return array if array is None or array.dtype.kind != "f" else array.astype(np.float64)


def _wide_argument(given: Argument) -> Argument:
    if isinstance(given, Enclosure):
        low, high = (np.asarray(_wide(end)) for end in (given.low, given.high))
        return Enclosure(low, high, given.known)
    return _wide(given)


def _added(x: Any, reach: Any) -> Any:
    return x if x is None or x.dtype.kind != "f" else x + reach


def _between(low: Array, high: Array, dtype: np.dtype[Any]) -> Enclosure:
    below, above = rounded_outward(low, high, dtype)
    return Enclosure(below, above, np.isfinite(below) & np.isfinite(above))


def _widened(given: Argument, beside: float) -> Enclosure:
    """Return an enclosure moved apart by the folding of parameters up to ``beside``."""
    assert isinstance(given, Enclosure)
    peak = np.maximum(np.abs(given.low), np.abs(given.high)).astype(np.float64) + beside
    error = sum_error(FOLD_ROUNDINGS, peak, 2.0 ** -digits_of(given.low.dtype))
    ends = given.low - error, given.high + error
    found = _between(ends[0], ends[1], given.low.dtype)
    return Enclosure(found.low, found.high, found.known & given.known)


def _spread(given: Sequence[Argument]) -> Sequence[Argument]:
    """Return operands of which all that are enclosed have one shape, that of the result."""
    moving = [one for one in given if isinstance(one, Enclosure)]
    if len({one.low.shape for one in moving}) < 2:
        return given
    shape = np.broadcast_shapes(*(_ends(one)[0].shape for one in given if one is not None))
    return [
        Enclosure(*(np.broadcast_to(x, shape) for x in (one.low, one.high, one.known)))
        if isinstance(one, Enclosure)
        else one
        for one in given
    ]


def _positive(attribute: Attr) -> Attr:
    if attribute.type != onnx_ir.AttributeType.FLOAT:
        return attribute
    return onnx_ir.AttrFloat32(attribute.name, abs(float(attribute.value)))


def _is_exact(node: Node, given: Sequence[Array | None], total: Array, unit: float) -> Array:
    """Return where every product and partial sum is a whole number that the type holds."""
    sums = operators.sums_elements(node)
    if not _is_plain(node) or (sums and node.op_type != "ReduceSum"):
        return np.zeros(total.shape, dtype=np.bool_)
    floats = [x for x in given if x is not None and x.dtype.kind == "f"]
    steps = [float(np.min(lowest_bit(x), initial=np.inf)) for x in floats]
    step = steps[0] if sums else min(steps[0] * steps[1], *steps[2:], math.inf)
    return np.asarray((total == 0) | (total * unit <= step))


def _is_plain(node: Node) -> bool:
    """Return whether no factor of a node's own is multiplied with its sums."""
    return all(float(attribute(node, name, 1.0)) == 1.0 for name in ("alpha", "beta"))
