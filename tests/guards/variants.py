"""The node suite and more: every operator with every sign and axis its attributes can have.

A variant is a model of one operator with inputs that it can compute. The suite shows most
attributes with one value only, often where a rule happens to be right; here each attribute
takes the values at which rules go wrong, one at a time.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_ir
from onnx import defs, helper, numpy_helper

import qonnx_hub as qh
from qonnx_hub_ir.errors import HubError
from tests.guards.nets import hand_made
from tests.node_suite import node_cases

_BASES = 3
"""Cases of one operator whose attributes are varied: the first of each kind of input."""

_SIGNS = (-1.5, 0.0, 0.75)

_WORDS: Mapping[str, tuple[str, ...]] = {
    "auto_pad": ("SAME_UPPER", "VALID"),
    "coordinate_transformation_mode": ("half_pixel", "asymmetric", "align_corners"),
    "mode": ("nearest", "linear", "cubic", "reflect", "edge", "wrap", "DCR", "CRD"),
}
"""Attributes that are words, and words that change which elements an operator reads."""

_UNSIGNED = frozenset({"epsilon", "momentum"})

_REPETITIVE = frozenset({"Attention", "LinearAttention", "RoiAlign", "RotaryEmbedding", "DFT"})
"""Operators of which the suite itself shows the attributes in dozens of cases."""

_AXES: Mapping[str, int] = {
    **dict.fromkeys(("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "ReduceProd"), 1),
    **dict.fromkeys(("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp"), 1),
    **dict.fromkeys(("Squeeze", "Unsqueeze", "CumSum", "CumProd"), 1),
    "Slice": 3,
    "Pad": 3,
}
"""Operator -> the input that names axes."""


@dataclass(frozen=True, eq=False)
class Variant:
    """A model and inputs for it, by name; those not among ``moving`` are constants of it."""

    label: str
    proto: onnx.ModelProto
    feeds: Mapping[str, np.ndarray]

    @property
    def op_type(self) -> str:
        return str(self.proto.graph.node[-1].op_type)

    def with_constants(self, moving: Sequence[str]) -> Variant:
        """Return the variant with all but some inputs as initializers."""
        proto = onnx.ModelProto()
        proto.CopyFrom(self.proto)
        inputs = [v for v in proto.graph.input if v.name in moving]
        fixed = [v.name for v in proto.graph.input if v.name not in moving]
        del proto.graph.input[:]
        proto.graph.input.extend(inputs)
        for name in fixed:
            proto.graph.initializer.append(numpy_helper.from_array(self.feeds[name], name))
        feeds = {name: self.feeds[name] for name in moving}
        return replace(
            self, label=f"{self.label}({','.join(moving)})", proto=proto, feeds=feeds
        )


@cache
def all_variants() -> tuple[Variant, ...]:
    """Return the suite's cases, what becomes of their attributes, and hand-made nets."""
    return tuple(v for v in (*suite(), *_changed_cases(), *hand_made_variants()) if runs(v))


@cache
def suite() -> tuple[Variant, ...]:
    """Return the cases of the suite with an own model each, no expansion of functions."""
    found = []
    for case in node_cases():
        if "expanded" not in case.name and len(case.inputs) == len(case.model.graph.input):
            names = [v.name for v in case.model.graph.input]
            feeds = dict(zip(names, case.inputs, strict=True))
            found.append(Variant(case.name, case.model, feeds))
    return tuple(found)


@cache
def hand_made_variants() -> tuple[Variant, ...]:
    """Return nets of operators that the suite does not have."""
    return tuple(Variant(label, proto, feeds) for label, proto, feeds in hand_made())


