"""Kernels of the families elementwise, logic, reduce, shape, indexing and generate.

Expected values are worked out by hand from the ONNX operator documents, unless said otherwise.
"""

from __future__ import annotations

import itertools
import math

import ml_dtypes
import numpy as np
import onnx
import pytest

from qonnx_hub.executor.kernels import elementwise, generate, indexing, logic, reduce, shape
from qonnx_hub.executor.kernels.spec import KernelSpec, Unserved

FAMILIES = (elementwise, generate, indexing, logic, reduce, shape)
TABLE = {key: factory for family in FAMILIES for key, factory in family.KERNELS.items()}
LARGE = elementwise.IN_PLACE_SIZE
FIRST, LAST = -(2**63), 2**63 - 1
NAN, INF = np.nan, np.inf
TYPE = onnx.TensorProto
BF16 = ml_dtypes.bfloat16


def f32(*values):
    return np.array(values, dtype=np.float32)


def i64(*values):
    return np.array(values, dtype=np.int64)


def i32(*values):
    return np.array(values, dtype=np.int32)


def u8(*values):
    return np.array(values, dtype=np.uint8)


def scalar(value, dtype=np.float32):
    return np.array(value, dtype=dtype)


def zeros(*dims, dtype=np.float32):
    return np.zeros(dims, dtype=dtype)


def build(op, inputs, *, known=(), outputs=1, reusable=(), version=21, **attributes):
    spec = KernelSpec(
        op_type=op,
        version=version,
        name="node",
        attributes=attributes,
        constants=tuple(x if i in known else None for i, x in enumerate(inputs)),
        present=tuple(x is not None for x in inputs),
        num_outputs=outputs,
        reusable=frozenset(reusable),
    )
    return TABLE["", op](spec)


def call(op, *inputs, **options):
    """Run with nothing known beforehand and with all but the data known; both must agree."""
    outputs = options.get("outputs", 1)
    results = []
    for known in ((), range(1, len(inputs))):
        kernel = build(op, inputs, known=known, **options)
        with np.errstate(all="ignore"):
            result = kernel(*inputs)
        results.append(result if outputs > 1 else (result,))
    for a, b in zip(*results, strict=True):
        assert (type(a), type(b)) == (np.ndarray, np.ndarray)
        check(a, b, b.dtype)
    return results[0] if outputs > 1 else results[0][0]


def as_numpy(x):
    own = x.dtype.isbuiltin == 1 or x.dtype == object
    return x if own else x.astype(np.float64)  # numpy compares its own types only


def check(result, expected, dtype):
    assert result.dtype == np.dtype(dtype)
    assert result.shape == np.shape(expected)
    np.testing.assert_array_equal(as_numpy(result), as_numpy(np.array(expected)))


def case(sentence, op, *inputs, gives, kind=None, **attributes):
    dtype = inputs[0].dtype if kind is None else kind
    return pytest.param(op, inputs, attributes, gives, dtype, id=sentence.replace(" ", "_"))


def refused(sentence, op, *inputs, error=ValueError, match=None, **options):
    return pytest.param(op, inputs, options, error, match, id=sentence.replace(" ", "_"))


