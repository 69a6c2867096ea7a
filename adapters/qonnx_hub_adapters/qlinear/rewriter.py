"""Quantized regions of a graph become integers; what cannot stays float, with a reason.

One walk in topological order, bodies where the nodes that hold them stand, gives every value
that lies on an 8-bit grid its integers. A second step puts DequantizeLinear where floats still
need such a value, and integer sums in place of those products whose float values are needed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir
from onnx_ir import Graph, Model, Node, Value

from qonnx_hub_adapters.protocol import Bound, QuantizerRecord
from qonnx_hub_adapters.qlinear import integer_values as borders
from qonnx_hub_adapters.qlinear import requantize, tables
from qonnx_hub_adapters.qlinear.constants import read_number
from qonnx_hub_adapters.qlinear.data_movement import move, repeat_moves, split
from qonnx_hub_adapters.qlinear.epilogue import trace_epilogue
from qonnx_hub_adapters.qlinear.float_exactness import Doubt, doubt_of
from qonnx_hub_adapters.qlinear.integer_values import Codes, Form, Target
from qonnx_hub_adapters.qlinear.layouts import SUMS
from qonnx_hub_adapters.qlinear.operators import (
    emit_integer_sums,
    emit_requantized,
    emit_sums,
    weight_type,
)
from qonnx_hub_adapters.qlinear.origins import (
    origin_of,
    restored,
    restored_sums,
    stored_codes,
)
from qonnx_hub_adapters.qlinear.products import (
    QuantizedProduct,
    is_summed,
    read_pair,
    read_product,
)
from qonnx_hub_adapters.qlinear.report import LayerRecord, Result, bound_in_words
from qonnx_hub_adapters.qlinear.requantize import LARGEST_STEP
from qonnx_hub_ir import dialect, operators
from qonnx_hub_ir.describe import describe_quantizer
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.queries import is_read, is_standard, only_reader, producer, readers
from qonnx_hub_ir.graph.rewriting import replace_node, replace_value
from qonnx_hub_ir.graph.subgraphs import bodies, read_values
from qonnx_hub_ir.lowering.onnxruntime_operators import DOMAIN as CONTRIB
from qonnx_hub_ir.passes import DropUnused
from qonnx_hub_ir.quantizers import single_value


class IntegerRewriter:
    """Rewrites one model, in place."""

    def __init__(self, model: Model, form: Form, *, allow_lossy: bool) -> None:
        """Prepare.

        Args:
            model: A copy that nobody else uses.
            form: The type of all its integers.
            allow_lossy: Use QLinear operators that do not give every code as well.
        """
        self._model, self._form, self._allow_lossy = model, form, allow_lossy
        # Inputs that are left out are looked up as well, and never found.
        self._codes: dict[Value | None, Codes] = {}
        self._products: dict[Value | None, QuantizedProduct] = {}
        self._layers: dict[Node, LayerRecord] = {}
        self._records: dict[str, QuantizerRecord] = {}
        self._rounded: dict[Value, bool] = {}
        self._floats: list[tuple[Node, Value]] = []
        self._owners = {body: n for n in model.graph.all_nodes() for body in bodies(n)}
        self._moved: dict[tuple[object, ...], Codes] = {}
        self._predicted: dict[Node, Bound | None] = {}
        self.bounds: dict[str, Bound] = {}
        """Quantizers that stay, behind float values that are not those of the source."""
        self.integers: dict[Value, tuple[str, Codes]] = {}
        """Integers of quantizers, each with the output that it stands for."""

    def run(self) -> tuple[list[LayerRecord], dict[str, QuantizerRecord]]:
        """Rewrite the graph; return its layers in order and records by quantizer name."""
        for node in list(self._model.graph.all_nodes()):
            if dialect.is_quantizer(node):
                if read_number(node.inputs[0]) is None:
                    self._quantizer(node)
            elif operators.is_integer_product(node) or (
                node.domain == CONTRIB and operators.of(node).product is not None
            ):
                kept = LayerRecord(node.name or "", node.op_type, Result.INTEGER, node.op_type)
                self._layers[node] = kept
            elif node.domain != "" or not node.inputs or self._sums_as_they_were(node):
                continue
            elif is_summed(node):
                self._product(node)
            elif node.op_type == "QuantizeLinear":
                self._integers_out(node)
            elif node.op_type == "DequantizeLinear":
                self._integers_in(node)
            else:
                self._move(node)
        self._bound_floats()
        self._leave_integers()
        DropUnused()(self._model)
        self._emit_products()
        DropUnused()(self._model)
        return list(self._layers.values()), self._records

    def _move(self, node: Node) -> None:
        """Let integers move as their values do, where a node moves them."""
        sources = [self._codes.get(value) for value in node.inputs]
        if is_standard(node, "Gather") and sources[0] is None:
            sources[0] = stored_codes(Emitter(node), node.inputs[0], self._form)
        if is_standard(node, "Split"):
            parts = split(Emitter(node), node, sources[0])
            self._codes.update(zip(node.outputs, parts, strict=False))
            return
        # A file reads the values of moved integers several times; they are moved once.
        read = ((c.value, c.zero, float(c.scale)) if c else None for c in sources)
        settings = sorted(map(str, node.attributes.values()))
        given = (v for v in node.inputs if v not in self._codes)
        key = (node.graph, node.op_type, *read, *given, *settings)
        made = self._moved.get(key) or move(Emitter(node), node, sources)
        if made is not None:
            self._codes[node.outputs[0]] = self._moved[key] = made

    def _integers_in(self, node: Node) -> None:
        """Take the integers of a DequantizeLinear where they are of the model's type."""
        quant, codes = borders.read_bytes(node), node.inputs[0]
        if quant is None or codes is None or dialect.constant_tensor(codes) is not None:
            return
        steps, form = borders.steps_of(quant), self._form.of(quant)
        if isinstance(steps, str) or form.signed != quant.signed:
            return
        target = borders.target_in(form, steps)
        if target is not None:
            self._codes[node.outputs[0]] = target.holds(codes)

    def _integers_out(self, node: Node) -> None:
        """Take integers for a QuantizeLinear, in a quantizer's place where its input has none.

        It stays where they are of another type, or mean other values.
        """
        found = borders.read_output(node)
        if found is None or read_number(found[1]) is not None:
            return
        quant, x = found
        known = self._codes.get(x)
        moved = known is not None and bool(origin_of(producer(x)))
        # A layer that only moved integers had them on the grid behind it, as its file says.
        ends = single_value(quant.scale), single_value(quant.zero_point)
        if known is None or (moved and ends != (float(known.scale), known.zero)):
            node = borders.quantize_before(node, quant, x)
            fresh = producer(node.inputs[0])
            assert fresh is not None, "a quantizer was just made"
            self._quantizer(fresh)
        codes = self._codes.get(node.inputs[0])
        if codes is None or codes.form.signed != quant.signed:
            return
        same_scale = single_value(quant.scale) == codes.scale
        if same_scale and single_value(quant.zero_point) == codes.zero:
            replace_node(node, codes.value)

    def _product(self, node: Node) -> None:
        codes = self._codes.get(node.inputs[0])
        other = self._codes.get(node.inputs[1]) if node.op_type == "MatMul" else None
        product: QuantizedProduct | str = "its input is not quantized to 8 bits"
        if codes is not None:
            product = read_pair(node, codes, other) if other else read_product(node, codes)
        if isinstance(product, QuantizedProduct):
            self._products[node.outputs[0]] = product
        if not operators.is_product(node):
            return
        name = node.name or ""
        if isinstance(product, str):
            self._layers[node] = LayerRecord(name, node.op_type, Result.FLOAT, reason=product)
            return
        operator = "ConvInteger" if product.is_conv else "MatMulInteger"
        layer = LayerRecord(name, node.op_type, Result.INTEGER, operator, bits=product.bits)
        layer = replace(layer, exact=product.is_exact, saturates=product.may_saturate)
        self._note(product, layer)

    def _quantizer(self, node: Node) -> None:
        x = node.inputs[0]
        if x is None:
            return
        steps = borders.read_steps(node)
        target = None
        if not isinstance(steps, str):
            target = borders.target_in(self._form.of(steps.quant), steps)
        if target is None:
            self._floats.append((node, x))
            return
        emit = Emitter(node)
        source, chain = trace_epilogue(x, lambda v: v in self._codes or v in self._products)
        found = self._as_it_was(emit, x, target)
        if found is not None:
            made: Codes | None = found
        elif source in self._products:
            made = self._requantized(emit, self._products[source], chain, target)
        elif _pools_floats(chain, target):
            made = None
        else:
            made = self._looked_up(emit, source, chain, target)
        if made is None:
            made = borders.quantized(emit, target)
            encoding = "Q" if made.is_full else "Q + Clip"
            bound = self._bound_behind(x, source)
            self._records[node.name or ""] = _record_of(node, encoding, bound)
            self._floats.append((node, x))
        self._codes[node.outputs[0]] = made
        self.integers.setdefault(made.value, (str(node.outputs[0].name), made))

    def _as_it_was(self, emit: Emitter, x: Value, target: Target) -> Codes | None:
        """Return codes by the operator from which a layer was read, if it is unchanged."""
        layer = x.producer()
        if layer is None or not origin_of(layer):
            return None
        node = restored(emit, layer, self._codes, target)
        if node is None:
            return None
        node.name = layer.name
        bound = None if doubt_of(node) is Doubt.NONE else Bound(steps=1)
        record = _record_of(emit.node, f"{node.op_type}, as it was read", bound)
        reason = "" if bound is None else "the source's own integers, not its float form's"
        self._records[record.node] = replace(record, reason=reason)
        own = self._layers.get(layer)
        if own is not None:
            # Its integers are those of the source: only the float form rounds.
            self._layers[layer] = replace(
                own, result=Result.INTEGER, operator=node.op_type, reason="", exact=True
            )
        return target.holds(node.outputs[0])

    def _sums_as_they_were(self, layer: Node) -> bool:
        """Write the operator from which a layer with float values was read, if it can be."""
        if not origin_of(layer):
            return False
        node = restored_sums(Emitter(layer), layer, self._codes, self._form)
        if node is None:
            return False
        product = layer if operators.is_product(layer) else producer(layer.inputs[0])
        if product is not None and operators.is_product(product):
            self._layers[product] = LayerRecord(
                product.name or "", product.op_type, Result.INTEGER, node.op_type
            )
        replace_node(layer, node.outputs[0])
        return True

    def _is_rounded(self, value: Value) -> bool:
        """Return whether a float value may round differently than in the source.

        It does behind integer sums whose float sums round in the source, up to the next
        integers.
        """
        waiting: list[Value] = [value]
        seen: set[Value] = set()
        while waiting:
            one = waiting.pop()
            if one in seen or one in self._codes or self._rounded.get(one) is False:
                continue
            seen.add(one)
            product = self._products.get(one)
            exact, read = self._read_for(one) if product is None else (product.is_exact, [])
            if self._rounded.get(one) or not exact:
                self._rounded[value] = True
                return True
            waiting.extend(read)
        self._rounded.update(dict.fromkeys(seen, False))
        return False

    def _read_for(self, value: Value) -> tuple[bool, list[Value]]:
        """Return whether the bodies of what makes a value round nothing, and what it reads.

        What enters a body may be what the body made before.
        """
        graph = value.graph
        enters = isinstance(graph, Graph) and value in graph.inputs
        node = self._owners.get(graph) if graph and enters else value.producer()
        if node is None:
            return True, []
        inner = (v for body in bodies(node) for n in body.all_nodes() for v in n.outputs)
        sums = (self._products[one] for one in inner if one in self._products)
        return all(one.is_exact for one in sums), read_values(node)

    def _bound_floats(self) -> None:
        """Look again at quantizers of floats: in a loop, what rounds may come behind them."""
        self._rounded.clear()
        for node, x in self._floats:
            name = node.name or ""
            record = self._records.get(name)
            if not self._is_rounded(x):
                continue
            if record is None:
                self.bounds[name] = Bound(steps=LARGEST_STEP)
            elif record.bound is None:
                bound = Bound(steps=LARGEST_STEP)
                self._records[name] = _record_of(node, record.encoding, bound)

    def _bound_behind(self, x: Value, source: Value) -> Bound | None:
        """Return what is promised of a quantizer of floats; ``None`` where it is exact.

        Args:
            x: What it quantizes.
            source: Where the chain of operators before it starts.
        """
        product = self._products.get(source)
        if product is not None and product.node in self._predicted:
            return self._predicted[product.node]
        return Bound(steps=LARGEST_STEP) if self._is_rounded(x) else None

    def _requantized(
        self, emit: Emitter, product: QuantizedProduct, chain: list[Node], target: Target
    ) -> Codes | None:
        """Return codes by a QLinear operator; ``None`` where the epilogue stays in float."""
        rounding = None if product.is_exact else Bound()
        if not all(only_reader(one.outputs[0]) for one in (product.node, *chain)):
            reason = "its float values are needed elsewhere too"
            self._note_epilogue(product, reason, rounding)
            return None
        case: requantize.Requantizing | str = "MaxPool takes no integers before opset 12"
        if not _pools_floats(chain, target):
            case = requantize.read_requantizing(product, chain, target)
        if isinstance(case, str):
            self._note_epilogue(product, case, rounding)
            return None
        outcome = requantize.decide(case, allow_lossy=self._allow_lossy)
        bound = outcome.bound
        if outcome.found is None:
            # A float epilogue repeats the source's own: only its sums round elsewhere.
            self._predicted[product.node] = bound
            self._note_epilogue(product, outcome.reason, bound)
            return None
        made, operator = emit_requantized(
            emit, product, outcome.found, case.signs, case.target
        )
        made = repeat_moves(emit, chain, made)
        encoding = operator if made.is_full else f"{operator} + Clip"
        record = _record_of(emit.node, encoding, bound, outcome.reason)
        self._records[record.node] = record
        layer = self._layers.get(product.node)
        if layer is not None:
            layer = replace(layer, operator=operator, reason=outcome.reason)
            self._note(product, replace(layer, exact=bound is None, share=_share_in(bound)))
        return made

    def _note_epilogue(
        self, product: QuantizedProduct, reason: str, bound: Bound | None
    ) -> None:
        layer = self._layers.get(product.node)
        if layer is None:
            return
        exact, share = bound is None, _share_in(bound)
        # One of several quantizers behind a product may be certain, another not.
        if layer.result is Result.EPILOGUE:
            exact, share = exact and layer.exact, max(share, layer.share)
        layer = replace(layer, result=Result.EPILOGUE, reason=reason, exact=exact, share=share)
        self._note(product, layer)

    def _note(self, product: QuantizedProduct, layer: LayerRecord) -> None:
        self._layers[product.node] = layer
        bound = None if layer.exact else Bound(share=layer.share)
        for index, node in enumerate(product.quantizers):
            kind = "bias" if index else f"{weight_type(product)} weight"
            record = _record_of(node, f"{kind} of {layer.operator}", bound, layer.reason)
            # What is promised is the layer's, behind it.
            self._records[record.node] = replace(record, bound=None)

    def _looked_up(
        self, emit: Emitter, source: Value, chain: list[Node], target: Target
    ) -> Codes | None:
        """Return codes by a table; ``None`` where what is quantized is not integer."""
        followed = tables.read_scalar_chain(chain, source)
        if isinstance(followed, str):
            return None
        codes, node, found = self._codes.get(source), source.producer(), None
        if codes is not None:
            found = tables.look_up(emit, codes, followed, target)
        elif node is not None and node.domain == "" and node.op_type in tables.PAIRS:
            pair = [self._codes.get(value) for value in node.inputs]
            if len(pair) != 2 or pair[0] is None or pair[1] is None:
                return None
            both = (pair[0], pair[1])
            found = tables.look_up_pair(emit, node.op_type, both, followed, target)
        if found is None:
            return None
        made, encoding = found
        self._records[emit.node.name or ""] = _record_of(emit.node, encoding)
        return repeat_moves(emit, chain, made)

    def _leave_integers(self) -> None:
        """Put DequantizeLinear in the place of every value that has integers."""
        for value, codes in self._codes.items():
            node = producer(value)
            if node is None or value is None or is_standard(node, "DequantizeLinear"):
                continue
            emit = Emitter(node)
            replace_value(value, borders.dequantized(emit, codes))

    def _emit_products(self) -> None:
        """Put integer sums in the place of products whose float values are needed."""
        for product in self._products.values():
            node = product.node
            if node.graph is None or operators.is_average_pool(node):
                continue
            for cast in self._casts_of(product):
                emit = Emitter(cast)
                emit.replace_with(emit_integer_sums(emit, product))
            if not is_read(node.outputs[0]):
                continue
            emit = Emitter(node)
            emit.replace_with(emit_sums(emit, product))

    def _casts_of(self, product: QuantizedProduct) -> list[Node]:
        """Return what takes the sums of a product as int32, where they are whole numbers."""
        is_sum = (
            product.bias is None and product.divisor == 1 and bool(np.all(product.unit == 1))
        )
        if not is_sum or not (product.is_exact or origin_of(product.node) in SUMS):
            return []
        return [
            reader
            for reader in readers(product.node.outputs[0])
            if is_standard(reader, "Cast")
            and reader.attributes["to"].as_int() == int(onnx_ir.DataType.INT32)
        ]


def _pools_floats(chain: list[Node], target: Target) -> bool:
    """Return whether a MaxPool of a chain cannot take the integers behind it instead."""
    return not target.form.clips and any(is_standard(node, "MaxPool") for node in chain)


def _share_in(bound: Bound | None) -> float:
    return 0.0 if bound is None or bound.share is None else bound.share


def _record_of(
    node: Node, encoding: str, bound: Bound | None = None, cause: str = ""
) -> QuantizerRecord:
    """Return what became of a quantizer; it is exact where nothing bounds it."""
    name, words = node.name or "", describe_quantizer(dialect.read_quantizer(node))
    reason = "" if bound is None else bound_in_words(cause, _share_in(bound))
    return QuantizerRecord(name, words, encoding, bound is None, reason, bound)
