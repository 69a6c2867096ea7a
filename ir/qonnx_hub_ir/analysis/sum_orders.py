"""How far another order of the same float sums can take each value of a model.

Two runs of one graph, each of whose sums adds in an order of its own, with or without fused
multiply-add, differ at a value by at most its *deviation*. A sum of ``n`` terms brings twice
the bound of :func:`~qonnx_hub_ir.analysis.float_error.sum_error`, once for each run; what
differs before it is carried through: by the sum of magnitudes of weights, by the steepest
slope of a function, by the steps of a quantizer that lie within reach of a threshold.

A layer is *exact in any order* where its products and sums are whole numbers on a grid that
the float type holds (below 2^24 in float32). Nothing in it can differ then.

Not covered are other algorithms: a Winograd convolution, another library's exponential. Nodes
whose formula leaves that open (BatchNormalization, Softmax, Tanh, ...) are named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx_ir import Model, Node, Value

from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.analysis.dense_layers import read_layer
from qonnx_hub_ir.analysis.float_error import FLOAT32_UNIT, sum_error
from qonnx_hub_ir.analysis.pooling import reduced_axes
from qonnx_hub_ir.analysis.products import summed
from qonnx_hub_ir.analysis.rule_context import NodeInfo
from qonnx_hub_ir.analysis.value_info import Shape, ValueInfo
from qonnx_hub_ir.analysis.value_ranges import InputRange, walk
from qonnx_hub_ir.graph.queries import attribute, element_count
from qonnx_hub_ir.graph.subgraphs import read_values
from qonnx_hub_ir.operators.row import Family
from qonnx_hub_ir.quantizers import IntQuant, Rounding, integer_bounds
from qonnx_hub_ir.semantics import quantize
from qonnx_hub_ir.validity import label


@dataclass(frozen=True, slots=True)
class SumLayer:
    """One node that adds floats.

    Attributes:
        node: Operator and name.
        output: Name of the value that it makes.
        exact: Whether every order of adding gives the same bits.
        deviation: How far two orders can be apart here, on equal inputs.
    """

    node: str
    output: str
    exact: bool
    deviation: float


@dataclass(frozen=True, slots=True)
class SumOrders:
    """What the order of float sums can change in a model.

    Attributes:
        layers: The nodes that add, in order.
        deviations: Value -> how far two runs can be apart there; infinite where unbounded.
        steps: Output of a quantizer -> the same in its steps.
        open_formulas: Nodes that libraries compute by other formulas or tables.
        outputs: Names of the model's outputs.
    """

    layers: tuple[SumLayer, ...]
    deviations: Mapping[str, float]
    steps: Mapping[str, int]
    open_formulas: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def exact(self) -> bool:
        """Whether any order of sums, on any backend, gives the same bits."""
        return not self.open_formulas and all(layer.exact for layer in self.layers)

    def statement(self) -> str:
        """Return in words whether the model is exact, and which layers are not."""
        loose = [layer.node for layer in self.layers if not layer.exact]
        if self.exact:
            return "exact in any order of sums, on any backend"
        parts = []
        if loose:
            parts.append(f"the order of sums can change {', '.join(loose)}")
        else:
            parts.append("exact in any order of other sums")
        if self.open_formulas:
            parts.append(f"libraries may differ on {', '.join(self.open_formulas)}")
        return "; ".join(parts)


@dataclass(slots=True)
class _Walk:
    """Deviations found so far."""

    extra: Mapping[str, float]
    own: bool = True
    found: dict[Value, float] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    layers: list[SumLayer] = field(default_factory=list)
    open_formulas: list[str] = field(default_factory=list)

    def of(self, site: NodeInfo, index: int) -> float:
        value = site.node.inputs[index] if index < len(site.node.inputs) else None
        return 0.0 if value is None else self.found.get(value, 0.0)


def sum_orders(
    model: Model,
    inputs: Mapping[str, InputRange] | None = None,
    extra: Mapping[str, float] | None = None,
    *,
    own: bool = True,
) -> SumOrders:
    """Return what another order of its float sums can change in a model.

    Args:
        model: An IR model; it is not changed.
        inputs: Ranges of inputs, as in
            :func:`~qonnx_hub_ir.analysis.value_ranges.infer_values`.
        extra: Value -> a difference that arises there by itself, to be carried on.
        own: Whether the model's own sums differ; else only what is extra is carried on.

    Example::

        found = sum_orders(model)
        print(found.statement())
        worst = max(found.deviations[name] for name in found.outputs)
    """
    state = _Walk(extra or {}, own)
    with np.errstate(all="ignore"):
        for value, site, info in walk(model, inputs):
            made = 0.0
            # What one graph always makes, another that differs before it need not.
            if site is not None and (info.constant is None or state.extra):
                made = _deviation(state, site, value, info)
            total = made + state.extra.get(str(value.name), 0.0)
            # No bound times nothing is no number, and no number is never the largest.
            state.found[value] = math.inf if math.isnan(total) else total
    return SumOrders(
        layers=tuple(state.layers),
        deviations={str(v.name): d for v, d in state.found.items() if v.name},
        steps=state.steps,
        open_formulas=tuple(dict.fromkeys(state.open_formulas)),
        outputs=tuple(str(v.name) for v in model.graph.outputs),
    )


def _deviation(state: _Walk, site: NodeInfo, value: Value, info: ValueInfo) -> float:
    node = site.node
    before = max((state.found.get(read, 0.0) for read in read_values(node)), default=0.0)
    own = _own(state, site, value, info)
    if not state.own and not before:
        own = 0.0  # on equal inputs, both runs add in the same order
    if not before and not own:
        return 0.0
    carried = _carried(state, site, value, info, before)
    # Two runs of one graph stay in its range; what arises elsewhere may leave it.
    return own + carried if state.extra else min(own + carried, _span(info))


def _span(info: ValueInfo) -> float:
    return float(np.max(np.nan_to_num(info.high - info.low, nan=math.inf, posinf=math.inf)))


def _own(state: _Walk, site: NodeInfo, value: Value, info: ValueInfo) -> float:
    """Return how far the node's own sums can be apart, on equal inputs."""
    node = site.node
    if (site.is_float or site.dtype is None) and _has_open_formula(node):
        state.open_formulas.append(label(node))
    if value is not node.outputs[0] or not site.is_float:
        return 0.0
    terms, magnitude = _summands(site)
    if not terms:
        return 0.0
    exact = info.grid is not None and info.grid.exact
    bound = 0.0 if exact else 2.0 * sum_error(terms, magnitude, site.rounding_unit)
    state.layers.append(SumLayer(label(node), str(value.name), exact, bound))
    return bound


