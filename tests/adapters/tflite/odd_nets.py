"""Random nets of one operator with rarely met settings: odd strides, axes and ranks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from qonnx_hub_adapters.tflite.kernels.windows import padding
from qonnx_hub_adapters.tflite.net import CODE_TYPES, DTYPES, CodeGrid, TfliteNet
from qonnx_hub_adapters.tflite.net_builder import one_grid
from tests.adapters.tflite.random_nets import ALL, BYTES, SIGNED, Case, weights


def whole_net(case: Case) -> tuple[TfliteNet, list[np.ndarray[Any, Any]]]:
    """Return a case as a net with all outputs of its operation, and what it is given."""
    named = [(i, f"x{n}") for n, i in enumerate(case.inputs)]
    outputs = case.net.operations[-1].outputs
    net = case.net.net(named, [(i, f"y{n}") for n, i in enumerate(outputs)])
    given = []
    for i in net.inputs:
        tensor = net.tensors[i]
        if tensor.dtype.kind == "f":
            size = 10.0 ** case.rng.uniform(-3, 3 if case.rng.random() < 0.8 else 12)
            values = case.rng.normal(size=tensor.shape) * size
            odd = case.rng.choice([np.nan, np.inf, -np.inf, 0.0], tensor.shape)
            values = np.where(case.rng.random(tensor.shape) < 0.02, odd, values)
            most = float(np.finfo(tensor.dtype).max) / 4
            halves = np.where(np.isinf(values), values, np.clip(values, -most, most))
            given.append(np.rint(halves * 2).astype(tensor.dtype) / tensor.dtype.type(2))
            continue
        low, high = CODE_TYPES.get(tensor.type, (0, 1))
        low, high = max(low, -(2**20)), min(high, 2**20)
        given.append(case.rng.integers(low, high + 1, tensor.shape).astype(tensor.dtype))
    return net, given


RETYPED = ("INT8", "UINT8", "INT16", "INT32", "INT64", "FLOAT32", "FLOAT16", "INT4", "BOOL")


def retype(case: Case) -> None:
    """Give one tensor of a case's operation another type."""
    operation = case.net.operations[-1]
    held = [i for i in (*operation.inputs, *operation.outputs) if i >= 0]
    index = int(case.rng.choice(held))
    tensor = case.net.tensors[index]
    type_ = str(case.rng.choice([one for one in RETYPED if one != tensor.type]))
    ends = CODE_TYPES.get(type_, (0, 1))
    data, grid = tensor.data, tensor.grid
    if data is not None:
        data = np.clip(data, *ends).astype(DTYPES[type_])
    if grid is not None:
        zero = np.clip(grid.zero, *ends)
        is_kept = type_ in CODE_TYPES and case.rng.random() < 0.7
        grid = CodeGrid(grid.scale, zero, grid.axis) if is_kept else None
    case.net.tensors[index] = replace(tensor, type=type_, data=data, grid=grid)


def shape_of_any_rank(case: Case, least: int = 1, most: int = 5) -> tuple[int, ...]:
    rank = int(case.rng.integers(least, most + 1))
    return tuple(int(n) for n in case.rng.integers(1, 5, rank))


def negative(case: Case, axis: int, rank: int) -> int:
    """Return an axis, counted from the end in half of the cases."""
    return axis - rank if case.rng.random() < 0.5 else axis


def steep(case: Case) -> CodeGrid:
    """Return a grid of any size, with zero points at the ends as well."""
    low, high = CODE_TYPES[case.type]
    size = float(np.float32(np.exp(case.rng.uniform(np.log(1e-5), np.log(30.0)))))
    zero = 0 if case.is_wide else int(case.rng.choice([low, high, 0, case.zero()]))
    return one_grid(size / (200 if case.is_wide else 1), max(zero, low))


