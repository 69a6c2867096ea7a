"""Integer operators in QDQ form: dequantize, compute in float, quantize.

``QLinearConv(x, ...)`` says the same as ``QuantizeLinear(Conv(DequantizeLinear(x), ...))``
where float32 sums its products exactly (scales that are powers of two, sums below 2^24).
Elsewhere the operator is the more accurate of the two, and codes can be one step apart for
about one value in 10^5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from onnx_ir import Graph, Model, Node, Value

from qonnx_hub_adapters.qlinear.codes import CONTRIB
from qonnx_hub_ir import dialect
from qonnx_hub_ir.emitter import Emitter
from qonnx_hub_ir.errors import SourceError
from qonnx_hub_ir.quant import Array

_MOVES = frozenset(
    {"Clip", "Concat", "Flatten", "Identity", "MaxPool", "Pad", "Reshape", "Resize", "Slice"}
    | {"Squeeze", "Transpose", "Unsqueeze"}
)


def is_integer_operator(domain: str, op_type: str) -> bool:
    """Return whether a node of that kind is one that :func:`expand` rewrites."""
    return ("" if domain in dialect.STANDARD_DOMAINS else domain, op_type) in _EXPANDERS


def expand(model: Model) -> None:
    """Rewrite every integer operator of a model in QDQ form, in place.

    A product of which a zero point is computed at run time stays as it is.

    Args:
        model: Its constants must be initializers, and its opset 13 or newer.

    Raises:
        SourceError: An operator with inputs or attributes that are not known.
    """
    for graph in (model.graph, *model.graph.subgraphs()):
        for node in list(graph):
            expander = _EXPANDERS.get((node.domain, node.op_type))
            if expander is not None:
                expander(_Site(graph, node))
    if not any(node.domain == CONTRIB for node in model.graph.all_nodes()):
        model.opset_imports.pop(CONTRIB, None)


class _Site:
    """One node that is rewritten."""

    def __init__(self, graph: Graph, node: Node) -> None:
        self.graph, self.node = graph, node
        self.emit = Emitter(graph, node)

    def fail(self, reason: str) -> SourceError:
        return SourceError(f"{self.node.op_type} '{self.node.name}' {reason}")

    def input(self, index: int) -> Value | None:
        return self.node.inputs[index] if index < len(self.node.inputs) else None

    def required(self, index: int) -> Value:
        value = self.input(index)
        if value is None:
            raise self.fail(f"lacks its input {index}")
        return value

    def attributes(self, *known: str) -> dict[str, Any]:
        given = {name: attribute.value for name, attribute in self.node.attributes.items()}
        unknown = set(given) - set(known)
        if unknown:
            raise self.fail(f"has an unknown attribute '{sorted(unknown)[0]}'")
        return given

    def constant(self, index: int, what: str) -> Array:
        known = dialect.constant_value(self.input(index))
        if known is None:
            raise self.fail(f"has a {what} that is computed at run time")
        return known

    def dequantized(self, first: int, axis: int | None = None) -> Value:
        """Return the values of the integers at inputs first, first + 1, first + 2."""
        scale = self.required(first + 1)
        inputs: list[Value | None] = [self.required(first), scale]
        if self.input(first + 2) is not None:
            inputs.append(self.input(first + 2))
        single = scale.shape is None or all(size == 1 for size in scale.shape)
        if single:
            return self.emit.add(
                "DequantizeLinear", [inputs[0], *map(self._scalar, inputs[1:])]
            )
        if axis is None:
            raise self.fail("has a scale per row or per element")
        flat = [self._flat(value) for value in inputs[1:]]
        return self.emit.add("DequantizeLinear", [inputs[0], *flat], axis=axis)

    def _scalar(self, value: Value | None) -> Value | None:
        known = dialect.constant_value(value)
        if known is None or value is None or known.ndim == 0:
            return value
        return self.emit.constant(f"{value.name}_scalar", known.reshape(-1)[0].reshape(()))

    def _flat(self, value: Value | None) -> Value | None:
        known = dialect.constant_value(value)
        if known is None or value is None or known.ndim == 1:
            return value
        return self.emit.constant(f"{value.name}_flat", known.reshape(-1))

    def quantized(self, value: Value, scale: int) -> None:
        """Put the codes of ``value``, by inputs scale and scale + 1, in the node's place."""
        inputs = [value, self._scalar(self.required(scale))]
        inputs.append(self._scalar(self.required(scale + 1)))
        self.emit.replace_with(self.emit.add("QuantizeLinear", inputs))

    def bias(self, index: int, x_scale: int, w_scale: int) -> Value | None:
        """Return an int32 bias as float values."""
        value = self.input(index)
        if value is None:
            return None
        scales = [self.constant(i, "scale").astype(np.float32) for i in (x_scale, w_scale)]
        scale = np.asarray(scales[0].reshape(()) * scales[1].reshape(-1), dtype=np.float32)
        if scale.size == 1:
            one = self.emit.constant("bias_scale", scale.reshape(()))
            return self.emit.add("DequantizeLinear", [value, one])
        return self.emit.add(
            "DequantizeLinear", [value, self.emit.constant("bias_scale", scale)], axis=0
        )


