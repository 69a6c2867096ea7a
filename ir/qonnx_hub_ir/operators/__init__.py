"""What is known of every operator: one table, and questions about nodes.

Each operator has one row, in the file of its family. A row says what holds of the operator;
what it does not say is not known, and every question about it is answered with the unsafe no.
An operator is known by its domain and its name: a Conv of a foreign domain is no Conv.

    from qonnx_hub_ir import operators

    operators.is_product(node)
    RULES = {(row.domain, row.name): rule for row in operators.where(family=Family.SOFTMAX)}
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx_ir import Node, Value

from qonnx_hub_ir import dialect
from qonnx_hub_ir.operators.row import (
    RISING,
    UNKNOWN,
    UNORDERED,
    Arithmetic,
    Trait,
    attribute,
    constant,
    is_given,
    version_of,
)
from qonnx_hub_ir.operators.row import Batch as Batch
from qonnx_hub_ir.operators.row import Buffer as Buffer
from qonnx_hub_ir.operators.row import Family as Family
from qonnx_hub_ir.operators.row import Moves as Moves
from qonnx_hub_ir.operators.row import Operator as Operator
from qonnx_hub_ir.operators.row import Pool as Pool
from qonnx_hub_ir.operators.table import OPERATORS as OPERATORS
from qonnx_hub_ir.operators.table import always_moves as always_moves
from qonnx_hub_ir.operators.table import assign as assign
from qonnx_hub_ir.operators.table import find as find
from qonnx_hub_ir.operators.table import is_opaque as is_opaque
from qonnx_hub_ir.operators.table import is_opaque_name as is_opaque_name
from qonnx_hub_ir.operators.table import names as names
from qonnx_hub_ir.operators.table import of as of
from qonnx_hub_ir.operators.table import read_lists as read_lists
from qonnx_hub_ir.operators.table import where as where
from qonnx_hub_ir.quantizers import Array


def _holds(trait: Trait, node: Node) -> bool:
    return trait if isinstance(trait, bool) else trait(node)


def is_known(row: Operator) -> bool:
    """Return whether a row is that of an operator, and not that of all unknown ones."""
    return row is not UNKNOWN


def is_elementwise(node: Node) -> bool:
    """Return whether each element depends on those at its place in broadcast inputs only."""
    return _holds(of(node).elementwise, node)


def value_outputs(node: Node) -> Sequence[Value]:
    """Return the outputs that the answers of this module hold for: the first one, or all."""
    return node.outputs if of(node).all_outputs else node.outputs[:1]


def data_inputs(node: Node) -> tuple[int, ...]:
    """Return the positions of values that flow through a node; weights and axes are none."""
    known = of(node).inputs
    if not known.is_variadic:
        return tuple(i for i in known.data if i < len(node.inputs))
    return tuple(range(known.data[0] if known.data else 0, len(node.inputs)))


def setting_inputs(node: Node) -> tuple[int, ...]:
    """Return the positions of shapes, axes, indices and the like: no values flow from them."""
    return of(node).inputs.settings


def input_role(node: Node, index: int) -> str:
    """Return the name of an input; empty if it has none."""
    known = of(node).inputs
    if index < len(known.roles):
        return known.roles[index]
    return known.roles[-1] if known.is_variadic and known.roles else ""


# Movement: four traits. What moves values computes none of them.


def moves(node: Node) -> Moves | None:
    """Return what a node does to elements that it copies; ``None`` if it computes."""
    trait = of(node).moves
    return trait(node) if callable(trait) else trait


def is_identity(node: Node) -> bool:
    """Return whether a node hands its first input on (Identity, Dropout at inference)."""
    return _holds(of(node).is_identity, node)


def keeps_memory_order(node: Node) -> bool:
    """Return whether all elements stay, in memory order (Reshape and its kin, Identity)."""
    return moves(node) == Moves.NOTHING


def reshapes(node: Node) -> bool:
    """Return whether a node changes the shape and nothing else (no Identity)."""
    return keeps_memory_order(node) and not is_identity(node)


def permutes(node: Node) -> bool:
    """Return whether every element of the data is in the output exactly once.

    Transpose, DepthToSpace, Concat; and what keeps the memory order: Reshape, Identity.
    """
    known = moves(node)
    return known is not None and not known & ~Moves.PERMUTES


def selects(node: Node) -> bool:
    """Return whether a node copies elements, inserts none, and each at most once (Slice)."""
    known = moves(node)
    return known is not None and not known & (Moves.REPEATS | Moves.INSERTS)


def repeats(node: Node) -> bool:
    """Return whether a node may copy an element several times (Expand, Tile, Gather)."""
    known = moves(node)
    return known is not None and bool(known & Moves.REPEATS)


def inserts(node: Node) -> bool:
    """Return whether a node copies elements and may insert others (Pad)."""
    known = moves(node)
    return known is not None and bool(known & Moves.INSERTS)


def moves_values(node: Node) -> bool:
    """Return whether each element of the output is one of the data inputs'.

    It permutes, selects or repeats, and inserts nothing. What picks the largest or smallest
    element is another thing: :func:`selects_by_order`.
    """
    known = moves(node)
    return known is not None and not known & Moves.INSERTS


def resizes(node: Node) -> bool:
    """Return whether a node is Resize or Upsample, with or without interpolation."""
    return of(node).resizes


def moves_first(node: Node) -> bool:
    """Return whether a node moves values of its first input, and of no other, to one output.

    Its further inputs are axes, indices and the like (Gather, Slice, Expand).
    """
    return moves_values(node) and data_inputs(node) == (0,) and len(node.outputs) == 1


def transposes(node: Node) -> bool:
    """Return whether a node is Transpose, which permutes axes as wholes."""
    row = of(node)
    return row.name == "Transpose" and not row.domain


def moves_axes(node: Node) -> bool:
    """Return whether the output is the input, transposed or in another shape, or as it is."""
    return keeps_memory_order(node) or transposes(node)


def moves_or_inserts(node: Node) -> bool:
    """Return whether each element of the output is one of the data inputs', or a constant."""
    return moves(node) is not None


