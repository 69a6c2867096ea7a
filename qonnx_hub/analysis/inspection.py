"""What is quantized in a model, tensor by tensor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, ClassVar

import numpy as np
from onnx_ir import Model, Node, Value

from qonnx_hub.analysis.codes import Coded, coded_values, stored_type
from qonnx_hub.analysis.weight_export import IntegerWeight, integer_weights, stored_codes
from qonnx_hub.equivalence.reports.text import accumulator_table
from qonnx_hub.equivalence.stages import stages_of
from qonnx_hub.executor.explained import explained
from qonnx_hub.reporting.pages.charts import bars
from qonnx_hub.reporting.pages.page import Page, Section, sections_of, shortened
from qonnx_hub.reporting.pages.pictures import GraphStep, draw
from qonnx_hub.reporting.plain_data import plain
from qonnx_hub.reporting.report import Part, Report
from qonnx_hub.reporting.tables import Table
from qonnx_hub_adapters.qcdq.importer import kept_reasons
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.analysis import InputRange, ValueInfo
from qonnx_hub_ir.analysis.accumulators import AccumulatorRange, walk_accumulators
from qonnx_hub_ir.describe import describe_number
from qonnx_hub_ir.graph.queries import dims, every_quantizer, input_of
from qonnx_hub_ir.quantizers import (
    BipolarQuant,
    FloatQuant,
    IntQuant,
    Parameter,
    Rounding,
    Trunc,
    single_value,
)
from qonnx_hub_ir.validity import label


@dataclass(frozen=True, slots=True)
class QuantizedTensor:
    """One quantized tensor.

    Attributes:
        name: Name of the quantized value.
        node: Operator and name of its quantizer.
        kind: "weight" where the input is constant, else "activation".
        shape: Its shape; unknown sizes are names or ``None``.
        bits: Bit width in words.
        signed: Whether the integers are signed; ``None`` where that means nothing.
        narrow: Whether one code is left out; ``None`` where that means nothing.
        scale: The scale, or its shape.
        zero_point: The zero point, or its shape.
        rounding: Rounding mode.
        distinct: How many different integers a weight uses.
        lowest: Smallest integer that a weight uses.
        highest: Largest integer that a weight uses.
    """

    name: str
    node: str
    kind: str
    shape: tuple[int | str | None, ...]
    bits: str
    signed: bool | None = None
    narrow: bool | None = None
    scale: str = ""
    zero_point: str = ""
    rounding: str = ""
    distinct: int | None = None
    lowest: int | None = None
    highest: int | None = None


@dataclass(frozen=True, slots=True)
class TensorRange:
    """What a tensor can hold.

    Attributes:
        name: Name of the tensor.
        datatype: Its integer type, such as "INT8"; empty where it is on no grid.
        bits: Bits that its integers need; ``None`` without a grid.
        low: Lowest value.
        high: Highest value.
        integer_low: Lowest integer; ``None`` without a grid.
        integer_high: Highest integer; likewise.
        scale: Step of the grid, or how many there are.
        offset: Value of integer 0, or how many there are; empty where it is 0.
        axis: Axis of the channels that differ; ``None`` where none do.
        exact: Whether the floats are integer times scale to the bit.
        fixed_point: Narrowest fixed-point type that holds every value, as "ap_fixed<W,I>".
    """

    name: str
    datatype: str
    bits: int | None
    low: float
    high: float
    integer_low: int | None
    integer_high: int | None
    scale: str
    offset: str
    axis: int | None
    exact: bool
    fixed_point: str


@dataclass(frozen=True, slots=True, repr=False)
class Inspection(Report):
    """What is quantized in a model.

    Attributes:
        inputs: Name -> "dtype[shape]".
        outputs: Name -> "dtype[shape]".
        opset: Standard opset.
        operators: Operator -> how many nodes.
        tensors: Every quantized tensor, in the graph's order.
        parameters: Elements of all initializers that are not quantizer parameters.
        weight_bits: Bits that the quantized weights need.
        float_weights: Elements of weights that no quantizer reads.
        ranges: What every tensor that is no constant can hold; empty unless asked for.
        accumulators: What the layers' sums can hold; likewise.
        notes: What nothing is known of; and per node why what is, or looks like, a quantizer
            is read as none.
        weights: The integers of all weights; empty unless asked for.
        stages: The graph in few boxes, for its picture; not in JSON.
    """

    schema: ClassVar[str] = "inspect/1"
    heading: ClassVar[str] = "What is quantized"

    inputs: dict[str, str]
    outputs: dict[str, str]
    opset: int
    operators: dict[str, int]
    tensors: tuple[QuantizedTensor, ...]
    parameters: int
    weight_bits: int
    float_weights: int
    ranges: tuple[TensorRange, ...] = ()
    accumulators: tuple[AccumulatorRange, ...] = ()
    notes: tuple[str, ...] = ()
    weights: tuple[IntegerWeight, ...] = ()
    stages: tuple[GraphStep, ...] = field(default=(), compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the inspection as plain data, fit for JSON; of weights, what is counted."""
        weights = [_counted(weight) for weight in self.weights]
        names = [f.name for f in fields(self) if f.name != "stages"]
        return {n: plain(getattr(self, n)) for n in names} | {"weights": plain(weights)}

    def page(self) -> Page:
        """Return the page: the graph, where the bits of the weights are, and the tables."""
        sections = []
        picture = draw(self.stages)
        if picture is not None:
            sections.append(Section("The graph", (picture,)))
        lines = [
            (shortened(weight.name, 120), (bits,), f"{bits:,}", "")
            for weight in self.weights
            if (bits := weight.integers.size * weight.bits)
        ]
        if lines:
            chart = bars(lines, ("bits",), "Bits of every weight's integers.")
            sections.append(Section("Weights", (chart,)))
        inner = ("What every tensor can hold", "Sums") if self.ranges else ()
        titles = ("Quantized tensors", *inner, "Weights in numbers")
        sections += sections_of(self.parts(), titles)
        return Page(self.heading, self.summary(), tuple(sections))

    def summary(self) -> str:
        """Return the totals in one line."""
        weights = sum(tensor.kind == "weight" for tensor in self.tensors)
        return (
            f"{len(self.tensors)} quantizers ({weights} on weights); "
            f"{self.parameters} parameters, {self.float_weights} of them float; "
            f"quantized weights need {self.weight_bits} bits"
        )

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per quantized tensor."""
        return [plain(tensor) for tensor in self.tensors]

    def parts(self) -> Iterator[Part]:
        """Give the quantized tensors, the signature, totals, notes, and what was asked for."""
        yield _tensor_table(self.tensors)
        signature = [f"{name} {kind}" for name, kind in self.inputs.items()]
        results = [f"{name} {kind}" for name, kind in self.outputs.items()]
        yield f"inputs: {', '.join(signature)}; outputs: {', '.join(results)}"
        counts = ", ".join(f"{count} {name}" for name, count in self.operators.items())
        yield f"opset {self.opset}: {counts}"
        yield self.summary()
        yield from (f"note: {note}" for note in self.notes[:_MOST_NOTES])
        if len(self.notes) > _MOST_NOTES:
            yield f"note: and {len(self.notes) - _MOST_NOTES} more; --json holds all"
        if self.ranges:
            yield ""
            yield _range_table(self.ranges)
        if self.accumulators:
            yield ""
            yield accumulator_table(asdict(layer) for layer in self.accumulators)
        if self.weights:
            yield ""
            yield _weight_table(self.weights)


_MOST_NOTES = 20


def _tensor_table(tensors: Sequence[QuantizedTensor]) -> Table:
    columns = (
        *("tensor", "quantizer", "kind", "shape", "bits", "signed", "narrow", "scale"),
        *("zero point", "rounding", "integers", "range"),
    )
    rows = [
        (
            # Its quantizer by the name that conversions list it by.
            *(t.name, t.node.partition("'")[2].strip("'"), t.kind),
            *("x".join(map(str, t.shape)), t.bits),
            *(_flag(t.signed), _flag(t.narrow), t.scale, t.zero_point or "-"),
            t.rounding or "-",
            "-" if t.distinct is None else str(t.distinct),
            "-" if t.lowest is None else f"{t.lowest}..{t.highest}",
        )
        for t in tensors
    ]
    return Table(columns, rows)


def _flag(value: bool | None) -> str:
    return "-" if value is None else "yes" if value else "no"


def _range_table(ranges: Sequence[TensorRange]) -> Table:
    columns = ("tensor", "type", "values", "integers", "scale", "offset", "per", "exact")
    rows = [
        (
            *(one.name, one.datatype or "-", f"{one.low:.6g}..{one.high:.6g}"),
            "-" if one.integer_low is None else f"{one.integer_low}..{one.integer_high}",
            *(one.scale or "-", one.offset or "-"),
            "-" if one.axis is None else f"axis {one.axis}",
            one.fixed_point or ("yes" if one.exact else "no"),
        )
        for one in ranges
    ]
    return Table(columns, rows)


def _weight_table(weights: Sequence[IntegerWeight]) -> Table:
    columns = ("weight", "shape", "bits", "signed", "integers", "range", "zeros", "scale")
    rows = [
        (
            *(data["name"], "x".join(map(str, data["shape"])), str(data["bits"])),
            *(_flag(data["signed"]), str(data["distinct"])),
            *(f"{data['lowest']}..{data['highest']}", str(data["zeros"]), data["scale"]),
        )
        for data in map(_counted, weights)
    ]
    return Table(columns, rows)


def _counted(weight: IntegerWeight) -> dict[str, Any]:
    used = np.unique(weight.integers)
    return {
        "name": weight.name,
        "shape": list(weight.integers.shape),
        "bits": weight.bits,
        "signed": weight.signed,
        "distinct": int(used.size),
        "lowest": int(used[0]) if used.size else None,
        "highest": int(used[-1]) if used.size else None,
        "zeros": weight.zeros,
        "scale": describe_number(weight.scale),
        "zero_point": describe_number(weight.zero_point),
    }


def inspect_model(
    model: Model,
    *,
    ranges: bool = False,
    weights: bool = False,
    inputs: Mapping[str, InputRange] | None = None,
) -> Inspection:
    """Return what is quantized in an IR model.

    A weight's integers are computed from its values, so that the numbers are what hardware
    stores, not what the file claims.

    Args:
        model: The model.
        ranges: Infer what every tensor can hold as well.
        weights: Compute the integers of all weights as well.
        inputs: Input name -> its ends, or its type; inputs that are not named can be anything.

    Raises:
        UsageError: A name that is no input, or a range or type that is none.
    """
    with explained(model, "the model"):
        known = list(walk_accumulators(model, inputs)) if ranges else []
    nodes = list(model.graph.all_nodes())
    quantizers = every_quantizer(model)
    tensors = tuple(row for node in nodes for row in _rows(node))
    coded = {str(v.name): codes for v, codes in coded_values(model.graph).items()}
    layouts = {dialect.CHANNELS_LAST_DOMAIN: " (channels last)"}
    operators = Counter(f"{node.op_type}{layouts.get(node.domain, '')}" for node in nodes)
    parameters, floats, bits = _count_weights(model, quantizers)
    return Inspection(
        inputs={str(v.name): _signature(v) for v in model.graph.inputs},
        outputs={str(v.name): _signature(v) for v in model.graph.outputs},
        opset=model.opset_imports[""],
        operators=dict(sorted(operators.items())),
        tensors=tensors,
        parameters=parameters,
        weight_bits=bits,
        float_weights=floats,
        ranges=tuple(
            _range(n, info, coded.get(n)) for n, info, _ in known if info.constant is None
        ),
        accumulators=tuple(sums.summary() for _, _, sums in known if sums is not None),
        notes=tuple(_notes(model)),
        weights=tuple(integer_weights(model)) if weights else (),
        stages=stages_of(model),
    )


def _notes(model: Model) -> Iterator[str]:
    if dialect.NOTE in model.metadata_props:
        yield model.metadata_props[dialect.NOTE]
    for name, reason in kept_reasons(model).items():
        yield f"'{name}' is no quantizer here: {reason}"


def _rows(node: Node) -> list[QuantizedTensor]:
    """Return the tensors that a node quantizes, or takes as integers that the file stores."""
    if dialect.is_quantizer(node):
        return [_describe(node)]
    x, product = input_of(node, 0), operators.of(node).product
    if operators.of(node).quantizes:
        # DynamicQuantizeLinear gives its scale and its zero point as results.
        made: list[Value | None] = [*node.outputs[1:3]]
        made = made or [input_of(node, 1), input_of(node, 2)]
        return _stored(node, node.outputs[0], (made[0], made[-1]))
    if operators.dequantizes(node):
        maker = None if x is None else x.producer()
        known = maker is not None and operators.of(maker).quantizes
        parameters = (input_of(node, 1), input_of(node, 2))
        return [] if known else _stored(node, x, parameters, node.outputs[0])
    if product is None or not product.is_integer:
        return []
    rows: list[QuantizedTensor] = []
    for number, position in enumerate((0, product.weight)):
        value, scales = input_of(node, position), product.scales
        if value is None or value.producer() is not None:
            continue  # its maker tells of it
        scale = input_of(node, scales[number]) if scales else None
        rows += _stored(node, value, (scale, input_of(node, product.zero_points[number])))
    return rows


def _stored(
    node: Node,
    value: Value | None,
    parameters: tuple[Value | None, Value | None],
    shown: Value | None = None,
) -> list[QuantizedTensor]:
    """Return the row of a tensor of integers; none for others, and for sums."""
    found = stored_type(value)
    if value is None or found is None:
        return []
    shown = shown or value
    codes = dialect.constant_value(value)
    used = None if codes is None or not codes.size else np.unique(codes.astype(np.int64))
    scale, zero = parameters
    row = QuantizedTensor(
        name=str(shown.name),
        node=label(node),
        kind="activation" if codes is None else "weight",
        shape=dims(shown) or (),
        bits=str(found.bits),
        signed=found.signed,
        narrow=False,
        scale="" if scale is None else describe_number(dialect.constant_value(scale)),
        zero_point="0" if zero is None else describe_number(dialect.constant_value(zero)),
        rounding=str(Rounding.ROUND),
        distinct=None if used is None else int(used.size),
        lowest=None if used is None else int(used[0]),
        highest=None if used is None else int(used[-1]),
    )
    return [row]


def _range(name: str, info: ValueInfo, coded: Coded | None) -> TensorRange:
    info = info if coded is None else _as_codes(info, coded)
    grid, fixed = info.grid, info.fixed_point()
    kind = "" if fixed is None else f"ap_{'' if fixed[2] else 'u'}fixed<{fixed[0]},{fixed[1]}>"
    return TensorRange(
        name=name,
        datatype="" if info.datatype is None else str(info.datatype),
        bits=info.bits,
        low=float(info.low.min()),
        high=float(info.high.max()),
        integer_low=None if grid is None else int(grid.low.min()),
        integer_high=None if grid is None else int(grid.high.max()),
        scale="" if grid is None else describe_number(grid.scale),
        offset="" if grid is None or not grid.has_offset else describe_number(grid.offset),
        axis=info.channel_axis,
        exact=grid is not None and grid.exact,
        fixed_point=kind,
    )


def _as_codes(info: ValueInfo, coded: Coded) -> ValueInfo:
    """Return a tensor's range with its codes as integers in the place of its levels."""
    grid = info.grid
    if grid is None or grid.has_offset or coded.scale is None or coded.zero is None:
        return info
    scale, zero = coded.scale.astype(np.float64), coded.zero.astype(np.int64)
    if single_value(grid.scale) is None or single_value(grid.scale) != single_value(scale):
        return info
    if single_value(zero) is None:
        return info
    first = zero.reshape(-1)[0]
    moved = replace(
        grid,
        low=grid.low + first,
        high=grid.high + first,
        offset=np.asarray(-first * grid.scale),
        declared=coded.type,
    )
    return replace(info, grid=moved)


