"""What the importer takes, what it leaves untouched, and how it names what it cannot read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx.helper import make_node

from qonnx_hub.executor.session import Session
from qonnx_hub_adapters.protocol import Importer, ImportOptions
from qonnx_hub_adapters.qcdq.exporter import QcdqExporter
from qonnx_hub_adapters.qcdq.importer import QcdqImporter, kept_reasons
from qonnx_hub_ir.errors import InvalidModelError, SourceError
from tests.support import model_of, quant_node

PAIR = [
    make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "quantize"),
    make_node("DequantizeLinear", ["q", "s", "z"], ["y"], "dequantize"),
]
CONSTANTS = {"s": 0.25, "z": np.array(0, dtype=np.int8)}


def qdq_model(*more: onnx.NodeProto, **options: Any) -> onnx.ModelProto:
    outputs = [more[-1].output[0]] if more else ["y"]
    return model_of([*PAIR, *more], {"x": (2, 3)}, outputs, {**CONSTANTS, "b": 4.0}, **options)


def test_it_is_an_importer_that_shares_its_name_with_the_exporter() -> None:
    assert isinstance(QcdqImporter(), Importer)
    assert QcdqImporter.info is QcdqExporter.info


def test_standard_quantizers_are_accepted(tmp_path: Path) -> None:
    proto = qdq_model(domains=())
    path = tmp_path / "m.onnx"
    onnx.save(proto, path)
    for source in (proto, onnx_ir.from_proto(proto), path, str(path)):
        assert QcdqImporter().accepts(source)


def test_quantizers_of_onnxruntimes_domain_are_accepted() -> None:
    proto = qdq_model(domains=("com.microsoft",))
    for node in proto.graph.node:
        node.domain = "com.microsoft"
    assert QcdqImporter().accepts(proto)
    assert QcdqImporter().accepts(onnx_ir.from_proto(proto))


def test_quantizers_inside_a_branch_are_seen() -> None:
    branch = onnx.helper.make_graph(PAIR, "b", [], [onnx.ValueInfoProto(name="y")])
    node = make_node("If", ["c"], ["out"], then_branch=branch, else_branch=branch)
    assert QcdqImporter().accepts(model_of([node], {"x": (1,)}, ["out"]))


@pytest.mark.parametrize("domain", ["qonnx.custom_op.general", "onnx.brevitas"])
def test_a_file_with_canonical_quantizers_is_not_accepted(domain: str) -> None:
    node = quant_node("y", "out", zero="s")
    node.domain = domain
    proto = qdq_model(node, domains=(domain,))
    assert not QcdqImporter().accepts(proto)
    assert not QcdqImporter().accepts(onnx_ir.from_proto(proto))


def test_a_float_model_and_other_things_are_not_accepted(tmp_path: Path) -> None:
    relu = model_of([make_node("Relu", ["x"], ["y"])], {"x": (2,)}, ["y"])
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x0a\xff\xff")
    named = tmp_path / "m.txt"
    named.write_bytes(qdq_model().SerializeToString())
    for source in (relu, broken, tmp_path / "missing.onnx", named, 3, None):
        assert not QcdqImporter().accepts(source)


def test_a_message_is_not_changed() -> None:
    proto = qdq_model(domains=())
    before = proto.SerializeToString()
    QcdqImporter().load(proto, ImportOptions())
    assert proto.SerializeToString() == before


def test_a_graph_is_not_changed() -> None:
    model = onnx_ir.from_proto(qdq_model(domains=("com.microsoft",)))
    for node in model.graph:
        node.domain = "com.microsoft"
    before = onnx_ir.to_proto(model).SerializeToString()
    loaded = QcdqImporter().load(model, ImportOptions())
    assert [node.op_type for node in loaded.graph] == ["Quant"]
    assert onnx_ir.to_proto(model).SerializeToString() == before


def test_the_same_source_gives_the_same_bytes() -> None:
    loaded = [QcdqImporter().load(qdq_model(domains=()), ImportOptions()) for _ in range(2)]
    first, second = (onnx_ir.to_proto(m).SerializeToString() for m in loaded)
    assert first == second


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"gone\.onnx' does not exist"):
        QcdqImporter().load(tmp_path / "gone.onnx", ImportOptions())


def test_a_broken_rule_is_reported_once_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "odd.onnx"
    odd = make_node("QLinearAdd", ["y"], ["out"], "odd", domain="com.microsoft")
    onnx.save(qdq_model(odd, domains=("com.microsoft",)), path)
    with pytest.raises(InvalidModelError, match=r"(?s)odd\.onnx.*QLinearAdd") as caught:
        QcdqImporter().load(path, ImportOptions())
    assert "given Model" not in str(caught.value)
    assert len(caught.value.issues) == 1


def test_a_malformed_source_is_reported_as_reading_it_reports_it(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x0a\xff\xff")
    with pytest.raises(SourceError, match=r"m\.onnx' is not an ONNX file"):
        QcdqImporter().load(path, ImportOptions())


def save_with_data_beside(path: Path) -> np.ndarray:
    codes = np.arange(-60, 60, dtype=np.int8).reshape(10, 12)
    nodes = [
        make_node("DequantizeLinear", ["w", "s", "z"], ["v"]),
        make_node("MatMul", ["x", "v"], ["y"]),
    ]
    proto = model_of(nodes, {"x": (1, 10)}, ["y"], {**CONSTANTS, "w": codes}, domains=())
    onnx.save(proto, path, save_as_external_data=True, location="m.data", size_threshold=10)
    return codes


def test_data_beside_the_file_is_found_from_its_folder(tmp_path: Path) -> None:
    codes = save_with_data_beside(tmp_path / "m.onnx")
    model = QcdqImporter().load(tmp_path / "m.onnx", ImportOptions())
    assert kept_reasons(model) == {}
    x = np.ones((1, 10), dtype=np.float32)
    y = Session(model).run({"x": x})["y"]
    np.testing.assert_array_equal(y, codes.sum(axis=0, keepdims=True) * 0.25)


def test_missing_data_does_not_hinder_accepting_but_is_named_in_loading(
    tmp_path: Path,
) -> None:
    save_with_data_beside(tmp_path / "m.onnx")
    (tmp_path / "m.data").unlink()
    assert QcdqImporter().accepts(tmp_path / "m.onnx")
    with pytest.raises(SourceError, match=r"m\.data' of '\w' is missing"):
        QcdqImporter().load(tmp_path / "m.onnx", ImportOptions())


def test_quantizers_in_a_function_are_read() -> None:
    proto = model_of(
        [make_node("Block", ["x", "s", "z"], ["y"], domain="local")],
        {"x": (2, 3)},
        ["y"],
        CONSTANTS,
        domains=("local",),
    )
    imports = [onnx.helper.make_opsetid("", 19)]
    proto.functions.append(
        onnx.helper.make_function("local", "Block", ["x", "s", "z"], ["y"], PAIR, imports)
    )
    assert QcdqImporter().accepts(proto)
    model = QcdqImporter().load(proto, ImportOptions())
    assert [node.op_type for node in model.graph] == ["Quant"]
