from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from importlib import resources

import numpy as np
import onnx
import pytest

import qonnx_hub as qh
from qonnx_hub.equivalence.verdicts import Verdict


@pytest.fixture
def pair(nets, surgery):
    model = nets["cnn"]()
    other = surgery.copied(model)
    surgery.change_constant(other, "act1.scale", lambda s: s * np.float32(1.003))
    return model, other


@pytest.fixture
def result(pair):
    return qh.check(*pair, samples=16)


def test_json_is_strict_and_holds_everything(result):
    def refuse(text):
        raise AssertionError(f"{text} is no JSON")

    data = json.loads(result.to_json(), parse_constant=refuse)
    assert data["verdict"] == "DIFFERENT"
    assert data["findings"][0]["layer"] == "act1"
    assert data["findings"][0]["cause"] == "scale re-rounded"
    assert data["first_divergence"]["source"] == "act1"
    assert {row["source"] for row in data["layer_rows"]} >= {"conv1", "act1", "y"}
    assert data["environment"]["numpy"] == np.__version__
    assert (data["seed"], data["samples"]) == (0, result.samples)
    assert {row["layer"] for row in data["coverage"]} == {"in", "act1", "act2"}


def test_isolated_error_is_zero_behind_the_fault(result):
    rows = {row.source: row for row in result.layer_rows}
    assert rows["act1"].isolated.differing > 0
    assert rows["conv2"].comparison.differing > 0
    assert rows["conv2"].isolated.differing == 0


def test_the_failing_input_fails_by_itself(pair, result):
    found = result.failing
    # An inner layer that differs need not reach an output: the output is watched.
    assert found.layer == "y"
    assert found.feeds["x"].shape == (1, 2, 8, 8)
    values = [qh.run(m, found.feeds)["y"][found.where] for m in pair]
    assert tuple(map(float, values)) == found.values
    assert values[0] != values[1]


def test_the_failing_input_is_small(pair, result):
    # Zeros differ here as well (the batch normalization shifts them): nothing is needed.
    assert result.failing.nonzero <= 8


def test_a_failing_input_can_be_saved_and_run(pair, result, tmp_path):
    result.failing.save(tmp_path / "f.npz")
    with np.load(tmp_path / "f.npz") as saved:
        again = qh.check(*pair, dict(saved))
    assert again.verdict is Verdict.DIFFERENT


def test_the_required_tolerance_is_just_enough(pair, result):
    needed = result.required_tolerance()
    assert qh.check(*pair, samples=16, atol=needed["atol"]).verdict is Verdict.WITHIN
    assert (
        qh.check(*pair, samples=16, atol=needed["atol"] * 0.999).verdict is Verdict.DIFFERENT
    )


def test_no_tolerance_is_required_where_all_is_equal(pair):
    assert qh.check(pair[0], pair[0], samples=4).required_tolerance() == {}