ARITHMETIC = [
    case("int Div truncates", "Div", i32(7, -7, 7, -7), i32(2, 2, -2, -2),
         gives=[3, -3, -3, 3]),
    case("int Div is exact", "Div", i64(-(2**53) - 1), i64(2), gives=[-(2**52)]),
    case("unsigned Div keeps the high bit", "Div", u8(255), u8(2), gives=[127]),
    case("float Div by zero", "Div", f32(1, -1, 0), f32(0, 0, 0), gives=[INF, -INF, NAN]),
    case("Mod has the divisors sign", "Mod", i64(-7, 7, -7), i64(3, -3, -3),
         gives=[2, -2, -1]),
    case("fmod of int", "Mod", i64(-7, 7, -7), i64(3, -3, -3), fmod=1, gives=[-1, 1, -1]),
    case("fmod has the dividends sign", "Mod", f32(-7.5), f32(2), fmod=1, gives=[-1.5]),
    case("Pow has the type of its base", "Pow", f32(3), i64(2), gives=[9]),
    case("Pow truncates to its base", "Pow", i32(2, 5), f32(0.5, 2), gives=[1, 25]),
    case("Pow of float16", "Pow", np.float16([3]), f32(2), gives=[9]),
    case("int Pow is exact", "Pow", np.uint64([2**53 + 1]), i64(1), gives=[2**53 + 1]),
    case("square of float", "Pow", f32(-1.5, 3), scalar(2, np.int64), gives=[2.25, 9]),
    case("square of int", "Pow", np.int8([-3]), scalar(2), gives=[9]),
    case("a tie rounds to even", "Round", f32(-2.5, -1.5, 0.5, 1.5, 2.5),
         gives=[-2, -2, 0, 2, 2]),
    case("the sign of NaN is NaN", "Sign", f32(-3, 0, NAN, 5), gives=[-1, 0, NAN, 1]),
    case("Max keeps NaN", "Max", f32(1, NAN), f32(2, 0), f32(0, 0), gives=[2, NAN]),
    case("Min keeps NaN", "Min", f32(NAN, 1), f32(0, 3), gives=[NAN, 1]),
    case("Mean keeps float32", "Mean", f32(1, 2), f32(2, 4), f32(6, 0), gives=[3, 2]),
    case("Erf at its ends", "Erf", f32(NAN, INF, -INF, 0), gives=[NAN, 1, -1, 0]),
    case("left by the width", "BitShift", u8(255, 255), u8(8, 1), direction="LEFT",
         gives=[0, 254]),
    case("right shift", "BitShift", u8(255, 255), u8(8, 1), direction="RIGHT", gives=[0, 127]),
    case("both infinities", "IsInf", f32(-INF, INF, NAN), gives=[True, True, False],
         kind=bool),
    case("+inf", "IsInf", f32(-INF, INF), detect_negative=0, gives=[False, True], kind=bool),
    case("-inf", "IsInf", f32(-INF, INF), detect_positive=0, gives=[True, False], kind=bool),
    case("bits stay", "BitCast", f32(1), to=TYPE.INT32, gives=[0x3F800000], kind=np.int32),
    case("NaN equals nothing", "Equal", f32(NAN, 1), f32(NAN, 1), gives=[False, True],
         kind=bool),
    case("Where", "Where", np.array([[True], [False]]), i64(1), i64(3), gives=[[1], [3]],
         kind=np.int64),
]  # fmt: skip

CASTS = [
    case("float truncates", "Cast", f32(-1.9, 1.9), to=TYPE.INT32, gives=[-1, 1],
         kind=np.int32),
    case("int8 drops bits", "Cast", i32(200, 300), to=TYPE.INT8, gives=[-56, 44],
         kind=np.int8),
    case("int4 drops bits", "Cast", i32(200, 9), to=TYPE.INT4, gives=[-8, -7],
         kind=ml_dtypes.int4),
    case("NaN is True", "Cast", f32(-0.0, 0.5, NAN), to=TYPE.BOOL, gives=[False, True, True],
         kind=bool),
    case("CastLike", "CastLike", f32(1.5), zeros(2, dtype=np.int8), gives=[1], kind=np.int8),
]  # fmt: skip

NUMBERS = f32([1, 2], [3, 4])
SUMS_APART = f32([1000, 1000], [-INF, -INF], [INF, 0])
EQUALS = f32([1, 5, 5], [7, 7, 0])

REDUCTIONS = [
    case("no axes mean all", "ReduceSum", NUMBERS, gives=[[10]]),
    case("empty axes mean all", "ReduceSum", NUMBERS, i64(), gives=[[10]]),
    case("noop", "ReduceSum", NUMBERS, i64(), noop_with_empty_axes=1, gives=NUMBERS),
    case("noop without axes", "ReduceSum", NUMBERS, noop_with_empty_axes=1, gives=NUMBERS),
    case("noop squares", "ReduceSumSquare", NUMBERS, noop_with_empty_axes=1, gives=NUMBERS**2),
    case("axes by input", "ReduceSum", NUMBERS, i64(-1), gives=[[3], [7]]),
    case("axes by attribute", "ReduceSum", NUMBERS, axes=(0,), keepdims=0, gives=[4, 6]),
    case("an int32 sum wraps", "ReduceSum", i32(2**31 - 1, 1), gives=[-(2**31)]),
    case("int8 stays int8", "ReduceProd", np.int8([3, 4]), gives=[12]),
    # in float16 itself a running sum of ones stops at 2048
    case("float16 sums", "ReduceSum", np.ones((5000, 2), np.float16), i64(0),
         gives=[[5000] * 2]),
    case("LogSumExp stays finite", "ReduceLogSumExp", SUMS_APART, i64(1),
         gives=np.float32([[1000 + math.log(2)], [-INF], [INF]])),
    case("first of equals", "ArgMax", EQUALS, axis=1, keepdims=0, gives=[1, 0], kind=np.int64),
    case("last of equals", "ArgMax", EQUALS, axis=1, select_last_index=1, gives=[[2], [1]],
         kind=np.int64),
    case("ArgMin", "ArgMin", EQUALS, axis=-1, keepdims=0, gives=[0, 2], kind=np.int64),
]  # fmt: skip

