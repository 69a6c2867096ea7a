"""Files of five frameworks, against the answers that those frameworks gave."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir
import pytest

import qonnx_hub as qh
from qonnx_hub_ir.errors import HubError

FOLDER = Path(__file__).parents[4] / "shared" / "kerasfiles"
CASES = sorted(path.parent for path in FOLDER.glob("*/meta.json"))


def source_of(folder: Path) -> tuple[str, str | None]:
    files = sorted(f for f in folder.iterdir() if f.name not in ("meta.json", "io.npz"))
    configs = [f for f in files if f.suffix == ".json"]
    rest = [f for f in files if f not in configs]
    if configs:
        return str(configs[0]), str(rest[0])
    return str(rest[0]), None


def recorded(io: np.lib.npyio.NpzFile, kind: str) -> list[np.ndarray]:
    names = sorted(
        (n for n in io.files if n.startswith(kind)), key=lambda n: int(n[len(kind) :])
    )
    return [io[name] for name in names]


def agrees(found: list[np.ndarray], wanted: list[np.ndarray], tolerance: str) -> bool:
    if tolerance.startswith("bit-equal"):
        pairs = zip(found, wanted, strict=True)
        return all(np.array_equal(a.reshape(b.shape), b, equal_nan=True) for a, b in pairs)
    for a, b in zip(found, wanted, strict=True):
        off = np.abs(a.reshape(b.shape).astype(np.float64) - b)
        beyond = off > 1e-5 * max(1.0, float(np.abs(b).max()))
        # One quantization step where a sum lies on a tie, as the record says.
        share = 0.01 if "one quantization step" in tolerance else 0.0
        if beyond.mean() > share:
            return False
    return True


def loaded(source: str, weights: str | None) -> tuple[onnx_ir.Model | None, str]:
    try:
        return qh.load(source, weights=weights), ""
    except HubError as error:
        return None, str(error)


@pytest.mark.parametrize("folder", CASES, ids=lambda path: path.name)
def test_a_file_gives_the_frameworks_answer_or_is_refused_by_name(folder, tmp_path):
    meta, io = json.loads((folder / "meta.json").read_text()), np.load(folder / "io.npz")
    source, weights = source_of(folder)
    model, refusal = loaded(source, weights)
    if model is None:
        assert "refuse" in meta["expect"], refusal
        assert any(name in refusal for name in meta["classes"])
        return
    assert meta["expect"].startswith("equal")
    feeds = dict(
        zip([str(v.name) for v in model.graph.inputs], recorded(io, "in_"), strict=True)
    )
    written = tmp_path / "model.onnx"
    qh.convert(source, str(written), to="qonnx", weights=weights, check=False)
    # A compiled call divides in another way: either of the framework's answers is right.
    answers = [recorded(io, "out_"), recorded(io, "graph_out_")]
    answers = [one for one in answers if one]
    for target in (model, str(written)):
        found = list(qh.run(target, feeds).values())
        assert any(
            len(one) == len(found) and agrees(found, one, meta["tolerance"]) for one in answers
        )
