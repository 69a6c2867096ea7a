"""Operators that make one number of all elements along some axes, or run along one axis."""

from __future__ import annotations

import math
from typing import Any

from qonnx_hub_ir.operators.row import RISING, Batch, Family, Operator, row, rows

_POSITIVE = (0.0, math.inf)


def _reduction(names: str, *, axes_since: int = 18, **traits: Any) -> list[Operator]:
    return rows(
        *("", Family.REDUCTION, names, "data -axes"),
        axes_input=(1, axes_since),
        batch=Batch.OTHER_AXES,
        **traits,
    )


def _along(family: Family, name: str, *axis: tuple[int, int], **traits: Any) -> Operator:
    known: dict[str, Any] = {"axis": axis, "batch": Batch.OTHER_AXIS, **traits}
    return row("", family, name, "data", **known)


_SINCE_13 = ((1, 1), (13, -1))

OPERATORS: tuple[Operator, ...] = (
    *_reduction(
        *("ReduceMax ReduceMin",),
        selects_by_order=True,
        associative=True,
        monotone=(RISING,),
        order_is_exact=True,
    ),
    *_reduction("ReduceSum", axes_since=13, monotone=(RISING,), sums=True),
    *_reduction("ReduceMean", monotone=(RISING,), sums=True),
    *_reduction("ReduceProd"),
    *_reduction("ReduceLogSum ReduceLogSumExp", monotone=(RISING,)),
    *_reduction("ReduceL1 ReduceL2 ReduceSumSquare", bounds=_POSITIVE),
    *(
        _along(Family.REDUCTION, name, (1, 0), is_whole=True, piecewise_constant=True)
        for name in ("ArgMax", "ArgMin")
    ),
    # The axis of both is an input.
    *rows("", Family.REDUCTION, "CumSum CumProd", "data -axis"),
    _along(
        *(Family.SOFTMAX, "Softmax", *_SINCE_13), bounds=(0.0, 1.0), changed=(13,), slope=0.5
    ),
    _along(Family.SOFTMAX, "LogSoftmax", *_SINCE_13, bounds=(-math.inf, 0.0), changed=(13,)),
    _along(
        *(Family.SOFTMAX, "Hardmax", *_SINCE_13),
        bounds=(0.0, 1.0),
        is_whole=True,
        piecewise_constant=True,
        changed=(13,),
    ),
)
"""Their rows."""
