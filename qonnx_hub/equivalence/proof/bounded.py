"""How far apart two models can be that compute the same up to the rounding of their sums.

Where values have no equal counterpart, layers are compared as functions of real numbers
(:mod:`~qonnx_hub.equivalence.proof.linear_segments`), and the quantizers behind them on all
floats. Quantizers of one scale that differ by one step at most, as at ties, are near as well.
What rounding can make of it is carried to the outputs through every layer behind
(:mod:`qonnx_hub_ir.analysis.sum_orders`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from onnx_ir import Node, Value

from qonnx_hub.equivalence.proof.bounds import ModelBounds, OutputBound
from qonnx_hub.equivalence.proof.deadline import Deadline
from qonnx_hub.equivalence.proof.graph_matching import FunctionPair, GraphMatching, paired
from qonnx_hub.equivalence.proof.linear_segments import (
    Segment,
    compare_segments,
    is_reshape,
    scales,
    seem_near,
    segment_to,
)
from qonnx_hub.equivalence.proof.proof_model import ProofModel, is_single
from qonnx_hub.equivalence.proof.scalar_equality import (
    ScalarComparison,
    compare_functions,
    largest_distance,
)
from qonnx_hub.equivalence.proof.scalar_functions import ElementLayout, ScalarFunction
from qonnx_hub.equivalence.proof.step_functions import differs
from qonnx_hub_ir import dialect
from qonnx_hub_ir.analysis.rule_context import numpy_type
from qonnx_hub_ir.analysis.sum_orders import sum_orders
from qonnx_hub_ir.analysis.value_info import ValueInfo
from qonnx_hub_ir.analysis.value_ranges import infer_values
from qonnx_hub_ir.graph.queries import dims
from qonnx_hub_ir.quantizers import Array, IntQuant, single_value

_MOST_POINTS = 1 << 16
"""Values of a grid on which functions are compared one by one."""

_ONE_STEP = 1 + 2.0**-8
"""Values of up to 16 bits are floats: two neighbours are a step apart up to their rounding."""


class NearMatching(GraphMatching):
    """Two models whose values have one number where they are equal up to rounding.

    Attributes:
        differences: Value of the first model -> how far its counterpart can be from it.
        names: Value of the first model -> name of the counterpart.
        steps: Quantized value among them -> the same in its steps.
        same_function: Whether all parts so far are one function in exact arithmetic.
    """

    def __init__(self, a: ProofModel, b: ProofModel, deadline: Deadline) -> None:
        """Start with nothing known; see :class:`GraphMatching`."""
        super().__init__(a, b, deadline)
        self.differences: dict[Value, float] = {}
        self.names: dict[Value, str] = {}
        self.steps: dict[Value, int] = {}
        self.same_function = True
        self._ranges = infer_values(a.model)
        self._others = infer_values(b.model)

    def _pair_up(self, node: Node) -> bool:
        """Look for a value that equals the node's up to rounding; suppose nothing."""
        return False

    def _find_number(self, node: Node) -> int:
        number = super()._find_number(node)
        if number in self._holders or self._deadline.passed():
            return number
        near = self._near(node.outputs[0]) or self._one_step_apart(node)
        return number if near is None else self.a.number(near)

    def _is_equal(self, pair: FunctionPair) -> bool:
        """Return whether functions are equal: on all floats, or on those that reach them."""
        if super()._is_equal(pair):
            return True
        compared, points = self.functions(pair), self._reached(pair)
        if compared is None or points is None or self._deadline.passed():
            return False
        f, g, dtype = compared
        fed = np.broadcast_to(points.astype(dtype), (f.channels, points.size)).copy()
        if np.any(differs(f(fed), g(fed))):
            return False
        self._outcomes[pair] = ScalarComparison(nan_equal=False)
        return True

    def _reached(self, pair: FunctionPair) -> Array | None:
        """Return all numbers that both starts of functions can be, if they are few."""
        ends = (self._ranges, pair.start), (self._others, pair.source)
        infos = [known.get(str(value.name)) for known, value in ends]
        grids = [info.grid for info in infos if info is not None and info.grid is not None]
        if len(grids) < len(infos) or not all(grid.exact for grid in grids):
            return None
        one, other = grids
        if one.scale.size > 1 or one.offset.size > 1:
            return None
        # Arrays of one element may have axes.
        if np.any(one.scale != other.scale) or np.any(one.offset != other.offset):
            return None
        low = min(int(grid.low.min()) for grid in grids)
        high = max(int(grid.high.max()) for grid in grids)
        if high - low > _MOST_POINTS:
            return None
        whole = np.arange(low, high + 1, dtype=np.float64)
        return np.append(whole * one.scale.item() + one.offset.item(), -0.0)

    def _near(self, target: Value) -> Value | None:
        """Return a value of the first model that is near one of the second."""
        end, moved = _peeled(self.b, target)
        part = segment_to(self.b, end, self._is_known)
        if part is None:
            return None
        for node in self.a.nodes():
            one = node.outputs[0]
            if dims(one) != dims(target) or one.dtype != target.dtype:
                continue
            start, reshaped = _peeled(self.a, one)
            other = segment_to(
                self.a, start, lambda v: self.a.number(v) == self.b.number(part.source)
            )
            if other is None:
                continue
            pair = FunctionPair(one, start, target, end)
            if self._are_near(pair, other, part, moved or reshaped):
                return one
        return None

    def _one_step_apart(self, node: Node) -> Value | None:
        """Return what a quantizer of the first model makes that differs by a step at most."""
        x, y = node.inputs[0], node.outputs[0]
        scale = _one_scale(node)
        if x is None or scale is None:
            return None
        for other in self.a.nodes():
            start, one = other.inputs[0] if other.inputs else None, other.outputs[0]
            if start is None or _one_scale(other) != scale or dims(one) != dims(y):
                continue
            if self.a.number(start) != self.b.number(x):
                continue
            compared = self.functions(FunctionPair(one, start, y, x))
            apart = None if compared is None else largest_distance(*compared, self._deadline)
            if apart is None or apart > scale * _ONE_STEP:
                continue
            if apart:
                self._record(one, y, apart)
                self.steps[one] = 1
                self.same_function = False
            return one
        return None

    def _record(self, one: Value, other: Value, bound: float) -> None:
        self.differences[one] = max(bound, self.differences.get(one, 0.0))
        self.names[one] = str(other.name)

    def _are_near(self, pair: FunctionPair, one: Segment, other: Segment, moved: bool) -> bool:
        if self._deadline.passed() or not seem_near(one, other):
            return False
        if not self._functions_agree(pair, moved):
            return False
        info = self._ranges.get(str(one.source.name))
        reach = math.inf if info is None else float(info.magnitude.max())
        if not math.isfinite(reach):
            return False
        found = compare_segments(one, other, reach, self._deadline)
        if found is None:
            return False
        exact = _is_exact(one, self._ranges) and _is_exact(other, self._others)
        bound = 0.0 if exact and found.same else found.bound
        if bound:
            self._record(pair.start, pair.source, bound)
        self.same_function &= found.same
        return True

    def _functions_agree(self, pair: FunctionPair, moved: bool) -> bool:
        """Return whether what follows both parts is one function of one number."""
        if pair.one is pair.start or pair.other is pair.source:
            return pair.one is pair.start and pair.other is pair.source
        dtype = numpy_type(pair.start)
        compared = None
        if not moved:
            compared = self.functions(pair)
        elif dtype is not None and dtype.kind == "f":
            # Elements have moved: one function has to serve them all.
            layout = ElementLayout(0, ())
            ends = ((self.a, pair.start, pair.one), (self.b, pair.source, pair.other))
            f, g = (ScalarFunction(*end, layout) for end in ends)
            parts = (self.a, f.nodes), (self.b, g.nodes)
            computing = [(s, n) for s, nodes in parts for n in nodes if not is_reshape(n)]
            if all(_is_single(side, node) for side, node in computing):
                compared = f, g, dtype
        if compared is None:
            return False
        return compare_functions(*compared, self._deadline).equal


