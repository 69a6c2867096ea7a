"""Quantizers of activations become counted thresholds."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Model, Node
from onnx_ir.passes import InPlacePass, PassResult

from qonnx_hub_ir import dialect
from qonnx_hub_ir.errors import PassError
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.queries import dims
from qonnx_hub_ir.graph.rewriting import rewrite_nodes
from qonnx_hub_ir.passes.quantizers.integer_type import integer_type
from qonnx_hub_ir.quantizers import (
    Array,
    BipolarQuant,
    IntQuant,
    Parameter,
    integer_bounds,
    is_bipolar,
    single_value,
)
from qonnx_hub_ir.thresholds import find_thresholds

_LAYOUTS_FIRST = {2: "NC", 3: "NCW", 4: "NCHW", 5: "NCDHW"}
_LAYOUTS_LAST = {3: "NWC", 4: "NHWC", 5: "NDHWC"}


@dataclass(frozen=True)
class QuantToMultithreshold(InPlacePass):
    """Replace quantizers of activations by MultiThreshold, a subtraction and a product.

    Before -> after::

        y = Quant(x, s, z, b)
        y = Mul(Sub(MultiThreshold{out_bias = lowest code}(x, thresholds), z), s)

    The thresholds are the smallest floats that reach each level, found by bisection over all
    floats, so that the result equals the quantizer's for every value but NaN (which reaches no
    threshold; a Quant returns it). Sub and Mul are left out for zero points of 0 and scales
    of 1. A bipolar quantizer becomes one threshold with the levels -1 and +1.

    Does not fire on constants, run-time parameters, FloatQuant and Trunc, more than
    ``max_bits`` bits or bit widths that differ, float types other than float32, inputs of rank
    below 2 or unknown rank, and parameters that differ along an axis other than the second or
    the last one.

    Attributes:
        max_bits: Quantizers with more bits stay.
        only_zero_points: Quantizers whose zero point is 0 stay.

    Raises:
        PassError: ``max_bits`` is not from 1 to 16.
    """

    max_bits: int = 8
    only_zero_points: bool = False

    def requires(self, model: Model) -> None:
        """Refuse a number of thresholds that nobody can store."""
        if not 1 <= self.max_bits <= 16:
            raise PassError(f"max_bits is {self.max_bits}; it must be from 1 to 16")

    def call(self, model: Model) -> PassResult:
        """Return the model, changed in place."""
        return PassResult(model, modified=rewrite_nodes(model.graph, self._replace))

    def _replace(self, node: Node) -> bool:
        quant, x = self._readable(node), node.inputs[0] if node.inputs else None
        shape = dims(x)
        if quant is None or x is None or shape is None or len(shape) < 2:
            return False
        place = _channels(quant, len(shape))
        if place is None:
            return False
        form, emit = _form(quant), Emitter(node)
        table = find_thresholds(_flattened(quant), form.low, form.steps)
        layouts = _LAYOUTS_FIRST if place == 1 else _LAYOUTS_LAST
        attributes: dict[str, Any] = {
            "out_dtype": form.out_dtype,
            "out_scale": float(form.width),
            "out_bias": float(form.low),
            "data_layout": layouts.get(len(shape), ""),
        }
        inputs = [x, emit.constant("thresholds", table)]
        value = emit.custom(dialect.THRESHOLDS, inputs, attributes)
        emit.replace_with(emit.scaled(value, *_scale_and_zero(quant), x))
        return True

    def _readable(self, node: Node) -> IntQuant | BipolarQuant | None:
        """Return a node's quantizer, where thresholds can express it."""
        x = node.inputs[0] if dialect.is_quantizer(node) else None
        if x is None or x.dtype != onnx_ir.DataType.FLOAT or x.is_initializer():
            return None
        quant = dialect.read_quantizer(node)
        if not isinstance(quant, (IntQuant, BipolarQuant)):
            return None
        known = dialect.parameters(quant)
        if any(value is None or not np.all(np.isfinite(value)) for value in known):
            return None
        if self.only_zero_points and not np.any(getattr(quant, "zero_point", 0)):
            return None
        bits = 1 if isinstance(quant, BipolarQuant) else single_value(quant.bits)
        return quant if bits is not None and bits <= self.max_bits else None


@dataclass(frozen=True, slots=True)
class _Form:
    """The codes of a quantizer as counts of thresholds.

    Attributes:
        low: Lowest code.
        steps: How many codes lie above.
        width: Distance of neighbouring codes: 2 for the two levels -1 and +1.
        out_dtype: Their type, by the name that the qonnx package gives it.
    """

    low: int
    steps: int
    width: int
    out_dtype: str


def _form(quant: IntQuant | BipolarQuant) -> _Form:
    """Return the codes of a quantizer whose bit width is a known, single one."""
    if isinstance(quant, BipolarQuant) or is_bipolar(quant):
        return _Form(-1, 1, 2, "BIPOLAR")
    bits = int(single_value(quant.bits) or 0)
    low, high = integer_bounds(bits, signed=quant.signed, narrow=quant.narrow)
    name = integer_type(bits, signed=quant.signed)
    return _Form(int(low), int(high - low), 1, name)


def _channels(quant: IntQuant | BipolarQuant, rank: int) -> int | None:
    """Return the axis along which parameters differ, 1 if along none; ``None`` if several."""
    places: set[int] = set()
    for values in _scale_and_zero(quant):
        if values is None or values.size == 1:
            continue
        offset = rank - values.ndim
        places.update(offset + axis for axis, size in enumerate(values.shape) if size > 1)
    if not places:
        return 1
    if len(places) > 1 or not places <= {1, rank - 1} or rank > max(_LAYOUTS_FIRST):
        return None
    return places.pop()


def _scale_and_zero(quant: IntQuant | BipolarQuant) -> tuple[Parameter, Parameter]:
    zero = None if isinstance(quant, BipolarQuant) else quant.zero_point
    return quant.scale, zero


def _flattened(quant: IntQuant | BipolarQuant) -> IntQuant | BipolarQuant:
    """Return the quantizer with parameters of shape (channels, 1) or ()."""

    def column(values: Parameter) -> Array:
        array = np.asarray(values, dtype=np.float32)
        return array.reshape(()) if array.size == 1 else array.reshape(-1, 1)

    if isinstance(quant, BipolarQuant):
        # The scale of a sign decides no threshold.
        return BipolarQuant(np.ones((), dtype=np.float32))
    return dataclasses.replace(
        quant,
        scale=column(quant.scale),
        zero_point=column(quant.zero_point),
        bits=np.asarray(single_value(quant.bits), dtype=np.float32),
    )
