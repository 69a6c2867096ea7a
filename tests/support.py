"""What several test folders share: where public models lie, and small graphs."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

SHARED = Path(__file__).resolve().parents[2] / "shared"
"""Public models and corpora, beside the project where they are present; never needed."""

needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="no public models beside the project"
)

DOMAIN = "qonnx.custom_op.general"


FOREIGN = frozenset({"deeploy_add_rq", "deeploy_conv2d_rq", "deeploy_hardswish_rq"})
"""Public files of a dialect that has tests of its own; nothing runs all of its operators."""


INFINITE = "linear_w1_int"
"""The one net of the Brevitas corpus whose exports hold an infinite scale; it answers NaN."""


def shared_models() -> list[Path]:
    """Return the public ONNX models that can be read, none where the folder is missing."""
    files = sorted((SHARED / "models").rglob("*.onnx"))
    return [file for file in files if file.stem not in FOREIGN]


def corpus(format: str, *verdicts: str) -> list[Path]:
    """Return folders of the Brevitas corpus in a format whose file agrees with torch."""
    index = SHARED / "corpus" / "brevitas" / "INDEX.tsv"
    if not index.exists():
        return []
    with index.open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    wanted = verdicts or ("yes",)
    return [
        index.parent / row["key"]
        for row in rows
        if row["format"] == format
        and row["faithful"] in wanted
        and not row["key"].startswith(INFINITE)
    ]


def model_of(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[Any, ...]],
    outputs: list[str],
    constants: dict[str, Any] | None = None,
    opset: int = 19,
    domains: tuple[str, ...] = (DOMAIN,),
) -> onnx.ModelProto:
    """Return a model of float32 inputs; Python numbers become float32 constants."""
    arrays = {
        name: value if isinstance(value, np.ndarray) else np.asarray(value, dtype=np.float32)
        for name, value in (constants or {}).items()
    }
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    imports = [helper.make_opsetid("", opset)]
    imports += [helper.make_opsetid(domain, 1) for domain in domains]
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


def quant_node(
    x: str, y: str, scale: str = "s", zero: str = "z", bits: str = "b", **attributes: Any
) -> onnx.NodeProto:
    """Return a Quant node with every attribute spelled out."""
    values = {"signed": 1, "narrow": 0, "rounding_mode": "ROUND", **attributes}
    return helper.make_node("Quant", [x, scale, zero, bits], [y], y, domain=DOMAIN, **values)
