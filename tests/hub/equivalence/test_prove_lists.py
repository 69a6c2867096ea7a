"""Proofs about tables of two codes, and about integers that move in the place of values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto
from onnx.helper import make_node

from qonnx_hub.equivalence.proof.certificate import Certificate
from qonnx_hub.equivalence.proof.code_values import with_values_of_codes
from qonnx_hub.equivalence.proof.prove import prove_models
from qonnx_hub_adapters.onnx_reader import read_model
from qonnx_hub_adapters.protocol import ImportOptions
from qonnx_hub_adapters.qcdq.importer import QcdqImporter
from tests.support import DOMAIN, model_of

SHAPE = (1, 2, 4, 4)
SCALES = {"s": np.float32(0.3), "r": np.float32(0.7), "t": np.float32(0.9)}
ZEROS = {
    "z": np.array(7, dtype=np.uint8),
    "y": np.array(-3, dtype=np.int8),
    "u": np.array(100, dtype=np.uint8),
}
NUMBERS = {
    **SCALES,
    **ZEROS,
    "wide": np.array(256, dtype=np.int32),
    "low": np.array(-128, dtype=np.int32),
}


def pair(x: str, scale: str, zero: str, out: str) -> list[Any]:
    return [
        make_node("QuantizeLinear", [x, scale, zero], [f"{out}_q"]),
        make_node("DequantizeLinear", [f"{out}_q", scale, zero], [out]),
    ]


def model(nodes: list[Any], *inputs: str, **constants: Any) -> Any:
    given = dict.fromkeys(inputs or ("a",), SHAPE)
    proto = model_of(nodes, given, ["out"], NUMBERS | constants)
    return QcdqImporter().load(proto, ImportOptions())


def table() -> np.ndarray:
    """What a * 256 + (b + 128) looks up: the codes of the sum, by hand."""
    one = (np.arange(256, dtype=np.int64) - 7).astype(np.float32) * SCALES["s"]
    other = (np.arange(-128, 128, dtype=np.int64) + 3).astype(np.float32) * SCALES["r"]
    steps = np.rint((one[:, np.newaxis] + other) / SCALES["t"]) + 100
    return np.clip(steps, 0, 255).astype(np.uint8).reshape(-1)


SUMMED = [
    *pair("a", "s", "z", "one"),
    *pair("b", "r", "y", "other"),
    make_node("Add", ["one", "other"], ["sum"]),
    *pair("sum", "t", "u", "out"),
]


def looked_up(codes: np.ndarray) -> Any:
    nodes = [
        make_node("QuantizeLinear", ["a", "s", "z"], ["aq"]),
        make_node("QuantizeLinear", ["b", "r", "y"], ["bq"]),
        make_node("Cast", ["aq"], ["ai"], to=TensorProto.INT32),
        make_node("Cast", ["bq"], ["bi"], to=TensorProto.INT32),
        make_node("Mul", ["ai", "wide"], ["row"]),
        make_node("Add", ["row", "bi"], ["place"]),
        make_node("Sub", ["place", "low"], ["index"]),
        make_node("Gather", ["codes", "index"], ["outq"]),
        make_node("DequantizeLinear", ["outq", "t", "u"], ["out"]),
    ]
    return model(nodes, "a", "b", codes=codes)


def proof(one: Any, other: Any) -> Certificate:
    return prove_models(one, other, search=False)


def test_a_table_of_two_codes_is_the_sum_that_it_holds() -> None:
    assert proof(model(SUMMED, "a", "b"), looked_up(table())).proven


@pytest.mark.parametrize("place", [0, 31_000, 65_535])
def test_one_code_of_a_table_that_is_another_is_not_proven(place: int) -> None:
    codes = table()
    codes[place] ^= 1
    assert not proof(model(SUMMED, "a", "b"), looked_up(codes)).proven


def test_a_table_that_ends_before_its_last_pair_is_not_proven() -> None:
    assert not proof(model(SUMMED, "a", "b"), looked_up(table()[:-1])).proven


def test_a_table_is_no_sum_of_values_with_a_scale_per_channel() -> None:
    wide = {"s": np.full(2, SCALES["s"], dtype=np.float32), "z": np.full(2, 7, dtype=np.uint8)}
    wide["s"][1] = 0.5
    found = proof(model(SUMMED, "a", "b", **wide), looked_up(table()))
    assert not found.proven


def test_the_values_that_a_table_reads_may_have_been_moved_twice() -> None:
    """The reference moves one value for each of its readers; the table reads it once."""
    nodes = [
        *pair("a", "s", "z", "one"),
        *(make_node("Flatten", ["one"], [name]) for name in "fg"),
        make_node("Mul", ["f", "g"], ["sum"]),
        *pair("sum", "t", "u", "out"),
    ]
    one = (np.arange(256, dtype=np.int64) - 7).astype(np.float32) * SCALES["s"]
    squares = np.clip(np.rint(one * one / SCALES["t"]) + 100, 0, 255).astype(np.uint8)
    other = [
        make_node("QuantizeLinear", ["a", "s", "z"], ["aq"]),
        make_node("Flatten", ["aq"], ["af"]),
        make_node("Cast", ["af"], ["index"], to=TensorProto.INT32),
        make_node("Gather", ["codes", "index"], ["outq"]),
        make_node("DequantizeLinear", ["outq", "t", "u"], ["out"]),
    ]
    assert proof(model(nodes), model(other, codes=squares)).proven


MOVES = {
    "MaxPool": {"kernel_shape": [2, 2], "pads": [1, 0, 0, 1]},
    "Transpose": {"perm": [0, 2, 3, 1]},
    "Flatten": {"axis": 2},
}


def moved(name: str, x: str, out: str) -> Any:
    return make_node(name, [x], [out], **MOVES[name])


def behind_integers(name: str, codes: np.ndarray) -> Any:
    other = [
        make_node("QuantizeLinear", ["a", "s", "z"], ["aq"]),
        moved(name, "aq", "am"),
        make_node("Cast", ["am"], ["index"], to=TensorProto.INT32),
        make_node("Gather", ["codes", "index"], ["outq"]),
        make_node("DequantizeLinear", ["outq", "t", "u"], ["out"]),
    ]
    return model(other, codes=codes)


@pytest.mark.parametrize("name", MOVES)
def test_integers_that_move_are_the_values_that_move(name: str) -> None:
    nodes = [
        *pair("a", "s", "z", "one"),
        moved(name, "one", "sum"),
        *pair("sum", "t", "u", "out"),
    ]
    one = (np.arange(256, dtype=np.int64) - 7).astype(np.float32) * SCALES["s"]
    codes = np.clip(np.rint(one / SCALES["t"]) + 100, 0, 255).astype(np.uint8)
    assert proof(model(nodes), behind_integers(name, codes)).proven
    codes[9] += 1
    assert not proof(model(nodes), behind_integers(name, codes)).proven


@pytest.mark.parametrize(("exponent", "is_rewritten"), [(-99, True), (-101, False)])
def test_integers_of_scales_that_may_lose_bits_stay(exponent: int, is_rewritten: bool) -> None:
    nodes = [
        make_node("QuantizeLinear", ["a", "s", "z"], ["aq"]),
        make_node("Flatten", ["aq"], ["af"]),
        make_node("DequantizeLinear", ["af", "s", "z"], ["out"]),
    ]
    constants = NUMBERS | {"s": np.float32(2.0**exponent)}
    one = read_model(model_of(nodes, {"a": SHAPE}, ["out"], constants))
    assert (with_values_of_codes(one) is not one) == is_rewritten


def test_the_integers_of_two_grids_do_not_move_as_values() -> None:
    """Concat of codes of two scales has no scale of its own."""
    nodes = [
        make_node("QuantizeLinear", ["a", "s", "z"], ["aq"]),
        make_node("QuantizeLinear", ["a", "t", "u"], ["bq"]),
        make_node("Concat", ["aq", "bq"], ["both"], axis=1),
        make_node("DequantizeLinear", ["both", "s", "z"], ["out"]),
    ]
    one = with_values_of_codes(model(nodes))
    assert [node.op_type for node in one.graph][-2:] == ["Concat", "DequantizeLinear"]
    same = with_values_of_codes(model(nodes, t=SCALES["s"], u=ZEROS["z"]))
    assert [node.op_type for node in same.graph][-3:-1] == ["Concat", "QuantizeLinear"]


def test_thresholds_behind_a_listed_value_find_their_channels() -> None:
    """Their operator looks for the axis of channels, which a list of numbers has not."""
    steps = {"steps": np.array([[-1.0, 0.0, 1.0]], dtype=np.float32)}
    thresholds = make_node(
        "MultiThreshold", ["one", "steps"], ["out"], domain=DOMAIN, out_dtype="UINT2"
    )
    source = model(
        [*pair("a", "s", "z", "half"), make_node("Neg", ["half"], ["one"]), thresholds],
        **steps,
    )
    one = (np.arange(256, dtype=np.int64) - 7).astype(np.float32) * SCALES["s"]
    counts = np.searchsorted(steps["steps"][0], -one, side="right").astype(np.float32)
    nodes = [
        make_node("QuantizeLinear", ["a", "s", "z"], ["aq"]),
        make_node("Cast", ["aq"], ["index"], to=TensorProto.INT32),
        make_node("Gather", ["codes", "index"], ["out"]),
    ]
    assert proof(source, model(nodes, codes=counts)).proven
    counts[7] += 1
    assert not proof(source, model(nodes, codes=counts)).proven
