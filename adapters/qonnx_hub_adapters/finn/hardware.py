"""FINN's hardware layers, said with operators that anybody runs.

What a layer computes is what FINN's own classes compute in Python: activations are channels
last, thresholds hold one row per channel, and a value is the number of thresholds that it
reaches, and an offset.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from qonnx_hub_ir.datatypes import parse_datatype
from qonnx_hub_ir.errors import UsageError

_HARDWARE = re.compile(r"finn\.custom_op\.fpgadataflow(\..+)?")
_GENERAL = "qonnx.custom_op.general"


class _Writer:
    """Writes the nodes in one layer's place.

    Args:
        node: The layer.
        arrays: The graph's constants, by name.
        shapes: The graph's shapes, by name.
        makers: Value -> the node that makes it.
    """

    def __init__(
        self,
        node: NodeProto,
        arrays: dict[str, np.ndarray[Any, Any]],
        shapes: Mapping[str, tuple[int, ...]],
        makers: Mapping[str, NodeProto],
    ) -> None:
        self.node = node
        self.arrays = arrays
        self.shapes = shapes
        self.makers = makers
        self.attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        self.nodes: list[NodeProto] = []

    def get(self, name: str, default: Any = None) -> Any:
        given = self.attributes
        value = given[name] if default is None else given.get(name, default)
        return value.decode() if isinstance(value, bytes) else value

    def constant(self, values: Any, dtype: Any = np.float32) -> str:
        name = f"{self.node.output[0]}_c{len(self.arrays)}"
        self.arrays[name] = np.asarray(values, dtype=dtype)
        return name

    def add(
        self,
        op: str,
        inputs: Sequence[str],
        output: str | None = None,
        *,
        domain: str = "",
        **attributes: Any,
    ) -> str:
        """Add a node; of the layer's name if its result is the layer's."""
        place = len(self.nodes)
        name = output or f"{self.node.output[0]}_v{place}"
        label = self.node.name if output else f"{self.node.name}_{place}"
        made = helper.make_node(op, list(inputs), [name], label, domain=domain, **attributes)
        self.nodes.append(made)
        return name

    def reshape(self, value: str, shape: Sequence[int], output: str | None = None) -> str:
        return self.add("Reshape", [value, self.constant(shape, np.int64)], output)

    def reach(self, value: str, thresholds: str, output: str) -> None:
        """Count thresholds of the last axis, with the layer's offset."""
        scale, bias = 1.0, float(self.get("ActVal", 0))
        if self.get("outputDataType", "") == "BIPOLAR":
            scale, bias = 2.0, 2.0 * bias - 1.0
            if self.node.op_type.startswith(("MVAU", "VVAU")):
                bias = -1.0
        rows = self.arrays[thresholds].reshape(-1, self.arrays[thresholds].shape[-1])
        wide = self.shapes[self.node.output[0]]
        flat = self.reshape(value, (-1, wide[-1]))
        counted = self.add(
            "MultiThreshold",
            [flat, self.constant(rows)],
            domain=_GENERAL,
            out_dtype="FLOAT32",
            out_scale=scale,
            out_bias=bias,
            data_layout="NC",
        )
        self.reshape(counted, wide, output)


def _same(layer: _Writer) -> None:
    for index, output in enumerate(layer.node.output):
        layer.add("Identity", [layer.node.input[0]], output)
        if index:
            layer.nodes[-1].name = f"{layer.node.name}_{index}"


def _finish_product(layer: _Writer, found: str) -> None:
    [output] = layer.node.output
    if layer.get("noActivation", 0):
        layer.reshape(found, layer.shapes[output], output)
    else:
        layer.reach(found, layer.node.input[2], output)


def _matrix_vector(layer: _Writer) -> None:
    data, weights = layer.node.input[:2]
    width = int(layer.get("MW"))
    rows = layer.reshape(data, (-1, width))
    kinds = {layer.get("inputDataType"), layer.get("weightDataType")}
    if layer.get("binaryXnorMode", 0):
        found = layer.add("XnorPopcountMatMul", [rows, weights], domain=_GENERAL)
    else:
        found = layer.add("MatMul", [rows, weights])
    if kinds == {"BIPOLAR"} and not layer.get("binaryXnorMode", 0):
        # Equal bits are counted instead of products being added.
        more = layer.add("Add", [found, layer.constant(float(width))])
        found = layer.add("Mul", [more, layer.constant(0.5)])
    _finish_product(layer, found)