def inserted_constant(node: Node) -> Array | None:
    """Return the constant that a node may insert; ``None`` if it is not known or none."""
    if not inserts(node):
        return None
    position = of(node).inserted
    if position is None:
        # A crop by Resize has an attribute; all others insert zeros.
        return np.asarray(attribute(node, "extrapolation_value", 0.0), dtype=np.float32)
    if is_given(node, position):
        return constant(node, position)
    return np.asarray(attribute(node, "value", 0.0), dtype=np.float32)


def selects_by_order(node: Node) -> bool:
    """Return whether a node picks elements by their order (MaxPool, Max, ReduceMin).

    It commutes with every non-decreasing function that is applied to all elements alike.
    """
    return of(node).selects_by_order


def keeps_values(node: Node) -> bool:
    """Return whether each element of the output is one of the data inputs'.

    By moving them or by selecting them in order: :func:`moves_values`,
    :func:`selects_by_order`.
    """
    return moves_values(node) or selects_by_order(node)


def keeps_step(node: Node) -> bool:
    """Return whether whole multiples of a step stay whole multiples of the same step.

    Limits of Clip are not looked at: it is none of these.
    """
    if inserts(node):
        inserted = inserted_constant(node)
        return inserted is not None and not np.any(inserted)
    return keeps_values(node) or of(node).keeps_step


def keeps_grid(node: Node) -> bool:
    """Return whether each element of the output is one of the data inputs', or zero.

    As :func:`keeps_step`, but no other multiple of the step appears: Relu, no Neg.
    """
    row = of(node)
    return keeps_step(node) if not row.keeps_step else row.clamps


def clamps(node: Node) -> bool:
    """Return whether a node bounds values (Relu, Clip; Max and Min with a constant)."""
    return of(node).clamps


# Arithmetic and order.


def is_affine(node: Node) -> bool:
    """Return whether a node is one of the four binary operations Add, Sub, Mul, Div."""
    return of(node).arithmetic is not None


def adds(node: Node) -> bool:
    """Return whether a node adds or subtracts two operands."""
    return of(node).arithmetic is Arithmetic.ADDS


