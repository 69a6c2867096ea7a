"""Operations on every element by itself, with constants: what can be chained in one pass.

A chain of such operations runs block by block, so that a block passes through all of them
while it is in the processor's cache. Each stage computes, element by element, what the kernel
of its node computes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from qonnx_hub.executor.kernels._numbers import FLOAT32
from qonnx_hub.executor.kernels.normalization import folded_constants
from qonnx_hub.executor.kernels.spec import Array, KernelSpec
from qonnx_hub_ir import dialect
from qonnx_hub_ir.quantizers import IntQuant
from qonnx_hub_ir.semantics import compile_float32

StageRun = Callable[..., Any]
"""``run(x, out, *constants)`` writes into ``out``, which may be ``x``."""


@dataclass(frozen=True, slots=True)
class FusibleStage:
    """One node of a chain.

    Attributes:
        run: What it does to an array of float32.
        constants: float32 arrays that are broadcast against ``x``.
        per_channel: Whether the constants are vectors along axis 1, whatever the rank.
        data: Position of the node's input that is not constant.
        not_below_zero: Whether the stage gives the same for ``x`` and ``max(x, 0)``.
        is_relu: Whether the stage is ``max(x, 0)``.
    """

    run: StageRun
    constants: tuple[Array, ...] = ()
    per_channel: bool = False
    data: int = 0
    not_below_zero: bool = False
    is_relu: bool = False


StageMaker = Callable[[KernelSpec], "FusibleStage | None"]


_ZERO = np.zeros((), dtype=np.float32)


def _affine(spec: KernelSpec) -> FusibleStage | None:
    known = folded_constants(spec)
    if known is None or spec.num_outputs != 1 or spec.attr("training_mode", 0):
        return None
    if known[0].dtype != FLOAT32:
        return None

    def run(x: Array, out: Array, factor: Array, offset: Array) -> Array:
        np.multiply(x, factor, out=out)
        return np.add(out, offset, out=out)

    return FusibleStage(run, known, per_channel=True)


def _arithmetic(ufunc: np.ufunc) -> StageMaker:
    def make(spec: KernelSpec) -> FusibleStage | None:
        known = [spec.constant(0), spec.constant(1)]
        data = 0 if known[0] is None else 1
        constant = known[1 - data]
        if known[data] is not None or constant is None or constant.dtype != FLOAT32:
            return None
        if data == 0:
            return FusibleStage(lambda x, out, c: ufunc(x, c, out=out), (constant,))
        return FusibleStage(lambda x, out, c: ufunc(c, x, out=out), (constant,), data=1)

    return make


def _quantizer(spec: KernelSpec) -> FusibleStage | None:
    known = [spec.constant(index) for index in range(1, len(spec.present))]
    if any(value is None or value.size != 1 for value in known):
        return None
    quant = dialect.make_quantizer(spec.op_type, spec.attributes, known, spec.name)
    # Unsigned and without zero point: all below zero becomes what zero becomes.
    clips = (
        isinstance(quant, IntQuant)
        and not quant.signed
        and (quant.scale is not None and quant.zero_point is not None)
        and bool(np.all(quant.scale > 0) and np.all(quant.zero_point == 0))
    )
    return FusibleStage(compile_float32(quant), not_below_zero=clips)


def _known(make: StageMaker, *attributes: str) -> StageMaker:
    """Return the maker, without a stage for nodes with attributes that it does not know."""
    known = frozenset(attributes)
    return lambda spec: make(spec) if spec.attributes.keys() <= known else None


STAGES: Mapping[tuple[str, str], StageMaker] = {
    ("", "Add"): _known(_arithmetic(np.add)),
    ("", "BatchNormalization"): _known(_affine, "epsilon", "momentum", "training_mode"),
    ("", "Div"): _known(_arithmetic(np.divide)),
    ("", "Mul"): _known(_arithmetic(np.multiply)),
    ("", "Relu"): _known(
        lambda spec: FusibleStage(lambda x, out: np.maximum(x, _ZERO, out=out), is_relu=True)
    ),
    ("", "Sub"): _known(_arithmetic(np.subtract)),
    **{(dialect.DOMAIN, name): _quantizer for name in dialect.QUANTIZERS},
}
"""(domain, op_type) -> what makes the stage of a node, or ``None`` where it has none."""