_WINDOW = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")


def _qlinear_conv(site: _Site) -> None:
    attributes = site.attributes(*_WINDOW)
    inputs = [site.dequantized(0), site.dequantized(3, axis=0)]
    bias = site.bias(8, 1, 4)
    if bias is not None:
        inputs.append(bias)
    site.quantized(site.emit.add("Conv", inputs, **attributes), 6)


def _qlinear_matmul(site: _Site) -> None:
    site.attributes()
    b = site.required(3)
    axis = None if b.shape is None else len(b.shape) - 1
    product = site.emit.add("MatMul", [site.dequantized(0), site.dequantized(3, axis)])
    site.quantized(product, 6)


def _integer_product(site: _Site) -> None:
    """Rewrite MatMulInteger or ConvInteger, with the Cast and Mul behind it where it has them.

    The unit of the sum is shared out between both factors where their product gives it back;
    otherwise the integers themselves become floats, which hold sums up to 2^24.
    """
    conv = site.node.op_type == "ConvInteger"
    attributes = site.attributes(*_WINDOW) if conv else site.attributes()
    zeros = [site.input(index) for index in (2, 3)]
    if any(z is not None and dialect.constant_value(z) is None for z in zeros):
        return
    tail = _scaled_sum(site.node)
    scale = None if tail is None else _scale_of(site.required(0))
    if tail is not None and scale is not None:
        node, unit = tail
        weight = _other_factor(unit.reshape(-1), scale)
        if weight is not None:
            inside = _Site(site.graph, node)
            values = _product_of(inside, site, scale, weight, conv, attributes)
            inside.emit.replace_with(values)
            return
    one = np.ones((), dtype=np.float32)
    values = _product_of(site, site, one, one, conv, attributes)
    site.emit.replace_with(site.emit.add("Cast", [values], to=6))


def _product_of(
    place: _Site, site: _Site, scale: Array, weight: Array, conv: bool, attributes: Any
) -> Value:
    emit = place.emit
    factors = []
    for index, number, axis in ((0, scale, 0), (1, weight, 0 if conv else -1)):
        number = number.reshape(()) if number.size == 1 else number
        inputs = [site.required(index), emit.constant(f"scale_{index}", number)]
        zero = dialect.constant_value(site.input(2 + index))
        if zero is not None and np.any(zero):
            if zero.size > 1 and (index == 0 or number.size == 1):
                number = np.broadcast_to(number, (zero.size,))
                inputs[1] = emit.constant(f"scale_{index}", np.ascontiguousarray(number))
            if index == 0 and zero.size > 1:
                raise site.fail("has a zero point per row")
            whole = zero.reshape(()) if number.size == 1 else np.broadcast_to(
                zero.reshape(-1), number.shape
            )  # fmt: skip
            inputs.append(
                emit.constant(
                    f"zero_{index}", np.ascontiguousarray(whole).reshape(whole.shape)
                )
            )
        options = {} if number.size == 1 else {"axis": axis}
        factors.append(emit.add("DequantizeLinear", inputs, **options))
    return emit.add("Conv" if conv else "MatMul", factors, **attributes)


def _scaled_sum(node: Node) -> tuple[Node, Array] | None:
    """Return the Mul behind an integer product and its Cast, and its constant."""
    cast = _only_reader(node)
    if cast is None or cast.op_type != "Cast" or cast.attributes["to"].value != 1:
        return None
    mul = _only_reader(cast)
    if mul is None or mul.op_type != "Mul":
        return None
    known = [dialect.constant_value(value) for value in mul.inputs]
    unit = next((k for k in known if k is not None), None)
    if unit is None or unit.dtype != np.float32 or not np.all(unit > 0):
        return None
    return mul, unit


