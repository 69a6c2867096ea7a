"""Answers for machines: JSON by published schemas, JUnit, SARIF, a baseline of lint."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from onnx import helper

import qonnx_hub as qh
from benchmarks import nets
from qonnx_hub.equivalence.reports.junit import junit_xml
from qonnx_hub.reporting.report import Report
from tests.e2e.test_help import run
from tests.report_schemas import FOLDER, net, sample_reports


def _other_reports() -> Iterator[Report]:
    model, other = nets.tfc(2, 2), nets.tfc(2, 2)
    weights = [t for t in other.graph.initializer if len(t.dims) == 2]
    array = onnx.numpy_helper.to_array(weights[1])
    weights[1].CopyFrom(onnx.numpy_helper.from_array(-array, weights[1].name))
    yield qh.check(model, other, samples=8)
    yield qh.inspect(model, ranges=True, weights=True)
    yield qh.cost(model)
    yield qh.diff(model, other)
    yield qh.lint(model, "finn")
    yield qh.convert(model, to="qlinear", samples=4, allow_lossy=True)


def test_every_report_keeps_the_schema_that_it_names(tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    kinds = set()
    for report in (*sample_reports(tmp_path), *_other_reports()):
        document = json.loads(report.to_json())
        name = document["schema"].removeprefix("qonnx-hub/")
        schema = json.loads((FOLDER / f"{name.replace('/', '-')}.json").read_text("utf-8"))
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.validate(document, schema)
        kinds.add(name)
    assert kinds | {"error/1"} == {
        path.stem.replace("-1", "/1") for path in FOLDER.glob("*.json")
    }


def test_a_report_without_its_verdict_breaks_the_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    document = json.loads(qh.check(net(), net(), samples=4).to_json())
    schema = json.loads((FOLDER / "check-1.json").read_text("utf-8"))
    for change in ({"verdict": "FINE"}, {"samples": "four"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**document, **change}, schema)


def test_junit_counts_what_failed_and_says_why() -> None:
    equal, other = qh.check(net(), net(), samples=8), qh.check(net(), net(0.5), samples=8)
    root = ElementTree.fromstring(junit_xml({"same": equal, "other": other}))
    suites = {suite.get("name"): suite for suite in root}
    assert (suites["same"].get("tests"), suites["same"].get("failures")) == ("2", "0")
    assert (suites["other"].get("tests"), suites["other"].get("failures")) == ("2", "2")
    (first, *_) = suites["other"].iter("failure")
    assert "scale" in (first.text or "")


def test_in_junit_bounds_alone_fail_where_they_are_given() -> None:
    x = np.linspace(-1, 1, 24, dtype=np.float32).reshape(8, 3)
    loose = qh.check(net(), net(0.5), x, min_agreement=0.0)
    assert str(loose.verdict) == "DIFFERENT"
    assert not list(ElementTree.fromstring(junit_xml({"x": loose})).iter("failure"))


def test_names_that_xml_cannot_hold_are_spelled() -> None:
    result = qh.check(net(name="y<&\x1b[31m"), net(0.5, "y<&\x1b[31m"), samples=8)
    root = ElementTree.fromstring(junit_xml({"\x00": result}))
    assert any("y<&\\x1b[31m" in str(case.get("name")) for case in root.iter("testcase"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    onnx.save(net(), tmp_path / "a b.onnx")
    more = net()
    more.graph.node.append(
        helper.make_node("Einsum", ["y"], ["last"], "odd", equation="ij->ij")
    )
    more.graph.output[0].name = "last"
    onnx.save(more, tmp_path / "more.onnx")
    return tmp_path


def test_sarif_names_rule_level_file_and_node(folder: Path) -> None:
    code, _ = run("lint", "a b.onnx", "--target", "hls4ml", "--sarif", "out.sarif")
    data = json.loads((folder / "out.sarif").read_text())
    report = qh.lint(folder / "a b.onnx", "hls4ml")
    (found,) = data["runs"]
    assert data["version"] == "2.1.0"
    assert len(found["results"]) == len(report.findings) > 0
    levels = {"refused": "error", "wrong": "error", "unknown": "warning", "note": "note"}
    rules = {rule["id"] for rule in found["tool"]["driver"]["rules"]}
    for result, finding in zip(found["results"], report.findings, strict=True):
        assert result["level"] == levels[finding.severity.value]
        assert result["ruleId"] in rules
        (place,) = result["locations"]
        # A URI has no blank.
        assert place["physicalLocation"]["artifactLocation"]["uri"] == "a%20b.onnx"
        if finding.node:
            assert place["logicalLocations"][0]["fullyQualifiedName"] == finding.node
    assert code == (0 if report else 1)
    assert all(re.fullmatch(r"hls4ml/[a-z-]+", rule) for rule in rules)


def test_a_baseline_leaves_out_what_is_known_and_keeps_what_is_new(folder: Path) -> None:
    target = ("--target", "hls4ml")
    assert run("lint", "a b.onnx", *target)[0] == 1
    assert run("lint", "a b.onnx", *target, "--write-baseline", "known.json")[0] == 0
    code, text = run("lint", "a b.onnx", *target, "--baseline", "known.json")
    assert code == 0
    assert "known of the baseline left out" in " ".join(text.split())
    code, text = run("lint", "more.onnx", *target, "--baseline", "known.json", "--json", "-")
    assert code == 1, text
    assert {one["node"] for one in json.loads(text)["findings"]} == {"odd"}


def test_a_baseline_of_something_else_is_refused(folder: Path) -> None:
    (folder / "no.json").write_text("{}")
    assert run("lint", "a b.onnx", "--target", "ort", "--write-baseline", "ort.json")[0] == 0
    for file in ("no.json", "ort.json", "missing.json"):
        assert run("lint", "a b.onnx", "--target", "finn", "--baseline", file)[0] == 2


def _workflow() -> list[str]:
    """Return the commands of the cookbook's workflow."""
    page = (Path(__file__).parents[2] / "docs" / "cookbook.md").read_text("utf-8")
    (block,) = re.findall(r"^```yaml\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    return re.findall(r"- run: qonnx-hub (.*)$", block, re.MULTILINE)


def test_the_workflow_of_the_cookbook_fails_on_a_planted_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    onnx.save(net(), "model.onnx")
    x = np.linspace(-2, 2, 96, dtype=np.float32).reshape(32, 3)
    np.save("images.npy", x)
    np.save("labels.npy", np.argmax(qh.run("model.onnx", x)["y"], axis=1))
    commands = _workflow()
    assert len(commands) >= 3
    qh.convert("model.onnx", "converted.onnx", to="qcdq")
    assert [run(*shlex.split(command))[0] for command in commands] == [0] * len(commands)
    # A scale twice as large, as a slip of an export would have it.
    qh.convert(net(0.5), "converted.onnx", to="qcdq")
    codes = [run(*shlex.split(command))[0] for command in commands]
    assert codes[0] == 1
    assert "DIFFERENT" in Path("page.html").read_text("utf-8")
