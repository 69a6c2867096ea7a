"""The caller's arrays are the caller's: no operator writes into them, or keeps them.

Each session runs twice. Between the runs the caller overwrites what was fed and what came
back; neither may show in the first answer or in the second one. Kernels that work in place
meet every operator in front of them, and every operator as one that may work in place.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import onnx_ir

import qonnx_hub as qh
from tests.guards.variants import Variant, all_variants, loaded, with_constants

Arrays = Mapping[str, np.ndarray]


def with_relus(model: onnx_ir.Model) -> onnx_ir.Model:
    """Return a copy in which a Relu reads every float output."""
    copy = model.clone()
    for index, value in enumerate(copy.graph.outputs):
        if value.dtype == onnx_ir.DataType.FLOAT and value.producer() is not None:
            relu = onnx_ir.Node("", "Relu", [value], name=f"relu_{index}")
            made = relu.outputs[0]
            made.name, made.type, made.shape = f"relu_{index}", value.type, value.shape
            copy.graph.append(relu)
            copy.graph.outputs[index] = made
    return copy


def behind_buffers(model: onnx_ir.Model) -> onnx_ir.Model:
    """Return a copy in which every float input is a buffer that nobody else reads."""
    copy = model.clone()
    first = next(iter(copy.graph), None)
    if first is None:
        return copy
    for index, value in enumerate(copy.graph.inputs):
        if value.dtype == onnx_ir.DataType.FLOAT:
            usages = [(usage.node, usage.idx) for usage in value.uses()]
            there = onnx_ir.Node("", "Neg", [value], name=f"there_{index}")
            back = onnx_ir.Node("", "Neg", [there.outputs[0]], name=f"back_{index}")
            for node in (there, back):
                made = node.outputs[0]
                made.name, made.type, made.shape = f"{node.name}_y", value.type, value.shape
                copy.graph.insert_before(first, node)
            for node, position in usages:
                node.replace_input_with(position, back.outputs[0])
    return copy


def bits(arrays: Arrays) -> dict[str, object]:
    """Return what tells arrays apart to the bit."""
    return {
        name: x.tolist() if x.dtype.kind in "OUS" else (x.dtype, x.shape, x.tobytes())
        for name, x in arrays.items()
    }


def spoil(arrays: Arrays) -> None:
    """Overwrite all arrays with the complement of their bits."""
    for array in arrays.values():
        if array.dtype.kind not in "OUS" and array.size and array.flags.writeable:
            array[...] = np.frombuffer(
                bytes(255 - byte for byte in array.tobytes()), dtype=array.dtype
            ).reshape(array.shape)


def complaint(model: onnx_ir.Model, feeds: Arrays, *, all_tensors: bool = False) -> str:
    """Return what a session does to the caller's arrays, empty where that is nothing."""
    session = qh.Session(model)
    given = {name: array.copy() for name, array in feeds.items()}
    answers = session.run(given, all_tensors=all_tensors)
    if bits(given) != bits(feeds):
        return "writes into its inputs"
    known = bits(answers)
    spoil(given)
    if bits(answers) != known:
        return "answers with the caller's own array"
    spoil(answers)
    again = session.run({n: a.copy() for n, a in feeds.items()}, all_tensors=all_tensors)
    return "" if bits(again) == known else "answers otherwise the second time"


def complaints(variant: Variant) -> dict[str, str]:
    """Return what is wrong, by the form of the net in which it shows."""
    model = loaded(variant)
    assert model is not None
    forms = {
        "alone": model,
        "op -> Relu": with_relus(model),
        "Neg -> Neg -> op": behind_buffers(model),
        "Neg -> Neg -> op -> Relu": with_relus(behind_buffers(model)),
    }
    found = {name: complaint(form, variant.feeds) for name, form in forms.items()}
    for moving in range(min(2, len(variant.feeds))):
        fixed, feeds = with_constants(with_relus(model), variant.feeds, moving)
        found[f"{moving} inputs, other constant"] = complaint(fixed, feeds)
        fixed, feeds = with_constants(model, variant.feeds, moving)
        found[f"{moving} inputs"] = complaint(fixed, feeds)
    found["all tensors"] = complaint(with_relus(model), variant.feeds, all_tensors=True)
    plain = bits(qh.Session(model).run(copies(variant.feeds)))
    behind = qh.Session(behind_buffers(model)).run(copies(variant.feeds))
    if bits(behind) != plain:
        found["Neg -> Neg -> op"] = "computes something else in place"
    return {name: words for name, words in found.items() if words}


def copies(arrays: Arrays) -> dict[str, np.ndarray]:
    return {name: array.copy() for name, array in arrays.items()}


def wrong(variants: list[Variant]) -> dict[str, dict[str, str]]:
    """Return what is wrong with any of them, by label."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {variant.label: complaints(variant) for variant in variants}
    return {label: words for label, words in found.items() if words}


def test_no_operator_touches_what_the_caller_feeds():
    variants = list(all_variants())
    assert len(variants) > 2300
    assert wrong(variants) == {}
