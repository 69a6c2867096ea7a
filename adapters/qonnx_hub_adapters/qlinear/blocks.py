"""Weights in blocks: MatMulNBits and GatherBlockQuantized as blocked DequantizeLinear.

Their integers of 2, 4 or 8 bits are packed into bytes, the first in the lowest bits, with a
scale, and a zero point or the middle of the range, for each block of ``block_size`` along one
axis. Unpacked they are what DequantizeLinear takes from opset 21 on (2 bits: 25).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir
from onnx_ir import Model, Node, Value

from qonnx_hub_adapters.qlinear.integer_nodes import IntegerNode
from qonnx_hub_adapters.qlinear.layouts import ORIGIN, note_origin
from qonnx_hub_ir import dialect
from qonnx_hub_ir.graph.builder import Emitter
from qonnx_hub_ir.graph.queries import input_of, is_standard, only_reader, producer, rank_of
from qonnx_hub_ir.lowering.onnxruntime_operators import DOMAIN as CONTRIB
from qonnx_hub_ir.quantizers import Array, IntQuant, is_whole, single_value
from qonnx_hub_ir.semantics import quantize_to_integers

NBITS, LOOKUP = "MatMulNBits", "GatherBlockQuantized"

_WEIGHT_AT = {NBITS: 1, LOOKUP: 0}
"""Operator -> position of its integers."""

_OPSET_OF_BITS = {2: 25, 4: 21, 8: 21}
"""Bits of blocked integers -> the first opset that has them."""


def needed_opset(model: Model) -> int:
    """Return the opset that blocked weights of a model need in standard operators, or 0."""
    bits = (
        int(node.attributes["bits"].as_int()) if "bits" in node.attributes else 4
        for node in model.graph.all_nodes()
        if node.domain == CONTRIB
        and node.op_type in _WEIGHT_AT
        and dialect.constant_tensor(input_of(node, _WEIGHT_AT[node.op_type])) is not None
    )
    return max((_OPSET_OF_BITS.get(number, 0) for number in bits), default=0)


def unpacked(packed: Array, bits: int, count: int) -> Array:
    """Return the integers of bytes along the last axis, the lowest bits first.

    >>> unpacked(np.array([0x21, 0x43], dtype=np.uint8), 4, 3).tolist()
    [1, 2, 3]
    """
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    parts = (packed[..., np.newaxis] >> shifts) & np.uint8((1 << bits) - 1)
    return np.asarray(parts.reshape(*packed.shape[:-1], -1)[..., :count])


def packed(codes: Array, bits: int) -> Array:
    """Return integers packed into bytes along the last axis; what is missing is 0.

    >>> packed(np.array([1, 2, 3]), 4).tolist()
    [33, 3]
    """
    per_byte = 8 // bits
    missing = -codes.shape[-1] % per_byte
    padded = np.pad(codes, [*[(0, 0)] * (codes.ndim - 1), (0, missing)]).astype(np.uint8)
    parts = padded.reshape(*codes.shape[:-1], -1, per_byte)
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return np.asarray(np.bitwise_or.reduce(parts << shifts, axis=-1))


def blocked_product(site: IntegerNode) -> bool:
    """Rewrite MatMulNBits with constant weights; others stay as they are.

    Returns:
        Whether it was rewritten.
    """
    attributes = site.attributes(
        *("K", "N", "accuracy_level", "bits", "block_size", "weight_prepacked")
    )
    columns, rows = int(attributes["K"]), int(attributes["N"])
    bits, size = int(attributes.get("bits", 4)), int(attributes["block_size"])
    count = -(-columns // size)
    codes, scale = (dialect.constant_value(site.input(index)) for index in (1, 2))
    given = site.input(3)
    zero = dialect.constant_value(given)
    is_packed = given is None or (zero is not None and zero.dtype == np.uint8)
    if codes is None or scale is None or not is_packed or site.input(4) is not None:
        return False
    if bits not in _OPSET_OF_BITS or attributes.get("weight_prepacked", 0):
        return False
    whole = unpacked(codes.reshape(rows, -1), bits, count * size)[:, :columns]
    if zero is None:
        zeros = np.full((rows, count), 1 << (bits - 1))
    else:
        zeros = unpacked(zero.reshape(rows, -1), bits, count)
    parameters = (scale.reshape(rows, count).T, zeros.T)
    weight = _dequantized(site, whole.T, bits, parameters, axis=0, block_size=size)
    values = site.emit.add("MatMul", [site.required(0), weight])
    bias = site.input(5)
    if bias is not None:
        values = site.emit.add("Add", [values, bias])
    note_origin(values, site.node)
    level = attributes.get("accuracy_level", 0)
    layer = values.producer()
    assert layer is not None, "a node was just made"
    layer.metadata_props[ORIGIN] = f"{NBITS} {size} {level}"
    site.emit.replace_with(values)
    return True


def blocked_lookup(site: IntegerNode) -> bool:
    """Rewrite GatherBlockQuantized with a constant table; others stay as they are.

    Returns:
        Whether it was rewritten.
    """
    attributes = site.attributes("bits", "block_size", "gather_axis", "quantize_axis")
    bits, size = int(attributes.get("bits", 4)), int(attributes.get("block_size", 128))
    codes, scale = (dialect.constant_value(site.input(index)) for index in (0, 2))
    given = site.input(3)
    zero = dialect.constant_value(given)
    if codes is None or scale is None or (given is not None and zero is None):
        return False
    if bits not in _OPSET_OF_BITS or scale.ndim != codes.ndim:
        return False
    axis = int(attributes.get("quantize_axis", 1)) % codes.ndim
    dtype = codes.dtype
    if dtype == np.uint8:
        # Bytes hold several integers of the last axis, and zero is in their middle.
        codes = unpacked(codes, bits, codes.shape[-1] * (8 // bits))
        middle = np.full(scale.shape, 1 << (bits - 1))
        zero = middle if zero is None else unpacked(zero, bits, scale.shape[-1])
        dtype = _type_of(bits)
    zeros = np.zeros(scale.shape, dtype=np.int8) if zero is None else zero
    table = _dequantized(
        site, codes, bits, (scale, zeros), axis=axis, block_size=size, to=dtype
    )
    found = site.emit.add(
        "Gather", [table, site.required(1)], axis=int(attributes.get("gather_axis", 0))
    )
    site.emit.replace_with(found)
    return True


def _type_of(bits: int) -> np.dtype[Any]:
    return np.dtype(onnx_ir.DataType[f"UINT{bits}"].numpy())


def _dequantized(
    site: IntegerNode,
    codes: Array,
    bits: int,
    parameters: tuple[Array, Array],
    *,
    axis: int,
    block_size: int,
    to: np.dtype[Any] | None = None,
) -> Value:
    """Return the values of constant integers in blocks."""
    dtype = to or _type_of(bits)
    scale, zero = (np.ascontiguousarray(values) for values in parameters)
    inputs = [
        site.emit.constant("integers", np.ascontiguousarray(codes).astype(dtype)),
        site.emit.constant("scale", scale),
        site.emit.constant("zero_point", zero.astype(dtype)),
    ]
    return site.emit.add("DequantizeLinear", inputs, axis=axis, block_size=block_size)


def restore_blocks(model: Model) -> None:
    """Write every unchanged product with blocked weights as MatMulNBits again.

    The size of its blocks is remembered; that its numbers fit into them is read.
    """
    for node in list(model.graph.all_nodes()):
        name, *numbers = node.metadata_props.get(ORIGIN, "").split(" ")
        if name != NBITS or len(numbers) != 2 or not all(n.isdecimal() for n in numbers):
            continue
        size, level = map(int, numbers)
        product, bias = _product_of(node)
        weight = None if product is None else _weight_of(product)
        blocks = None if weight is None else _blocks(weight, size)
        if product is None or blocks is None or weight is None:
            continue
        emit, bits = Emitter(node), int(single_value(weight[1].bits) or 0)
        columns, rows = weight[0].shape
        codes, scale, zero = blocks
        inputs: list[Value | None] = [
            product.inputs[0],
            emit.constant("integers", packed(codes, bits)),
            emit.constant("scales", scale.reshape(-1)),
            emit.constant("zero_points", packed(zero, bits).reshape(-1)),
            *([] if bias is None else [None, bias]),
        ]
        attributes = {"K": columns, "N": rows, "bits": bits, "block_size": size}
        more = {"accuracy_level": level} if level else {}
        value = emit.add(NBITS, inputs, **attributes, **more)
        made = value.producer()
        assert made is not None, "a node was just made"
        made.domain, made.name = CONTRIB, node.name
        emit.replace_with(value)


def _product_of(end: Node) -> tuple[Node | None, Value | None]:
    """Return the MatMul and the bias of a node that ends a product."""
    if is_standard(end, "MatMul"):
        return end, None
    before, bias = producer(input_of(end, 0)), input_of(end, 1)
    is_sum = is_standard(end, "Add") and before is not None and is_standard(before, "MatMul")
    if (
        before is None
        or not is_sum
        or rank_of(bias) != 1
        or not only_reader(before.outputs[0])
    ):
        return None, None
    return before, bias


def _weight_of(product: Node) -> tuple[Array, IntQuant] | None:
    """Return the floats of a product's quantized weight (K, N), and its quantizer."""
    node = producer(product.inputs[1])
    if node is None or not dialect.is_quantizer(node):
        return None
    values, quant = dialect.constant_value(node.inputs[0]), dialect.read_quantizer(node)
    if values is None or values.ndim != 2 or not isinstance(quant, IntQuant):
        return None
    bits, zero = single_value(quant.bits), quant.zero_point
    if bits not in _OPSET_OF_BITS or zero is None or quant.scale is None:
        return None
    is_own_code = is_whole(zero) and zero.min() >= 0 and zero.max() < 2**bits
    is_full = not quant.signed and not quant.narrow
    return (values, quant) if is_full and is_own_code else None


def _blocks(weight: tuple[Array, IntQuant], size: int) -> tuple[Array, Array, Array] | None:
    """Return codes (N, blocks, size), scales and zero points (N, blocks), if they fit."""
    values, quant = weight
    columns, count = len(values), -(-len(values) // size)
    found = []
    for parameter in (quant.scale, quant.zero_point):
        full = np.broadcast_to(np.asarray(parameter, dtype=np.float32), values.shape)
        firsts = full[::size]
        if not np.array_equal(np.repeat(firsts, size, axis=0)[:columns], full):
            return None
        found.append(firsts.T)
    codes = quantize_to_integers(values, quant).T
    padded = np.pad(codes, [(0, 0), (0, count * size - columns)])
    scale, zero = found
    return padded.reshape(len(codes), count, size), scale, zero.astype(np.int64)
