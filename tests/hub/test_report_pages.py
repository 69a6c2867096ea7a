"""Pages for the browser: charts as numbers, a graph as boxes, what fits, every report."""

from __future__ import annotations

import numpy as np
import onnx_ir
import pytest
from onnx import helper

import qonnx_hub as qh
from qonnx_hub.cli.many import Outcome, outcomes_page
from qonnx_hub.equivalence.comparison.compare import Tolerance, tally
from qonnx_hub.equivalence.stages import stages_of
from qonnx_hub.reporting.pages.charts import bars, histogram, number, scatter, ticks
from qonnx_hub.reporting.pages.page import Page, Row, Rows, Section, render
from qonnx_hub.reporting.pages.pictures import GraphStep, draw
from tests.support import model_of, quant_node


def net(weight: float = 1.0):
    nodes = [
        quant_node("x", "q", "s", "z", "b"),
        quant_node("w", "v", "s", "z", "b"),
        helper.make_node("MatMul", ["q", "v"], ["m"], "m"),
        helper.make_node("Relu", ["m"], ["r"], "r"),
        quant_node("r", "y", "s", "z", "b"),
    ]
    weights = np.full((4, 4), weight, dtype=np.float32)
    held = {"s": 0.25, "z": 0.0, "b": 4.0, "w": weights}
    return model_of(nodes, {"x": (1, 4)}, ["y"], held)


