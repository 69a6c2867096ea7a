"""Operators that take one number of each window of an image."""

from __future__ import annotations

from typing import Any

from qonnx_hub_ir.operators.row import RISING, Batch, Buffer, Family, Operator, Pool, row

_WINDOWS: dict[str, Any] = {"channel_axis": 1, "is_windowed": True}
_LARGEST: dict[str, Any] = {
    "pool": Pool.MAX,
    "selects_by_order": True,
    "monotone": (RISING,),
    "order_is_exact": True,
}
_MEAN: dict[str, Any] = {"pool": Pool.AVERAGE, "monotone": (RISING,), "sums": True}


def _pool(name: str, inputs: str = "data", **traits: Any) -> Operator:
    known: dict[str, Any] = {"batch": Batch.FIRST_INPUT, **_WINDOWS, **traits}
    return row("", Family.POOLING, name, inputs, **known)


OPERATORS: tuple[Operator, ...] = (
    _pool(
        *("MaxPool",),
        **_LARGEST,
        # The second output counts positions through all samples.
        batch=lambda node: Batch.FIRST_INPUT if len(node.outputs) == 1 else Batch.UNKNOWN,
        buffer=Buffer.MAY_VIEW,
    ),
    _pool("GlobalMaxPool", **_LARGEST, is_global=True),
    _pool("AveragePool", **_MEAN),
    _pool("GlobalAveragePool", **_MEAN, is_global=True),
    _pool("LpPool", pool=Pool.NORM),
    _pool("GlobalLpPool", pool=Pool.NORM, is_global=True),
    # Both read regions that name the sample which they lie in.
    _pool("MaxRoiPool", "data -regions", batch=Batch.UNKNOWN),
    _pool("RoiAlign", "data -regions -samples", batch=Batch.UNKNOWN, changed=(16,)),
)
"""Their rows."""
