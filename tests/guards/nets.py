"""Nets of one node that the node suite does not have: quantizers, onnxruntime's, odd axes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

QONNX = "qonnx.custom_op.general"
LAST = "qonnx.custom_op.channels_last"
MICROSOFT = "com.microsoft"

Net = tuple[str, onnx.ModelProto, dict[str, np.ndarray]]


def net(
    op_type: str,
    feeds: Mapping[str, np.ndarray],
    constants: Mapping[str, np.ndarray] | None = None,
    *,
    inputs: list[str] | None = None,
    outputs: int = 1,
    kind: np.dtype[Any] | type = np.float32,
    domain: str = "",
    opset: int = 21,
    label: str = "",
    **attributes: Any,
) -> Net:
    """Return a net of one node; ``inputs`` names its inputs where the order is another."""
    constants = constants or {}
    names = inputs if inputs is not None else [*feeds, *constants]
    made = [f"y{k}" for k in range(outputs)]
    node = helper.make_node(op_type, names, made, "node", domain=domain, **attributes)
    kinds = {name: helper.np_dtype_to_tensor_dtype(x.dtype) for name, x in feeds.items()}
    rest = TensorProto.INT64 if op_type == "MaxPool" else TensorProto.FLOAT
    ends = [helper.np_dtype_to_tensor_dtype(np.dtype(kind)), rest, rest]
    graph = helper.make_graph(
        [node],
        "graph",
        [helper.make_tensor_value_info(n, kinds[n], x.shape) for n, x in feeds.items()],
        [helper.make_tensor_value_info(n, e, None) for n, e in zip(made, ends, strict=False)],
        [numpy_helper.from_array(x, name) for name, x in constants.items()],
    )
    imports = [helper.make_opsetid("", opset)]
    imports += [helper.make_opsetid(d, 1) for d in (QONNX, LAST, MICROSOFT) if d == domain]
    proto = helper.make_model(graph, opset_imports=imports, ir_version=10)
    words = ",".join(f"{k}={v}" for k, v in attributes.items())
    return f"{label or op_type}[{words}]", proto, dict(feeds)


def f32(*values: Any) -> np.ndarray:
    return np.array(values[0] if len(values) == 1 else values, dtype=np.float32)


def i64(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def floats(*shape: int) -> np.ndarray:
    return (np.random.default_rng(7).normal(size=shape) * 3).astype(np.float32)


def codes(*shape: int, dtype: Any = np.uint8) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 120, shape).astype(dtype)


def hand_made() -> Iterator[Net]:
    yield from _pads()
    yield from _resizes()
    yield from _moves()
    yield from _pools_and_norms()
    yield from _quantizers()
    yield from _of_onnxruntime()


def _pads() -> Iterator[Net]:
    x = floats(2, 3, 4)
    for place in range(6):
        for amount in (1, -1):
            pads = np.zeros(6, dtype=np.int64)
            pads[place] = amount
            for mode in ("constant", "edge", "reflect", "wrap"):
                label = f"Pad{pads.tolist()}"
                yield net("Pad", {"x": x}, {"pads": pads}, mode=mode, label=label)
    for axis in (0, 1, -3):
        given = {"pads": i64(0, 1), "v": f32(2.0), "axes": i64(axis)}
        yield net("Pad", {"x": x}, given, label=f"Pad axes {axis}")


def _resizes() -> Iterator[Net]:
    x = floats(2, 3, 4)
    for scales in ([2, 1, 1], [0.5, 1, 1], [1, 2, 1], [1, 1, 1.5], [1, 1, 1]):
        for mode in ("nearest", "linear", "cubic"):
            given = {"s": f32(scales)}
            label, names = f"Resize{scales}", ["x", "", "s"]
            yield net("Resize", {"x": x}, given, inputs=names, mode=mode, label=label)
    for sizes in ((4, 3, 4), (2, 3, 8)):
        names = ["x", "", "", "n"]
        label = f"Resize to {sizes}"
        yield net(
            "Resize", {"x": x}, {"n": i64(*sizes)}, inputs=names, mode="linear", label=label
        )
    for axes in ([0], [1, 0, 2], [2]):
        given = {"s": f32([1.0, 2.0, 1.0][: len(axes)] if len(axes) > 1 else [2.0])}
        yield net("Resize", {"x": x}, given, inputs=["x", "", "s"], mode="linear", axes=axes)
    crop = {"r": f32([0.5, 0, 0, 1, 1, 1]), "s": f32([1, 1, 2])}
    mode = "tf_crop_and_resize"
    yield net("Resize", {"x": x}, crop, coordinate_transformation_mode=mode, mode="linear")


def _moves() -> Iterator[Net]:
    x = floats(2, 3, 4)
    for axis in (-3, -1, 0, 1, 2):
        yield net("Split", {"x": x}, outputs=2, axis=axis, num_outputs=2)
        yield net("Concat", {"x": x, "z": -x}, axis=axis)
        yield net("Gather", {"x": x}, {"i": i64(1, 0)}, axis=axis)
        yield net("Softmax", {"x": x}, axis=axis)
        yield net("LayerNormalization", {"x": x}, {"g": f32(2.0)}, axis=axis)
        for keep in (0, 1):
            yield net("ReduceSum", {"x": x}, {"a": i64(axis)}, keepdims=keep)
            yield net("ReduceMean", {"x": x}, {"a": i64(axis)}, keepdims=keep)
            yield net("ArgMax", {"x": x}, axis=axis, keepdims=keep, kind=np.int64)
        given = {"from": i64(1), "to": i64(2), "axes": i64(axis)}
        yield net("Slice", {"x": x}, given, label=f"Slice axis {axis}")
        yield net("Unsqueeze", {"x": x}, {"a": i64(axis)}, label=f"Unsqueeze {axis}")
        yield net("CumSum", {"x": x}, {"a": i64(axis)}, label=f"CumSum {axis}")
        yield net("Flatten", {"x": x}, axis=axis)
    for perm in ([0, 1, 2], [0, 2, 1], [1, 0, 2], [2, 1, 0], [1, 2, 0]):
        yield net("Transpose", {"x": x}, perm=perm)
    for shape in ((2, 12), (0, -1), (4, 6), (-1, 4), (12, 2), (2, 1, 12), (3, 2, 4)):
        label = f"Reshape{shape}"
        yield net("Reshape", {"x": x}, {"s": i64(*shape)}, label=label)
    for shape in ((2, 3, 4), (4, 2, 3, 4), (1, 1, 4)):
        yield net("Expand", {"x": x}, {"s": i64(*shape)}, label=f"Expand{shape}")
    for counts in ((2, 1, 1), (1, 2, 1)):
        yield net("Tile", {"x": x}, {"n": i64(*counts)}, label=f"Tile{counts}")
    yield net("Squeeze", {"x": floats(1, 3, 1)}, {"a": i64(0)}, label="Squeeze batch")
    yield net("Squeeze", {"x": floats(1, 3, 1)}, label="Squeeze all")
    for shape in ((2, 3, 4), (1, 3, 1), (3, 4), (2, 1, 1), (4,)):
        for op in ("Add", "Mul", "Max", "Sub", "PRelu"):
            yield net(op, {"x": x}, {"c": floats(*shape)}, label=f"{op} by {shape}")
    for shapes in (((2, 4), (4, 3)), ((2, 2, 4), (4, 3)), ((2, 2, 4), (2, 4, 3))):
        label = f"MatMul{shapes}"
        yield net("MatMul", {"x": floats(*shapes[0])}, {"w": floats(*shapes[1])}, label=label)
    yield net("MatMul", {"x": floats(4, 3)}, {"w": floats(2, 4)}, inputs=["w", "x"])
    for flags in ({}, {"transA": 1}, {"transB": 1}, {"alpha": -2.0}, {"beta": -2.0}):
        given = {"w": floats(3, 3), "b": floats(3)}
        yield net("Gemm", {"x": floats(3, 3)}, given, **flags)
    yield net("Gemm", {"x": floats(2, 3)}, {"w": floats(3, 3), "b": floats(2, 3)})


def _pools_and_norms() -> Iterator[Net]:
    x = floats(2, 3, 4, 4)
    for outputs in (1, 2):
        shape = {"kernel_shape": [2, 2], "strides": [2, 2]}
        yield net("MaxPool", {"x": x}, outputs=outputs, **shape)
    yield net("AveragePool", {"x": x}, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    four = {"g": f32(1, -2, 3), "b": f32(0, 1, 2), "m": f32(0, 1, 0), "v": f32(1, 2, 3)}
    yield net("BatchNormalization", {"x": x}, four)
    # While training, mean and variance are those of the batch.
    yield net("BatchNormalization", {"x": x}, four, training_mode=1, outputs=3)
    yield net("InstanceNormalization", {"x": x}, {"g": four["g"], "b": four["b"]})
    given = {"g": floats(2, 1, 1, 1), "b": floats(2, 1, 1, 1)}
    yield net("LayerNormalization", {"x": x}, given, axis=1, label="LayerNormalization by row")


def _quantizers() -> Iterator[Net]:
    x = floats(2, 3, 4)
    scales = {
        "one": f32(0.5),
        "channel": f32([[[0.5], [0.25], [1.0]]]),
        "row": floats(2, 1, 1) ** 2,
    }
    for name, scale in scales.items():
        for zero in (0.0, 3.0):
            for signed in (0, 1):
                given = {"s": scale, "z": f32(zero), "b": f32(4)}
                yield net(
                    "Quant",
                    {"x": x},
                    given,
                    domain=QONNX,
                    label=f"Quant {name} {zero}",
                    signed=signed,
                    narrow=0,
                    rounding_mode="ROUND",
                )
        yield net(
            "BipolarQuant", {"x": x}, {"s": scale}, domain=QONNX, label=f"Bipolar {name}"
        )
    given = {"s": f32(0.5), "z": f32(0), "i": f32(8), "o": f32(5)}
    for scale in (0.5, 0.1):
        given["s"] = f32(scale)
        yield net(
            "Trunc", {"x": x}, given, domain=QONNX, rounding_mode="FLOOR", label=f"{scale}"
        )
    steps = {"t": f32([[-1, 0, 2], [0, 1, 2], [-3, -2, -1]])}
    for low, high in ((1.0, 0.0), (-2.0, 3.0)):
        yield net(
            "MultiThreshold",
            {"x": x},
            steps,
            domain=QONNX,
            out_dtype="INT8",
            out_scale=low,
            out_bias=high,
        )
    for shape, axis in (((), 1), ((3,), 1), ((2,), 0), ((4,), -1), ((2,), -3)):
        scale = np.abs(floats(*shape)) + np.float32(0.1)
        zero = np.full(shape, 5, dtype=np.uint8)
        label = f"QuantizeLinear{shape}"
        given = {"s": scale, "z": zero}
        yield net("QuantizeLinear", {"x": x}, given, kind=np.uint8, axis=axis, label=label)
        label = f"DequantizeLinear{shape}"
        yield net("DequantizeLinear", {"x": codes(2, 3, 4)}, given, axis=axis, label=label)


def _of_onnxruntime() -> Iterator[Net]:
    a, b = codes(2, 3, 4), codes(2, 3, 4)[::-1].copy()
    point = {"s": f32(0.5), "z": np.array(3, dtype=np.uint8)}
    other = {"t": f32(0.25), "u": np.array(7, dtype=np.uint8)}
    names = ["a", "s", "z", "b", "t", "u", "s", "z"]
    for op in ("QLinearAdd", "QLinearMul"):
        feeds = {"a": a, "b": b}
        yield net(op, feeds, {**point, **other}, inputs=names, domain=MICROSOFT, kind=np.uint8)
    names = ["a", "s", "z", "t", "u"]
    for op, more in (
        ("QLinearSigmoid", {}),
        ("QLinearLeakyRelu", {"alpha": 0.1}),
        ("QLinearLeakyRelu", {"alpha": -0.5}),
        ("QLinearSoftmax", {"opset": 13, "axis": 1}),
        ("QLinearSoftmax", {"opset": 13, "axis": 0}),
        ("QLinearReduceMean", {"axes": [0], "keepdims": 1}),
        ("QLinearReduceMean", {"axes": [2], "keepdims": 0}),
    ):
        yield _contrib(op, {"a": a}, {**point, **other}, names, more)
    image = {"a": codes(2, 3, 4, 4)}
    yield _contrib("QLinearGlobalAveragePool", image, {**point, **other}, names, {})
    shape = {"kernel_shape": [2, 2], "strides": [2, 2]}
    yield _contrib("QLinearAveragePool", image, {**point, **other}, names, shape)
    names = ["t", "u", "a", "s", "z", "b", "s", "z"]
    for axis in (0, 1, -3):
        both = {"a": a, "b": b}
        yield _contrib("QLinearConcat", both, {**point, **other}, names, {"axis": axis})
    weight = {"w": codes(4, 5)}
    names = ["a", "s", "z", "w", "t", "u", "", "s", "z"]
    yield _contrib(
        "QGemm", {"a": codes(2, 4)}, {**point, **other, **weight}, names, {"transB": 0}
    )
    names = ["a", "w", "s", "t", "z", "u"]
    flat = {"a": codes(2, 4)}
    found = _contrib(
        "MatMulIntegerToFloat", flat, {**point, **other, **weight}, names, {}, np.float32
    )
    yield found


def _contrib(
    op: str,
    feeds: Mapping[str, np.ndarray],
    constants: Mapping[str, np.ndarray],
    names: list[str],
    attributes: Mapping[str, Any],
    kind: Any = np.uint8,
) -> Net:
    words = ",".join(f"{k}={v}" for k, v in attributes.items())
    label, proto, given = net(
        op, feeds, constants, inputs=names, kind=kind, domain=MICROSOFT, label=f"{op} {words}"
    )
    node = proto.graph.node[0]
    node.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
    return label, proto, given
