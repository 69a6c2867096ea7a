"""Random nets of one operator, in every type that its kernels take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qonnx_hub_adapters.tflite.kernels.windows import padding
from qonnx_hub_adapters.tflite.net import CODE_TYPES, DTYPES, CodeGrid, TfliteNet
from qonnx_hub_adapters.tflite.net_builder import NetBuilder, one_grid

ALL, BYTES, SIGNED = ("INT8", "UINT8", "INT16"), ("INT8", "UINT8"), ("INT8", "INT16")


class Case:
    """One random operation under construction."""

    def __init__(self, type_: str, seed: list[int]) -> None:
        self.type, self.rng, self.net = type_, np.random.default_rng(seed), NetBuilder()
        self.inputs: list[int] = []
        self.is_wide = type_ == "INT16"
        sizes = self.rng.integers((3, 3, 1), (8, 8, 5))
        self.shape = (1, *(int(n) for n in sizes))

    def scale(self) -> float:
        size = float(np.float32(np.exp(self.rng.uniform(np.log(0.002), np.log(0.1)))))
        return size / 200 if self.is_wide else size

    def zero(self, type_: str | None = None) -> int:
        low, high = CODE_TYPES[type_ or self.type]
        return 0 if self.is_wide else int(self.rng.integers(low, high + 1))

    def grid(self) -> CodeGrid:
        return one_grid(self.scale(), self.zero())

    def given(self, shape: Any = None, grid: CodeGrid | None = None) -> int:
        name = f"x{len(self.inputs)}"
        tensor = self.net.tensor(name, self.type, shape or self.shape, grid or self.grid())
        self.inputs.append(tensor)
        return tensor

    def made(self, name: str, given: Any, shape: Any, grid: Any, **options: Any) -> None:
        out = self.net.tensor("y", self.type, shape, grid)
        self.net.operate(name, given, (out,), **options)

    def activation(self) -> int:
        return int(self.rng.integers(4))

    def finished(self) -> tuple[TfliteNet, list[np.ndarray[Any, Any]]]:
        named = [(i, f"x{n}") for n, i in enumerate(self.inputs)]
        net = self.net.net(named, [(self.net.operations[-1].outputs[0], "y")])
        low, high = CODE_TYPES[self.type]
        shapes = (net.tensors[i].shape for i in self.inputs)
        codes = (self.rng.integers(low, high + 1, s).astype(DTYPES[self.type]) for s in shapes)
        return net, list(codes)


def pair(case: Case, name: str) -> None:
    other = case.shape if case.rng.random() < 0.6 else (1, 1, 1, case.shape[3])
    same = case.grid() if name in ("MAXIMUM", "MINIMUM") else None
    given = (case.given(grid=same), case.given(other, same))
    options = {} if same else {"fused_activation_function": case.activation()}
    case.made(name, given, case.shape, same or case.grid(), **options)


def weights(
    case: Case, shape: Any, axis: int, bits4: bool, data: int
) -> tuple[int, int, float]:
    """Return weights, bias and the scale of the sums."""
    type_ = "INT4" if bits4 else "UINT8" if case.type == "UINT8" else "INT8"
    count = shape[axis] if type_ != "UINT8" and case.rng.random() < 0.7 else 1
    scale = np.array([case.scale() for _ in range(count)], dtype=np.float32)
    zero = np.full(count, case.rng.integers(256) if type_ == "UINT8" else 0, dtype=np.int64)
    low, high = CODE_TYPES[type_]
    codes = case.rng.integers(low + (type_ != "UINT8"), high + 1, shape).astype(DTYPES[type_])
    tensor = case.net.tensor("w", type_, shape, CodeGrid(scale, zero, axis), codes)
    step = (np.float32(case.net.tensors[data].scale) * scale).astype(np.float32)
    kind = "INT64" if case.is_wide else "INT32"
    numbers = case.rng.integers(-3000, 3000, shape[axis]).astype(DTYPES[kind])
    grid = CodeGrid(step, np.zeros(count, dtype=np.int64))
    bias = case.net.tensor("b", kind, (shape[axis],), grid, numbers)
    spread = float(step.mean()) * np.sqrt(codes.size / shape[axis]) * case.rng.uniform(20, 80)
    return tensor, bias, spread


def conv(case: Case, name: str) -> None:
    bits4, kind = name.endswith("/4"), name.removesuffix("/4")
    window, outputs, many = (int(n) for n in case.rng.integers((1, 1, 1), (4, 6, 3)))
    data, channels = case.given(), case.shape[3]
    is_depthwise = kind == "DEPTHWISE_CONV_2D"
    shape = (
        (1, window, window, channels * many)
        if is_depthwise
        else (outputs, window, window, channels)
    )
    axis = 3 if is_depthwise else 0
    tensor, bias, spread = weights(case, shape, axis, bits4, data)
    stride, pads = int(case.rng.integers(1, 3)), int(case.rng.integers(2))
    sizes = [padding(pads, case.shape[1 + i], window, stride)[0] for i in (0, 1)]
    options = {"padding": pads, "stride_h": stride, "stride_w": stride}
    options["fused_activation_function"] = case.activation()
    if is_depthwise:
        options["depth_multiplier"] = many
    made = (1, *sizes, shape[axis])
    case.made(kind, (data, tensor, bias), made, one_grid(spread, case.zero()), **options)


def transposed(case: Case, name: str) -> None:
    window, outputs, stride = (int(n) for n in case.rng.integers((1, 1, 1), (4, 6, 3)))
    data, pads = case.given(), int(case.rng.integers(2))
    shape = (outputs, window, window, case.shape[3])
    tensor, bias, spread = weights(case, shape, 0, False, data)
    sizes = [n * stride if pads == 0 else (n - 1) * stride + window for n in case.shape[1:3]]
    made = (1, *sizes, outputs)
    given = (case.net.constant(list(made)), tensor, data, bias)
    options = {"padding": pads, "stride_h": stride, "stride_w": stride}
    case.made(name, given, made, one_grid(spread, case.zero()), **options)


def connected(case: Case, name: str) -> None:
    bits4, width = name.endswith("/4"), case.shape[1] * 3
    data, outputs = case.given((2, width)), int(case.rng.integers(1, 6))
    tensor, bias, spread = weights(case, (outputs, width), 0, bits4, data)
    kind, fused = name.removesuffix("/4"), case.activation()
    grid = one_grid(spread, case.zero())
    case.made(kind, (data, tensor, bias), (2, outputs), grid, fused_activation_function=fused)


def pool(case: Case, name: str) -> None:
    grid, window = case.grid(), int(case.rng.integers(1, 4))
    stride, pads = int(case.rng.integers(1, 3)), int(case.rng.integers(2))
    sizes = [padding(pads, case.shape[1 + i], window, stride)[0] for i in (0, 1)]
    options = {"padding": pads, "stride_h": stride, "stride_w": stride}
    options |= {"filter_height": window, "filter_width": window}
    options["fused_activation_function"] = case.activation()
    case.made(name, (case.given(grid=grid),), (1, *sizes, case.shape[3]), grid, **options)


def reduction(case: Case, name: str) -> None:
    grid = case.grid()
    axes = sorted(case.rng.choice(4, int(case.rng.integers(1, 4)), replace=False).tolist())
    keeps = bool(case.rng.integers(2))
    shape = [1 if i in axes else n for i, n in enumerate(case.shape) if keeps or i not in axes]
    given = (case.given(grid=grid), case.net.constant(axes))
    case.made(name, given, shape, case.grid() if name == "MEAN" else grid, keep_dims=keeps)


def curve(case: Case, name: str) -> None:
    low, step = CODE_TYPES[case.type][0], 1 / 32768 if case.is_wide else 1 / 256
    fixed = one_grid(step, 0 if case.is_wide else low)
    if name == "TANH" and not case.is_wide:
        fixed = one_grid(1 / 128, 0 if low else 128)
    shape, options = case.shape, {}
    if name == "SOFTMAX":
        shape, options = (2, int(case.rng.integers(2, 12))), {"beta": 1.0}
    case.made(name, (case.given(shape),), shape, fixed, **options)


def function(case: Case, name: str) -> None:
    options = (
        {"alpha": float(np.float32(case.rng.uniform(-1, 1)))} if name == "LEAKY_RELU" else {}
    )
    case.made(name, (case.given(),), case.shape, case.grid(), **options)


def slopes(case: Case, name: str) -> None:
    given = (case.given(), case.given((1, 1, case.shape[3])))
    case.made(name, given, case.shape, case.grid())


def product(case: Case, name: str) -> None:
    turned = bool(case.rng.integers(2))
    given = (case.given((2, 3, 5)), case.given((2, 4, 5) if turned else (2, 5, 4)))
    scales = [float(case.net.tensors[i].scale) for i in given]
    spread = scales[0] * scales[1] * case.rng.uniform(50, 400) * (100 if case.is_wide else 1)
    case.made(name, given, (2, 3, 4), one_grid(spread, case.zero()), adj_y=turned)


def resized(case: Case, name: str) -> None:
    grid, kind = case.grid(), int(case.rng.integers(3))
    sizes = [int(n) for n in case.rng.integers(1, 15, 2)]
    given = (case.given(grid=grid), case.net.constant(sizes))
    options = {"align_corners": kind == 1, "half_pixel_centers": kind == 2}
    case.made(name, given, (1, *sizes, case.shape[3]), grid, **options)


def joined(case: Case, name: str) -> None:
    grid = case.grid()
    other = case.grid() if case.type == "UINT8" else grid
    given = (case.given(grid=grid), case.given(grid=other))
    case.made(name, given, (*case.shape[:3], 2 * case.shape[3]), grid, axis=3)


def padded(case: Case, name: str) -> None:
    grid, wide = case.grid(), case.rng.integers(0, 3, (4, 2))
    shape = [n + a + b for n, (a, b) in zip(case.shape, wide.tolist(), strict=True)]
    case.made(name, (case.given(grid=grid), case.net.constant(wide)), shape, grid)


OPERATORS: tuple[tuple[Callable[[Case, str], None], str, tuple[str, ...]], ...] = (
    (pair, "ADD SUB MUL MAXIMUM MINIMUM", ALL),
    (conv, "CONV_2D DEPTHWISE_CONV_2D", ALL),
    (conv, "CONV_2D/4 DEPTHWISE_CONV_2D/4", ("INT8",)),
    (connected, "FULLY_CONNECTED", ALL),
    (connected, "FULLY_CONNECTED/4", ("INT8",)),
    (transposed, "TRANSPOSE_CONV", ALL),
    (product, "BATCH_MATMUL", SIGNED),
    (pool, "AVERAGE_POOL_2D MAX_POOL_2D", ALL),
    (reduction, "MEAN REDUCE_MAX REDUCE_MIN", ALL),
    (curve, "LOGISTIC TANH SOFTMAX", ALL),
    (function, "QUANTIZE RELU RELU6 LEAKY_RELU", ALL),
    (function, "HARD_SWISH", BYTES),
    (slopes, "PRELU", BYTES),
    (resized, "RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR", ALL),
    (joined, "CONCATENATION", ALL),
    (padded, "PAD", ALL),
)

TRIED = [
    (write, name, type_)
    for write, names, types in OPERATORS
    for name in names.split()
    for type_ in types
]
