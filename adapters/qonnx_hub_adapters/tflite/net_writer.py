"""A net as the bytes of a TFLite file."""

from __future__ import annotations

from typing import Any

import numpy as np

from qonnx_hub_adapters.tflite.container import Table
from qonnx_hub_adapters.tflite.container_writer import write_container
from qonnx_hub_adapters.tflite.net import NetTensor, Operation, TfliteNet
from qonnx_hub_adapters.tflite.operators import OPERATORS as ROWS
from qonnx_hub_adapters.tflite.schema import OPERATORS, OPTIONS, TYPES

_OLD_CODES = 127
"""Operator codes from here on only stand in the newer field."""


def write_net(net: TfliteNet) -> bytes:
    """Return a net as the bytes of a file that TFLite's interpreters load.

    Example:
        >>> read_net(write_net(net)).operations[0].name
        'CONV_2D'
    """
    buffers: list[Table] = [{}]
    tensors = [_tensor(t, net, i, buffers) for i, t in enumerate(net.tensors)]
    codes = sorted({(o.name, o.version) for o in net.operations})
    graph: Table = {
        "tensors": tensors,
        "inputs": np.array(net.inputs, dtype=np.int32),
        "outputs": np.array(net.outputs, dtype=np.int32),
        "operators": [_operator(o, codes.index((o.name, o.version))) for o in net.operations],
        "name": "main",
    }
    signature = {
        "inputs": _map(net.input_names, net.inputs),
        "outputs": _map(net.output_names, net.outputs),
        "signature_key": "serving_default",
    }
    return write_container(
        {
            "operator_codes": [
                {
                    "deprecated_builtin_code": min(OPERATORS.index(name), _OLD_CODES),
                    "builtin_code": OPERATORS.index(name),
                    "version": version,
                }
                for name, version in codes
            ],
            "subgraphs": [graph],
            "description": "made by qonnx-hub",
            "buffers": buffers,
            "signature_defs": [signature],
        }
    )


def _map(names: tuple[str, ...], tensors: tuple[int, ...]) -> list[Table]:
    return [{"name": n, "tensor_index": i} for n, i in zip(names, tensors, strict=True)]


def _operator(operation: Operation, code: int) -> Table:
    table = ROWS[operation.name].options
    found: Table = {
        "opcode_index": code,
        "inputs": np.array(operation.inputs, dtype=np.int32),
        "outputs": np.array(operation.outputs, dtype=np.int32),
        "intermediates": np.array(operation.intermediates, dtype=np.int32),
    }
    if table:
        found["builtin_options_type"] = OPTIONS.index(table)
        found["builtin_options"] = dict(operation.options)
    return found


def _tensor(tensor: NetTensor, net: TfliteNet, index: int, buffers: list[Table]) -> Table:
    # an empty buffer of its own: number 0 is for what has none
    number = 0
    if tensor.data is not None:
        number = len(buffers)
        buffers.append({"data": _bytes(tensor)})
    found: Table = {
        "shape": np.array(tensor.shape, dtype=np.int32),
        "type": TYPES.index(tensor.type),
        "buffer": number,
        "name": tensor.name,
        "is_variable": tensor.is_variable,
        "has_rank": True,
    }
    if tensor.signature != tensor.shape:
        found["shape_signature"] = np.array(tensor.signature, dtype=np.int32)
    if tensor.grid is not None:
        found["quantization"] = {
            "scale": tensor.grid.scale,
            "zero_point": tensor.grid.zero,
            "quantized_dimension": tensor.grid.axis,
        }
    return found


def _bytes(tensor: NetTensor) -> bytes:
    data: Any = tensor.data
    if tensor.type != "INT4":
        return bytes(np.ascontiguousarray(data).tobytes())
    flat = data.reshape(-1).astype(np.uint8) & 0x0F
    flat = np.append(flat, np.zeros(flat.size % 2, dtype=np.uint8))
    return bytes((flat[::2] | (flat[1::2] << 4)).tobytes())
