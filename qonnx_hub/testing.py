"""For test suites, of this project and of others: models that must agree, and why they do not.

In a suite that uses pytest, ``pytest_plugins = ["qonnx_hub.testing"]`` in the uppermost
``conftest.py`` gives a fixture ``assert_equivalent``, which is the function of that name.

Adapters, ours and those of others, subclass :class:`ImporterContract` and
:class:`ExporterContract`: what every adapter keeps, as tests.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from qonnx_hub_adapters.features import features_of, undeclared_gaps
from qonnx_hub_adapters.protocol import (
    Exporter,
    ExportOptions,
    Feature,
    Importer,
    ImportOptions,
    Prepares,
    Support,
)
from qonnx_hub_ir.errors import (
    HubError,
    MissingDependencyError,
    UnsupportedGraphError,
    UsageError,
)

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnx_ir import Model

    from qonnx_hub.equivalence.reports.report import CheckResult
    from qonnx_hub_ir.quantizers import Array


def assert_equivalent(
    a: Any, b: Any, inputs: Mapping[str, Array] | None = None, **options: Any
) -> CheckResult:
    """Return the result of a check that must find two models equal, or within tolerances.

    Args:
        a: The reference, as in :func:`qonnx_hub.check`.
        b: The other side.
        inputs: Inputs by name; generated otherwise.
        **options: As in :func:`qonnx_hub.check`; ``level="proof"`` demands a proof.

    Raises:
        AssertionError: They differ, or could not be proven equal; the message shows the
            tables, the first layer that differs, and the cause.
        HubError: They cannot be compared.
    """
    # Tells pytest to show the line that called, not this function.
    __tracebackhide__ = True
    import qonnx_hub
    from qonnx_hub.equivalence.verdicts import Verdict

    result = qonnx_hub.check(a, b, inputs, **options)
    if not result:
        raise AssertionError(f"the models are not equivalent\n\n{result.table()}")
    if options.get("level") == "proof" and result.verdict is not Verdict.PROVEN:
        raise AssertionError(f"the models are not proven equivalent\n\n{result.table()}")
    return result


def pytest_configure(config: Any) -> None:
    """Give pytest the fixture ``assert_equivalent``, where this module is used as a plugin."""
    import pytest

    class Fixtures:
        @pytest.fixture(name="assert_equivalent")
        def give(self) -> Any:
            """Return :func:`qonnx_hub.testing.assert_equivalent`."""
            return assert_equivalent

    name = "qonnx_hub.fixtures"
    if not config.pluginmanager.has_plugin(name):
        config.pluginmanager.register(Fixtures(), name)


class ExporterContract:
    """What every exporter keeps, as tests: subclass it in a test module of the adapter.

    ::

        class TestMyExporter(ExporterContract):
            def make_exporter(self):
                return MyExporter()

    Each test holds the matrix ``info.support`` against what the exporter does, feature by
    feature. A form that knows its models only in another shape gives its own
    :meth:`feature_models`.
    """

    def make_exporter(self) -> Exporter:
        """Return the exporter."""
        raise NotImplementedError("return the exporter that is tested")

    def feature_models(self) -> Mapping[Feature, ModelProto]:
        """Return a small model for every feature; those of :mod:`qonnx_hub.testing_models`."""
        from qonnx_hub.testing_models import feature_models

        return feature_models()

    def test_every_feature_is_supported_as_declared(self) -> None:
        """Exact is exact, bounded is written, and what is refused or unknown is refused."""
        exporter = self.make_exporter()
        for feature, model in self._loaded().items():
            claim = exporter.info.support.get(feature, Support.UNKNOWN)
            # Asked for a near form, an exporter may give one where an exact one exists.
            options = ExportOptions(allow_lossy=claim is not Support.EXACT)
            refused = self._refusal(exporter, model, options)
            if claim in (Support.REFUSED, Support.UNKNOWN):
                _demand(refused is not None, f"{feature.value}: {claim.value}, yet written")
                continue
            _demand(refused is None, f"{feature.value}: {claim.value}, yet {refused}")
            artifact = exporter.export(model, options)
            exact = all(record.exact for record in artifact.quantizers)
            _demand(
                exact or claim is Support.BOUNDED,
                f"{feature.value}: exact, yet a record says that it is not",
            )
            if claim is Support.EXACT:
                written = artifact.compared or artifact.model
                assert_equivalent(model, written, samples=16, level="output")

    def test_gaps_are_what_export_refuses(self) -> None:
        """``gaps`` is empty exactly where ``export`` without lossy forms writes the model."""
        exporter = self.make_exporter()
        for feature, model in self._loaded().items():
            gaps = exporter.gaps(model)
            try:
                exporter.export(model, ExportOptions())
            except UnsupportedGraphError as error:
                _demand(bool(gaps), f"{feature.value}: no gaps, yet refused: {error}")
            else:
                _demand(not gaps, f"{feature.value}: written, yet it has gaps: {gaps}")

    def test_the_model_given_is_not_changed(self) -> None:
        """Exporting leaves the model as it was, whether it succeeds or not."""
        exporter = self.make_exporter()
        for feature, model in self._loaded().items():
            before = _bytes_of(model)
            with contextlib.suppress(HubError):
                exporter.export(model, ExportOptions(allow_lossy=True))
            _demand(
                before == _bytes_of(model), f"{feature.value}: the model given was changed"
            )

    def test_the_same_model_gives_the_same_bytes(self) -> None:
        """Two exports are equal to the byte, and so are the files beside them."""
        exporter = self.make_exporter()
        for feature, model in self._loaded().items():
            options = ExportOptions(allow_lossy=True)
            if self._refusal(exporter, model, options) is not None:
                continue
            first, second = (exporter.export(model, options) for _ in range(2))
            same = _bytes_of(first.model) == _bytes_of(second.model)
            _demand(
                same and first.files == second.files, f"{feature.value}: two exports differ"
            )

    def test_an_option_that_it_does_not_have_is_refused(self) -> None:
        """An option without effect is a mistake of the caller, who must hear of it."""
        model = next(iter(self._loaded().values()))
        options = ExportOptions(extra={"no_such_option": 1})
        try:
            self.make_exporter().export(model, options)
        except UsageError as error:
            _demand("no_such_option" in str(error), f"the option is not named: {error}")
        else:
            _demand(False, "an option that does not exist was taken")

    def _loaded(self) -> dict[Feature, Model]:
        import qonnx_hub

        return {
            feature: qonnx_hub.load(message, "qonnx")
            for feature, message in self.feature_models().items()
        }

    def _refusal(self, exporter: Exporter, model: Model, options: ExportOptions) -> str | None:
        """Return why the hub or the exporter refuses a model; ``None`` where it is written."""
        gaps = undeclared_gaps(exporter.info, model)
        if gaps:
            return str(gaps[0])
        try:
            exporter.export(model, options)
        except UnsupportedGraphError as error:
            return str(error)
        return None


class ImporterContract:
    """What every importer keeps, as tests: subclass it in a test module of the adapter.

    Attributes:
        untried: Features that ``info.support`` calls exact and :meth:`feature_sources` does
            not try, each with the reason.
    """

    untried: ClassVar[Mapping[Feature, str]] = {}

    def make_importer(self) -> Importer:
        """Return the importer."""
        raise NotImplementedError("return the importer that is tested")

    def make_source(self) -> Any:
        """Return a source that it reads; where it needs a framework, skip without it."""
        raise NotImplementedError("return a source that the importer reads")

    def make_options(self) -> ImportOptions:
        """Return the options to read the sources with."""
        return ImportOptions()

    def feature_sources(self) -> Mapping[Feature, Any]:
        """Return a source for every feature that the importer reads exactly.

        A source whose sums are exact in any order, best a single quantizer: what is read must
        give its very answer.
        """
        return {}

    def make_feeds(self, model: Model) -> Mapping[str, Array]:
        """Return inputs for what was read, on which the source's answer is exact."""
        from qonnx_hub.equivalence.inputs.generate import generate_inputs

        return generate_inputs(model, seed=0)

    def own_answer(
        self, source: Any, feeds: Mapping[str, Array]
    ) -> Mapping[str, Array] | None:
        """Return what the source itself computes; ``None`` where only the IR runs it."""
        return self.make_importer().run_source(self._prepared(source), feeds)

    def test_it_accepts_its_source_and_nothing_at_all_besides(self) -> None:
        """It takes what it reads, and does not claim what nobody can read."""
        importer = self.make_importer()
        _demand(importer.accepts(self.make_source()), "it does not accept its own source")
        for other in (object(), 3, "no_such_file.xyz"):
            _demand(not importer.accepts(other), f"it accepts {other!r}")

    def test_what_it_reads_is_a_valid_model(self) -> None:
        """The IR keeps its rules, and every value says which source layer it stands for."""
        from qonnx_hub_ir import dialect
        from qonnx_hub_ir.validity import verify

        model = self._read()
        issues = verify(model)
        _demand(not issues, f"the model breaks rules: {issues}")
        for node in model.graph:
            for value in node.outputs:
                known = not value.name or dialect.PROVENANCE in value.metadata_props
                _demand(known, f"'{value.name}' does not name its source layer")

    def test_every_exact_claim_is_tried_or_named_as_untried(self) -> None:
        """What is called exact is read as that feature, and answers as the source does."""
        support = self.make_importer().info.support
        exact = {feature for feature, claim in support.items() if claim is Support.EXACT}
        sources = self.feature_sources()
        silent = sorted(one.value for one in exact - set(sources) - set(self.untried))
        _demand(not silent, f"called exact, yet neither tried nor named: {silent}")
        more = sorted(one.value for one in (set(sources) | set(self.untried)) - exact)
        _demand(not more, f"tried or named, yet not called exact: {more}")
        for feature, source in sources.items():
            self._try(feature, source)

    def test_reading_twice_gives_the_same_model(self) -> None:
        """The same source gives the same bytes, so nothing of the first reading is left."""
        first, second = self._read(), self._read()
        _demand(_bytes_of(first) == _bytes_of(second), "two readings of one source differ")

    def test_a_missing_framework_says_how_to_install_it(self) -> None:
        """The message names the adapter and the command that installs what it needs."""
        from qonnx_hub_adapters.dependencies import require

        info = self.make_importer().info
        if not info.extra:
            return
        try:
            require("no_such_framework", needed_by=f"adapter {info.name}", extra=info.extra)
        except MissingDependencyError as error:
            told = f"pip install 'qonnx-hub[{info.extra}]'" in str(error)
            _demand(told and info.name in str(error), f"the message does not help: {error}")

    def _read(self) -> Model:
        return self._load(self.make_source())

    def _load(self, source: Any) -> Model:
        return self.make_importer().load(self._prepared(source), self.make_options())

    def _prepared(self, source: Any) -> Any:
        importer = self.make_importer()
        if isinstance(importer, Prepares):
            return importer.prepare(source, self.make_options())
        return source

    def _try(self, feature: Feature, source: Any) -> None:
        import numpy as np

        import qonnx_hub

        model = self._load(source)
        _demand(feature in features_of(model), f"{feature.value}: exact, yet not in the model")
        feeds = self.make_feeds(model)
        own = self.own_answer(source, feeds)
        if own is None:
            return
        answers = zip(qonnx_hub.run(model, feeds).values(), own.values(), strict=True)
        same = all(np.array_equal(ours, theirs, equal_nan=True) for ours, theirs in answers)
        _demand(same, f"{feature.value}: exact, yet the source answers otherwise")


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


def _bytes_of(model: Model) -> bytes:
    import onnx_ir

    return bytes(onnx_ir.to_proto(model).SerializeToString(deterministic=True))
