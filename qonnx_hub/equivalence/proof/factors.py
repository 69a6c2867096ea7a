"""Factors of quantizers and layers as products of their own.

What one model holds in weights and another in a product behind them is then the same:

* A quantizer whose scale is ``2^k`` times a number from 1 to 2 is followed by products with
  ``2^-k`` and ``2^k``: no level is so large or small that a product with either rounds.
* Weights and bias of an output are whole numbers times their greatest common divisor, which
  becomes a product behind the layer. That is done where sums of whole numbers on a grid are
  exact, before and after: then floats are real numbers, and those do not change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from onnx_ir import DataType, Model, Node, Value

from qonnx_hub.equivalence.proof.proof_model import ProofModel
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.analysis.grids import lowest_bit
from qonnx_hub_ir.analysis.value_info import ValueInfo
from qonnx_hub_ir.analysis.value_ranges import infer_values
from qonnx_hub_ir.graph.builder import Emitter, copy_node
from qonnx_hub_ir.graph.constants import channel_shape
from qonnx_hub_ir.graph.queries import attribute, dims, input_of
from qonnx_hub_ir.quantizers import Array, BipolarQuant, IntQuant, single_value

_FARTHEST = 40
"""Exponents of scales up to this are moved: levels of up to 24 bits stay normal floats."""

_MOST_BITS = 24
_ATTEMPTS = 3


def with_factors(model: Model) -> Model | None:
    """Return a copy that computes the same, with factors as products of their own.

    Args:
        model: A model with all types and shapes; it is not changed.

    Returns:
        ``None`` where there is nothing to be split.
    """
    left: set[str] = set()
    for _ in range(_ATTEMPTS):
        copy = model.clone()
        checked, count = _split(copy, left)
        if not count:
            return None
        known = infer_values(copy)
        inexact = {
            layer
            for layer, names in checked.items()
            if not all(_is_exact(known, name) for name in names)
        }
        if not inexact:
            return copy
        left |= inexact
    return None


def _is_exact(known: Mapping[str, ValueInfo], name: str) -> bool:
    info = known.get(name)
    return info is not None and info.grid is not None and info.grid.exact


def _split(model: Model, left: set[str]) -> tuple[dict[str, tuple[str, str]], int]:
    """Split factors off, but for some layers.

    Returns:
        Layer -> names of the values that have to be exact, and how many factors there are.
    """
    side, known = ProofModel(model), infer_values(model)
    checked: dict[str, tuple[str, str]] = {}
    count = 0
    for node in list(side.nodes()):
        name = str(node.outputs[0].name)
        if node.outputs[0].dtype is not DataType.FLOAT:
            continue
        if dialect.is_quantizer(node):
            count += _split_quantizer(node)
        elif name not in left and _is_exact(known, name):
            whole = _split_layer(side, node)
            if whole is not None:
                # The product takes the layer's name.
                checked[name] = whole, name
                count += 1
    return checked, count


def _split_quantizer(node: Node) -> bool:
    """Follow a quantizer by the power of two in its scale, backwards and forward."""
    quant = dialect.read_quantizer(node)
    if isinstance(quant, IntQuant):
        bits, zero = single_value(quant.bits), single_value(quant.zero_point)
        if bits is None or bits > _MOST_BITS or zero is None:
            return False
        if zero != round(zero) or abs(zero) > 2**_MOST_BITS:
            return False
    elif not isinstance(quant, BipolarQuant):
        return False
    scale = single_value(quant.scale)
    if scale is None or not scale > 0 or not math.isfinite(scale):
        return False
    power = math.frexp(scale)[1] - 1
    if power == 0 or abs(power) > _FARTHEST:
        return False
    emit = Emitter(node)
    level = emit.insert(copy_node(node, node.inputs, name=f"{node.name}_plain"))
    for step in (-power, power):
        factor = emit.constant("power", np.array(2.0**step, dtype=np.float32))
        level = emit.add("Mul", [level, factor], node.outputs[0])
    emit.replace_with(level)
    return True


def _split_layer(side: ProofModel, node: Node) -> str | None:
    """Follow a layer by the divisors of its weights; return the name of the whole sums."""
    found = _weights(side, node)
    if found is None:
        return None
    weights, bias, axis, place = found
    rows = np.moveaxis(weights, axis, 0).reshape(weights.shape[axis], -1)
    if bias is not None:
        rows = np.concatenate([rows, bias.reshape(-1, 1)], axis=1)
    divisors = _divisors(rows)
    if divisors is None or np.all(divisors == 1):
        return None
    along = [1] * weights.ndim
    along[axis] = -1
    emit = Emitter(node)
    inputs: list[Value | None] = list(node.inputs)
    inputs[1] = emit.constant("whole", _float32(weights / divisors.reshape(along)))
    if bias is not None:
        inputs[2] = emit.constant("whole_bias", _float32(bias / divisors))
    whole = emit.insert(copy_node(node, inputs, name=f"{node.name}_whole"))
    is_one = bool(np.all(divisors == divisors[0]))
    factor = divisors[0].reshape(()) if is_one else divisors.reshape(place)
    product = emit.add("Mul", [whole, emit.constant("divisor", _float32(factor))], whole)
    emit.replace_with(product)
    return str(whole.name)


def _float32(array: Array) -> Array:
    return np.asarray(array, dtype=np.float32)


def _weights(
    side: ProofModel, node: Node
) -> tuple[Array, Array | None, int, tuple[int, ...]] | None:
    """Return weights, bias, the weights' axis of outputs, and the shape of factors behind."""
    x, sizes = node.inputs[0], dims(node.outputs[0])
    factor = input_of(node, 1)
    weights = None if factor is None else side.constants.get(factor)
    if weights is None or weights.ndim < 2 or sizes is None:
        return None
    if x is None or x in side.constants:
        return None
    if node.domain not in dialect.STANDARD_DOMAINS or not operators.is_product(node):
        return None
    if node.op_type == "Conv":
        axis, place = 0, channel_shape(len(sizes))
    elif node.op_type == "Gemm" and attribute(node, "alpha", 1.0) == 1.0:
        axis, place = (0 if attribute(node, "transB", 0) else 1), (-1,)
    elif node.op_type == "MatMul" and weights.ndim == 2:
        axis, place = 1, (-1,)
    else:
        return None
    value = input_of(node, 2)
    if value is None:
        return weights.astype(np.float64), None, axis, place
    bias, count = side.constants.get(value), weights.shape[axis]
    if bias is None or attribute(node, "beta", 1.0) != 1.0:
        return None
    if bias.size not in (1, count) or bias.shape[-1:] not in ((), (bias.size,)):
        return None
    spread = np.broadcast_to(bias.reshape(-1), (count,)).astype(np.float64)
    return weights.astype(np.float64), spread, axis, place


def _divisors(rows: Array) -> Array | None:
    """Return the greatest common divisor of each row; ``None`` where one is too fine.

    Floats are whole multiples of a power of two each, so that every row has a divisor.
    """
    found = np.ones(len(rows), dtype=np.float64)
    for index, row in enumerate(rows):
        numbers = row[row != 0]
        if not numbers.size:
            continue
        if not np.all(np.isfinite(numbers)):
            return None
        unit = float(np.min(lowest_bit(numbers)))
        whole = numbers / unit
        if np.max(np.abs(whole)) >= 2.0**53:
            return None
        divisor = int(np.gcd.reduce(np.abs(whole).astype(np.int64)))
        if np.max(np.abs(whole)) / divisor >= 2.0**_MOST_BITS or divisor >= 2**_MOST_BITS:
            return None
        found[index] = divisor * unit
    return found
