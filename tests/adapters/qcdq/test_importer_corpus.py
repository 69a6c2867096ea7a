"""QCDQ files of Brevitas: the imported graph computes what torch computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx_ir import Model

from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.protocol import ImportOptions
from qonnx_hub_adapters.qcdq.importer import QcdqImporter, kept_reasons
from qonnx_hub_adapters.qonnx.importer import QonnxImporter
from qonnx_hub_ir import dialect
from qonnx_hub_ir.quantizers import IntQuant
from tests.support import corpus, needs_shared

pytestmark = needs_shared

FAITHFUL = corpus("qcdq")
MINIFLOAT = corpus("qcdq", "unknown(peer cannot run)")


def assert_equals_torch(folder: Path) -> None:
    model = QcdqImporter().load(folder / "model.onnx", ImportOptions())
    session = Session(model)
    arrays = np.load(folder / "io.npz")
    inputs = sorted(name for name in arrays if name.startswith("x"))
    outputs = sorted(name for name in arrays if name.startswith("y"))
    assert outputs
    for batch in range(4):
        feeds = {
            name: arrays[key][batch]
            for name, key in zip(session.input_names, inputs, strict=True)
        }
        results = session.run(feeds)
        for value, key in zip(results.values(), outputs, strict=True):
            expected = arrays[key][batch]
            assert np.abs(value - expected).max() <= 2e-6 * np.abs(expected).max()


@pytest.mark.parametrize("folder", FAITHFUL, ids=lambda path: path.name)
def test_a_faithful_file_equals_torch(folder: Path) -> None:
    assert QcdqImporter().accepts(folder / "model.onnx")
    assert_equals_torch(folder)


@pytest.mark.parametrize("folder", MINIFLOAT, ids=lambda path: path.name)
def test_a_small_float_file_that_no_runtime_loads_equals_torch(folder: Path) -> None:
    assert_equals_torch(folder)


def test_only_what_has_a_dynamic_scale_or_no_limits_stays() -> None:
    assert len(FAITHFUL) > 100
    kept = {
        folder.name
        for folder in FAITHFUL
        if kept_reasons(QcdqImporter().load(folder / "model.onnx", ImportOptions()))
    }
    dynamic = {"relu_dynamic_u8__qcdq_ts", "relu_dynamic_u8__qcdq_dyn"}
    assert kept == dynamic | {"upsample_bilinear__qcdq_ts"}


def int_quants(model: Model) -> list[tuple[float, bool, bool, bytes]]:
    nodes = [node for node in model.graph if dialect.is_quantizer(node)]
    quants = [dialect.read_quantizer(node) for node in nodes]
    return [
        (float(np.asarray(q.bits)), q.signed, q.narrow, np.asarray(q.scale).tobytes())
        for q in quants
        if isinstance(q, IntQuant)
    ]


NOT_COMPARABLE = {
    "ident_shifted_u8": "an odd zero point of QuantizeLinear has no quantizer of its own",
    "bias_int16": "QCDQ stores a bias of 16 bits as int32",
    "linear_full_io": "QCDQ stores a bias of 16 bits as int32",
    "t_qt_pool_flatten": "QCDQ stores a bias of 16 bits as int32",
    "trunc_avgpool_b8": "the QONNX file has a Trunc where QCDQ quantizes once more",
}


def with_sibling() -> list[Path]:
    """QCDQ files of which the same model was written as QONNX, by the same exporter."""
    names = {folder.name for folder in corpus("qonnx")}
    return [
        folder
        for folder in FAITHFUL
        if folder.name.endswith("__qcdq_ts")
        and folder.name.replace("__qcdq_", "__qonnx_") in names
        and folder.name.removesuffix("__qcdq_ts") not in NOT_COMPARABLE
    ]


@pytest.mark.parametrize("folder", with_sibling(), ids=lambda path: path.name)
def test_the_quantizers_are_those_of_the_qonnx_file(folder: Path) -> None:
    sibling = folder.with_name(folder.name.replace("__qcdq_", "__qonnx_")) / "model.onnx"
    ours = QcdqImporter().load(folder / "model.onnx", ImportOptions())
    theirs = QonnxImporter().load(sibling, ImportOptions())
    assert sorted(int_quants(ours)) == sorted(int_quants(theirs))
