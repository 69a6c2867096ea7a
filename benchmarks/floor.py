"""What numpy needs at least for a net: its matrix products, and each layer's values once.

The products are those of the net's layers on operands that lie ready in memory, in the order
in which numpy multiplies fastest; no patches are gathered, nothing is quantized. One copy of
what each layer reads and makes stands for memory: whoever computes layer by layer moves that
much. An executor on numpy cannot be faster; how near it is shows what is left in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import qonnx_hub as qh

Array = np.ndarray[Any, np.dtype[Any]]


def floor_call(model: qh.ir.Model, values: Mapping[str, Array]) -> Callable[[], object]:
    """Return a call that does the least for a model.

    Args:
        model: The model.
        values: Value name -> array, of one run; they give the shapes.
    """
    products: list[tuple[Array, Array, Array]] = []
    copies: list[tuple[Array, Array]] = []
    for node in model.graph:
        if node.op_type not in {"Conv", "Gemm", "MatMul"}:
            continue
        read, made = (values[str(v.name)] for v in (node.inputs[0], node.outputs[0]))
        if node.op_type == "Conv":
            weights = values[str(node.inputs[1].name)].shape
            group = node.attributes["group"].value if "group" in node.attributes else 1
            inner, columns = math.prod(weights[1:]), made.size // made.shape[1]
            shapes = (group, weights[0] // group, inner), (group, inner, columns)
        else:
            inner = read.shape[-1]
            shapes = (1, read.size // inner, inner), (1, inner, made.shape[-1])
        left, right = (np.ones(shape, dtype=np.float32) for shape in shapes)
        out = np.empty((shapes[0][0], shapes[0][1], shapes[1][2]), dtype=np.float32)
        products.append((left, right, out))
        copies += [(np.empty_like(x), x) for x in (read, made)]

    def run() -> None:
        for left, right, out in products:
            np.matmul(left, right, out=out)
        for target, source in copies:
            np.copyto(target, source)

    return run
