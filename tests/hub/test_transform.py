"""Passes by name, options as text, pipelines, and what a transformation promises."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx
import onnx_ir
import pytest
from onnx import helper
from onnx_ir import Model
from onnx_ir.passes import InPlacePass, PassResult
from typer.testing import CliRunner

import qonnx_hub as qh
from benchmarks import nets
from qonnx_hub import passes
from qonnx_hub.api import ConversionError
from qonnx_hub.cli import app
from qonnx_hub.transformation.pass_options import build, option_names, split
from qonnx_hub_ir.effects import Effect
from qonnx_hub_ir.errors import (
    AdapterConflictError,
    InvalidModelError,
    PassError,
    UsageError,
)
from qonnx_hub_ir.passes import (
    ChangeLayout,
    DropUnused,
    NameNodes,
    QuantizeFixedPoint,
    RemoveIdentity,
)
from qonnx_hub_ir.passes.layout.change_layout import transpose_input, transpose_output
from qonnx_hub_ir.quantizers import Array
from tests.support import model_of, quant_node

CONSTANTS = {"s": 0.5, "z": 0.0, "b": 4.0, "one": 1.0}


def small() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Mul", ["x", "one"], ["t"], "times"),
        quant_node("t", "u"),
        quant_node("u", "y"),
    ]
    return model_of(nodes, {"x": (2, 3)}, ["y"], CONSTANTS)


# Names and options


def test_every_exported_pass_has_a_name_a_summary_and_a_picture() -> None:
    names = passes.names()
    assert {"remove_identity", "fold_batchnorm", "change_batch", "give_names"} <= set(names)
    for name in names:
        info = passes.describe(name)
        assert info.summary.endswith("."), name
        assert any("->" in line for line in info.change), name
        assert issubclass(passes.get(name), InPlacePass)


def test_every_pass_is_a_frozen_dataclass() -> None:
    for name in passes.names():
        parameters = getattr(passes.get(name), "__dataclass_params__", None)
        assert parameters is not None, name
        assert parameters.frozen, name


@dataclass(frozen=True)
class Example(InPlacePass):
    """Do nothing.

    Before -> after: ``x`` -> ``x``.
    """

    number: int
    share: float = 0.5
    loud: bool = False
    word: str | None = None
    either: int | str = 0
    names: tuple[str, ...] = ()
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    masks: Mapping[str, Array] = field(default_factory=dict)
    hidden: ClassVar[int] = 3

    def call(self, model: Model) -> PassResult:
        """Return the model."""
        return PassResult(model, modified=False)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("number=4", {"number": 4}),
        ("number=4, share=2", {"share": 2.0}),
        ("number=4,loud=true", {"loud": True}),
        ("number=4,loud=no", {"loud": False}),
        ("number=4,word=a b", {"word": "a b"}),
        ("number=4,word=none", {"word": None}),
        ("number=4,either=7", {"either": 7}),
        ("number=4,either=N", {"either": "N"}),
        ("number=4,names=a,names=b=c", {"names": ("a", "b=c")}),
        ('number=4,names=["a","b,c"]', {"names": ("a", "b,c")}),
        ('number=4,sizes={"a":[8,3],"b":[4,1]}', {"sizes": {"a": (8, 3), "b": (4, 1)}}),
    ],
)
def test_text_gives_options_the_types_of_the_fields(text: str, wanted: dict[str, Any]) -> None:
    found = build(Example, "example", text)
    assert isinstance(found, Example)
    for name, value in wanted.items():
        assert getattr(found, name) == value
        assert type(getattr(found, name)) is type(value)


def test_long_values_come_from_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "m.npz", conv=np.array([True, False]))
    (tmp_path / "sizes.json").write_text('{"a": [8, 3]}')
    text = f"number=1,masks=@{tmp_path / 'm.npz'},sizes=@{tmp_path / 'sizes.json'}"
    found: Any = build(Example, "example", text)
    assert found.masks["conv"].tolist() == [True, False]
    assert found.sizes == {"a": (8, 3)}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "pass 'example' needs number; its options are: number: whole number; share"),
        ("number=x", "option 'number' of pass 'example' takes whole number, not 'x'"),
        ("number=4.5", "takes whole number, not '4.5'"),
        ("number=4,number=5", "is given 2 times"),
        ("number=4,loud=perhaps", "takes true|false, not 'perhaps'"),
        ("number=4,speed=3", "pass 'example' has no option 'speed'"),
        ("number", "pass 'example' has no option 'number'"),
        ("number=4,names=[a", "is not JSON"),
        ("number=4,sizes=a", "takes name=value, not 'a'"),
        ("number=4,sizes=[1]", "takes name=value, not '[1]'"),
        ("number=4,sizes=@nowhere.json", "there is no file 'nowhere.json'"),
        ("number=4,hidden=1", "has no option 'hidden'"),
    ],
)
def test_text_that_does_not_fit_says_what_would(text: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(Example, "example", text)
    assert reason in str(caught.value)


def test_a_file_that_is_not_what_its_suffix_says_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.npz").write_text("nothing")
    with pytest.raises(UsageError, match=r"m\.npz' cannot be read"):
        build(Example, "example", f"number=1,masks=@{tmp_path / 'm.npz'}")


def test_commas_in_brackets_and_quotes_separate_nothing() -> None:
    assert split('a=[1,2],b={"c":[3,"]"]} , c="x,y"') == [
        "a=[1,2]",
        'b={"c":[3,"]"]}',
        'c="x,y"',
    ]


def test_options_are_described_with_their_defaults() -> None:
    words = option_names(Example)
    assert words[0] == "number: whole number"
    assert "loud: true|false = false" in words
    assert "word: text = none" in words
    assert "either: whole number or text = 0" in words
    assert "names: text, repeated = none" in words


def test_an_unknown_pass_names_those_that_there_are() -> None:
    with pytest.raises(
        UsageError, match=r"no pass is called 'fly'; there are: .*remove_identity.*cleanup"
    ):
        passes.make("fly")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("clenup", "did you mean 'cleanup'?"),
        ("cleanup:x=1", "that is a pipeline, which takes no options;"),
    ],
)
def test_a_pipeline_is_named_as_it_is_called(name: str, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        passes.make(name)


# Running


def test_steps_are_texts_passes_and_pipelines() -> None:
    model = qh.load(small())
    steps = ["remove_identity", DropUnused(), "cleanup"]
    records = passes.run(model, steps)
    assert [r.name for r in records][:2] == ["remove_identity", "drop_unused"]
    assert [node.op_type for node in model.graph] == ["Quant"]


def test_a_record_says_what_a_pass_changed() -> None:
    model = qh.load(small())
    first, second, third = passes.run(
        model, ["remove_identity", "extract_scale", "quantize_fixed_point:bits=7,skip=x"]
    )
    assert (first.modified, first.operators, first.removed) == (True, {"Mul": -1}, ("times",))
    assert (first.added, first.options, first.effect) == ((), {}, Effect.EXACT)
    assert second.operators == {"Div": 2, "Mul": 2}
    assert set(second.added) == {"u_Div_0", "u_Mul_1", "y_Div_0", "y_Mul_1"}
    assert third.options == {"bits": "7", "skip": "('x',)"}
    assert third.effect is Effect.VALUES
    assert first.seconds >= 0


def test_values_that_a_pass_makes_have_shapes_for_the_next_one() -> None:
    model = qh.load(small())
    passes.run(model, ["extract_scale", "quant_to_multithreshold"])
    shapes = [value.shape for node in model.graph for value in node.outputs]
    assert shapes
    assert all(shape is not None and list(shape) == [2, 3] for shape in shapes)


def test_a_pipeline_runs_until_nothing_changes() -> None:
    model = qh.load(small())
    records = passes.run(model, ["cleanup"])
    stages = len(passes.PIPELINES["cleanup"].stages)
    assert len(records) % stages == 0
    assert len(records) >= 2 * stages
    assert not any(record.modified for record in records[-stages:])


def test_every_stage_of_a_pipeline_is_a_pass_with_a_reason() -> None:
    for name, pipeline in passes.PIPELINES.items():
        assert name not in passes.names()
        assert pipeline.summary
        for stage in pipeline.stages:
            assert isinstance(passes.make(stage.step), InPlacePass)
            assert len(stage.reason.split()) > 2


def test_a_broken_model_is_refused_before_any_pass_runs() -> None:
    model = qh.load(small())
    model.graph.outputs.clear()
    with pytest.raises(InvalidModelError, match="the model given is not a valid model"):
        passes.run(model, ["name_nodes"])


@dataclass(frozen=True)
class Breaks(InPlacePass):
    """Forget the outputs."""

    def call(self, model: Model) -> PassResult:
        """Return a model without outputs."""
        model.graph.outputs.clear()
        return PassResult(model, modified=True)


@dataclass(frozen=True)
class Fails(InPlacePass):
    """Fail as foreign code fails."""

    def call(self, model: Model) -> PassResult:
        """Raise."""
        raise KeyError("axis")


@dataclass(frozen=True)
class Refuses(InPlacePass):
    """Refuse at any place."""

    where: str

    def requires(self, model: Model) -> None:
        """Refuse."""
        if self.where == "before":
            raise PassError("the opset is too new")

    def call(self, model: Model) -> PassResult:
        """Refuse."""
        if self.where == "inside":
            raise PassError("node 'a' is in the way")
        return PassResult(model, modified=True)

    def ensures(self, model: Model) -> None:
        """Refuse."""
        raise PassError("a Gemm is left")


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Breaks(), "what the pass 'Breaks' made is not a valid model"),
        (Fails(), "pass 'Fails' failed: KeyError: its inputs, attributes or types do not"),
        (Refuses("before"), "pass 'Refuses' cannot run here: the opset is too new"),
        (Refuses("inside"), "pass 'Refuses': node 'a' is in the way"),
        (Refuses("behind"), "pass 'Refuses' broke its promise: a Gemm is left"),
    ],
)
def test_whatever_goes_wrong_names_the_pass(step: InPlacePass, message: str) -> None:
    with pytest.raises(PassError) as caught:
        passes.run(qh.load(small()), [step])
    assert message in str(caught.value)


# Transforming


def test_a_transformation_leaves_its_source_alone_and_checks_itself() -> None:
    model = qh.load(small())
    report = qh.transform(model, ["cleanup"])
    assert [n.op_type for n in model.graph] == ["Mul", "Quant", "Quant"]
    assert [n.op_type for n in report.model.graph] == ["Quant"]
    assert report.modified
    assert report.check is not None
    # The inner quantizer that went away has no counterpart: a doubt, and no difference.
    assert report.check.verdict in ("PROVEN", "UNDECIDED")
    assert [output.differing for output in report.check.outputs] == [0]
    assert all(output.count for output in report.check.outputs)


def test_a_pass_that_changes_values_without_saying_so_is_caught(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Doubles(InPlacePass):
        def call(self, model: Model) -> PassResult:
            value = model.graph.initializers["s"]
            value.const_value = _doubled(value.const_value)
            return PassResult(model, modified=True)

    path = tmp_path / "out.onnx"
    with pytest.raises(ConversionError, match="nothing was written"):
        qh.transform(small(), [Doubles()], path)
    assert not list(tmp_path.iterdir())


def _doubled(tensor: Any) -> Any:
    import onnx_ir

    return onnx_ir.tensor(tensor.numpy() * np.float32(2), name=tensor.name)


def test_values_that_change_by_intention_are_compared_and_noted(tmp_path: Path) -> None:
    report = qh.transform(
        nets.tfc(2, 2), [QuantizeFixedPoint(6, 3)], tmp_path / "out.onnx", samples=4
    )
    assert report.check is not None
    assert report.check.verdict == "DIFFERENT"
    assert any("changes them by intention" in note for note in report.notes)
    assert (tmp_path / "out.onnx").exists()


def test_renamed_inputs_and_outputs_are_compared() -> None:
    report = qh.transform(small(), ["rename_tensors:names=x=image,names=y=out"])
    assert [v.name for v in report.model.graph.inputs] == ["image"]
    assert report.check is not None
    assert report.check.verdict == "PROVEN"


@pytest.mark.parametrize("batch", [4, 3])
def test_another_batch_is_compared_sample_by_sample(batch: int) -> None:
    report = qh.transform(
        nets.fix_batch(nets.tfc(2, 2), 2), [f"change_batch:batch={batch}"], samples=5
    )
    assert report.model.graph.inputs[0].shape[0] == batch
    assert report.check is not None
    assert report.check.samples % (batch * 2 // np.gcd(batch, 2)) == 0
    assert report.check.verdict in ("EQUAL", "WITHIN")


def test_another_layout_is_compared_pixel_by_pixel() -> None:
    rng = np.random.default_rng(0)
    weight = rng.integers(-3, 4, size=(4, 3, 3, 3)).astype(np.float32)
    conv = helper.make_node("Conv", ["x", "w"], ["y"], "conv")
    source = model_of([conv], {"x": (1, 3, 6, 5)}, ["y"], {"w": weight})
    report = qh.transform(source, ["change_layout:layout=nhwc"])
    assert list(report.model.graph.inputs[0].shape) == [1, 6, 5, 3]
    assert report.check is not None
    assert report.check.outputs[0].count > 0
    assert report.check.verdict in ("EQUAL", "WITHIN")


@pytest.mark.parametrize("apart", [0.0, 1e-6])
def test_no_tolerance_hides_a_parameter_behind_another_layout(apart: float) -> None:
    @dataclass(frozen=True)
    class Turns(InPlacePass):
        effect: ClassVar[Effect] = Effect.SIGNATURE

        def call(self, model: Model) -> PassResult:
            ChangeLayout("nhwc")(model)
            stored = model.graph.initializers["s"]
            scale = np.float32(0.25 * (1 + apart))
            stored.const_value = onnx_ir.tensor(np.asarray(scale), name="s")
            return PassResult(model, modified=True)

    nodes = [
        helper.make_node("Mul", ["x", "s"], ["t"], "scale"),
        helper.make_node("MaxPool", ["t"], ["y"], "pool", kernel_shape=[2, 2]),
    ]
    source = model_of(nodes, {"x": (1, 3, 6, 5)}, ["y"], {"s": 0.25})
    if not apart:
        assert qh.transform(source, [Turns()]).check.verdict in ("PROVEN", "EQUAL")
        return
    with pytest.raises(ConversionError, match="changed what"):
        qh.transform(source, [Turns()])


def test_layouts_that_are_changed_there_and_back_leave_each_value_a_name() -> None:
    conv = helper.make_node("Conv", ["x", "w"], ["y"], "conv")
    weight = np.ones((4, 3, 3, 3), dtype=np.float32)
    model = qh.load(model_of([conv], {"x": (1, 3, 6, 5)}, ["y"], {"w": weight}))
    value = model.graph.inputs[0]
    for perm in ((0, 2, 3, 1), (0, 3, 1, 2)):
        transpose_input(model, value, perm)
        transpose_output(model, model.graph.outputs[0], perm)
    names = [v.name for node in model.graph for v in node.outputs]
    assert len(set(names)) == len(names) == 5
    x = np.random.default_rng(0).normal(size=(1, 3, 6, 5)).astype(np.float32)
    assert qh.run(model, {"x": x})["y"].shape == (1, 4, 4, 3)


def test_other_shapes_are_not_compared_and_that_is_said() -> None:
    @dataclass(frozen=True)
    class Drops(InPlacePass):
        effect: ClassVar[Effect] = Effect.SIGNATURE

        def call(self, model: Model) -> PassResult:
            model.graph.outputs[:] = list(model.graph.outputs)[:1]
            return PassResult(model, modified=True)

    nodes = [quant_node("x", "y"), helper.make_node("Relu", ["y"], ["y2"])]
    source = model_of(nodes, {"x": (2, 3)}, ["y", "y2"], CONSTANTS)
    report = qh.transform(source, [Drops()])
    assert report.check is None
    assert any("not compared" in note and "Drops" in note for note in report.notes)


def test_nothing_to_do_is_said() -> None:
    report = qh.transform(small(), [NameNodes()])
    assert not report.modified
    assert report.check is None
    assert report.notes == ("no pass found anything to change",)


def test_a_report_is_data() -> None:
    report = qh.transform(small(), ["remove_identity"], seed=1)
    data = json.loads(report.to_json())
    assert data["modified"] is True
    assert data["steps"][0]["operators"] == {"Mul": -1}
    assert data["steps"][0]["effect"] == "exact"
    assert data["check"]["verdict"] == "PROVEN"
    assert data["path"] is None


def test_a_written_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    report = qh.transform(small(), [RemoveIdentity()], path, opset=21)
    assert report.path == str(path)
    again = qh.load(path)
    assert again.opset_imports[""] == 21
    assert qh.check(small(), path).verdict == "PROVEN"


# Passes of other distributions


PLUGIN = '''
from dataclasses import dataclass
from onnx_ir.passes import InPlacePass, PassResult

@dataclass(frozen=True)
class MarkModel(InPlacePass):
    """Write a remark into the model.

    Before -> after: no remark -> ``remark``.
    """

    remark: str = "seen"

    def call(self, model):
        modified = model.metadata_props.get("remark") != self.remark
        model.metadata_props["remark"] = self.remark
        return PassResult(model, modified=modified)

class NoPass:
    pass
'''


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A distribution with entry points, as pip would install it, for this test only."""

    def install(**points: str) -> None:
        (tmp_path / "hub_plugin_of_a_test.py").write_text(PLUGIN)
        about = tmp_path / "hub_plugin_of_a_test-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
        lines = [f"{name} = {value}" for name, value in points.items()]
        text = "\n".join([f"[{passes.PASS_GROUP}]", *lines, ""])
        (about / "entry_points.txt").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        importlib.invalidate_caches()

    yield install
    sys.modules.pop("hub_plugin_of_a_test", None)


