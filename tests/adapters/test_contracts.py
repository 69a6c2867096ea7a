"""Our own adapters keep the published contract, every exporter and the importers of ONNX."""

from __future__ import annotations

from typing import Any

import pytest
from onnx_ir import Model

import qonnx_hub as qh
from qonnx_hub.io import registry
from qonnx_hub.io.registry import find_exporter, find_importer
from qonnx_hub.testing import ExporterContract, ImporterContract
from qonnx_hub.testing_models import feature_models
from qonnx_hub_adapters.features import features_of
from qonnx_hub_adapters.protocol import (
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


class TestQcdqImporter(ImporterContract):
    form = "qcdq"

    def make_importer(self) -> Importer:
        return find_importer(None, self.form)

    def make_source(self) -> Any:
        source = feature_models()[Feature.BITS_2_TO_8]
        model = find_importer(source, "qonnx").load(source, ImportOptions())
        return find_exporter(self.form).export(model, export_options()).to_proto()


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