def _only_reader(node: Node) -> Node | None:
    value = node.outputs[0]
    readers = list(value.consumers())
    return readers[0] if len(readers) == 1 and not value.is_graph_output() else None


def _scale_of(value: Value) -> Array | None:
    """Return the scale of integers, from the node that made them."""
    while True:
        node = value.producer()
        if node is None:
            return None
        index = {"QuantizeLinear": 1, "QLinearConv": 6, "QLinearMatMul": 6}.get(node.op_type)
        if index is not None:
            known = dialect.constant_value(node.inputs[index])
            return known.reshape(()) if known is not None and known.size == 1 else None
        inner = node.inputs[0] if node.inputs else None
        if node.op_type not in _MOVES or inner is None:
            return None
        value = inner


def _other_factor(unit: Array, scale: Array) -> Array | None:
    """Return the float32 factor that gives ``unit`` when multiplied by ``scale``, if any."""
    factor = (unit.astype(np.float64) / float(scale)).astype(np.float32)
    steps = (
        factor,
        np.nextafter(factor, np.float32(0)),
        np.nextafter(factor, np.float32(np.inf)),
    )
    for candidate in steps:
        factor = np.where(scale * factor == unit, factor, candidate)
    return np.asarray(factor, dtype=np.float32) if np.all(scale * factor == unit) else None


def _qgemm(site: _Site) -> None:
    attributes = site.attributes("alpha", "transA", "transB")
    axis = 0 if attributes.get("transB", 0) else 1
    inputs: list[Value | None] = [site.dequantized(0), site.dequantized(3, axis=axis)]
    bias = site.bias(6, 1, 4)
    if bias is not None and attributes.get("alpha", 1.0) != 1.0:
        raise site.fail("has a bias and a factor")
    if bias is not None:
        inputs.append(bias)
    values = site.emit.add("Gemm", inputs, **attributes)
    if site.input(7) is None:
        site.emit.replace_with(values)
        return
    site.quantized(values, 7)


def _pairwise(op_type: str) -> Callable[[_Site], None]:
    def rewrite(site: _Site) -> None:
        site.attributes()
        values = site.emit.add(op_type, [site.dequantized(0), site.dequantized(3)])
        site.quantized(values, 6)

    return rewrite


def _single(op_type: str, *known: str, **defaults: Any) -> Callable[[_Site], None]:
    def rewrite(site: _Site) -> None:
        attributes = site.attributes(*known, "channels_last", "opset")
        if attributes.pop("channels_last", 0):
            raise site.fail("is channels-last")
        attributes.pop("opset", None)
        values = site.emit.add(op_type, [site.dequantized(0)], **{**defaults, **attributes})
        site.quantized(values, 3)

    return rewrite


def _concat(site: _Site) -> None:
    attributes = site.attributes("axis")
    firsts = range(2, len(site.node.inputs), 3)
    values = site.emit.add("Concat", [site.dequantized(i) for i in firsts], **attributes)
    site.quantized(values, 0)


_EXPANDERS: Mapping[tuple[str, str], Callable[[_Site], None]] = {
    ("", "ConvInteger"): _integer_product,
    ("", "MatMulInteger"): _integer_product,
    ("", "QLinearConv"): _qlinear_conv,
    ("", "QLinearMatMul"): _qlinear_matmul,
    (CONTRIB, "QGemm"): _qgemm,
    (CONTRIB, "QLinearAdd"): _pairwise("Add"),
    (CONTRIB, "QLinearAveragePool"): _single(
        "AveragePool", "ceil_mode", "count_include_pad", *_WINDOW
    ),
    (CONTRIB, "QLinearConcat"): _concat,
    (CONTRIB, "QLinearGlobalAveragePool"): _single("GlobalAveragePool"),
    (CONTRIB, "QLinearLeakyRelu"): _single("LeakyRelu", "alpha"),
    (CONTRIB, "QLinearMul"): _pairwise("Mul"),
    (CONTRIB, "QLinearSigmoid"): _single("Sigmoid"),
    (CONTRIB, "QLinearSoftmax"): _single("Softmax", "axis"),
}