def multiplies(node: Node) -> bool:
    """Return whether a node multiplies or divides two operands."""
    return of(node).arithmetic is Arithmetic.MULTIPLIES


def rounds(node: Node) -> bool:
    """Return whether a node rounds each element to a whole number: Round, Floor, Ceil."""
    row = of(node)
    return row.is_whole and row.elementwise is True and row.bounds is None


def is_commutative(node: Node) -> bool:
    """Return whether the operands of a node may change places without any effect."""
    return _holds(of(node).commutative, node)


def direction(node: Node, index: int = 0) -> int:
    """Return whether the outputs rise (1) or fall (-1) with an input, or neither (0).

    In real numbers; :func:`order_is_exact` says whether rounding keeps it.
    """
    if moves(node) is not None:
        return RISING if index in data_inputs(node) else UNORDERED
    trait = of(node).monotone
    known = trait(node) if callable(trait) else trait
    if len(known) == 1:
        return known[0]
    return known[index] if index < len(known) else UNORDERED


def is_monotone(node: Node) -> bool:
    """Return whether the outputs rise or fall with each data input by itself."""
    return all(direction(node, index) for index in data_inputs(node))


def order_is_exact(node: Node) -> bool:
    """Return whether rounding of floating point numbers keeps the order of a monotone node."""
    return moves(node) is not None or of(node).order_is_exact


def is_piecewise_constant(node: Node) -> bool:
    """Return whether the results of a node change at isolated inputs only (Round, Sign)."""
    return _holds(of(node).piecewise_constant, node)


def tells_zeros_apart(node: Node) -> bool:
    """Return whether 0.0 and -0.0 lead to results that differ by more than a sign of zero."""
    return _holds(of(node).tells_zeros_apart, node)


def bounds(node: Node) -> tuple[float, float] | None:
    """Return what every result lies within (Sigmoid: 0 to 1); ``None`` without limits."""
    return of(node).bounds


# Layers.


def slope(node: Node) -> float | None:
    """Return how much further apart than its inputs a node's results can be, at most.

    In real numbers; ``None`` where that is not known from the operator alone.
    """
    row = of(node)
    if moves(node) is not None or row.selects_by_order or row.clamps:
        return 1.0
    return row.slope


def _in_layout(row: Operator, *, any_layout: bool) -> bool:
    return not row.domain or (any_layout and row.domain == dialect.CHANNELS_LAST_DOMAIN)


def is_product(node: Node, *, any_layout: bool = False) -> bool:
    """Return whether a node is a layer of float weights: Conv, ConvTranspose, Gemm, MatMul.

    Args:
        node: The node.
        any_layout: Conv on channels-last data counts as well.
    """
    row = of(node)
    known = _in_layout(row, any_layout=any_layout)
    return known and row.product is not None and not row.product.is_integer


def is_convolution(node: Node, *, any_layout: bool = False) -> bool:
    """Return whether a node is Conv or ConvTranspose on floats."""
    product = of(node).product
    return is_product(node, any_layout=any_layout) and product is not None and product.slides


def is_matrix_product(node: Node) -> bool:
    """Return whether a node is Gemm or MatMul."""
    product = of(node).product
    return is_product(node) and product is not None and not product.slides


def is_integer_product(node: Node) -> bool:
    """Return whether a node multiplies stored integers (QLinearConv, MatMulInteger)."""
    product = of(node).product
    return product is not None and product.is_integer


def bias_input(node: Node) -> int | None:
    """Return the input position of a product's bias; ``None`` if it can have none."""
    product = of(node).product
    return None if product is None else product.bias


def has_products(node: Node) -> bool:
    """Return whether a node sums products in any form: layers, attention, recurrent nets."""
    return of(node).family in {Family.PRODUCT, Family.RECURRENT}


def pool_of(node: Node, *, any_layout: bool = False) -> Pool | None:
    """Return what a pool on floats takes of a window; ``None`` for other operators.

    Args:
        node: The node.
        any_layout: Pools on channels-last data count as well.
    """
    return of(node).pool if _in_layout(of(node), any_layout=any_layout) else None


