"""Which tensor of the written model holds which value of the source, and how."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx_ir import Model, Value

from qonnx_hub_adapters.hls4ml.builder import Builder
from qonnx_hub_adapters.hls4ml.pending_affine import Term, fused
from qonnx_hub_ir.quantizers import Array


@dataclass(frozen=True, slots=True, eq=False)
class StoredTensor:
    """A value of the source that can be computed from one tensor of the written model.

    Attributes:
        source: Name of the source's value.
        name: Name of the tensor.
        shape: The source's shape, with batch 1.
        axes: For each axis of the source, the axis on which it is stored; ``None`` where the
            source's elements are stored in one row.
        order: For rows in another order than the source's: the source's position of each
            stored element.
        factor: What stored values are yet to be multiplied by, one for all or one per element
            of the last stored axis.
        offset: What is added then, likewise.
        relu: Whether negative values become 0 after that.
    """

    source: str
    name: str
    shape: tuple[int, ...]
    axes: tuple[int, ...] | None = None
    order: tuple[int, ...] | None = None
    factor: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)
    relu: bool = False

    def value_of(self, stored: Array) -> Array:
        """Return the source's values, float32, of stored ones; the first axis is the batch.

        Raises:
            ValueError: The stored values have another number of elements.
        """
        factor, offset = (np.array(p, dtype=np.float64) for p in (self.factor, self.offset))
        values = stored.astype(np.float64) * factor + offset
        if self.relu:
            values = np.maximum(values, 0.0)
        if self.order is not None:
            rows = np.empty_like(values)
            rows[:, list(self.order)] = values
            values = rows
        count = len(values)
        if self.axes is None:
            return values.reshape(count, *self.shape[1:]).astype(np.float32)
        return np.transpose(values, self.axes).astype(np.float32)


def stored_tensors(
    terms: Mapping[Value, Term], builder: Builder, written: Model
) -> tuple[StoredTensor, ...]:
    """Return where the values of the source are found, in the order of the source.

    Values that are moved into other layers are left out, and rearranged copies, which hls4ml
    makes without a layer.

    Args:
        terms: What each value of the source is in the new graph.
        builder: What wrote the new graph.
        written: The new graph, with its final names.
    """
    held = {value for node in written.graph for value in node.outputs}
    outputs = set(written.graph.outputs)
    found = []
    for value, term in terms.items():
        settled = builder.settled(term)
        if settled is not None and settled in held:
            term = replace(term, value=settled, steps=(), relu=False, bits=False)
        maker = term.value.producer()
        if term.value not in held or maker is None:
            continue
        if maker.op_type == "Reshape" and term.value not in outputs:
            continue
        factor, offset = (values.reshape(-1) for values in fused(term.steps))
        axes, name = None if term.flat else term.axes, term.value.name
        found.append(
            _tensor(value.name, name, term.shape, axes, term.order, factor, offset, term.relu)
        )
    return tuple(found)


def _tensor(
    source: Any,
    name: Any,
    shape: Any,
    axes: Any,
    order: Any = None,
    factor: Any = (1.0,),
    offset: Any = (0.0,),
    relu: Any = False,
) -> StoredTensor:
    """Return a tensor of plain numbers, whatever holds them."""
    return StoredTensor(
        str(source),
        str(name),
        tuple(map(int, shape)),
        None if axes is None else tuple(map(int, axes)),
        None if order is None else tuple(map(int, order)),
        tuple(map(float, factor)),
        tuple(map(float, offset)),
        bool(relu),
    )


def to_text(tensors: Sequence[StoredTensor]) -> str:
    """Return the list as JSON, one tensor per line."""
    return "[\n" + ",\n".join(json.dumps(_entry(t)) for t in tensors) + "\n]\n"


def _entry(tensor: StoredTensor) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "source": tensor.source,
        "name": tensor.name,
        "shape": tensor.shape,
        "axes": tensor.axes,
    }
    if tensor.order is not None:
        entry["order"] = tensor.order
    if tensor.factor != (1.0,) or tensor.offset != (0.0,):
        entry |= {"factor": tensor.factor, "offset": tensor.offset}
    if tensor.relu:
        entry["relu"] = True
    return entry


def from_text(text: str) -> tuple[StoredTensor, ...]:
    """Return what :func:`to_text` wrote.

    Raises:
        ValueError: It is something else.
    """
    try:
        return tuple(_tensor(**entry) for entry in json.loads(text))
    except TypeError as error:
        raise ValueError(f"no list of tensors: {error}") from error