DEPTH = np.arange(8, dtype=np.float32).reshape(1, 8, 1, 1)
WIDE = DEPTH.reshape(1, 4, 1, 2)
DCR, CRD = f32([[[0, 2], [4, 6]], [[1, 3], [5, 7]]]), f32([[[0, 1], [2, 3]], [[4, 5], [6, 7]]])

SHAPES = [
    case("zero copies", "Reshape", zeros(2, 3, 4), i64(4, 0, -1), gives=zeros(4, 3, 2)),
    case("to a scalar", "Reshape", zeros(1, 1), i64(), gives=0),
    case("zero by itself", "Reshape", zeros(0, 3), i64(3, 0), allowzero=1, gives=zeros(3, 0)),
    case("Flatten at 0", "Flatten", zeros(2, 3), axis=0, gives=zeros(1, 6)),
    case("Flatten at the end", "Flatten", zeros(2, 3), axis=2, gives=zeros(6, 1)),
    case("Flatten from behind", "Flatten", zeros(2, 3, 4), axis=-1, gives=zeros(6, 4)),
    case("new axes count in the result", "Unsqueeze", zeros(2, 3), i64(0, -1),
         gives=zeros(1, 2, 3, 1)),
    case("new axes in any order", "Unsqueeze", zeros(2, 3), i64(2, 1),
         gives=zeros(2, 1, 1, 3)),
    case("Squeeze all", "Squeeze", zeros(1, 2, 1), gives=zeros(2)),
    case("Squeeze one", "Squeeze", zeros(1, 2, 1), i64(-1), gives=zeros(1, 2)),
    case("Transpose reverses", "Transpose", NUMBERS, gives=[[1, 3], [2, 4]]),
    case("Transpose by order", "Transpose", zeros(2, 3, 4), perm=(1, 0, 2),
         gives=zeros(3, 2, 4)),
    case("Expand both ways", "Expand", f32([1], [2]), i64(2, 1, 2),
         gives=[[[1, 1], [2, 2]]] * 2),
    case("Expand by fewer dims", "Expand", f32([1], [2]), i64(1), gives=[[1], [2]]),
    case("Tile", "Tile", i64([1, 2]), i64(2, 2), gives=[[1, 2, 1, 2]] * 2),
    case("a part of the shape", "Shape", zeros(2, 3, 4), start=-2, end=9, gives=[3, 4],
         kind=np.int64),
    case("a clamped shape", "Shape", zeros(2, 3, 4), start=-9, end=-1, gives=[2, 3],
         kind=np.int64),
    case("Split to one output", "Split", i64(1, 2), i64(2), gives=[1, 2]),
    case("DCR", "DepthToSpace", DEPTH, blocksize=2, gives=DCR),
    case("CRD", "DepthToSpace", DEPTH, blocksize=2, mode="CRD", gives=CRD),
    case("rows before columns", "DepthToSpace", WIDE, blocksize=2,
         gives=[[[[0, 2, 1, 3], [4, 6, 5, 7]]]]),
    case("DCR back", "SpaceToDepth", DCR, blocksize=2, gives=DEPTH),
    case("CRD back", "SpaceToDepth", CRD, blocksize=2, mode="CRD", version=28, gives=DEPTH),
]  # fmt: skip

FIVE, GRID = i64(*range(5)), np.arange(12, dtype=np.int64).reshape(3, 4)
CUBE = i64([[0, 1], [2, 3]], [[4, 5], [6, 7]])
ROWS, FOUR = i64([1, 2, 3], [4, 5, 6]), f32(1, 2, 3, 4)