@cache
def loaded(variant: Variant) -> onnx_ir.Model | None:
    """Return the model, or ``None`` where it is no valid one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return qh.load(variant.proto)
        except (HubError, ValueError):
            return None


def with_constants(
    model: onnx_ir.Model, feeds: Mapping[str, np.ndarray], moving: int
) -> tuple[onnx_ir.Model, dict[str, np.ndarray]]:
    """Return a copy with all but the first inputs as initializers, and its feeds."""
    copy = model.clone()
    for value in list(copy.graph.inputs)[moving:]:
        value.const_value = onnx_ir.tensor(feeds[str(value.name)], name=value.name)
        copy.graph.inputs.remove(value)
        copy.graph.register_initializer(value)
    return copy, {str(v.name): feeds[str(v.name)] for v in copy.graph.inputs}


def answer(variant: Variant, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    """Return the outputs for some inputs, ``None`` where the operator refuses them."""
    model = loaded(variant)
    if model is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return qh.Session(model).run({name: x.copy() for name, x in feeds.items()})
        except (HubError, ValueError):
            return None


def runs(variant: Variant) -> bool:
    return answer(variant, variant.feeds) is not None


def _changed_cases() -> Iterator[Variant]:
    seen: dict[tuple[Any, ...], int] = {}
    for base in suite():
        node = base.proto.graph.node[-1]
        if len(base.proto.graph.node) > 1 or any(a.HasField("g") for a in node.attribute):
            continue
        arrays = list(base.feeds.values())
        if not arrays or arrays[0].dtype not in (np.float32, np.bool_, np.uint8, np.int8):
            continue
        if node.op_type in _REPETITIVE:
            continue
        kind = (node.op_type, arrays[0].ndim, len(arrays), arrays[0].dtype.kind)
        seen[kind] = seen.get(kind, 0) + 1
        if seen[kind] <= (1 if arrays[0].ndim != 4 else _BASES):
            yield from _changed(base)


def _changed(base: Variant) -> Iterator[Variant]:
    node = base.proto.graph.node[-1]
    version = next(i.version for i in base.proto.opset_import if i.domain == node.domain)
    schema = defs.get_schema(node.op_type, version, node.domain)
    rank = next(iter(base.feeds.values())).ndim
    for name, attribute in schema.attributes.items():
        for value in _values(name, attribute, rank):
            yield _with_attribute(base, name, value)
    position = _AXES.get(node.op_type)
    if position is not None and position < len(node.input) and node.input[position]:
        for axis in range(-rank, rank):
            array = np.array([axis], dtype=np.int64)
            yield _with_input(base, node.input[position], array)


def _values(name: str, attribute: defs.OpSchema.Attribute, rank: int) -> Sequence[Any]:
    kinds = defs.OpSchema.AttrType
    if attribute.type == kinds.FLOAT:
        return (0.75,) if name in _UNSIGNED else _SIGNS
    if attribute.type == kinds.INT:
        return range(-rank, rank) if name == "axis" else (0, 1)
    if attribute.type == kinds.STRING:
        return _WORDS.get(name, ())
    if name == "perm":
        axes = list(range(rank))
        return [axes[k:] + axes[:k] for k in range(rank)] + [axes[:1] + axes[:0:-1]]
    return [[axis] for axis in range(-rank, rank)] if name == "axes" else ()


def _with_attribute(base: Variant, name: str, value: Any) -> Variant:
    proto = _open(base.proto)
    node = proto.graph.node[-1]
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])
    return Variant(f"{base.label}[{name}={value}]", proto, base.feeds)


def _with_input(base: Variant, name: str, array: np.ndarray) -> Variant:
    proto = _open(base.proto)
    value = next(v for v in proto.graph.input if v.name == name)
    shape = [] if base.feeds[name].ndim == 0 else array.shape
    kind = value.type.tensor_type.elem_type
    value.CopyFrom(helper.make_tensor_value_info(name, kind, shape))
    fitting = array.reshape(shape).astype(base.feeds[name].dtype)
    return Variant(f"{base.label}[{name}={array}]", proto, {**base.feeds, name: fitting})


def _open(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy that says nothing of the shapes of its outputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for value in copy.graph.output:
        value.type.tensor_type.ClearField("shape")
    return copy
