"""Samples in which a quantizer of a model reads a rounding tie, or the sign of zero.

There the last bit of a sum decides: tools that multiply and add in another order may fall to
the other side.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import qonnx_hub as qh
from qonnx_hub_ir import dialect
from qonnx_hub_ir.facts import facts_of
from qonnx_hub_ir.graph.queries import quantizers
from qonnx_hub_ir.quantizers import IntQuant

NEAR = 1e-5
"""Distance from a tie, in steps of the quantizer."""


def meets_tie(model: Any, feeds: dict[str, np.ndarray]) -> bool:
    """Return whether any quantizer of activations reads a tie, on one sample."""
    values = {**qh.Session(model).run(feeds, all_tensors=True), **feeds}
    moving = facts_of(model).dynamic | set(feeds)
    for node in quantizers(model):
        name = node.inputs[0].name
        if name not in moving or name not in values:
            continue
        quant = dialect.read_quantizer(node)
        codes = values[name].astype(float) / quant.scale
        near = np.abs(codes) < NEAR
        if isinstance(quant, IntQuant):
            ties = codes + quant.zero_point + 0.5
            near = np.abs(ties - np.rint(ties)) < NEAR
        if near.any():
            return True
    return False
