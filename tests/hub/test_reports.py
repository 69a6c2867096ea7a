"""Reports at a prompt, in a notebook and in other hands: one ground for all of them."""

from __future__ import annotations

import io
import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from rich.console import Console

import qonnx_hub as qh
from qonnx_hub.reporting.report import Report
from qonnx_hub.reporting.tables import Table
from tests.support import model_of, quant_node

NAME = "w[/red]<b>"


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    weight = np.linspace(-3, 3, 12, dtype=np.float32).reshape(3, 4)
    nodes = [
        quant_node("x", "xq"),
        quant_node("w", NAME, narrow=1),
        helper.make_node("MatMul", ["xq", NAME], ["y"], NAME),
    ]
    constants = {"s": 0.25, "z": 0.0, "b": 4.0, "w": weight}
    return model_of(nodes, {"x": ("N", 3)}, ["y"], constants)


@pytest.fixture(scope="module")
def reports(model: onnx.ModelProto) -> dict[str, Report]:
    return {
        "convert": qh.convert(model, to="qcdq", samples=8),
        "check": qh.check(model, model, samples=8),
        "inspect": qh.inspect(model, ranges=True, weights=True),
        "lint": qh.lint(model, "ort"),
        "cost": qh.cost(model),
        "diff": qh.diff(model, model),
        "transform": qh.transform(model, ["cleanup"]),
        "routes": qh.routes(model, samples=4),
        "bench": qh.bench(model, batches=(1, 3), backends=["numpy"], seconds=0),
    }


VERBS = ("convert", "check", "inspect", "lint", "cost", "diff", "transform", "routes", "bench")


@pytest.mark.parametrize("verb", VERBS)
def test_a_prompt_shows_one_line(reports: dict[str, Report], verb: str) -> None:
    shown = repr(reports[verb])
    assert "\n" not in shown
    assert len(shown) < 400
    assert reports[verb].summary() in shown


@pytest.mark.parametrize("verb", VERBS)
def test_a_notebook_shows_html_in_which_names_are_no_tags(
    reports: dict[str, Report], verb: str
) -> None:
    page = reports[verb]._repr_html_()
    assert page.startswith("<")
    assert "<b>" not in page


@pytest.mark.parametrize("verb", VERBS)
def test_any_console_shows_names_as_they_are(reports: dict[str, Report], verb: str) -> None:
    stream = io.StringIO()
    Console(file=stream, width=300).print(reports[verb])
    plain = reports[verb].table(300)
    assert NAME in plain or verb in {"diff", "transform", "check", "routes", "bench"}
    assert stream.getvalue().split() == plain.split()


@pytest.mark.parametrize("verb", VERBS)
def test_json_and_rows_are_plain_data(reports: dict[str, Report], verb: str) -> None:
    assert json.loads(reports[verb].to_json())
    assert json.loads(json.dumps(reports[verb].rows())) == reports[verb].rows()


def test_inspect_holds_the_integers_of_weights_as_the_command_line_writes_them(
    reports: dict[str, Report],
) -> None:
    (weight,) = json.loads(reports["inspect"].to_json())["weights"]
    # -3 to 3 in quarters is -12 to 12; four narrow bits end at 7.
    assert (weight["bits"], weight["lowest"], weight["highest"]) == (4, -7, 7)


