"""Certificates of files that compute different things: the verifier rejects each.

Every pair says what it computes; that the two differ follows from ONNX's operator documents.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.helper import make_node

from qonnx_hub.verifier import FORMAT, RejectedError, digest, verify

FLOAT = np.float32
QONNX = "qonnx.custom_op.general"
LOWEST = -int(np.array(np.inf, dtype=FLOAT).view(np.int32)) - 1


def net(*nodes, shape=(1, 3, 3), opset=13, held=None, domain="own", result=TensorProto.FLOAT):
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", result, None)],
        [numpy_helper.from_array(np.asarray(a), name) for name, a in (held or {}).items()],
    )
    imports = {"": opset, QONNX: 1, domain: 1}
    opsets = [helper.make_opsetid(*item) for item in imports.items()]
    return helper.make_model(graph, opset_imports=opsets)


def rank(value):
    """Return the place of a float32 in the order of all."""
    bits = int(FLOAT(value).view(np.int32))
    return bits if bits >= 0 else ~(bits & 0x7FFFFFFF)


def steps(thresholds, levels):
    """Return the claim that 't' of both files has these levels as a function of 'x'."""
    row = {"starts": [LOWEST, *map(rank, thresholds)], "levels": [float(v) for v in levels]}
    one, other = ({"side": side, "source": "x", "target": "t"} for side in "ab")
    return {"one": one, "other": other, "table": {"channels": [0], "rows": [row]}}


def holds(folder, a, b, *functions):
    """Return what a certificate says that claims equality and assumes all it may."""
    paths = folder / "a.onnx", folder / "b.onnx"
    for model, path in zip((a, b), paths, strict=True):
        onnx.save(model, path)
    operators = {node.op_type for model in (a, b) for node in model.graph.node}
    certificate = {
        "format": FORMAT,
        "files": dict(zip("ab", map(digest, paths), strict=True)),
        "inputs": [["x", "x"]],
        "outputs": [["y", "y"]],
        "values": [],
        "functions": list(functions),
        "assumptions": {"operators": sorted(operators), "nan": ["t"], "left out": []},
    }
    return verify(certificate, *paths)


def three():
    return {"c": np.array([1, 2, 3], dtype=FLOAT)}


def own(op="Op", domain="own", **attributes):
    return net(make_node(op, ["x"], ["y"], domain=domain, **attributes), domain=domain)


def clip(*nodes, **held):
    return net(
        make_node("Clip", ["x"], ["c"], min=0.0, max=9.0), *nodes, opset=6, held=held or None
    )


def drawn():
    """Dropout that drops: two runs of one file differ."""
    held = {"ratio": FLOAT(0.5), "training": np.True_}
    return net(make_node("Dropout", ["x", "ratio", "training"], ["y"]), held=held)


def shape_of_quant(*names):
    """The size of what a scale of shape (2, 1) makes of (1, 3), and of (1, 3)."""
    quant = make_node("Quant", ["x", "s", "z", "b"], ["q"], domain=QONNX)
    held = {"s": np.array([[1], [2]], dtype=FLOAT), "z": FLOAT(0), "b": FLOAT(4)}
    nodes = [quant] if "q" in names else []
    last = make_node("Shape", [*names], ["y"])
    return net(*nodes, last, shape=(1, 3), held=held, result=TensorProto.INT64)


def largest(*names):
    """The largest of the first part of x, which is split into parts of these names."""
    nodes = [
        make_node("Split", ["x"], [*names]),
        make_node("ReduceMax", [names[0]], ["y"], keepdims=0),
    ]
    return net(*nodes, shape=(6,))


def normalized(*further):
    """BatchNormalization: with the statistics of the batch where it has further outputs."""
    held = {
        name: np.full(3, value, dtype=FLOAT)
        for name, value in {"s": 1, "b": 0, "m": 0, "v": 1}.items()
    }
    node = make_node("BatchNormalization", ["x", *held], ["y", *further])
    return net(node, opset=9, held=held)


def one_hot(opset):
    """Index -1: out of range in opset 9, the last one in opset 11."""
    held = {"k": np.array([-1], dtype=np.int64), "d": np.array([3], dtype=np.int64)}
    held["v"] = np.array([0, 1], dtype=FLOAT)
    nodes = [make_node("OneHot", ["k", "d", "v"], ["h"]), make_node("Add", ["x", "h"], ["y"])]
    return net(*nodes, opset=opset, held=held)


def divided_by(number):
    return net(make_node("Div", ["x", "k"], ["y"]), held={"k": FLOAT(number)})


def own_version(version):
    model = own()
    model.opset_import[-1].version = version
    return model


def named_add(*inputs):
    """An operator of a domain of its own that is called Add and may be anything."""
    return net(make_node("Add", [*inputs], ["y"], domain="own"), held={"k": FLOAT(2)})


def with_numbers(**held):
    """Return a net whose further outputs are stored numbers."""
    model = net(make_node("Neg", ["x"], ["y"]), held=held)
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ()) for name in held]
    model.graph.output.extend(values)
    return model


PAIRS = {
    "a half, and a third": (largest("u", "v"), largest("u", "v", "w")),
    "statistics of the batch, and stored ones": (
        normalized("mean", "var", "saved_mean", "saved_var"),
        normalized(),
    ),
    "an index out of range, and the last one": (one_hot(9), one_hot(11)),
    "infinity, and minus infinity": (divided_by(0.0), divided_by(-0.0)),
    "two versions of a domain": (own_version(1), own_version(2)),
    "an operator of another domain, and one with its inputs swapped": (
        named_add("x", "k"),
        named_add("k", "x"),
    ),
    "one output of an unknown operator, and two": (
        own(),
        net(make_node("Op", ["x"], ["y", "z"], domain="own")),
    ),
    "5, and 6": (with_numbers(c=5.0), with_numbers(c=6.0, d=7.0)),
    "a stored number, and nothing": (with_numbers(c=5.0), with_numbers()),
    "broadcast along axis 1, and along the last": (
        net(make_node("Add", ["x", "c"], ["y"], broadcast=1, axis=1), opset=6, held=three()),
        net(make_node("Add", ["x", "c"], ["y"]), held=three()),
    ),
    "slopes along axis 1, and along the last": (
        net(make_node("PRelu", ["x", "c"], ["y"]), opset=6, held=three()),
        net(make_node("PRelu", ["x", "c"], ["y"]), held=three()),
    ),
    "dropout that drops by default, and nothing": (
        net(make_node("Dropout", ["x"], ["y"]), opset=6),
        net(make_node("Identity", ["x"], ["y"])),
    ),
    "dropout that drops, twice": (drawn(), drawn()),
    "the second half, and the mask of the first": (
        net(make_node("Split", ["x"], ["u", "y"]), shape=(4, 3)),
        net(
            make_node("Split", ["x"], ["u", "v"]),
            make_node("Dropout", ["u"], ["w", "y"]),
            shape=(4, 3),
            result=TensorProto.BOOL,
        ),
    ),
    "a bound, and a value that is called like the bound": (
        clip(make_node("Identity", ["c"], ["y"])),
        clip(
            make_node("Add", ["c", "c attribute min"], ["y"]), **{"c attribute min": FLOAT(5)}
        ),
    ),
    "two values of one name": (
        net(make_node("Neg", ["x"], ["y"])),
        net(make_node("Neg", ["x"], ["y"]), make_node("Abs", ["x"], ["y"])),
    ),
    "no sizes, and all": (
        net(make_node("Shape", ["x"], ["y"], end=0), opset=15, result=TensorProto.INT64),
        net(make_node("Shape", ["x"], ["y"]), opset=15, result=TensorProto.INT64),
    ),
    "the size behind a quantizer that widens, and before": (
        shape_of_quant("q"),
        shape_of_quant("x"),
    ),
    "domains that share a part": (own(domain="ai.onnxown"), own()),
    "operators that share a part": (own("OpIntQ"), own("OpQ")),
    "a quantizer of another domain": (
        net(
            make_node("QuantizeLinear", ["x", "s"], ["y"], domain="own"), held={"s": FLOAT(1)}
        ),
        net(make_node("QuantizeLinear", ["x", "s"], ["y"]), held={"s": FLOAT(1)}),
    ),
    "attributes that are not UTF-8": (own(mode=b"\xff"), own(mode=b"\xfe")),
    "an attribute whose default nobody knows": (own(pads=[0, 0]), own()),
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_files_that_differ_are_rejected(pair, tmp_path):
    with pytest.raises(RejectedError):
        holds(tmp_path, *pair)


def codes(*nodes, **options):
    """Return a net of codes 0 to 255 of x, called "k", and of "t", which becomes y."""
    held = {"one": FLOAT(1), "two": np.int32(2), "half": FLOAT(0.5)}
    held |= {"b": np.int8(100), "f": FLOAT(100), "low": FLOAT(0), "high": FLOAT(100)}
    before = [
        make_node("Clip", ["x", "low", "high"], ["r"]),
        make_node("QuantizeLinear", ["r", "one"], ["k"]),
    ]
    return net(*before, *nodes, shape=(5,), held=held, **options)


def cast(source, target, kind):
    return make_node("Cast", [source], [target], to=kind)


def halves():
    """Return where the codes 1 to 100 start: ties go to the even one."""
    return [
        v - 0.5 if v % 2 == 0 else np.nextafter(FLOAT(v - 0.5), FLOAT(v))
        for v in range(1, 101)
    ]


def test_integers_that_divide_are_not_taken_for_floats(tmp_path):
    # 3 / 2 is 1 in integers, and 1.5 in floats.
    whole = [cast("k", "i", TensorProto.INT32), make_node("Div", ["i", "two"], ["d"])]
    a = codes(*whole, cast("d", "t", TensorProto.FLOAT), make_node("Neg", ["t"], ["y"]))
    real = [cast("k", "i", TensorProto.FLOAT), make_node("Mul", ["i", "half"], ["t"])]
    b = codes(*real, make_node("Neg", ["t"], ["y"]))
    with pytest.raises(RejectedError, match="Div of integers"):
        holds(tmp_path, a, b, steps(halves(), [v / 2 for v in range(101)]))


def test_integers_that_wrap_are_not_taken_for_floats(tmp_path):
    # 100 + 100 is -56 in int8.
    short = [cast("k", "i", TensorProto.INT8), make_node("Add", ["i", "b"], ["d"])]
    a = codes(*short, cast("d", "t", TensorProto.FLOAT), make_node("Neg", ["t"], ["y"]))
    real = [cast("k", "i", TensorProto.FLOAT), make_node("Add", ["i", "f"], ["t"])]
    b = codes(*real, make_node("Neg", ["t"], ["y"]))
    with pytest.raises(RejectedError, match="Add of integers"):
        holds(tmp_path, a, b, steps(halves(), [v + 100 for v in range(101)]))


def test_equal_values_of_two_types_are_not_one_value(tmp_path):
    # 100 + 100 + 100 is 300 in floats, and 44 in uint8.
    total = make_node("Sum", ["t", "t", "t"], ["y"])
    a = codes(cast("k", "t", TensorProto.FLOAT), total)
    b = codes(make_node("Identity", ["k"], ["t"]), total, result=TensorProto.UINT8)
    with pytest.raises(RejectedError, match="one type and another"):
        holds(tmp_path, a, b, steps(halves(), range(101)))


def test_a_level_that_is_rounded_to_a_named_type_is_not_overlooked(tmp_path):
    # 3 * float32(0.1) is no float16.
    held = {"s": FLOAT(0.1), "z": np.int8(0)}

    def levels(**attributes):
        return net(
            make_node("QuantizeLinear", ["x", "s", "z"], ["k"]),
            make_node("DequantizeLinear", ["k", "s"], ["d"], **attributes),
            cast("d", "t", TensorProto.FLOAT),
            make_node("Neg", ["t"], ["y"]),
            shape=(5,),
            opset=23,
            held=held,
        )

    rounded = levels(output_dtype=TensorProto.FLOAT16)
    with pytest.raises(RejectedError, match="a type of its own"):
        holds(tmp_path, rounded, levels(), steps([], [0]))


def is_least(bound, opset):
    """Return a net that says -1 where x is less than the lowest finite number."""
    held = {"low": np.finfo(FLOAT).min, "nine": FLOAT(9)}
    nodes = [make_node("Less", ["c", "low"], ["g"]), cast("g", "t", TensorProto.FLOAT)]
    return net(bound, *nodes, make_node("Neg", ["t"], ["y"]), opset=opset, held=held)


def test_the_finite_bound_that_an_old_clip_does_not_say_is_not_overlooked(tmp_path):
    a = is_least(make_node("Clip", ["x"], ["c"], max=9.0), 9)
    b = is_least(make_node("Min", ["x", "nine"], ["c"]), 13)
    with pytest.raises(RejectedError, match="not so at"):
        holds(tmp_path, a, b, steps([np.finfo(FLOAT).min], [1, 0]))


def test_a_quantizer_whose_scale_is_data_is_not_taken_for_monotone(tmp_path):
    # At 1, 1.5 and 2, Quant(6.4, scale) is 6; at 1.25 it is 6.25.
    held = {"lo": FLOAT(1), "hi": FLOAT(2), "c": FLOAT(6.4), "z": FLOAT(1), "b": FLOAT(4)}
    nodes = [
        make_node("Clip", ["x", "lo", "hi"], ["q"]),
        make_node("Quant", ["c", "q", "z", "b"], ["t"], domain=QONNX),
    ]
    minus = make_node("Neg", ["t"], ["y"])
    b = net(make_node("Clip", ["x", "six", "six"], ["t"]), minus, held={"six": FLOAT(6)})
    with pytest.raises(RejectedError, match="parameters are data"):
        holds(tmp_path, net(*nodes, minus, held=held), b, steps([], [6]))


def test_dropout_that_infers_changes_nothing(tmp_path):
    held = {"ratio": FLOAT(0.5), "training": np.False_}
    a = net(make_node("Dropout", ["x", "ratio", "training"], ["y"]), held=held)
    assert "equal" in holds(tmp_path, a, net(make_node("Identity", ["x"], ["y"])))