def is_max_pool(node: Node, *, any_layout: bool = False) -> bool:
    """Return whether a node is MaxPool or GlobalMaxPool."""
    return pool_of(node, any_layout=any_layout) is Pool.MAX


def is_average_pool(node: Node, *, any_layout: bool = False) -> bool:
    """Return whether a node is AveragePool or GlobalAveragePool."""
    return pool_of(node, any_layout=any_layout) is Pool.AVERAGE


def is_global_pool(node: Node) -> bool:
    """Return whether a node is GlobalMaxPool or GlobalAveragePool."""
    return of(node).is_global and (is_max_pool(node) or is_average_pool(node))


def sums_elements(node: Node) -> bool:
    """Return whether a node adds up elements with equal weights.

    AveragePool, GlobalAveragePool, ReduceMean, ReduceSum.
    """
    return of(node).sums and not of(node).domain


def is_reduction(node: Node) -> bool:
    """Return whether a node makes one number of all elements along axes (ReduceSum, ...)."""
    row = of(node)
    return row.family is Family.REDUCTION and row.axes_input is not None


def is_qdq(node: Node) -> bool:
    """Return whether a node is QuantizeLinear or DequantizeLinear of ONNX or onnxruntime."""
    row = of(node)
    return row.family is Family.QUANTIZER and bool(row.axis)


def dequantizes(node: Node) -> bool:
    """Return whether a node is DequantizeLinear of ONNX or onnxruntime."""
    return is_qdq(node) and not of(node).quantizes


def is_uniform_quantizer(node: Node) -> bool:
    """Return whether a node is a quantizer of QONNX whose input 1 is its step.

    Quant and BipolarQuant; the grid of FloatQuant is uneven, Trunc has two scales.
    """
    return of(node).is_uniform


def default_axis(node: Node) -> int | None:
    """Return the axis that a node works along unless it names one; ``None`` if unknown."""
    version = version_of(node)
    if version is None and len(of(node).axis) > 1:
        return None
    found = [axis for since, axis in of(node).axis if version is None or since <= version]
    return found[-1] if found else None


def axes_input(node: Node) -> int | None:
    """Return the input position of a node's axes; ``None`` if they are an attribute."""
    known, version = of(node).axes_input, version_of(node)
    if known is None or version is None:
        return None
    return known[0] if version >= known[1] else None


def channel_axis(node: Node) -> int | None:
    """Return the axis that a node takes for the channels: 1, -1, or ``None`` for no axis."""
    return of(node).channel_axis


def is_per_channel(node: Node) -> bool:
    """Return whether a node's parameters are vectors along the channels."""
    return of(node).is_per_channel


def has_channels_last_form(node: Node) -> bool:
    """Return whether a standard operator has a form for channels-last data in QONNX."""
    row = of(node)
    return not row.domain and is_known(find(dialect.CHANNELS_LAST_DOMAIN, row.name))


def batch_rule(node: Node) -> Batch:
    """Return when a node keeps samples apart along the first axis."""
    trait = of(node).batch
    return trait(node) if callable(trait) else trait


# Running.


def buffer_of(node: Node) -> Buffer:
    """Return whether our kernel of a node returns a view of an input."""
    return of(node).buffer


def is_random(node: Node) -> bool:
    """Return whether two runs of a node give different results; unknown operators may."""
    return _holds(of(node).random, node)


def has_subgraphs(node: Node) -> bool:
    """Return whether a node's operator holds graphs (If, Loop, Scan, ...)."""
    return of(node).subgraphs


def is_recurrent(node: Node) -> bool:
    """Return whether a node is a recurrent layer, whose first axis is time."""
    return of(node).family is Family.RECURRENT


def reads_shape_only(node: Node) -> bool:
    """Return whether the results depend on the shape of the input only (Shape, Size)."""
    return of(node).shape_only


def without_effect(node: Node) -> frozenset[str]:
    """Return the attributes that do not change results of inference."""
    return of(node).without_effect


def changed_since(node: Node, version: int) -> bool:
    """Return whether an opset from ``version`` on changed what the operator computes."""
    known = of(node).changed
    return known is None or any(since >= version for since in known)
