"""A file as a net: everything that a kernel relies on is checked here, once."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from qonnx_hub_adapters.tflite.container import Table, read_container
from qonnx_hub_adapters.tflite.net import (
    CODE_TYPES,
    DTYPES,
    CodeGrid,
    NetTensor,
    Operation,
    TfliteNet,
)
from qonnx_hub_adapters.tflite.operators import OPERATORS as ROWS
from qonnx_hub_adapters.tflite.reference_rules import MOST_ELEMENTS, require_call
from qonnx_hub_adapters.tflite.schema import OPERATORS, TYPES, fields_of
from qonnx_hub_ir.errors import SourceError
from qonnx_hub_ir.limits import require_memory, require_nodes
from qonnx_hub_ir.quantizers import Array

_HIGHEST_RANK = 8


def read_file(path: str | Path) -> TfliteNet:
    """Return the net in a file.

    Raises:
        SourceError: It cannot be read, is damaged, or holds what no kernel here computes; the
            message names operator and tensor.

    Example:
        >>> read_file("kws.tflite").operations[0].name
        'RESHAPE'
    """
    try:
        require_memory(Path(path).stat().st_size, f"'{path}'")
        data = Path(path).read_bytes()
    except OSError as error:
        raise SourceError(f"'{path}' cannot be read: {error.strerror}") from error
    try:
        net = read_net(data)
    except SourceError as error:
        raise SourceError(f"'{path}': {error}") from error
    require_nodes(len(net.operations), f"'{path}' has")
    return net


def read_net(data: bytes) -> TfliteNet:
    """Return the net in the bytes of a file; errors as in :func:`read_file`."""
    model = read_container(data)
    if not model["subgraphs"]:
        raise SourceError("the file holds no graph")
    graph = model["subgraphs"][0]
    kinds = [_operator_name(model["operator_codes"], o) for o in graph["operators"]]
    for index, (name, record) in enumerate(zip(kinds, graph["operators"], strict=True)):
        _require_known(name, record, graph, index)
    buffers = model["buffers"]
    tensors = tuple(
        _tensor(record, index, buffers, data) for index, record in enumerate(graph["tensors"])
    )
    count = len(tensors)
    codes = model["operator_codes"]
    operations = tuple(
        _operation(name, record, codes, count, index)
        for index, (name, record) in enumerate(zip(kinds, graph["operators"], strict=True))
    )
    inputs = _indices(graph["inputs"], count, "the graph's inputs")
    outputs = _indices(graph["outputs"], count, "the graph's outputs")
    if not outputs:
        raise SourceError("the graph has no outputs")
    names = _unique([tensors[i].name for i in (*inputs, *outputs)])
    given, made = names[: len(inputs)], names[len(inputs) :]
    net = TfliteNet(tensors, operations, inputs, outputs, given, made)
    _require_order(net)
    for operation in net.operations:
        require_call(net.call(operation))
    return net


def _operator_name(codes: list[Table], record: Table) -> str:
    index = record["opcode_index"]
    if index >= len(codes):
        raise SourceError(f"the file is damaged: operator code {index} of {len(codes)}")
    code = codes[index]
    number = max(code["deprecated_builtin_code"], code["builtin_code"])
    if not 0 <= number < len(OPERATORS) or OPERATORS[number] == "-":
        raise SourceError(f"operator {number} is not known")
    name = OPERATORS[number]
    return f"CUSTOM:{code['custom_code']}" if name == "CUSTOM" else name


def _require_known(name: str, record: Table, graph: Table, index: int) -> None:
    if name in ROWS:
        return
    made = [int(i) for i in record["outputs"] if 0 <= i < len(graph["tensors"])]
    tensor = graph["tensors"][made[0]]["name"] if made else ""
    tensor, name = (ascii(text)[1:-1] for text in (tensor, name))
    what = f"custom operator {name[7:]}" if name.startswith("CUSTOM:") else f"operator {name}"
    raise SourceError(f"{what} (tensor '{tensor}', operation {index}) is not read")


def _operation(
    name: str, record: Table, codes: list[Table], tensors: int, index: int
) -> Operation:
    row, where = ROWS[name], f"operation {index}, {name}"
    version = codes[record["opcode_index"]]["version"]
    if not 1 <= version <= row.version:
        raise SourceError(
            f"{where}: version {version} is not known, {row.version} is the newest"
        )
    inputs = _indices(record["inputs"], tensors, where, optional=True)
    outputs = _indices(record["outputs"], tensors, where)
    least, most = row.inputs
    if name != "UNIDIRECTIONAL_SEQUENCE_LSTM" and -1 in inputs[:least]:
        raise SourceError(f"{where}: input {inputs.index(-1)} is left out")
    if not least <= len(inputs) <= most or not outputs:
        raise SourceError(f"{where}: has {len(inputs)} inputs and {len(outputs)} outputs")
    options = (
        record["builtin_options"] if isinstance(record["builtin_options"], dict) else None
    )
    defaults = {
        f.name: f.default for f in fields_of(f"{row.options}Options") or () if not f.is_vector
    }
    found = defaults | (options or {})
    if options is None and row.options == "Softmax":
        found["beta"] = 1.0
    inner = _indices(record["intermediates"], tensors, where, optional=True)
    return Operation(name, version, inputs, outputs, found, inner)


def _indices(
    given: Array, count: int, where: str, *, optional: bool = False
) -> tuple[int, ...]:
    found = tuple(int(i) for i in given)
    least = -1 if optional else 0
    for index in found:
        if not least <= index < count:
            raise SourceError(f"{where}: tensor {index} of {count}")
    return found


def _tensor(record: Table, index: int, buffers: list[Table], data: bytes) -> NetTensor:
    name = "".join(c if c.isprintable() else "_" for c in record["name"] or "")
    name = name or f"tensor_{index}"
    where = f"tensor '{name}'"
    number = record["type"]
    type_ = TYPES[number] if 0 <= number < len(TYPES) else str(number)
    if type_ not in DTYPES:
        raise SourceError(f"{where}: type {type_} is not read")
    if record["sparsity"] is not None:
        raise SourceError(f"{where}: sparse tensors are not read")
    if record["external_buffer"]:
        raise SourceError(f"{where}: its numbers lie in another file")
    shape = tuple(int(n) for n in record["shape"])
    if any(n < 0 for n in shape) or len(shape) > _HIGHEST_RANK:
        raise SourceError(f"{where}: shape {list(shape)}")
    elements = math.prod(max(n, 1) for n in shape)
    if elements > MOST_ELEMENTS:
        raise SourceError(f"{where}: {elements} elements, {MOST_ELEMENTS} are the most")
    signature = tuple(int(n) for n in record["shape_signature"])
    is_open = len(signature) == len(shape) and any(n < 0 for n in signature)
    raw = _bytes(record["buffer"], buffers, data, where)
    numbers = None if raw is None else _numbers(raw, type_, shape, where)
    grid = _grid(record["quantization"], type_, shape, where)
    return NetTensor(
        name,
        type_,
        shape,
        signature if is_open else shape,
        grid,
        numbers,
        bool(record["is_variable"]),
    )


def _bytes(index: int, buffers: list[Table], data: bytes, where: str) -> bytes | None:
    """Return the bytes of a buffer, inside the flatbuffer or behind it; ``None`` for none."""
    if index >= len(buffers):
        raise SourceError(f"{where}: buffer {index} of {len(buffers)}")
    buffer = buffers[index]
    if buffer["offset"] > 1:
        end = buffer["offset"] + buffer["size"]
        if end > len(data):
            raise SourceError(f"{where}: its buffer reaches behind the end of the file")
        return data[buffer["offset"] : end]
    raw: bytes = buffer["data"]
    return raw or None


def _numbers(raw: bytes, type_: str, shape: tuple[int, ...], where: str) -> Array:
    dtype, elements = DTYPES[type_], math.prod(shape)
    needed = -(-elements // 2) if type_ == "INT4" else elements * dtype.itemsize
    if len(raw) != needed:
        raise SourceError(f"{where}: {len(raw)} bytes, its shape {list(shape)} takes {needed}")
    if type_ != "INT4":
        return np.frombuffer(raw, dtype=dtype.newbyteorder("<")).astype(dtype).reshape(shape)
    both = np.frombuffer(raw, dtype=np.int8)
    halves = np.stack([np.left_shift(both, 4) >> 4, both >> 4], axis=1).astype(np.int8)
    return halves.reshape(-1)[:elements].reshape(shape)


def _grid(
    record: Table | None, type_: str, shape: tuple[int, ...], where: str
) -> CodeGrid | None:
    if record is None or type_ not in CODE_TYPES:
        return None
    if record["details_type"]:
        raise SourceError(f"{where}: custom and block-wise quantization are not read")
    scale, zero = record["scale"].astype(np.float32), record["zero_point"].astype(np.int64)
    if not scale.size:
        return None
    if not (np.isfinite(scale) & (scale > 0)).all():
        raise SourceError(f"{where}: a scale is not a positive number")
    zero = np.zeros(scale.size, dtype=np.int64) if not zero.size else zero
    low, high = CODE_TYPES[type_]
    if (zero < low).any() or (zero > high).any():
        raise SourceError(f"{where}: a zero point does not fit {type_}")
    axis = record["quantized_dimension"]
    if scale.size > 1:
        # biases of older converters name the axis of their weights
        axis = 0 if len(shape) == 1 else axis
        if not 0 <= axis < len(shape) or shape[axis] != scale.size:
            raise SourceError(
                f"{where}: {scale.size} scales along axis {axis} of {list(shape)}"
            )
    if zero.size not in (1, scale.size):
        raise SourceError(f"{where}: {zero.size} zero points and {scale.size} scales")
    zero = np.broadcast_to(zero, scale.shape).copy()
    return CodeGrid(scale, zero, int(axis) if scale.size > 1 else 0)


def _unique(names: list[str]) -> tuple[str, ...]:
    found: list[str] = []
    for index, name in enumerate(names):
        own = name
        while own in found:
            own = f"{own}_{index}"
        found.append(own)
    return tuple(found)


def _require_order(net: TfliteNet) -> None:
    """Refuse nets that read what nobody made yet, or make something twice."""
    known = {i for i, t in enumerate(net.tensors) if t.data is not None or t.is_variable}
    known |= {*net.inputs}
    for index, operation in enumerate(net.operations):
        where = f"operation {index}, {operation.name}"
        for i in operation.inputs:
            if i >= 0 and i not in known:
                raise SourceError(
                    f"{where}: reads '{net.tensors[i].name}', which is not made yet"
                )
        for i in operation.outputs:
            if i in known:
                raise SourceError(
                    f"{where}: makes '{net.tensors[i].name}', which is there already"
                )
            known.add(i)
    for i in net.outputs:
        if i not in known:
            raise SourceError(f"output '{net.tensors[i].name}' is made by nothing")