def test_a_pass_of_another_distribution_is_found_and_runs(distribution: Any) -> None:
    distribution(mark_model="hub_plugin_of_a_test:MarkModel")
    assert "mark_model" in passes.names()
    assert passes.describe("mark_model").options == ("remark: text = seen",)
    report = qh.transform(small(), ["mark_model:remark=done", "remove_identity"])
    assert report.model.metadata_props["remark"] == "done"
    assert [step.name for step in report.steps] == ["mark_model", "remove_identity"]


@pytest.mark.parametrize(
    ("name", "place", "error", "reason"),
    [
        ("remove_identity", "MarkModel", AdapterConflictError, "two passes are called"),
        ("cleanup", "MarkModel", AdapterConflictError, "has the name of a pipeline"),
        ("odd", "NoPass", UsageError, "is no onnx_ir InPlacePass"),
        ("odd", "Missing", UsageError, "the pass 'odd' cannot be imported"),
    ],
)
def test_a_registration_that_cannot_be_is_refused(
    distribution: Any, name: str, place: str, error: type[Exception], reason: str
) -> None:
    distribution(**{name: f"hub_plugin_of_a_test:{place}"})
    with pytest.raises(error, match=reason):
        passes.get(name)


def test_a_promise_that_options_decide_is_told_for_the_default_ones() -> None:
    assert passes.describe("streamline").effect is passes.Effect.ROUNDING
    assert passes.describe("change_batch").effect is passes.Effect.SIGNATURE
    assert passes.describe("drop_unused").effect is passes.Effect.EXACT


