"""Models that mutations start from: small, valid, of every form that is read."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.fuzz.planted_graphs import FORMS, draw_graph
from tests.support import SHARED

LARGEST = 40_000
"""Bytes of a file from a folder that is taken as a seed."""

FOLDERS = ("qdq", "corpus/brevitas", "models/dialects", "models/qonnx_data", "cases/pairs")
"""Below the folder of public models, where that is present."""


@dataclass(frozen=True)
class Seed:
    """A model with inputs.

    Attributes:
        name: What it is.
        model: The model.
        inputs: Values of its inputs.
    """

    name: str
    model: onnx.ModelProto
    inputs: Mapping[str, np.ndarray]


def seed_of(name: str, model: onnx.ModelProto) -> Seed:
    """Return a model with small inputs; open axes have two elements."""
    known = {tensor.name for tensor in model.graph.initializer}
    inputs = {}
    for value in model.graph.input:
        if value.name in known or value.name == "file":
            continue
        sizes = [
            d.dim_value if d.dim_value > 0 else 2 for d in value.type.tensor_type.shape.dim
        ]
        kind = value.type.tensor_type.elem_type or TensorProto.FLOAT
        dtype = helper.tensor_dtype_to_np_dtype(kind)
        if dtype.kind not in "fiub" or np.prod(sizes, initial=1) > 1 << 20:
            continue
        inputs[value.name] = np.ones(sizes, dtype=dtype)
    return Seed(name, model, inputs)


@functools.cache
def house_seeds(graphs: int = 60) -> tuple[Seed, ...]:
    """Return random graphs of each form, each also as the exporters write it."""
    return tuple(_house_seeds(graphs))


def _house_seeds(graphs: int) -> Iterator[Seed]:
    import onnx_ir

    import qonnx_hub as qh
    from qonnx_hub.io.registry import find_exporter
    from qonnx_hub_adapters.protocol import export_options
    from qonnx_hub_ir.errors import HubError

    for number in range(graphs):
        rng = np.random.default_rng([77, number])
        model = draw_graph(rng, FORMS[number % len(FORMS)])
        yield seed_of(f"graph {number}", model)
        for form, options in (
            ("qcdq", {}),
            ("qlinear", {}),
            ("qonnx", {"self_contained": True}),
        ):
            if number % 3:
                continue
            try:
                made = find_exporter(form).export(qh.load(model), export_options(**options))
            except HubError:
                continue  # a gap of that form
            yield seed_of(f"graph {number} as {form}", onnx_ir.to_proto(made.model))


def node_seeds(most: int = 1 << 30) -> Iterator[Seed]:
    """Give ONNX's own node tests, spread over the alphabet."""
    from tests.node_suite import node_cases

    cases = node_cases()
    step = max(1, len(cases) // most)
    for case in cases[::step]:
        if case.model.ByteSize() < LARGEST:
            names = [value.name for value in case.model.graph.input]
            yield Seed(case.name, case.model, dict(zip(names, case.inputs, strict=False)))


def file_seeds(*folders: Path) -> Iterator[Seed]:
    """Give the small models below folders, by default the public ones beside the project."""
    places = folders or tuple(SHARED / name for name in FOLDERS)
    for place in places:
        for path in sorted(place.rglob("*.onnx")):
            if path.stat().st_size > LARGEST:
                continue
            model = onnx.load(path, load_external_data=False)
            yield seed_of(str(path.relative_to(place)), model)
