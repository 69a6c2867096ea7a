"""The verbs: what they write, what they refuse, and what they leave behind (nothing)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import helper

import qonnx_hub as qh
from qonnx_hub.api import ConversionError
from qonnx_hub.equivalence.verdicts import Verdict
from qonnx_hub.io import registry
from qonnx_hub.io.atomic import replacing
from qonnx_hub_adapters.dependencies import require
from qonnx_hub_adapters.qcdq.exporter import QcdqExporter
from qonnx_hub_ir.errors import (
    AdapterConflictError,
    MissingDependencyError,
    NotExactError,
    SourceError,
    UnknownAdapterError,
    UsageError,
)
from tests.support import model_of, quant_node

CONSTANTS = {"s": 0.25, "z": 0.0, "b": 4.0}


def _model(columns: int = 4) -> onnx.ModelProto:
    weight = np.linspace(-3, 3, 3 * columns, dtype=np.float32).reshape(3, columns)
    nodes = [
        quant_node("x", "xq"),
        quant_node("w", "wq", narrow=1),
        helper.make_node("MatMul", ["xq", "wq"], ["m"], "product"),
        quant_node("m", "y"),
    ]
    return model_of(nodes, {"x": ("N", 3)}, ["y"], {**CONSTANTS, "w": weight})


def test_load_takes_paths_messages_and_models_and_changes_none(tmp_path: Path) -> None:
    message = _model()
    before = message.SerializeToString()
    path = tmp_path / "m.onnx"
    path.write_bytes(before)
    graph = onnx_ir.from_proto(message)
    read = onnx_ir.to_proto(graph).SerializeToString()
    kinds = [qh.load(path), qh.load(str(path)), qh.load(message), qh.load(graph)]
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    answers = [qh.run(model, {"x": x})["y"] for model in kinds]
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer, answers[0])
    assert message.SerializeToString() == before
    assert graph is not kinds[3]
    assert onnx_ir.to_proto(graph).SerializeToString() == read


def test_what_nobody_reads_is_refused_with_the_known_formats() -> None:
    with pytest.raises(UnknownAdapterError, match="no importer reads a list"):
        qh.load([1, 2])
    with pytest.raises(UnknownAdapterError, match=r"no importer reads 'notes\.txt'"):
        qh.load("notes.txt")
    with pytest.raises(UnknownAdapterError, match="no importer is called 'mnn'"):
        qh.load(_model(), "mnn")
    with pytest.raises(SourceError, match="does not exist"):
        qh.load("missing.onnx")


def test_a_conversion_that_changes_the_function_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = QcdqExporter.export

    def faulty(self: QcdqExporter, model: Any, options: Any) -> Any:
        artifact = export(self, model, options)
        for value in artifact.model.graph.initializers.values():
            if value.name == "xq_scale":
                value.const_value = onnx_ir.tensor(np.float32(0.26))
        return artifact

    monkeypatch.setattr(QcdqExporter, "export", faulty)
    with pytest.raises(ConversionError, match="computes other values"):
        qh.convert(_model(), tmp_path / "out.onnx", "qcdq")
    assert list(tmp_path.iterdir()) == []
    # Without the check the caller gets what the exporter made.
    qh.convert(_model(), tmp_path / "out.onnx", "qcdq", check=False)
    assert not qh.check(_model(), tmp_path / "out.onnx")


def test_a_conversion_in_near_form_is_named_as_such(tmp_path: Path) -> None:
    model = model_of([quant_node("x", "y")], {"x": ("N",)}, ["y"], {**CONSTANTS, "z": 3.0})
    report = qh.convert(model, tmp_path / "near.onnx", "qcdq", allow_lossy=True)
    assert [record.exact for record in report.quantizers] == [False]
    assert report.check is not None
    assert report.check.verdict is Verdict.WITHIN
    # Off the ties the near form is the same; at most one step away on them.
    assert report.check.outputs[0].max_abs == 0.25


def test_a_report_says_what_became_of_each_quantizer(tmp_path: Path) -> None:
    report = qh.convert(_model(), tmp_path / "out.onnx", "qcdq")
    assert [(r.node, r.quantizer, r.encoding) for r in report.quantizers] == [
        ("xq", "int4", "Q + Clip + DQ"),
        ("wq", "int4 narrow", "int8 + Clip + DQ"),
        ("y", "int4", "Q + Clip + DQ"),
    ]
    assert report
    assert report.opset == 19
    assert report.to_dict()["check"]["verdict"] in {"EQUAL", "PROVEN"}


def test_what_a_form_cannot_say_is_listed_whole() -> None:
    nodes = [
        helper.make_node(
            "Trunc", ["x", *"szbso"], ["y"], "t2", domain="qonnx.custom_op.general"
        ),
        helper.make_node(
            "Trunc", ["y", *"szbo"], ["u"], "t1", domain="qonnx.custom_op.general"
        ),
    ]
    model = qh.load(model_of(nodes, {"x": ("N",)}, ["u"], {**CONSTANTS, "o": 2.0}))
    with pytest.raises(NotExactError, match="Trunc 't1': version 1 beside") as error:
        qh.save(model, "never.onnx")
    assert len(error.value.gaps) == 1
    assert not Path("never.onnx").exists()


def test_external_weights_stay_external_and_may_not_be_overwritten(tmp_path: Path) -> None:
    source = tmp_path / "a.onnx"
    onnx.save(
        _model(128), source, save_as_external_data=True, location="a.data", size_threshold=0
    )
    report = qh.convert(source, tmp_path / "b.onnx", "qonnx")
    assert report
    assert (tmp_path / "b.onnx.data").exists()
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    expected = qh.run(_model(128), {"x": x})["y"]
    np.testing.assert_array_equal(qh.run(tmp_path / "b.onnx", {"x": x})["y"], expected)
    with pytest.raises(UsageError, match="still reads"):
        qh.convert(tmp_path / "b.onnx", tmp_path / "b.onnx", "qonnx", check=False)
    (tmp_path / "a.data").unlink()
    with pytest.raises(SourceError, match=r"a\.data.*is missing"):
        qh.load(source)


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as temporary:
        temporary.write_text(str(1 / (len("half") - 4)))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    with pytest.raises(UsageError, match="is a folder"), replacing(tmp_path):
        pass


class _Point:
    def __init__(self, name: str, value: str) -> None:
        self.name, self.value = name, value


def test_other_distributions_add_adapters_but_take_no_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mine = [_Point("mine", "tests.support:corpus")]
    monkeypatch.setattr(registry, "entry_points", lambda group: mine)
    assert "mine" in registry.importers().names()
    thief = [_Point("qonnx", "somewhere:Else")]
    monkeypatch.setattr(registry, "entry_points", lambda group: thief)
    with pytest.raises(AdapterConflictError, match=r"'qonnx'.*somewhere:Else"):
        registry.importers()


def test_a_missing_framework_says_what_to_install() -> None:
    with pytest.raises(MissingDependencyError, match=r"pip install 'qonnx-hub\[magic\]'"):
        require("no_such_framework", needed_by="adapter 'magic'", extra="magic")
    assert issubclass(MissingDependencyError, ImportError)


def test_an_inspection_counts_the_integers_in_use() -> None:
    found = qh.inspect(_model())
    weight = next(tensor for tensor in found.tensors if tensor.kind == "weight")
    # -3 to 3 in twelve steps of 6/11, rounded to quarters, clamped to -7..7 steps.
    assert (weight.bits, weight.narrow, weight.scale) == ("4", True, "0.25")
    assert (weight.lowest, weight.highest) == (-7, 7)
    assert found.weight_bits == 12 * 4
    assert found.operators == {"MatMul": 1, "Quant": 3}