INDEXING = [
    *(
        case(f"Slice {start} {end} {step} of axis {axis}", "Slice", FIVE, i64(start), i64(end),
             i64(axis), i64(step), gives=gives)
        for axis in (0, -1)
        for start, end, step, gives in (
            (-1, FIRST, -1, [4, 3, 2, 1, 0]),
            (10, 1, -2, [4, 2]),
            (-9, FIRST, -1, [0]),
            (-2, FIRST, -1, [3, 2, 1, 0]),
            (3, -9, -2, [3, 1]),
            (1, LAST, 2, [1, 3]),
            (-9, -1, 1, [0, 1, 2, 3]),
            (7, 9, 1, zeros(0, dtype=np.int64)),
        )
    ),
    case("Slice of the first axis", "Slice", GRID, i64(1), i64(2), gives=[[4, 5, 6, 7]]),
    case("Slice without axes", "Slice", GRID, i64(0, 2), i64(2, 9), None, i64(1, 1),
         gives=[[2, 3], [6, 7]]),
    case("Gather from the end", "Gather", ROWS, i64([-1, 0]), axis=1,
         gives=[[[3, 1]], [[6, 4]]]),
    case("Gather drops an axis", "Gather", ROWS, scalar(-2, np.int64), axis=-1, gives=[2, 5]),
    case("Gather of one row", "Gather", ROWS, scalar(-2, np.int64), gives=[1, 2, 3]),
    case("fewer indices than columns", "GatherElements", ROWS, i64([-1, 0]), gives=[[4, 2]]),
    case("GatherElements of rows", "GatherElements", ROWS, i64([2], [0]), axis=1,
         gives=[[3], [4]]),
    case("batches apart", "GatherND", CUBE, i64([1], [0]), batch_dims=1,
         gives=[[2, 3], [4, 5]]),
    case("GatherND of rows", "GatherND", CUBE, i64([0, -1], [1, 0]), gives=[[2, 3], [4, 5]]),
    case("add repeats", "ScatterND", f32(10, 20, 30), i64([2], [0], [-1]), f32(1, 2, 3),
         reduction="add", gives=[12, 20, 34]),
    case("multiply repeats", "ScatterND", f32(10, 20, 30), i64([2], [0], [-1]), f32(1, 2, 3),
         reduction="mul", gives=[20, 20, 90]),
    case("place a row", "ScatterND", zeros(2, 2), i64([1]), f32([3, 4]),
         gives=[[0, 0], [3, 4]]),
    case("scatter along rows", "ScatterElements", ROWS, i64([-1], [0]), i64([8], [9]), axis=1,
         gives=[[1, 2, 8], [9, 5, 6]]),
    case("scatter the larger", "ScatterElements", ROWS, i64([0, 1, 0]), i64([5, 1, 7]),
         reduction="max", gives=[[5, 2, 7], [4, 5, 6]]),
    case("Pad removes", "Pad", FOUR, i64(-1, 2), gives=[2, 3, 4, 0, 0]),
    case("Pad reflects", "Pad", FOUR, i64(2, 1), mode="reflect", gives=[3, 2, 1, 2, 3, 4, 3]),
    case("Pad reflects what is left", "Pad", FOUR, i64(-1, 2), mode="reflect",
         gives=[2, 3, 4, 3, 2]),
    case("Pad by the edge", "Pad", FOUR, i64(1, -2), mode="edge", gives=[1, 1, 2]),
    case("Pad wraps", "Pad", FOUR, i64(1, 2), mode="wrap", gives=[4, 1, 2, 3, 4, 1, 2]),
    case("Pad with a value", "Pad", i64([1], [2]), i64(0, 1), scalar(7, np.int64), i64(-1),
         gives=[[1, 7], [2, 7]]),
    case("Pad along an axis", "Pad", i64([1], [2]), i64(1, 0), None, i64(0),
         gives=[[0], [1], [2]]),
    case("upper", "Trilu", ROWS, scalar(1, np.int64), gives=[[0, 2, 3], [0, 0, 6]]),
    case("lower", "Trilu", ROWS, scalar(-1, np.int64), upper=0, gives=[[0, 0, 0], [4, 0, 0]]),
    case("cold outside", "OneHot", i64(-1, 3, -4), scalar(3), f32(-1, 5), kind=np.float32,
         gives=[[-1, -1, 5], [-1] * 3, [-1] * 3]),
    case("OneHot along 0", "OneHot", f32(1), f32(2), f32(-1, 5), axis=0, gives=[[-1], [5]]),
    case("NonZero", "NonZero", f32([0, 1], [2, 0]), gives=[[0, 1], [1, 0]], kind=np.int64),
    case("NonZero of a scalar has no rows", "NonZero", scalar(3), gives=zeros(0, 1),
         kind=np.int64),
    case("Compress a short condition", "Compress", NUMBERS, np.array([False, True]),
         gives=[2]),
    case("Compress rows", "Compress", NUMBERS, np.array([False, True]), axis=0,
         gives=[[3, 4]]),
    case("reverse each row", "ReverseSequence", ROWS, i64(2, 3), batch_axis=0, time_axis=1,
         gives=[[2, 1, 3], [6, 5, 4]]),
    case("reverse each column", "ReverseSequence", ROWS, i64(1, 2, 1),
         gives=[[1, 5, 3], [4, 2, 6]]),
]  # fmt: skip