def _has_open_formula(node: Node) -> bool:
    """Return whether libraries compute a node by formulas of their own, as they do a tanh.

    Functions whose values are no single rounding, normalizations, Softmax, sums of powers, and
    whatever is not known to be more than copies, sums and single roundings.
    """
    row = operators.of(node)
    is_rounded_once = (
        row.order_is_exact
        or row.keeps_step
        or row.is_whole
        or row.is_comparison
        or row.piecewise_constant is True
        or operators.is_affine(node)
        or operators.selects_by_order(node)
    )
    is_sum = operators.is_product(node, any_layout=True) or operators.sums_elements(node)
    return not is_rounded_once and not is_sum and operators.moves(node) is None


def _summands(site: NodeInfo) -> tuple[int, float]:
    """Return how many terms one sum of a node has, and the largest sum of magnitudes."""
    node = site.node
    layer = read_layer(site)
    if layer is not None:
        weights = layer.terms.constant.values.astype(np.float64)
        sums = summed(layer.terms, weights, layer.x.low, layer.x.high)
        bias = np.abs(layer.bias.values.astype(np.float64))
        return weights.shape[1] * weights.shape[2] + 1, _top(sums.magnitude + bias)
    if operators.is_product(node, any_layout=True):
        left, right = (site.inputs[index] for index in (0, 1))
        count = _products_per_sum(site)
        if left is None or right is None or count is None:
            return 1, math.inf
        alpha, beta = _factors(site)
        added = beta * _top(site.info(2).magnitude) if site.has(2) else 0.0
        products = alpha * count * _top(left.magnitude) * _top(right.magnitude)
        return count + 3, products + added
    row = operators.of(node)
    is_sum = row.family is Family.ARITHMETIC and row.inputs.is_variadic
    if is_sum and not row.selects_by_order and len(node.inputs) > 2:
        return len(node.inputs) + 1, sum(
            _top(site.info(index).magnitude) for index in range(len(node.inputs))
        )
    if not operators.sums_elements(node):
        return 0, 0.0
    count = _elements_per_sum(site)
    return (
        (1, math.inf) if count is None else (count + 2, count * _top(site.info(0).magnitude))
    )