def broadcast_pair(case: Case, name: str) -> None:
    shape = shape_of_any_rank(case, 1, 4)
    sides = [[n if case.rng.random() < 0.6 else 1 for n in shape] for _ in (0, 1)]
    sides[1] = sides[1][int(case.rng.integers(len(shape) + 1)) :]
    if case.rng.random() < 0.5:
        sides.reverse()
    made = np.broadcast_shapes(*map(tuple, sides))
    same = steep(case) if name in ("MAXIMUM", "MINIMUM") else None
    given = [case.given(tuple(side) or (), same or steep(case)) for side in sides]
    options = {} if same else {"fused_activation_function": case.activation()}
    case.made(name, given, made, same or steep(case), **options)


def constant_side(case: Case, name: str) -> None:
    shape, low_high = shape_of_any_rank(case, 1, 4), CODE_TYPES[case.type]
    grid = case.grid() if name in ("MAXIMUM", "MINIMUM") else None
    data = case.rng.integers(low_high[0], low_high[1] + 1, shape[-1:])
    x = case.given(shape, grid)
    tensor = case.net.tensors[x]
    c = case.net.tensor(
        "c", case.type, shape[-1:], grid or case.grid(), data.astype(tensor.dtype)
    )
    given = (x, c) if case.rng.random() < 0.5 else (c, x)
    options = {} if grid else {"fused_activation_function": case.activation()}
    case.made(name, given, shape, grid or case.grid(), **options)


def power_of_two_pair(case: Case, name: str) -> None:
    def grid() -> CodeGrid:
        return one_grid(2.0 ** -int(case.rng.integers(8, 16)))

    made = grid()
    case.made(name, (case.given(grid=grid()), case.given(grid=grid())), case.shape, made)
    operation = case.net.operations[-1]
    options = {**operation.options, "pot_scale_int16": bool(case.rng.integers(2))}
    case.net.operations[-1] = replace(operation, options=options)