GENERATORS = [
    case("Constant tensor", "Constant", value=u8(1, 2), gives=[1, 2], kind=np.uint8),
    case("Constant float", "Constant", value_float=0.5, gives=0.5, kind=np.float32),
    case("Constant floats", "Constant", value_floats=(0.5, 2.0), gives=[0.5, 2],
         kind=np.float32),
    case("Constant int", "Constant", value_int=3, gives=3, kind=np.int64),
    case("Constant no ints", "Constant", value_ints=(), gives=zeros(0), kind=np.int64),
    case("zero by default", "ConstantOfShape", i64(), gives=0, kind=np.float32),
    case("eye of its input", "EyeLike", i32([9, 9]), k=1, gives=[[0, 1]]),
    case("eye of its own type", "EyeLike", i32([9, 9]), dtype=TYPE.DOUBLE, gives=[[1, 0]],
         kind=np.float64),
]  # fmt: skip


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "gives", "dtype"),
    ARITHMETIC + CASTS + REDUCTIONS + SHAPES + INDEXING + GENERATORS,
)
def test_the_document_is_followed(op, inputs, attributes, gives, dtype):
    check(call(op, *inputs, **attributes), gives, dtype)


@pytest.mark.parametrize(
    ("op", "inputs", "options", "error", "match"),
    [
        refused("Div by int zero", "Div", i64(1), i64(0), error=ZeroDivisionError),
        refused("Mod by int zero", "Mod", i64(1), i64(0), error=ZeroDivisionError),
        refused("a negative int power", "Pow", i64(2), i64(-1), match="negative"),
        refused("Where of two types", "Where", np.array([True]), f32(1), i64(1),
                error=TypeError),
        refused("text as bool", "Cast", np.array(["0"], object), to=TYPE.BOOL,
                error=TypeError),
        refused("more bits", "BitCast", f32(1), to=TYPE.INT64, error=TypeError),
        refused("axes twice", "ReduceSum", NUMBERS, i64(0), axes=(0,), error=Unserved),
        refused("3 of 2", "TopK", f32(1, 2), i64(3), outputs=2, match="3 of 2"),
        refused("a missing dim", "Reshape", zeros(2, 3), i64(2, 3, 0), match="copies"),
        refused("0 and -1", "Reshape", zeros(2, 3), i64(0, -1), allowzero=1,
                match="ambiguous"),
        refused("Flatten too far", "Flatten", zeros(2, 3), axis=3, match="axis 3"),
        refused("one axis twice", "Unsqueeze", zeros(2), i64(0, -3), match="twice"),
        refused("squeezing 2", "Squeeze", zeros(2), i64(0), match="size"),
        refused("a small Split", "Split", FIVE, i64(2, 2), outputs=2, match="split"),
        refused("a negative Split", "Split", FIVE, i64(6, -1), outputs=2, match="split"),
        refused("too few parts", "Split", FIVE, i64(2, 3), outputs=3, match="split"),
        refused("an uneven Split", "Split", FIVE, outputs=2, match="split"),
        refused("a part below zero", "Split", FIVE, outputs=4, num_outputs=4, match="split"),
        refused("Expand 3 to 2", "Expand", f32(1, 2, 3), i64(2), match="broadcast"),
        refused("Tile of more dims", "Tile", i64(1), i64(1, 2), match="dimensions"),
        refused("6 channels", "DepthToSpace", zeros(1, 6, 1, 1), blocksize=2, match="2 x 2"),
        refused("3 rows", "SpaceToDepth", zeros(1, 1, 3, 2), blocksize=2, match="2 x 2"),
        refused("Slice twice", "Slice", zeros(2, 2), i64(0, 0), i64(1, 1), i64(1, -1),
                match="twice"),
        refused("Slice of unequal lists", "Slice", FIVE, i64(0, 1), i64(1), match="lengths"),
        refused("Gather behind", "Gather", FIVE, scalar(5, np.int64), error=IndexError),
        refused("Gather before", "Gather", FIVE, i64(-6), error=IndexError),
        refused("GatherND of nothing", "GatherND", FIVE, zeros(1, 0, dtype=np.int64)),
        refused("too few updates", "ScatterND", zeros(2, 2), i64([1]), f32([3]),
                match="updates"),
        refused("Pad removes all", "Pad", f32(1, 2), i64(-1, -2), match="remove more"),
        refused("half a pad", "Pad", f32(1, 2), i64(1), match="1 pads"),
        refused("long sequences", "ReverseSequence", ROWS, i64(3, 1, 1), match="lengths"),
        refused("an unknown attribute", "Add", f32(1), f32(1), sideways=1, error=Unserved),
        refused("an unknown fmod", "Mod", f32(1), f32(1), fmod=2, error=Unserved),
        refused("an unknown direction", "BitShift", u8(1), u8(1), direction="UP",
                error=Unserved),
        refused("an unknown mode", "Pad", f32(1), i64(0, 0), mode="mirror", error=Unserved),
        refused("an unknown reduction", "ScatterND", f32(1), i64([0]), f32(1), reduction="sub",
                error=Unserved),
        refused("a wide range", "Range", i64(), i64(), i64(), stash_type=11, error=Unserved),
        refused("two values", "Constant", value_int=1, value_float=1.0, error=Unserved),
        refused("making text", "Cast", f32(1), to=TYPE.STRING, error=Unserved),
        refused("making float8e8m0", "Cast", f32(1), to=TYPE.FLOAT8E8M0, error=Unserved),
        refused("training", "Dropout", f32(1), scalar(0.5), scalar(True, bool),
                error=Unserved),
    ],
)  # fmt: skip
@pytest.mark.parametrize("known", [False, True])
def test_what_has_no_answer_is_refused(op, inputs, options, error, match, known):
    with pytest.raises(error, match=match):
        build(op, inputs, known=range(1, len(inputs)) if known else (), **options)(*inputs)


