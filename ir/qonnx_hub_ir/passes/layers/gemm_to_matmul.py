"""Gemm as MatMul and Add."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx_ir import Model, Node, Value
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect
from qonnx_hub_ir.effects import Effect
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.constants import constant_shape
from qonnx_hub_ir.graph.queries import attribute, input_of, is_standard, selected
from qonnx_hub_ir.graph.rearrange import Rearranger, rearrange_at, transposing


@dataclass(frozen=True)
class GemmToMatmul(InPlacePass):
    """Replace every Gemm by MatMul and Add.

    Before -> after::

        y = Gemm{transB}(x, Quant(w[O, I]), b)
        y = Add(MatMul(x, Quant(w[I, O])), b)

    A constant factor is transposed where it is, quantized or not; any other by a Transpose.
    ``alpha`` and ``beta`` become factors: of the product, and of the summand. Outputs are bit
    for bit the same where the sums are exact (integers times power-of-two scales); else a
    linear algebra library may add in another order for another arrangement of the weight.
    Does not fire on a Gemm of integers with fractional ``alpha`` or ``beta``.

    Attributes:
        only: Names of the nodes to change; all of them by default.
    """

    effect = Effect.ROUNDING

    only: tuple[str, ...] | None = None

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        found = selected(model.graph, _can_be_split, self.only)
        return PassResult(model, modified=rearrange_at(model.graph, found, _split))


def _can_be_split(node: Node) -> bool:
    """Return whether a node is a Gemm: of floats, or without alpha and beta."""
    if not is_standard(node, "Gemm"):
        return False
    if attribute(node, "alpha", 1.0) == attribute(node, "beta", 1.0) == 1.0:
        return True
    dtypes = [value.dtype for value in (*node.inputs, *node.outputs) if value is not None]
    return any(dtype is not None and dtype.is_floating_point() for dtype in dtypes)


def _split(node: Node, rearranger: Rearranger) -> None:
    emit = Emitter(node)
    left = _transposed(emit, node, 0, "transA", rearranger)
    right = _transposed(emit, node, 1, "transB", rearranger)
    output = node.outputs[0]
    result = emit.add("MatMul", [left, right], output)
    product = result.producer()
    alpha, beta = (float(attribute(node, name, 1.0)) for name in ("alpha", "beta"))
    if alpha != 1.0:
        result = emit.add(
            "Mul", [result, emit.constant("alpha", _factor(node, alpha))], output
        )
    summand = input_of(node, 2)
    if summand is not None and beta != 0.0:
        known, factor = dialect.constant_value(summand), _factor(node, beta)
        if beta != 1.0 and known is None:
            summand = emit.add("Mul", [summand, emit.constant("beta", factor)])
        elif beta != 1.0 and known is not None:
            scaled = (known * factor).astype(known.dtype, copy=False)
            summand = emit.constant("scaled_bias", scaled)
        result = emit.add("Add", [result, summand])
    name = node.name
    emit.replace_with(result)
    if product is not None:
        product.name = name


def _factor(node: Node, value: float) -> np.ndarray:
    known = node.outputs[0].dtype
    dtype = np.float32 if known is None else known.numpy()
    return np.asarray(value, dtype=dtype)


def _transposed(
    emit: Emitter, node: Node, index: int, flag: str, rearranger: Rearranger
) -> Value | None:
    """Return a factor as MatMul takes it."""
    value = node.inputs[index]
    if value is None or not attribute(node, flag, 0):
        return value
    if len(constant_shape(value) or ()) == 2:
        return rearranger(value, transposing((1, 0)), (1, 0), node, 2)
    turned = emit.add("Transpose", [value], perm=[1, 0])
    turned.type = value.type
    return turned
