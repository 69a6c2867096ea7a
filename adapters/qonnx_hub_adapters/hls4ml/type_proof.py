"""Whether every number of a network fits the types that a config of hls4ml gives it.

What values can be is computed here from the model and the config alone, as they lie in files:
nothing that the export knew is asked. Types that hls4ml is to find itself ("auto") hold what
it infers without loss, and are not looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx_ir import Model, Node, Value

from qonnx_hub_adapters.hls4ml.builder import GRAPH
from qonnx_hub_adapters.hls4ml.fixed_point import (
    FixedGrid,
    FixedType,
    lowest_bit,
    number,
    type_of_quantizer,
)
from qonnx_hub_adapters.hls4ml.inputs import configured_types
from qonnx_hub_adapters.hls4ml.ranges import MERGED, folded_norm, grids_of
from qonnx_hub_adapters.hls4ml.traces import node_of_layer
from qonnx_hub_adapters.hls4ml.weights import constant_of
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.analysis import infer_values
from qonnx_hub_ir.errors import UsageError
from qonnx_hub_ir.graph.queries import dims, input_of, producer
from qonnx_hub_ir.quantizers import Array

HLS4ML_DEFAULT = FixedType(16, 6, True)
"""What hls4ml gives a layer of which the config says nothing."""


@dataclass(frozen=True, slots=True)
class TypeDoubt:
    """A type that does not hold every number that it may be given.

    Attributes:
        value: Name of the value concerned, in the model; empty for constants.
        layer: Name of the layer's node, or of the input.
        name: Name of the type in the config: "result", "accum", "weight" ...
        kind: The type.
        low: Lowest number that it may be given.
        high: Highest number.
        lsb: Exponent of the power of two that all of them are multiples of; ``None`` where
            that is not known.
    """

    value: str
    layer: str
    name: str
    kind: FixedType
    low: float
    high: float
    lsb: int | None = None

    @property
    def overflows(self) -> bool:
        """Whether some of the numbers are beyond the type, instead of between its steps."""
        low, high = self.kind.grid().ends()
        return self.low < low or self.high > high

    def words(self) -> str:
        """Return what is wrong, in one phrase."""
        low, high = self.kind.grid().ends()
        text = f"{self.name} is {self.kind}, which holds {low:.9g} to {high:.9g}"
        if self.overflows:
            return f"{text}; it can be {self.low:.9g} to {self.high:.9g}"
        return f"{text} in steps of {2.0 ** self.kind.lsb():.9g}; it can lie between them"


@dataclass(frozen=True, slots=True)
class TypeProof:
    """What is proven of the types of a config, for all inputs of the inputs' own types.

    Attributes:
        types: How many types were looked at.
        doubts: Those that do not hold every number.
        rounded: Layers whose results are rounded on purpose, to more bits than float32 has.
        bits: Bits of all results and sums of one inference.
        default_bits: The same with hls4ml's default type everywhere.
    """

    types: int
    doubts: tuple[TypeDoubt, ...]
    rounded: tuple[str, ...]
    bits: int
    default_bits: int

    def to_dict(self) -> dict[str, Any]:
        """Return the proof as plain data."""
        return {
            "proven": not self.doubts,
            "looked_at": self.types,
            "doubts": [f"{one.layer}: {one.words()}" for one in self.doubts],
            "rounded": list(self.rounded),
            "bits": self.bits,
            "default_bits": self.default_bits,
        }

    def words(self) -> str:
        """Return what is proven, in one sentence."""
        if self.doubts:
            return f"{len(self.doubts)} of {self.types} types do not hold every number"
        exact = "none rounds"
        if self.rounded:
            exact = f"{len(self.rounded)} scaled results round, to 24 bits or more"
        return (
            f"proven for all inputs of the inputs' types: none of {self.types} types "
            f"overflows, {exact}; results and sums take {self.bits:,} bits, "
            f"{self.default_bits:,} with hls4ml's default {HLS4ML_DEFAULT}"
        )


def prove_types(model: Model, config: Mapping[str, Any]) -> TypeProof:
    """Return what is proven of a config for a model that was written for hls4ml.

    Args:
        model: The model, as it lies in the folder.
        config: What hls4ml calls HLSConfig.
    """
    entries, default = config.get("LayerName") or {}, default_type(config)
    inputs = {
        str(value.name): configured_types(entries.get(str(value.name))).get("result", default)
        for value in model.graph.inputs
    }
    grids = grids_of(model, inputs)
    doubts: list[TypeDoubt] = []
    rounded, count, bits, default_bits = [], 0, 0, 0
    for node, grid in ((n, grids[n.outputs[0]]) for n in model.graph if n.outputs[0] in grids):
        entry = entries.get(str(node.name))
        if isinstance(entry, Mapping) and (entry.get("Skip") or node.op_type == "Softmax"):
            continue
        if dialect.is_quantizer(node) and not configured_types(entry):
            continue  # hls4ml takes the quantizer's own type
        sums = ["accum"] * operators.is_product(node, any_layout=True)
        types = configured_types(_with_defaults(entry, config, ["result", *sums]))
        if grid.rounded and operators.is_affine(node):
            rounded.append(str(node.name))
        size = math.prod(n for n in (dims(node.outputs[0]) or [])[1:] if isinstance(n, int))
        for name, kind in types.items():
            needed = _needed(node, name, grid, grids)
            if needed is None:
                continue
            count += 1
            if name in {"result", "accum"}:
                bits += size * kind.width
                default_bits += size * HLS4ML_DEFAULT.width
            doubts += _doubt(node, name, kind, needed)
    return TypeProof(count, tuple(doubts), tuple(rounded), bits, default_bits)


def default_type(config: Mapping[str, Any]) -> FixedType:
    """Return the type of a result that a config says nothing of."""
    named = configured_types(_with_defaults(None, config, ["result"]))
    return named.get("result", HLS4ML_DEFAULT)


def _with_defaults(
    entry: object, config: Mapping[str, Any], names: Sequence[str]
) -> dict[str, Any]:
    """Return an entry that names its types: where it does not, as hls4ml looks them up."""
    texts: dict[str, Any] = {}
    given = (config.get("Model") or {}).get("Precision")
    model = given if isinstance(given, Mapping) else {"default": given}
    own = entry.get("Precision") if isinstance(entry, Mapping) else None
    layer = own if isinstance(own, Mapping) else {"default": own}
    for name in names:
        known = (layer.get("default"), model.get(name), model.get("default"))
        texts[name] = next((text for text in known if text), str(HLS4ML_DEFAULT))
    return {"Precision": {**texts, **layer}}


def _needed(
    node: Node, name: str, grid: FixedGrid, grids: Mapping[Value, FixedGrid]
) -> FixedGrid | None:
    """Return what a type of a layer is given; ``None`` where the config says nothing of it."""
    if name == "accum" and (counts := _sum_of_signs(node, grids)) is not None:
        return counts
    if name in {"result", "accum"}:
        return None if grid.bits else grid
    if node.op_type in MERGED and name in {"scale", "bias"}:
        return _constants(folded_norm(node)[name == "bias"])
    if name in {"weight", "bias"} and operators.is_product(node, any_layout=True):
        return _constants(constant_of(input_of(node, 1 if name == "weight" else 2)))
    return None


def _sum_of_signs(node: Node, grids: Mapping[Value, FixedGrid]) -> FixedGrid | None:
    """Return the range of twice the equal bits, which a product of signs counts."""
    read, maker = node.inputs[0], producer(input_of(node, 1))
    if read is None or maker is None or maker.op_type != "BipolarQuant":
        return None
    if not operators.is_matrix_product(node) or not grids[read].bits:
        return None
    weights = constant_of(node.inputs[1])
    terms = 0 if weights is None else len(weights)
    return FixedGrid(number(-2.0 * terms), number(2.0 * terms), 0)


def _constants(values: Array | None) -> FixedGrid | None:
    if values is None:
        return None
    ends = float(np.min(values)), float(np.max(values))
    return FixedGrid(number(ends[0]), number(ends[1]), lowest_bit(values))


def _doubt(node: Node, name: str, kind: FixedType, needed: FixedGrid) -> Iterator[TypeDoubt]:
    own = type_of_quantizer(node)
    if own is not None and own == kind:
        return  # the type is the quantizer: what it cuts off is cut off in the model too
    low, high = needed.ends()
    lsb = needed.lsb if low or high else None
    constant = name not in {"result", "accum"}
    value = "" if constant else str(node.outputs[0].name)
    found = TypeDoubt(value, str(node.name), name, kind, low, high, lsb)
    # Constants are rounded where that needs 64 bits: float32 has written them with fewer.
    if found.overflows or (lsb is not None and kind.lsb() > lsb):
        yield found


def doubts_of(model: Model, config: Mapping[str, Any]) -> tuple[TypeDoubt, ...]:
    """Return the types of a config that do not hold every number, for any model.

    Of a model that was written for hls4ml, all types are looked at; of others, those of
    results and sums whose range is known: for numbers beyond them, and between their steps
    where all numbers are multiples of a power of two.

    Args:
        model: The model that the config belongs to.
        config: What hls4ml calls HLSConfig.

    Raises:
        UsageError: It gives types by kind of layer.
    """
    if config.get("LayerType"):
        raise UsageError("types by kind of layer (LayerType) are not read: name every layer")
    if model.graph.name == GRAPH:
        return prove_types(model, config).doubts
    default, entries = default_type(config), config.get("LayerName") or {}
    nodes = {str(node.name): node for node in model.graph}
    named: dict[str, dict[str, FixedType]] = {}
    for key, entry in entries.items():
        node = node_of_layer(key, nodes)
        if node is not None:
            own = named.setdefault(str(node.name), {})
            entry = entry if own else _with_defaults(entry, config, ["result"])
            own.update(configured_types(entry))
    inputs = {
        str(value.name): configured_types(entries.get(str(value.name))).get("result", default)
        for value in model.graph.inputs
    }
    ranges = infer_values(model, {name: kind.grid().ends() for name, kind in inputs.items()})
    found: list[TypeDoubt] = []
    for node in model.graph:
        known = ranges.get(str(node.outputs[0].name))
        if known is None or known.constant is not None or not known.is_bounded:
            continue
        if dialect.is_quantizer(node):
            continue  # its own type, unless the config says otherwise
        types = named.get(str(node.name)) or {"result": default}
        low, high = float(np.min(known.low)), float(np.max(known.high))
        steps = None
        if (grid := known.grid) is not None and grid.exact:
            steps = lowest_bit(np.concatenate([grid.scale.ravel(), grid.offset.ravel()]))
        label = str(node.outputs[0].name), str(node.name)
        for name in types.keys() & {"result", "accum"}:
            doubt = TypeDoubt(*label, name, types[name], low, high, steps)
            if doubt.overflows or (steps is not None and types[name].lsb() > steps):
                found.append(doubt)
    return tuple(found)
