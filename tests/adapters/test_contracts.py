"""Our own adapters keep the published contract: exporters, and the importers of ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from onnx_ir import Model

import qonnx_hub as qh
from qonnx_hub.io import registry
from qonnx_hub.io.registry import find_exporter, find_importer
from qonnx_hub.testing import ExporterContract, ImporterContract
from qonnx_hub.testing_models import feature_models
from qonnx_hub_adapters.features import features_of
from qonnx_hub_adapters.protocol import (
    QONNX_FEATURES,
    AdapterInfo,
    Artifact,
    Exporter,
    ExportOptions,
    Feature,
    Gap,
    Importer,
    ImportOptions,
    Support,
    export_options,
)
from qonnx_hub_ir.errors import NotExactError
from tests.adapters.qlinear.kit import Net


class TestOurExporters(ExporterContract):
    @pytest.fixture(autouse=True, params=list(registry.EXPORTERS))
    def _form(self, request: pytest.FixtureRequest) -> None:
        self.form = str(request.param)

    def make_exporter(self) -> Exporter:
        return find_exporter(self.form)


class TestQonnxImporter(ImporterContract):
    def make_importer(self) -> Importer:
        return find_importer(None, "qonnx")

    def make_source(self) -> Any:
        return feature_models()[Feature.BITS_2_TO_8]

    def feature_sources(self) -> Mapping[Feature, Any]:
        return feature_models()


SPELLED_OUT = "written as steps of standard operators, and read as those"


class OnnxFormContract(ImporterContract):
    """A form of standard ONNX: the exporter makes the sources, onnxruntime answers."""

    form: str

    def make_importer(self) -> Importer:
        return find_importer(None, self.form)

    def feature_sources(self) -> Mapping[Feature, Any]:
        support = self.make_importer().info.support
        return {
            feature: self._written(source)
            for feature, source in feature_models().items()
            if support.get(feature) is Support.EXACT and feature not in self.untried
        }

    def own_answer(self, source: Any, feeds: Mapping[str, Any]) -> Mapping[str, Any]:
        onnxruntime = pytest.importorskip("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(source.SerializeToString(), options)
        names = [output.name for output in session.get_outputs()]
        answers = [
            session.run(None, {name: value[i : i + 1] for name, value in feeds.items()})
            for i in range(len(next(iter(feeds.values()))))
        ]
        return dict(zip(names, map(np.concatenate, zip(*answers, strict=True)), strict=True))

    def _written(self, source: onnx.ModelProto) -> onnx.ModelProto:
        model = find_importer(source, "qonnx").load(source, ImportOptions())
        return find_exporter(self.form).export(model, export_options()).to_proto()


class TestQcdqImporter(OnnxFormContract):
    form = "qcdq"
    untried = dict.fromkeys(
        (Feature.MINIFLOAT, Feature.TRUNC, Feature.CHANNELS_LAST), SPELLED_OUT
    )

    def make_source(self) -> Any:
        return self._written(feature_models()[Feature.BITS_2_TO_8])


class TestQlinearImporter(OnnxFormContract):
    form = "qlinear"
    untried = dict.fromkeys((Feature.MINIFLOAT, Feature.TRUNC), SPELLED_OUT)

    def make_source(self) -> Any:
        net = Net([], {})
        net.quant("x", "q", 0.5, 4)
        net.weight("w", np.array([[1.0, -2.0], [3.0, 0.5]]), 0.5, 4)
        net.add("MatMul", ["q", "w"], "sums")
        net.quant("sums", "y", 0.5, 8)
        return (
            find_exporter(self.form)
            .export(net.model((1, 2), "y"), export_options())
            .to_proto()
        )


def test_every_feature_has_a_model_that_uses_it() -> None:
    for feature, source in feature_models().items():
        model = find_importer(source, "qonnx").load(source, ImportOptions())
        assert feature in features_of(model)
    assert set(feature_models()) == set(Feature)


class _Silent:
    """An exporter that writes whatever it is given, and says nothing of any feature."""

    info = AdapterInfo("silent", "says nothing")

    def gaps(self, model: Model) -> list[Gap]:
        return []

    def export(self, model: Model, options: ExportOptions) -> Artifact:
        return Artifact(model)


def test_a_feature_that_an_exporter_does_not_declare_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "find_exporter", lambda name: _Silent())
    source = feature_models()[Feature.BITS_2_TO_8]
    with pytest.raises(NotExactError, match=r"does not say whether it can write 2\.\.8 bits"):
        qh.convert(source, to="silent")


class _Older(_Silent):
    """An exporter written before zero points could be added after rounding."""

    info = AdapterInfo("older", "", support=dict.fromkeys(QONNX_FEATURES, Support.EXACT))


def test_an_exporter_that_does_not_know_the_order_of_a_zero_point_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "find_exporter", lambda name: _Older())
    assert qh.convert(feature_models()[Feature.ZERO_POINT], to="older").quantizers == ()
    source = feature_models()[Feature.ZERO_POINT_AFTER_ROUNDING]
    with pytest.raises(NotExactError, match="can write zero point added after rounding"):
        qh.convert(source, to="older")


class _Claims(_Silent):
    info = AdapterInfo("claims", "claims all", support=dict.fromkeys(Feature, Support.REFUSED))


class _Contract(ExporterContract):
    def make_exporter(self) -> Exporter:
        return _Claims()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("test_every_feature_is_supported_as_declared", "refused, yet written"),
        ("test_an_option_that_it_does_not_have_is_refused", "does not exist was taken"),
    ],
)
def test_the_contract_fails_for_an_exporter_that_breaks_it(name: str, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        getattr(_Contract(), name)()


class _Mute(ImporterContract):
    """An importer's contract that tries none of the importer's claims."""

    def make_importer(self) -> Importer:
        return find_importer(None, "qonnx")


class _Denied(_Mute):
    """A source that is said to answer otherwise than it is read."""

    def feature_sources(self) -> Mapping[Feature, Any]:
        return feature_models()

    def own_answer(self, source: Any, feeds: Mapping[str, Any]) -> Mapping[str, Any]:
        return {name: value + 1 for name, value in qh.run(source, feeds).items()}


@pytest.mark.parametrize(
    ("contract", "words"),
    [(_Mute, "neither tried nor named"), (_Denied, "the source answers otherwise")],
)
def test_the_contract_fails_for_an_importer_whose_claims_do_not_hold(
    contract: type[ImporterContract], words: str
) -> None:
    with pytest.raises(AssertionError, match=words):
        contract().test_every_exact_claim_is_tried_or_named_as_untried()