class Page(HTMLParser):
    """What a page holds: tags that open and close, and what it would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: set[str] = set()
        self.seen: set[str] = set()
        self.fetched: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        self.fetched += [v for k, v in attrs if k in {"src", "href"}]
        self.ids |= {v for k, v in attrs if k == "id"}
        if tag not in {"meta", "br", "path", "rect", "line", "circle", "input", "link", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            assert self.open.pop() == tag


def test_the_page_needs_nothing_beside_it(result, tmp_path):
    path = tmp_path / "r.html"
    result.to_html(path)
    text = path.read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert page.open == []
    # Links lead to rows of the page itself, and every one of these is there.
    assert {link[0] for link in page.fetched} == {"#"}
    assert {link[1:] for link in page.fetched} <= page.ids
    assert {"svg", "table", "style"} <= page.seen
    assert not re.search(r"https?://|@import|url\(", text)
    for words in ("DIFFERENT", "scale re-rounded", "act1", "Smallest failing input", "seed"):
        assert words in text


def test_names_cannot_break_the_page(nets, surgery, tmp_path):
    model = nets["mlp"]()
    evil = "</script><script>alert(1)</script><b onclick='x'>y\""
    model.graph.output[0].name = evil
    surgery.node_of(model, "y").output[0] = evil
    other = surgery.copied(model)
    surgery.change_constant(other, "act1.scale", lambda s: s * np.float32(1.5))
    qh.check(model, other, samples=4, label="<b>&").to_html(tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert page.open == []
    assert text.count("alert(1)") >= 2
    assert not re.search(r"<b\s", text)
    # One script, the page's own; its hash alone is let run.
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    own = resources.files("qonnx_hub.reporting.pages").joinpath("page.js").read_text("utf-8")
    assert script == own
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in text
    assert "default-src 'none'" in text


def test_the_text_names_layer_and_cause(result):
    text = result.table()
    assert "first divergence: layer 'act1'" in text
    assert "cause: scale re-rounded in 'act1'" in text
    assert "required tolerance: --atol" in text


def test_old_names_of_the_result_stay(result):
    assert result.verdict is Verdict.DIFFERENT
    assert not bool(result)
    # A code apart: one step, less or more what the scales differ by.
    assert result.first_divergence.comparison.max_lsb == pytest.approx(1, abs=0.05)
    assert result.outputs[0].name == "y"
    assert result.summary().startswith("DIFFERENT: ")


def test_assert_equivalent_returns_what_it_found(pair):
    from qonnx_hub.testing import assert_equivalent

    assert assert_equivalent(pair[0], pair[0], samples=4).verdict is Verdict.PROVEN


def test_assert_equivalent_fails_with_the_table(pair):
    from qonnx_hub.testing import assert_equivalent

    with pytest.raises(AssertionError, match="scale re-rounded in 'act1'"):
        assert_equivalent(*pair, samples=4)


def test_the_fixture_is_there_for_other_suites(pair, tmp_path):
    pytester = tmp_path
    onnx.save(pair[0], pytester / "a.onnx")
    onnx.save(pair[1], pytester / "b.onnx")
    (pytester / "conftest.py").write_text('pytest_plugins = ["qonnx_hub.testing"]\n')
    (pytester / "test_it.py").write_text(
        "def test_same(assert_equivalent):\n    assert_equivalent('a.onnx', 'a.onnx')\n"
        "def test_other(assert_equivalent):\n    assert_equivalent('a.onnx', 'b.onnx')\n"
    )
    import os
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(pytester)],
        cwd=pytester,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    assert "cause: scale re-rounded in 'act1'" in done.stdout


def test_a_proof_is_found_for_an_export(nets, tmp_path):
    model = nets["mlp"]()
    qh.convert(model, tmp_path / "q.onnx", to="qcdq")
    result = qh.check(model, tmp_path / "q.onnx", level="proof", samples=8)
    assert result.verdict is Verdict.PROVEN, result.table()
    assert json.loads(result.to_json())["certificate"]["proven"] is True
    assert [row["node"] for row in result.accumulators] == [
        "MatMul 'fc1'",
        "MatMul 'fc2'",
        "MatMul 'y'",
    ]
    # 12 inputs of 6 bits by weights of 4 bits narrow: at most 12 * 32 * 7.
    assert max(-result.accumulators[0]["low"], result.accumulators[0]["high"]) <= 12 * 32 * 7


def test_a_fault_is_refuted_and_shown(nets, surgery):
    model = nets["mlp"]()
    other = surgery.copied(model)
    surgery.change_constant(other, "act2.scale", lambda x: np.nextafter(x, np.float32(9)))
    result = qh.check(model, other, level="proof", samples=8)
    assert result.certificate["proven"] is False
    assert any(note.startswith("refuted: 'act2'") for note in result.notes)
    assert result.verdict is Verdict.DIFFERENT


def test_what_cannot_be_proven_is_sampled(nets, surgery):
    model = nets["mlp"]()
    result = qh.check(model, model, level="layer", samples=8, proof_seconds=0)
    assert (result.certificate, result.verdict) == (None, Verdict.EQUAL)
    recorded = qh.run(model, {"x": np.zeros((2, 12), dtype=np.float32)})
    with pytest.raises(qh.ir.UsageError, match="needs two graphs"):
        qh.check(model, recorded, {"x": np.zeros((2, 12), dtype=np.float32)}, level="proof")
