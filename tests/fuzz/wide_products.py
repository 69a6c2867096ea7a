"""Steps of wide graphs that sum: products, windows, norms, recurrences; and quantizers."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.fuzz.wide_graphs import Rng, Step, Unfit, WideGraph, numbers

NORMS = (
    *("BatchNormalization", "InstanceNormalization", "LRN", "LayerNormalization"),
    *("GroupNormalization", "RMSNormalization", "MeanVarianceNormalization"),
)
CODES = ("int8", "uint8", "int16", "uint16")


def matmul(graph: WideGraph, rng: Rng) -> list[str]:
    """Take a MatMul or Gemm with all that it can say, the constant on either side."""
    x = graph.pick(rng)
    array = graph.arrays[x]
    if array.ndim == 0:
        raise Unfit("MatMul")
    width = int(rng.integers(1, 5))
    if array.ndim == 2 and rng.random() < 0.5:
        turn_a, turn_b = (int(rng.random() < 0.4) for _ in range(2))
        rows, deep = array.T.shape if turn_a else array.shape
        w = numbers(rng, (width, deep) if turn_b else (deep, width), array.dtype)
        sizes = [(width,), (rows, width), (1, width), (), (rows, 1)]
        bias = numbers(rng, sizes[int(rng.integers(5))], array.dtype)
        gains = {"alpha": 0.5, "beta": -2.0} if rng.random() < 0.3 else {}
        operands = [x, graph.operand(rng, w, "w"), graph.operand(rng, bias, "b")]
        if graph.opset >= 11 and rng.random() < 0.2:
            operands.pop()
        return graph.put("Gemm", operands, 1, transA=turn_a, transB=turn_b, **gains)
    lead = array.shape[:-2] if rng.random() < 0.4 else ()
    if rng.random() < 0.7 or array.ndim < 2:
        shape: tuple[int, ...] = (*lead, array.shape[-1], width)
        shape = shape[:-1] if not lead and rng.random() < 0.15 else shape
        return graph.put(
            "MatMul", [x, graph.operand(rng, numbers(rng, shape, array.dtype))], 1
        )
    w = graph.operand(rng, numbers(rng, (*lead, width, array.shape[-2]), array.dtype))
    return graph.put("MatMul", [w, x], 1)


def einsum(graph: WideGraph, rng: Rng) -> list[str]:
    """Take an Einsum of two operands."""
    x = graph.pick(rng)
    shape = graph.arrays[x].shape
    if graph.opset < 12 or len(shape) not in (2, 3):
        raise Unfit("Einsum")
    w = graph.operand(rng, numbers(rng, (shape[-1], 3), graph.arrays[x].dtype), "w")
    lead = "ab"[: len(shape) - 1]
    words = [f"{lead}k,kn->{lead}n", f"{lead}k,kn->n{lead}", f"{lead}k,kn->{lead}"]
    return graph.put("Einsum", [x, w], 1, equation=words[int(rng.integers(3))])


def _window(rng: Rng, sizes: tuple[int, ...], dilated: bool = True) -> dict[str, Any]:
    """Draw what a window over some sizes can say."""
    kernel = [int(rng.integers(1, min(n, 3) + 1)) for n in sizes]
    found: dict[str, Any] = {"kernel_shape": kernel}
    if rng.random() < 0.5:
        found["strides"] = [int(rng.integers(1, 3)) for _ in sizes]
    if dilated and rng.random() < 0.25:
        found["dilations"] = [int(rng.integers(1, 3)) for _ in sizes]
    # onnxruntime and onnx.reference leave dilations out of what "same" means.
    if rng.random() < 0.2 and "dilations" not in found:
        found["auto_pad"] = str(rng.choice(["SAME_UPPER", "SAME_LOWER", "VALID"]))
    elif rng.random() < 0.6:
        found["pads"] = [int(rng.integers(0, n)) for n in (*kernel, *kernel)]
    return found


def convolution(graph: WideGraph, rng: Rng) -> list[str]:
    """Take a Conv or ConvTranspose over one to three axes, with groups."""
    x = graph.pick(rng)
    array = graph.arrays[x]
    if array.ndim not in (3, 4, 5):
        raise Unfit("Conv")
    channels, sizes = array.shape[1], array.shape[2:]
    groups = channels if channels > 1 and rng.random() < 0.3 else 1
    if channels % 2 == 0 and rng.random() < 0.2:
        groups = 2
    more = _window(rng, sizes)
    kernel = more["kernel_shape"]
    width = groups * int(rng.integers(1, 3))
    if rng.random() < 0.75:
        name, shape = "Conv", (width, channels // groups, *kernel)
    else:
        name, shape = "ConvTranspose", (channels, width // groups, *kernel)
        strides = more.get("strides", [1] * len(sizes))
        if rng.random() < 0.3 and max(strides) > 1:
            more["output_padding"] = [int(rng.integers(0, s)) for s in strides]
    operands = [x, graph.operand(rng, numbers(rng, shape, array.dtype), "w")]
    if rng.random() < 0.5:
        operands.append(graph.operand(rng, numbers(rng, (width,), array.dtype), "b"))
    if rng.random() < 0.3:
        del more["kernel_shape"]
    return graph.put(name, operands, 1, group=groups, **more)


def pool(graph: WideGraph, rng: Rng) -> list[str]:
    """Take a pooling over one to three axes."""
    x = graph.pick(rng)
    array = graph.arrays[x]
    if array.ndim not in (3, 4, 5):
        raise Unfit("MaxPool")
    names = ("MaxPool", "MaxPool", "AveragePool", "AveragePool", "LpPool")
    if rng.random() < 0.2:
        name = str(rng.choice(["GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"]))
        return graph.put(name, [x], 1)
    name = str(rng.choice(names))
    dilated = graph.opset >= {"MaxPool": 10, "AveragePool": 19}.get(name, 18)
    more = _window(rng, array.shape[2:], dilated)
    if graph.opset >= {"MaxPool": 10, "AveragePool": 10}.get(name, 18) and rng.random() < 0.3:
        more["ceil_mode"] = 1
    if name == "AveragePool" and rng.random() < 0.5:
        more["count_include_pad"] = 1
    if name == "LpPool":
        more["p"] = int(rng.integers(1, 4))
    outputs = 2 if name == "MaxPool" and rng.random() < 0.2 else 1
    if outputs == 2 and rng.random() < 0.3:
        more["storage_order"] = 1
    return graph.put(name, [x], outputs, **more)


def norm(graph: WideGraph, rng: Rng) -> list[str]:
    """Take a normalization."""
    x = graph.pick(rng)
    array = graph.arrays[x]
    shape, kind = array.shape, array.dtype

    def drawn(*sizes: int) -> str:
        return graph.operand(rng, numbers(rng, sizes, kind), "p")

    name = str(rng.choice(NORMS))
    if not graph.has(name) or len(shape) < 2:
        raise Unfit(name)
    if name == "BatchNormalization":
        variance = graph.operand(
            rng, np.abs(numbers(rng, shape[1:2], kind)) + kind.type(1), "p"
        )
        operands = [x, *(drawn(shape[1]) for _ in range(3)), variance]
        return graph.put(name, operands, 1, epsilon=float(rng.choice([1e-5, 0.5])))
    if name == "InstanceNormalization":
        return graph.put(name, [x, drawn(shape[1]), drawn(shape[1])], 1, epsilon=0.01)
    if name == "LRN":
        size = int(rng.choice([1, 3, 5]))
        return graph.put(name, [x], 1, size=size, alpha=0.5, beta=0.75, bias=2.0)
    if name == "GroupNormalization":
        if len(shape) < 3 or graph.opset < 21:
            raise Unfit(name)
        groups = shape[1] if rng.random() < 0.5 else 1
        operands = [x, drawn(shape[1]), drawn(shape[1])]
        return graph.put(name, operands, 1, num_groups=groups)
    if name == "MeanVarianceNormalization":
        axes = {"axes": sorted(map(int, rng.permutation(len(shape))[:2]))}
        return graph.put(name, [x], 1, **(axes if rng.random() < 0.7 else {}))
    axis = int(rng.integers(-len(shape), len(shape)))
    sizes = shape[axis:] if rng.random() < 0.7 else shape[-1:]
    operands = [x, drawn(*sizes)]
    if name == "LayerNormalization" and rng.random() < 0.6:
        operands.append(drawn(*sizes))
    return graph.put(name, operands, 1, axis=axis, epsilon=0.01)


def recurrence(graph: WideGraph, rng: Rng) -> list[str]:
    """Take an RNN, GRU or LSTM."""
    x = graph.pick(rng, rank=3)
    array = graph.arrays[x]
    if array.dtype != np.float32:
        raise Unfit("LSTM")
    name, gates = [("RNN", 1), ("GRU", 3), ("LSTM", 4)][int(rng.integers(3))]
    hidden = int(rng.integers(1, 4))
    way = str(rng.choice(["forward", "reverse", "bidirectional"]))
    ways = 2 if way == "bidirectional" else 1

    def drawn(*sizes: int) -> str:
        return graph.operand(rng, numbers(rng, sizes) / np.float32(4), "r")

    operands = [
        x,
        drawn(ways, gates * hidden, array.shape[2]),
        drawn(ways, gates * hidden, hidden),
    ]
    if rng.random() < 0.6:
        operands.append(drawn(ways, 2 * gates * hidden))
    more: dict[str, Any] = {"hidden_size": hidden, "direction": way}
    if name == "GRU" and rng.random() < 0.5:
        more["linear_before_reset"] = 1
    return graph.put(name, operands, int(rng.integers(1, 3)), **more)


def resize(graph: WideGraph, rng: Rng) -> list[str]:
    """Take a Resize by sizes or scales."""
    x = graph.pick(rng)
    shape = graph.arrays[x].shape
    if len(shape) not in (3, 4) or graph.opset < 11:
        raise Unfit("Resize")
    mode = str(rng.choice(["nearest", "linear", "cubic"]))
    if mode == "cubic" and len(shape) != 4:
        raise Unfit("Resize")
    more: dict[str, Any] = {"mode": mode}
    words = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]
    more["coordinate_transformation_mode"] = str(rng.choice(words))
    if mode == "nearest":
        rules = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
        more["nearest_mode"] = str(rng.choice(rules))
    if mode == "cubic" and rng.random() < 0.5:
        more["cubic_coeff_a"] = -0.5
    if rng.random() < 0.5:
        sizes = [*shape[:2], *(int(rng.integers(1, 2 * n + 1)) for n in shape[2:])]
        ends = ["", "", graph.constant(np.array(sizes, dtype=np.int64), "i")]
    else:
        scales = [1.0, 1.0, *(float(rng.choice([0.5, 1.0, 2.0, 1.5])) for _ in shape[2:])]
        ends = ["", graph.constant(np.array(scales, dtype=np.float32), "s")]
    if graph.opset < 13:
        ends[0] = graph.constant(np.zeros(0, dtype=np.float32), "roi")
        if len(ends) == 3:
            ends[1] = graph.constant(np.zeros(0, dtype=np.float32), "s")
    return graph.put("Resize", [x, *ends], 1, **more)


def linear_quantizer(graph: WideGraph, rng: Rng) -> list[str]:
    """Take QuantizeLinear and mostly DequantizeLinear: per tensor, channel or block."""
    x = graph.pick(rng)
    array = graph.arrays[x]
    if array.dtype != np.float32 or graph.opset < 10:
        raise Unfit("QuantizeLinear")
    kind = np.dtype(str(rng.choice(CODES if graph.opset >= 21 else CODES[:2])))
    more: dict[str, Any] = {}
    shape: tuple[int, ...] = ()
    if graph.opset >= 13 and array.ndim and rng.random() < 0.4:
        axis = int(rng.integers(-array.ndim, array.ndim))
        more, shape = {"axis": axis}, (array.shape[axis],)
        if graph.opset >= 21 and array.shape[axis] % 2 == 0 and rng.random() < 0.5:
            sizes = list(array.shape)
            sizes[axis] //= 2
            more, shape = {"axis": axis, "block_size": 2}, tuple(sizes)
    scale = graph.constant((2.0 ** rng.integers(-4, 2, size=shape)).astype(np.float32), "s")
    if rng.random() < 0.4:
        name = graph.constant((rng.random(shape) * 0.3 + 0.01).astype(np.float32), "s")
        scale = name
    limits = np.iinfo(kind)
    low, high = (limits.min, limits.max + 1) if rng.random() < 0.5 else (0, 1)
    zero = graph.constant(rng.integers(low, high, size=shape).astype(kind), "z")
    (q,) = graph.put("QuantizeLinear", [x, scale, zero], 1, **more)
    if rng.random() < 0.1:
        return [q]
    return graph.put("DequantizeLinear", [q, scale, zero], 1, **more)


def integer_product(graph: WideGraph, rng: Rng) -> list[str]:
    """Take a product of codes: dynamic, integer, or with its scales."""
    x = graph.pick(rng)
    array = graph.arrays[x]
    if array.dtype != np.float32 or array.ndim not in (2, 4) or graph.opset < 11:
        raise Unfit("MatMulInteger")
    q, s, z = graph.put("DynamicQuantizeLinear", [x], 3)
    kind = np.dtype(str(rng.choice(["int8", "uint8"])))
    flat = array.ndim == 2
    shape = (array.shape[1], 3) if flat else (2, array.shape[1], 1, 1)
    w = graph.constant(rng.integers(0, 100, size=shape).astype(kind), "w")
    zero = graph.constant(np.asarray(rng.integers(0, 9), dtype=kind), "z")
    if rng.random() < 0.5:
        name = "MatMulInteger" if flat else "ConvInteger"
        (y,) = graph.put(name, [q, w, z, zero], 1)
        if rng.random() < 0.4:
            return [y]
        (y,) = graph.put("Cast", [y], 1, to=1)
        return graph.put("Mul", [y, s], 1)
    fine = graph.constant(np.float32(0.125), "s")
    wide = graph.constant(np.float32(rng.choice([8.0, 2.5])), "s")
    end = graph.constant(np.uint8(rng.integers(0, 200)), "z")
    if flat:
        (y,) = graph.put("QLinearMatMul", [q, s, z, w, fine, zero, wide, end], 1)
    else:
        (y,) = graph.put("QLinearConv", [q, s, z, w, fine, zero, wide, end], 1)
    return graph.put("DequantizeLinear", [y, wide, end], 1)


STEPS: dict[str, tuple[Step, float]] = {
    "matmul": (matmul, 1.2),
    "einsum": (einsum, 0.2),
    "convolution": (convolution, 2.0),
    "pool": (pool, 1.2),
    "norm": (norm, 1.0),
    "recurrence": (recurrence, 0.4),
    "resize": (resize, 0.5),
    "linear_quantizer": (linear_quantizer, 1.5),
    "integer_product": (integer_product, 0.5),
}