@pytest.mark.parametrize("size", [1, LARGE])
def test_clip_takes_each_bound_alone_or_both(size):
    x, low, high = np.repeat(f32(-2, 0, 2, NAN), size), scalar(-1), scalar(1)
    check(call("Clip", x, low), np.repeat(f32(-1, 0, 2, NAN), size), np.float32)
    check(call("Clip", x, low, None), np.repeat(f32(-1, 0, 2, NAN), size), np.float32)
    check(call("Clip", x, None, high), np.repeat(f32(-2, 0, 1, NAN), size), np.float32)
    check(call("Clip", x, low, high), np.repeat(f32(-1, 0, 1, NAN), size), np.float32)


@pytest.mark.parametrize("dtype", [np.int8, np.float16, BF16])
@pytest.mark.parametrize("size", [3, LARGE])
def test_crossed_bounds_give_the_upper_one(size, dtype):
    result = call("Clip", np.full(size, 5, dtype), scalar(4, dtype), scalar(-4, dtype))
    check(result, np.full(size, -4), dtype)


@pytest.mark.parametrize("op", ["Max", "Mean", "Min", "Sum", "Clip"])
def test_a_lone_input_is_copied(op):
    x = f32(1, 2)
    check(call(op, x), x, np.float32)
    assert not np.shares_memory(build(op, (x,))(x), x)


def test_erf_equals_the_c_library():
    x = np.concatenate([np.linspace(-7, 7, 40_001), np.logspace(-300, 0, 200)])
    expected = np.array([math.erf(v) for v in x])
    np.testing.assert_array_max_ulp(call("Erf", x), expected, maxulp=2)
    short = x[:40_001].astype(np.float32)
    expected = np.array([math.erf(v) for v in short.tolist()]).astype(np.float32)
    np.testing.assert_array_max_ulp(call("Erf", short), expected, maxulp=1)


# Largest values and the meaning of an overflow: table of the ONNX operator Cast.
@pytest.mark.parametrize(
    ("name", "largest", "overflow"),
    [
        ("FLOAT8E4M3FN", 448, NAN),
        ("FLOAT8E4M3FNUZ", 240, NAN),
        ("FLOAT8E5M2", 57344, INF),
        ("FLOAT8E5M2FNUZ", 57344, NAN),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, BF16])
def test_a_cast_to_float8_saturates_unless_told_otherwise(name, largest, overflow, dtype):
    x = np.array([1e6, -INF, NAN, 1], dtype)
    for saturate, limit in ((1, largest), (0, overflow)):
        y = call("Cast", x, to=getattr(TYPE, name), saturate=saturate)
        np.testing.assert_array_equal(y.astype(np.float32), [limit, -limit, NAN, 1])


_SCALARS = [
    *(
        (op, 1, np.float32)
        for op in ("Abs", "Sqrt", "Round", "Erf", "IsNaN", "IsInf", "ReduceMax")
    ),
    *((op, 2, np.float32) for op in ("Add", "Div", "Mod", "Pow", "Equal", "CastLike")),
    *((op, 3, np.float32) for op in ("Max", "Sum", "Mean", "Clip")),
    *(("Not", 1, bool), ("And", 2, bool), ("Where", 3, bool), ("BitwiseOr", 2, np.uint8)),
]