def _one_scale(node: Node) -> float | None:
    """Return the scale of a quantizer that has a single, known one."""
    quant = dialect.read_quantizer(node) if dialect.is_quantizer(node) else None
    return single_value(quant.scale) if isinstance(quant, IntQuant) else None


def _is_exact(part: Segment, known: Mapping[str, ValueInfo]) -> bool:
    """Return whether floats compute all of a part to the bit, in any order of adding."""
    grids = [known[str(node.outputs[0].name)].grid for node in part.nodes]
    return all(grid is not None and grid.exact for grid in grids)


def _is_single(side: ProofModel, node: Node) -> bool:
    """Return whether every parameter of a node is one number."""
    places = [(i, side.constants[v]) for i, v in enumerate(node.inputs) if v in side.constants]
    return all(is_single(node, i, array) or array.size == 1 for i, array in places)


def _peeled(side: ProofModel, value: Value) -> tuple[Value, bool]:
    """Return the value in front of reshapes and pointwise nodes, and whether any reshapes."""
    moved = False
    while (node := value.producer()) is not None and value not in side.constants:
        sources = side.sources(node)
        if len(sources) != 1:
            break
        if is_reshape(node):
            moved = True
        elif sources[0] not in side.chain(value) or scales(node):
            break
        value = sources[0]
    return value, moved


def bound_models(a: ProofModel, b: ProofModel, deadline: Deadline) -> ModelBounds | None:
    """Return how far apart two models can be; ``None`` where they are not near throughout.

    Args:
        a: A model.
        b: Another one, with the same inputs and outputs.
        deadline: When to give up.
    """
    matching = NearMatching(a, b, deadline)
    while matching.walk():
        pass
    outputs = paired(a.model.graph.outputs, b.model.graph.outputs)
    supposed = matching.findings.supposed
    if any(y in supposed or a.number(x) != b.number(y) for x, y in outputs):
        return None
    extra = {str(value.name): bound for value, bound in matching.differences.items()}
    carried = sum_orders(a.model, extra=extra, own=False)
    ranges = infer_values(a.model)
    found = []
    for one, other in outputs:
        name = str(one.name)
        info: ValueInfo | None = ranges.get(name)
        width = math.inf if info is None else float((info.high - info.low).max())
        bound = carried.deviations.get(name, math.inf)
        steps = carried.steps.get(name)
        if one in matching.steps:
            steps = matching.steps[one] + (steps or 0)
        found.append(OutputBound(str(other.name), bound, steps, width))
    layers = [(matching.names[v], bound) for v, bound in matching.differences.items()]
    return ModelBounds(tuple(found), matching.same_function, tuple(layers))