@pytest.mark.parametrize(
    ("low", "high", "found"),
    [
        (0.0, 9.3, [0, 2, 4, 6, 8]),
        (0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (-1.2, 0.7, [-1, -0.5, 0, 0.5]),
        (0.0, 14_155_776.0, [0, 5e6, 1e7]),
        (3.0, 3.0, [3]),
    ],
)
def test_an_axis_has_round_numbers(low, high, found) -> None:
    assert ticks(low, high) == pytest.approx(found)


def test_numbers_at_an_axis_are_short() -> None:
    assert [number(x) for x in (0.0, 2.5, 1000.0, 2e6, 1e-7)] == [
        "0",
        "2.5",
        "1,000",
        "2M",
        "1e-07",
    ]


def test_bars_are_percent_of_the_largest() -> None:
    chart = bars([("a", (2.0,), "2", ""), ("b", (8.0,), "8", "")], ("n",), "n")
    assert [bar.lengths for bar in chart.bars] == [(25.0,), (100.0,)]
    assert (chart.ticks[1].at, chart.ticks[1].text) == (25.0, "2")


def test_a_logarithmic_axis_shows_one_step_beside_thousands() -> None:
    chart = bars(
        [("a", (1.0,), "", ""), ("b", (9999.0,), "", "")], ("n",), "n", logarithmic=True
    )
    # log10(1 + 1) of log10(1 + 9999) = 4.
    assert chart.bars[0].lengths[0] == pytest.approx(100 * np.log10(2) / 4)
    assert [tick.text for tick in chart.ticks] == ["0", "1", "10", "100", "1,000"]


def test_a_histogram_stands_on_its_labels() -> None:
    plot = histogram("t", {"1": 30, "2": 10}, "w")
    assert [column[:2] for column in plot.columns] == [
        (0.0, 100.0),
        (50.0, pytest.approx(33.3, 0.01)),
    ]
    assert [(tick.at, tick.text) for tick in plot.across] == [(25.0, "1"), (75.0, "2")]


def test_equal_points_lie_on_the_diagonal() -> None:
    plot = scatter("t", [(0.0, 0.0), (4.0, 4.0), (1.0, 3.0), (np.nan, 1.0)], "w")
    assert plot.points == ((0.0, 0.0), (100.0, 100.0), (25.0, 75.0))


def test_operators_up_to_a_quantizer_are_one_box() -> None:
    found = stages_of(qh.load(net()))
    assert [stage.operators for stage in found] == [("input",), ("MatMul", "Relu")]
    assert [stage.result for stage in found] == ["int4", "int4"]
    assert (found[1].weights, found[1].inputs) == ("int4", (0,))


def test_what_goes_around_a_box_has_a_lane_beside_it() -> None:
    def stage(*inputs: int) -> GraphStep:
        return GraphStep(("n",), ("Conv",), "", "", inputs)

    picture = draw([stage(), stage(0), stage(1), stage(2, 0)])
    assert picture is not None
    right = max(box.x for box in picture.boxes) + picture.box[0]
    assert picture.width > right + 10
    assert len({box.y for box in picture.boxes}) == 4
    assert len(picture.paths) == 4


def test_points_are_the_same_ones_in_any_grouping() -> None:
    rng = np.random.default_rng(0)
    parts = [
        tally(
            *(rng.standard_normal(400).astype(np.float32) for _ in range(2)),
            tolerance=Tolerance(),
            batch=k,
            start=k * 400,
        )
        for k in range(3)
    ]
    one, other = (parts[0] + parts[1]) + parts[2], parts[0] + (parts[1] + parts[2])
    assert one.points == other.points
    assert len(one.points) == 256
    assert one.decades == other.decades
    assert sum(one.decades.values()) == 1200


def test_differences_are_counted_by_their_powers_of_ten() -> None:
    a = np.zeros(4, dtype=np.float64)
    found = tally(a, np.array([0.0, 0.02, -0.03, 500.0]), tolerance=Tolerance())
    assert found.decades == {-2: 2, 2: 1}


@pytest.mark.parametrize("length", [10, 3000])
def test_a_page_stays_small_and_keeps_what_differs(length) -> None:
    rows = tuple(Row(("<&>" * (length // 3), str(k)), k % 1000 == 7) for k in range(6000))
    table = Rows(("name", "number"), rows, 1)
    text = render(Page("h", "l", (Section("s", (table, table)),)))
    assert len(text.encode()) < 500_000
    assert "rows are not shown" in text
    assert text.count('class="bad"') == 12


def test_a_net_of_many_layers_has_a_small_page(tmp_path) -> None:
    nodes = [
        helper.make_node("Relu", ["x" if k == 0 else f"t{k}"], [f"t{k + 1}"], f"layer_{k}" * 4)
        for k in range(3000)
    ]
    found = qh.inspect(model_of(nodes, {"x": (1, 4)}, ["t3000"], {}), ranges=True)
    found.to_html(tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size < 500_000


def test_every_report_has_a_page(tmp_path) -> None:
    model, other = net(), net(0.5)
    reports = {
        "What became of the quantizers": qh.convert(model, to="qcdq"),
        "Quantized tensors": qh.inspect(model, ranges=True, weights=True),
        "Bit operations by layer": qh.cost(model),
        "Routes": qh.routes(model),
        "Sides": qh.check_many(model, [other, model]),
        "Differences of two graphs": qh.diff(model, other),
        "What a target takes": qh.lint(model, "qonnx"),
        "Transformation": qh.transform(model, ["cleanup"]),
    }
    for words, report in reports.items():
        report.to_html(tmp_path / "page.html")
        text = (tmp_path / "page.html").read_text("utf-8")
        assert words in text, words
        assert "&amp;lt;" not in text, words


def test_a_folder_of_conversions_is_one_page() -> None:
    report = {
        "format": "qcdq",
        "quantizers": [{"exact": True}, {"exact": False}],
        "verdict": "PROVEN",
    }
    done = Outcome("a.onnx", "out/a.onnx", 0, "a", report=report)
    failed = Outcome("b<.onnx", "out/b.onnx", 3, "b", error="no importer reads it")
    text = render(outcomes_page([done, failed]))
    for words in (
        "1 of 2 done",
        "1 of 2",
        "PROVEN",
        "b&lt;.onnx",
        "no importer reads it",
    ):
        assert words in text
    assert "only what failed or differs" in text


def test_a_weight_that_a_node_without_inputs_makes_is_no_quantized_one() -> None:
    constant = helper.make_node("Constant", [], ["w"], value_float=2.0)
    model = model_of(
        [constant, helper.make_node("Mul", ["x", "w"], ["y"])], {"x": (2,)}, ["y"]
    )
    assert [one.operators for one in stages_of(onnx_ir.from_proto(model))] == [
        ("input", "Mul")
    ]