@pytest.mark.parametrize(("op", "count", "dtype"), _SCALARS)
def test_a_result_without_dimensions_is_an_array(op, count, dtype):
    assert call(op, *[np.ones((), dtype)] * count).shape == ()


def test_a_reduced_or_gathered_scalar_is_an_array():
    x = f32(1, 2)
    check(call("ReduceSum", x, i64(0), keepdims=0), 3, np.float32)
    check(call("ReduceLogSumExp", f32(5), keepdims=0), 5, np.float32)
    check(call("ArgMax", x, keepdims=0), 1, np.int64)
    check(call("Gather", x, scalar(-1, np.int64)), 2, np.float32)
    check(call("GatherND", x, i64(1)), 2, np.float32)
    check(call("Size", x), 2, np.int64)


@pytest.mark.parametrize(
    ("op", "count", "gives"),
    [("Add", 2, [8, 8]), ("Div", 2, [1, 1]), ("Max", 2, [4, 4]), ("Mean", 3, [4, 4]),
     ("Sqrt", 1, [2, 2]), ("Sign", 1, [1, 1]), ("ReduceSum", 1, [8]), ("ReduceMax", 1, [4])],
)  # fmt: skip
def test_bfloat16_stays_bfloat16(op, count, gives):
    check(call(op, *[np.array([4, 4], BF16)] * count), gives, BF16)


def test_dropout_passes_its_input_and_a_full_mask():
    y, mask = call("Dropout", f32(1, 2), outputs=2)
    check(y, [1, 2], np.float32)
    check(mask, [True, True], np.bool_)
    inputs = (f32(1, 2), scalar(0.5), scalar(False, np.bool_))
    check(build("Dropout", inputs, known=[2])(*inputs), [1, 2], np.float32)


@pytest.mark.parametrize("position", [0, 1])
def test_a_large_dying_input_is_overwritten(position):
    inputs = [np.full(LARGE, 5, np.float32), np.full(LARGE, 3, np.float32)]
    result = build("Sub", inputs, reusable=[position])(*inputs)
    assert result is inputs[position]
    check(result, np.full(LARGE, 2), np.float32)


def test_an_input_that_lives_on_is_not_overwritten():
    x = np.ones(LARGE, np.float32)
    check(build("Add", (x, x))(x, x), np.full(LARGE, 2), np.float32)
    check(x, np.ones(LARGE), np.float32)


def test_an_input_smaller_than_the_result_is_not_overwritten():
    row, column = np.ones((1, LARGE), np.float32), np.ones((2, 1), np.float32)
    result = build("Add", (row, column), reusable=[0])(row, column)
    check(result, np.full((2, LARGE), 2), np.float32)
    check(row, np.ones((1, LARGE)), np.float32)


@pytest.mark.parametrize("op", ["Add", "Neg", "Clip", "ScatterND"])
def test_an_array_that_forbids_writing_is_not_overwritten(op):
    x = np.ones(LARGE, np.float32)
    x.flags.writeable = False
    others = {"Add": (x,), "Clip": (scalar(0), scalar(9)), "ScatterND": (i64([0]), f32(5))}
    inputs = (x, *others.get(op, ()))
    assert not np.shares_memory(build(op, inputs, reusable=[0])(*inputs), x)


def test_a_comparison_does_not_write_its_truth_values_over_numbers():
    x = np.ones(LARGE, np.float32)
    check(build("Equal", (x, x), reusable=[0, 1])(x, x), np.ones(LARGE, bool), np.bool_)


def test_scatter_writes_only_into_data_that_dies():
    x, index, update = f32(1, 2), i64([0]), f32(9)
    check(build("ScatterND", (x, index, update))(x, index, update), [9, 2], np.float32)
    check(x, [1, 2], np.float32)
    assert build("ScatterND", (x, index, update), reusable=[0])(x, index, update) is x


@pytest.mark.parametrize(
    ("dtype", "largest", "smallest"),
    [(np.float32, INF, -INF), (BF16, INF, -INF), (np.int8, 127, -128), (np.uint8, 255, 0),
     (np.bool_, True, False)],
)  # fmt: skip
def test_an_empty_set_has_the_opposite_extreme(dtype, largest, smallest):
    x = zeros(2, 0, dtype=dtype)
    check(call("ReduceMin", x, i64(1), keepdims=0), [largest] * 2, dtype)
    check(call("ReduceMax", x, i64(1), keepdims=0), [smallest] * 2, dtype)