def odd_conv(case: Case, name: str) -> None:
    kind = name.removesuffix("/4")
    case.shape = (
        int(case.rng.integers(1, 3)),
        *(int(n) for n in case.rng.integers((4, 4, 1), (10, 10, 7))),
    )
    window = [int(n) for n in case.rng.integers(1, 5, 2)]
    stride, dilation = ([int(n) for n in case.rng.integers(1, 4, 2)] for _ in (0, 1))
    if case.rng.random() < 0.5:
        dilation = [1, 1]
    pads = int(case.rng.integers(2))
    reach = [(w - 1) * d + 1 for w, d in zip(window, dilation, strict=True)]
    if any(r > n for r, n in zip(reach, case.shape[1:3], strict=True)):
        pads = 0
    channels = case.shape[3]
    is_depthwise = kind == "DEPTHWISE_CONV_2D"
    many = int(case.rng.integers(1, 5))
    groups = int(case.rng.choice([g for g in range(1, channels + 1) if channels % g == 0]))
    if case.rng.random() < 0.5:
        groups = 1
    outputs = groups * int(case.rng.integers(1, 4))
    shape = (
        (1, *window, channels * many)
        if is_depthwise
        else (outputs, *window, channels // groups)
    )
    axis = 3 if is_depthwise else 0
    data = case.given(grid=case.grid() if case.rng.random() < 0.7 else steep(case))
    tensor, bias, spread = weights(case, shape, axis, name.endswith("/4"), data)
    plans = zip(case.shape[1:3], window, stride, dilation, strict=True)
    places = [padding(pads, *plan)[0] for plan in plans]
    options = {"padding": pads, "stride_h": stride[0], "stride_w": stride[1]}
    options |= {"dilation_h_factor": dilation[0], "dilation_w_factor": dilation[1]}
    options["fused_activation_function"] = case.activation()
    if is_depthwise:
        options["depth_multiplier"] = many
    end = (data, tensor) if case.rng.random() < 0.3 else (data, tensor, bias)
    if case.rng.random() < 0.2:
        end = (data, tensor, -1)
    made = (case.shape[0], *places, shape[axis])
    grid = one_grid(spread * float(np.exp(case.rng.uniform(-4, 4))), case.zero())
    case.made(kind, end, made, grid, **options)


def odd_transposed(case: Case, name: str) -> None:
    case.shape = (int(case.rng.integers(1, 3)), *case.shape[1:])
    window = [int(n) for n in case.rng.integers(1, 5, 2)]
    stride, outputs = (
        [int(n) for n in case.rng.integers(1, 4, 2)],
        int(case.rng.integers(1, 6)),
    )
    data, pads = case.given(), int(case.rng.integers(2))
    tensor, bias, spread = weights(case, (outputs, *window, case.shape[3]), 0, False, data)
    sizes = [
        n * s if pads == 0 else (n - 1) * s + w
        for n, s, w in zip(case.shape[1:3], stride, window, strict=True)
    ]
    if case.rng.random() < 0.4:  # any size whose windows are as many as the input's cells
        sizes = [
            max(n - int(case.rng.integers(s)), 1) for n, s in zip(sizes, stride, strict=True)
        ]
    made = (case.shape[0], *sizes, outputs)
    given: tuple[int, ...] = (case.net.constant(list(made)), tensor, data)
    given = given if case.rng.random() < 0.4 else (*given, bias)
    options = {"padding": pads, "stride_h": stride[0], "stride_w": stride[1]}
    options["fused_activation_function"] = case.activation()
    case.made(name, given, made, one_grid(spread, case.zero()), **options)


def odd_connected(case: Case, name: str) -> None:
    kind, shape = name.removesuffix("/4"), shape_of_any_rank(case, 2, 4)
    keeps = bool(case.rng.integers(2))
    width = shape[-1] if keeps or case.rng.random() < 0.5 else shape[-1] * shape[-2]
    data, outputs = case.given(shape), int(case.rng.integers(1, 6))
    tensor, bias, spread = weights(case, (outputs, width), 0, name.endswith("/4"), data)
    rows = int(np.prod(shape)) // width
    made = (*shape[:-1], outputs) if keeps else (rows, outputs)
    end = (data, tensor) if case.rng.random() < 0.3 else (data, tensor, bias)
    if case.rng.random() < 0.2:
        end = (data, tensor, -1)
    grid = one_grid(spread * float(np.exp(case.rng.uniform(-4, 4))), case.zero())
    options = {"keep_num_dims": keeps, "fused_activation_function": case.activation()}
    case.made(kind, end, made, grid, **options)


def odd_product(case: Case, name: str) -> None:
    n, k, m = (int(n) for n in case.rng.integers(1, 6, 3))
    batch = shape_of_any_rank(case, 1, 2)
    sides = [tuple(b if case.rng.random() < 0.6 else 1 for b in batch) for _ in (0, 1)]
    left, right = (bool(i) for i in case.rng.integers(0, 2, 2))
    shapes = (
        (*sides[0], *((k, n) if left else (n, k))),
        (*sides[1], *((m, k) if right else (k, m))),
    )
    given = [case.given(shapes[0]), case.given(shapes[1])]
    if case.rng.random() < 0.3:
        low, high = CODE_TYPES[case.type]
        record = case.net.tensors[given[1]]
        data = case.rng.integers(low, high + 1, shapes[1]).astype(record.dtype)
        given[1] = case.net.tensor("c", case.type, shapes[1], record.grid, data)
        case.inputs.pop()
    scales = [float(case.net.tensors[i].scale) for i in given]
    spread = scales[0] * scales[1] * case.rng.uniform(50, 400) * (100 if case.is_wide else 1)
    made = (*np.broadcast_shapes(*sides), n, m)
    case.made(name, given, made, one_grid(spread, case.zero()), adj_x=left, adj_y=right)


def odd_pool(case: Case, name: str) -> None:
    case.shape = (int(case.rng.integers(1, 3)), *case.shape[1:])
    grid, window = case.grid(), [int(n) for n in case.rng.integers(1, 7, 2)]
    stride, pads = [int(n) for n in case.rng.integers(1, 6, 2)], int(case.rng.integers(2))
    if any(w > n for w, n in zip(window, case.shape[1:3], strict=True)):
        pads = 0
    sizes = [padding(pads, case.shape[1 + i], window[i], stride[i])[0] for i in (0, 1)]
    options = {"padding": pads, "stride_h": stride[0], "stride_w": stride[1]}
    options |= {"filter_height": window[0], "filter_width": window[1]}
    options["fused_activation_function"] = case.activation()
    made = (case.shape[0], *sizes, case.shape[3])
    case.made(name, (case.given(grid=grid),), made, grid, **options)


def odd_reduction(case: Case, name: str) -> None:
    shape = shape_of_any_rank(case, 1, 5)
    rank, grid = len(shape), steep(case)
    count = int(case.rng.integers(1, rank + 1))
    axes = case.rng.choice(rank, count, replace=False).tolist()
    keeps = bool(case.rng.integers(2))
    made = [1 if i in axes else n for i, n in enumerate(shape) if keeps or i not in axes]
    written = [negative(case, axis, rank) for axis in axes]
    if case.rng.random() < 0.2:
        written.append(written[0])
    as_scalar = len(written) == 1 and case.rng.random() < 0.5
    given = (case.given(shape, grid), case.net.constant(written[0] if as_scalar else written))
    case.made(
        name, given, made, steep(case) if name in ("MEAN", "SUM") else grid, keep_dims=keeps
    )


def odd_softmax(case: Case, name: str) -> None:
    shape = shape_of_any_rank(case, 1, 4)
    shape = (*shape[:-1], int(case.rng.integers(1, 60)))
    low = CODE_TYPES[case.type][0]
    fixed = one_grid(1 / 32768 if case.is_wide else 1 / 256, 0 if case.is_wide else low)
    beta = float(np.float32(case.rng.choice([1.0, 0.5, 2.0, 0.1, 10.0])))
    case.made(name, (case.given(shape, steep(case)),), shape, fixed, beta=beta)


def odd_curve(case: Case, name: str) -> None:
    shape, low = shape_of_any_rank(case), CODE_TYPES[case.type][0]
    fixed = one_grid(1 / 32768 if case.is_wide else 1 / 256, 0 if case.is_wide else low)
    if name == "TANH" and not case.is_wide:
        fixed = one_grid(1 / 128, 0 if low else 128)
    if case.rng.random() < 0.3:
        fixed = case.grid()
    grid = steep(case)
    if case.is_wide and case.rng.random() < 0.5:
        grid = one_grid(2.0 ** -int(case.rng.integers(8, 16)))
    case.made(name, (case.given(shape, grid),), shape, fixed)


def odd_function(case: Case, name: str) -> None:
    shape = shape_of_any_rank(case)
    options = (
        {"alpha": float(np.float32(case.rng.choice([0.0, 1.0, -1.5, 3.0, 1e-4, 0.01])))}
        if name == "LEAKY_RELU"
        else {}
    )
    case.made(name, (case.given(shape, steep(case)),), shape, steep(case), **options)


def requantized(case: Case, name: str) -> None:
    source, made = name.split("/")[1], case.type
    case.type = source
    case.is_wide = source not in BYTES
    shape, grid = shape_of_any_rank(case), None if source == "FLOAT32" else steep(case)
    if source == "FLOAT32":
        given = case.net.tensor("x0", source, shape)
        case.inputs.append(given)
    else:
        given = case.given(shape, grid)
    case.type, case.is_wide = made, made not in BYTES
    fine = case.grid() if case.rng.random() < 0.7 else steep(case)
    if case.rng.random() < 0.2 and grid is not None and {source, made} == {"INT8", "UINT8"}:
        fine = one_grid(grid.scale, grid.zero + (128 if made == "UINT8" else -128))
    case.made("QUANTIZE", (given,), shape, fine)


def floats_of(case: Case, name: str) -> None:
    shape = shape_of_any_rank(case)
    given = case.given(shape, steep(case))
    out = case.net.tensor("y", "FLOAT32", shape)
    case.net.operate(name, (given,), (out,))


def odd_slopes(case: Case, name: str) -> None:
    shape = shape_of_any_rank(case, 2, 4)
    slope = tuple(n if case.rng.random() < 0.6 else 1 for n in shape[1:])
    case.made(name, (case.given(shape, steep(case)), case.given(slope)), shape, steep(case))


def odd_resized(case: Case, name: str) -> None:
    grid, kind = case.grid(), int(case.rng.integers(4))
    case.shape = tuple(int(n) for n in case.rng.integers((1, 1, 1, 1), (3, 9, 9, 4)))
    sizes = [int(n) for n in case.rng.integers(1, 30, 2)]
    given = (case.given(grid=grid), case.net.constant(sizes))
    options = {"align_corners": kind in (1, 3), "half_pixel_centers": kind in (2, 3)}
    case.made(name, given, (case.shape[0], *sizes, case.shape[3]), grid, **options)


def odd_joined(case: Case, name: str) -> None:
    shape = list(shape_of_any_rank(case, 1, 5))
    rank, count = len(shape), int(case.rng.integers(1, 6))
    axis, grid, total = int(case.rng.integers(rank)), case.grid(), 0
    given = []
    for _ in range(count):
        shape[axis] = int(case.rng.integers(1, 4))
        total += shape[axis]
        other = case.grid() if case.rng.random() < 0.3 else grid
        given.append(case.given(tuple(shape), other))
    shape[axis] = total
    case.made(name, given, tuple(shape), grid, axis=negative(case, axis, rank))


def odd_padded(case: Case, name: str) -> None:
    shape, grid = shape_of_any_rank(case, 1, 5), case.grid()
    wide = case.rng.integers(0, 4, (len(shape), 2))
    if name == "MIRROR_PAD":
        mode = int(case.rng.integers(2))
        most = np.array(shape)[:, None] - (1 - mode)
        wide = np.minimum(wide, most)
    made = [n + a + b for n, (a, b) in zip(shape, wide.tolist(), strict=True)]
    given = [case.given(shape, grid), case.net.constant(wide)]
    options = {"mode": mode} if name == "MIRROR_PAD" else {}
    if name == "PADV2":
        low, high = CODE_TYPES[case.type]
        value = np.array([int(case.rng.integers(low, high + 1))]).astype(
            case.net.tensors[given[0]].dtype
        )
        one = value if case.rng.random() < 0.5 else value.reshape(())
        given.append(case.net.tensor("v", case.type, one.shape, grid, one))
    case.made(name, given, made, grid, **options)


def odd_transposition(case: Case, name: str) -> None:
    shape, grid = shape_of_any_rank(case, 1, 6), case.grid()
    order = case.rng.permutation(len(shape)).tolist()
    written = [negative(case, axis, len(shape)) for axis in order]
    given = (case.given(shape, grid), case.net.constant(written))
    case.made(name, given, [shape[axis] for axis in order], grid)


def odd_reshape(case: Case, name: str) -> None:
    shape, grid = shape_of_any_rank(case, 1, 5), case.grid()
    size = int(np.prod(shape))
    made = [size] if case.rng.random() < 0.5 else [shape[0], size // shape[0]]
    written = list(made)
    if case.rng.random() < 0.5:
        written[-1] = -1
    given: tuple[int, ...] = (case.given(shape, grid),)
    if case.rng.random() < 0.7:
        given = (*given, case.net.constant(written))
        case.made(name, given, made, grid)
    else:
        case.made(name, given, made, grid, new_shape=np.array(written, dtype=np.int32))


def odd_squeeze(case: Case, name: str) -> None:
    shape = [n if case.rng.random() < 0.5 else 1 for n in shape_of_any_rank(case, 2, 5)]
    ones = [i for i, n in enumerate(shape) if n == 1]
    grid = case.grid()
    taken = ones if case.rng.random() < 0.4 else [i for i in ones if case.rng.random() < 0.5]
    every = not taken or case.rng.random() < 0.2
    written = [] if every else [negative(case, i, len(shape)) for i in taken]
    gone = ones if every else taken
    made = [n for i, n in enumerate(shape) if i not in gone]
    options = {"squeeze_dims": np.array(written, dtype=np.int32)}
    case.made(name, (case.given(tuple(shape), grid),), made, grid, **options)


def odd_split(case: Case, name: str) -> None:
    shape, grid = list(shape_of_any_rank(case, 1, 5)), case.grid()
    axis, rank, count = (
        int(case.rng.integers(len(shape))),
        len(shape),
        int(case.rng.integers(1, 4)),
    )
    sizes = [int(n) for n in case.rng.integers(1, 4, count)]
    if name == "SPLIT":
        sizes = [sizes[0]] * count
    shape[axis] = sum(sizes)
    data, along = case.given(tuple(shape), grid), case.net.constant(negative(case, axis, rank))
    outs = []
    for i, size in enumerate(sizes):
        shape[axis] = size
        outs.append(case.net.tensor(f"y{i}", case.type, shape, grid))
    if name == "SPLIT":
        case.net.operate(name, (along, data), outs, num_splits=count)
    else:
        written = list(sizes)
        if case.rng.random() < 0.5:
            written[int(case.rng.integers(count))] = -1
        given = (data, case.net.constant(written), along)
        case.net.operate(name, given, outs, num_splits=count)


def odd_slice(case: Case, name: str) -> None:
    shape, grid = shape_of_any_rank(case, 1, 5), case.grid()
    begin = [int(case.rng.integers(n)) for n in shape]
    size = [int(case.rng.integers(1, n - b + 1)) for n, b in zip(shape, begin, strict=True)]
    written = [
        -1 if b + s == n and case.rng.random() < 0.5 else s
        for n, b, s in zip(shape, begin, size, strict=True)
    ]
    given = (case.given(shape, grid), case.net.constant(begin), case.net.constant(written))
    case.made(name, given, size, grid)


def odd_strided(case: Case, name: str) -> None:
    shape, grid = shape_of_any_rank(case, 1, 4), case.grid()
    rank = int(case.rng.integers(1, len(shape) + 1))
    begin, end, steps = ([int(n) for n in case.rng.integers(-6, 7, rank)] for _ in range(3))
    steps = [n or 1 for n in steps]
    masks = {
        key: int(case.rng.integers(1 << rank)) if case.rng.random() < 0.5 else 0
        for key in ("begin_mask", "end_mask")
    }
    shrink = int(case.rng.integers(1 << rank)) if case.rng.random() < 0.4 else 0
    made = []
    for i, n in enumerate(shape):
        if i >= rank:
            made.append(n)
            continue
        if shrink >> i & 1:
            begin[i] = negative(case, int(case.rng.integers(n)), n)
            steps[i], end[i] = 1, begin[i] + 1
            continue
        first = None if masks["begin_mask"] >> i & 1 else begin[i]
        last = None if masks["end_mask"] >> i & 1 else end[i]
        made.append(len(range(*slice(first, last, steps[i]).indices(n))))
    given = (case.given(shape, grid), *(case.net.constant(v) for v in (begin, end, steps)))
    case.made(name, given, made, grid, shrink_axis_mask=shrink, **masks)


def odd_gather(case: Case, name: str) -> None:
    shape, grid = shape_of_any_rank(case, 1, 4), case.grid()
    axis, rank = int(case.rng.integers(len(shape))), len(shape)
    where = shape_of_any_rank(case, 1, 2) if case.rng.random() < 0.8 else ()
    index = case.net.constant(case.rng.integers(0, shape[axis], where))
    made = (*shape[:axis], *where, *shape[axis + 1 :])
    case.made(
        name, (case.given(shape, grid), index), made, grid, axis=negative(case, axis, rank)
    )


def odd_pack(case: Case, name: str) -> None:
    shape, grid = shape_of_any_rank(case, 1, 3), case.grid()
    count, axis = int(case.rng.integers(1, 4)), int(case.rng.integers(len(shape) + 1))
    given = [case.given(shape, grid) for _ in range(count)]
    made = [*shape[:axis], count, *shape[axis:]]
    case.made(
        name, given, made, grid, axis=negative(case, axis, len(made)), values_count=count
    )


def odd_unpack(case: Case, name: str) -> None:
    shape, grid = shape_of_any_rank(case, 1, 4), case.grid()
    axis = int(case.rng.integers(len(shape)))
    rest = [n for i, n in enumerate(shape) if i != axis]
    outs = [case.net.tensor(f"y{i}", case.type, rest, grid) for i in range(shape[axis])]
    written = negative(case, axis, len(shape))
    given = (case.given(shape, grid),)
    case.net.operate(name, given, outs, num=shape[axis], axis=written)


def odd_expand(case: Case, name: str) -> None:
    shape, grid = shape_of_any_rank(case, 1, 4), case.grid()
    axis = int(case.rng.integers(len(shape) + 1))
    made = [*shape[:axis], 1, *shape[axis:]]
    along = case.net.constant(negative(case, axis, len(made)))
    case.made(name, (case.given(shape, grid), along), made, grid)


ODD: tuple[tuple[Callable[[Case, str], None], str, tuple[str, ...]], ...] = (
    (broadcast_pair, "ADD SUB MUL MAXIMUM MINIMUM", ALL),
    (constant_side, "ADD SUB MUL MAXIMUM MINIMUM", ALL),
    (power_of_two_pair, "ADD SUB", ("INT16",)),
    (odd_conv, "CONV_2D DEPTHWISE_CONV_2D", ALL),
    (odd_conv, "CONV_2D/4 DEPTHWISE_CONV_2D/4", ("INT8",)),
    (odd_connected, "FULLY_CONNECTED", ALL),
    (odd_connected, "FULLY_CONNECTED/4", ("INT8",)),
    (odd_transposed, "TRANSPOSE_CONV", ALL),
    (odd_product, "BATCH_MATMUL", SIGNED),
    (odd_pool, "AVERAGE_POOL_2D MAX_POOL_2D", ALL),
    (odd_reduction, "MEAN REDUCE_MAX REDUCE_MIN", ALL),
    (odd_reduction, "SUM", ("UINT8",)),
    (odd_softmax, "SOFTMAX", ALL),
    (odd_curve, "LOGISTIC TANH", ALL),
    (odd_function, "RELU RELU6 RELU_N1_TO_1 LEAKY_RELU", ALL),
    (odd_function, "HARD_SWISH", BYTES),
    (requantized, "QUANTIZE/FLOAT32 QUANTIZE/INT8 QUANTIZE/UINT8 QUANTIZE/INT16", ALL),
    (requantized, "QUANTIZE/INT32", SIGNED),
    (requantized, "QUANTIZE/INT8 QUANTIZE/UINT8 QUANTIZE/INT16 QUANTIZE/INT32", ("INT32",)),
    (floats_of, "DEQUANTIZE", ALL),
    (odd_slopes, "PRELU", BYTES),
    (odd_resized, "RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR", ALL),
    (odd_joined, "CONCATENATION", ALL),
    (odd_padded, "PAD PADV2 MIRROR_PAD", ALL),
    (odd_transposition, "TRANSPOSE", ALL),
    (odd_reshape, "RESHAPE", ALL),
    (odd_squeeze, "SQUEEZE", ALL),
    (odd_split, "SPLIT SPLIT_V", ALL),
    (odd_slice, "SLICE", ALL),
    (odd_strided, "STRIDED_SLICE", ALL),
    (odd_gather, "GATHER", ALL),
    (odd_pack, "PACK", ALL),
    (odd_unpack, "UNPACK", ALL),
    (odd_expand, "EXPAND_DIMS", ALL),
)

TRIED = [
    (write, name, type_)
    for write, names, types in ODD
    for name in names.split()
    for type_ in types
]

REFUSED = (
    ("RELU_N1_TO_1", "INT16"),
    ("QUANTIZE/INT16", "UINT8"),
    ("QUANTIZE/INT8", "INT32"),
    ("QUANTIZE/UINT8", "INT32"),
    ("QUANTIZE/INT32", "INT32"),
)
"""What no reference kernel takes."""