def _vector_vector(layer: _Writer) -> None:
    data, weights = layer.node.input[:2]
    high, wide = (int(n) for n in layer.get("Kernel"))
    channels, taps = int(layer.get("Channels")), high * wide
    maker = layer.makers.get(data)
    while maker is not None and _RULES.get(_plain(maker.op_type)) is _same:
        maker = layer.makers.get(maker.input[0])  # such as a FIFO
    kind = "" if maker is None else _plain(maker.op_type)
    windows = kind == "Im2Col" or _RULES.get(kind) is _windows
    lanes = channels if windows else int(layer.get("PE", 1))
    size = layer.shapes[data]
    split = layer.reshape(data, (-1, size[1], size[2], channels // lanes, taps, lanes))
    turned = layer.add("Transpose", [split], perm=[0, 1, 2, 4, 3, 5])
    terms = layer.reshape(turned, (-1, size[1], size[2], taps, channels))
    own = layer.arrays[weights].reshape(channels, taps).T
    products = layer.add("Mul", [terms, layer.constant(own)])
    axes = layer.constant([3], np.int64)
    found = layer.add("ReduceSum", [products, axes], keepdims=0)
    if {layer.get("inputDataType"), layer.get("weightDataType")} == {"BIPOLAR"}:
        more = layer.add("Add", [found, layer.constant(float(taps))])
        found = layer.add("Mul", [more, layer.constant(0.5)])
    _finish_product(layer, found)


def _windows(layer: _Writer) -> None:
    sizes = {
        "kernel_size": [int(n) for n in layer.get("ConvKernelDim")],
        "stride": [int(n) for n in layer.get("Stride", [1, 1])],
        "dilations": [int(n) for n in layer.get("Dilation", [1, 1])],
        "pad_amount": [0, 0, 0, 0],
    }
    dims = [int(n) for n in layer.get("IFMDim")]
    shape = f"(1,{dims[0]},{dims[1]},{int(layer.get('IFMChannels'))})"
    layer.add(
        "Im2Col",
        [layer.node.input[0]],
        layer.node.output[0],
        domain=_GENERAL,
        input_shape=shape,
        **sizes,
    )


def _pool(layer: _Writer) -> None:
    data, [output] = layer.node.input[0], layer.node.output
    taps, channels = int(np.prod(layer.get("KernelSize"))), int(layer.get("Channels"))
    size, kind = layer.shapes[data], layer.get("Function")
    split = layer.reshape(data, (-1, *size[1:-1], taps, channels))
    axes = layer.constant([len(size) - 1], np.int64)
    if kind == "MaxPool":
        layer.add("ReduceMax", [split, axes], output, keepdims=0)
    elif kind == "AvgPool":
        layer.add("ReduceMean", [split, axes], output, keepdims=0)
    elif kind == "AccPool":
        layer.add("ReduceSum", [split, axes], output, keepdims=0)
    elif kind == "QuantAvgPool":
        kinds = (layer.get("InputDataType"), layer.get("OutputDataType"))
        bits = [int(re.sub(r"\D", "", name)) for name in kinds]
        shift = max(((2 ** bits[0] - 1) * taps).bit_length() - bits[1], 0)
        total = layer.add("ReduceSum", [split, axes], keepdims=0)
        part = layer.add("Mul", [total, layer.constant(2.0**-shift)])
        layer.add("Floor", [part], output)
    else:
        raise KeyError(kind)


def _padding(layer: _Writer) -> None:
    top, left, bottom, right = (int(n) for n in layer.get("Padding"))
    pads = layer.constant([0, top, left, 0, 0, bottom, right, 0], np.int64)
    layer.add("Pad", [layer.node.input[0], pads], layer.node.output[0])


def _global_sum(layer: _Writer) -> None:
    axes = layer.constant([1, 2], np.int64)
    layer.add("ReduceSum", [layer.node.input[0], axes], layer.node.output[0], keepdims=1)


def _select(layer: _Writer) -> None:
    count = layer.constant([int(layer.get("K", 1))], np.int64)
    names = [f"{layer.node.output[0]}_top", f"{layer.node.output[0]}_places"]
    made = helper.make_node("TopK", [layer.node.input[0], count], names, "top")
    made.name = f"{layer.node.name}_0"
    layer.nodes.append(made)
    layer.add("Cast", [names[1]], layer.node.output[0], to=TensorProto.FLOAT)


def _concat(layer: _Writer) -> None:
    layer.add("Concat", list(layer.node.input), layer.node.output[0], axis=-1)


def _split(layer: _Writer) -> None:
    sizes = layer.constant([int(n) for n in layer.get("ChannelsPerStream")], np.int64)
    reads, makes = [layer.node.input[0], sizes], list(layer.node.output)
    made = helper.make_node("Split", reads, makes, layer.node.name, axis=-1)
    layer.nodes.append(made)


def _channelwise(layer: _Writer) -> None:
    operator = {"add": "Add", "mul": "Mul"}[layer.get("Func")]
    data, parameters = layer.node.input[:2]
    values = layer.constant(layer.arrays[parameters].reshape(-1))
    layer.add(operator, [data, values], layer.node.output[0])


def _view(layer: _Writer) -> None:
    layer.reshape(
        layer.node.input[0], layer.shapes[layer.node.output[0]], layer.node.output[0]
    )


def _shuffle(layer: _Writer) -> None:
    shape = [int(n) for n in layer.get("transpose_in_shape")]
    last = len(shape) - 1
    # An inner shuffle exchanges the last two axes.
    swapped = [*range(last - 1), last, last - 1]
    order = [int(n) for n in layer.get("perm", swapped)]
    split = layer.reshape(layer.node.input[0], shape)
    turned = layer.add("Transpose", [split], perm=order)
    layer.reshape(turned, layer.shapes[layer.node.output[0]], layer.node.output[0])


def _repeat(layer: _Writer) -> None:
    factors = [int(layer.get(f"{side}O")) / int(layer.get(f"{side}I")) for side in "HW"]
    scales = layer.constant([1, *map(round, factors), 1])
    layer.add(
        "Resize", [layer.node.input[0], "", scales], layer.node.output[0], mode="nearest"
    )


def _requantize(layer: _Writer) -> None:
    data, scale, bias = layer.node.input[:3]
    kind = parse_datatype(layer.get("outputDataType"), layer.node.name)
    if kind.low is None or kind.high is None:
        raise ValueError(kind.name)
    left_out = int(layer.get("narrow", 0))
    low, high = kind.low + left_out * kind.signed, kind.high - left_out * (not kind.signed)
    scaled = layer.add("Add", [layer.add("Mul", [data, scale]), bias])
    # Ties go up.
    codes = layer.add("Floor", [layer.add("Add", [scaled, layer.constant(0.5)])])
    ends = [layer.constant(low), layer.constant(high)]
    layer.add("Clip", [codes, *ends], layer.node.output[0])


def _two(operator: str) -> Callable[[_Writer], None]:
    def write(layer: _Writer) -> None:
        layer.add(operator, list(layer.node.input), layer.node.output[0])

    return write


_RULES: Mapping[str, Callable[[_Writer], None]] = {
    "AddStreams": _two("Add"),
    "ChannelwiseOp": _channelwise,
    "ConvolutionInputGenerator": _windows,
    "DuplicateStreams": _same,
    **{f"Elementwise{name}": _two(name) for name in ("Add", "Sub", "Mul", "Div", "Max")},
    "FMPadding": _padding,
    "GlobalAccPool": _global_sum,
    "LabelSelect": _select,
    "MVAU": _matrix_vector,
    "InnerShuffle": _shuffle,
    "OuterShuffle": _shuffle,
    "Pool": _pool,
    "Requant": _requantize,
    **dict.fromkeys(("Reshape", "Squeeze", "Unsqueeze"), _view),
    "Shuffle": _shuffle,
    "StreamingConcat": _concat,
    "StreamingDataWidthConverter": _same,
    "StreamingFIFO": _same,
    "StreamingSplit": _split,
    "Thresholding": lambda layer: layer.reach(
        layer.node.input[0], layer.node.input[1], layer.node.output[0]
    ),
    "UpsampleNearestNeighbour": _repeat,
    "VVAU": _vector_vector,
}
"""Layer -> what it computes."""


def names_places(op_type: str) -> bool:
    """Return whether an operator gives the places of the largest values."""
    return op_type == "TopK" or _RULES.get(_plain(op_type)) is _select


def moves_values(op_type: str) -> bool:
    """Return whether an operator only moves, repeats and pads what it reads."""
    rule = _RULES.get(_plain(op_type))
    return op_type in _MOVES or rule in (
        *(_same, _windows, _padding, _concat, _split, _view, _shuffle, _repeat),
    )


_MOVES = frozenset(
    {"Concat", "Flatten", "Identity", "Im2Col", "Pad", "Reshape", "Split", "Transpose"}
)


def _plain(op_type: str) -> str:
    """Return the name of a layer without what FINN adds for its way of writing it."""
    return re.sub(r"_(hls|rtl|Batch)$", "", op_type)


def is_hardware(node: NodeProto) -> bool:
    """Return whether a node is one of FINN's hardware layers."""
    return _HARDWARE.fullmatch(node.domain) is not None


def in_known_operators(model: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Return a model with other operators in the place of hardware, and what stays, by name.

    Args:
        model: A model as FINN keeps it; it is not changed.
    """
    done = onnx.ModelProto()
    done.CopyFrom(model)
    graph = done.graph
    arrays = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    held = set(arrays)
    makers = {name: node for node in graph.node for name in node.output}
    shapes = _shapes(graph)
    nodes: list[NodeProto] = []
    left = []
    for node in graph.node:
        if not is_hardware(node):
            nodes.append(node)
            continue
        writer = _Writer(node, arrays, shapes, makers)
        try:
            _RULES[_plain(node.op_type)](writer)
        except (KeyError, ValueError, IndexError, UsageError):
            # An attribute, a type or a shape is missing: what it computes is not known.
            left.append(f"{node.op_type} '{node.name}'")
            nodes.append(node)
            continue
        nodes += writer.nodes
    kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    new = [(name, array) for name, array in arrays.items() if name not in held]
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in new)
    known = {entry.domain for entry in done.opset_import}
    if _GENERAL not in known:
        done.opset_import.append(helper.make_opsetid(_GENERAL, 1))
    return done, tuple(left)


def _shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    values = (*graph.input, *graph.output, *graph.value_info)
    found = {
        value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
        for value in values
    }
    return found | {t.name: tuple(t.dims) for t in graph.initializer}