def test_predictions_on_data_are_counted_before_and_after(tmp_path):
    """The classes of six points, by hand: a coarser scale moves one near the border."""
    nodes = [
        quant_node("x", "q", "s", "z", "b"),
        helper.make_node("MatMul", ["q", "w"], ["y"]),
    ]
    constants = {"s": 0.3, "z": 0.0, "b": 8.0, "w": np.array([[1, -1]], dtype=np.float32)}
    model = model_of(nodes, {"x": (1, 1)}, ["y"], constants)
    points = np.array([[-0.2], [0.2], [-0.4], [0.4], [-1.0], [1.0]], dtype=np.float32)
    # -0.2 becomes -0.3 with a scale of 0.3, and 0 with one of 0.5: then the first class wins.
    labels = np.array([1, 0, 1, 0, 1, 0])
    report = qh.transform(model, ["power_of_two_scales"], inputs={"x": points}, labels=labels)
    score = report.check.score
    assert (score.samples, score.changed) == (6, 1)
    assert score.correct == (6, 5)
    np.save(tmp_path / "x.npy", points)
    np.save(tmp_path / "y.npy", labels)
    onnx.save(model, tmp_path / "m.onnx")
    call = ["transform", str(tmp_path / "m.onnx"), "--pass", "power_of_two_scales"]
    call += ["--data", str(tmp_path / "x.npy"), "--labels", str(tmp_path / "y.npy")]
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 0
    assert "predictions: 1 of 6 changed; accuracy 100.0000% and 83.3333%" in done.stdout