def test_pandas_gets_one_row_per_layer(
    reports: dict[str, Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    frame: Any = SimpleNamespace(DataFrame=lambda rows: ("frame", rows), __spec__=object())
    monkeypatch.setitem(sys.modules, "pandas", frame)
    kind, rows = reports["cost"].to_pandas()
    assert kind == "frame"
    # 3 x 4 products of one MatMul, by hand.
    assert [row["macs"] for row in rows] == [12]


def test_without_pandas_the_extra_is_named(
    reports: dict[str, Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(qh.MissingDependencyError, match=r"qonnx-hub\[pandas\]"):
        reports["cost"].to_pandas()


def test_text_stays_text_where_rich_believes_it_is_in_a_notebook(
    reports: dict[str, Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    result: Any = reports["check"]
    assert result.summary().split()[0] in result.table()


def test_a_long_table_says_what_html_leaves_out() -> None:
    rows = [(str(k),) for k in range(700)]
    page = Table(("number",), rows).to_html()
    assert '<td style="text-align:left">499</td>' in page
    assert "200 of 700 rows are not shown" in page


def test_every_error_stands_at_the_top() -> None:
    tree = [name for name in qh.__all__ if name.endswith("Error")]
    assert len(tree) == 16
    assert all(issubclass(getattr(qh, name), qh.HubError) for name in tree)
    with pytest.raises(qh.HubError):
        qh.load("/nowhere/at/all.onnx")


def test_inputs_may_be_a_bare_array_or_a_file(model: onnx.ModelProto, tmp_path: Path) -> None:
    x = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    by_name = qh.run(model, {"x": x})["y"]
    np.save(tmp_path / "x.npy", x)
    np.savez(tmp_path / "x.npz", x=x)
    onnx.save(model, tmp_path / "m.onnx")
    session = qh.Session(tmp_path / "m.onnx")
    for given in (x, tmp_path / "x.npy", str(tmp_path / "x.npz")):
        np.testing.assert_array_equal(qh.run(model, given)["y"], by_name)
        np.testing.assert_array_equal(session.run(given)["y"], by_name)
        assert qh.check(model, model, given).samples == 2


def test_one_array_for_two_inputs_is_refused_with_their_names() -> None:
    add = helper.make_node("Add", ["p", "q"], ["y"])
    two = model_of([add], {"p": ("N", 2), "q": ("N", 2)}, ["y"], {})
    with pytest.raises(qh.UsageError, match=r"one array is given for 2 inputs.*p, q"):
        qh.run(two, np.zeros((1, 2), np.float32))


def test_routes_try_every_form_and_name_the_command(reports: dict[str, Report]) -> None:
    by_form = {row["form"]: row for row in reports["routes"].rows()}
    assert {"qonnx", "qonnx --profile finn", "qcdq", "qlinear", "hls4ml"} <= set(by_form)
    assert by_form["qcdq"]["outcome"] == "PROVEN"
    assert (by_form["qcdq"]["exact"], by_form["qcdq"]["quantizers"]) == (2, 2)
    assert by_form["qcdq"]["command"] == "qonnx-hub convert MODEL -o out.onnx --to qcdq"
    refused = [row for row in by_form.values() if row["outcome"] == "refused"]
    assert all(row["why"] and row["size"] is None for row in refused)


def test_lines_of_a_report_are_no_markup_of_a_notebook() -> None:
    class Lines(Report):
        def parts(self) -> Iterator[str]:
            yield "a<b> & c"

    assert ">a&lt;b&gt; &amp; c</div>" in Lines()._repr_html_()


def test_a_refused_route_does_not_stop_the_others() -> None:
    # LSTM has no place in hls4ml's projects that are written, nor in FINN.
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(size=(1, 8, 3)).astype(np.float32),
        "r": rng.normal(size=(1, 8, 2)).astype(np.float32),
    }
    lstm = helper.make_node("LSTM", ["x", "w", "r"], ["y"], "lstm", hidden_size=2)
    rows = qh.routes(model_of([lstm], {"x": (4, 1, 3)}, ["y"], weights), samples=2).rows()
    outcomes = {row["form"]: row["outcome"] for row in rows}
    assert outcomes["qonnx --profile finn"] == "refused"
    assert outcomes["qcdq"] in {"PROVEN", "EQUAL"}


def test_a_benchmark_has_a_row_for_each_batch(reports: dict[str, Report]) -> None:
    rows = reports["bench"].rows()
    assert [(row["backend"], row["batch"]) for row in rows] == [("numpy", 1), ("numpy", 3)]
    assert all(row["runs"] >= 3 and row["fastest"] <= row["median"] for row in rows)


@pytest.mark.parametrize(
    ("inputs", "batches"), [({"x": (3, 2)}, [3, 6]), ({"x": ("N", 2)}, [1, 7]), ({}, [1])]
)
def test_a_benchmark_counts_the_samples_that_ran(
    inputs: dict[str, tuple[int | str, ...]], batches: list[int]
) -> None:
    add = helper.make_node("Add", [next(iter(inputs), "c"), "c"], ["y"])
    model = model_of([add], inputs, ["y"], {"c": np.ones(2, np.float32)})
    rows = qh.bench(model, batches=(1, 7), backends=["numpy"], seconds=0).rows()
    assert [row["batch"] for row in rows] == batches
    for row in rows:
        assert row["samples_per_second"] == row["batch"] / row["median"]


@pytest.mark.parametrize("batches", [(), (0,), (4, -1)])
def test_a_batch_of_no_samples_is_refused(
    model: onnx.ModelProto, batches: tuple[int, ...]
) -> None:
    with pytest.raises(qh.UsageError, match="batches are numbers of samples"):
        qh.bench(model, batches=batches, backends=["numpy"], seconds=0)


def test_a_route_names_the_format_that_was_given(
    model: onnx.ModelProto, tmp_path: Path
) -> None:
    path = tmp_path / "a b.onnx"
    onnx.save(model, path)
    row = qh.routes(path, from_="qonnx", samples=4).rows()[1]
    words = shlex.split(row["command"])
    assert words[:5] == ["qonnx-hub", "convert", str(path), "--from", "qonnx"]
    assert words[5:] == ["-o", "out.onnx", "--to", "qonnx", "--profile", "finn"]