def _factors(site: NodeInfo) -> tuple[float, float]:
    """Return the magnitudes that Gemm multiplies its products and its last input by."""
    alpha, beta = (abs(float(site.attr(name, 1.0))) for name in ("alpha", "beta"))
    return alpha, beta


def _products_per_sum(site: NodeInfo) -> int | None:
    """Return how many products a node adds for one output; ``None`` where it is not known."""
    return products_per_sum(site.node, site.shapes)


def products_per_sum(node: Node, shapes: Sequence[Shape]) -> int | None:
    """Return how many products a node adds for one output; ``None`` where it is not known.

    Args:
        node: A matrix product or a convolution.
        shapes: Of its operands.

    Example::

        products_per_sum(conv, [(1, 3, 8, 8), (16, 3, 3, 3)])  # 27
    """
    left, right = shapes[:2]
    if operators.is_matrix_product(node):
        first = attribute(node, "transA", 0)
        return left[0 if first else -1] if left else None
    if not right or not operators.is_convolution(node, any_layout=True):
        return None
    channels = right[0] if "Transpose" in node.op_type else right[1]
    return element_count((channels, *right[2:]))


def _elements_per_sum(site: NodeInfo) -> int | None:
    """Return how many elements a pool or reduction adds; ``None`` where it is not known."""
    kernel = site.attr("kernel_shape")
    if kernel:
        return math.prod(int(size) for size in kernel)
    axes, shape = reduced_axes(site), site.shapes[0]
    if axes is None or shape is None:
        return None
    return element_count(tuple(shape[axis] for axis in axes))


def _top(values: Any) -> float:
    return float(np.max(np.nan_to_num(values, nan=math.inf, posinf=math.inf), initial=0.0))


def _carried(
    state: _Walk, site: NodeInfo, value: Value, info: ValueInfo, before: float
) -> float:
    """Return how far outputs can be apart whose inputs are."""
    node = site.node
    if not before:
        return 0.0
    if dialect.is_quantizer(node):
        return _through_quantizer(state, site, value, info, before)
    # Another index picks another element, however near the two were before rounding.
    picks = any(state.of(site, index) for index in operators.setting_inputs(node))
    places = value is not node.outputs[0] and operators.selects_by_order(node)
    # Places of what is selected: near a tie, any other.
    rule = None if picks or places else _rule(site)
    made = math.inf if rule is None else rule(state, site, before)
    # What follows is rounded in both runs, to a few units in the last place.
    reach = _top(info.magnitude)
    return made + (8 * FLOAT32_UNIT * reach if made and math.isfinite(reach) else 0.0)


def _through_quantizer(
    state: _Walk, site: NodeInfo, value: Value, info: ValueInfo, before: float
) -> float:
    """Return the steps that a quantizer makes of a difference; none far from thresholds."""
    known = [site.array(index) for index in range(1, len(site.node.inputs))]
    if any(parameter is None for parameter in known):
        return math.inf if state.extra else _span(info)
    quant = dialect.quantizer_with(site.node, known)
    if not isinstance(quant, IntQuant):
        return math.inf if state.extra else _span(info)
    scale = np.abs(np.asarray(quant.scale, dtype=np.float64))
    ends = integer_bounds(_top(quant.bits), signed=quant.signed, narrow=quant.narrow)
    # All codes lie in here, whatever the input.
    most = int(ends[1] - ends[0])
    if not math.isfinite(before) or not np.all(scale > 0):
        steps = most
    elif not _meets_threshold(site.info(0), quant, before):
        return 0.0
    else:
        steps = min(int(np.max(np.ceil(before / scale * (1 + 4 * FLOAT32_UNIT)))), most)
    state.steps[str(value.name)] = steps
    return float(np.max(steps * scale))