def _signature(value: Value) -> str:
    dtype = "?" if value.dtype is None else value.dtype.numpy().name
    shape = "?" if value.shape is None else "x".join(map(str, value.shape))
    return f"{dtype}[{shape}]"


def _describe(node: Node) -> QuantizedTensor:
    quant = dialect.read_quantizer(node)
    weight = dialect.constant_value(node.inputs[0])
    used = stored_codes(node)
    used = None if used is None or not used.size else np.unique(used)
    words: dict[str, Any] = {"scale": describe_number(dialect.parameters(quant)[0])}
    if isinstance(quant, IntQuant):
        words["bits"] = describe_number(quant.bits)
    elif isinstance(quant, BipolarQuant):
        words["bits"] = "1 (bipolar)"
    elif isinstance(quant, FloatQuant):
        exponent, mantissa = quant.exponent_bits, quant.mantissa_bits
        words["bits"] = f"e{describe_number(exponent)}m{describe_number(mantissa)}"
    else:
        ends = (quant.in_bits, quant.out_bits)
        words["bits"] = " to ".join(describe_number(bits) for bits in ends)
    if isinstance(quant, (IntQuant, Trunc)):
        words.update(signed=quant.signed, narrow=quant.narrow)
        words["zero_point"] = describe_number(quant.zero_point)
    if not isinstance(quant, BipolarQuant):
        words["rounding"] = str(quant.rounding)
    return QuantizedTensor(
        name=str(node.outputs[0].name),
        node=label(node),
        kind="activation" if weight is None else "weight",
        shape=dims(node.outputs[0]) or (),
        distinct=None if used is None else int(used.size),
        lowest=None if used is None else int(used[0]),
        highest=None if used is None else int(used[-1]),
        **words,
    )


def _count_weights(model: Model, quantizers: list[Node]) -> tuple[int, int, int]:
    """Return (all elements, elements without a quantizer, bits of the quantized ones)."""
    quantizer_parameters = {v for node in quantizers for v in node.inputs[1:]}
    quantized = {node.inputs[0]: node for node in quantizers}
    total = floats = bits = 0
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or value in quantizer_parameters:
            continue
        total += tensor.size
        node = quantized.get(value)
        if node is None:
            floats += tensor.size if value.dtype and value.dtype.is_floating_point() else 0
            continue
        quant = dialect.read_quantizer(node)
        parts: tuple[Parameter, ...] = ()
        sign = 1  # a bipolar weight is nothing but its sign
        if isinstance(quant, FloatQuant):
            parts = (quant.exponent_bits, quant.mantissa_bits)
        elif not isinstance(quant, BipolarQuant):
            sign, parts = 0, (quant.bits if isinstance(quant, IntQuant) else quant.out_bits,)
        bits += tensor.size * (sign + sum(int(np.max(p)) for p in parts if p is not None))
    return total, floats, bits