@pytest.mark.parametrize(
    ("op", "value"),
    [("Sum", 0), ("L1", 0), ("L2", 0), ("SumSquare", 0), ("Prod", 1), ("LogSum", -INF),
     ("LogSumExp", -INF)],
)  # fmt: skip
def test_an_empty_set_has_the_neutral_value(op, value):
    check(call("Reduce" + op, zeros(2, 0), i64(1)), [[value]] * 2, np.float32)


@pytest.mark.parametrize(
    ("x", "k", "largest", "values", "index"),
    [
        (i32(3, 1, 3, 2, 1, 3), 4, 1, [3, 3, 3, 2], [0, 2, 5, 3]),
        (i32(3, 1, 3, 2, 1, 3), 3, 0, [1, 1, 2], [1, 4, 3]),
        (np.int8([0, -128, 127]), 3, 1, [127, 0, -128], [2, 0, 1]),
        (u8(0, 255, 1), 2, 1, [255, 1], [1, 2]),
    ],
)
def test_top_k_puts_the_lower_index_first_among_equals(x, k, largest, values, index):
    results = call("TopK", x, i64(k), outputs=2, largest=largest)
    check(results[0], values, x.dtype)
    check(results[1], index, np.int64)


# Results: table in the ONNX operators CumSum and CumProd.
@pytest.mark.parametrize(
    ("exclusive", "reverse", "total", "product"),
    [
        (0, 0, [1, 3, 6], [1, 2, 6]),
        (1, 0, [0, 1, 3], [1, 1, 2]),
        (0, 1, [6, 5, 3], [6, 6, 3]),
        (1, 1, [5, 3, 0], [6, 3, 1]),
    ],
)
def test_accumulation_runs_either_way(exclusive, reverse, total, product):
    x, axis = i32([1, 2, 3]), scalar(-1, np.int64)
    options = {"exclusive": exclusive, "reverse": reverse}
    check(call("CumSum", x, axis, **options), [total], np.int32)
    check(call("CumProd", x, axis, **options), [product], np.int32)


def test_an_uneven_split_leaves_the_last_part_smaller():
    parts = call("Split", i64(*range(7)), outputs=3, num_outputs=3)
    assert [p.tolist() for p in parts] == [[0, 1, 2], [3, 4, 5], [6]]


def test_a_split_has_the_sizes_given():
    parts = call("Split", i64([0, 1, 2, 3]), i64(1, 0, 3), outputs=3, axis=-1)
    assert [p.tolist() for p in parts] == [[[0]], [[]], [[1, 2, 3]]]


def test_unique_keeps_the_order_of_appearance_where_asked():
    results = call("Unique", f32(2, 1, 1, 3, 4, 3), outputs=4, sorted=0)
    expected = [[2, 1, 3, 4], [0, 1, 3, 4], [0, 1, 1, 2, 3, 2], [1, 2, 2, 1]]
    assert [r.tolist() for r in results] == expected
    assert [r.dtype for r in results[1:]] == [np.int64] * 3


def test_a_constant_cannot_be_written_to():
    assert not call("Constant", value=f32(1)).flags.writeable


def test_a_constant_of_shape_is_a_new_array_each_time():
    kernel = build("ConstantOfShape", (i64(2),), value=np.int8([7]))
    kernel(i64(2))[0] = 0
    check(kernel(i64(2)), [7, 7], np.int8)


@pytest.mark.parametrize("dtype", [np.int32, np.float32, np.float16, BF16])
@pytest.mark.parametrize(
    ("bounds", "gives"),
    [((1, 8, 3), [1, 4, 7]), ((1, 7, 3), [1, 4]), ((5, 0, -2), [5, 3, 1]), ((0, -1, 1), [])],
)
def test_a_range_leaves_its_limit_out(bounds, gives, dtype):
    check(call("Range", *(scalar(b, dtype) for b in bounds)), gives, dtype)


def test_a_long_range_of_short_floats_does_not_lose_its_step():
    # 257 is no bfloat16: counted in bfloat16 its place would have 3 * 256 = 768
    result = call("Range", *(scalar(b, BF16) for b in (0, 776, 3)))
    check(result[256:], [768, 772, 776], BF16)


def test_no_operator_is_in_two_families():
    for a, b in itertools.combinations(FAMILIES, 2):
        assert not a.KERNELS.keys() & b.KERNELS.keys()
