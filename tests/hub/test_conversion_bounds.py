"""A form that is not exact is held to what its exporter predicted, quantizer by quantizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir
import pytest
from onnx_ir import Model

import qonnx_hub as qh
from qonnx_hub_adapters.protocol import Artifact, Bound, ExportOptions
from qonnx_hub_adapters.qcdq.exporter import QcdqExporter
from qonnx_hub_adapters.qlinear.exporter import QlinearExporter
from qonnx_hub_ir.errors import ConversionError
from tests.adapters.qlinear.kit import net

RNG = np.random.default_rng


def odd_layers() -> Model:
    """Two products with scales that are no powers of two, and a float output behind them."""
    n = net()
    n.quant("x", "xq", 0.013, 8)
    n.weight("w", RNG(1).normal(0, 1, (64, 24)), 0.011, 8)
    n.add("MatMul", ["xq", "w"], "acc")
    n.quant("acc", "hidden", 0.17, 8)
    n.weight("v", RNG(2).normal(0, 1, (24, 16)), 0.013, 8)
    n.add("MatMul", ["hidden", "v"], "y")
    return n.model(("N", 64), "y")


def shifted_quantizer() -> Model:
    """A quantizer whose odd zero point QuantizeLinear rounds in its own way."""
    n = net()
    n.quant("x", "y", 0.25, 5, 3.0)
    return n.model(("N", 40), "y")


def damage(model: Model, name: str, change: Callable[[Any], Any]) -> None:
    """Change the one constant whose name ends so."""
    [value] = [v for k, v in model.graph.initializers.items() if k.endswith(name)]
    assert value.const_value is not None
    known = value.const_value.numpy()
    changed = np.asarray(change(known)).astype(known.dtype)
    value.const_value = onnx_ir.tensor(changed, name=value.name)


def convert_damaged(
    monkeypatch: pytest.MonkeyPatch,
    exporter: Any,
    change: Callable[[Artifact], Artifact],
    source: Model,
    path: Path,
    **options: Any,
) -> qh.api.ConversionReport:
    """Convert by an exporter that makes a mistake after its work is done."""
    right = exporter.export

    def wrong(self: Any, model: Model, given: ExportOptions) -> Artifact:
        return change(right(self, model, given))

    monkeypatch.setattr(exporter, "export", wrong)
    return qh.convert(source, path, exporter.info.name, samples=256, **options)


def test_a_bounded_form_that_keeps_its_bound_is_written(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    report = qh.convert(odd_layers(), path, "qlinear", samples=256)
    [record] = [r for r in report.quantizers if r.node == "hidden"]
    assert not record.exact
    assert record.bound is not None
    assert record.bound.steps == 1
    assert 0 < (record.bound.share or 0) < 1e-4
    assert path.exists()


@pytest.mark.parametrize(
    ("constant", "change", "words"),
    [
        # Half a percent of a step more: one in some hundred sums falls to another level.
        ("acc_unit", lambda s: s * 1.005, "quantizer 'hidden' differs at"),
        ("hidden_zero_point", lambda z: z + 1, "quantizer 'hidden' differs at"),
        ("y_unit", lambda s: s * 1.001, "output 'y' differs at"),
    ],
)
def test_a_mistake_beyond_the_bound_is_refused_and_nothing_is_written(
    constant: str,
    change: Callable[[Any], Any],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wrong(artifact: Artifact) -> Artifact:
        damage(artifact.model, constant, change)
        return artifact

    path = tmp_path / "out.onnx"
    with pytest.raises(ConversionError, match=words) as caught:
        convert_damaged(monkeypatch, QlinearExporter, wrong, odd_layers(), path)
    assert "nothing was written" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_share_that_was_predicted_too_small_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What --allow-lossy rounds moves a share of some 1e-4 here; it is said to move none.
    n = net()
    n.quant("x", "xq", 2.0**-7, 8)
    n.weight("w", RNG(1).normal(0, 0.5, (64, 9)), 2.0**-7, 8)
    n.add("MatMul", ["xq", "w"], "acc")
    n.add("Mul", ["acc", n.constant("g", RNG(2).uniform(0.3, 0.9, 9).astype(np.float32))], "t")
    n.add("Add", ["t", n.constant("o", RNG(3).normal(0, 1, 9).astype(np.float32))], "u")
    n.quant("u", "y", 2.0**-6, 8)
    source = n.model((16384, 64), "y")

    def boasting(artifact: Artifact) -> Artifact:
        records = tuple(
            r if r.bound is None else replace(r, bound=Bound(share=0.0))
            for r in artifact.quantizers
        )
        return replace(artifact, quantizers=records)

    path = tmp_path / "out.onnx"
    with pytest.raises(ConversionError, match="a share of 0 was predicted"):
        convert_damaged(monkeypatch, QlinearExporter, boasting, source, path, allow_lossy=True)
    assert not path.exists()


def test_a_quantizer_called_exact_beside_others_must_be_exact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(artifact: Artifact) -> Artifact:
        damage(artifact.model, "xq_zero_point", lambda z: z + 1)
        return artifact

    with pytest.raises(ConversionError, match=r"quantizer 'xq' .* although its form is exact"):
        convert_damaged(
            monkeypatch, QlinearExporter, wrong, odd_layers(), tmp_path / "out.onnx"
        )


def test_integers_of_which_a_quantizer_and_its_twin_have_one_copy_keep_their_bounds(
    tmp_path: Path,
) -> None:
    n = net()
    late = {"signed": 0, "zero_point_after_rounding": 1}
    n.quant("x", "x0", 0.0113, 8, 136.0, **late)
    n.add("Concat", ["x0", "x0"], "both", axis=1)
    n.quant("both", "xq", 0.0113, 8, 136.0, **late)
    n.quant("both", "xr", 0.0113, 8, 136.0, **late)
    n.add("Relu", ["xr"], "positive")
    n.quant("positive", "p", 0.0071, 8, signed=0)
    n.add("Add", ["xq", "p"], "sum")
    n.quant("sum", "s", 0.0173, 8, 92.0, **late)
    n.add("GlobalAveragePool", ["s"], "mean")
    n.quant("mean", "y", 0.0091, 8, signed=0)
    report = qh.convert(n.model((4, 3, 8, 8), "y"), tmp_path / "out.onnx", "qlinear")
    assert report.check is not None
    assert report.check.verdict.holds
    assert any(record.bound is not None for record in report.quantizers)


def test_a_near_form_of_a_zero_point_differs_at_ties_only(tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    report = qh.convert(shifted_quantizer(), path, "qcdq", allow_lossy=True, samples=64)
    [record] = report.quantizers
    assert record.bound == Bound(steps=1, near=0.0)
    assert report.check is not None
    # The generated inputs hold ties, and at these the near form does differ.
    assert report.check.outputs[0].differing > 0
    assert path.exists()


def test_a_near_form_that_differs_elsewhere_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(artifact: Artifact) -> Artifact:
        # A step that is a percent longer moves values that lie on no tie.
        damage(artifact.model, "y_scale", lambda s: s * 1.01)
        return artifact

    path = tmp_path / "out.onnx"
    with pytest.raises(ConversionError, match=r"on no tie|by .* steps at most"):
        convert_damaged(
            monkeypatch, QcdqExporter, wrong, shifted_quantizer(), path, allow_lossy=True
        )
    assert not path.exists()


def test_the_report_holds_the_bound_as_data(tmp_path: Path) -> None:
    report = qh.convert(odd_layers(), tmp_path / "out.onnx", "qlinear", samples=16)
    rows = {row["node"]: row for row in report.to_dict()["quantizers"]}
    assert rows["hidden"]["bound"]["steps"] == 1
    assert rows["xq"]["bound"] is None