def _meets_threshold(x: ValueInfo, quant: IntQuant, before: float) -> bool:
    """Return whether a value of the quantizer's input lies within a distance of a threshold.

    It does not where the whole range, and the distance beside it, is on one level; nor where
    the values are whole multiples of a step, in real numbers, of which none is that near.
    """
    if not x.is_bounded:
        return True
    beside = [np.asarray(end, dtype=np.float32) for end in (x.low - before, x.high + before)]
    # One range stands for all channels, whose parameters may differ.
    parameters = [np.asarray(p) for p in (quant.scale, quant.zero_point, quant.bits)]
    spread = np.broadcast_arrays(*beside, *parameters)[:2]
    lowest, highest = (quantize(end, quant) for end in spread)
    if np.array_equal(lowest, highest):
        return False
    grid, halves = x.grid, quant.rounding in _AT_HALVES
    if grid is None or grid.scale.size > 1 or grid.offset.size > 1:
        return True
    low, high = int(grid.low.min()), int(grid.high.max())
    scale, zero = (np.asarray(p, dtype=np.float64) for p in (quant.scale, quant.zero_point))
    if high - low > _MOST_POINTS or scale.size > 1 or zero.size > 1:
        return True
    # One element each, of any shape.
    step, middle = scale.item(), zero.item()
    points = np.arange(low, high + 1, dtype=np.float64) * grid.scale.item()
    points = points + grid.offset.item()
    t = points / step + middle + (0.5 if halves else 0.0)
    ends = integer_bounds(_top(quant.bits), signed=quant.signed, narrow=quant.narrow)
    # The nearest threshold that there is: the first and the last may be far from a point that
    # is clamped. Modes that round up leave a code at its whole number, others reach it there.
    first = ends[0] + (1 if halves else 0)
    nearest = np.clip(np.rint(t), first, ends[1])
    distance = np.abs(t - nearest) * step
    # The quantizer's own division and addition round.
    rounding = 4 * FLOAT32_UNIT * (np.abs(points) + abs(middle * step))
    return bool(np.any(distance <= before + rounding))


_AT_HALVES = {Rounding.ROUND, Rounding.HALF_UP, Rounding.HALF_DOWN, Rounding.DPU}
"""Modes whose thresholds lie between whole numbers; those of the others lie on them."""

_MOST_POINTS = 1 << 20
"""Points of a grid that are looked at one by one."""

Carrier = Callable[[_Walk, NodeInfo, float], float]


def _dense(state: _Walk, site: NodeInfo, before: float) -> float:
    layer = read_layer(site)
    if layer is not None:
        weights = np.abs(layer.terms.constant.values.astype(np.float64))
        gain = float(weights.sum(axis=(1, 2)).max(initial=0.0))
        return gain * state.of(site, 0 if site.array(0) is None else 1)
    count = _products_per_sum(site)
    if count is None:
        return math.inf
    alpha, beta = _factors(site)
    return alpha * count * _product(state, site, before) + beta * state.of(site, 2)


def _product(state: _Walk, site: NodeInfo, before: float) -> float:
    x, y = (_top(site.info(index).magnitude) for index in (0, 1))
    dx, dy = state.of(site, 0), state.of(site, 1)
    both = dx * dy if dx and dy else 0.0
    return (x * dy if dy else 0.0) + (y * dx if dx else 0.0) + both


def _quotient(state: _Walk, site: NodeInfo, before: float) -> float:
    divisor = site.array(1)
    if divisor is None or state.of(site, 1) or not np.all(divisor):
        return math.inf
    return before / float(np.min(np.abs(divisor.astype(np.float64))))


def _batch_norm(state: _Walk, site: NodeInfo, before: float) -> float:
    gain, variance = site.array(1), site.array(4)
    if site.attr("training_mode", 0):
        return math.inf  # mean and variance of its own data
    if gain is None or variance is None or any(state.of(site, index) for index in (2, 3)):
        return math.inf
    spread = variance.astype(np.float64) + float(site.attr("epsilon", 1e-5))
    return before * float(np.max(np.abs(gain.astype(np.float64)) / np.sqrt(spread)))


def _summed_elements(state: _Walk, site: NodeInfo, before: float) -> float:
    if site.node.op_type != "ReduceSum":
        return before
    count = _elements_per_sum(site)
    return math.inf if count is None else count * before


def _rule(site: NodeInfo) -> Carrier | None:
    """Return how far outputs are apart by how far inputs are; ``None``: anywhere."""
    node = site.node
    slope = operators.slope(node)
    if slope is not None:
        return lambda state, site, before: slope * before
    if operators.is_product(node):
        return _dense
    if operators.sums_elements(node):
        return _summed_elements
    if operators.adds(node) or node.op_type == "Sum":
        return lambda state, site, before: sum(
            state.of(site, index) for index in range(len(site.node.inputs))
        )
    return _SINGLE.get(node.op_type) if node.domain in dialect.STANDARD_DOMAINS else None


_SINGLE: Mapping[str, Carrier] = {
    "BatchNormalization": _batch_norm,
    "Div": _quotient,
    "LeakyRelu": lambda state, site, before: (
        before * max(1.0, abs(float(site.attr("alpha", 0.01))))
    ),
    "Mul": _product,
}
