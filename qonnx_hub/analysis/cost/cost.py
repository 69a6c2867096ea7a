"""The cost of one inference, layer by layer and in total."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, get_args

import onnx_ir
from onnx_ir import Model, Value

from qonnx_hub.analysis.cost.products import LayerProducts, count_products, notes_on
from qonnx_hub.analysis.cost.types import (
    FLOAT32,
    Datatype,
    annotated,
    named,
    needed_types,
    of_integer,
    tool_types,
    unscaled,
)
from qonnx_hub.executor.explained import explained
from qonnx_hub.reporting.pages.charts import bars
from qonnx_hub.reporting.pages.page import Page, Section, sections_of, shortened
from qonnx_hub.reporting.report import Part, Report
from qonnx_hub.reporting.tables import Table
from qonnx_hub_ir import dialect
from qonnx_hub_ir.analysis import IntegerType, ValueInfo, parse_type
from qonnx_hub_ir.analysis.value_ranges import prepared, walk
from qonnx_hub_ir.choices import Convention, require_choice
from qonnx_hub_ir.errors import PassError, UsageError
from qonnx_hub_ir.graph.queries import dims
from qonnx_hub_ir.graph.subgraphs import every_value
from qonnx_hub_ir.passes import InferShapes

_QUANTIZES_ITS_DATA = frozenset({"DynamicQuantizeMatMul"})
"""Operators that make unsigned 8-bit integers of their floats themselves."""

CONVENTIONS: tuple[str, ...] = get_args(Convention)


@dataclass(frozen=True, slots=True)
class LayerCost:
    """Cost of one layer.

    Attributes:
        name: Name of the layer.
        op: Its operator.
        macs: Multiplications and additions.
        bops: Multiplications times the bits of both operands.
        weights: Elements of its weights.
        weight_bits: Bits of its weights.
        activations: Elements of its result.
        activation_bits: Bits of its result.
        input_type: Datatype of its activation.
        weight_type: Datatype of its weights, or of its second activation.
        output_type: Datatype of its result, before any quantizer.
    """

    name: str
    op: str
    macs: int
    bops: int
    weights: int
    weight_bits: int
    activations: int
    activation_bits: int
    input_type: str
    weight_type: str
    output_type: str


@dataclass(frozen=True, slots=True, repr=False)
class Cost(Report):
    """Cost of one inference of a model, by one convention.

    Attributes:
        source: The model.
        convention: How it is counted: "true", "qonnx" or "paper".
        sparsity: Whether only nonzero weights are counted.
        layers: Every layer, in the graph's order.
        macs: Multiplications and additions; of the largest bucket in the paper's convention.
        bops: Multiplications times the bits of both operands.
        weights: Elements of all weights; of the largest bucket in the paper's convention.
        weight_bits: Bits of all weights.
        activations: Elements of the layers' results.
        activation_bits: Bits of the layers' results.
        mac_buckets: "activation type x weight type" -> multiplications.
        weight_buckets: Weight type -> elements.
        activation_buckets: Type of the result -> elements.
        notes: What was not counted.
    """

    schema: ClassVar[str] = "cost/1"
    heading: ClassVar[str] = "Cost of one inference"

    source: str
    convention: str
    sparsity: bool
    layers: tuple[LayerCost, ...]
    macs: int
    bops: int
    weights: int
    weight_bits: int
    activations: int
    activation_bits: int
    mac_buckets: dict[str, int]
    weight_buckets: dict[str, int]
    activation_buckets: dict[str, int]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the cost as plain data, fit for JSON."""
        return asdict(self)

    def summary(self) -> str:
        """Return the totals in one line."""
        return (
            f"{self.source}: {self.macs:,} MACs, {self.bops:,} BOPs, {self.weight_bits:,} "
            f"weight bits, {self.activation_bits:,} activation bits (convention "
            f"{self.convention})"
        )

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per layer."""
        return [asdict(layer) for layer in self.layers]

    def page(self) -> Page:
        """Return the page: where multiplications and bits are, and the tables."""
        charts = []
        for title, count, words in (
            ("Bit operations by layer", "bops", "Products times the bits of both operands."),
            ("Weights by layer", "weight_bits", "Bits of the weights."),
        ):
            numbers = [(one.name, getattr(one, count)) for one in self.layers]
            lines = [(shortened(name, 120), (n,), f"{n:,}", "") for name, n in numbers if n]
            if lines:
                charts.append(Section(title, (bars(lines, (title,), words),)))
        tables = sections_of(self.parts(), ("Layers",))
        return Page(self.heading, self.summary(), (*charts, *tables))

    def parts(self) -> Iterator[Part]:
        """Give the layers with their total, the convention, the buckets by type, and notes."""
        columns = ("layer", "operator", "input", "weights", "output", *COUNTS)
        cells = [
            (
                *(one.name, one.op, one.input_type, one.weight_type, one.output_type),
                *counts_of(one),
            )
            for one in self.layers
        ]
        cells.append(("total", "", "", "", "", *counts_of(self)))
        yield Table(columns, cells, numbers=len(COUNTS))
        yield ""
        what = "nonzero weights only" if self.sparsity else "all weights"
        yield f"convention {self.convention}, {what}"
        if self.convention == "paper":
            yield "MACs and weights are those of the largest datatype bucket"
        for title, buckets in (
            ("MACs", self.mac_buckets),
            ("weights", self.weight_buckets),
            ("activations", self.activation_buckets),
        ):
            found = ", ".join(f"{name}: {count:,}" for name, count in buckets.items())
            yield f"{title} by datatype: {found or 'none'}"
        yield from (f"note: {note}" for note in self.notes)


COUNTS = ("MACs", "BOPs", "weights", "bits", "activations", "bits")
"""Columns of :func:`counts_of`."""


def counts_of(cost: Cost | LayerCost) -> list[str]:
    """Return the counts of a layer or of a model, as text."""
    numbers = (
        *(cost.macs, cost.bops, cost.weights, cost.weight_bits),
        *(cost.activations, cost.activation_bits),
    )
    return [f"{number:,}" for number in numbers]


@dataclass(frozen=True, slots=True)
class CostOptions:
    """How is counted.

    Attributes:
        convention: "true": datatypes are what the values need, from the quantizers on and
            through all operators. "qonnx": datatypes as the qonnx tool infers them. "paper":
            as the published table of the QONNX model zoo was made, that is, activations with
            a scale other than 1 count as 32 bits, and the totals of multiplications and
            weights are those of their largest datatype bucket.
        sparsity: Leave out weights that are zero, and their products.
        input_types: Input name -> its type, such as "INT8"; the name "" stands for all inputs.
        input_shapes: Sizes of the inputs, in the model's order; inputs beyond keep theirs.
    """

    convention: str = "true"
    sparsity: bool = False
    input_types: Mapping[str, str] = field(default_factory=dict)
    input_shapes: Sequence[Sequence[int]] = ()


def count_cost(model: Model, options: CostOptions, source: str = "the model") -> Cost:
    """Return the cost of one inference of a model; an open batch counts as one sample.

    Args:
        model: An IR model; it is not changed.
        options: How is counted.
        source: Name of the model in the report.

    Raises:
        UsageError: An unknown convention, input or type; a shape that does not fit its input.
        UnsupportedGraphError: Sizes that are not known; every place is listed.
    """
    require_choice("convention", options.convention, CONVENTIONS)
    with explained(model, source):
        model = prepared(_with_shapes(model, options.input_shapes))
        given = _input_types(model, options.input_types)
        # A model with unknown shapes is walked as a copy: what is known goes by name.
        own = {str(value.name): value for value in every_value(model)}
        infos = {own.get(str(v.name), v): info for v, _, info in walk(model, given)}
        layers = count_products(model, infos)
        types = _types(model, options.convention, given, infos)
        costs = [_layer_cost(layer, types, infos, options) for layer in layers]
        return _total(costs, source, options, tuple(notes_on(model)))


def _with_shapes(model: Model, shapes: Sequence[Sequence[int]]) -> Model:
    """Return a model whose first inputs have the sizes given; as it is without any."""
    if not shapes:
        return model
    if len(shapes) > len(model.graph.inputs):
        there = len(model.graph.inputs)
        raise UsageError(f"{len(shapes)} shapes of inputs are given; the model has {there}")
    copy = model.clone()
    for value, sizes in zip(copy.graph.inputs, shapes, strict=False):
        own = dims(value)
        fits = own is None or (
            len(own) == len(sizes)
            and all(not isinstance(a, int) or a == b for a, b in zip(own, sizes, strict=True))
        )
        if not fits:
            raise UsageError(
                f"input '{value.name}' has the shape {own}; {tuple(sizes)} is given"
            )
        value.shape = onnx_ir.Shape(list(sizes))
    for node in copy.graph.all_nodes():
        for value in node.outputs:
            value.shape = None
    try:
        InferShapes()(copy)
    except PassError as error:
        raise UsageError(f"the shapes given do not fit the model: {error}") from error
    return copy


def _input_types(model: Model, given: Mapping[str, str]) -> dict[str, str]:
    names = [str(value.name) for value in model.graph.inputs]
    for name, text in given.items():
        if name and name not in names:
            there = ", ".join(names)
            raise UsageError(f"'{name}' is no input of the model; there are: {there}")
        parse_type(text, f"input '{name}'" if name else "the inputs")
    everywhere = dict.fromkeys(names, given[""]) if "" in given else {}
    return {**everywhere, **{name: text for name, text in given.items() if name}}


def _types(
    model: Model,
    convention: str,
    given: Mapping[str, str],
    infos: Mapping[Value, ValueInfo],
) -> dict[Value, Datatype]:
    nodes = list(model.graph)
    if convention == "true":
        return needed_types(nodes, infos)
    stored = ((v, dialect.constant_value(v)) for v in model.graph.initializers.values())
    constants = {value: array for value, array in stored if array is not None}
    inputs = {
        value: named(given[name]) if (name := str(value.name)) in given else annotated(value)
        for value in (*model.graph.inputs, *model.graph.initializers.values())
    }
    return tool_types(nodes, constants, inputs)


def _layer_cost(
    layer: LayerProducts,
    types: Mapping[Value, Datatype],
    infos: Mapping[Value, ValueInfo],
    options: CostOptions,
) -> LayerCost:
    data, stored = types.get(layer.data, FLOAT32), types.get(layer.stored, FLOAT32)
    result = types.get(layer.node.outputs[0], FLOAT32)
    if layer.node.op_type in _QUANTIZES_ITS_DATA:
        data = of_integer(IntegerType(8, signed=False))
    if options.convention == "paper":
        data, result = unscaled(data), unscaled(result)
        info = infos.get(layer.stored)
        constant = None if info is None else info.constant
        if constant is not None and constant.declared is not None:
            stored = of_integer(constant.declared)
    macs = layer.nonzero_macs if options.sparsity else layer.macs
    weights = layer.nonzero if options.sparsity else layer.weights
    return LayerCost(
        name=str(layer.node.name),
        op=layer.node.op_type,
        macs=macs,
        bops=macs * data.bits * stored.bits,
        weights=weights,
        weight_bits=weights * stored.bits,
        activations=layer.outputs,
        activation_bits=layer.outputs * result.bits,
        input_type=str(data),
        weight_type=str(stored),
        output_type=str(result),
    )


def _total(
    layers: list[LayerCost], source: str, options: CostOptions, notes: tuple[str, ...]
) -> Cost:
    macs: Counter[str] = Counter()
    weights: Counter[str] = Counter()
    activations: Counter[str] = Counter()
    for layer in layers:
        macs[f"{layer.input_type} x {layer.weight_type}"] += layer.macs
        weights[layer.weight_type] += layer.weights
        activations[layer.output_type] += layer.activations
    # Two activations multiplied by one another have no weights.
    weights = +weights
    largest = options.convention == "paper"
    return Cost(
        source=source,
        convention=options.convention,
        sparsity=options.sparsity,
        layers=tuple(layers),
        macs=_sum(macs, largest=largest),
        bops=sum(layer.bops for layer in layers),
        weights=_sum(weights, largest=largest),
        weight_bits=sum(layer.weight_bits for layer in layers),
        activations=sum(activations.values()),
        activation_bits=sum(layer.activation_bits for layer in layers),
        mac_buckets=dict(macs),
        weight_buckets=dict(weights),
        activation_buckets=dict(activations),
        notes=notes,
    )


def _sum(buckets: Mapping[str, int], *, largest: bool) -> int:
    return max(buckets.values(), default=0) if largest else sum(buckets.values())
